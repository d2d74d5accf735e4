-- Cross-entropy over logits of which every rank has some columns (Shoeybi et al. 2019, arXiv:1909.08053, section 3):
-- no rank ever has all of them, nor all rows of its own. Knows no ranks: what it needs of them is in ctx.shard:
--   enter(hidden)          hidden states whose gradients, one of each rank's columns, are added up
--   head(hidden [n, C])    this rank's logits [n, count], scaled but not soft-capped
--   first, count           the columns that these are
--   all_reduce(t, op)      t reduced over the ranks in place: "sum", "max"
--
-- Rows go through the head in chunks. Of each, forward keeps the largest logit, the sum of exponentials and the label's
-- logit, which are reduced for all rows together; backward makes the chunk's logits again.

local autograd = require("am.core.autograd")
local err = require("am.core.error")
local ops = require("am.core.ops")
local tensor = require("am.core.tensor")

local M = {}

local CHUNK = 2 * 1024 * 1024 -- logits at a time

-- This rank's logits in f32 (f64), soft-capped.
local function logits_of(shard, hidden, softcap)
    local z = shard.head(hidden)
    z = z:dtype() == "float64" and z or z:to("float32")
    return (softcap or 0) > 0 and (z * (1 / softcap)):tanh() * softcap or z
end

-- Where a row's label is among this rank's columns [n, 1], and 1 where it is one of them, else 0 [n, 1].
local function own_labels(labels, shard, ignore, dtype)
    local at = labels - shard.first
    local mine = ops.logical_and(ops.logical_and(at:ge(0), at:lt(shard.count)), labels:ne(ignore))
    return ops.where(mine, at, 0):to("int64"):unsqueeze(1), mine:to(dtype):unsqueeze(1)
end

-- softmax - 1 at the label, of this rank's columns; 0 in rows without a label.
local function gradient(z, labels, highest, sum, shard, ignore)
    local at, mine = own_labels(labels, shard, ignore, z:dtype())
    local p = (z - highest:unsqueeze(1)):exp() / sum:unsqueeze(1)
    return p:scatter_add(1, at, -mine) * labels:ne(ignore):to(z:dtype()):unsqueeze(1)
end

local function check_labels(labels, ignore, vocab_size)
    local known = ops.where(labels:eq(ignore), 0, labels)
    if labels:numel() > 0 and (known:amin():item() < 0 or known:amax():item() >= vocab_size) then
        err.raise("argument", "a label is neither one of 0 to %d nor %d, which is no label", vocab_size - 1, ignore)
    end
end

-- A chunk's place in the loss: a scalar 0 whose backward gives the gradients. Its first run fills highest, sum and
-- target [n], which are those of all ranks by the time of the second.
local function chunk(shard, opts, hidden, labels, highest, sum, target)
    local ran = false
    return autograd.checkpoint(function(h, l, m, s, t)
        local z = logits_of(shard, h, opts.softcap)
        if ran then
            return (z * autograd.no_grad(gradient, z, l, m, s, shard, opts.ignore_index)):sum()
        end
        ran = true
        autograd.no_grad(function()
            local at, mine = own_labels(l, shard, opts.ignore_index, z:dtype())
            local top = z:amax(1)
            m:copy_(top)
            s:copy_((z - top:unsqueeze(1)):exp():sum(1))
            t:copy_((z:gather(1, at) * mine):squeeze(1))
        end)
        return tensor.zeros({}, { dtype = m:dtype(), device = m:device() })
    end, hidden, labels, highest, sum, target)
end

--- The SUM of cross-entropies over label tokens, the same on all ranks. opts: ignore_index, softcap.
function M.cross_entropy(hidden, labels, ctx, opts)
    local shard, n = ctx.shard, hidden:size(0)
    check_labels(labels, opts.ignore_index, ctx.vocab_size)
    local kept = { dtype = hidden:dtype() == "float64" and "float64" or "float32", device = hidden:device() }
    local highest, sum, target = tensor.empty({ n }, kept), tensor.empty({ n }, kept), tensor.empty({ n }, kept)
    hidden = shard.enter(hidden)
    local total, rows = nil, math.max(16, math.floor(CHUNK / shard.count))
    for first = 0, n - 1, rows do
        local function part(t) return t:narrow(0, first, math.min(rows, n - first)) end
        local zero = chunk(shard, opts, part(hidden), part(labels), part(highest), part(sum), part(target))
        total = total and total + zero or zero
    end
    local value = autograd.no_grad(function()
        local top = shard.all_reduce(highest:clone(), "max")
        local sums = shard.all_reduce(ops.stack { sum * (highest - top):exp(), target }, "sum")
        highest:copy_(top)
        sum:copy_(sums:select(0, 0))
        return ((top + sum:log() - sums:select(0, 1)) * labels:ne(opts.ignore_index):to(sum:dtype())):sum()
    end)
    return total + value
end

return M
