-- What the recipe for models of images and text (recipes/vlm_finetune.lua) has beside that for text: its sections,
-- the processor, parts that are frozen, and what the model sees of a batch. Prompts with images are vlm_samples.lua's.

local am = require("am")
local config = require("am.config")
local dataloader = require("am.datasets.dataloader")
local vlm_datasets = require("am.datasets").vlm
local err = require("am.core.error")
local llm = require("am.recipes.llm")
local sections = require("am.recipes.sections")
local vision_costs = require("am.recipes.vision_costs")
local vlm_samples = require("am.recipes.vlm_samples")

local M = { Methods = {} }
local Methods = M.Methods

-- ---- sections -------------------------------------------------------------------------------

local fields = {
    model = { target = true, required = true, of = "^am%.AutoModel", doc = "the model" },
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
    samples = { fields = vlm_samples.fields, doc = "answers to fixed prompts and about the first rows of the "
                    .. "validation set, at every validation" },
    packed_sequence = { doc = "several samples in a row", fields = sections.with({
        post_tokenize_hook_fn = { type = "any", not_yet = "rows are packed as the chat template makes them; leave it "
                                      .. "out" },
    }, vlm_datasets.packed_sequence_fields) },
}
for key, doc in pairs { dataset = "training data", validation_dataset = "absent: no validation",
                        ["validation_dataset_*"] = "further ones, each with a name" } do
    fields[key] = { target = true, required = key == "dataset" or nil, of = "^am%.datasets%.vlm%.",
                    given = { "processor" }, doc = doc }
end

local loader_fields = sections.with({
    collate_fn = { type = "function", of = "^am%.datasets%.vlm%.", doc = "examples to a batch (the processor's)" },
}, dataloader.picture_fields)

--- The schema of the recipe for text with the sections and keys of this one.
function M.schema(schema)
    for key, spec in pairs(fields) do
        schema[key] = spec
    end
    for _, key in ipairs { "dataloader", "validation_dataloader", "validation_dataloader_*" } do
        local keys = sections.with({}, loader_fields, schema[key].fields or {})
        schema[key] = sections.with({ fields = keys }, schema[key])
    end
    return schema
end

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

-- fn(...), whose errors say the place.
local function at(place, fn, ...)
    local ok, result = pcall(fn, ...)
    if not ok then
        error(err.within(result, place), 0)
    end
    return result
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
        local place, processor = "processor, " .. self.cfg:where(section and "processor" or "model")
        if section then
            processor = config.instantiate(section, self.ctx, given,
                                           { default_target = "am.AutoProcessor.from_pretrained" })
        else
            processor = at(place, am.AutoProcessor.from_pretrained, given.pretrained_model_name_or_path)
        end
        at(place, processor.check, processor, self.model.config) -- one of another model makes other ids
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

-- ---- data -----------------------------------------------------------------------------------

-- The loader's section that goes with a section of data.
local function loader_key(cfg, section)
    local own = section.key:gsub("dataset", "dataloader", 1)
    return cfg:has(own) and own or section.key:find("^validation") and "validation_dataloader" or own
end

--- Token rows for a dataset section: conversations, rendered by the processor.
function Methods:build_dataset(section)
    local processor, dataset = self:get_processor(), llm.build_dataset(self, section)
    if not dataset.has_pictures then -- of one's own: read when batches are made
        return dataset
    end
    local collate = self.cfg:child(loader_key(self.cfg, section) .. ".collate_fn")
    local packs = section.key == "dataset" and self:pack_size() > 0
    local rows = vlm_datasets.prepare(dataset, processor, {
        max_length = packs and self.cfg:get("packed_sequence.max_length")
            or collate and collate.kind == "map" and collate:get("max_length") or nil,
        drop_overlong = packs or collate and collate.kind == "map" and collate:get("drop_overlong") or nil,
    })
    if section.key == "dataset" then
        self.training_rows = rows
    end
    return rows
end

function Methods:pack_size()
    return vlm_datasets.pack_size(self:section("packed_sequence"))
end

function Methods:pack(dataset)
    local options = self:section("packed_sequence")
    options.padding_id = self:padding_id()
    return vlm_datasets.pack_dataset(dataset, options)
end

--- Rows to a batch, where a dataloader section names no collate_fn: that of the processor's class.
function Methods:collate(rows)
    local processor = self:get_processor()
    return vlm_datasets.collate_fn_for(processor)(rows, processor)
end

Methods.cut_by = { length = "max_length", cut = "truncate" }

function Methods:sample_batch(loader)
    return loader.collate_fn({ loader:sample_row() }, self:get_processor())
end

--- Batches are as long as their longest row.
Methods.tokens_at_once = function(_, rows, length) return rows * length end

--- Pictures beside what text models see.
function Methods:inputs(batch, int32)
    local inputs = llm.inputs(self, batch, int32)
    if batch.token_type_ids then
        inputs.token_type_ids = int32(batch.token_type_ids, { batch.B, batch.T })
    end
    for name, tensor in pairs(self.processor.to_tensors(batch.fields, self.model:device())) do
        inputs[name] = tensor
    end
    return inputs
end

-- ---- what pictures cost ---------------------------------------------------------------------

local LOOKED_AT = 32 -- rows, for an estimate

-- FLOPs and bytes of pictures for a token of the training data, by its first rows: the mean, and the most.
local function costs_of_token(self)
    if self.picture_costs then
        return unpack(self.picture_costs)
    end
    local costs, size = self.vision_costs or vision_costs.of(self.model), self.model:dtype() == "float32" and 4 or 2
    local rows, work, tokens, most = self.training_rows, 0, 0, 0
    for i = 1, rows and math.min(rows:len(), LOOKED_AT) or 0 do
        local row = rows:get(i)
        if row.plans then
            work = work + vision_costs.flops(costs, row.plans)
            tokens, most = tokens + #row.input_ids,
                math.max(most, vision_costs.bytes(costs, row.plans, size) / #row.input_ids)
        end
    end
    self.picture_costs = { work / math.max(tokens, 1), most }
    return unpack(self.picture_costs)
end

function Methods:note_costs()
    llm.note_costs(self)
    self.vision_costs = vision_costs.of(self.model)
end

function Methods:batch_flops(rows, length, labels, seen, batch)
    local work = llm.batch_flops(self, rows, length, labels, seen)
    if batch then
        return work + vision_costs.flops(self.vision_costs, batch.plans)
    end
    return work + costs_of_token(self) * rows * length
end

Methods.other_model = "pictures and the vision tower"

function Methods:bytes_beside(tokens)
    local _, bytes = costs_of_token(self)
    return llm.bytes_beside(self, tokens), bytes * tokens
end

-- ---- samples and saving ---------------------------------------------------------------------

function Methods:build_samples(log)
    local set = self.validation_sets[1]
    return vlm_samples.new(self:section("samples"), {
        processor = self:get_processor(), device = function() return self.model:device() end,
        limit = am.models.position_limit(self.model.config), dataset = set and set.loader.dataset,
    }, log)
end

--- The processor's files, which are the tokenizer's and more.
function Methods:save_tokenizer(dir)
    self:get_processor():save_pretrained(dir)
    if self.cfg:has("tokenizer") then
        llm.save_tokenizer(self, dir)
    end
end

return M
