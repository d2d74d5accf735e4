-- Products in 8 bits against torchao's, emulated: losses of a few steps and gradients of a tiny model in f32 by each
-- recipe. Golden: tests/parity/fp8_golden.py. A whole run on SmolLM2 is fp8_train.lua's.

local am = require("am")
local compare = require("tests.support.compare")
local fp8 = require("am.quantization").fp8

local ROOT = "tests/parity/golden/fp8"
local STEPS, LR, STRIDE, COUNT = 4, 0.05, 12, 8 -- of fp8_golden.py; linear maps
-- One map has the same operands, and so the same numbers in 8 bits: sums in another order, in f32.
local MAP = 1e-6
-- In a model roundings in f32 make one number in 8 bits another one here and there: one of k_proj's gradient moves all
-- gradients by 8e-4 of their norm. Another scale, format or operand moves them by 2e-2 and the loss by 1e-2.
local LOSS, GRADIENT = 1e-3, 4e-3

-- Every STRIDE-th element of all gradients, end to end in the order of names.
local function sample(model)
    local names, tensors, out, start = {}, {}, {}, 0
    for name, t in model:named_parameters() do
        names[#names + 1], tensors[name] = name, t.grad
    end
    table.sort(names)
    for _, name in ipairs(names) do
        local array, n = tensors[name]:to_buffer()
        for i = -start % STRIDE, n - 1, STRIDE do
            out[#out + 1] = array[i]
        end
        start = start + n
    end
    return out
end

local function descend(model)
    am.no_grad(function()
        for _, t in model:named_parameters() do
            t:sub_(t.grad * LR)
            t.grad = nil
        end
    end)
end

describe("products in 8 bits", function()
    local golden = am.load_safetensors(ROOT .. "/golden.safetensors")

    for _, recipe in ipairs { "tensorwise", "rowwise", "rowwise_with_gw_hp" } do
        it("are torchao's in one map: " .. recipe, function()
            for _, device in ipairs { "cpu", "ref" } do
                local x, weight = golden.x:to { device = device }:clone(), golden.weight:to { device = device }:clone()
                x.requires_grad, weight.requires_grad = true, true
                local out = am.fp8_linear(x, weight, recipe)
                out:backward(golden.dout:to { device = device })
                for name, t in pairs { out = out:detach(), dx = x.grad, dweight = weight.grad } do
                    local d = compare.difference(t:to { device = "cpu" }, golden[recipe .. "." .. name])
                    compare.check(d.worst <= MAP * d.largest, "%s on %s: %s is off by %.3g of the largest", recipe,
                                  device, name, d.worst / d.largest)
                end
            end
        end)

        it("are torchao's: " .. recipe, function()
            local model = am.AutoModelForCausalLM.from_pretrained(ROOT, { torch_dtype = "float32" })
            assert.equal(COUNT, fp8.apply(model, { recipe_name = recipe }))
            local losses = golden[recipe .. ".losses"]:totable()
            local wanted, n = golden[recipe .. ".gradient"]:to_buffer()
            for step = 1, STEPS do
                local loss = model:forward({ input_ids = golden.input_ids, labels = golden.input_ids }).loss
                loss:backward()
                compare.near(recipe .. ": loss of step " .. step, loss:item(), losses[step], LOSS)
                if step == 1 then
                    local got, off, size = sample(model), 0, 0
                    assert.equal(n, #got)
                    for i = 1, n do
                        off, size = off + (got[i] - wanted[i - 1]) ^ 2, size + wanted[i - 1] ^ 2
                    end
                    compare.check(math.sqrt(off / size) <= GRADIENT, "%s: gradients are off by %.3g of their norm",
                                  recipe, math.sqrt(off / size))
                end
                descend(model)
            end
            model:close()
        end)
    end
end)
