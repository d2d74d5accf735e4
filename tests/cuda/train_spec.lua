-- Twenty steps of the recipe on CUDA, over the emulated one of the tests, beside the CPU's. Skipped, counted, where
-- AMLUA_CUDA names no module.

local helper = require("tests.recipe.helper")

-- Both sum in f32, in other orders; bf16 rounds each tensor to 2^-8.
local kinds = {
    { name = "all weights", changes = {}, within = 1e-4 },
    { name = "LoRA with dropout, packed", within = 1e-4, changes = {
        peft = { _target_ = "am.PeftConfig", target_modules = "*_proj", dim = 4, dropout = 0.1 },
        packed_sequence = { packed_sequence_size = 48 },
    } },
    { name = "accumulation, clipping, 8-bit AdamW", within = 1e-4, changes = {
        step_scheduler = { global_batch_size = 4, local_batch_size = 2 }, clip_grad_norm = { max_norm = 0.5 },
        optimizer = { _target_ = "bitsandbytes.optim.AdamW8bit", lr = 0.002 },
    } },
    { name = "bf16, layers computed again", within = 2e-2, changes = {
        model = { torch_dtype = "bfloat16", activation_checkpointing = true },
    } },
}

describe("twenty steps on CUDA", function()
    teardown(helper.cleanup)

    for _, kind in ipairs(kinds) do
        it("lose what the CPU's do: " .. kind.name, function()
            if not os.getenv("AMLUA_CUDA") then
                pending("AMLUA_CUDA names no module")
                return
            end
            local curves = {}
            for _, device in ipairs { "cpu", "cuda" } do
                local dir = helper.folder()
                helper.train_here(helper.config(dir, helper.changes(kind.changes, {
                    device = device, step_scheduler = { max_steps = 20 },
                })))
                curves[device] = helper.jsonl(dir .. "/training.jsonl")
            end
            assert.equal(20, #curves.cpu)
            for step, line in ipairs(curves.cpu) do
                local loss, other = line.loss, curves.cuda[step].loss
                assert(math.abs(other - loss) <= kind.within * math.abs(loss),
                       ("step %d: %.8f on CUDA, %.8f on the CPU"):format(step, other, loss))
            end
        end)
    end
end)
