-- Knowledge distillation (Hinton et al. 2015): forward KL(teacher || student) at a temperature, as
-- nemo_automodel's KDLoss has it. Holds no models: recipes/llm_kd.lua runs teacher and student.

local autograd = require("am.core.autograd")
local ops = require("am.core.ops")

local M = {}

local CHUNK = 1024 * 1024 -- logits at a time, of each of the two

local function log_probs(logits, temperature)
    return (logits:to("float32") * (1 / temperature)):log_softmax(-1)
end

-- Sum over rows of KL(teacher || student). What the teacher holds impossible (a logit of -inf) adds nothing.
local function divergence(teacher, student)
    local p = teacher:exp()
    return (p * ops.where(p:gt(0), teacher - student, 0)):sum()
end

--- A function (hidden [N, C], teacher_hidden [N, D], ctx) -> T^2 times the SUM over rows of the KL between
--- softmax(teacher / T) and softmax(student / T), a scalar tensor; gradients go to the student alone. ctx:
--- head and teacher_head, from hidden states to logits [n, V], and vocab_size. Logits are made in chunks, and
--- again in backward. opts: the keys of `fields`.
function M.KDLoss(opts)
    local temperature = opts.temperature or 1
    return function(hidden, teacher_hidden, ctx)
        local n, total = hidden:size(0), nil
        local rows = math.max(16, math.floor(CHUNK / ctx.vocab_size))
        for first = 0, n - 1, rows do
            local count = math.min(rows, n - first)
            local teacher_rows = teacher_hidden:narrow(0, first, count)
            local part = autograd.checkpoint(function(h)
                local teacher = autograd.no_grad(function()
                    return log_probs(ctx.teacher_head(teacher_rows), temperature)
                end)
                return divergence(teacher, log_probs(ctx.head(h), temperature))
            end, hidden:narrow(0, first, count))
            total = total and total + part or part
        end
        return total * (temperature * temperature)
    end
end

M.fields = {
    ignore_index = { type = "integer", default = -100, no_effect = "rows without a label do not come this far" },
    temperature = { type = "number", above = 0, default = 1, doc = "logits are divided by it" },
    fp32_upcast = { type = "boolean", default = true, no_effect = "logits are f32" },
    chunk_size = { type = "integer", min = 0, default = 0, no_effect = "chunks are chosen" },
    tp_group = { type = "any", no_effect = "distributed.tp_size says it" },
}

--- What a configuration may name with `_target_`.
M.targets = { {
    name = "am.loss.KDLoss",
    aliases = { "nemo_automodel.components.loss.kd_loss.KDLoss" },
    doc = "KL divergence of the student from the teacher",
    fields = M.fields,
    build = M.KDLoss,
} }

return M
