-- Optimizers by name, and what a configuration may name. The families are in the files beside this one, what they
-- share in family.lua and optimizer.lua, schedules in scheduler.lua. Holds no update rule.

local custom = require("am.optim.custom")
local err = require("am.core.error")
local family = require("am.optim.family")
local optimizer = require("am.optim.optimizer")

local M = {}

local kinds, by_name = {}, {}
--- Targets for the recipe's registry; ctx.named_parameters is the model's iterator.
M.targets = {}
for _, name in ipairs { "adam", "sgd", "lion", "adafactor", "muon", "soap", "shampoo" } do
    local module = require("am.optim." .. name)
    for kind, entry in pairs(module.kinds) do
        kinds[kind] = entry
    end
    for _, target in ipairs(module.targets) do
        M.targets[#M.targets + 1] = target
        by_name[target.name] = target
        for _, alias in ipairs(target.aliases) do
            by_name[alias] = target
        end
    end
end

--- An optimizer for the trainable parameters of an iterator such as model:named_parameters(): see optimizer.lua.
---@param kind string "adam", "adamw", "sgd", "lion", …
---@param named_parameters function iterator of (name, tensor)
---@param opts table what the target of that kind has as fields, without which its defaults count
---@param elsewhere table[]? { name, tensor } of what other ranks train
function M.new(kind, named_parameters, opts, elsewhere)
    local entry = kinds[kind] or err.raise("usage", "there is no optimizer \"%s\"", tostring(kind))
    return entry.build(optimizer.trainable(named_parameters, elsewhere), family.with_defaults(opts, entry.defaults))
end

--- An optimizer of one's own, of which only the update rule is written: see custom.lua.
M.custom = custom.custom

--- Bytes of optimizer state, f32 master included, of a parameter of `shape` with weights of `size` bytes.
--- opts: an optimizer section's keys, with `_target_`; or those of M.new, with `kind`. An optimizer of the user's own
--- is taken for one with two moments.
function M.state_bytes(opts, name, shape, size)
    local target, kind, args = by_name[opts._target_ or ""], opts.kind, opts
    if target then
        args = {}
        for key, field in pairs(target.fields) do
            args[key] = field.default
        end
        args = family.merged(args, opts)
        local fine, translated = pcall(target.translate or function() end, args) -- what is wrong, building says
        kind = fine and translated or target.kind
    end
    local n = 1
    for _, d in ipairs(shape) do
        n = n * d
    end
    local master = size == 2 and args.master_weights ~= false and 4 * n or 0
    return master + (kinds[kind] or kinds.adamw).state_bytes(args, shape, size, name)
end

return M
