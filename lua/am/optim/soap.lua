-- SOAP (Vyas et al. 2024, "SOAP: Improving and Stabilizing Shampoo using Adam"): Adam in the eigenbases of
-- Shampoo's preconditioners, with the numbers of the authors' soap.py (github.com/nikhilvyas/SOAP). As there, the
-- first step only begins the preconditioners. Their first bases come of an eigendecomposition, later ones, every
-- precondition_frequency steps, of a power iteration and QR.

local elementwise = require("am.optim.elementwise")
local family = require("am.optim.family")
local linalg = require("am.core.linalg")
local modes = require("am.optim.modes")
local scope = require("am.core.scope")
local tensorwise = require("am.optim.tensorwise")

local M = {}

--- Neighbouring dims joined while their product is at most `limit`.
local function merged_shape(shape, limit)
    local out, current = {}, 1
    for _, d in ipairs(shape) do
        if current * d <= limit then
            current = current * d
        elseif current > 1 then
            out[#out + 1], current = current, d
        else
            out[#out + 1], current = d, 1
        end
    end
    if current > 1 or #out == 0 then
        out[#out + 1] = current
    end
    return out
end

-- The shape that is preconditioned, and along which of its dims.
local function plan(shape, o)
    local seen = o.merge_dims and #shape > 1 and merged_shape(shape, o.max_precond_dim) or shape
    return seen, modes.wanted(seen, o.max_precond_dim, #shape > 1 or o.precondition_1d)
end

local function states(o)
    return function(shape, dtype)
        local list = { { "exp_avg", shape, dtype }, { "exp_avg_sq", shape, dtype }, { "step", {}, "float64" } }
        local seen, wanted = plan(shape, o)
        for k, d in ipairs(seen) do
            if wanted[k] then
                list[#list + 1] = { "GG." .. k - 1, { d, d }, dtype }
                list[#list + 1] = { "Q." .. k - 1, { d, d }, dtype }
            end
        end
        return list
    end
end

-- Eigenvectors of the preconditioners as columns, the greatest eigenvalue's first.
local function first_bases(grams, bases)
    for k, gram in pairs(grams) do
        if gram then
            local _, vectors = linalg.eigh(gram)
            bases[k]:copy_(vectors:flip(1))
        end
    end
end

-- A power iteration from the bases that there are, in the order of the eigenvalues that they stand for; v, which
-- lies in them, is put into that order, too.
local function next_bases(grams, bases, v, seen)
    local sorted = v:reshape(seen)
    for k = 1, #seen do
        if grams[k] then
            local power = grams[k]:matmul(bases[k])
            local order = (bases[k] * power):sum(0):argsort(0, true)
            sorted = sorted:index_select(k - 1, order)
            bases[k]:copy_(linalg.qr(power:index_select(1, order)))
        end
    end
    v:copy_(sorted:reshape(v:size()))
end

-- Preconditioners take in the gradient.
local function gather(g, grams, seen, beta)
    modes.each_gram(g:reshape(seen), seen, grams, function(k, gram)
        grams[k]:copy_(grams[k] + (gram - grams[k]) * (1 - beta))
    end)
end

local function adam_step(w, g, state, bases, seen, step, o, s)
    local m, v = state.exp_avg, state.exp_avg_sq
    scope.scope(function()
        local rotated = modes.product(g:reshape(seen), seen, bases):reshape(g:size())
        m:copy_(m * o.beta1 + rotated * (1 - o.beta1))
        v:copy_(v * o.beta2 + rotated * rotated * (1 - o.beta2))
    end)
    local size = s.lr
    if o.correct_bias then
        size = size * math.sqrt(1 - o.beta2 ^ step) / (1 - o.beta1 ^ step)
    end
    local u = modes.product((m / (v:sqrt() + o.eps)):reshape(seen), seen, bases, true):reshape(g:size())
    if o.normalize_grads then
        u = u / ((u * u):mean():sqrt() + 1e-30)
    end
    w:copy_((w - u * size) * (1 - s.lr * s.weight_decay))
end

local function rule(o)
    return {
        states = states(o),
        update = function(w, g, state, s)
            local seen, wanted = plan(g:size(), o)
            local grams, bases = {}, {}
            for k in ipairs(seen) do
                grams[k] = wanted[k] and state["GG." .. k - 1]
                bases[k] = wanted[k] and state["Q." .. k - 1]
            end
            local step = state.step:item() -- 0: no bases yet; else steps and one
            state.step:copy_(step + 1)
            if step == 0 then
                gather(g, grams, seen, o.shampoo_beta)
                scope.scope(first_bases, grams, bases)
                return
            end
            scope.scope(adam_step, w, g, state, bases, seen, step, o, s)
            gather(g, grams, seen, o.shampoo_beta)
            if step % o.precondition_frequency == 0 then
                local m = modes.product(state.exp_avg:reshape(seen), seen, bases, true)
                next_bases(grams, bases, state.exp_avg_sq, seen)
                state.exp_avg:copy_(modes.product(m, seen, bases):reshape(g:size()))
            end
        end,
    }
end

local defaults = {
    lr = 3e-3, weight_decay = 0.01, shampoo_beta = -1, eps = 1e-8, precondition_frequency = 10,
    max_precond_dim = 10000, merge_dims = false, precondition_1d = false, normalize_grads = false, correct_bias = true,
}

M.kinds = {
    soap = {
        defaults = defaults,
        build = function(entries, opts)
            local beta1, beta2 = elementwise.betas(opts.betas, { 0.95, 0.95 })
            local o = family.merged(opts, { beta1 = beta1, beta2 = beta2 })
            o.shampoo_beta = opts.shampoo_beta >= 0 and opts.shampoo_beta or beta2
            return family.uniform("soap", entries, opts, function(params)
                return tensorwise.new(rule(o), params, opts)
            end)
        end,
        state_bytes = function(opts, shape, size)
            local n = 1
            for _, d in ipairs(shape) do
                n = n * d
            end
            local seen, wanted = plan(shape, family.with_defaults(opts, defaults))
            return (size == 8 and 8 or 4) * (2 * n + 2 * modes.matrices_numel(seen, wanted)) + 8
        end,
    },
}

M.targets = {
    family.target {
        name = "SOAP", kind = "soap", aliases = { "soap.SOAP", "pytorch_optimizer.SOAP", "heavyball.SOAP", "soap" },
        doc = "SOAP as its authors have it: Adam in the eigenbases of Shampoo's preconditioners",
        defaults = { lr = 3e-3, weight_decay = 0.01 },
        fields = {
            betas = family.betas_field(0.95, 0.95),
            shampoo_beta = { type = "number", default = -1, below = 1, doc = "of the preconditioners; -1: betas[1]" },
            eps = { type = "number", default = 1e-8, min = 0, doc = "added to the denominator" },
            precondition_frequency = { type = "integer", default = 10, min = 1, doc = "steps between new bases" },
            max_precond_dim = { type = "integer", default = 10000, min = 1, doc = "larger dims are left alone" },
            merge_dims = { type = "boolean", default = false, doc = "join dims up to max_precond_dim" },
            precondition_1d = { type = "boolean", default = false, doc = "vectors, too" },
            normalize_grads = { type = "boolean", default = false, doc = "steps of a mean square of 1" },
            correct_bias = { type = "boolean", default = true, doc = "divide moments by 1 - beta^t" },
            data_format = { type = "string", enum = { "channels_first" }, doc = "order of a convolution's dims" },
        },
    },
}

return M
