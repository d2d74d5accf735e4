-- Modules: names, walking, sharing, replacing, modes; each layer against its formula.

local am = require("am.core")
local err = require("am.core.error")
local Attention = require("am.nn.attention")
local Embedding = require("am.nn.embedding")
local GatedMLP = require("am.nn.mlp")
local Linear = require("am.nn.linear")
local Module = require("am.nn.module")
local RMSNorm = require("am.nn.norm")
local ops = am.ops

local function names(model)
    local list = {}
    for name in model:named_parameters() do list[#list + 1] = name end
    return list
end

-- Give every declared parameter random numbers.
local function fill(model)
    for _, module, slot in model:parameter_slots() do
        module[slot.name] = am.randn(slot.shape)
    end
    return model
end

local Block = Module.class("Block")
function Block.new()
    local self = Module.init(Block)
    self:add("self_attn", Attention.new { hidden_size = 8, num_heads = 4, num_kv_heads = 2, head_dim = 2,
                                          bias = true })
    self:add("norm", RMSNorm.new(8, 1e-5))
    return self
end

local Model = Module.class("Model")
function Model.new()
    local self = Module.init(Model)
    self:add("embed_tokens", Embedding.new(11, 8))
    local layers = self:add("layers", Module.init(Module.class("ModuleList")))
    layers:add("0", Block.new())
    layers:add("1", Block.new())
    self:add("lm_head", Linear.new(8, 11))
    return self
end

describe("a module", function()
    it("names parameters as Hugging Face does, in order", function()
        assert.same({
            "embed_tokens.weight",
            "layers.0.self_attn.q_proj.weight", "layers.0.self_attn.q_proj.bias",
            "layers.0.self_attn.k_proj.weight", "layers.0.self_attn.k_proj.bias",
            "layers.0.self_attn.v_proj.weight", "layers.0.self_attn.v_proj.bias",
            "layers.0.self_attn.o_proj.weight", "layers.0.norm.weight",
            "layers.1.self_attn.q_proj.weight", "layers.1.self_attn.q_proj.bias",
            "layers.1.self_attn.k_proj.weight", "layers.1.self_attn.k_proj.bias",
            "layers.1.self_attn.v_proj.weight", "layers.1.self_attn.v_proj.bias",
            "layers.1.self_attn.o_proj.weight", "layers.1.norm.weight",
            "lm_head.weight",
        }, names(fill(Model.new())))
    end)

    it("has no parameters before it is filled, but slots", function()
        local model, slots = Model.new(), 0
        assert.same({}, names(model))
        for name, module, slot in model:parameter_slots() do
            slots = slots + 1
            assert.is_truthy(name:find(slot.name .. "$"))
            assert.is_truthy(module.class_name)
        end
        assert.equal(18, slots)
    end)

    it("finds modules by path", function()
        local model = Model.new()
        assert.equal("Linear", model:get("layers.1.self_attn.q_proj").class_name)
        assert.equal("Block", model:get("layers.0").class_name)
        assert.is_nil(model:get("layers.2"))
        assert.is_nil(model:get("layers.0.nothing.at.all"))
        assert.is_nil(model:get("layers.0.self_attn.heads.x"))
        local paths = {}
        for path in model:named_modules() do paths[#paths + 1] = path end
        assert.equal("", paths[1])
        assert.equal("embed_tokens", paths[2])
        assert.equal("layers", paths[3])
        assert.equal(18, #paths)
    end)

    it("shares a tensor under one name", function()
        local model = fill(Model.new())
        model.lm_head:share("weight", model.embed_tokens.weight)
        local list = names(model)
        assert.equal(17, #list)
        for _, name in ipairs(list) do assert.not_equal("lm_head.weight", name) end
        -- both uses add to the one gradient
        local w = model.embed_tokens.weight
        w.requires_grad = true
        local ids = am.tensor({ 3 }, { dtype = "int32" })
        model.lm_head:forward(model.embed_tokens:forward(ids)):sum():backward()
        local row, sum = w:select(0, 3), w:sum(0)
        for i, g in ipairs(w.grad:select(0, 3):totable()) do
            assert.near(row:totable()[i] + sum:totable()[i], g, 1e-4)
        end
        assert.near(row:totable()[1], w.grad:totable()[1][1], 1e-6)
    end)

    it("replaces children where they stand", function()
        local model = fill(Model.new())
        model:train()
        local attention = model:get("layers.0.self_attn")
        attention:replace("q_proj", Linear.new(8, 8))
        assert.is_true(attention.q_proj.training)
        assert.is_nil(attention.q_proj.bias)
        model:get("layers.1"):replace("self_attn", Attention.new { hidden_size = 8, num_heads = 4, num_kv_heads = 2,
                                                                   head_dim = 2 })
        assert.is_true(model:get("layers.1.self_attn.q_proj").training) -- and what is below
        fill(attention.q_proj)
        assert.equal("layers.0.self_attn.q_proj.weight", names(model)[2])
        assert.equal("layers.0.self_attn.k_proj.weight", names(model)[3])
        local ok, e = pcall(attention.replace, attention, "nothing", Linear.new(1, 1))
        assert.is_false(ok)
        assert.is_true(err.is(e))
        assert.is_truthy(tostring(e):find("nothing"))
    end)

    it("switches modes everywhere", function()
        local model = Model.new()
        assert.is_false(model.training)
        model:train()
        for _, module in model:named_modules() do assert.is_true(module.training) end
        model:eval()
        for _, module in model:named_modules() do assert.is_false(module.training) end
    end)

    it("prints as a tree", function()
        local text = Model.new():repr()
        assert.is_truthy(text:find("  (lm_head): Linear(in_features=8, out_features=11, bias=false)", 1, true), text)
        assert.is_truthy(text:find("      (norm): RMSNorm(8, eps=1e-05)", 1, true), text)
    end)
end)

local function near(expected, actual, tolerance)
    assert.same(expected:size(), actual:size())
    local worst = ops.abs(expected - actual):amax():item()
    assert.is_true(worst <= tolerance, "off by " .. worst)
end

describe("layers", function()
    it("compute their formulas", function()
        local x = am.randn { 2, 3, 8 }
        local linear = fill(Linear.new(8, 5, true))
        near(ops.matmul(x, linear.weight:transpose(0, 1)) + linear.bias, linear:forward(x), 1e-5)
        local norm = fill(RMSNorm.new(8, 1e-5))
        near(x * ops.rsqrt((x * x):mean(-1, true) + 1e-5) * norm.weight, norm:forward(x), 1e-5)
        for name, act in pairs { silu = ops.silu, gelu = ops.gelu, relu = ops.relu,
                                 gelu_pytorch_tanh = function(t) return ops.gelu(t, "tanh") end } do
            local mlp = fill(GatedMLP.new { hidden_size = 8, intermediate_size = 12, hidden_act = name })
            local gate, up = mlp.gate_proj:forward(x), mlp.up_proj:forward(x)
            near(mlp.down_proj:forward(act(gate) * up), mlp:forward(x), 1e-4)
        end
        local bad = fill(GatedMLP.new { hidden_size = 8, intermediate_size = 12, hidden_act = "sine" })
        local ok, e = pcall(bad.forward, bad, x)
        assert.is_false(ok)
        assert.is_truthy(tostring(e):find("sine"))
    end)

    it("attend as softmax(QK)V does, causal and in groups", function()
        local heads, kv, d, t = 4, 2, 2, 5
        local attention = fill(Attention.new { hidden_size = 8, num_heads = heads, num_kv_heads = kv, head_dim = d })
        local x = am.randn { 1, t, 8 }
        -- a table of angle 0 rotates nothing
        local still = ops.cat({ am.ones { 1, t, 1 }, am.zeros { 1, t, 1 } }, 2)
        local mask = {}
        for i = 1, t do
            mask[i] = {}
            for j = 1, t do mask[i][j] = j > i end
        end
        local outs = {}
        local function head(proj, h)
            return proj:forward(x):reshape(t, -1):narrow(1, h * d, d)
        end
        for h = 0, heads - 1 do
            local q, k, v = head(attention.q_proj, h), head(attention.k_proj, math.floor(h / 2)),
                head(attention.v_proj, math.floor(h / 2))
            local scores = ops.matmul(q, k:transpose(0, 1)) / math.sqrt(d)
            scores = ops.where(am.tensor(mask), -math.huge, scores)
            outs[h + 1] = ops.matmul(scores:softmax(1), v)
        end
        local expected = attention.o_proj:forward(ops.cat(outs, 1)):unsqueeze(0)
        near(expected, attention:forward(x, still, {}), 1e-4)
    end)

    it("drop attention only while training", function()
        local attention = fill(Attention.new { hidden_size = 4, num_heads = 1, num_kv_heads = 1, head_dim = 4,
                                               dropout = 0.5 })
        local x, still = am.randn { 1, 6, 4 }, ops.cat({ am.ones { 1, 6, 2 }, am.zeros { 1, 6, 2 } }, 2)
        local a, b = attention:forward(x, still, {}), attention:forward(x, still, {})
        near(a, b, 0)
        attention:train()
        local c = attention:forward(x, still, {})
        assert.is_true(ops.abs(a - c):amax():item() > 1e-3)
    end)

    it("give the padding row of an embedding no gradient", function()
        local embedding = fill(Embedding.new(4, 2, 1))
        embedding.weight.requires_grad = true
        embedding:forward(am.tensor({ 0, 1, 1, 3 }, { dtype = "int64" })):sum():backward()
        assert.same({ { 1, 1 }, { 0, 0 }, { 0, 0 }, { 1, 1 } }, embedding.weight.grad:totable())
    end)
end)
