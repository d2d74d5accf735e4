-- The ops' Lua functions: every op of the registry has one, arguments land where they belong. The
-- numbers themselves are tests/op's business.

local ffi = require("ffi")
local am = require("am.core")
local C = require("am.core.ffi").C
local ops = am.ops

describe("the ops of the registry", function()
    it("are functions in Lua", function()
        local under_other_names = { add_scalar = "add", mul_scalar = "mul", pow_scalar = "pow",
                                    gelu_tanh = "gelu", cast = "to", packed_linear = "linear" }
        for op = 0, C.AM_OP_COUNT - 1 do
            local name = ffi.string(C.am_op_name(op))
            assert.is_function(ops[under_other_names[name] or name], name)
        end
    end)

    it("are methods of tensors", function()
        local t = am.tensor { { 1, -2 }, { 3, 4 } }
        for _, name in ipairs { "add", "sum", "softmax", "reshape", "narrow", "linear", "rms_norm", "glu", "to" } do
            assert.equal(ops[name], t[name])
        end
    end)
end)

describe("arguments", function()
    local t = am.tensor { { 1, -2 }, { 3, 4 } }

    it("of reductions", function()
        assert.equal(6, t:sum():item())
        assert.same({ 4, 2 }, t:sum(0):totable())
        assert.same({ { -1 }, { 7 } }, t:sum(-1, true):totable())
        assert.same({ -0.5, 3.5 }, t:mean(1):totable())
        assert.same({ 3, 4 }, t:amax(0):totable())
        assert.equal(-2, t:amin():item())
        assert.same({ 0, 1 }, t:argmax(1):totable())
    end)

    it("of functions", function()
        assert.same({ { 1, 0 }, { 2, 2 } }, t:clamp(0, 2):totable())
        assert.same({ { 1, 0 }, { 3, 4 } }, t:clamp(0):totable())
        assert.same({ { 1, -2 }, { 2, 2 } }, t:clamp(nil, 2):totable())
        assert.same({ { 1, 0 }, { 3, 4 } }, t:relu():totable())
        assert.near(ops.gelu(t):totable()[1][1], 0.841345, 1e-5)
        assert.near(ops.gelu(t, "tanh"):totable()[1][1], 0.841192, 1e-5)
        assert.equal(t, t:dropout(0.5, false))
        assert.equal(t, t:dropout(0))
        assert.same({ { 0, 0 }, { 0, 0 } }, t:dropout(1):totable())
    end)

    it("of losses", function()
        local logits = am.tensor { { 0, 0, 0 }, { 0, 0, 0 }, { 0, 0, 0 } }
        local labels = am.tensor({ 0, 1, 7 }, { dtype = "int64" })
        assert.near(2 * math.log(3), ops.cross_entropy(logits, labels, { ignore_index = 7 }):item(), 1e-6)
        local ignored = am.tensor({ 0, -100, -100 }, { dtype = "int64" })
        assert.near(math.log(3), ops.cross_entropy(logits, ignored):item(), 1e-6)
        assert.is_false(pcall(ops.cross_entropy, logits, labels))
    end)

    it("of activations", function()
        local x, one = am.tensor { -1.5, 0, 2 }, am.ones { 3 }
        local want = { -- torch's, in f64
            silu = { -0.2736379, 0, 1.7615942 }, gelu = { -0.1002108, 0, 1.9544997 },
            gelu_pytorch_tanh = { -0.1004284, 0, 1.9545977 }, quick_gelu = { -0.1083378, 0, 1.9356586 },
            relu = { 0, 0, 2 }, relu2 = { 0, 0, 4 }, sigmoid = { 0.1824255, 0.5, 0.8807971 },
            tanh = { -0.9051483, 0, 0.9640276 },
        }
        want.swish, want.gelu_python = want.silu, want.gelu
        want.gelu_new, want.gelu_fast = want.gelu_pytorch_tanh, want.gelu_pytorch_tanh
        for name in pairs(ops.activations) do
            local plain, gated = x:activation(name):totable(), ops.glu(x, one, name):totable()
            for i = 1, 3 do
                assert.near(want[name][i], plain[i], 1e-6, name)
                assert.near(want[name][i], gated[i], 1e-6, name)
            end
        end
        for _, fn in ipairs { ops.activation, function(a, act) return ops.glu(a, a, act) end } do
            local ok, e = pcall(fn, x, "mish")
            assert.is_false(ok)
            assert.equal("unsupported", e.code)
            assert.is_truthy(tostring(e):find("mish"), tostring(e))
        end
    end)

    it("of norms", function()
        local x = am.tensor { { 1, 3 } }
        local w, b = am.tensor { 1, 2 }, am.tensor { 10, 20 }
        assert.same({ { -1, 1 } }, ops.layer_norm(x, nil, nil, 0):totable())
        assert.same({ { -1, 2 } }, ops.layer_norm(x, w, nil, 0):totable())
        assert.same({ { 9, 21 } }, ops.layer_norm(x, nil, b, 0):totable())
        assert.same({ { 9, 22 } }, ops.layer_norm(x, w, b, 0):totable())
        assert.same({ { 8, 23 } }, ops.layer_norm(x, w, b, 0, 1):totable())
        assert.same({ { -0.5, 1 } }, ops.layer_norm(x, w, nil, 3):totable())
        local y = am.tensor { { 1, 1 } }
        assert.same({ { 1, 2 } }, ops.rms_norm(y, w, 0):totable())
        assert.same({ { 2, 3 } }, ops.rms_norm(y, w, 0, 1):totable())
        assert.same({ { 0.5, 1 } }, ops.rms_norm(y, w, 3):totable())
    end)

    it("of attention", function()
        local q, v = am.zeros { 1, 2, 1, 1 }, am.tensor { { { { 4 } }, { { 8 } } } }
        assert.same({ { { { 4 } }, { { 6 } } } }, ops.attention(q, q, v):totable())
        assert.same({ { { { 6 } }, { { 6 } } } }, ops.attention(q, q, v, nil, { causal = false }):totable())
        local sinks = ops.attention(q, q, v, nil, { sinks = am.zeros { 1 } })
        assert.near(2, sinks:totable()[1][1][1][1], 1e-6)
        assert.near(4, sinks:totable()[1][2][1][1], 1e-6)
    end)

    it("of LoRA", function()
        local x, w = am.ones { 1, 2 }, am.tensor { { 1, 1 } }
        local a, b = am.tensor { { 1, 2 } }, am.tensor { { 3 } }
        assert.equal(2 + 0.5 * 9, ops.lora_linear(x, w, nil, a, b, { scale = 0.5 }):item())
        assert.equal(12 + 0.5 * 9, ops.lora_linear(x, w, am.tensor { 10 }, a, b, { scale = 0.5 }):item())
        assert.equal(2, ops.lora_linear(x, w, nil, a, b, { scale = 0.5, dropout = 1, position = "pre" }):item())
        assert.equal(2, ops.lora_linear(x, w, nil, a, b, { scale = 0.5, dropout = 1, position = "post" }):item())
    end)
end)

describe("a mixture of experts", function()
    local E, N, K, M = 5, 9, 4, 3

    it("sorts what a router chose", function()
        local chosen = am.tensor({ { 2, 0 }, { 0, 3 }, { 2, 3 } }, { dtype = "int64" })
        local order, offsets, tokens = ops.sort_by_expert(chosen, E)
        assert.same({ 1, 2, 0, 4, 3, 5 }, order:totable())
        assert.same({ 0, 2, 2, 4, 6, 6 }, offsets:totable())
        assert.equal("int32", offsets:dtype())
        assert.same({ 0, 1, 0, 2, 1, 2 }, tokens:totable())
        assert.same({ 0, 2, 2, 4, 6, 6 }, (select(2, ops.sort_by_expert(chosen:int(), E))):totable())
        local _, none = ops.sort_by_expert(am.zeros({ 0, 2 }, { dtype = "int64" }), 2)
        assert.same({ 0, 0, 0 }, none:totable())
        for _, wrong in ipairs { -1, 5 } do
            assert.is_false(pcall(ops.sort_by_expert, am.tensor({ { wrong } }, { dtype = "int64" }), E))
        end
        assert.is_false(pcall(ops.sort_by_expert, chosen, 0))
        assert.is_false(pcall(ops.sort_by_expert, chosen:reshape(-1), E))
    end)

    it("takes the largest, the first of equal ones before the others", function()
        local values, index = am.tensor { { 1, 3, 3, 2 }, { 0, 0, 0, 0 } }:topk(3)
        assert.same({ { 3, 3, 2 }, { 0, 0, 0 } }, values:totable())
        assert.same({ { 1, 2, 3 }, { 0, 1, 2 } }, index:totable())
        assert.equal("int64", index:dtype())
    end)

    -- Each expert on all rows, weighted by 0 where it was not chosen.
    local function dense(x, weight, bias, share)
        local sum
        for e = 0, E - 1 do
            local y = ops.linear(x, weight:select(0, e), bias:select(0, e)) * share:narrow(1, e, 1)
            sum = sum and sum + y or y
        end
        return sum
    end

    it("is, sorted by expert, what all experts are on all rows", function()
        C.am_rng_seed(3)
        local x, scores = am.randn { N, K }, am.randn { N, E }
        local weight, bias = am.randn { E, M, K }, am.randn { E, M }
        for _, transposed in ipairs { false, true } do
            local grads = {}
            for way = 1, 2 do
                for _, t in ipairs { x, scores, weight, bias } do t.grad, t.requires_grad = nil, true end
                local values, index = ops.softmax(scores, -1):topk(2)
                local y
                if way == 1 then
                    y = dense(x, weight, bias, ops.scatter_add(am.zeros { N, E }, 1, index, values))
                else
                    local order, offsets, tokens = ops.sort_by_expert(index, E)
                    local w = transposed and weight:transpose(1, 2) or weight
                    local rows = ops.grouped_linear(ops.index_select(x, 0, tokens), w, offsets, bias,
                                                    { transposed = transposed })
                    local share = ops.index_select(values:reshape(-1, 1), 0, order)
                    y = ops.index_add(am.zeros { N, M }, 0, tokens, rows * share)
                end
                (y * y):sum():backward()
                grads[way] = { y:detach() }
                for i, t in ipairs { x, scores, weight, bias } do grads[way][i + 1] = t.grad:clone() end
            end
            for i = 1, 5 do
                assert.is_true((grads[1][i] - grads[2][i]):abs():amax():item() < 1e-4, i)
            end
        end
    end)
end)

describe("a linear map whose weight is dense when transposed", function()
    it("is that of the copied weight, and makes no copy", function()
        C.am_rng_seed(4)
        for _, shape in ipairs { { 7, 5, 9 }, { 1, 6, 4 }, { 5, 1, 3 }, { 5, 3, 1 }, { 3, 1, 1 } } do
            local n, k, m = unpack(shape)
            local x, stored, bias = am.randn { n, k }, am.randn { k, m }, am.randn { m }
            local found = {}
            for way = 1, 2 do
                for _, t in ipairs { x, stored, bias } do t.grad, t.requires_grad = nil, true end
                local w = stored:transpose(0, 1)
                local y = ops.linear(x, way == 1 and w:contiguous() or w, bias)
                ops.sum(y * y):backward()
                found[way] = { y:detach(), x.grad:clone(), stored.grad:clone(), bias.grad:clone() }
            end
            for i = 1, 4 do
                -- another order of sums: a few roundings of numbers below 100
                assert.is_true((found[1][i] - found[2][i]):abs():amax():item() < 1e-4, i)
            end
        end
        local x, stored = am.randn { 1, 300 }, am.randn { 300, 400 }
        local stats = ffi.new("am_mem_stats")
        C.am_mem_reset_peak(0)
        C.am_mem_get(0, stats)
        local before = tonumber(stats.peak_bytes)
        am.no_grad(ops.linear, x, stored:transpose(0, 1))
        C.am_mem_get(0, stats)
        assert.is_true(tonumber(stats.peak_bytes) - before < stored:nbytes())
    end)
end)

describe("linear_cross_entropy", function()
    -- So many columns that the logits of 40 rows come in three chunks (op_loss.c: 8 Mi elements, 16
    -- rows at least).
    it("in chunks gives what the plain ops give", function()
        local n, v, k = 40, 600000, 2
        C.am_rng_seed(1)
        local hidden, weight = am.randn { n, k }, am.randn({ v, k })
        local list = {}
        for i = 1, n do list[i] = i % 7 == 0 and -100 or (i * 14983) % v end
        local labels = am.tensor(list, { dtype = "int64" })
        local function run(fused)
            hidden.requires_grad, weight.requires_grad = true, true
            local loss = fused and ops.linear_cross_entropy(hidden, weight, labels)
                or ops.cross_entropy(ops.linear(hidden, weight), labels)
            local value = loss:item()
            loss:backward()
            local gh, gw = hidden.grad:clone(), weight.grad:clone()
            hidden.grad, weight.grad = nil, nil
            return value, gh, gw
        end
        local a, ah, aw = am.scope(run, true)
        local b, bh, bw = am.scope(run, false)
        assert.near(b, a, 1e-6 * b)
        assert.is_true(ops.abs(ah - bh):amax():item() <= 1e-5 * ops.abs(bh):amax():item())
        assert.is_true(ops.abs(aw - bw):amax():item() <= 1e-5 * ops.abs(bw):amax():item())
    end)
end)
