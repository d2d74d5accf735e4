-- Chat templates: compiles the Jinja of a Hugging Face tokenizer and renders conversations with it as
-- transformers' apply_chat_template does. Template and messages are untrusted: a template reaches no
-- Lua, and its steps, output and nesting are limited. Turning text into tokens is not done here.
--
--     local chat = require "am.chat"
--     local template = chat.compile(source)
--     local text, spans = template:render { messages = messages, add_generation_prompt = true }

local err = require "am.core.error"
local eval = require "am.chat.eval"
local filters = require "am.chat.filters"
local globals = require "am.chat.globals"
local json = require "am.chat.json"
local parser = require "am.chat.parser"
local tests = require "am.chat.tests"
local values = require "am.chat.values"

local M = {}

local DEFAULT_STEPS = 5e6
local DEFAULT_OUTPUT = 64 * 1024 * 1024

--- What cjson.null is in data: Python's None.
M.None = values.None

--- Reads JSON to data that keeps the order of keys, 1 apart from 1.0 and [] from {}. Use it for tools,
--- whose printed form depends on these. Raises "data".
M.from_json = json.decode

---@class am.chat.Template
---@field source string
---@field has_generation boolean whether it marks the assistant's turns with {% generation %} blocks
local Template = {}
Template.__index = Template

--- Parses a template. opts: `steps` and `output` (limits on work and on bytes written), `now` (seconds
--- since the epoch, or a function giving them, for strftime_now; the clock by default).
--- Raises "format" naming the line, "unsupported" for tags that need other templates.
---@return am.chat.Template
function M.compile(source, opts)
    if type(source) ~= "string" then
        err.raise("usage", "a chat template must be a string, not %s", type(source))
    end
    opts = opts or {}
    return setmetatable({
        tree = parser.parse(source),
        source = source,
        has_generation = source:find("{%%[%-%+]?%s*generation%s*[%-%+]?%%}") ~= nil,
        limits = { steps = opts.steps or DEFAULT_STEPS, output = opts.output or DEFAULT_OUTPUT },
        now = opts.now,
    }, Template)
end

local function check_message(message, index)
    local where = "messages[" .. index .. "]"
    if values.kind(message) ~= "dict" then
        err.raise("data", "%s: a message must be a table with role and content, got %s", where, values.kind(message))
    end
    local role, content = message.map.role, message.map.content
    if role == nil then err.raise("data", "%s: the message has no 'role'", where) end
    if not values.text(role) then err.raise("data", "%s.role: expected a string, got %s", where, values.kind(role)) end
    local kind = content ~= nil and values.kind(content) or "NoneType"
    if kind ~= "str" and kind ~= "list" and kind ~= "NoneType" and kind ~= "dict" then
        err.raise("data", "%s.content: expected a string or a list of parts, got %s", where, kind)
    end
end

-- Names a message's reasoning is passed under; the first is the one templates read.
local reasoning_fields = { "reasoning_content", "thinking", "reasoning" }

-- A copy of the message with its reasoning under `reasoning_content` and `thinking`, as transformers
-- hands it to templates; the message itself when it has none.
local function with_reasoning_aliases(message)
    local reasoning
    for _, name in ipairs(reasoning_fields) do
        local v = message.map[name]
        if v ~= nil and v ~= values.None then
            reasoning = v
            break
        end
    end
    if not reasoning then return message end
    local copy = values.dict()
    values.dict_set(nil, copy, "thinking", reasoning)
    values.dict_each(nil, message, function(key, v) values.dict_set(nil, copy, key, v) end)
    values.dict_set(nil, copy, "reasoning_content", reasoning)
    return copy
end

local function convert_messages(messages)
    if type(messages) ~= "table" then
        err.raise("data", "messages must be an array of messages, got %s", type(messages))
    end
    local list = values.from_lua(messages, "messages", 0, true)
    if not values.is_sequence(list) then
        err.raise("data", "messages must be an array of messages, got a table with named fields")
    end
    local out = values.list()
    for i, message in ipairs(list) do
        check_message(message, i)
        out[i] = with_reasoning_aliases(message)
    end
    return out
end

local function convert_list(v, name)
    if v == nil or v == values.None then return values.None end
    local list = values.from_lua(v, name, 0, true)
    if list ~= values.None and not values.is_sequence(list) then
        err.raise("data", "%s must be an array, got %s", name, values.kind(list))
    end
    return list
end

--- Renders the template. `vars`: messages (an array of {role =, content =, …}; needed), tools and
--- documents (arrays, None when absent), add_generation_prompt (false when absent), and any other
--- variable: bos_token, eos_token, enable_thinking, … Plain Lua data is converted as values.from_lua
--- says. Returns the text and the generation blocks as an array of {first, last} bytes, so that
--- text:sub(first, last) is a block's text (an empty one has last = first - 1).
--- Raises "data" for messages that cannot be used and for the template's own raise_exception, "format"
--- with the line for a template that fails or exceeds a limit.
---@return string text
---@return table spans
function Template:render(vars)
    local context = {
        messages = convert_messages(vars.messages),
        tools = convert_list(vars.tools, "tools"),
        documents = convert_list(vars.documents, "documents"),
        add_generation_prompt = vars.add_generation_prompt and true or false,
    }
    for name, v in pairs(vars) do
        if context[name] == nil then context[name] = values.from_lua(v, tostring(name), 0) end
    end
    local now = self.now
    if type(now) == "function" then now = now() end
    return eval.render(self.tree, context, {
        filters = filters, tests = tests, globals = globals, limits = self.limits, now = now,
    })
end

--- Renders `messages` with a template (source text or a compiled one); `opts` holds the other
--- variables of render. Returns the text and the spans.
function M.apply(template, messages, opts)
    local vars = { messages = messages }
    for name, v in pairs(opts or {}) do vars[name] = v end
    if type(template) == "string" then template = M.compile(template) end
    return template:render(vars)
end

return M
