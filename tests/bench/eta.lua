-- How near the time that a run says is left, after its first ten steps, is to the time that it takes.
--
--   amlua tests/bench/eta.lua MODEL [NAME]
--
-- Twelve configurations of the quickstart, fifty steps each, with what lies between steps: validation,
-- checkpoints, packing, rows of all lengths. Prints for each what was said and measured; with NAME runs that one alone,
-- in this process. Takes some eight minutes with SmolLM2-135M on two cores. Exit status 1 when one is off by more than
-- a fifth.

local edge = require("am.core.ffi")
local helper = require("tests.recipe.helper")

local ALLOWED = 0.2
local MODEL = assert(arg[1], "usage: amlua tests/bench/eta.lua MODEL [NAME]")

local full = { "--peft", "null" }
local bf16 = { "--model.torch_dtype", "bfloat16" }
local small = { "--step_scheduler.global_batch_size", "4", "--step_scheduler.local_batch_size", "2" }

local configurations = {
    { "LoRA", {} },
    { "LoRA bf16", bf16 },
    { "LoRA, one row at a time", { "--step_scheduler.local_batch_size", "1" } },
    { "LoRA, validation every 5 steps", { "--step_scheduler.val_every_steps", "5" } },
    { "LoRA, validation every 20 steps", { "--step_scheduler.val_every_steps", "20" } },
    { "LoRA, layers computed again", { "--model.activation_checkpointing", "true" } },
    { "LoRA, packed", { "--packed_sequence.packed_sequence_size", "256", "--step_scheduler.global_batch_size", "2",
                        "--step_scheduler.local_batch_size", "1", "--step_scheduler.num_epochs", "100" } },
    { "LoRA, a checkpoint every 8 steps", { "--step_scheduler.ckpt_every_steps", "8" } },
    { "full", full, small },
    { "full bf16", full, small, bf16 },
    { "full, a checkpoint every 15 steps", full, small, { "--step_scheduler.ckpt_every_steps", "15" } },
    { "full, averages of the weights", full, small, { "--ema.decay", "0.99" } },
}

-- Runs one configuration; prints the seconds said after ten steps and those that it took from then on.
local function run(configuration)
    local dir = helper.folder()
    local words = { "--model.pretrained_model_name_or_path", MODEL, "--checkpoint.checkpoint_dir", dir }
    for i = 2, #configuration do
        for _, word in ipairs(configuration[i]) do
            words[#words + 1] = word
        end
    end
    local recipe = require("recipes.llm_finetune").new("examples/llm/quickstart.yaml", words)
    local said, at
    recipe:setup()
    table.insert(recipe.hooks.list, { name = "watch", step = function()
        if recipe.time_left and not said then
            said, at = recipe.time_left, edge.C.am_clock()
        end
    end })
    recipe:train()
    print(string.format("%.17g %.17g", said, edge.C.am_clock() - at))
    helper.cleanup()
end

local function run_all()
    local worst = 0
    for _, configuration in ipairs(configurations) do
        local name = configuration[1]
        local status, out, errors = helper.run({ "tests/bench/eta.lua", MODEL, name }, { limit = 1800 })
        if status ~= 0 then
            error(name .. ":\n" .. out .. errors, 0)
        end
        local said, took = out:match("([%d.]+) ([%d.]+)\n$")
        local off = said / took - 1
        worst = math.max(worst, math.abs(off))
        print(string.format("%-34s said %6.1f s, took %6.1f s, %+5.1f %%", name, said, took, 100 * off))
        io.stdout:flush()
    end
    helper.cleanup()
    print(string.format("at most %.1f %% off", 100 * worst))
    return worst <= ALLOWED and 0 or 1
end

if not arg[2] then
    return run_all()
end
for _, configuration in ipairs(configurations) do
    if configuration[1] == arg[2] then
        return run(configuration)
    end
end
error("no configuration " .. arg[2], 0)
