-- 100 steps on SmolLM2-135M-Instruct in bf16 and in 8 bits by the recipe, on the rows of fp8_train.py and against its
-- losses: for each recipe that the file has, the mean of the last 20 losses may be off bf16's by 3 %, and each loss may
-- be off bf16's by 1.3 times what torchao's is, in the mean over the last 20 steps.
-- usage: amlua tests/parity/fp8_train.lua MODEL_DIR OUT.json

local helper = require("tests.recipe.helper")
local json = require("am.utils.json")
local path = require("am.utils.path")

local LAST, MEAN, DEVIATION = 20, 0.03, 1.3
local model = assert(arg[1], "usage: amlua tests/parity/fp8_train.lua MODEL_DIR OUT.json")
local file = assert(arg[2], "which file has torchao's losses?")
local golden = assert(json.decode(assert(path.read_file(file))))

local function write_rows(name)
    local lines = {}
    for i, ids in ipairs(golden.rows) do
        lines[i] = json.encode { input_ids = ids }
    end
    return helper.write(name, table.concat(lines, "\n") .. "\n")
end

local function train(name)
    local dir = helper.folder()
    helper.train_here {
        seed = 1,
        model = { _target_ = "am.AutoModelForCausalLM.from_pretrained", pretrained_model_name_or_path = model,
                  torch_dtype = "bfloat16" },
        fp8 = { enabled = name ~= "bf16", recipe_name = name ~= "bf16" and name or nil, filter_fqns = { "lm_head" } },
        dataset = { _target_ = "am.datasets.PretokenizedDataset",
                    path_or_dataset_id = write_rows(dir .. "/rows.jsonl") },
        dataloader = { shuffle = false },
        step_scheduler = { global_batch_size = golden.rows_at_once, local_batch_size = golden.rows_at_once,
                           max_steps = golden.steps, num_epochs = 1 },
        optimizer = { _target_ = "torch.optim.AdamW", lr = golden.lr, betas = json.array(golden.betas),
                      eps = golden.eps, weight_decay = golden.weight_decay },
        clip_grad_norm = { max_norm = golden.max_norm },
        checkpoint = { enabled = false, checkpoint_dir = dir .. "/run" },
    }
    local losses = {}
    for i, record in ipairs(helper.jsonl(dir .. "/run/training.jsonl")) do
        losses[i] = record.loss
    end
    assert(#losses == golden.steps, "the run ended early")
    return losses
end

-- Of the last steps: the mean, and how far each is off another run's, in the mean.
local function last(losses, others)
    local sum, off = 0, 0
    for i = #losses - LAST + 1, #losses do
        sum, off = sum + losses[i], off + math.abs(losses[i] / others[i] - 1)
    end
    return sum / LAST, off / LAST
end

local bf16, failed = train("bf16"), false
print(("bf16: mean of the last %d losses %.4f, torch's %.4f"):format(LAST, last(bf16, bf16),
                                                                    (last(golden.losses.bf16, golden.losses.bf16))))
for _, name in ipairs { "tensorwise", "rowwise", "rowwise_with_gw_hp" } do
    if golden.losses[name] then
        local mean, off = last(train(name), bf16)
        local its_mean, its_off = last(golden.losses[name], golden.losses.bf16)
        local by, its = mean / last(bf16, bf16) - 1, its_mean / last(golden.losses.bf16, golden.losses.bf16) - 1
        local ok = math.abs(by) <= MEAN and off <= DEVIATION * its_off
        failed = failed or not ok
        print(("%s: mean %.4f, %+.2f %% of bf16's (torchao %+.2f %%); each off by %.2f %% (torchao %.2f %%): %s")
            :format(name, mean, 100 * by, 100 * its, 100 * off, 100 * its_off, ok and "ok" or "FAILED"))
    end
end
helper.cleanup()
os.exit(failed and 1 or 0)
