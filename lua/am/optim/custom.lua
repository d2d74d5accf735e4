-- Optimizers of the user's own: everything but the update rule, which examples/custom/optimizer.lua writes.
-- Holds no rule.

local err = require("am.core.error")
local family = require("am.optim.family")
local optimizer = require("am.optim.optimizer")
local tensorwise = require("am.optim.tensorwise")

local M = {}

-- The rule that rule(opts) returns, once it is one.
local function checked(kind, rule)
    if type(rule) ~= "table" or type(rule.update) ~= "function" then
        err.raise("usage", "optimizer %s: its rule must be a table with a function update(w, g, state, s)", kind)
    end
    local function states(shape, dtype)
        local list = rule.states and rule.states(shape, dtype) or {}
        for i, state in ipairs(list) do
            if type(state) ~= "table" or type(state[1]) ~= "string" or state[1] == "master"
                or type(state[2]) ~= "table" or type(state[3]) ~= "string" then
                err.raise("usage", "optimizer %s: states(shape, dtype) must return a list of { name, shape, dtype }, "
                          .. "and number %d is none (the name \"master\" is taken)", kind, i)
            end
        end
        return list
    end
    return { states = states, update = rule.update }
end

--- What a file that a configuration names with file.lua:NAME returns under NAME. Groups, clipping, f32 masters,
--- updates inside backward, checkpoints and the keys of family.common_fields (lr, weight_decay, …) come along.
---@param kind string what a checkpoint calls the optimizer
---@param fields table further keys of the section, or other defaults of the common ones
---@param rule fun(opts: table): table the keys' values -> { states?, update } as tensorwise.lua describes them;
---  called once for each parameter group
---@return {fields: table, build: fun(args: table, ctx: table): am.Optimizer}
function M.custom(kind, fields, rule)
    local all = family.merged(family.common_fields, fields)
    if all.weight_decay.default == nil then
        all.weight_decay = family.merged(all.weight_decay, { default = 0 })
    end
    local defaults = {}
    for key, field in pairs(all) do
        defaults[key] = field.default
    end
    return {
        fields = all,
        build = function(args, ctx)
            local opts = family.with_defaults(args, defaults)
            local entries = optimizer.trainable(ctx.named_parameters, ctx.trained_elsewhere)
            return family.uniform(kind, entries, opts, function(params)
                return tensorwise.new(checked(kind, rule(opts)), params, opts)
            end)
        end,
    }
end

return M
