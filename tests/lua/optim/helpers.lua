-- What the optimizer specs share: parameters with the same numbers each time, their gradients, and a set
-- of optimizers.
local am = require("am")

local M = {}

--- Odd sizes, so that there are gaps between them in flat buffers.
M.SHAPES = { { 7 }, { 1 }, { 3, 5 }, { 2, 3, 11 }, {} }

--- Iterator over (name, tensor) of a list; names are p1, p2, ….
function M.iterator(list)
    local i = 0
    return function()
        i = i + 1
        if list[i] then
            return "p" .. i, list[i]
        end
    end
end

--- Parameters of a dtype with random numbers, the same ones each time.
function M.parameters(dtype, device)
    am.manual_seed(21)
    local list = {}
    for i, shape in ipairs(M.SHAPES) do
        list[i] = am.randn(shape):to { dtype = dtype or "float32", device = device }:detach():requires_grad_()
    end
    return list
end

--- Parameters as a model has them, the same numbers for a seed each time, and an iterator over (name, tensor).
function M.named_parameters(names, shapes, seed, dtype)
    am.manual_seed(seed)
    local list = {}
    for i, shape in ipairs(shapes) do
        list[i] = am.randn(shape):to(dtype or "float32"):detach():requires_grad_()
    end
    local i = 0
    return list, function()
        i = i + 1
        return names[i], list[i]
    end
end

--- Gradients for a step, in f32, added to those that are there; none for what is frozen, nor
--- for number `skip`. Returns them.
function M.give_gradients(list, step, skip)
    am.manual_seed(100 + step)
    local out = {}
    for i, p in ipairs(list) do
        local g = am.randn(p:size())
        out[i] = g
        if i ~= skip and p.requires_grad then
            (p * g:to { dtype = p:dtype(), device = p:device() }):sum():backward()
        end
    end
    return out
end

--- {kind, options} of optimizers that differ in every option.
M.cases = {
    { "adamw", { lr = 0.01 } }, { "adamw", { lr = 0.1, weight_decay = 0.3, betas = { 0.8, 0.95 } } },
    { "adamw", { lr = 0.1, weight_decay = 0, eps = 0.5 } }, { "adamw", { betas = { 0, 0 }, lr = 0.05 } },
    { "adam", { lr = 0.01 } }, { "adam", { lr = 0.1, weight_decay = 0.3, eps = 1e-3, betas = { 0.5, 0.9 } } },
    { "sgd", { lr = 0.1 } }, { "sgd", { lr = 0.1, weight_decay = 0.2 } }, { "sgd", { lr = 0.1, momentum = 0.9 } },
    { "sgd", { lr = 0.05, momentum = 0.8, dampening = 0.3, weight_decay = 0.1 } },
    { "sgd", { lr = 0.05, momentum = 0.9, nesterov = true, weight_decay = 0.1 } },
}

--- One or two of every other family.
M.others = {
    { "lion", { lr = 0.01, weight_decay = 0.2 } }, { "adamw", { lr = 0.1, amsgrad = true, betas = { 0.9, 0.5 } } },
    { "adam", { lr = 0.1, maximize = true, bias_correction = false } }, { "adafactor", { lr = 0.1 } },
    { "transformers_adafactor", { weight_decay = 0.1 } }, { "muon", { lr = 0.02 } },
    { "muon", { lr = 0.02, ns_dtype = "float32", nesterov = false, adjust_lr_fn = "match_rms_adamw" } },
    { "dion_muon", { lr = 0.02, scalar_opt = "lion", weight_decay = 0.1 } }, { "normuon", { lr = 0.02 } },
    { "soap", { lr = 0.01, precondition_frequency = 2, precondition_1d = true } },
    { "soap", { lr = 0.01, merge_dims = true, max_precond_dim = 12 } },
    { "shampoo", { lr = 0.01, momentum = 0.5, weight_decay = 0.1, matrix_eps = 0.1 } },
}

--- Whether the moments of a case may have 8 bits.
function M.in_8_bits(case)
    return (case[1] == "lion" or case[1]:match("^adamw?$") or case[1] == "sgd") and not case[2].amsgrad
end

--- The cases and the others.
function M.all()
    local out = {}
    for _, list in ipairs { M.cases, M.others } do
        for _, case in ipairs(list) do
            out[#out + 1] = case
        end
    end
    return out
end

return M
