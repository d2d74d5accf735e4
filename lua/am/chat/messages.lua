-- The messages of a conversation as templates get them: checked, with a message's reasoning under the
-- names that templates read, and with the last message open where it is to be continued. All as
-- transformers' render_jinja_template does it. Renders nothing.

local err = require "am.core.error"
local strings = require "am.chat.strings"
local values = require "am.chat.values"

local M = {}

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

--- The messages as a values.list. Raises "data" naming the message that cannot be used.
function M.convert(messages)
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

-- continuing the last message ---------------------------------------------------------------------------

-- Stands where the last message ends, so that it is found again in the text. The blank at its end tells
-- whether the template keeps the blanks around a message.
local TAG = "CONTINUE_FINAL_MESSAGE_TAG "
local BARE_TAG = TAG:sub(1, -2)

local function refuse(fmt, ...)
    err.raise("data", "continue_final_message: " .. fmt, ...)
end

-- The fields that hold what is continued: reasoning is there under several names.
local function open_fields(message, field, content)
    local is_reasoning = false
    for _, name in ipairs(reasoning_fields) do is_reasoning = is_reasoning or name == field end
    if not is_reasoning then return { field } end
    local fields = {}
    for _, name in ipairs(reasoning_fields) do
        if message.map[name] == content then fields[#fields + 1] = name end
    end
    return fields
end

-- A copy of the parts of a message whose last text is open, and that text.
local function open_parts(parts)
    local out = values.list()
    for i, part in ipairs(parts) do out[i] = part end
    for i = #out, 1, -1 do
        local kind = values.kind(out[i])
        local text = kind == "dict" and out[i].map.text
        if text then
            if not values.text(text) then refuse("the last part's text is no string but %s", values.kind(text)) end
            out[i] = values.dict_copy(out[i])
            out[i].map.text = text .. TAG
            return out, text
        elseif kind ~= "dict" and kind ~= "str" then
            refuse("a part of the last message is %s, not a table", kind)
        end
    end
    refuse("the last message has no text to continue")
end

--- `messages` (of convert) with the last one open, and the text that is continued. `field` is the
--- message's field to continue, or true for its content; `source` the template's. Raises "data".
function M.open_last(messages, field, source)
    if #messages == 0 then refuse("there is no message to continue") end
    if field == true then field = "content" end
    local message = values.dict_copy(messages[#messages])
    local content = message.map[field]
    if content == nil or content == values.None then refuse("the last message has no '%s'", field) end
    local fields, mentioned = open_fields(message, field, content), false
    for _, name in ipairs(fields) do mentioned = mentioned or source:find(name, 1, true) ~= nil end
    if not mentioned then refuse("the chat template does not read '%s'", field) end
    local text = values.text(content)
    if values.is_sequence(content) then
        message.map[field], text = open_parts(content)
    elseif text then
        for _, name in ipairs(fields) do message.map[name] = text .. TAG end
    else
        refuse("'%s' is %s, not text", field, values.kind(content))
    end
    local out = values.list()
    for i, other in ipairs(messages) do out[i] = other end
    out[#out] = message
    return out, text
end

--- The rendered text up to where the last message ends. `content` is what open_last returned.
function M.cut_open(text, content)
    local stop, start = nil, text:find(BARE_TAG, 1, true)
    while start do
        stop, start = start, text:find(BARE_TAG, start + 1, true)
    end
    if not stop or not text:find(strings.strip(content, nil, true, true), 1, true) then
        refuse("the last message is not in the text as it is: the chat template changes it")
    end
    local cut = text:sub(1, stop - 1)
    if text:sub(stop, stop + #TAG - 1) == TAG then return cut end
    return strings.strip(cut, nil, false, true) -- the template took the blanks at the end
end

return M
