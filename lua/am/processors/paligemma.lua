-- PaliGemma: image_seq_length tokens for each image, <bos>, the prompt and a newline; then, to be learnt, the answer
-- and <eos>. It has no turns: a conversation is a question and an answer.

local err = require("am.core.error")
local text = require("am.processors.text")

local PaliGemma = { kinds = {} }

function PaliGemma.setup(self)
    local n = self.image_processor.settings.image_seq_length
    if not n then
        err.raise("format", "%s: image_seq_length is missing; set it to the number of tokens of an image, in the file "
            .. "or as an option", self.image_processor.file)
    end
    self.image_seq_length = n
    self:use_image_token(self.tokenizer:named_token("image_token") or "<image>")
    if not self.tokenizer.bos_token or not self.tokenizer.eos_token then
        err.raise("format", "%s needs a tokenizer with bos_token and eos_token", self.class)
    end
end

function PaliGemma.expand(self, plan)
    return self.image_token:rep(self:count(plan, self.image_seq_length)), self.image_seq_length
end

-- <bos> behind the last image, which stands first where the text has none; a newline at the end.
function PaliGemma.arrange(self, prompt, n_images, spans)
    local bos, last = self.tokenizer.bos_token, 0
    if text.count(prompt, self.image_token) == 0 then
        local images = self.image_token:rep(n_images)
        prompt, last = images .. prompt, #images
    else
        local at = 1
        while true do
            local first, stop = prompt:find(self.image_token, at, true)
            if not first then break end
            at, last = stop + 1, stop
        end
    end
    local moved = spans and {}
    for i, span in ipairs(spans or {}) do
        moved[i] = { span[1] > last and span[1] + #bos or span[1], span[2] > last and span[2] + #bos or span[2] }
    end
    return prompt:sub(1, last) .. bos .. prompt:sub(last + 1) .. "\n", moved
end

-- The answer's ids behind the prompt's. opts.suffix: the answer.
function PaliGemma.finish(self, out, opts)
    local ids, types, n = out.input_ids, {}, #out.input_ids
    for i = 1, n do types[i] = 0 end
    if opts.suffix then
        for i, id in ipairs(self.tokenizer:encode(opts.suffix .. self.tokenizer.eos_token,
                                                  { add_special_tokens = false })) do
            ids[n + i], types[n + i] = id, 1
        end
    end
    out.token_type_ids = types
    if opts.labels then
        out.labels = {}
        for i, id in ipairs(ids) do out.labels[i] = types[i] == 1 and id or -100 end
    end
end

-- The texts of a message, its images as markers.
local function content_of(self, message)
    local content = message.content
    if type(content) == "string" then
        return content
    end
    local images, texts = {}, {}
    for _, part in ipairs(type(content) == "table" and content or {}) do
        if part.type == "image" then
            images[#images + 1] = self.image_token
        elseif part.type == "text" and type(part.text) == "string" then
            texts[#texts + 1] = part.text
        else
            err.raise("data", "a part of a message is of type \"%s\", which is neither text nor image",
                tostring(part.type))
        end
    end
    return table.concat(images) .. table.concat(texts, "\n")
end

--- Without a chat template: what comes before the answer is the prompt, the assistant's message the answer.
function PaliGemma.render(self, messages, plans, opts)
    if opts.chat_template or self.chat_template or self.tokenizer.chat_template then
        return nil
    end
    local prompts, suffix = {}, nil
    for _, message in ipairs(messages) do
        if suffix then
            err.raise("data", "the conversation goes on after its answer, and PaliGemma gives one answer to one prompt")
        elseif message.role == "assistant" then
            suffix = content_of(self, message)
        else
            prompts[#prompts + 1] = content_of(self, message)
        end
    end
    local out = self:encode(table.concat(prompts, "\n"), plans, nil, { suffix = suffix })
    if opts.return_assistant_tokens_mask then
        out.assistant_masks = {}
        for i, kind in ipairs(out.token_type_ids) do out.assistant_masks[i] = kind end
    end
    return out
end

function PaliGemma.check(self, config, vision, must)
    local size = self.image_processor.settings.size or {}
    must.same("the image token's id", self.image_token_id, config.image_token_id or config.image_token_index)
    must.same("the height of an image", size.height, vision.image_size)
    must.same("the width of an image", size.width, vision.image_size)
    if type(vision.image_size) == "number" and type(vision.patch_size) == "number" then
        must.same("image_seq_length", self.image_seq_length, math.floor(vision.image_size / vision.patch_size) ^ 2)
    end
end

return { processors = { PaliGemmaProcessor = PaliGemma } }
