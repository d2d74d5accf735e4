-- What amlua computes of a checkpoint: the same numbers that golden.py has of transformers. The specs of text models
-- and of models with pictures compare them with goldens, random_configs.py with live transformers. Holds no comparison.

local am = require("am")
local weights = require("am.models.weights")

local M = {}

M.LR, M.WEIGHT_DECAY, M.STEPS = 1e-3, 0.1, 3

--- {name in the checkpoint -> tensor} of a model's parameters, or of their gradients.
function M.saved(model, what)
    return what == "gradients" and weights.saved_gradients(model) or weights.saved(model)
end

local INPUTS = { "input_ids", "attention_mask", "position_ids", "token_type_ids", "labels", "pixel_values",
                 "pixel_attention_mask", "image_grid_thw" }

--- The arguments of forward among a golden's tensors, those whose names begin with a prefix.
function M.inputs(golden, prefix)
    local out = {}
    for _, name in ipairs(INPUTS) do
        out[name] = golden[(prefix or "") .. name]
    end
    return out
end

--- {name -> tensor} as files of the hub call them, which is how they are written here; of towers with a
--- post_layernorm transformers saves others. Names may begin with one word more, as grad.NAME.
function M.renamed(tensors)
    local out = {}
    for name, t in pairs(tensors) do
        local kind, rest = name:match("^(%l*%.?)vision_tower%.(.*)$")
        if kind and tensors[kind .. "vision_tower.post_layernorm.weight"] then
            name = kind .. "vision_tower.vision_model." .. rest
        end
        out[name] = t
    end
    return out
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

--- Ids of a prompt and its greedy continuation, up to `total` of them. prompt: arguments of forward, one row.
function M.greedy(model, prompt, total, use_cache)
    local ids, inputs = prompt.input_ids:totable()[1], {}
    for name, t in pairs(prompt) do
        inputs[name] = name ~= "input_ids" and name ~= "attention_mask" and t or nil
    end
    return model:generate(ids, { max_new_tokens = total - #ids, eos_token_id = false, use_cache = use_cache,
                                 inputs = next(inputs) and inputs })
end

return M
