-- Twenty optimizer steps on SmolLM2-135M-Instruct against transformers and torch's AdamW: in bf16 with
-- f32 masters. Goldens: tests/parity/smollm2_train.py.

local am = require("am")
local compare = require("tests.support.compare")
local files = require("tests.support.files")

local ROOT = "tests/parity/golden/smollm2_train"

-- The f32 losses and updates are not compared here: torch's f32 cross-entropy over 49152 logits is
-- biased by 8.5e-6 (AVX-512) or 1.7e-5 (AVX2), its gradients by 1e-4, and the goldens hold that.
-- In bf16 only the statistics of rounding can agree.
local BF16_MEAN, BF16_FIRST = 1.3, 0.005

local file, why = files.smollm2()
local summary = files.json(ROOT .. "/summary.json")
local settings = summary.settings

-- What each step is called with: the batch cut to its longest row.
local function load_batches()
    local all, list = am.load_safetensors(ROOT .. "/batches.safetensors"), {}
    local count, rows, width = unpack(all.input_ids:size())
    local mask = all.attention_mask:totable()
    for i = 1, count do
        local longest = 0
        for r = 1, rows do
            local length = 0
            for _, on in ipairs(mask[i][r]) do
                length = length + on
            end
            longest = math.max(longest, length)
        end
        list[i] = {}
        for name, t in pairs(all) do
            list[i][name] = t:narrow(0, i - 1, 1):reshape(rows, width):narrow(1, 0, longest):contiguous()
        end
    end
    return list
end

-- Calls on_step(step, loss before the update, gradient norm before clipping).
local function train(model, optimizer, on_step)
    local batches = load_batches()
    model:train()
    for step = 1, settings.steps do
        local loss = am.scope(function()
            local out = model:forward(batches[(step - 1) % #batches + 1])
            out.loss:backward()
            return out.loss:item()
        end)
        local norm, factor = optimizer:clip_grad_norm(settings.max_norm)
        optimizer:step(factor)
        optimizer:zero_grad()
        on_step(step, loss, norm)
    end
end

local function adamw(model, lr)
    return am.optim.new("adamw", model:named_parameters(), {
        lr = lr, betas = settings.betas, eps = settings.eps, weight_decay = settings.weight_decay,
    })
end

-- As in the golden script, masters are the f32 weights. Those of from_pretrained in bf16 are rounded to
-- bf16, and steps smaller than half a place do nothing at first: deviations four times as large.
local function take_masters(optimizer)
    local f32, weights, count = am.AutoModelForCausalLM.from_pretrained(file), {}, 0
    for name, t in f32:named_parameters() do
        weights[name], count = t, count + 1
    end
    for name, what, t in optimizer:state_tensors() do
        if what == "master" then
            t:copy_(weights[name])
            count = count - 1
        end
    end
    assert.equal(0, count)
    f32:close()
end

describe("twenty steps on SmolLM2-135M-Instruct equal transformers'", function()
    if not file then
        pending(why)
        return
    end

    it("where something is learnt and gradients are clipped", function()
        for _, golden in ipairs { summary.full, summary.lora } do
            local clipped = 0
            for _, norm in ipairs(golden.grad_norms) do
                clipped = clipped + (norm > settings.max_norm and 1 or 0)
            end
            assert.is_true(clipped > settings.steps / 2)
            assert.is_true(golden.losses[1] - golden.losses[settings.steps] >= 0.5)
        end
    end)

    for _, what in ipairs { "all weights", "LoRA", "LoRA, run by the recipe" } do
        pending("in f32 with " .. what .. ": the goldens carry the bias of torch's cross-entropy")
    end

    it("in bf16 as closely as transformers in bf16", function()
        local golden, f32 = summary.bf16, summary.full
        local model = am.AutoModelForCausalLM.from_pretrained(file, { torch_dtype = "bfloat16" })
        local optimizer = adamw(model, golden.lr)
        take_masters(optimizer)
        local sum = 0
        train(model, optimizer, function(step, loss)
            local deviation = compare.distance(loss / f32.losses[step], 1)
            compare.check(step > 1 or deviation <= BF16_FIRST, "the first loss is off by %.3g", deviation)
            sum = sum + deviation
        end)
        local mean = sum / settings.steps
        compare.check(mean <= BF16_MEAN * golden.deviation_mean, "mean deviation %.3g, transformers' is %.3g", mean,
                      golden.deviation_mean)
        optimizer:close()
        model:close()
    end)
end)
