-- make_xlam_dataset: calling functions, in the columns of Salesforce/xlam-function-calling-60k: query, and tools
-- and answers as JSON. A row becomes a conversation: the user's query, and the assistant's calls of the tools,
-- which are given to the chat template as JSON schemas.

local err = require("am.core.error")
local json = require("am.utils.json")
local chat_dataset = require("am.datasets.chat_dataset")
local conversation = require("am.datasets.conversation")
local formatting = require("am.datasets.formatting")
local mapped = require("am.datasets.mapped")
local squad = require("am.datasets.squad")

local M = {}

--- What the `dataset` section may hold for this dataset.
M.fields = formatting.fields(mapped.fields, formatting.length_fields, {
    dataset_name = { type = "string|list", default = "Salesforce/xlam-function-calling-60k",
                     doc = "a hub name, a file, or a list of files" },
    split = { type = "string", default = "train", doc = "\"train\", \"train[:1000]\", …" },
    limit_dataset_samples = { type = "integer", min = 1, doc = "rows to use, unless split has a part" },
    chat_template = { type = "string", doc = "a template or its file, instead of the tokenizer's" },
    mask_generation_prompt = conversation.mask_generation_prompt,
    fp8 = { type = "boolean", default = false, no_effect = "NeMo Automodel doesn't use it either" },
})

local types = { str = "string", string = "string", int = "integer", integer = "integer", float = "number",
                double = "number", number = "number", bool = "boolean", boolean = "boolean", list = "array",
                array = "array", object = "object" }

local function is_null(x)
    return x == nil or x == json.null
end

local function object(list)
    local keys, out = {}, {}
    for i, pair in ipairs(list) do
        keys[i], out[pair[1]] = pair[1], pair[2]
    end
    return json.object(out, keys)
end

-- A column that is a list, or a text that holds one as JSON.
local function list_of(raw, key, name)
    local value = raw[key]
    if type(value) == "string" then
        local list, why = json.decode(value, chat_dataset.parse)
        if list == nil then
            err.raise("data", "%s: %s: %s", name, key, why)
        end
        value = list
    end
    if type(value) ~= "table" or value == json.null or not (json.is_array(value) or next(value) == nil) then
        err.raise("data", "%s: %s is no list; xLAM has query, tools and answers", name, key)
    end
    for i, item in ipairs(value) do
        if type(item) ~= "table" or json.is_array(item) or item == json.null then
            err.raise("data", "%s: %s[%d] is no object", name, key, i - 1)
        end
    end
    return value
end

-- One parameter's JSON schema.
local function property(definition, where)
    if type(definition) ~= "table" or json.is_array(definition) then
        err.raise("data", "%s: a parameter is described by an object", where)
    end
    local kind = is_null(definition.type) and "string" or tostring(definition.type):lower()
    local out = { { "type", types[kind] or "string" }, { "description", definition.description or "" } }
    for _, key in ipairs { "enum", "default" } do
        if definition[key] ~= nil then
            out[#out + 1] = { key, definition[key] }
        end
    end
    return object(out)
end

-- xLAM's tools as OpenAI's. Those without a name are left out.
local function tools_of(list, name)
    local out = json.array {}
    for i, tool in ipairs(list) do
        if type(tool.name) == "string" and tool.name ~= "" then
            local properties, required = {}, json.array {}
            local parameters = is_null(tool.parameters) and json.object() or tool.parameters
            if type(parameters) ~= "table" or (json.is_array(parameters) and #parameters > 0) then
                err.raise("data", "%s: tools[%d].parameters is no object", name, i - 1)
            end
            for _, key in ipairs(json.is_array(parameters) and {} or json.keys(parameters)) do
                local definition = parameters[key]
                if definition ~= json.null then
                    properties[#properties + 1] = { key, property(definition, name .. ": " .. key) }
                    if definition.default == nil then
                        required[#required + 1] = key
                    end
                end
            end
            local schema = { { "type", "object" }, { "properties", object(properties) } }
            if #required > 0 then
                schema[3] = { "required", required }
            end
            out[#out + 1] = object { { "type", "function" }, { "function", object {
                { "name", tool.name }, { "description", tool.description or "" }, { "parameters", object(schema) },
            } } }
        end
    end
    return out
end

-- xLAM's answers as calls. Those without a name are left out.
local function calls_of(list, id)
    local prefix = is_null(id) and "call_" or string.format("call_%s_", tostring(id))
    local out = json.array {}
    for i, call in ipairs(list) do
        if type(call.name) == "string" and call.name ~= "" then
            local arguments = call.arguments == nil and "" or call.arguments
            if type(arguments) ~= "string" then
                arguments = json.encode(arguments)
            end
            out[#out + 1] = object {
                { "id", prefix .. i - 1 }, { "type", "function" },
                { "function", object { { "name", call.name }, { "arguments", arguments } } },
            }
        end
    end
    return out
end

--- A dataset of token rows. opts: the keys of `fields`. Reads and tokenizes everything once: "data" for the
--- first row that has no such columns.
function M.make_xlam_dataset(opts)
    local tokenizer = opts.tokenizer
    formatting.check_tokenizer(tokenizer)
    formatting.set_chat_template(tokenizer, opts.chat_template)
    conversation.check_template(tokenizer, "make_xlam_dataset")
    local limit, pad_to = formatting.length_options(opts)
    return mapped.open {
        dataset = "make_xlam_dataset", fields = M.fields, opts = opts, parse = chat_dataset.parse,
        path = opts.dataset_name or "Salesforce/xlam-function-calling-60k", split = opts.split,
        limit = squad.limit_of(opts),
        map = function(raw, name)
            if type(raw.query) ~= "string" then
                err.raise("data", "%s: query is no text; xLAM has query, tools and answers", name)
            end
            local messages = json.array {
                { role = "user", content = raw.query },
                object { { "role", "assistant" }, { "content", "" },
                         { "tool_calls", calls_of(list_of(raw, "answers", name), raw.id) } },
            }
            local row, last = conversation.row(tokenizer, messages, {
                limit = limit, tools = tools_of(list_of(raw, "tools", name), name),
                mask_generation_prompt = opts.mask_generation_prompt,
            }, name)
            return mapped.padded(row, pad_to, tokenizer, last)
        end,
    }
end

--- What a configuration may name with `_target_`.
M.targets = { {
    name = "am.datasets.make_xlam_dataset",
    aliases = { "nemo_automodel.components.datasets.llm.xlam.make_xlam_dataset",
                "nemo_automodel.components.datasets.llm.make_xlam_dataset" },
    doc = "xLAM: calling functions",
    fields = M.fields,
    build = M.make_xlam_dataset,
} }

return M
