-- The layers, each against its formula, with gradients; rotary frequencies; what does not fit.
-- Against transformers they are held by tests/parity.

local am = require("am")
local compare = require("tests.support.compare")
local tiny = require("tests.support.tiny")
local Attention = require("am.nn.attention")
local Embedding = require("am.nn.embedding")
local GatedMLP = require("am.nn.mlp").GatedMLP
local Linear = require("am.nn.linear")
local RMSNorm = require("am.nn.norm")
local rope = require("am.nn.rope")
local ops, raised = am.ops, tiny.raised

-- Sums of some dozens of f32 in another order; attention has three in a row.
local CLOSE, ATTENTION = 2e-6, 5e-6

-- Give every declared parameter random numbers that need gradients.
local function fill(model, dtype)
    for _, module, slot in model:parameter_slots() do
        module[slot.name] = am.randn(slot.shape):to(dtype or "float32"):detach():requires_grad_()
    end
    return model
end

-- Fails unless f and g have the same value and the same gradients for x and the module's parameters.
local function same_gradients(module, x, f, g, tolerance)
    x = x:detach():requires_grad_()
    local list = { { "x", x } }
    for name, t in module:named_parameters() do
        list[#list + 1] = { name, t }
    end
    local results, weight = {}, nil
    for i, fn in ipairs { f, g } do
        local out = fn(x)
        weight = weight or am.randn(out:size())
        results[i] = { value = out:detach() }
        ;(out * weight):sum():backward()
        for _, item in ipairs(list) do
            results[i][item[1]] = item[2].grad:detach():clone()
            item[2].grad = nil
        end
    end
    for name, expected in pairs(results[2]) do -- what is next to nothing holds the rounding of the rest
        local scale = math.max(compare.difference(expected, expected).largest, 0.1)
        compare.within(name, results[1][name], expected, tolerance or CLOSE, scale)
    end
end

before_each(function() am.manual_seed(1) end)

describe("a Linear", function()
    it("is x W^T + b over the last dim of any shape", function()
        for _, bias in ipairs { false, true } do
            local linear = fill(Linear.new(7, 5, bias))
            assert.equal(bias, linear.bias ~= nil)
            for _, shape in ipairs { { 7 }, { 1, 7 }, { 3, 7 }, { 2, 1, 4, 7 } } do
                same_gradients(linear, am.randn(shape), function(x) return linear:forward(x) end, function(x)
                    local out = ops.matmul(x:reshape(-1, 7), linear.weight:transpose(0, 1))
                    local size = { unpack(shape, 1, #shape - 1) }
                    size[#size + 1] = 5
                    return (bias and out + linear.bias or out):reshape(size)
                end)
            end
        end
    end)

    it("says what does not fit, and what it is", function()
        local linear = fill(Linear.new(7, 5, true))
        raised("shape", { "linear", "[2,6]", "[5,7]" }, linear.forward, linear, am.randn { 2, 6 })
        raised("argument", { "float32", "bfloat16" }, linear.forward, linear, am.randn({ 2, 7 }):to("bfloat16"))
        assert.equal("in_features=7, out_features=5, bias=true", linear:extra_repr())
        assert.equal("in_features=7, out_features=5, bias=false", Linear.new(7, 5):extra_repr())
    end)
end)

describe("an RMSNorm", function()
    it("divides by the root of the mean square", function()
        for _, size in ipairs { 1, 8, 37 } do
            for _, eps in ipairs { 1e-6, 0.5 } do
                local norm = fill(RMSNorm.new(size, eps))
                same_gradients(norm, am.randn { 2, 3, size }, function(x) return norm:forward(x) end, function(x)
                    return x * ops.rsqrt((x * x):mean(-1, true) + eps) * norm.weight
                end, 1e-5)
            end
        end
    end)

    it("of 16 bits squares in f32", function()
        local norm = RMSNorm.new(4, 1e-6)
        norm.weight = am.ones({ 4 }, { dtype = "bfloat16" })
        local out = norm:forward(am.tensor({ { 1e19, -1e19, 1e19, 1e19 }, { 0, 0, 0, 0 } }, { dtype = "bfloat16" }))
        assert.equal("bfloat16", out:dtype())
        local inf = norm:forward(am.tensor({ 1e10, -1e10, 1e10, 1e10 }, { dtype = "bfloat16" })):totable()
        assert.same({ 1, -1, 1, 1 }, inf)
        assert.same({ 0, 0, 0, 0 }, out:totable()[2])
    end)

    it("says what does not fit, and what it is", function()
        local norm = fill(RMSNorm.new(4, 1e-5))
        raised("shape", { "rms_norm", "[2,5]", "[4]" }, norm.forward, norm, am.randn { 2, 5 })
        assert.equal("4, eps=1e-05", norm:extra_repr())
    end)
end)

describe("an Embedding", function()
    it("gives rows by index, and a row's gradient is the sum over its uses", function()
        for _, dtype in ipairs { "int32", "int64" } do
            local embedding = fill(Embedding.new(4, 2))
            local out = embedding:forward(am.tensor({ { 3, 1, 3 } }, { dtype = dtype }))
            local w = embedding.weight:totable()
            assert.same({ { w[4], w[2], w[4] } }, out:totable())
            out:sum():backward()
            assert.same({ { 0, 0 }, { 1, 1 }, { 0, 0 }, { 2, 2 } }, embedding.weight.grad:totable())
        end
    end)

    it("gives its padding row no gradient", function()
        for padding, expected in pairs { [0] = { { 0, 0 }, { 2, 2 }, { 0, 0 }, { 1, 1 } },
                                         [1] = { { 1, 1 }, { 0, 0 }, { 0, 0 }, { 1, 1 } } } do
            local embedding = fill(Embedding.new(4, 2, padding))
            embedding:forward(am.tensor({ 0, 1, 1, 3 }, { dtype = "int64" })):sum():backward()
            assert.same(expected, embedding.weight.grad:totable())
        end
    end)

    it("says which index is out of range, and what it is", function()
        local embedding = fill(Embedding.new(4, 2))
        for _, bad in ipairs { 4, -1 } do
            raised("argument", { "index " .. bad, "0..3" }, embedding.forward, embedding,
                   am.tensor({ 0, bad }, { dtype = "int32" }))
        end
        assert.equal("4, 2", embedding:extra_repr())
    end)
end)

describe("a GatedMLP", function()
    it("is down(act(gate) * up) for every activation", function()
        for name, act in pairs {
            silu = ops.silu, swish = ops.silu, gelu = ops.gelu, relu = ops.relu, sigmoid = ops.sigmoid,
            gelu_new = function(t) return ops.gelu(t, "tanh") end,
            gelu_pytorch_tanh = function(t) return ops.gelu(t, "tanh") end,
        } do
            for _, bias in ipairs { false, true } do
                local mlp = fill(GatedMLP.new { hidden_size = 7, intermediate_size = 11, hidden_act = name,
                                                bias = bias })
                assert.equal(bias, mlp.down_proj.bias ~= nil)
                same_gradients(mlp, am.randn { 2, 3, 7 }, function(x) return mlp:forward(x) end, function(x)
                    return mlp.down_proj:forward(act(mlp.gate_proj:forward(x)) * mlp.up_proj:forward(x))
                end, 1e-5)
            end
        end
    end)

    it("says which activation it does not know", function()
        local bad = fill(GatedMLP.new { hidden_size = 8, intermediate_size = 12, hidden_act = "sine" })
        raised("unsupported", "sine", bad.forward, bad, am.randn { 1, 8 })
    end)
end)

describe("an Attention", function()
    -- cos 1, sin 0: turns nothing
    local function still(t, dim)
        return ops.cat({ am.ones { 1, t, dim / 2 }, am.zeros { 1, t, dim / 2 } }, 2)
    end

    local function rotary(t, dim)
        local positions = {}
        for i = 1, t do positions[i] = i - 1 end
        return ops.rope_table(am.tensor({ positions }, { dtype = "int32" }),
                              (rope.inv_freq { theta = 100, dim = dim, max_position_embeddings = 64 }))
    end

    -- Halves of x [B, T, H, D] turned by the table, from its definition.
    local function turned(x, table_)
        local t, half = x:size(1), x:size(3) / 2
        local cos = table_:narrow(2, 0, half):reshape(1, t, 1, half)
        local sin = table_:narrow(2, half, half):reshape(1, t, 1, half)
        local a, b = x:narrow(3, 0, half), x:narrow(3, half, half)
        return ops.cat({ a * cos - b * sin, b * cos + a * sin }, 3)
    end

    -- softmax(Q K^T / sqrt(D)) V over the keys that sees(query, key) lets through.
    local function by_definition(attention, x, table_, sees)
        local b, t, d = x:size(0), x:size(1), attention.head_dim
        local group = attention.heads / attention.kv_heads
        local hidden = {}
        for i = 1, t do
            hidden[i] = {}
            for j = 1, t do hidden[i][j] = not sees(i - 1, j - 1) end
        end
        hidden = am.tensor(hidden)
        local function heads(proj, n) return turned(proj:forward(x):reshape(b, t, n, d), table_) end
        local q, k = heads(attention.q_proj, attention.heads), heads(attention.k_proj, attention.kv_heads)
        local v = attention.v_proj:forward(x):reshape(b, t, attention.kv_heads, d)
        local rows = {}
        for i = 0, b - 1 do
            local outs = {}
            for h = 0, attention.heads - 1 do
                local function head(all, n) return all:select(0, i):select(1, n):reshape(t, d) end
                local kv = math.floor(h / group)
                local scores = ops.matmul(head(q, h), head(k, kv):transpose(0, 1)) * (1 / math.sqrt(d))
                scores = ops.where(hidden, -math.huge, scores)
                outs[h + 1] = ops.matmul(scores:softmax(1), head(v, kv))
            end
            rows[i + 1] = ops.cat(outs, 1):unsqueeze(0)
        end
        return attention.o_proj:forward(ops.cat(rows, 0))
    end

    local function causal(q, k) return k <= q end

    it("is softmax(Q K) V: causal, heads in groups, with biases", function()
        for _, case in ipairs {
            { 4, 2, 2 }, { 3, 3, 4 }, { 4, 1, 6 }, { 2, 2, 2, bias = true },
            { 4, 2, 4, bias = true, output_bias = true },
        } do
            local heads, kv, d = unpack(case)
            local attention = fill(Attention.new { hidden_size = 10, num_heads = heads, num_kv_heads = kv, head_dim = d,
                                                   bias = case.bias, output_bias = case.output_bias })
            assert.equal(case.bias or false, attention.k_proj.bias ~= nil)
            assert.equal(case.output_bias or false, attention.o_proj.bias ~= nil)
            local table_ = rotary(5, d)
            same_gradients(attention, am.randn({ 2, 5, 10 }) * 0.3,
                           function(x) return attention:forward(x, table_, {}) end,
                           function(x) return by_definition(attention, x, table_, causal) end, 10 * ATTENTION)
        end
    end)

    it("sees a window, or the ranges of keys that it is given", function()
        local attention = fill(Attention.new { hidden_size = 6, num_heads = 2, num_kv_heads = 1, head_dim = 4 })
        local x, table_ = am.randn { 1, 7, 6 }, rotary(7, 4)
        attention.window = 3
        compare.within("window", attention:forward(x, table_, {}), by_definition(attention, x, table_, function(q, k)
            return k <= q and q - k < 3
        end), ATTENTION)
        attention.window = nil
        local ranges = { { 0, 3 }, { 0, 3 }, { 0, 3 }, { 3, 7 }, { 3, 7 }, { 3, 7 }, { 3, 7 } }
        local bounds = am.tensor({ ranges }, { dtype = "int32" })
        compare.within("ranges", attention:forward(x, table_, { bounds = bounds }),
                       by_definition(attention, x, table_, function(q, k)
                           return k <= q and k >= ranges[q + 1][1] and k < ranges[q + 1][2]
                       end), ATTENTION)
    end)

    it("knows positions by the angle between them only", function()
        local attention = fill(Attention.new { hidden_size = 6, num_heads = 2, num_kv_heads = 1, head_dim = 4 })
        local x, at, later = am.randn { 1, 5, 6 }, rotary(5, 4), rotary(25, 4):narrow(1, 20, 5)
        local here = attention:forward(x, at, {})
        compare.within("moved by 20", attention:forward(x, later, {}), here, 20 * ATTENTION)
        assert.is_true(compare.difference(attention:forward(x, still(5, 4), {}), here).worst > 0.01)
    end)

    it("drops only while training", function()
        local attention = fill(Attention.new { hidden_size = 4, num_heads = 1, num_kv_heads = 1, head_dim = 4,
                                               dropout = 0.5 })
        local x = am.randn { 1, 6, 4 }
        local function out() return attention:forward(x, still(6, 4), {}):detach() end
        local plain = out()
        assert.equal(tiny.bits(plain), tiny.bits(out()))
        attention:train()
        assert.is_true(compare.difference(out(), plain).worst > 1e-3)
        -- on average nothing changes: 1000 draws of a mean
        local sum = am.zeros(plain:size())
        for _ = 1, 1000 do sum = sum + out() end
        compare.within("the mean", sum / 1000, plain, 0.2)
    end)
end)

describe("rotary frequencies", function()
    local function frequencies(scaling, changes)
        local o = { theta = 10000, dim = 8, max_position_embeddings = 64, scaling = scaling }
        for key, value in pairs(changes or {}) do o[key] = value end
        return rope.frequencies(o)
    end

    local function near(expected, actual)
        assert.equal(#expected, #actual)
        for i, f in ipairs(expected) do compare.near("frequency " .. i, actual[i], f, 1e-6 * f) end
    end

    it("fall by theta to the power of 2i/dim", function()
        for _, case in ipairs { { 10000, 8 }, { 500000, 6 }, { 1, 2 } } do
            local theta, dim = unpack(case)
            local expected = {}
            for i = 0, dim / 2 - 1 do expected[i + 1] = theta ^ (-2 * i / dim) end
            local inv, scaling = frequencies(nil, { theta = theta, dim = dim })
            near(expected, inv)
            assert.equal(1, scaling)
            near(expected, (frequencies({ rope_type = "default" }, { theta = theta, dim = dim })))
        end
    end)

    it("are divided when scaling is linear", function()
        local plain, inv, scaling = frequencies(), frequencies { rope_type = "linear", factor = 4 }
        assert.equal(1, scaling)
        for i, f in ipairs(plain) do compare.near("frequency", inv[i], f / 4, 1e-7 * f) end
    end)

    it("grow with the sequence when scaling is dynamic, beyond the trained length only", function()
        local dynamic, plain = { rope_type = "dynamic", factor = 3 }, frequencies()
        for _, length in ipairs { 1, 63, 64 } do
            near(plain, (frequencies(dynamic, { seq_len = length })))
        end
        near(plain, (frequencies(dynamic)))
        local base = 10000 * (3 * 128 / 64 - 2) ^ (8 / 6)
        local expected = {}
        for i = 0, 3 do expected[i + 1] = base ^ (-2 * i / 8) end
        near(expected, (frequencies(dynamic, { seq_len = 128 })))
        assert.is_true(rope.depends_on_length(dynamic))
        assert.is_false(rope.depends_on_length(nil))
        assert.is_false(rope.depends_on_length { rope_type = "linear", factor = 2 })
    end)

    it("keep high ones and divide low ones when scaling is llama3 or yarn", function()
        local plain = frequencies(nil, { theta = 500000, dim = 16 })
        local llama = frequencies({ rope_type = "llama3", factor = 8, low_freq_factor = 1, high_freq_factor = 4,
                                    original_max_position_embeddings = 8192 }, { theta = 500000, dim = 16 })
        local smooth = (8192 * plain[5] / (2 * math.pi) - 1) / 3
        assert.is_true(smooth > 0 and smooth < 1)
        for i, f in ipairs(plain) do
            local expected = i < 5 and f or i > 5 and f / 8 or (1 - smooth) * f / 8 + smooth * f
            compare.near("llama3's " .. i, llama[i], expected, 1e-6 * expected)
        end
        local yarn, scaling = frequencies({ rope_type = "yarn", factor = 4, original_max_position_embeddings = 4096 },
                                          { dim = 64, max_position_embeddings = 16384 })
        plain = frequencies(nil, { dim = 64 })
        compare.near("attention factor", scaling, 0.1 * math.log(4) + 1, 1e-12)
        -- the pairs that make 32 turns and one turn in 4096 positions
        local low = math.floor(64 * math.log(4096 / (32 * 2 * math.pi)) / (2 * math.log(10000)))
        local high = math.ceil(64 * math.log(4096 / (2 * math.pi)) / (2 * math.log(10000)))
        assert.is_true(low > 1 and high < 32)
        for i, f in ipairs(plain) do
            local ramp = math.min(math.max((i - 1 - low) / (high - low), 0), 1)
            local expected = f * (1 - ramp) + f / 4 * ramp
            compare.near("yarn's " .. i, yarn[i], expected, 1e-6 * expected)
        end
    end)

    it("are a tensor too", function()
        local yarn = { rope_type = "yarn", factor = 2, attention_factor = 1.5 }
        local inv, scaling = rope.inv_freq({ theta = 100, dim = 4, max_position_embeddings = 8, scaling = yarn }, "ref")
        assert.same({ 2 }, inv:size())
        assert.same({ "float32", "ref", 1.5 }, { inv:dtype(), inv:device(), scaling })
        local table_ = ops.rope_table(am.tensor({ { 0, 3 } }, { dtype = "int32", device = "ref" }), inv, 2)
        local f = inv:totable()
        local expected = { { { 2, 2, 0, 0 }, { 2 * math.cos(3 * f[1]), 2 * math.cos(3 * f[2]),
                                               2 * math.sin(3 * f[1]), 2 * math.sin(3 * f[2]) } } }
        compare.within("table", table_, am.tensor(expected), 1e-6)
    end)

    it("say which type or number is wrong", function()
        raised("unsupported", { '"spiral"', "llama3" }, frequencies, { rope_type = "spiral" })
        raised("format", { '"longrope"', '"short_factor"', "4" }, frequencies, { rope_type = "longrope" })
        raised("format", { '"yarn"', '"attention_factor"', "true" }, frequencies,
               { rope_type = "yarn", factor = 2, attention_factor = true })
        for kind, keys in pairs { linear = { "factor" }, dynamic = { "factor" }, yarn = { "factor" },
                                  llama3 = { "factor", "low_freq_factor", "high_freq_factor",
                                             "original_max_position_embeddings" } } do
            for _, key in ipairs(keys) do
                for _, bad in ipairs { false, 0, -1, "2", 0 / 0 } do
                    local scaling = { rope_type = kind, factor = 2, low_freq_factor = 1, high_freq_factor = 4,
                                      original_max_position_embeddings = 32 }
                    scaling[key] = bad or nil
                    raised("format", { '"' .. kind .. '"', '"' .. key .. '"' }, frequencies, scaling)
                end
            end
        end
    end)
end)

describe("experts", function()
    it("see noise while they are trained, where jitter is given", function()
        local moe = require("am.nn.moe")
        local layer = moe.SparseMoE.new {
            router = { "gate", Linear.new(4, 3) }, num_experts = 3, top_k = 3, normalize = true, jitter = 0.25,
            experts = { "experts", { forward = function(_, x) return x end, train = function() end,
                                     _parameters = {}, _children = {} } },
        }
        fill(layer)
        local x = am.ones({ 1, 500, 4 })
        -- experts that give what they see, and weights whose sum is 1: what comes out is what went in
        assert.is_true((layer:eval():forward(x) - x):abs():max():item() < 1e-6)
        layer.training = true
        local y = layer:forward(x)
        assert.is_true(y:amin():item() >= 0.75 - 1e-6 and y:amax():item() <= 1.25 + 1e-6)
        assert.is_true(y:amin():item() < 0.77 and y:amax():item() > 1.23)
    end)
end)
