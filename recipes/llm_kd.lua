-- Knowledge distillation: fine-tune a small model (the student) to give the probabilities that a larger one
-- (the teacher) gives. loss = (1 - kd_ratio) cross-entropy + kd_ratio KL(teacher || student), both as means
-- over label tokens. All else is llm_finetune's.
--
--   amlua recipes/llm_kd.lua config.yaml [--section.key value]

local am = require("am")
local config = require("am.config")
local distributed = require("am.distributed")
local err = require("am.core.error")
local flops = require("am.recipes.flops")
local llm_finetune = require("recipes.llm_finetune")
local sections = require("am.recipes.sections")

local Recipe = llm_finetune:extend("llm_kd")
Recipe.doc = "Distil a teacher model into a student."

function Recipe.schema()
    local fields = sections.with(sections.knowledge_distillation(), llm_finetune.schema())
    fields.teacher_model = { target = true, required = true, doc = "the model to learn from; it is not changed" }
    fields.kd_ratio = { type = "number", min = 0, max = 1, default = 0.5,
                        doc = "0: the labels alone, 1: the teacher alone" }
    fields.kd_loss_fn = { target = true, of = "^am%.loss%.KDLoss$", default_target = "am.loss.KDLoss",
                          doc = "how far the two are apart" }
    return fields
end

-- ---- the teacher ------------------------------------------------------------------------------

-- The two must mean the same by an id.
local function check_vocabulary(student, teacher)
    local own, other = student.config.vocab_size, teacher.config.vocab_size
    if own ~= other then
        err.raise("usage", "teacher_model has a vocabulary of %d ids and model one of %d: they must be the same", other,
                  own)
    end
end

function Recipe:check_tokenizers()
    if not (self.has_tokenizer(self.teacher) and self:find_tokenizer()) then
        return -- a model without one, trained on ids
    end
    local teacher = am.AutoTokenizer.from_pretrained(self.teacher.name_or_path)
    local probe = "The quick brown fox jumps over 1234 lazy dogs.\n\tdéjà vu: 你好 {x = y * 2}"
    local own, other = self:get_tokenizer():encode(probe), teacher:encode(probe)
    if table.concat(own, " ") ~= table.concat(other, " ") then
        err.raise("usage", "teacher_model and model have different tokenizers; a teacher of the same family is needed")
    end
end

function Recipe:build_model()
    local model = llm_finetune.build_model(self)
    local before = am.memory(model:device()).live_bytes
    self.teacher = config.instantiate(self.cfg:child("teacher_model"), self.ctx):eval()
    -- weights that were converted are in memory from now on; others are still in their file
    self.teacher_allocated = am.memory(model:device()).live_bytes - before
    for _, t in self.teacher:named_parameters() do
        t.requires_grad = false
    end
    check_vocabulary(model, self.teacher)
    self.model = model
    self:check_tokenizers()
    return model
end

function Recipe:build_loss()
    self.kd_ratio, self.sums = self.cfg:get("kd_ratio", 0.5), { ce = 0, kd = 0 }
    self.kd_loss_fn = config.instantiate(self.cfg:child("kd_loss_fn") or config.from_table {}, self.ctx, {},
                                         { default_target = "am.loss.KDLoss" })
    return llm_finetune.build_loss(self)
end

function Recipe:parallelize()
    llm_finetune.parallelize(self)
    if self.mesh:size("cp") > 1 then
        distributed.context_parallel.check(self.teacher, self.mesh)
    end
end

--- The teacher sees what the student sees.
Recipe.tokens_at_once = llm_finetune.tokens_at_once

function Recipe:batch_flops(rows, length, labels, seen)
    self.teacher_costs = self.teacher_costs or self.teacher and flops.costs(self.teacher, true)
    return llm_finetune.batch_flops(self, rows, length, labels, seen)
        + (self.teacher_costs and flops.of_rows(self.teacher_costs, rows, length, labels, seen) or 0)
end

-- ---- the loss ---------------------------------------------------------------------------------

function Recipe:loss(batch, see)
    if batch.num_label_tokens == 0 then -- nothing to learn, of the teacher neither
        if batch.part then -- but other ranks' tokens see these
            am.no_grad(self.label_states, self, self.teacher, batch)
        end
        return llm_finetune.loss(self, batch)
    end
    local teacher_hidden = am.no_grad(self.label_states, self, self.teacher, batch)
    local kd, ce
    local function both(hidden, labels, ctx)
        kd = self.kd_loss_fn(hidden, teacher_hidden, {
            head = function(h) return self.model:head(h) end,
            teacher_head = function(h) return self.teacher:head(h) end,
            vocab_size = ctx.vocab_size,
        })
        if see then
            see(hidden, labels, ctx)
        end
    end
    ce = llm_finetune.loss(self, batch, both)
    self.sums.ce, self.sums.kd = self.sums.ce + ce:item(), self.sums.kd + kd:item()
    return ce * (1 - self.kd_ratio) + kd * self.kd_ratio
end

--- One step; `extra` has the means of both losses.
function Recipe:step(window)
    self.sums = { ce = 0, kd = 0 }
    local metrics = llm_finetune.step(self, window)
    metrics.extra = self:means(metrics.num_label_tokens)
    return metrics
end

--- Both losses since self.sums was set to 0, of all ranks, for each of `count` tokens.
function Recipe:means(count)
    local ce, kd = unpack(self.mesh:reduce("loss", { self.sums.ce, self.sums.kd }))
    count = math.max(count, 1)
    return { ce_loss = ce / count, kd_loss = kd / count }
end

function Recipe:evaluate_set(set)
    self.sums = { ce = 0, kd = 0 }
    local record = llm_finetune.evaluate_set(self, set)
    if record then
        for key, value in pairs(self:means(record.num_label_tokens)) do
            record[key] = value
        end
    end
    return record
end

return Recipe
