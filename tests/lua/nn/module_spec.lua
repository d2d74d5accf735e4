-- Modules: names, walking, sharing, replacing, modes. The layers are in layers_spec.lua.

local am = require("am.core")
local err = require("am.core.error")
local Attention = require("am.nn.attention")
local Embedding = require("am.nn.embedding")
local Linear = require("am.nn.linear")
local Module = require("am.nn.module")
local RMSNorm = require("am.nn.norm")

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
