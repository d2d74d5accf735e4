-- Processors as transformers' are called: texts with their images, or conversations that name theirs, at once, to
-- tensors. Also their tensors and their saving. Builds on processor.lua, which does one text.

local err = require("am.core.error")
local files = require("am.processors.files")
local json = require("am.utils.json")
local tensor = require("am.core.tensor")
local text = require("am.processors.text")

local Processor = require("am.processors.processor").Processor
local M = { Processor = Processor }

-- ---- tensors ------------------------------------------------------------------------------------

--- Tensors of what collect or render gave: float32, int64 for whole numbers. `device`: nil for the default one.
function Processor.to_tensors(fields, device)
    local out = {}
    for name, value in pairs(fields or {}) do
        if value.buffer then
            out[name] = tensor.from_buffer(value.buffer, value.shape, { dtype = value.dtype or "float32",
                                                                         device = device })
        else
            out[name] = tensor.tensor(value, { dtype = "int64", device = device })
        end
    end
    return out
end

-- ---- arguments ----------------------------------------------------------------------------------

-- A text, a path or a table with path or data is one image; else a list.
local function is_image(value)
    return type(value) == "string" or (type(value) == "table" and (value.path ~= nil or value.data ~= nil))
end

-- Images as a list of lists, one for each text (without texts, of the nesting that is there).
local function nested(images, texts, marker)
    if images == nil then
        return {}
    elseif is_image(images) then
        images = { images }
    elseif type(images) ~= "table" then
        err.raise("usage", "images is an image, a list of images or a list of such lists, not %s", tostring(images))
    end
    if type(images[1]) == "table" and not is_image(images[1]) then
        return images
    elseif not texts then
        return { images }
    end
    local out, at = {}, 1
    for i, sample in ipairs(texts) do
        out[i] = {}
        for _ = 1, text.count(sample, marker) do
            out[i][#out[i] + 1], at = images[at], at + 1
        end
    end
    for k = at, #images do -- too many, which the last text's count will tell
        out[#texts][#out[#texts] + 1] = images[k]
    end
    return out
end

local function plans_of(self, images)
    local plans = {}
    for i, source in ipairs(images or {}) do plans[i] = self:plan(source) end
    return plans
end

local function submitted(self, rows)
    local pendings = {}
    for i, plans in ipairs(rows) do pendings[i] = self:submit(plans) end
    return pendings
end

-- What is in the columns of a padded place.
local function padding(self, name)
    if name == "input_ids" then
        return self.tokenizer.pad_token_id
            or err.raise("usage", "texts of different lengths need a pad_token, and this tokenizer has none")
    end
    return name == "labels" and -100 or 0
end

-- Rows of arrays of equal length, padded at the tokenizer's side.
local function padded(self, rows)
    local longest, out = 0, {}
    for _, row in ipairs(rows) do longest = math.max(longest, #row.input_ids) end
    for name in pairs(rows[1]) do
        out[name] = {}
        for i, row in ipairs(rows) do
            local missing, filled = longest - #row.input_ids, {}
            local left = self.tokenizer.padding_side == "left" and missing or 0
            local fill = missing > 0 and padding(self, name)
            for k = 1, longest do
                local own = row[name][k - left]
                filled[k] = own == nil and fill or own
            end
            out[name][i] = filled
        end
    end
    return out
end

-- Rendered rows and submitted images as tensors.
local function gathered(self, rows, pendings, device)
    local out = rows and padded(self, rows) or {}
    for name, value in pairs(self:collect(pendings) or {}) do out[name] = value end
    return Processor.to_tensors(out, device)
end

-- ---- calls --------------------------------------------------------------------------------------

--- processor{ text =, images = }: as transformers' processors, tensors for forward. `text`: a text with image
--- markers, or a list of them; `images`: an image, a list (dealt out by the markers), or a list of lists, one for
--- each text. Texts of different lengths are padded at the tokenizer's side. An image processor alone takes
--- `images` only. Also `suffix` (PaliGemma), `add_special_tokens` and `device`.
function Processor:__call(args)
    if type(args) ~= "table" or (args.text == nil and args.images == nil) then
        err.raise("usage", "a processor is called with { text =, images = }")
    end
    local texts = type(args.text) == "string" and { args.text } or args.text
    if texts then
        self:need_text()
    end
    local rows, plans = texts and {}, {}
    local images = nested(args.images, texts, self.image_token)
    if texts and #images > #texts then
        err.raise("usage", "%d lists of images for %d texts", #images, #texts)
    end
    for i = 1, texts and #texts or #images do plans[i] = plans_of(self, images[i]) end
    local suffix = type(args.suffix) == "string" and { args.suffix } or args.suffix or {}
    for i, sample in ipairs(texts or {}) do
        rows[i] = self:encode(sample, plans[i], nil, { add_special_tokens = args.add_special_tokens,
                                                       suffix = suffix[i], labels = true })
    end
    return gathered(self, rows, submitted(self, plans), args.device)
end

-- The sources of a conversation's images, in order.
local function images_of(messages)
    local out = {}
    for _, message in ipairs(messages) do
        local content = type(message) == "table" and message.content
        for _, part in ipairs(type(content) == "table" and content or {}) do
            if type(part) == "table" and part.type == "image" then
                local source = part.image or part.url or part.path
                    or part.base64 and "data:image/;base64," .. part.base64
                out[#out + 1] = source
            elseif type(part) == "table" and part.type == "image_url" then
                local url = part.image_url
                out[#out + 1] = type(url) == "table" and url.url or url
            end
        end
    end
    return out
end

-- Templates know images as parts of type "image"; other APIs call them "image_url".
local function with_images(messages)
    local out = {}
    for i, message in ipairs(messages) do
        out[i] = message
        local content = type(message) == "table" and message.content
        for k, part in ipairs(type(content) == "table" and content or {}) do
            if type(part) == "table" and part.type == "image_url" then
                if out[i] == message then
                    local parts = json.array()
                    for j, other in ipairs(content) do parts[j] = other end
                    out[i] = {}
                    for name, value in pairs(message) do out[i][name] = value end
                    out[i].content = parts
                end
                out[i].content[k] = { type = "image" }
            end
        end
    end
    return out
end

-- A list of conversations rather than of messages.
local function is_batch(conversations)
    local first = conversations[1]
    return type(first) == "table" and first.role == nil and type(first[1]) == "table"
end

--- A conversation as text; with { tokenize = true } as ids, and with { tokenize = true, return_dict = true } as
--- tensors for forward, images included: those that its parts { type = "image", image | url | path | base64 = }
--- name, or opts.images. A list of conversations gives a list, or tensors of as many rows. Other opts: those of the
--- tokenizer's apply_chat_template, `images`, `device`.
function Processor:apply_chat_template(messages, opts)
    opts = opts or {}
    if type(messages) ~= "table" then
        err.raise("usage", "apply_chat_template: needs an array of messages, got a %s", type(messages))
    end
    local own, batch = {}, is_batch(messages)
    for name, value in pairs(opts) do
        if name ~= "images" and name ~= "device" and name ~= "tokenize" and name ~= "return_dict" then
            own[name] = value
        end
    end
    local rows, plans = {}, {}
    for i, conversation in ipairs(batch and messages or { messages }) do
        local shown = with_images(conversation)
        if opts.tokenize then
            local images = opts.images and (batch and opts.images[i] or opts.images) or images_of(conversation)
            plans[i] = plans_of(self, images)
            rows[i] = self:render(shown, plans[i], own)
        else
            rows[i] = self:chat_text(shown, own)
        end
    end
    if opts.tokenize and opts.return_dict then
        return gathered(self, rows, submitted(self, plans), opts.device)
    end
    for i, row in ipairs(rows) do rows[i] = opts.tokenize and row.input_ids or row end
    return batch and rows or rows[1]
end

-- ---- saving -------------------------------------------------------------------------------------

--- Write the processor's files into a folder, as they were read but for what the options set and another
--- chat_template, and the tokenizer's, so that transformers' AutoProcessor opens it.
function Processor:save_pretrained(dir)
    if type(dir) ~= "string" then
        err.raise("usage", "save_pretrained takes the name of a folder, not a %s", type(dir))
    end
    local image, own = {}, {}
    local kinds = self.family and self.family.kinds or {}
    for key, value in pairs(self.overrides) do
        if kinds[key] then own[key] = value else image[key] = value end
    end
    if self.image_processor.family.saved then
        self.image_processor.family.saved(image, self.image_processor.settings)
    end
    if self.tokenizer then
        self.tokenizer:save_pretrained(dir)
    end
    files.write(dir, self.description, image, own, self.chat_template)
end

return M
