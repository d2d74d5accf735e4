-- Twenty or eight steps of the recipes on CUDA, over the emulated one of the tests, beside the CPU's. Skipped, counted,
-- where AMLUA_CUDA names no module.

local helper = require("tests.recipe.helper")
local vlm = require("tests.recipe.vlm_helper")

-- Both sum in f32, in other orders; bf16 rounds each tensor to 2^-8, f16 to 2^-11. For that, what is cast to 8 bits
-- (2^-4 apart) or to 16 levels may fall to the other side; the rate is low there, so that it does not add up.
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
    { name = "8 bits, a scale a tensor", steps = 8, within = 1e-2, changes = {
        optimizer = { lr = 0.001 },
        fp8 = { enabled = true },
    } },
    { name = "8 bits, scales by row, bf16", steps = 8, within = 1e-2, changes = {
        optimizer = { lr = 0.001 },
        fp8 = { enabled = true, recipe_name = "rowwise" }, model = { torch_dtype = "bfloat16" },
    } },
    { name = "8 bits, scales by row, whole weight gradients", steps = 8, within = 1e-2, changes = {
        optimizer = { lr = 0.001 },
        fp8 = { enabled = true, recipe_name = "rowwise_with_gw_hp" },
    } },
    { name = "QLoRA, NF4 with nested scales, bf16", steps = 8, within = 5e-3, changes = {
        optimizer = { lr = 0.001 },
        quantization = { load_in_4bit = true }, model = { torch_dtype = "bfloat16" },
        peft = { _target_ = "am.PeftConfig", target_modules = "*_proj", dim = 4 },
    } },
    { name = "QLoRA, FP4 in f32", steps = 8, within = 1e-5, changes = {
        optimizer = { lr = 0.001 },
        quantization = { load_in_4bit = true, bnb_4bit_quant_type = "fp4", bnb_4bit_compute_dtype = "float32",
                         bnb_4bit_use_double_quant = false },
        peft = { _target_ = "am.PeftConfig", target_modules = "*_proj", dim = 4 },
    } },
    { name = "LoRA over int8, bf16", steps = 8, within = 5e-3, changes = {
        optimizer = { lr = 0.001 },
        quantization = { load_in_8bit = true }, model = { torch_dtype = "bfloat16" },
        peft = { _target_ = "am.PeftConfig", target_modules = "*_proj", dim = 4 },
    } },
    { name = "QAT, 4-bit weights and 8-bit inputs", steps = 8, within = 1e-3, changes = {
        optimizer = { lr = 0.001 },
        qat = { enabled = true, qat_config = { groupsize = 4 } },
    } },
    { name = "QAT from step 5 on, bf16", steps = 8, within = 2e-2, changes = {
        optimizer = { lr = 0.001 },
        qat = { enabled = true, fake_quant_after_n_steps = 5, qat_config = { groupsize = 4 } },
        model = { torch_dtype = "bfloat16" },
    } },
    { name = "float16 with a loss scale", steps = 8, within = 5e-3, changes = {
        model = { torch_dtype = "float16" }, grad_scaler = { init_scale = 2 ^ 26, growth_interval = 4 },
    } },
}

-- Fails unless so many steps on both devices lose the same, within this share. config(dir, changes): of a run of
-- `recipe`.
local function compare_devices(steps, within, config, recipe)
    if not os.getenv("AMLUA_CUDA") then
        pending("AMLUA_CUDA names no module")
        return
    end
    local curves = {}
    for _, device in ipairs { "cpu", "cuda" } do
        local dir = helper.folder()
        helper.train_here(config(dir, { device = device, step_scheduler = { max_steps = steps } }), recipe)
        curves[device] = helper.jsonl(dir .. "/training.jsonl")
    end
    assert.equal(steps, #curves.cpu)
    for step, line in ipairs(curves.cpu) do
        local loss, other = line.loss, curves.cuda[step].loss
        assert(math.abs(other - loss) <= within * math.abs(loss),
               ("step %d: %.8f on CUDA, %.8f on the CPU"):format(step, other, loss))
    end
end

describe("steps on CUDA", function()
    teardown(helper.cleanup)

    for _, kind in ipairs(kinds) do
        it("lose what the CPU's do: " .. kind.name, function()
            compare_devices(kind.steps or 20, kind.within, function(dir, changes)
                return helper.config(dir, helper.changes(kind.changes, changes))
            end)
        end)
    end

    for _, family in ipairs { "gemma3", "qwen2_5_vl" } do
        it("lose what the CPU's do: pictures and text, " .. family, function()
            local model, rows = vlm.model(family), vlm.rows(9, { text_rows = true })
            compare_devices(20, 1e-4, function(dir, changes)
                return vlm.config(dir, model, rows, changes)
            end, vlm.recipe)
        end)
    end
end)
