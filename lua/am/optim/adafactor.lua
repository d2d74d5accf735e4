-- Adafactor (Shazeer and Stern 2018): of matrices only the rows' and the columns' means of squared gradients are
-- kept. Two dialects: torch.optim.Adafactor's and transformers.Adafactor's names and numbers. The arithmetic is the
-- engine's (engine/train/adafactor.c).

local ffi = require("ffi")
local edge = require("am.core.ffi")
local err = require("am.core.error")
local family = require("am.optim.family")
local tensorwise = require("am.optim.tensorwise")

local C, check = edge.C, edge.check
local M = {}

local EPSILON = { float32 = 2 ^ -23, float64 = 2 ^ -52 }

local function states(shape, dtype)
    if #shape < 2 then
        return { { "variance", shape, dtype } }
    end
    local row, col = {}, {}
    for k, d in ipairs(shape) do
        row[k], col[k] = k == #shape and 1 or d, k == #shape - 1 and 1 or d
    end
    return { { "row_var", row, dtype }, { "col_var", col, dtype } }
end

-- How large a step is, before it is made relative to the weights.
local function rho(o, lr, t)
    if o.transformers then
        return o.relative_step and math.min(o.warmup_init and 1e-6 * t or 1e-2, 1 / math.sqrt(t)) or lr
    end
    return math.min(lr, 1 / math.sqrt(t))
end

local function rule(o)
    local config = ffi.new("am_adafactor_config")
    config.transformers, config.scale_parameter = o.transformers and 1 or 0, o.scale_parameter and 1 or 0
    config.beta2_decay, config.eps2, config.d = o.beta2_decay, o.eps2, o.d
    return {
        states = states,
        fused = function(weight, g, state, s)
            config.rho = rho(o, s.lr, s.t)
            config.eps1 = o.eps1 or EPSILON[g:dtype()]
            check(C.am_adafactor_update(weight, state.master, state.row_var, state.col_var, state.variance, g, config,
                                        s.t, s.lr, s.weight_decay, s.grad_scale))
        end,
    }
end

local function two(list, key)
    if list ~= nil and (type(list) ~= "table" or type(list[2]) ~= "number"
                        or (list[1] ~= nil and type(list[1]) ~= "number" and type(list[1]) ~= "table")) then
        err.raise("usage", "optimizer.%s must be two numbers, as in [1e-30, 1e-3]; the first may be null", key)
    end
    return list and type(list[1]) == "number" and list[1] or nil, list and list[2]
end

local function build(entries, opts)
    local eps1, eps2 = two(opts.eps, "eps")
    local o = {
        transformers = opts.transformers, relative_step = opts.relative_step, warmup_init = opts.warmup_init,
        scale_parameter = not opts.transformers or opts.scale_parameter,
        beta2_decay = opts.transformers and opts.decay_rate or opts.beta2_decay,
        d = opts.transformers and opts.clip_threshold or opts.d,
        eps1 = eps1 or opts.transformers and 1e-30 or nil, eps2 = eps2 or 1e-3,
    }
    return family.uniform("adafactor", entries, opts, function(params)
        return tensorwise.new(rule(o), params, opts)
    end)
end

local function state_bytes(_, shape, size)
    local n, last = 1, #shape
    for _, d in ipairs(shape) do
        n = n * d
    end
    if last >= 2 and n > 0 then
        n = n / shape[last] + n / shape[last - 1]
    end
    return (size == 8 and 8 or 4) * n
end

M.kinds = {
    adafactor = { defaults = { lr = 1e-2, weight_decay = 0, beta2_decay = -0.8, d = 1 }, build = build,
                  state_bytes = state_bytes },
    transformers_adafactor = {
        defaults = { transformers = true, lr = 1e-2, weight_decay = 0, decay_rate = -0.8, clip_threshold = 1,
                     scale_parameter = true, relative_step = true, warmup_init = false },
        build = build, state_bytes = state_bytes,
    },
}

-- ---- what a configuration may name -------------------------------------------------------------

local function check_relative(args)
    if args.beta1 then
        err.raise("usage", "optimizer.beta1: Adafactor has no first moment here; leave beta1 away")
    elseif args.relative_step and args.lr then
        err.raise("usage", "optimizer: lr and relative_step: true exclude each other; leave lr away, or set "
                  .. "relative_step: false")
    elseif args.warmup_init and not args.relative_step then
        err.raise("usage", "optimizer: warmup_init: true needs relative_step: true")
    elseif not args.relative_step and not args.lr then
        err.raise("usage", "optimizer: relative_step: false needs an lr")
    end
    return "transformers_adafactor"
end

M.targets = {
    family.target {
        name = "Adafactor", kind = "adafactor",
        aliases = { "torch.optim.Adafactor", "torch.optim._adafactor.Adafactor", "adafactor" },
        doc = "Adafactor as torch.optim has it", defaults = { lr = 1e-2, weight_decay = 0 },
        fields = {
            beta2_decay = { type = "number", default = -0.8, max = 0, doc = "t to it is the share of a new square" },
            eps = { type = "list", items = { type = "number", null = true },
                    doc = "least root of a second moment (null: the dtype's), least size of weights (1e-3)" },
            d = { type = "number", default = 1, min = 1, doc = "largest root mean square of a step" },
        },
    },
    family.target {
        name = "transformers.Adafactor", kind = "transformers_adafactor",
        aliases = { "transformers.Adafactor", "transformers.optimization.Adafactor" },
        doc = "Adafactor as transformers has it", defaults = { weight_decay = 0 }, translate = check_relative,
        fields = {
            lr = { type = "number", min = 0, doc = "learning rate, without relative_step" },
            eps = { type = "list", items = { type = "number", required = true }, default = { 1e-30, 1e-3 },
                    doc = "added to squared gradients, least size of weights" },
            clip_threshold = { type = "number", default = 1, above = 0, doc = "largest root mean square of a step" },
            decay_rate = { type = "number", default = -0.8, max = 0, doc = "t to it is the share of a new square" },
            beta1 = { type = "number", doc = "must be null: there is no first moment" },
            scale_parameter = { type = "boolean", default = true, doc = "steps are relative to the size of weights" },
            relative_step = { type = "boolean", default = true, doc = "1 / sqrt(t) in place of lr and its schedule" },
            warmup_init = { type = "boolean", default = false, doc = "and 1e-6 t to begin with" },
        },
    },
}

return M
