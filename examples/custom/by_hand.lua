-- Training by hand, without a recipe: forward, backward, step.
--   amlua examples/custom/by_hand.lua MODEL_DIR [STEPS]

local am = require("am")

local model = am.AutoModelForCausalLM.from_pretrained(arg[1])
local steps = tonumber(arg[2] or 5)
local optimizer = am.optim.new("adamw", model:named_parameters(), { lr = 1e-3 })
local ids = { { 5, 9, 2, 7, 11, 3 }, { 4, 8, 6, 1, 10, 12 } }

model:train()
for step = 1, steps do
    -- what is made in a scope is freed at its end
    local loss = am.scope(function()
        local out = model:forward { input_ids = ids, labels = ids }
        out.loss:backward()
        return out.loss:item()
    end)
    local norm, factor = optimizer:clip_grad_norm(1.0)
    optimizer:step(factor)
    optimizer:zero_grad()
    print(string.format("step %d: loss %.4f, gradient norm %.4f", step, loss, norm))
end
