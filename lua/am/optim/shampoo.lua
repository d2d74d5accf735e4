-- Shampoo (Gupta et al. 2018): gradients multiplied along each dim by an inverse root of what was gathered along
-- it. The numbers are those of the package pytorch_optimizer 4.1 (its class Shampoo, the plain form of the paper,
-- exponent -1 / (2 dims)). Beyond it, dims of more than max_precond_dim elements are left alone, without which a
-- vocabulary would need a matrix of its square.

local constructors = require("am.core.constructors")
local family = require("am.optim.family")
local linalg = require("am.core.linalg")
local modes = require("am.optim.modes")
local ops = require("am.core.ops")
local tensorwise = require("am.optim.tensorwise")

local M = {}

-- a ^ (-1 / root) of a symmetric matrix whose eigenvalues are at least eps.
local function inverse_root(a, root, eps)
    local values, vectors = linalg.eigh(a)
    local powers = values:clamp(math.max(eps, 1e-30)):pow(-1 / root)
    return ops.linear(vectors * powers, vectors)
end

local function rule(o)
    local function wanted(shape) return modes.wanted(shape, o.max_precond_dim, true) end
    local function diagonal(t)
        t:copy_(constructors.eye(t:size(0), { dtype = t:dtype(), device = t:device() }) * o.matrix_eps)
    end
    return {
        states = function(shape, dtype)
            local list = { o.momentum > 0 and { "momentum_buffer", shape, dtype } or nil }
            for k, is in ipairs(wanted(shape)) do
                if is then
                    list[#list + 1] = { "pre_cond_" .. k - 1, { shape[k], shape[k] }, dtype, diagonal }
                    list[#list + 1] = { "inv_pre_cond_" .. k - 1, { shape[k], shape[k] }, dtype }
                end
            end
            return list
        end,
        update = function(w, g, state, s)
            local shape = g:size()
            local stats, inverses = wanted(shape), {}
            for k, is in ipairs(stats) do
                stats[k], inverses[k] = is and state["pre_cond_" .. k - 1], is and state["inv_pre_cond_" .. k - 1]
            end
            if o.momentum > 0 and s.t > 1 then
                g = g + (state.momentum_buffer - g) * o.momentum
            end
            local decay = s.weight_decay * (o.fixed_decay and 1 or s.lr)
            if o.weight_decouple then
                w:copy_(w * (1 - decay))
            elseif s.weight_decay > 0 then
                g = g + w * s.weight_decay
            end
            modes.each_gram(g, shape, stats, function(k, gram)
                stats[k]:copy_(stats[k] + gram)
                if s.t % o.preconditioning_compute_steps == 0 then
                    inverses[k]:copy_(inverse_root(stats[k], 2 * #shape, o.matrix_eps))
                end
            end)
            local step = modes.product(g, shape, inverses)
            if o.momentum > 0 then
                state.momentum_buffer:copy_(step)
            end
            w:copy_(w - step * s.lr)
        end,
    }
end

local defaults = { lr = 1e-3, weight_decay = 0, momentum = 0, weight_decouple = false, fixed_decay = false,
                   preconditioning_compute_steps = 1, matrix_eps = 1e-6, max_precond_dim = 8192 }

M.kinds = {
    shampoo = {
        defaults = defaults,
        build = function(entries, opts)
            return family.uniform("shampoo", entries, opts, function(params)
                return tensorwise.new(rule(opts), params, opts)
            end)
        end,
        state_bytes = function(opts, shape, size)
            local o, n = family.with_defaults(opts, defaults), 1
            for _, d in ipairs(shape) do
                n = n * d
            end
            local matrices = modes.matrices_numel(shape, modes.wanted(shape, o.max_precond_dim, true))
            return (size == 8 and 8 or 4) * ((o.momentum > 0 and n or 0) + 2 * matrices)
        end,
    },
}

M.targets = {
    family.target {
        name = "Shampoo", kind = "shampoo",
        aliases = { "pytorch_optimizer.Shampoo", "pytorch_optimizer.optimizer.shampoo.Shampoo",
                    "torch_optimizer.Shampoo", "shampoo" },
        doc = "Shampoo as pytorch_optimizer has it", defaults = { lr = 1e-3, weight_decay = 0 },
        fields = {
            momentum = { type = "number", default = 0, min = 0, below = 1, doc = "share of the step before" },
            weight_decouple = { type = "boolean", default = false, doc = "decay weights beside the step, as AdamW" },
            fixed_decay = { type = "boolean", default = false, doc = "and not times lr" },
            preconditioning_compute_steps = { type = "integer", default = 1, min = 1,
                                              doc = "steps between new roots; the first ones of them do nothing" },
            matrix_eps = { type = "number", default = 1e-6, above = 0, doc = "first diagonal of the preconditioners" },
            max_precond_dim = { type = "integer", default = 8192, min = 1, doc = "larger dims are left alone" },
        },
    },
}

return M
