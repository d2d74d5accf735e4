-- Cross-entropy over shared columns, here with all of them on one rank, against the one that has the head's matrix: in
-- one chunk of rows and in several. Ranks that share a vocabulary: tests/dist/tp_families_spec.lua.
local am = require("am")
local compare = require("tests.support.compare")
local loss = require("am.loss")
local ops = am.ops

-- Sums over some thousands of f32 in another order.
local CLOSE = 1e-5

-- The loss and its gradients by hidden and weight; shared: through ctx.shard.
local function run(n, shared, opts, scale)
    am.manual_seed(2)
    local hidden, weight = am.randn({ n, 4 }):requires_grad_(), am.randn({ 37, 4 }):requires_grad_()
    local labels = {}
    for i = 1, n do
        labels[i] = i % 5 == 0 and -100 or i % 37
    end
    local function head(h) return ops.linear(h, weight) * scale end
    local ctx = { head = head, head_weight = weight, logit_scale = scale, softcap = opts.softcap, vocab_size = 37 }
    ctx.shard = shared and { first = 0, count = 37, head = head, enter = function(h) return h end,
                             all_reduce = function(t) return t end } or nil
    local value = loss.MaskedCrossEntropy {}(hidden, am.tensor(labels, { dtype = "int32" }), ctx)
    value:backward(am.tensor(0.5))
    return value:item(), hidden.grad, weight.grad
end

describe("cross-entropy over shared columns", function()
    for name, case in pairs { ["one chunk"] = { 50, {}, 1 }, ["several chunks"] = { 120000, {}, 1 },
                              ["a cap and a scale"] = { 50, { softcap = 3 }, 0.7 } } do
        it("is what it is over whole rows: " .. name, function()
            local n, opts, scale = unpack(case)
            local want, hidden, weight = run(n, false, opts, scale)
            local have, own_hidden, own_weight = run(n, true, opts, scale)
            assert.near(want, have, CLOSE * want)
            compare.within("gradient of states", own_hidden, hidden, CLOSE, hidden:abs():max():item())
            compare.within("gradient of the head", own_weight, weight, CLOSE, weight:abs():max():item())
        end)
    end

    it("refuses a label that is no token", function()
        local ctx = { vocab_size = 3, shard = { first = 0, count = 3 } }
        local labels = am.tensor({ 0, 3 }, { dtype = "int32" })
        local ok, e = pcall(loss.MaskedCrossEntropy {}, am.randn { 2, 4 }, labels, ctx)
        assert.is_false(ok)
        assert.matches("a label is neither one of 0 to 2 nor %-100", tostring(e))
    end)
end)
