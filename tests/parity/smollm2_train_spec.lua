-- Twenty optimizer steps on SmolLM2-135M-Instruct against transformers, PEFT and torch's AdamW: all
-- weights and LoRA in f32, by hand and by the recipe, and all weights in bf16 with f32 masters.
-- Goldens: tests/parity/smollm2_train.py.

local am = require("am")
local compare = require("tests.support.compare")
local files = require("tests.support.files")
local json = require("am.utils.json")
local path = require("am.utils.path")
local recipes = require("tests.recipe.helper")
local weights = require("am.models.weights")

local ROOT = "tests/parity/golden/smollm2_train"

-- f32 roundings differ between implementations and grow over the steps: torch's own eager and sdpa
-- attention are 2.5e-6 (loss), 8.4e-6 (gradient norm) and 2.8e-5 (update) apart after twenty.
local LOSS, NORM, UPDATE = 2e-5, 1e-4, 1e-3
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

local function check_step(golden, step, loss, norm)
    compare.near("loss of step " .. step, loss, golden.losses[step], LOSS)
    compare.near("gradient norm of step " .. step, norm / golden.grad_norms[step], 1, NORM)
end

-- squares: the sum of (update - expected update)^2.
local function check_update(squares, expected_norm)
    local off = math.sqrt(squares) / expected_norm
    compare.check(off <= UPDATE, "the update is off by %.3g of its norm", off)
end

-- ---- all weights -----------------------------------------------------------------------------

-- The entries 0, stride, 2 stride, ... of all trainable tensors laid end to end in order of names.
local function sample(model, stride)
    local names, tensors = {}, {}
    for name, t in model:named_parameters() do
        names[#names + 1], tensors[name] = name, t
    end
    table.sort(names)
    local out, start = {}, 0
    for _, name in ipairs(names) do
        local array, n = tensors[name]:to_buffer()
        for i = -start % stride, n - 1, stride do
            out[#out + 1] = array[i]
        end
        start = start + n
    end
    return out
end

local function full_in_f32()
    local golden = summary.full
    local model = am.AutoModelForCausalLM.from_pretrained(file)
    local optimizer = adamw(model, golden.lr)
    local before = sample(model, golden.stride)
    assert.equal(golden.sample_count, #before)
    train(model, optimizer, function(step, loss, norm) check_step(golden, step, loss, norm) end)
    local after, squares = sample(model, golden.stride), 0
    local expected = am.load_safetensors(ROOT .. "/full_delta.safetensors").delta:to_buffer()
    for i = 1, #before do
        squares = squares + compare.distance(after[i] - before[i], expected[i - 1]) ^ 2
    end
    check_update(squares, golden.sample_norm)
    optimizer:close()
    model:close()
end

-- ---- LoRA ------------------------------------------------------------------------------------

-- Compares the adapter in a folder with the golden one.
local function check_adapter(dir)
    local before = am.load_safetensors(ROOT .. "/lora_initial/adapter_model.safetensors")
    local after = am.load_safetensors(dir .. "/adapter_model.safetensors")
    local squares, count = 0, 0
    for name, expected in pairs(am.load_safetensors(ROOT .. "/lora_delta.safetensors")) do
        local moved = assert(after[name], name) - before[name]
        squares, count = squares + compare.difference(moved, expected).norm ^ 2, count + 1
    end
    assert.equal(40, count)
    check_update(squares, summary.lora.sample_norm)
end

local function lora_in_f32()
    local golden = summary.lora
    local model = am.AutoModelForCausalLM.from_pretrained(file)
    local config = am.peft.load_adapter(model, ROOT .. "/lora_initial")
    local optimizer = adamw(model, golden.lr)
    train(model, optimizer, function(step, loss, norm) check_step(golden, step, loss, norm) end)
    files.with_folder(function(dir)
        am.peft.save_adapter(model, dir, config)
        check_adapter(dir)
    end)
    optimizer:close()
    model:close()
end

-- The batches' rows without their padding, as a file for PretokenizedDataset.
local function write_rows(name)
    local lines = {}
    for _, batch in ipairs(load_batches()) do
        local ids, mask, labels = batch.input_ids:totable(), batch.attention_mask:totable(), batch.labels:totable()
        for r = 1, #ids do
            local row = { input_ids = json.array {}, labels = json.array {} }
            for t = 1, #ids[r] do
                if mask[r][t] == 1 then
                    row.input_ids[t] = ids[r][t]
                    row.labels[t] = mask[r][t + 1] == 1 and labels[r][t + 1] or -100 -- shifted
                end
            end
            lines[#lines + 1] = json.encode(row)
        end
    end
    path.write_file(name, table.concat(lines, "\n") .. "\n")
end

local function lora_by_the_recipe(dir)
    local golden, rows = summary.lora, dir .. "/rows.jsonl"
    write_rows(rows)
    recipes.train_here {
        seed = 1,
        model = { _target_ = "am.AutoModelForCausalLM.from_pretrained", pretrained_model_name_or_path = file },
        peft = { adapter_path = ROOT .. "/lora_initial" },
        dataset = { _target_ = "am.datasets.PretokenizedDataset", path_or_dataset_id = rows },
        dataloader = { shuffle = false },
        step_scheduler = { global_batch_size = 4, local_batch_size = 2, max_steps = settings.steps,
                           num_epochs = 2, ckpt_every_steps = 1000 },
        optimizer = { _target_ = "torch.optim.AdamW", lr = golden.lr, betas = json.array(settings.betas),
                      eps = settings.eps, weight_decay = settings.weight_decay },
        clip_grad_norm = { max_norm = settings.max_norm },
        checkpoint = { checkpoint_dir = dir .. "/run" },
    }
    local records = recipes.jsonl(dir .. "/run/training.jsonl")
    assert.equal(settings.steps, #records)
    for i, record in ipairs(records) do
        check_step(golden, i, record.loss, record.grad_norm)
    end
    check_adapter(recipes.latest(dir .. "/run") .. "/model")
end

-- ---- bf16 ------------------------------------------------------------------------------------

local function full_in_bf16()
    local golden, f32 = summary.bf16, summary.full
    local model = am.AutoModelForCausalLM.from_pretrained(file, { torch_dtype = "bfloat16" })
    local optimizer = adamw(model, golden.lr)
    weights.with_stored(model, function(get) -- as in the golden script
        optimizer:load_masters(function(name) return get(name, "float32") end)
    end)
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
end

describe("twenty steps on SmolLM2-135M-Instruct equal transformers'", function()
    if not file then
        pending(why)
        return
    end

    teardown(recipes.cleanup)

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

    it("in f32 with all weights", full_in_f32)
    it("in f32 with LoRA", lora_in_f32)
    it("in f32 with LoRA, run by the recipe", function() files.with_folder(lora_by_the_recipe) end)
    it("in bf16 as closely as transformers in bf16", full_in_bf16)
end)
