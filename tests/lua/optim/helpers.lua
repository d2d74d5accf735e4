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

return M
