-- Small random Llamas of every kind against transformers, on every backend: logits, loss and all
-- gradients. Goldens: tests/parity/tiny_llama.py.

local am = require("am")
local devices = require("tests.support.devices")
local compare = require("tests.support.compare")
local path = require("am.utils.path")

local ROOT = "tests/parity/golden/tiny_llama"

-- f32 rounds at 6e-8; a few hundred roundings in another order than transformers' give some 1e-6 of
-- the largest logit, and a mistake of any kind far more than 1e-5.
local LOGITS = 1e-5
-- Gradients go through twice as many sums. Tensors whose gradient is next to nothing (keys' biases,
-- mathematically zero) hold rounding of the others, hence the floor.
local GRADIENT, FLOOR = 1e-4, 1e-3
-- Rounding may differ from transformers', but not be worse than it by more than this.
local ROUNDING = 1.5

local function largest(t)
    return compare.difference(t, t).largest
end

local function check_gradients(model, golden)
    local floor = 0
    for name, t in pairs(golden) do
        if name:match("^grad%.") then
            floor = math.max(floor, FLOOR * largest(t))
        end
    end
    local left = {}
    for name in pairs(golden) do
        left[name:match("^grad%.(.*)$") or ""] = true
    end
    left[""] = nil
    for name, parameter in model:named_parameters() do
        local expected = golden["grad." .. name]
        compare.check(expected, "%s is no parameter of transformers' model", name)
        compare.within("gradient of " .. name, parameter.grad, expected, GRADIENT, math.max(largest(expected), floor))
        left[name] = nil
    end
    compare.check(next(left) == nil, "no parameter %s", tostring(next(left)))
end

local function check_case(case, device)
    local golden = am.load_safetensors(path.join(ROOT, case, "golden.safetensors"))
    local model = am.AutoModelForCausalLM.from_pretrained(path.join(ROOT, case), { device = device })
    local out = model:forward {
        input_ids = golden.input_ids, attention_mask = golden.attention_mask, position_ids = golden.position_ids,
        labels = golden.labels,
    }
    local keep
    if golden.attention_mask then -- logits of padding mean nothing
        local mask, vocab = golden.attention_mask:to_buffer(), golden.logits:size(2)
        keep = function(i) return mask[math.floor(i / vocab)] ~= 0 end
    end
    compare.within("logits", out.logits, golden.logits, LOGITS, nil, keep)
    local mean, theirs = compare.difference(out.logits, golden.logits64, keep).mean, golden.error_mean:item()
    compare.check(mean <= ROUNDING * theirs, "rounding: mean error %.3g, transformers' is %.3g", mean, theirs)
    if golden.labels then
        compare.near("loss", out.loss:item(), golden.loss:item(), LOGITS * math.abs(golden.loss:item()))
        out.loss:backward()
        check_gradients(model, golden)
    end
    model:close()
end

for _, device in ipairs(devices) do
    describe("a tiny Llama on " .. device, function()
        for _, case in ipairs(path.list_dir(ROOT)) do
            it("equals transformers': " .. case, function()
                am.scope(check_case, case, device)
            end)
        end
    end)
end
