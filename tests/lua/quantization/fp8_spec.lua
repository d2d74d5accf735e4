-- Products in 8 bits in modules: which maps take part, what they compute with a bias and below LoRA, what learns.
-- That the numbers are torchao's is tests/parity/fp8_spec.lua's.

local am = require("am")
local compare = require("tests.support.compare")
local fp8 = require("am.quantization").fp8
local peft = require("am.peft")
local tiny = require("tests.support.tiny")
local Linear = require("am.nn.linear")
local LinearLoRA = require("am.peft.lora").LinearLoRA
local Module = require("am.nn.module")

local ops = am.ops
-- The same ops in the same order, but for additions in another.
local CLOSE = 1e-6

local function linear(inputs, outputs, bias)
    local module = Linear.new(inputs, outputs, bias)
    for _, slot in ipairs(module._parameters) do
        module[slot.name] = am.randn(slot.shape)
        module[slot.name].requires_grad = true
    end
    return module
end

local function same(a, b)
    local d = compare.difference(a:detach(), b:detach())
    compare.check(d.worst <= CLOSE * d.largest, "off by %g of %g", d.worst, d.largest)
end

before_each(function() am.manual_seed(1) end)

describe("maps in 8 bits", function()
    it("have dims that are multiples of 16 and names without filter_fqns", function()
        local model = Module.init(Module.class("Two"))
        model:add("first", linear(32, 48))
        local inner = model:add("inner", Module.init(Module.class("Inner")))
        inner:add("odd", linear(32, 40))
        inner:add("thin", linear(24, 32))
        inner:add("last", linear(16, 16))
        local count, all = fp8.apply(model, {})
        assert.same({ 2, 4 }, { count, all })
        assert.same({ "tensorwise", nil, nil, "tensorwise" },
                    { model.first.fp8, inner.odd.fp8, inner.thin.fp8, inner.last.fp8 })
        model.first.fp8, inner.last.fp8 = nil, nil
        assert.equal(1, (fp8.apply(model, { recipe_name = "rowwise", filter_fqns = { "x", "er.la" } })))
        assert.same({ "rowwise", nil }, { model.first.fp8, inner.last.fp8 })
        assert.matches("bias=false, fp8=rowwise", model:repr())
    end)

    it("are rounded, with a bias that is not, and their gradients", function()
        local module, x = linear(32, 16, true), am.randn { 5, 32 }
        x.requires_grad = true
        local exact = module:forward(x)
        module.fp8 = "rowwise"
        local y = module:forward(x)
        same(y, ops.fp8_linear(x, module.weight, "rowwise") + module.bias)
        local off = compare.difference(y:detach(), exact:detach())
        assert.is_true(off.norm > 0.005 * off.expected_norm and off.norm < 0.06 * off.expected_norm)
        y:sum():backward()
        assert.same({ 5, 5, 5 }, { module.bias.grad[{ 0 }]:item(), module.bias.grad[{ 7 }]:item(),
                                   module.bias.grad[{ 15 }]:item() })
        assert.is_truthy(x.grad and module.weight.grad)
    end)

    it("raise an error that names the recipe", function()
        local ok, e = pcall(ops.fp8_linear, am.randn { 2, 16 }, am.randn { 16, 16 }, "blockwise")
        assert.is_false(ok)
        assert.matches("recipe blockwise; there are tensorwise, rowwise", tostring(e))
    end)
end)

describe("LoRA above a weight in 8 bits", function()
    local function adapted(opts)
        local base = linear(32, 16, true)
        local module = LinearLoRA.new(base, opts)
        module:initialize("gaussian")
        module.lora_B.weight:normal_()
        base.weight.requires_grad, base.bias.requires_grad = false, false
        module.lora_A.weight.requires_grad, module.lora_B.weight.requires_grad = true, true
        return module
    end

    it("has its own products as they are", function()
        local module, x = adapted { dim = 16, alpha = 8 }, am.randn { 3, 32 }
        x.requires_grad = true
        local root = Module.init(Module.class("Root"))
        root:add("map", module)
        assert.same({ 1, 1 }, { fp8.apply(root, {}) }) -- its A and B, which have such dims, too, stay
        local y = module:forward(x)
        local z = ops.matmul(ops.matmul(x, module.lora_A.weight:transpose(0, 1)), module.lora_B.weight:transpose(0, 1))
        same(y, ops.fp8_linear(x, module.weight, "tensorwise") + module.bias + z * 0.5)
        y:sum():backward()
        assert.is_truthy(x.grad and module.lora_A.weight.grad and module.lora_B.weight.grad)
        assert.is_nil(module.weight.grad)
    end)

    it("drops out where it is told to", function()
        for _, position in ipairs { "pre", "post" } do
            local module = adapted { dim = 4, alpha = 4, dropout = 1, dropout_position = position }
            local x = am.randn { 3, 32 }
            module.fp8 = "tensorwise"
            local base = ops.fp8_linear(x, module.weight, "tensorwise") + module.bias
            assert.is_true(compare.difference(module:forward(x):detach(), base).norm > 1)
            module:train()
            same(module:forward(x), base)
        end
    end)

    it("is left out where DoRA scales the weight's rows", function()
        local model = tiny.model()
        peft.apply(model, { target_modules = "*_proj", dim = 4, use_dora = true })
        assert.equal(0, (fp8.apply(model, {})))
        model:close()
    end)
end)
