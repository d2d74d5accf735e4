-- What the parts of a training configuration say of their own arguments, asked before anything is loaded: the
-- optimizer is built over one small tensor, the schedule for it, and both are dropped again. What only the model or
-- the data can tell is said when these are there; contradictions between keys are cross_fields.lua's.

local am = require("am")
local config = require("am.config")
local err = require("am.core.error")
local groups = require("am.optim.groups")
local qlora = require("am.quantization.qlora")
local schedule = require("am.optim.scheduler")
local signals = require("am.training.signals")
local tensor = require("am.core.tensor")
local trackers = require("am.recipes.trackers")

local M = {}

local ANY_LENGTH = 2 ^ 31 -- of a run whose steps are not known yet

-- fn(...), whose errors tell the section's place.
local function within(cfg, section, fn, ...)
    local result = { pcall(fn, ...) }
    if not result[1] then
        error(err.within(result[2], section .. ", " .. cfg:where(section)), 0)
    end
    return unpack(result, 2)
end

-- Is a target code of the user's own? That is run once, with the run's own model.
local function is_own(section)
    local target = section:get("_target_")
    return type(target) == "string" and target:find(":", 1, true) ~= nil
end

-- An optimizer as configured, over a matrix of four numbers. Patterns of groups are only read: none would match.
local function small_optimizer(cfg, ctx)
    local section = cfg:child("optimizer"):copy()
    section.parent, section.key = cfg, "optimizer" -- its place, for errors
    for i, group in ipairs(section:to_table().param_group_overrides or {}) do
        groups.searcher(group.pattern, ("optimizer.param_group_overrides[%d].pattern"):format(i))
    end
    section:unset("param_group_overrides")
    local weight = am.zeros({ 2, 2 })
    weight.requires_grad = true
    local given = false
    local small = setmetatable({ named_parameters = function()
        if not given then
            given = true
            return "weight", weight
        end
    end }, { __index = ctx })
    return config.instantiate(section, small)
end

local function rehearse_schedule(cfg, ctx, optimizer)
    local section = cfg:child("lr_scheduler")
    if section and is_own(section) then
        return
    end
    local options = section
        and config.instantiate(section, ctx, {}, { default_target = "am.optim.OptimizerParamScheduler" })
    local group, steps = optimizer.param_groups[1], cfg:get("step_scheduler.max_steps")
    schedule.from_config(options, { lr = group.lr, weight_decay = group.weight_decay, optimizer = optimizer,
                                    total_steps = type(steps) == "number" and steps or ANY_LENGTH })
end

--- Raise what would stop a run of a recipe's valid configuration when it builds its optimizer, schedule, trackers
--- or handlers of signals.
function M.run(recipe)
    local cfg, ctx = recipe.cfg, recipe.ctx
    local device = cfg:get("device")
    local known, why = pcall(tensor.device_id, device or "cpu")
    if not known then -- a mistake of the configuration, whatever the engine calls it
        err.raise("usage", "%s: device: %s", cfg:where("device"), tostring(why))
    end
    if cfg:has("step_scheduler.preemption_signal") then
        within(cfg, "step_scheduler.preemption_signal", signals.check, cfg:get("step_scheduler.preemption_signal"))
    end
    if cfg:has("quantization") then
        within(cfg, "quantization", qlora.new, cfg:child("quantization"):to_table())
    end
    trackers.new(cfg)
    if recipe.trains and cfg:has("optimizer") and not is_own(cfg:child("optimizer")) then
        am.scope(function()
            local optimizer = small_optimizer(cfg, ctx)
            local ok, e = pcall(within, cfg, "lr_scheduler", rehearse_schedule, cfg, ctx, optimizer)
            optimizer:close()
            if not ok then
                error(e, 0)
            end
        end)
    end
end

return M
