-- Fine-tune a classifier of sequences, fully or with LoRA (whose head is trained whole). The loss is the mean
-- cross-entropy over rows; accuracy is logged beside it. All else is llm_finetune's.
--
--   amlua recipes/llm_seq_cls.lua config.yaml [--section.key value]

local am = require("am")
local datasets = require("am.datasets")
local err = require("am.core.error")
local llm_finetune = require("recipes.llm_finetune")
local sequence_classification = require("am.models.sequence_classification")

local Recipe = llm_finetune:extend("llm_seq_cls")
Recipe.doc = "Fine-tune a classifier of sequences."

function Recipe.schema()
    local fields = llm_finetune.schema()
    fields.loss_fn = { type = "any", no_effect = "the loss is cross-entropy over classes" }
    for _, key in ipairs { "metrics", "samples", "packed_sequence" } do
        fields[key] = nil -- a row is one number, and stays a row
    end
    return fields
end

-- ---- building -------------------------------------------------------------------------------

function Recipe:build_model()
    local model = llm_finetune.build_model(self)
    if not model.score then
        err.raise("usage", "%s: model: %s is no classifier; take "
                  .. "_target_: am.AutoModelForSequenceClassification.from_pretrained", self.cfg:where("model"),
                  model.class_name)
    end
    self.num_labels = sequence_classification.num_labels(model.config)
    return model
end

function Recipe.build_loss() end -- it has one

-- Collaters of tokens, which configurations name by habit, have no class.
function Recipe:build_loader(dataset_key, loader_key, for_training)
    local named = self.cfg:get(loader_key .. ".collate_fn")
    local entry = type(named) == "string" and self.ctx.registry:lookup(named)
    if entry and entry.name == "am.datasets.default_collater" then
        self.cfg:unset(loader_key .. ".collate_fn")
    end
    return llm_finetune.build_loader(self, dataset_key, loader_key, for_training)
end

--- Rows to a batch whose labels are their classes.
function Recipe:collate(rows)
    return datasets.sequence_classification_collater(rows, { pad_token_id = self:padding_id(),
                                                             num_labels = self.num_labels })
end

Recipe.tokens_at_once = llm_finetune.tokens_at_once -- collate pads rows, and no more

-- ---- the loss -------------------------------------------------------------------------------

--- Sum of the cross-entropy over a batch's rows. Counts those that are classified rightly in self.right.
function Recipe:loss(batch)
    local int32, B = self.int32_on(self.model:device()), batch.B
    local labels = int32(batch.labels, { B })
    local logits = self.model:forward(self:inputs(batch, int32)).logits:to("float32")
    self.right = (self.right or 0)
        + logits:detach():argmax(-1):to("int32"):eq(labels):to("float32"):sum():item()
    return am.ops.cross_entropy(logits, labels)
end

--- One step; `extra` has the accuracy over its rows.
function Recipe:step(window)
    self.right = 0
    local metrics = llm_finetune.step(self, window)
    metrics.extra = { accuracy = self.mesh:reduce("loss", { self.right })[1] / math.max(metrics.num_label_tokens, 1) }
    return metrics
end

function Recipe.validation_keys() return { val_loss = true, val_accuracy = true } end

function Recipe:evaluate_set(set)
    self.right = 0
    local record = llm_finetune.evaluate_set(self, set)
    if record then
        record.val_accuracy = self.mesh:reduce("loss", { self.right })[1] / math.max(record.num_label_tokens, 1)
    end
    return record
end

return Recipe
