-- What the recipe for models of images and text (recipes/vlm_finetune.lua) has beside that for text: its sections,
-- the processor, parts that are frozen, and what the model sees of a batch. Prompts with images are vlm_samples.lua's.

local am = require("am")
local config = require("am.config")
local err = require("am.core.error")
local llm = require("am.recipes.llm")

local M = { Methods = {} }
local Methods = M.Methods

-- ---- sections -------------------------------------------------------------------------------

--- Sections and keys of the configuration, in place of those for text.
M.fields = {
    model = { target = true, required = true, of = "^am%.AutoModelForImageTextToText%.", doc = "the model" },
    processor = { target = true, of = "^am%.AutoProcessor%.", default_target = "am.AutoProcessor.from_pretrained",
                  given = { "pretrained_model_name_or_path" },
                  doc = "what makes pixel values and ids of images and text; the model's by default" },
    freeze_config = { fields = {
        freeze_embeddings = { type = "boolean", default = true,
                              doc = "leave embeddings as they are, and with them a tied head" },
        freeze_vision_tower = { type = "boolean", default = true,
                                doc = "leave parts whose path holds vision, visual or image_encoder" },
        freeze_audio_tower = { type = "boolean", default = false, doc = "leave parts whose path holds audio" },
        freeze_language_model = { type = "boolean", default = false,
                                  doc = "leave parts whose path holds language, text or llm; not the head" },
        freeze_video_embedder = { type = "boolean", no_effect = "no model here has one" },
    }, doc = "parts that are not trained; these defaults hold without the section, too" },
}

-- ---- parts that are frozen ------------------------------------------------------------------

local parts = { -- key, default, words of a path
    { "freeze_vision_tower", true, { "vision", "visual", "image_encoder" } },
    { "freeze_audio_tower", false, { "audio" } },
    { "freeze_language_model", false, { "language", "text", "llm" } },
}

local function holds(name, words)
    for _, word in ipairs(words) do
        if name:find(word, 1, true) then
            return true
        end
    end
    return false
end

--- Freeze what freeze_config names: embeddings wherever they are, and parts by their path in the model.
function Methods:freeze(model)
    local words = {}
    for _, part in ipairs(parts) do
        if self.cfg:get("freeze_config." .. part[1], part[2]) then
            for _, word in ipairs(part[3]) do
                words[#words + 1] = word
            end
        end
    end
    local embeddings = self.cfg:get("freeze_config.freeze_embeddings", true)
    for name, module in model:named_modules() do
        if holds(name:lower(), words) or (embeddings and module.class_name == "Embedding") then
            for _, slot in ipairs(module._parameters) do
                module[slot.name].requires_grad = false
            end
        end
    end
end

-- ---- the processor --------------------------------------------------------------------------

-- A processor of another model makes ids that this one does not know, or does not take for images.
local function check_fit(self, processor)
    local model, where = self.model, self.cfg:where(self.cfg:has("processor") and "processor" or "model")
    local own = model.config.image_token_id or model.config.image_token_index
    if own and processor.image_token_id ~= own then
        err.raise("usage", "%s: the processor does not fit the model: its image token is %s (id %s), and the model's "
                  .. "has the id %s; take the processor of the same checkpoint", where,
                  tostring(processor.image_token), tostring(processor.image_token_id), tostring(own))
    end
end

--- What makes pixel values and ids: the `processor` section's, or the model's own.
function Methods:get_processor()
    if not self.processor then
        local section, given = self.cfg:child("processor"), {}
        if not (section and section:has("pretrained_model_name_or_path")) then
            given.pretrained_model_name_or_path = self.model.resolved_path or self.model.name_or_path
                or err.raise("usage", "%s: a new model has no processor: give a section processor with "
                             .. "pretrained_model_name_or_path", self.cfg:where("model"))
        end
        local processor = config.instantiate(section or config.from_table {}, self.ctx, given,
                                             { default_target = "am.AutoProcessor.from_pretrained" })
        check_fit(self, processor)
        self.processor = processor
    end
    return self.processor
end

--- The processor's tokenizer, unless a `tokenizer` section names another.
function Methods:get_tokenizer()
    if self.cfg:has("tokenizer") then
        return llm.get_tokenizer(self)
    end
    return self:get_processor().tokenizer
end

return M
