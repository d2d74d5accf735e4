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
local messages = require "am.chat.messages"
local names = require "am.chat.names"
local parser = require "am.chat.parser"
local tests = require "am.chat.tests"
local turns = require "am.chat.turns"
local values = require "am.chat.values"

local M = {}

local DEFAULT_STEPS = 5e6
local DEFAULT_OUTPUT = 16 * 1024 * 1024

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
    local tree = parser.parse(source)
    names.check(tree, { filters = filters, tests = tests })
    return setmetatable({
        tree = tree,
        source = source,
        has_generation = source:find("{%%[%-%+]?%s*generation%s*[%-%+]?%%}") ~= nil,
        limits = { steps = opts.steps or DEFAULT_STEPS, output = opts.output or DEFAULT_OUTPUT },
        now = opts.now,
        headers = {},
    }, Template)
end

-- Options of render that templates do not see.
local not_variables = { messages = true, continue_final_message = true }

local function convert_list(v, name)
    if v == nil or v == values.None then return values.None end
    local list = values.from_lua(v, name, 0, true)
    if list ~= values.None and not values.is_sequence(list) then
        err.raise("data", "%s must be an array, got %s", name, values.kind(list))
    end
    return list
end

-- The variables of a template by name, converted.
local function context_of(vars)
    local context = {
        tools = convert_list(vars.tools, "tools"),
        documents = convert_list(vars.documents, "documents"),
        add_generation_prompt = vars.add_generation_prompt and true or false,
    }
    for name, v in pairs(vars) do
        if context[name] == nil and not not_variables[name] then
            context[name] = values.from_lua(v, tostring(name), 0)
        end
    end
    return context
end

-- Renders converted messages; eval.render's results. `indices` says whose regions to keep.
function Template:evaluate(conversation, context, indices)
    local now = self.now
    if type(now) == "function" then now = now() end
    context.messages = conversation
    return eval.render(self.tree, context, {
        filters = filters, tests = tests, globals = globals, limits = self.limits, now = now, messages = indices,
    })
end

--- Renders the template. `vars`: messages (an array of {role =, content =, …}; needed), tools and
--- documents (arrays, None when absent), add_generation_prompt (false when absent), and any other
--- variable: bos_token, eos_token, enable_thinking, … Plain Lua data is converted as values.from_lua
--- says. continue_final_message is no variable: true, or a field of the last message, ends the text where
--- that message does, for the model to go on (the spans are then of no use). Returns the text and the
--- generation blocks as an array of {first, last} bytes, so that text:sub(first, last) is a block's text
--- (an empty one has last = first - 1).
--- Raises "data" for messages that cannot be used and for the template's own raise_exception, "format"
--- with the line for a template that fails or exceeds a limit.
---@return string text
---@return table spans
function Template:render(vars)
    local conversation, continued = messages.convert(vars.messages), nil
    local field = vars.continue_final_message
    if field and field ~= values.None then
        conversation, continued = messages.open_last(conversation, field, self.source)
    end
    local text, spans = self:evaluate(conversation, context_of(vars))
    return continued and messages.cut_open(text, continued) or text, spans
end

-- Which message a value is; a message that is there twice becomes two.
local function indices_of(conversation)
    local indices = {}
    for i, message in ipairs(conversation) do
        if indices[message] then
            message = values.dict_copy(message)
            conversation[i] = message
        end
        indices[message] = i
    end
    return indices
end

--- Renders the template and tells what the assistant wrote, with `vars` as for render. Returns the text
--- and its turns as an array of {first, last, answer =} bytes: the header that a prompt supplies reaches
--- from `first` to before `answer`, what the model has to write from there to `last`. Generation blocks,
--- where the template has them, are turns without a header. Nil instead of turns where the
--- template does not tell (it writes the text elsewhere than in its loop over the messages).
---@return string text
---@return table|nil turns
function Template:turns(vars)
    local context = context_of(vars)
    local conversation = messages.convert(vars.messages)
    local text, spans, regions = self:evaluate(conversation, context, indices_of(conversation))
    if self.has_generation then
        for _, span in ipairs(spans) do span.answer = span[1] end
        return text, spans
    end
    local key = turns.key(context)
    if self.headers[key] == nil then
        local function evaluate(probe, variables, prompted)
            local own = {}
            for name, v in pairs(variables) do own[name] = v end
            own.add_generation_prompt = prompted
            local probed, _, its = self:evaluate(probe, own, indices_of(probe))
            return probed, its
        end
        local reads_prompt = self.source:find("add_generation_prompt", 1, true) ~= nil
        self.headers[key] = turns.header(evaluate, context, reads_prompt) or ""
    end
    return text, turns.find(text, regions, conversation, self.headers[key], context.add_generation_prompt)
end

--- Renders a conversation with a template (source text or a compiled one); `opts` holds the other
--- variables of render. Returns the text and the spans.
function M.apply(template, conversation, opts)
    local vars = { messages = conversation }
    for name, v in pairs(opts or {}) do vars[name] = v end
    if type(template) == "string" then template = M.compile(template) end
    return template:render(vars)
end

return M
