-- What the families of optimizers share: the keys that all have in a configuration, how a target is declared,
-- and optimizers whose groups all follow one of the engine's rules. Holds no family: those are the files beside it.
--
-- A family is a module with
--   kinds        what optim.new and checkpoints call its optimizers: { adamw = {…}, … }, each a table of
--     defaults     lr, weight_decay and what else opts may leave out
--     build(entries, opts)             an Optimizer over { name, tensor } pairs, from opts with defaults
--     state_bytes(opts, shape, size, name)  bytes of optimizer state for a parameter with weights of `size` bytes,
--                                      without its f32 master (shape: array of sizes; opts without defaults)
--   targets      what a configuration may name, by M.target

local elementwise = require("am.optim.elementwise")
local groups = require("am.optim.groups")
local log = require("am.utils.log").get("am.optim")
local optimizer = require("am.optim.optimizer")

local M = {}

--- The keys that every optimizer has.
M.common_fields = {
    lr = { type = "number", default = 1e-3, min = 0, doc = "learning rate" },
    weight_decay = { type = "number", min = 0, doc = "decay of weights" },
    master_weights = { type = "boolean", default = true, doc = "f32 copies of 16-bit weights" },
    fuse_backward = { type = "boolean", default = false,
                      doc = "update each weight inside backward, so that not all gradients exist at once" },
    maximize = { type = "boolean", default = false, doc = "go up the gradient instead of down" },
    param_group_overrides = groups.field,
    foreach = { type = "boolean", no_effect = "updates are always fused" },
    fused = { type = "boolean", no_effect = "updates are always fused" },
    capturable = { type = "boolean", no_effect = "updates are no part of a CUDA graph" },
    differentiable = { type = "boolean", enum = { false }, doc = "not there" },
}

--- A key that says how the moments are kept.
M.state_dtype_field = { type = "string", doc = "of the moments: float32 (default), bfloat16 or int8" }

--- A key with two numbers.
function M.betas_field(a, b)
    return { type = "list", items = { type = "number", required = true }, default = { a, b },
             doc = "decay of the moments" }
end

--- A new table with the keys of several; later ones win.
function M.merged(...)
    local out = {}
    for _, set in ipairs { ... } do
        for k, v in pairs(set) do
            out[k] = v
        end
    end
    return out
end

--- opts with a kind's defaults.
function M.with_defaults(opts, defaults)
    return M.merged(defaults, opts)
end

--- Groups of entries by opts.param_group_overrides; says which patterns match nothing.
function M.split(entries, opts)
    local list, unused = groups.split(entries, opts, opts.param_group_overrides)
    for _, pattern in ipairs(unused) do
        log:warning("optimizer.param_group_overrides: no parameter's name has %q in it, so this group is left out",
                    pattern)
    end
    return list
end

--- An Optimizer of `kind` whose groups all follow rule(params).
function M.uniform(kind, entries, opts, rule)
    local list = M.split(entries, opts)
    for _, group in ipairs(list) do
        group.rule = rule
    end
    return optimizer.new(kind, list, opts)
end

--- A kind that is one of the engine's: its updates see one element at a time.
---@param moments fun(opts): integer number of moments
function M.elementwise_kind(kind, defaults, moments)
    return {
        defaults = defaults,
        build = function(entries, opts)
            return M.uniform(kind, entries, opts, function(params)
                return elementwise.new(kind, params, opts)
            end)
        end,
        state_bytes = function(opts, shape, size)
            local n = 1
            for _, d in ipairs(shape) do
                n = n * d
            end
            return moments(opts) * M.moment_bytes(opts, n, size)
        end,
    }
end

--- Bytes of a moment of n elements beside weights of `size` bytes.
function M.moment_bytes(opts, n, size)
    if size == 8 then
        return 8 * n
    elseif opts.state_dtype == "int8" then -- codes, and an f32 for each block of 256
        return n + 4 * math.ceil(n / 256)
    end
    return (opts.state_dtype == "bfloat16" or opts.state_dtype == "bf16") and 2 * n or 4 * n
end

--- A target of the recipes' registry. spec: name (below am.optim), aliases, doc, kind, fields (beside the common
--- ones), defaults (of the fields), translate(args) (which may change args and returns the kind).
function M.target(spec)
    local fields = {}
    for key, field in pairs(M.merged(M.common_fields, spec.fields or {})) do
        local default = spec.defaults and spec.defaults[key]
        fields[key] = default ~= nil and M.merged(field, { default = default }) or field
    end
    return {
        name = "am.optim." .. spec.name, aliases = spec.aliases, doc = spec.doc, fields = fields, kind = spec.kind,
        translate = spec.translate,
        build = function(args, ctx)
            local kind = spec.translate and spec.translate(args) or spec.kind
            return require("am.optim").new(kind, ctx.named_parameters, args, ctx.trained_elsewhere)
        end,
    }
end

--- "nemo_automodel.components.optim.NAME" in the places that it had.
function M.nemo(name)
    return "nemo_automodel.components.optim." .. name, "nemo_automodel.components.optim.optimizer." .. name
end

return M
