-- ChatDataset: conversations of OpenAI's form, a row each: `messages` (role, content, tool_calls, tool_call_id,
-- reasoning_content) and `tools`; or of ShareGPT's, `conversations` (from, value). The tokenizer's chat
-- template writes them, and what the assistant says is learnt (conversation.lua).

local err = require("am.core.error")
local json = require("am.utils.json")
local number = require("am.utils.number")
local strings = require("am.utils.strings")
local conversation = require("am.datasets.conversation")
local file_rows = require("am.datasets.file_rows")
local formatting = require("am.datasets.formatting")
local mapped = require("am.datasets.mapped")
local philox = require("am.datasets.philox")
local utils = require("am.datasets.utils")

local M = {}

--- What the `dataset` section may hold for this dataset.
M.fields = formatting.fields(mapped.fields, formatting.length_fields, {
    path_or_dataset_id = { type = "string|list", required = true, doc = file_rows.doc },
    split = { type = "string", doc = "of a hub name; \"train[1024:]\" is a part of the rows, of files too" },
    name = { type = "string", doc = "configuration of a hub name" },
    chat_template = { type = "string", doc = "a template or its file, instead of the tokenizer's" },
    shuffle_seed = { type = "integer", min = 0, doc = "shuffle the rows before split takes its part" },
    mask_reasoning_content = { type = "boolean", default = false, doc = "do not learn reasoning_content" },
    mask_history = { type = "boolean", default = false, doc = "learn the last turn only" },
    mask_generation_prompt = conversation.mask_generation_prompt,
    skip_invalid_samples = { type = "boolean", default = false, doc = "leave out lines that are not JSON" },
    unshifted = { type = "boolean", enum = { false }, default = false, doc = "rows of diffusion models: not here" },
    start_of_turn_token = { type = "string", no_effect = "the template says where a turn begins" },
})

--- How rows with tools are parsed: templates print them, in the order of their keys and with 1 apart from 1.0.
M.parse = { ordered = true, exact_numbers = true }

--- What JSON's values are: nothing, an object, a list.
function M.is_null(x)
    return x == nil or x == json.null
end

local number_box = getmetatable(json.float(1)) -- of numbers that were read exactly

function M.is_object(x)
    return type(x) == "table" and x ~= json.null and not json.is_array(x) and getmetatable(x) ~= number_box
end

function M.is_list(x)
    return type(x) == "table" and x ~= json.null and (json.is_array(x) or next(x) == nil)
end

local is_null, is_object, is_list = M.is_null, M.is_object, M.is_list

local function copy_of(object)
    local copy = json.object({}, json.keys(object))
    for key, value in pairs(object) do
        copy[key] = value
    end
    return copy
end

--- Content as text: of a list of parts those that are text. `where` is what an error calls the message.
function M.content_text(content, where)
    if is_null(content) then
        return ""
    elseif type(content) == "number" or getmetatable(content) == number_box then
        return type(content) == "number" and number.text(content) or tostring(content)
    elseif is_list(content) then
        local texts = {}
        for _, part in ipairs(content) do
            if is_object(part) and type(part.text) == "string" then
                texts[#texts + 1] = part.text
            end
        end
        return table.concat(texts, " ")
    elseif type(content) ~= "string" then
        err.raise("data", "%s: content is neither text nor a list of parts", where)
    end
    return content
end

-- A text that may be left out: `default` stands for it then.
local function optional_text(value, default, where, key)
    if is_null(value) or value == "" then
        return default
    elseif type(value) ~= "string" then
        err.raise("data", "%s.%s: expected text, got a %s", where, key, type(value))
    end
    return value
end

--- Calls of tools in OpenAI's form, with their arguments as JSON.
function M.tool_calls(calls, where)
    if not is_list(calls) then
        err.raise("data", "%s.tool_calls is no list", where)
    end
    local out = json.array {}
    for i, call in ipairs(calls) do
        local at = string.format("%s.tool_calls[%d]", where, i - 1)
        local called = is_object(call) and call["function"]
        if not is_object(called) then
            err.raise("data", "%s: a call needs a function with name and arguments", at)
        elseif type(called.name) ~= "string" or called.name == "" then
            err.raise("data", "%s.function.name must be a text", at)
        elseif is_null(called.arguments) then
            err.raise("data", "%s.function.arguments is missing", at)
        end
        local copy, inner = copy_of(call), copy_of(called)
        copy.id = optional_text(call.id, "call_" .. i - 1, at, "id")
        copy.type = optional_text(call.type, "function", at, "type")
        if type(called.arguments) ~= "string" then
            inner.arguments = json.encode(called.arguments, { ascii = true })
        end
        copy["function"] = inner
        out[i] = copy
    end
    return out
end

local roles = { system = true, user = true, assistant = true, tool = true }

-- One of OpenAI's messages, checked, its content as text.
local function checked_message(message, where)
    if not is_object(message) then
        err.raise("data", "%s: a message needs role and content", where)
    elseif not roles[message.role] then
        err.raise("data", "%s: role %s; there are system, user, assistant and tool%s", where, json.encode(message.role),
            strings.did_you_mean(tostring(message.role), strings.sorted_keys(roles)))
    end
    local out = copy_of(message)
    out.content = M.content_text(message.content, where)
    if message.role == "assistant" then
        if message.reasoning_content ~= nil then
            out.reasoning_content = optional_text(message.reasoning_content, "", where, "reasoning_content")
        end
        if is_null(message.tool_calls) then
            out.tool_calls = nil
        else
            out.tool_calls = M.tool_calls(message.tool_calls, where)
        end
    elseif message.role == "tool" and (type(message.tool_call_id) ~= "string" or message.tool_call_id == "") then
        err.raise("data", "%s: a tool's message needs a tool_call_id", where)
    end
    return out
end

local share_gpt = { system = "system", human = "user", user = "user", gpt = "assistant", assistant = "assistant",
                    chatgpt = "assistant", model = "assistant", bot = "assistant" }

-- One of ShareGPT's turns as a message.
local function from_share_gpt(turn, where)
    local from = is_object(turn) and (turn.from or turn.role)
    if type(from) ~= "string" or not share_gpt[from] then
        err.raise("data", "%s: from is %s; ShareGPT's speakers are %s", where, json.encode(from or json.null),
            table.concat(strings.sorted_keys(share_gpt), ", "))
    end
    return json.object { role = share_gpt[from], content = is_null(turn.value) and turn.content or turn.value }
end

local function messages_of(raw, name)
    local list, key, convert = raw.messages, "messages", nil
    if is_null(list) and not is_null(raw.conversations) then
        list, key, convert = raw.conversations, "conversations", from_share_gpt
    end
    if not is_list(list) then
        err.raise("data", '%s: a row needs a list "messages" (OpenAI) or "conversations" (ShareGPT)', name)
    end
    local out = json.array {}
    for i, message in ipairs(list) do
        local where = string.format("%s: %s[%d]", name, key, i - 1)
        out[i] = checked_message(convert and convert(message, where) or message, where)
    end
    return out
end

--- The tools of a row: a list, or a text that holds one as JSON; nil where there are none.
function M.tools(tools, name)
    if type(tools) == "string" then
        local list, why = json.decode(tools, M.parse)
        if list == nil then
            err.raise("data", "%s: tools: %s", name, why)
        end
        tools = list
    end
    if is_null(tools) then
        return nil
    elseif not is_list(tools) then
        err.raise("data", "%s: tools is no list", name)
    end
    return #tools > 0 and tools or nil
end

-- The rows of a source in an order that depends on a seed.
local function shuffled(source, seed)
    local order = philox.permutation(source:len(), seed, 0)
    local out = setmetatable({ order = order }, { __index = source })
    function out.get(_, i) return source:get(order[i - 1]) end
    function out.name(_, i) return source:name(order[i - 1]) end
    function out.place(_, i) return source:place(order[i - 1]) end
    function out.len() return source:len() end
    return out
end

--- A dataset of token rows. opts: the keys of `fields`. Reads and tokenizes everything once: "data" naming
--- row and message for the first that is no conversation.
function M.ChatDataset(opts)
    local tokenizer = opts.tokenizer
    formatting.check_tokenizer(tokenizer)
    formatting.set_chat_template(tokenizer, opts.chat_template)
    conversation.check_template(tokenizer, "ChatDataset")
    local limit, pad_to = formatting.length_options(opts)
    return mapped.open {
        dataset = "ChatDataset", fields = M.fields, opts = opts, parse = M.parse, path = opts.path_or_dataset_id,
        split = opts.split, name = opts.name, skip_unreadable = opts.skip_invalid_samples,
        arrange = opts.shuffle_seed and function(source) return shuffled(source, opts.shuffle_seed) end or nil,
        map = function(raw, name)
            local row, last = conversation.row(tokenizer, messages_of(raw, name), {
                limit = limit, tools = M.tools(raw.tools, name), mask_reasoning_content = opts.mask_reasoning_content,
                mask_generation_prompt = opts.mask_generation_prompt,
            }, name)
            if opts.mask_history then
                utils.keep_last_run(row.labels, utils.IGNORE)
            end
            return mapped.padded(row, pad_to, tokenizer, last)
        end,
    }
end

--- What a configuration may name with `_target_`.
M.targets = { {
    name = "am.datasets.ChatDataset",
    aliases = { "nemo_automodel.components.datasets.llm.chat_dataset.ChatDataset",
                "nemo_automodel.components.datasets.llm.ChatDataset" },
    doc = "conversations in OpenAI's or ShareGPT's form, with tools",
    fields = M.fields,
    build = M.ChatDataset,
} }

return M
