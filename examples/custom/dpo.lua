-- Direct preference optimization (Rafailov et al. 2023): of two answers to a prompt the model learns to prefer
-- the chosen one, measured against what it was before. A recipe, a dataset and a loss in one file; steps,
-- checkpoints, resuming, LoRA, schedules and logs are inherited.
--   amlua examples/custom/dpo.lua examples/custom/dpo.yaml
-- Loss and gradients are those of TRL's DPOTrainer with loss_type "sigmoid".

local ffi = require("ffi")
local am = require("am")
local datasets = require("am.datasets")
local file_rows = require("am.datasets.file_rows")
local formatting = require("am.datasets.formatting")
local config = require("am.config")
local flops = require("am.recipes.flops")
local memory = require("am.recipes.memory")
local parent = require("recipes.llm_finetune")

local Recipe = parent:extend("dpo")
Recipe.doc = "Direct preference optimization."

function Recipe.schema()
    local fields = parent.schema()
    fields.reference_model = { target = true, doc = "what to measure against; the model as it was by default" }
    fields.beta = { type = "number", above = 0, default = 0.1, doc = "how dear a step away from the reference is" }
    return fields
end

-- ---- data: rows { prompt, chosen, rejected } --------------------------------------------------

Recipe.fields = { preferences = {
    path_or_dataset_id = { type = "string|list", required = true, doc = "JSON or JSONL files" },
    tokenizer = { target = true, default_target = "am.AutoTokenizer.from_pretrained" },
} }

--- A dataset of pairs of rows; `dataset: {_target_: dpo.lua:preferences}`.
function Recipe.preferences(args)
    local source = file_rows.open(file_rows.files(args.path_or_dataset_id))
    local pairs_of = {}
    function pairs_of.len() return source:len() end
    function pairs_of.get(_, i)
        local row = source:get(i)
        return { chosen = formatting.prompt_answer(args.tokenizer, row.prompt .. " ", row.chosen, {}),
                 rejected = formatting.prompt_answer(args.tokenizer, row.prompt .. " ", row.rejected, {}) }
    end
    return pairs_of
end

--- A batch of pairs: all chosen rows, then all rejected ones. Losses are divided by num_label_tokens, which
--- is the number of pairs here.
function Recipe.collate(_, rows)
    local flat = {}
    for i, row in ipairs(rows) do
        flat[i], flat[#rows + i] = row.chosen, row.rejected
    end
    local batch = datasets.default_collater(flat)
    batch.num_label_tokens = #rows
    return batch
end

function Recipe.audit() return {} end -- rows are pairs

-- What is said before the first step counts both rows of a pair, and the reference.
function Recipe.tokens_at_once(_, pairs_count, length)
    return 2 * pairs_count * length
end

function Recipe:batch_flops(rows, length, _, seen)
    self.reference_costs = self.reference_costs or flops.costs(self.reference or self.model, true)
    return parent.batch_flops(self, rows, length, rows * length, seen)
        + flops.of_rows(self.reference_costs, rows, length, rows * length, seen)
end

function Recipe:bytes_beside(tokens)
    local reference = self.reference or self.model -- not loaded by --dry-run
    return parent.bytes_beside(self, tokens), memory.weight_bytes(reference) + memory.forward_bytes(reference, tokens)
end

Recipe.other_model = "the reference"

-- ---- the reference ----------------------------------------------------------------------------

function Recipe:build_model()
    local section = self.cfg:child("reference_model") or self.cfg:child("model")
    local before = am.memory().live_bytes
    self.reference = config.instantiate(section, self.ctx):eval()
    self.teacher_allocated = am.memory().live_bytes - before -- the rest of it is still in its file
    self.beta = self.cfg:get("beta", 0.1)
    return parent.build_model(self)
end

-- ---- the loss ---------------------------------------------------------------------------------

--- ln p of each row's labels: an array of scalar tensors.
function Recipe.log_probs(model, batch)
    local B, T = batch.B, batch.T
    local function int32(array, shape) return am.from_buffer(array, shape, { dtype = "int32" }) end
    local hidden = model:forward({
        input_ids = int32(batch.input_ids, { B, T }), position_ids = int32(batch.position_ids, { B, T }),
        bounds = int32(batch.bounds, { B, T, 2 }), logits_to_keep = false,
    }).hidden_states:reshape(B * T, -1)
    local sums = {}
    for b = 0, B - 1 do -- only what has a label goes through the head
        local places, labels, n = ffi.new("int32_t[?]", T), ffi.new("int32_t[?]", T), 0
        for t = b * T, b * T + T - 1 do
            if batch.labels[t] ~= datasets.IGNORE then
                places[n], labels[n], n = t, batch.labels[t], n + 1
            end
        end
        local logits = model:head(hidden:index_select(0, int32(places, { n }))):to("float32")
        sums[b + 1] = am.ops.cross_entropy(logits, int32(labels, { n })) * -1
    end
    return sums
end

--- Sum over pairs of -ln sigmoid(beta ((chosen - its reference) - (rejected - its reference))).
function Recipe:loss(batch)
    local reference = am.no_grad(self.log_probs, self.reference, batch)
    local policy, pairs_count, total = self.log_probs(self.model, batch), batch.B / 2, nil
    for i = 1, pairs_count do
        local chosen, rejected = policy[i] - reference[i], policy[pairs_count + i] - reference[pairs_count + i]
        local loss = ((chosen - rejected) * -self.beta):softplus() -- -ln sigmoid(x) = softplus(-x)
        total = total and total + loss or loss
    end
    return total
end

return Recipe
