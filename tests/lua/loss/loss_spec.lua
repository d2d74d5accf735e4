-- Losses: one number however they are computed, with all logits or in chunks, and its gradient.

local am = require("am")
local compare = require("tests.support.compare")
local loss = require("am.loss")
local Linear = require("am.nn.linear")
local ops = am.ops

-- Sums over some hundreds of f32 in another order.
local CLOSE = 1e-5
local N, C, V = 13, 9, 37 -- rows, hidden size, vocabulary

local by_name = {}
for _, target in ipairs(loss.targets) do
    by_name[target.name:match("[^.]+$")] = target
end
local names = { "MaskedCrossEntropy", "ChunkedCrossEntropy", "FusedLinearCrossEntropy" }

local labels = { 5, -100, 0, 36, -100, 7, 7, 1, -100, 20, 11, -100, 3 }

local function int(values, dtype)
    return am.tensor(values, { dtype = dtype or "int32" })
end

-- A head of random weights, and hidden states that need gradients.
local function problem(bias, dtype)
    am.manual_seed(11)
    local head = Linear.new(C, V, bias)
    for _, slot in ipairs(head._parameters) do
        head[slot.name] = am.randn(slot.shape):to(dtype or "float32"):detach():requires_grad_()
    end
    return am.randn({ N, C }):to(dtype or "float32"):detach():requires_grad_(), head
end

-- What a recipe hands over: with the head's weight, or (stored) without.
local function context(head, stored, softcap)
    local weight = not stored and not head.bias and head.weight or nil
    return {
        head = function(hidden)
            assert(not weight, "all logits are stored where the weight would do")
            return head:forward(hidden)
        end,
        head_weight = weight, softcap = softcap,
    }
end

-- Loss and gradients in plain Lua, in double: {value, hidden = [N][C], weight = [V][C], bias = [V]}.
local function by_hand(hidden, head, targets, ignore, softcap)
    local x, w = hidden:totable(), head.weight:totable()
    local b = head.bias and head.bias:totable()
    local out = { value = 0, hidden = {}, weight = {}, bias = {} }
    for v = 1, V do
        out.weight[v], out.bias[v] = {}, 0
        for c = 1, C do out.weight[v][c] = 0 end
    end
    for n = 1, N do
        local z, slope, total = {}, {}, 0
        for v = 1, V do
            z[v] = b and b[v] or 0
            for c = 1, C do z[v] = z[v] + x[n][c] * w[v][c] end
            slope[v] = 1
            if softcap and softcap > 0 then
                local t = math.tanh(z[v] / softcap)
                z[v], slope[v] = softcap * t, 1 - t * t
            end
            total = total + math.exp(z[v])
        end
        out.hidden[n] = {}
        for c = 1, C do out.hidden[n][c] = 0 end
        if targets[n] ~= ignore then
            out.value = out.value + math.log(total) - z[targets[n] + 1]
            for v = 1, V do
                local g = (math.exp(z[v]) / total - (v == targets[n] + 1 and 1 or 0)) * slope[v]
                out.bias[v] = out.bias[v] + g
                for c = 1, C do
                    out.hidden[n][c] = out.hidden[n][c] + g * w[v][c]
                    out.weight[v][c] = out.weight[v][c] + g * x[n][c]
                end
            end
        end
    end
    return out
end

local function close(what, actual, expected)
    compare.within(what, actual, am.tensor(expected), CLOSE)
end

-- Loss and gradients of the loss under test against those by hand.
local function check(build, options, targets, opts)
    opts = opts or {}
    local hidden, head = problem(opts.bias)
    local value = build(options)(hidden, int(targets, opts.dtype), context(head, opts.stored, opts.softcap))
    local expected = by_hand(hidden, head, targets, options.ignore_index or -100, opts.capped)
    assert.same({}, value:size())
    assert.equal("float32", value:dtype())
    compare.near("value", value:item(), expected.value, CLOSE * expected.value)
    value:backward()
    close("gradient of the hidden states", hidden.grad, expected.hidden)
    close("gradient of the weight", head.weight.grad, expected.weight)
    if opts.bias then
        close("gradient of the bias", head.bias.grad, expected.bias)
    end
end

describe("a loss", function()
    for _, name in ipairs(names) do
        for how, opts in pairs { fused = {}, ["with all logits"] = { stored = true },
                                 ["with a head that has a bias"] = { bias = true } } do
            it("is the sum over labels, with its gradient: " .. name .. ", " .. how, function()
                check(by_name[name].build, {}, labels, opts)
                opts.dtype = "int64"
                check(by_name[name].build, {}, labels, opts)
            end)
        end
    end

    it("leaves out the label that it is told to", function()
        local other = {}
        for i, label in ipairs(labels) do other[i] = label == -100 and 2 or label end
        for _, ignore in ipairs { 7, 0, 36 } do
            for _, stored in ipairs { false, true } do
                check(loss.MaskedCrossEntropy, { ignore_index = ignore }, other, { stored = stored })
            end
        end
    end)

    it("caps logits when it is told to, or the model is", function()
        for _, stored in ipairs { false, true } do
            local function fused(options, given)
                check(loss.MaskedCrossEntropy, options, labels, { stored = stored, softcap = given, capped = 2 })
            end
            fused({ logit_softcapping = 2 })
            fused({ logit_softcapping = 2 }, 5)
            fused({}, 2)
            fused({ logit_softcapping = 0 }, 2)
            check(loss.MaskedCrossEntropy, { logit_softcapping = 0 }, labels, { stored = stored, softcap = 0 })
        end
    end)

    it("is 0 without labels, and so are its gradients", function()
        local none = {}
        for i = 1, N do none[i] = -100 end
        for _, opts in ipairs { {}, { stored = true }, { bias = true } } do
            local hidden, head = problem(opts.bias)
            local value = loss.MaskedCrossEntropy({})(hidden, int(none), context(head, opts.stored))
            assert.equal(0, value:item())
            value:backward()
            for _, t in ipairs { hidden, head.weight, head.bias } do
                assert.equal(0, ops.abs(t.grad):amax():item())
            end
        end
    end)

    it("is a sum: of parts, and never divided", function()
        local hidden, head = problem()
        local f, ctx = loss.MaskedCrossEntropy {}, context(head)
        local whole = f(hidden, int(labels), ctx):item()
        local parts = 0
        for n = 0, N - 1 do
            parts = parts + f(hidden:narrow(0, n, 1), int { labels[n + 1] }, ctx):item()
        end
        compare.near("one row at a time", parts, whole, CLOSE * whole)
        local twice = ops.cat({ hidden, hidden }, 0)
        local targets = { unpack(labels) }
        for i, label in ipairs(labels) do targets[N + i] = label end
        compare.near("every row twice", f(twice, int(targets), ctx):item(), 2 * whole, 2 * CLOSE * whole)
    end)

    it("keeps the gradient's scale", function()
        for _, stored in ipairs { false, true } do
            local hidden, head = problem()
            local expected = by_hand(hidden, head, labels, -100)
            local value = loss.MaskedCrossEntropy({})(hidden, int(labels), context(head, stored)) * 0.125
            value:backward()
            for _, row in ipairs(expected.hidden) do
                for c = 1, C do row[c] = row[c] / 8 end
            end
            close("an eighth", hidden.grad, expected.hidden)
        end
    end)

    it("gives gradients to what learns only", function()
        for _, stored in ipairs { false, true } do
            local hidden, head = problem()
            local expected = by_hand(hidden, head, labels, -100)
            head.weight.requires_grad = false
            loss.MaskedCrossEntropy({})(hidden, int(labels), context(head, stored)):backward()
            assert.is_nil(head.weight.grad)
            close("hidden", hidden.grad, expected.hidden)
            hidden, head = problem()
            hidden.requires_grad = false
            loss.MaskedCrossEntropy({})(hidden, int(labels), context(head, stored)):backward()
            assert.is_nil(hidden.grad)
            close("weight", head.weight.grad, expected.weight)
        end
    end)

    it("of 16 bits is computed in f32", function()
        for _, dtype in ipairs { "bfloat16", "float16" } do
            for _, opts in ipairs { {}, { stored = true }, { bias = true } } do
                local hidden, head = problem(opts.bias, dtype)
                local value = loss.MaskedCrossEntropy({})(hidden, int(labels), context(head, opts.stored))
                local expected = by_hand(hidden, head, labels, -100)
                assert.equal("float32", value:dtype())
                -- stored logits are rounded to 16 bits, nine rows of them
                local tolerance = (dtype == "float16" and 2 ^ -11 or 2 ^ -8) * 9 * 8
                compare.near("value", value:item(), expected.value, tolerance)
                value:backward()
                compare.within("hidden", hidden.grad:to("float32"), am.tensor(expected.hidden),
                               dtype == "float16" and 0.01 or 0.06)
            end
        end
    end)

    it("of float64 stays float64", function()
        for _, opts in ipairs { {}, { stored = true }, { bias = true } } do
            local hidden, head = problem(opts.bias, "float64")
            local value = loss.MaskedCrossEntropy({})(hidden, int(labels), context(head, opts.stored))
            assert.equal("float64", value:dtype())
            local expected = by_hand(hidden, head, labels, -100)
            compare.near("value", value:item(), expected.value, 1e-12 * expected.value)
        end
    end)

    it("stands large logits", function()
        for _, stored in ipairs { false, true } do
            local hidden, head = problem()
            local big = (hidden:detach() * 1e4):requires_grad_()
            local value = loss.MaskedCrossEntropy({})(big, int(labels), context(head, stored))
            assert.is_true(value:item() > 0 and value:item() < 1e7, tostring(value:item()))
            value:backward()
            assert.is_true(ops.abs(big.grad):amax():item() < 100)
        end
    end)

    it("says which label is out of range", function()
        for _, stored in ipairs { false, true } do
            for _, bad in ipairs { V, -1, -99 } do
                local hidden, head = problem()
                local targets = { unpack(labels) }
                targets[3] = bad
                local ok, e = pcall(function()
                    return loss.MaskedCrossEntropy({})(hidden, int(targets), context(head, stored)):item()
                end)
                assert.is_false(ok, "a label of " .. bad .. " was taken")
                assert.is_truthy(tostring(e):find(tostring(bad), 1, true), tostring(e))
            end
        end
    end)

    it("is the same in many chunks of rows", function()
        -- more logits than a chunk holds: engine/ops/op_loss.c has 8 M of them
        local rows, vocab, width = 70, 131072, 2
        am.manual_seed(3)
        local hidden, head = am.randn { rows, width }, Linear.new(width, vocab)
        head.weight = am.randn({ vocab, width })
        local targets = {}
        for i = 1, rows do targets[i] = i % 5 == 0 and -100 or (i * 7919) % vocab end
        local results = {}
        for i, stored in ipairs { false, true } do
            local x = hidden:clone():requires_grad_()
            head.weight = head.weight:detach():clone():requires_grad_()
            local value = loss.MaskedCrossEntropy({})(x, int(targets), context(head, stored))
            value:backward()
            results[i] = { value:item(), x.grad, head.weight.grad }
        end
        compare.near("value", results[1][1], results[2][1], CLOSE * results[2][1])
        compare.within("hidden", results[1][2], results[2][2], CLOSE)
        compare.within("weight", results[1][3], results[2][3], CLOSE)
    end)
end)

describe("the targets of losses", function()
    it("have NeMo Automodel's names and fields", function()
        for i, module in ipairs { "masked_ce", "chunked_ce", "linear_ce" } do
            local target = by_name[names[i]]
            assert.equal("am.loss." .. names[i], target.name)
            assert.same({ "nemo_automodel.components.loss." .. module .. "." .. names[i] }, target.aliases)
            assert.same({ -100, "sum" }, { target.fields.ignore_index.default, target.fields.reduction.default })
            assert.same({ "sum" }, target.fields.reduction.enum)
        end
        assert.is_truthy(by_name.MaskedCrossEntropy.fields.fp32_upcast)
        assert.is_truthy(by_name.ChunkedCrossEntropy.fields.chunk_len)
        assert.is_truthy(by_name.FusedLinearCrossEntropy.fields.logit_softcapping)
        assert.is_nil(by_name.MaskedCrossEntropy.fields.logit_softcapping)
    end)
end)
