---@meta am.chat
-- Written by docs/api.lua; do not edit. For workspace.library of a Lua language server.
-- luacheck: ignore

---@class am.chat
local am_chat = {}

--- Parses a template. opts: `steps` and `output` (limits on work and on bytes written), `now` (seconds
--- since the epoch, or a function giving them, for strftime_now; the clock by default).
--- Raises "format" naming the line, "unsupported" for tags that need other templates.
---@return am.chat.Template
function am_chat.compile(source, opts) end

--- Renders a conversation with a template (source text or a compiled one); `opts` holds the other
--- variables of render. Returns the text and the spans.
function am_chat.apply(template, conversation, opts) end

--- The value of a JSON text. Raises "data" naming the byte where it is malformed.
function am_chat.from_json(text) end

---@class am.chat.Template
---@field source string
---@field has_generation boolean whether it marks the assistant's turns with {% generation %} blocks
local am_chat_Template = {}

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
function am_chat_Template:render(vars) end

--- Renders the template and tells what the assistant wrote, with `vars` as for render. Returns the text
--- and its turns as an array of {first, last, answer =} bytes: the header that a prompt supplies reaches
--- from `first` to before `answer`, what the model has to write from there to `last`. Generation blocks,
--- where the template has them, are turns without a header. Nil instead of turns where the
--- template does not tell (it writes the text elsewhere than in its loop over the messages).
---@return string text
---@return table|nil turns
function am_chat_Template:turns(vars) end

return am_chat
