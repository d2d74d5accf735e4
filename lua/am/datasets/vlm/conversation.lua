-- A row's conversation in one form, whatever form it was written in:
--   messages  { { role = "user", content = { { type = "image" }, { type = "text", text = … } } }, … }
--   images    the sources of its images, in the order in which they stand there
-- Holds no files, and does not look into images.
--
-- Read are NeMo Automodel's (role, content) and transformers' (which is OpenAI's, too), with content as a text or
-- a list of parts, and LLaVA's and ShareGPT's (from, value). Where an image belongs a part says, with the image
-- itself or without it, or a marker <image> in a user's text; what has no image of its own takes the next one of
-- those that stand beside the conversation. The two numbers must agree.

local err = require("am.core.error")
local json = require("am.utils.json")
local strings = require("am.utils.strings")
local sources = require("am.datasets.vlm.sources")

local M = {}

local MARKER = "<image>"

local speakers = { system = "system", user = "user", human = "user", assistant = "assistant", gpt = "assistant",
                   chatgpt = "assistant", model = "assistant", bot = "assistant" }

local function is_null(x)
    return x == nil or x == json.null
end

local function is_object(x)
    return type(x) == "table" and x ~= json.null and not json.is_array(x)
end

local function is_list(x)
    return type(x) == "table" and x ~= json.null and (json.is_array(x) or next(x) == nil)
end

-- A conversation that is being put together.
local Builder = {}
Builder.__index = Builder

-- The next of the images that stand beside the conversation.
function Builder:next_image(where)
    self.used = self.used + 1
    local beside = self.beside
    local value = beside[self.repeated and math.min(self.used, #beside) or self.used]
    if is_null(value) then
        err.raise("data", "%s: more places for images than images: there %s %d", where, #beside == 1 and "is" or "are",
            #beside)
    end
    return value
end

function Builder:add_image(parts, value, where)
    self.images[#self.images + 1] = sources.of(is_null(value) and self:next_image(where) or value, self.base, where)
    parts[#parts + 1] = { type = "image" }
end

-- A user's text with markers. A single one stands before the text, wherever it was written: so LLaVA does it.
function Builder:add_marked(parts, text, where)
    local pieces = strings.split(text, MARKER)
    if #pieces == 2 then
        pieces = { "", pieces[1] .. pieces[2] }
    end
    for i, piece in ipairs(pieces) do
        if i > 1 then
            self:add_image(parts, nil, where)
        end
        piece = #pieces > 1 and strings.trim(piece) or piece
        if piece ~= "" then
            parts[#parts + 1] = { type = "text", text = piece }
        end
    end
end

local function not_heard(kind, where)
    err.raise("unsupported", "%s: %s in a conversation is not read: there are text and images", where, kind)
end

-- What an OpenAI part holds under image_url: a URL, or { url = … }.
local function image_of(part)
    for _, key in ipairs { "image", "image_url", "url", "path", "base64" } do
        if not is_null(part[key]) then
            return key == "base64" and { base64 = part[key] } or part[key]
        end
    end
end

function Builder:add_part(parts, part, where)
    if not is_object(part) then
        err.raise("data", "%s: a part of the content is no object with a type", where)
    end
    local kind = part.type
    if is_null(kind) then
        kind = not is_null(part.text) and "text" or "image"
    end
    if kind == "text" or kind == "input_text" then
        if type(part.text) ~= "string" then
            err.raise("data", "%s: a text part's text is no text", where)
        end
        parts[#parts + 1] = { type = "text", text = part.text }
    elseif kind == "image" or kind == "image_url" or kind == "input_image" then
        self:add_image(parts, image_of(part), where)
    elseif kind == "video" or kind == "video_url" then
        not_heard("video", where)
    elseif type(kind) == "string" and kind:find("audio", 1, true) then
        not_heard("audio", where)
    else
        err.raise("data", "%s: a part of type %s; there are text and image", where, json.encode(kind))
    end
end

function Builder:content(content, role, where)
    local parts = {}
    if type(content) == "string" then
        if role == "user" then
            self:add_marked(parts, content, where)
        else
            parts[1] = { type = "text", text = self.trimmed and strings.trim(content) or content }
        end
    elseif is_list(content) then
        for i, part in ipairs(content) do
            self:add_part(parts, part, string.format("%s, part %d", where, i))
        end
    elseif not is_null(content) then
        err.raise("data", "%s: content is neither text nor a list of parts", where)
    end
    return parts
end

local function message_of(builder, message, where)
    if not is_object(message) then
        err.raise("data", "%s: a message is an object with role and content, or from and value", where)
    end
    local speaker = is_null(message.role) and message.from or message.role
    local role = type(speaker) == "string" and speakers[speaker]
    if not role then
        err.raise("data", "%s: a message of %s; there are system, user and assistant (human, gpt)", where,
            json.encode(speaker == nil and json.null or speaker))
    end
    local content = is_null(message.content) and message.value or message.content
    return { role = role, content = builder:content(content, role, where) }
end

--- Messages and images of a conversation: a list of messages, or a text that holds one as JSON. opts:
---   base      the folder that the images' paths are seen from
---   images    those that stand beside it, a list of values (see sources.lua)
---   repeated  the last of these stands at every further place, too
---   trimmed   answers lose the white space around them
--- `name` is what messages call the row. Raises "data", for audio and video "unsupported", naming row and message.
function M.read(list, opts, name)
    if type(list) == "string" then
        local decoded, why = json.decode(list)
        list = decoded ~= nil and decoded or err.raise("data", "%s: the conversation: %s", name, why)
    end
    if not is_list(list) or #list == 0 then
        err.raise("data", "%s: the conversation is no list of messages", name)
    end
    local builder = setmetatable({ base = opts.base or "", beside = opts.images or {}, used = 0, images = {},
                                   repeated = opts.repeated, trimmed = opts.trimmed }, Builder)
    local messages, answered = {}, false
    for i, message in ipairs(list) do
        messages[i] = message_of(builder, message, string.format("%s: message %d", name, i))
        answered = answered or messages[i].role == "assistant"
    end
    if builder.used < #builder.beside then
        err.raise("data", "%s: %d images beside the conversation, but %d places for them in it (a part of type image, "
            .. "or %s in the user's text)", name, #builder.beside, builder.used, MARKER)
    elseif not answered then
        err.raise("data", "%s: the conversation has no message of the assistant, so nothing is learnt", name)
    end
    return messages, builder.images
end

--- A conversation of one question about images and its answer.
function M.question(values, question, answer, opts, name)
    local parts = {}
    for i, value in ipairs(values) do
        parts[i] = { type = "image", image = value }
    end
    parts[#parts + 1] = { type = "text", text = question }
    return M.read({ { role = "user", content = parts },
                    { role = "assistant", content = { { type = "text", text = answer } } } }, opts, name)
end

return M
