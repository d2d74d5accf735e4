-- Learning rate and weight decay as functions of the step: warmup, constant, linear, cosine,
-- inverse square root, WSD (warmup, stable, decay), and ramps of weight decay.
-- Holds no optimizer: it writes lr and weight_decay into the param_groups of the one handed in.
--
--   local s = scheduler.from_config(cfg.lr_scheduler, { lr = 1e-4, weight_decay = 0.01,
--                                                       total_steps = 1000, optimizer = optimizer })
--   optimizer:step(); s:step(1)       -- update k uses f(k); what a recipe logs after it is f(k + 1)
--
-- Resume. The state holds every field of the schedule. Loading it into a schedule that differs is
-- refused, since the run would not be the one that was begun, except that
--   * fields that nobody wrote down but were derived from the run's length (lr_decay_steps,
--     lr_warmup_steps, wd_incr_steps, and init_lr and min_lr from lr) take the checkpoint's values:
--     a run that goes on because max_steps or num_epochs was raised keeps the curve it was begun
--     with, and stays at min_lr after its end;
--   * use_checkpoint_opt_param_scheduler: true takes every value from the checkpoint;
--   * override_opt_param_scheduler: true takes every value from the configuration.
-- Fields without effect (lr_decay_steps of a constant schedule, …) are not compared.

local err = require("am.core.error")
local number = require("am.utils.number")

local M = {}

--- What the `lr_scheduler` section of a configuration may hold.
M.fields = {
    lr_decay_style = { type = "string", enum = { "cosine", "linear", "constant", "inverse-square-root", "WSD" },
                       doc = "the curve of lr (cosine)" },
    lr_warmup_steps = { type = "integer", min = 0, doc = "min(1000, a tenth of the run)" },
    lr_decay_steps = { type = "integer", min = 1, doc = "step after which lr is min_lr (the run's length)" },
    init_lr = { type = "number", min = 0, doc = "where the warmup starts (a tenth of lr)" },
    max_lr = { type = "number", min = 0, doc = "where the warmup ends (lr)" },
    min_lr = { type = "number", min = 0, doc = "where the decay ends (a hundredth of lr)" },
    wsd_decay_steps = { type = "integer", min = 1, doc = "length of WSD's decay" },
    lr_wsd_decay_style = { type = "string", enum = { "linear", "cosine", "exponential", "minus_sqrt" },
                           doc = "the curve of WSD's decay" },
    start_wd = { type = "number", min = 0, doc = "first weight decay (the optimizer's)" },
    end_wd = { type = "number", min = 0, doc = "last weight decay (the optimizer's)" },
    wd_incr_steps = { type = "integer", min = 0, doc = "length of the ramp (the run's length)" },
    wd_incr_style = { type = "string", enum = { "constant", "linear", "cosine" }, doc = "the ramp (constant)" },
    use_checkpoint_opt_param_scheduler = { type = "boolean", doc = "resume with the checkpoint's schedule" },
    override_opt_param_scheduler = { type = "boolean", doc = "resume with this configuration's schedule" },
}

local decay_styles = {
    constant = true, linear = true, cosine = true, ["inverse-square-root"] = true, WSD = true,
}
local wsd_coefficients = {
    linear = function(r) return 1 - r end,
    cosine = function(r) return 0.5 * (math.cos(math.pi * r) + 1) end,
    exponential = function(r) return 2 * 0.5 ^ r - 1 end,
    minus_sqrt = function(r) return 1 - math.sqrt(r) end,
}
local wd_coefficients = {
    constant = function() return 1 end,
    linear = function(r) return r end,
    cosine = function(r) return 0.5 * (math.cos(math.pi * (1 - r)) + 1) end,
}

-- In the order in which a refused resume names them.
local saved_fields = {
    "lr_decay_style", "max_lr", "init_lr", "min_lr", "lr_warmup_steps", "lr_decay_steps",
    "wsd_decay_steps", "lr_wsd_decay_style", "start_wd", "end_wd", "wd_incr_style", "wd_incr_steps",
}

-- ---------------------------------------------------------------- the two functions

--- Learning rate of update n (from 0) under schedule `s` (a table of the fields), before a group's
--- lr_mult. `group` may hold its own max_lr and min_lr.
function M.lr_at(s, n, group)
    local max_lr = group and group.max_lr or s.max_lr
    local min_lr = group and group.min_lr or s.min_lr
    if s.lr_warmup_steps > 0 and n <= s.lr_warmup_steps then
        return s.init_lr + (max_lr - s.init_lr) * n / s.lr_warmup_steps
    elseif s.lr_decay_style == "constant" then
        return max_lr
    elseif n > s.lr_decay_steps then
        return min_lr
    elseif s.lr_decay_style == "inverse-square-root" then
        local lr = max_lr * math.sqrt(math.max(s.lr_warmup_steps, 1)) / math.sqrt(math.max(n, 1))
        return math.max(min_lr, lr)
    end
    local ratio = (n - s.lr_warmup_steps) / (s.lr_decay_steps - s.lr_warmup_steps)
    local coefficient
    if s.lr_decay_style == "linear" then
        coefficient = 1 - ratio
    elseif s.lr_decay_style == "cosine" then
        coefficient = 0.5 * (math.cos(math.pi * ratio) + 1)
    else
        local anneal_start = s.lr_decay_steps - s.wsd_decay_steps
        coefficient = n <= anneal_start and 1
            or wsd_coefficients[s.lr_wsd_decay_style]((n - anneal_start) / s.wsd_decay_steps)
    end
    return min_lr + coefficient * (max_lr - min_lr)
end

--- Weight decay of update n (from 0) under schedule `s`, before a group's wd_mult.
function M.wd_at(s, n)
    if n > s.wd_incr_steps or s.wd_incr_style == "constant" then
        return s.end_wd
    end
    local ratio = s.wd_incr_steps > 0 and n / s.wd_incr_steps or 1
    return s.start_wd + wd_coefficients[s.wd_incr_style](ratio) * (s.end_wd - s.start_wd)
end

-- ---------------------------------------------------------------- checks

local function refuse(code, fmt, ...)
    err.raise(code, "lr_scheduler: " .. fmt, ...)
end

local function check_number(code, s, key, least)
    local x = s[key]
    if type(x) ~= "number" or x ~= x or x == math.huge or x < least then
        refuse(code, "%s must be a number of at least %d, not %s", key, least, tostring(x))
    end
end

local function check_steps(code, s, key, least)
    check_number(code, s, key, least)
    if s[key] % 1 ~= 0 then
        refuse(code, "%s must be a whole number of steps, not %s", key, number.text(s[key]))
    end
end

local function one_of(code, s, key, choices)
    if not choices[s[key]] then
        local names = {}
        for name in pairs(choices) do
            names[#names + 1] = name
        end
        table.sort(names)
        refuse(code, "%s %s is not one of %s", key, tostring(s[key]), table.concat(names, ", "))
    end
end

-- Raises `code` unless the fields of `s` make a schedule.
local function check(s, code)
    for _, key in ipairs { "init_lr", "max_lr", "min_lr", "start_wd", "end_wd" } do
        check_number(code, s, key, 0)
    end
    check_steps(code, s, "lr_warmup_steps", 0)
    check_steps(code, s, "lr_decay_steps", 1)
    check_steps(code, s, "wd_incr_steps", 0)
    one_of(code, s, "lr_decay_style", decay_styles)
    one_of(code, s, "wd_incr_style", wd_coefficients)
    if s.min_lr > s.max_lr then
        refuse(code, "min_lr (%s) is above max_lr (%s)", number.text(s.min_lr), number.text(s.max_lr))
    elseif s.init_lr > s.max_lr then
        refuse(code, "init_lr (%s) is above max_lr (%s)", number.text(s.init_lr), number.text(s.max_lr))
    elseif s.end_wd < s.start_wd then
        refuse(code, "end_wd (%s) is below start_wd (%s)", number.text(s.end_wd), number.text(s.start_wd))
    elseif s.wd_incr_style == "constant" and s.start_wd ~= s.end_wd then
        refuse(code, "wd_incr_style constant needs equal start_wd and end_wd (%s, %s)",
            number.text(s.start_wd), number.text(s.end_wd))
    elseif s.lr_decay_style ~= "constant" and s.lr_warmup_steps >= s.lr_decay_steps then
        refuse(code, "lr_warmup_steps (%d) must be less than lr_decay_steps (%d)",
            s.lr_warmup_steps, s.lr_decay_steps)
    elseif s.lr_decay_style == "WSD" then
        check_steps(code, s, "wsd_decay_steps", 1)
        one_of(code, s, "lr_wsd_decay_style", wsd_coefficients)
        if s.lr_warmup_steps + s.wsd_decay_steps > s.lr_decay_steps then
            refuse(code, "lr_warmup_steps (%d) and wsd_decay_steps (%d) are together longer than "
                .. "lr_decay_steps (%d)", s.lr_warmup_steps, s.wsd_decay_steps, s.lr_decay_steps)
        end
    end
end

-- ---------------------------------------------------------------- the object

local OptimizerParamScheduler = {}
OptimizerParamScheduler.__index = OptimizerParamScheduler

local function check_optimizer_groups(groups)
    local base = groups[1]
    for _, group in ipairs(groups) do
        if not group.lr_mult and not group.max_lr and not group.min_lr then
            group.lr_mult = base.lr and base.lr ~= 0 and group.lr and group.lr / base.lr or 1
        end
        if not group.wd_mult then
            local base_wd, wd = base.weight_decay, group.weight_decay
            group.wd_mult = base_wd and base_wd ~= 0 and wd and wd / base_wd or 1
        end
    end
end

--- A schedule from all of its fields (see `fields`; wsd_decay_steps and lr_wsd_decay_style only for
--- WSD). Also in `opts`:
---   optimizer   table with `param_groups` (default: none; ask lr() and weight_decay() instead). A
---               group built with its own lr or weight_decay keeps its ratio to the first group,
---               noted as lr_mult and wd_mult; one with max_lr or min_lr has its own curve.
---   derived     set of the field names that were not written down but follow from the run's length
--- Starts at step 0, which sets the optimizer's values for the first update.
function M.new(opts)
    local self = setmetatable({ num_steps = 0, derived = opts.derived or {} }, OptimizerParamScheduler)
    for _, key in ipairs(saved_fields) do
        self[key] = opts[key]
    end
    check(self, "usage")
    self.use_checkpoint = opts.use_checkpoint_opt_param_scheduler or false
    self.override = opts.override_opt_param_scheduler or false
    if self.use_checkpoint and self.override then
        refuse("usage", "use_checkpoint_opt_param_scheduler and override_opt_param_scheduler exclude each other")
    end
    self.param_groups = opts.optimizer and opts.optimizer.param_groups or {}
    if #self.param_groups > 0 then
        check_optimizer_groups(self.param_groups)
    end
    self:step(0)
    return self
end

--- In words, for a log.
function OptimizerParamScheduler:describe()
    local decay = number.text(self.end_wd)
    if self.wd_incr_style ~= "constant" then
        decay = string.format("%s to %s in %d steps", number.text(self.start_wd), decay, self.wd_incr_steps)
    end
    local curve = string.format("lr %s constant", number.text(self.max_lr))
    if self.lr_decay_style ~= "constant" then
        curve = string.format("lr %s %s to %s at step %d", number.text(self.max_lr), self.lr_decay_style,
                              number.text(self.min_lr), self.lr_decay_steps)
    end
    if self.lr_warmup_steps > 0 then
        curve = string.format("%s, %d steps of warm-up from %s", curve, self.lr_warmup_steps, number.text(self.init_lr))
    end
    return string.format("%s, weight decay %s", curve, decay)
end

--- A schedule from the `lr_scheduler` section `cfg`, or the constant one of a configuration without
--- that section (nil), or with nothing but a resume flag in it. `run`: lr and weight_decay of the optimizer,
--- total_steps planned, optimizer.
--- Derived where `cfg` is silent: init_lr = lr/10, max_lr = lr, min_lr = lr/100, style cosine,
--- lr_warmup_steps = min(1000, total/10), lr_decay_steps = wd_incr_steps = total, weight decay constant.
function M.from_config(cfg, run)
    local opts, derived, has_schedule = {}, {}, cfg ~= nil and next(cfg) == nil
    for key, value in pairs(cfg or {}) do
        opts[key] = value
        has_schedule = has_schedule
            or (key ~= "use_checkpoint_opt_param_scheduler" and key ~= "override_opt_param_scheduler")
    end
    local function default(key, value, is_derived)
        if opts[key] == nil then
            opts[key] = value
            derived[key] = is_derived
        end
    end
    local total = run.total_steps
    local weight_decay = run.weight_decay or 0
    default("lr_decay_style", has_schedule and "cosine" or "constant")
    default("max_lr", run.lr)
    default("init_lr", has_schedule and run.lr * 0.1 or run.lr, true)
    default("min_lr", has_schedule and run.lr * 0.01 or run.lr, true)
    default("lr_warmup_steps", has_schedule and math.min(1000, math.floor(total / 10)) or 0, true)
    default("lr_decay_steps", total, true)
    default("start_wd", weight_decay)
    default("end_wd", weight_decay)
    default("wd_incr_style", "constant")
    default("wd_incr_steps", total, true)
    opts.derived, opts.optimizer = derived, run.optimizer
    return M.new(opts)
end

--- Learning rate of the next update (of a group with lr_mult 1 and no curve of its own).
function OptimizerParamScheduler:lr()
    return M.lr_at(self, self.num_steps)
end

--- Weight decay of the next update (of a group with wd_mult 1).
function OptimizerParamScheduler:weight_decay()
    return M.wd_at(self, self.num_steps)
end

--- Count `increment` updates and set every group's lr and weight_decay for the next one.
function OptimizerParamScheduler:step(increment)
    self.num_steps = self.num_steps + increment
    local weight_decay = self:weight_decay()
    for _, group in ipairs(self.param_groups) do
        group.lr = M.lr_at(self, self.num_steps, group) * (group.lr_mult or 1)
        group.weight_decay = weight_decay * group.wd_mult
    end
end

--- Every field of the schedule, and num_steps.
function OptimizerParamScheduler:state_dict()
    local state = { num_steps = self.num_steps }
    for _, key in ipairs(saved_fields) do
        state[key] = self[key]
    end
    return state
end

-- False for a field that does not change any value of schedule `s`.
local function has_effect(s, key)
    local constant = s.lr_decay_style == "constant"
    if key == "init_lr" then
        return s.lr_warmup_steps > 0
    elseif key == "min_lr" or key == "lr_decay_steps" then
        return not constant
    elseif key == "wsd_decay_steps" or key == "lr_wsd_decay_style" then
        return s.lr_decay_style == "WSD"
    elseif key == "wd_incr_steps" or key == "wd_incr_style" then
        return s.start_wd ~= s.end_wd
    end
    return true
end

local function shown(value)
    return type(value) == "number" and number.text(value) or tostring(value)
end

-- Names that Megatron's and older checkpoints use.
local aliases = {
    max_lr = { "start_lr" }, lr_warmup_steps = { "warmup_iter", "warmup_steps" },
    lr_decay_steps = { "end_iter", "decay_steps" }, lr_decay_style = { "decay_style" },
    num_steps = { "num_iters" },
}

local function saved_value(state, key)
    for _, alias in ipairs(aliases[key] or {}) do
        if state[alias] ~= nil then
            return state[alias]
        end
    end
    return state[key]
end

--- Go on from a saved state; the rules are at the head of this file. Fields that an older state
--- lacks keep the configuration's values. Raises "usage" when the schedules differ, "format" for a
--- damaged state; then nothing has changed. Returns an array of what the checkpoint changed, each a
--- clause for the log ("lr_decay_steps stays 100, not 200").
function OptimizerParamScheduler:load_state_dict(state)
    if state.section ~= nil and not self.override then
        refuse("usage", "the checkpoint was made with a schedule of one's own (%s). Set "
            .. "lr_scheduler.override_opt_param_scheduler: true to go on with this one", tostring(state.section))
    end
    local merged, notes, differing = {}, {}, {}
    for _, key in ipairs(saved_fields) do
        merged[key] = self[key]
        local saved = saved_value(state, key)
        if saved ~= nil and not self.override then
            merged[key] = saved
        end
    end
    merged.num_steps = saved_value(state, "num_steps")
    check_steps("format", merged, "num_steps", 0)
    check(merged, "format")

    for _, key in ipairs(saved_fields) do
        if merged[key] ~= self[key] and (has_effect(merged, key) or has_effect(self, key)) then
            if self.use_checkpoint or self.derived[key] then
                notes[#notes + 1] = string.format("%s stays %s, not %s", key, shown(merged[key]), shown(self[key]))
            else
                differing[#differing + 1] = string.format("%s %s, now %s", key, shown(merged[key]), shown(self[key]))
            end
        end
    end
    if #differing > 0 then
        refuse("usage", "the checkpoint was made with another schedule (%s). Set "
            .. "lr_scheduler.override_opt_param_scheduler: true to go on with the new one, or "
            .. "lr_scheduler.use_checkpoint_opt_param_scheduler: true to keep the old one",
            table.concat(differing, "; "))
    end
    for key, value in pairs(merged) do
        self[key] = value
    end
    self:step(0)
    return notes
end

return M
