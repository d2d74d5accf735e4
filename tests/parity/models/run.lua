-- What amlua computes of a checkpoint: the same numbers that golden.py has of transformers. models_spec.lua
-- compares them with the goldens, random_configs.py with live transformers. Holds no comparison.

local am = require("am")
local weights = require("am.models.weights")

local M = {}

M.LR, M.WEIGHT_DECAY, M.STEPS = 1e-3, 0.1, 3

--- {name in the checkpoint -> tensor} of a model's parameters, or of their gradients.
function M.saved(model, what)
    return what == "gradients" and weights.saved_gradients(model) or weights.saved(model)
end

--- The arguments of forward among a golden's tensors.
function M.inputs(golden)
    return { input_ids = golden.input_ids, attention_mask = golden.attention_mask,
             position_ids = golden.position_ids, labels = golden.labels }
end

--- Three steps of AdamW on one batch. on_gradients() is called before the first update. Returns the loss
--- before each.
function M.train(model, inputs, on_gradients)
    local optimizer = am.optim.new("adamw", model:named_parameters(), { lr = M.LR, weight_decay = M.WEIGHT_DECAY })
    local losses = {}
    for step = 1, M.STEPS do
        am.scope(function()
            local out = model:forward(inputs)
            losses[step] = out.loss:item()
            out.loss:backward()
            if step == 1 then
                on_gradients(out)
            end
        end)
        optimizer:step()
        optimizer:zero_grad()
    end
    optimizer:close()
    return losses
end

--- Ids of a prompt and its greedy continuation, up to `total` of them.
function M.greedy(model, prompt, total, use_cache)
    return model:generate(prompt, { max_new_tokens = total - #prompt, eos_token_id = false, use_cache = use_cache })
end

return M
