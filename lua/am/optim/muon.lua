-- Muon (Jordan et al. 2024): matrices, each of a stack of experts', move along their momentum made orthogonal by
-- Newton-Schulz iterations; embeddings, the head, norms and biases follow AdamW or Lion beside it. And NorMuon
-- (Li et al. 2025), which evens out the rows of that step.
-- Two dialects: torch.optim.Muon's names and numbers, and those of the package dion, which NeMo Automodel uses.
-- They differ in the polynomials, in what the momentum is scaled by and in how lr is adjusted.

local elementwise = require("am.optim.elementwise")
local err = require("am.core.error")
local family = require("am.optim.family")
local groups = require("am.optim.groups")
local log = require("am.utils.log").get("am.optim")
local ops = require("am.core.ops")
local optimizer = require("am.optim.optimizer")
local scope = require("am.core.scope")
local tensorwise = require("am.optim.tensorwise")

local M = {}

-- ---- the update --------------------------------------------------------------------------------

-- (a, b, c) of each step's polynomial a x + b x^3 + c x^5 in dion's zeropower_via_newtonschulz5.
local DION_STEPS = { { 4.0848, -6.8946, 2.9270 }, { 3.9505, -6.3029, 2.6377 }, { 3.7418, -5.5913, 2.3037 },
                     { 2.8769, -3.1427, 1.2046 }, { 2.8366, -3.0525, 1.2012 } }

-- What lr is multiplied by for a matrix of `rows` x `cols`.
local adjustments = {
    original = function(rows, cols) return math.sqrt(math.max(1, rows / cols)) end,
    match_rms_adamw = function(rows, cols) return 0.2 * math.sqrt(math.max(rows, cols)) end,
    spectral_unclamped = function(rows, cols) return math.sqrt(rows / cols) end,
    none = function() return 1 end,
}
adjustments.rms_norm, adjustments.spectral_norm = adjustments.match_rms_adamw, adjustments.spectral_unclamped

local function iterate(x, s)
    local gram = ops.linear(x, x)
    return x * s[1] + (gram * s[2] + ops.linear(gram, gram) * s[3]):matmul(x)
end

--- About U V^T of u = U S V^T (the singular values end within some 0.7 and 1.2), by the polynomials `steps`.
--- u [m, n] float32 or float64; computed in `dtype`. The norm is at least eps, or eps is added to it with `add`.
function M.newton_schulz(u, steps, eps, add, dtype)
    local rows, cols = u:size(0), u:size(1)
    local x = scope.scope(function()
        local norm = (u * u):sum():sqrt()
        local small = (u / (add and norm + eps or norm:clamp(eps))):to(dtype)
        return rows > cols and small:t():contiguous() or small
    end)
    for _, s in ipairs(steps) do
        local last = x
        x = scope.scope(iterate, last, s)
        last:release() -- each is as large as the matrix
    end
    return (rows > cols and x:t() or x):to(u:dtype())
end

-- NorMuon: rows divided by the root of a running mean of their squares, the whole brought back to its norm.
local function even_rows(u, v, beta2)
    v:copy_(v * beta2 + (u * u):mean(1, true) * (1 - beta2))
    local even = u / (v:sqrt() + 1e-8)
    local norm, now = (u * u):sum():sqrt(), (even * even):sum():sqrt():clamp(1e-8)
    return even * (norm / now)
end

-- use(matrix, …) of a matrix, or of each in a stack of them [n, rows, cols], with the same parts of the others.
local function each_matrix(use, matrix, ...)
    if matrix:dim() == 2 then
        return use(matrix, ...)
    end
    local all = { matrix, ... }
    for i = 0, matrix:size(0) - 1 do
        local parts = {}
        for k, t in ipairs(all) do
            parts[k] = t:select(0, i)
        end
        use(unpack(parts))
    end
end

-- o: momentum, nesterov, dampened (the momentum is an average, not a sum), steps, eps, add_eps, adjust, beta2 (of
-- NorMuon), state_dtype, ns_dtype
local function rule(o)
    local fresh = o.dampened and 1 - o.momentum or 1
    return {
        states = function(shape, dtype)
            local list = { { "momentum_buffer", shape, dtype == "float32" and o.state_dtype or dtype } }
            local rows = #shape == 3 and { shape[1], shape[2], 1 } or { shape[1], 1 }
            list[2] = o.beta2 and { "variance_neuron", rows, dtype } or nil
            return list
        end,
        update = function(w, g, state, s)
            local u = scope.scope(function()
                local buffer = state.momentum_buffer
                local m = buffer:to(g:dtype()) * o.momentum + g * fresh
                buffer:copy_(m)
                return o.nesterov and m * o.momentum + g * fresh or m
            end)
            each_matrix(function(step, weight, variance)
                local even = scope.scope(M.newton_schulz, step, o.steps, o.eps, o.add_eps,
                                         g:dtype() == "float64" and "float64" or o.ns_dtype)
                if o.beta2 then
                    even = scope.scope(even_rows, even, variance, o.beta2)
                end
                local lr = s.lr * o.adjust(weight:size(0), weight:size(1))
                weight:copy_(weight * (1 - s.lr * s.weight_decay) - even * lr)
            end, u, w, state.variance_neuron)
        end,
    }
end

-- ---- which parameters --------------------------------------------------------------------------

local function is_embedding(name)
    local module = name:match("([^.]+)%.weight$") or ""
    return module:find("embed", 1, true) ~= nil or module == "wte" or module == "wpe"
end

-- "matrix", "embed", "lm_head" or "vector", as NeMo Automodel sorts them. A stack of experts' matrices is as they are.
local function place_of(name, shape)
    local head = name:find("lm_head", 1, true) or name:find("embed_out", 1, true) -- GPT-NeoX's name of it
    return head and "lm_head" or is_embedding(name) and "embed"
        or #shape >= 2 and not name:find("bias$") and "matrix" or "vector"
end

local function ratio(x, base)
    return base ~= 0 and x / base or 1
end

-- Learning rate and decay of the four places.
local function bases(entries, opts)
    local scalar = opts.scalar_lr or opts.lr
    local head_lr = opts.lm_head_lr
    for _, entry in ipairs(entries) do
        if not head_lr and place_of(entry[1], entry[2]:size()) == "lm_head" then
            local shape = entry[2]:size()
            head_lr = opts.lr / math.sqrt(#shape >= 2 and shape[#shape] or math.max(1, entry[2]:numel()))
        end
    end
    return {
        { place = "matrix", lr = opts.lr, weight_decay = opts.weight_decay },
        { place = "vector", lr = scalar, weight_decay = opts.weight_decay },
        { place = "embed", lr = opts.embed_lr or scalar, weight_decay = 0 },
        { place = "lm_head", lr = head_lr or opts.lr, weight_decay = 0 },
    }
end

-- Groups of each place, split by param_group_overrides; the first is the matrices without an override.
local function split(entries, opts)
    local list, used = {}, {}
    for _, base in ipairs(bases(entries, opts)) do
        local own = {}
        for _, entry in ipairs(entries) do
            if place_of(entry[1], entry[2]:size()) == base.place then
                own[#own + 1] = entry
            end
        end
        local unused = {}
        local found, missed = groups.split(own, base, opts.param_group_overrides)
        for _, pattern in ipairs(missed) do
            unused[pattern] = true
        end
        for _, override in ipairs(opts.param_group_overrides or {}) do
            used[override.pattern] = used[override.pattern] or not unused[override.pattern]
        end
        for _, group in ipairs(found) do
            if #group.entries > 0 or #list == 0 then
                group.place = base.place
                group.lr_mult = group.lr_mult * ratio(base.lr, opts.lr)
                group.wd_mult = base.weight_decay == 0 and 0 or group.wd_mult
                list[#list + 1] = group
            end
        end
    end
    for pattern, found in pairs(used) do
        if not found then
            log:warning("optimizer.param_group_overrides: no parameter's name has %q in it, so this group is left out",
                        pattern)
        end
    end
    return list
end

local function matrix_options(kind, o)
    local steps = o.dion and DION_STEPS or {}
    if not o.dion then
        local c = o.ns_coefficients
        if type(c) ~= "table" or #c ~= 3 then
            err.raise("usage", "optimizer.ns_coefficients must be three numbers, as in [3.4445, -4.775, 2.0315]")
        end
        for i = 1, o.ns_steps do
            steps[i] = c
        end
    end
    local adjust = o.dion and o.adjust_lr or o.adjust_lr_fn or "original"
    if o.state_dtype == "int8" then
        err.raise("usage", "optimizer.state_dtype: Muon keeps its momentum in float32 or bfloat16, not in int8")
    end
    elementwise.state_dtype(o.state_dtype) -- which refuses what is none
    return {
        momentum = o.dion and o.mu or o.momentum, nesterov = o.nesterov, dampened = not o.dion, steps = steps,
        eps = o.dion and o.epsilon or o.eps, add_eps = o.dion, beta2 = kind == "normuon" and o.muon_beta2 or nil,
        adjust = adjustments[adjust] or err.raise("usage", "optimizer: lr can't be adjusted by %q", tostring(adjust)),
        state_dtype = o.state_dtype or "float32", ns_dtype = o.ns_dtype,
    }
end

local function build(kind)
    return function(entries, opts)
        local list = split(entries, opts)
        local matrix = rule(matrix_options(kind, opts))
        for _, group in ipairs(list) do
            group.rule = group.place == "matrix" and function(params)
                return tensorwise.new(matrix, params, opts)
            end or function(params)
                return elementwise.new(opts.scalar_opt, params, {
                    betas = opts.scalar_betas, eps = opts.scalar_eps, maximize = opts.maximize,
                    master_weights = opts.master_weights, state_dtype = opts.state_dtype,
                })
            end
        end
        return optimizer.new(kind, list, opts)
    end
end

local function state_bytes(opts, shape, size, name)
    local n = 1
    for _, d in ipairs(shape) do
        n = n * d
    end
    local moments = (place_of(name or "", shape) == "matrix" or opts.scalar_opt == "lion") and 1 or 2
    return moments * family.moment_bytes(opts, n, size)
end

local companion_defaults = { scalar_opt = "adamw", scalar_betas = { 0.9, 0.999 }, scalar_eps = 1e-8,
                             ns_dtype = "bfloat16" }
local torch_defaults = family.merged(companion_defaults, {
    lr = 1e-3, weight_decay = 0.1, momentum = 0.95, nesterov = true, ns_coefficients = { 3.4445, -4.7750, 2.0315 },
    eps = 1e-7, ns_steps = 5,
})
local dion_defaults = family.merged(companion_defaults, {
    dion = true, lr = 5e-4, weight_decay = 0, mu = 0.95, muon_beta2 = 0.95, epsilon = 1e-8, nesterov = false,
    adjust_lr = "spectral_norm",
})

M.kinds = {
    muon = { defaults = torch_defaults, build = build("muon"), state_bytes = state_bytes },
    dion_muon = { defaults = dion_defaults, build = build("muon"), state_bytes = state_bytes },
    normuon = { defaults = dion_defaults, build = build("normuon"), state_bytes = state_bytes },
}

-- ---- what a configuration may name -------------------------------------------------------------

local companions = {
    scalar_opt = { type = "string", default = "adamw", enum = { "adamw", "lion" },
                   doc = "for what is no matrix, embeddings and the head" },
    scalar_betas = { type = "list", items = { type = "number", required = true }, default = { 0.9, 0.999 },
                     doc = "its betas" },
    scalar_eps = { type = "number", default = 1e-8, min = 0, doc = "its eps" },
    scalar_lr = { type = "number", min = 0, doc = "its learning rate (lr)" },
    embed_lr = { type = "number", min = 0, doc = "of embeddings (scalar_lr); they don't decay" },
    lm_head_lr = { type = "number", min = 0, doc = "of the head (lr / sqrt(columns)); it doesn't decay" },
    state_dtype = { type = "string", enum = { "float32", "bfloat16" }, doc = "of the moments (float32)" },
    ns_dtype = { type = "string", default = "bfloat16", enum = { "bfloat16", "float32" },
                 doc = "in which matrices are made orthogonal" },
}

local torch_fields = family.merged(companions, {
    momentum = { type = "number", default = 0.95, min = 0, doc = "momentum" },
    nesterov = { type = "boolean", default = true, doc = "Nesterov momentum" },
    ns_coefficients = { type = "list", items = { type = "number", required = true },
                        default = torch_defaults.ns_coefficients, doc = "of the polynomial a x + b x^3 + c x^5" },
    eps = { type = "number", default = 1e-7, min = 0, doc = "least norm of a momentum" },
    ns_steps = { type = "integer", default = 5, min = 1, max = 99, doc = "iterations" },
    adjust_lr_fn = { type = "string", enum = { "original", "match_rms_adamw", "spectral_unclamped" },
                     doc = "how a matrix's shape changes lr (original)" },
})

local dion_fields = family.merged(companions, {
    mu = { type = "number", default = 0.95, min = 0, doc = "momentum" },
    betas = { type = "list", items = "number", no_effect = "scalar_betas says it" },
    epsilon = { type = "number", default = 1e-8, min = 0, doc = "added to a momentum's norm" },
    adjust_lr = { type = "string", default = "spectral_norm", null = true, enum = { "spectral_norm", "rms_norm" },
                  doc = "how a matrix's shape changes lr; null: not at all" },
    nesterov = { type = "boolean", default = false, doc = "Nesterov momentum" },
    flatten = { type = "boolean", no_effect = "only matrices follow Muon" },
    use_triton = { type = "boolean", no_effect = "there is one implementation" },
    no_compile = { type = "boolean", no_effect = "nothing is compiled" },
})
local normuon_fields = family.merged(dion_fields, {
    muon_beta2 = { type = "number", default = 0.95, min = 0, below = 1, doc = "of the running mean of rows' squares" },
})

local function dion_names(short, class)
    local a, b = family.nemo(class .. "Config")
    return { "dion." .. class, "dion." .. short .. "." .. class, short, a, b }
end

-- A target that is known and not there.
local function missing(class)
    return {
        name = "am.optim." .. class, aliases = dion_names(class:lower(), class), doc = class .. ": not there",
        fields = {}, open = true, kind = "muon",
        build = function()
            err.raise("unsupported", "the optimizer %s is not there; am.optim.Muon and dion.NorMuon are", class)
        end,
    }
end

-- A null is a choice, not a default.
local function translate_dion(kind)
    return function(args)
        args.adjust_lr = args.adjust_lr or "none"
        return kind
    end
end

local dion_lr = { lr = 5e-4, weight_decay = 0 }
M.targets = {
    family.target { name = "Muon", kind = "muon", aliases = { "torch.optim.Muon", "torch.optim._muon.Muon" },
                    doc = "Muon as torch.optim has it, AdamW for what is no hidden matrix", fields = torch_fields,
                    defaults = { lr = 1e-3, weight_decay = 0.1 } },
    family.target { name = "MuonConfig", kind = "dion_muon", aliases = dion_names("muon", "Muon"),
                    doc = "Muon as the package dion has it, with NeMo Automodel's defaults", fields = dion_fields,
                    defaults = dion_lr, translate = translate_dion("dion_muon") },
    family.target { name = "NorMuon", kind = "normuon", aliases = dion_names("normuon", "NorMuon"),
                    doc = "NorMuon as the package dion has it, with NeMo Automodel's defaults",
                    fields = normuon_fields, defaults = dion_lr, translate = translate_dion("normuon") },
    missing("Dion"), missing("Dion2"),
}

return M
