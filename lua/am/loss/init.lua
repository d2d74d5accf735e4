-- Losses. A loss is a function (hidden, labels, ctx) -> scalar tensor: the SUM over label tokens; the
-- recipe divides by their number over the whole step. hidden [N, C] are the states after the last
-- norm, labels int32 [N] are shifted already (-100: no label; the recipe leaves such rows out). ctx has
--   head(hidden)   logits [N, V], scaled but not soft-capped yet, stored in full
--   head_weight    the head's weight [V, C], or nil when the head is more than a matrix (an adapter)
--   head_input     what is done to states before they are multiplied by head_weight, or nil
--   fp8            head multiplies in 8 bits, with scales of all rows at once; hidden has those without a label, too
--   logit_scale    what the head multiplies its products by, or nil
--   softcap        of the logits after that, or nil
--   vocab_size     V
--   shard          where ranks have some columns of the logits each, see shared_vocabulary.lua; head gives all of them
-- The built-in ones never store all logits.

local autograd = require("am.core.autograd")
local kd = require("am.loss.kd")
local ops = require("am.core.ops")
local shared_vocabulary = require("am.loss.shared_vocabulary")

local M = {}

local CHUNK = 2 * 1024 * 1024 -- logits at a time

-- Through a head that is more than a matrix: rows in chunks, whose logits are made again in backward.
local function chunked(hidden, labels, ctx, at)
    local n, total = hidden:size(0), nil
    local rows = ctx.fp8 and math.max(n, 1) or math.max(16, math.floor(CHUNK / (ctx.vocab_size or n)))
    for first = 0, n - 1, rows do
        local count = math.min(rows, n - first)
        local some = labels:narrow(0, first, count)
        local part = autograd.checkpoint(function(h)
            local logits = ctx.head(h)
            return ops.cross_entropy(logits:dtype() == "float64" and logits or logits:to("float32"), some, at)
        end, hidden:narrow(0, first, count))
        total = total and total + part or part
    end
    return total
end

--- A function (hidden, labels, ctx) as at the head of this file: the SUM of cross-entropies over label tokens.
--- opts: ignore_index (-100), logit_softcapping (where the model has none). fused: it multiplies by the head's matrix
--- itself, also where the head does so in 8 bits.
local function cross_entropy(opts, fused)
    opts = opts or {}
    return function(hidden, labels, ctx)
        local given = (opts.logit_softcapping or 0) > 0 and opts.logit_softcapping or nil
        local at = { ignore_index = opts.ignore_index or -100, softcap = given or ctx.softcap }
        if ctx.shard then
            return shared_vocabulary.cross_entropy(hidden, labels, ctx, at)
        elseif ctx.head_weight and (fused or not ctx.fp8) then
            hidden = ctx.head_input and ctx.head_input(hidden) or hidden
            hidden = ctx.logit_scale and hidden * ctx.logit_scale or hidden
            return ops.linear_cross_entropy(hidden, ctx.head_weight, labels, at)
        end
        return chunked(hidden, labels, ctx, at)
    end
end

local fields = {
    ignore_index = { type = "integer", default = -100, doc = "label of tokens that don't count" },
    reduction = { type = "string", default = "sum", enum = { "sum" }, doc = "always the sum" },
}

local function with(extra)
    local out = {}
    for _, set in ipairs { fields, extra } do
        for k, v in pairs(set) do
            out[k] = v
        end
    end
    return out
end

local function target(name, module, extra, doc)
    return {
        name = "am.loss." .. name,
        aliases = { "nemo_automodel.components.loss." .. module .. "." .. name },
        doc = doc,
        fields = with(extra),
        build = function(opts) return cross_entropy(opts, name == "FusedLinearCrossEntropy") end,
    }
end

--- A loss by opts: cross_entropy of the head's logits.
function M.MaskedCrossEntropy(opts) return cross_entropy(opts) end

M.KDLoss = kd.KDLoss

--- Targets for the recipe's registry. All but the last are one computation here, in chunks and in f32.
M.targets = {
    target("MaskedCrossEntropy", "masked_ce", {
        fp32_upcast = { type = "boolean", default = true, no_effect = "logits are f32" },
    }, "cross-entropy over unmasked tokens"),
    target("ChunkedCrossEntropy", "chunked_ce", {
        chunk_len = { type = "integer", default = 32, min = 1, no_effect = "chunks are chosen" },
        compile = { type = "boolean", default = true, no_effect = "kernels are compiled" },
    }, "the same, in chunks of tokens"),
    target("FusedLinearCrossEntropy", "linear_ce", {
        logit_softcapping = { type = "number", default = 0, min = 0, doc = "cap tanh(z / cap)" },
    }, "the same, fused with the head"),
    target("TEParallelCrossEntropy", "te_parallel_ce", {
        tp_group = { type = "any", no_effect = "distributed.tp_size says it" },
    }, "the same, for a vocabulary that processes share"),
    unpack(kd.targets),
}

return M
