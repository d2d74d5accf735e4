-- make_agent_chat_dataset: conversations in which the assistant calls tools, in three forms. A row becomes messages of
-- OpenAI's form; the tokenizer's chat template writes them, and what the assistant says is learnt
-- (conversation.lua), so neither the user's words nor what tools answer.
--   messages        roles user, assistant, system, and tool_call (JSON with name and arguments) and tool_response
--   conversations   ShareGPT's from and value, with function_call and observation
--   messages        OpenAI's own: an assistant's tool_calls, and role tool
-- Calls that follow one another are one message's, that of the assistant's text before them if there is one; answers
-- of tools are taken to be those of these calls, in order. `tools` is a list, or a text that holds one as JSON.
--
-- Rules and options are those of nemo_automodel/components/datasets/llm/agent_chat.py, with two differences. Content
-- that is a list of parts is the text of these parts, not Python's notation of the list. And filter_overlong leaves
-- long rows out; there its count comes after the shift by one, which makes every row fit.

local err = require("am.core.error")
local json = require("am.utils.json")
local chat_dataset = require("am.datasets.chat_dataset")
local conversation = require("am.datasets.conversation")
local formatting = require("am.datasets.formatting")
local log = require("am.utils.log").get("am.datasets")
local mapped = require("am.datasets.mapped")
local squad = require("am.datasets.squad")

local M = {}

--- What the `dataset` section may hold for this dataset.
M.fields = formatting.fields(mapped.fields, formatting.length_fields, {
    dataset_name = { type = "string|list", doc = "a hub name, a file, or a list of files" },
    path = { type = "string|list", doc = "a file or a list of files, in place of dataset_name" },
    split = { type = "string", default = "train", doc = "of dataset_name: \"train\", \"train[:1000]\", …" },
    revision = { type = "string", doc = "branch, tag or commit on the hub" },
    limit_dataset_samples = { type = "integer", min = 1, doc = "rows to use, unless split has a part" },
    chat_template = { type = "string", doc = "a template or its file, instead of the tokenizer's" },
    filter_no_assistant = { type = "boolean", default = false,
                            doc = "leave out rows in which the assistant says nothing" },
    filter_overlong = { type = "boolean", default = false,
                        doc = "leave out rows of more than seq_length tokens, after truncate_history" },
    trim_incomplete_last_turn = { type = "boolean", default = false,
                                  doc = "leave out what follows the assistant's last message" },
    truncate_history = { type = "boolean", default = false,
                         doc = "drop the oldest exchanges until seq_length holds the rest" },
    drop_history_reasoning_content = { type = "boolean", default = false,
                                       doc = "write the reasoning_content of the last answer only" },
    mask_reasoning_content = { type = "boolean", default = false, doc = "do not learn reasoning_content" },
    train_on_last_turn_only = { type = "boolean", default = false, doc = "learn the assistant's last turn only" },
    mask_generation_prompt = conversation.mask_generation_prompt,
})

local is_null, is_object, is_list = chat_dataset.is_null, chat_dataset.is_object, chat_dataset.is_list

local function refuse(where, fmt, ...)
    err.raise("data", "%s: " .. fmt, where, ...)
end

-- An object whose keys are written in the order of `pairs_list`.
local function object(pairs_list)
    local keys, out = {}, {}
    for i, pair in ipairs(pairs_list) do
        keys[i], out[pair[1]] = pair[1], pair[2]
    end
    return json.object(out, keys)
end

-- Set a key that is written behind those that are there.
local function append(message, key, value)
    local keys, out = {}, {}
    for i, name in ipairs(json.keys(message)) do
        keys[i], out[name] = name, message[name]
    end
    keys[#keys + 1], out[key] = key, value
    return json.object(out, keys)
end

-- A list's items from `first` to `last`.
local function slice(list, first, last)
    local out = {}
    for i = first, last do
        out[#out + 1] = list[i]
    end
    return out
end

-- A value as text: JSON unless it is one already.
local function as_text(value)
    return type(value) == "string" and value or json.encode(value)
end

-- ---------------------------------------------------------------- turns of the three forms

local share_gpt = { system = "system", human = "user", user = "user", gpt = "assistant", assistant = "assistant",
                    function_call = "tool_call", tool_call = "tool_call", observation = "tool_response",
                    tool_response = "tool_response", tool = "tool_response" }
local roles = { system = true, user = true, assistant = true, tool_call = true, tool_response = true, tool = true }

-- The turns of a row: objects with role and content, and the key that they stand under.
local function turns_of(raw, name)
    local list, key = raw.messages, "messages"
    if is_null(list) then
        list, key = raw.conversations, "conversations"
    end
    if not is_list(list) then
        refuse(name, 'a row needs a list "messages" or "conversations"')
    end
    local out = {}
    for i, turn in ipairs(list) do
        local where = string.format("%s: %s[%d]", name, key, i - 1)
        if not is_object(turn) then
            refuse(where, "a message needs a role and content")
        elseif key == "conversations" then
            local role = share_gpt[turn.from]
            if not role then
                refuse(where, "from is %s; the speakers are system, human, gpt, function_call and observation",
                       json.encode(turn.from == nil and json.null or turn.from))
            end
            turn = { role = role, content = turn.value, reasoning_content = turn.reasoning_content }
        elseif not roles[turn.role] then
            refuse(where, "role is %s; there are system, user, assistant, tool, tool_call and tool_response",
                   json.encode(turn.role == nil and json.null or turn.role))
        end
        out[i] = { turn = turn, where = where }
    end
    return out
end

local function last_assistant(list, role_of)
    for i = #list, 1, -1 do
        if role_of(list[i]) == "assistant" then
            return i
        end
    end
end

local function turn_role(item) return item.turn.role end
local function message_role(message) return message.role end

-- ---------------------------------------------------------------- messages

-- Turns on their way to messages: ids of calls that no tool has answered yet, and how many calls there were.
local Builder = {}
Builder.__index = Builder

function Builder:call(id, name, arguments)
    id = id or string.format("%s_%d", self.prefix, self.count)
    self.count = self.count + 1
    table.insert(self.pending, id)
    return object { { "id", id }, { "type", "function" },
                    { "function", object { { "name", name }, { "arguments", as_text(arguments) } } } }
end

local function call_name(name, where)
    if type(name) ~= "string" or name == "" then
        refuse(where, "a call needs the name of a tool")
    end
    return name
end

local function parsed(text, where)
    local value, why = json.decode(text, chat_dataset.parse)
    if value == nil then
        refuse(where, "content: %s", why)
    end
    return value
end

-- The tool_calls from turn i on; the turn behind them is returned.
function Builder:tool_calls(turns, i)
    local calls = json.array {}
    self.pending = {}
    while turns[i] and turns[i].turn.role == "tool_call" do
        local content, where = turns[i].turn.content, turns[i].where
        local called = type(content) == "string" and content ~= "" and parsed(content, where) or content
        if not is_object(called) then
            refuse(where, "the content of a call is an object with name and arguments, or JSON of one")
        end
        local arguments = called.arguments
        calls[#calls + 1] = self:call(nil, call_name(called.name, where), arguments == nil and "" or arguments)
        i = i + 1
    end
    local before = self.messages[#self.messages]
    if before and before.role == "assistant" and before.tool_calls == nil then
        self.messages[#self.messages] = append(before, "tool_calls", calls)
    else
        table.insert(self.messages, object { { "role", "assistant" }, { "content", "" }, { "tool_calls", calls } })
    end
    return i
end

-- The tools' answers from turn i on.
function Builder:answers(turns, i)
    local n = 0
    while turns[i] and (turns[i].turn.role == "tool_response" or turns[i].turn.role == "tool") do
        local turn = turns[i].turn
        local id = turn.tool_call_id
        if type(id) ~= "string" or id == "" then
            id = self.pending[n + 1] or string.format("%s_response_%d_%d", self.prefix, self.count, n)
        end
        local message = { { "role", "tool" }, { "content", turn.content == nil and "" or as_text(turn.content) },
                          { "tool_call_id", id } }
        if type(turn.name) == "string" and turn.name ~= "" then
            message[4] = { "name", turn.name }
        end
        table.insert(self.messages, object(message))
        i, n = i + 1, n + 1
    end
    return i
end

-- An assistant's own tool_calls, in OpenAI's form.
function Builder:own_calls(list, where)
    if not is_list(list) then
        refuse(where, "tool_calls is no list")
    end
    local calls = json.array {}
    for i, call in ipairs(list) do
        local at = string.format("%s.tool_calls[%d]", where, i - 1)
        local called = is_object(call) and call["function"]
        if not is_object(called) then
            refuse(at, "a call needs a function with name and arguments")
        end
        local id = type(call.id) == "string" and call.id ~= "" and call.id or nil
        local arguments = called.arguments
        calls[i] = self:call(id, call_name(called.name, at), arguments == nil and "" or arguments)
    end
    return calls
end

function Builder:message(turn, where)
    self.pending = {}
    local message = { { "role", turn.role }, { "content", chat_dataset.content_text(turn.content, where) } }
    if turn.role == "assistant" then
        local reasoning = turn.reasoning_content
        if not is_null(reasoning) and reasoning ~= "" and reasoning ~= false then
            message[#message + 1] = { "reasoning_content", as_text(reasoning) }
        end
        if not is_null(turn.tool_calls) then
            message[#message + 1] = { "tool_calls", self:own_calls(turn.tool_calls, where) }
        end
    end
    table.insert(self.messages, object(message))
end

-- Turns as messages of OpenAI's form. id: the row's, which begins the ids of calls.
local function messages_of(turns, id)
    local builder = setmetatable({ messages = {}, pending = {}, count = 0,
                                   prefix = is_null(id) and "call" or "call_" .. tostring(id) }, Builder)
    local i = 1
    while turns[i] do
        local role = turns[i].turn.role
        if role == "tool_call" then
            i = builder:tool_calls(turns, i)
        elseif role == "tool_response" or role == "tool" then
            i = builder:answers(turns, i)
        else
            builder:message(turns[i].turn, turns[i].where)
            i = i + 1
        end
    end
    return json.array(builder.messages)
end

local function without_reasoning(message)
    local list = {}
    for _, key in ipairs(json.keys(message)) do
        if key ~= "reasoning_content" then
            list[#list + 1] = { key, message[key] }
        end
    end
    return object(list)
end

-- Leave the reasoning of the last answer only.
local function drop_reasoning(messages)
    local last = last_assistant(messages, message_role)
    for i, message in ipairs(messages) do
        if i ~= last and message.reasoning_content ~= nil then
            messages[i] = without_reasoning(message)
        end
    end
end

-- The newest exchanges that fit into `limit` tokens, behind the system's messages. An exchange begins with the user's
-- message, so calls and answers stay together; the last one always stays. length(messages) counts tokens.
local function newest(messages, limit, length)
    if length(messages) <= limit then
        return messages
    end
    local first = 1
    while messages[first] and messages[first].role == "system" do
        first = first + 1
    end
    local kept = messages
    for i = first, #messages do
        if messages[i].role == "user" then
            kept = json.array(slice(messages, 1, first - 1))
            for k = i, #messages do
                kept[#kept + 1] = messages[k]
            end
            if length(kept) <= limit then
                break
            end
        end
    end
    return kept
end

-- ---------------------------------------------------------------- the dataset

local function check_options(opts)
    if is_null(opts.dataset_name) == is_null(opts.path) then
        err.raise("usage", "dataset: give one of dataset_name (of the hub, or files) and path (files)")
    elseif opts.filter_overlong and not opts.seq_length then
        err.raise("usage", "dataset.filter_overlong needs dataset.seq_length, the most tokens that a row may have")
    end
end

--- A dataset of token rows. opts: the keys of `fields`. Reads and tokenizes everything once: "data" naming row
--- and message for the first that is no conversation.
function M.make_agent_chat_dataset(opts)
    local tokenizer = opts.tokenizer
    formatting.check_tokenizer(tokenizer)
    check_options(opts)
    formatting.set_chat_template(tokenizer, opts.chat_template)
    conversation.check_template(tokenizer, "make_agent_chat_dataset")
    local limit, pad_to = formatting.length_options(opts)
    if opts.seq_length and not (limit or pad_to or opts.truncate_history or opts.filter_overlong) then
        log:warning("dataset.seq_length has no effect: set truncation: true to cut long rows, truncate_history: true "
                    .. "to drop their oldest exchanges, or padding: max_length")
    end
    return mapped.open {
        dataset = "make_agent_chat_dataset", fields = M.fields, opts = opts, parse = chat_dataset.parse,
        path = opts.path or opts.dataset_name, split = opts.dataset_name and opts.split, revision = opts.revision,
        limit = opts.path and opts.limit_dataset_samples or squad.limit_of(opts),
        map = function(raw, name)
            local turns = turns_of(raw, name)
            local last = last_assistant(turns, turn_role)
            if opts.filter_no_assistant and not last then
                return nil, "no message of the assistant"
            elseif opts.trim_incomplete_last_turn and last then
                turns = slice(turns, 1, last)
            end
            local messages = messages_of(turns, raw.id)
            if opts.drop_history_reasoning_content then
                drop_reasoning(messages)
            end
            local blank = type(raw.tools) == "string" and not raw.tools:find("%S")
            local tools = not blank and chat_dataset.tools(raw.tools, name) or nil
            local function length(list) return conversation.length(tokenizer, list, tools, name) end
            if opts.truncate_history and opts.seq_length then
                messages = newest(messages, opts.seq_length, length)
            end
            if opts.filter_overlong and length(messages) > opts.seq_length then
                return nil, "longer than seq_length"
            end
            local row, last_id = conversation.row(tokenizer, messages, {
                limit = limit, tools = tools, last_turn_only = opts.train_on_last_turn_only,
                mask_reasoning_content = opts.mask_reasoning_content,
                mask_generation_prompt = opts.mask_generation_prompt,
            }, name)
            return mapped.padded(row, pad_to, tokenizer, last_id)
        end,
    }
end

--- What a configuration may name with `_target_`.
M.targets = { {
    name = "am.datasets.make_agent_chat_dataset",
    aliases = { "nemo_automodel.components.datasets.llm.agent_chat.make_agent_chat_dataset",
                "nemo_automodel.components.datasets.llm.make_agent_chat_dataset" },
    doc = "conversations with calls of tools",
    fields = M.fields,
    build = M.make_agent_chat_dataset,
} }

return M
