-- amlua's side of vlm_check.py: of a tiny checkpoint with its golden, what it writes after training, and what it
-- computes then.
--
--   amlua vlm_check.lua CASE WORK
--
-- Reads CASE/golden.safetensors and WORK/prompt.safetensors, a row with its pictures. Writes models WORK/full (trained
-- whole) and WORK/merged, adapters WORK/text (the projector is trained whole) and WORK/all, and beside each
-- NAME.safetensors with features, logits and greedy.

local am = require("am")
local path = require("am.utils.path")
local run = require("tests.parity.models.run")

local STEPS, NEW = 2, 8
local case, work = unpack(arg)

local batch = run.inputs(am.load_safetensors(path.join(case, "golden.safetensors")))
local prompt = run.inputs(am.load_safetensors(path.join(work, "prompt.safetensors")))

local function open()
    return am.AutoModelForImageTextToText.from_pretrained(case)
end

local function train(model, lr)
    local optimizer = am.optim.new("adamw", model:named_parameters(), { lr = lr })
    for _ = 1, STEPS do
        am.scope(function() model:forward(batch).loss:backward() end)
        optimizer:step()
        optimizer:zero_grad()
    end
    optimizer:close()
    model:eval()
end

local function write_outputs(model, name)
    local ids = run.greedy(model, prompt, prompt.input_ids:size(1) + NEW)
    am.save_safetensors(path.join(work, name .. ".safetensors"), {
        { "features", am.no_grad(model.get_image_features, model, batch) },
        { "logits", am.no_grad(model.forward, model, batch).logits },
        { "greedy", am.tensor(ids, { dtype = "int32" }) },
    })
end

local function write_model(model, name)
    path.mkdir_p(path.join(work, name))
    model:save_pretrained(path.join(work, name))
    write_outputs(model, name)
end

local function write_adapter(name, options)
    local model = open()
    local config = am.peft.apply(model, options)
    train(model, 0.05)
    path.mkdir_p(path.join(work, name))
    am.peft.save_adapter(model, path.join(work, name), config)
    write_outputs(model, name)
    return model
end

am.manual_seed(1)
local model = open()
local projector
for name in model:named_modules() do
    local last = name:match("[^.]+$")
    projector = (last == "multi_modal_projector" or last == "connector" or last == "merger") and last or projector
end
train(model, 1e-2)
write_model(model, "full")
model:close()
write_adapter("text", { exclude_modules = { "*vision*", "*visual*", "*lm_head*" }, dim = 2, alpha = 4,
                        modules_to_save = projector }):close()
model = write_adapter("all", { match_all_linear = true, dim = 2, alpha = 4 })
am.peft.merge(model)
write_model(model, "merged")
model:close()
