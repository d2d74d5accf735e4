-- A learning rate schedule of the user's own: a function of the step in place of scheduler.lua's curves, with that
-- file's methods. Weight decay stays what the optimizer has. Holds no function: examples/custom/schedule.lua does.
--
-- Resume. The state holds the section, lr and weight_decay, and the steps that were planned. A run that goes on because
-- it was made longer keeps the curve it was begun with; another section, lr or weight_decay is refused, unless the
-- section has override_opt_param_scheduler: true. What the function itself does is not compared.

local err = require("am.core.error")
local json = require("am.utils.json")
local number = require("am.utils.number")

local M = {}

local OVERRIDE = "override_opt_param_scheduler"

local OwnSchedule = {}
OwnSchedule.__index = OwnSchedule

local function refuse(code, fmt, ...)
    err.raise(code, "lr_scheduler: " .. fmt, ...)
end

-- What tells two sections apart, as text.
local function written(section)
    local keys = {}
    for key, value in pairs(section) do
        if key ~= OVERRIDE then
            keys[key] = value
        end
    end
    return json.encode(keys, { sort_keys = true })
end

--- A schedule that starts at step 0, which sets the optimizer's values for the first update.
---@param at fun(n: integer, run: table): number learning rate of update n (from 0), before a group's lr_mult; run
---  has lr (the optimizer's, or a group's max_lr), min_lr (a group's, or nil) and total_steps. It must depend on
---  nothing else, or a resumed run is another one.
---@param section table the `lr_scheduler` section
---@param run {lr: number, weight_decay: number, total_steps: integer, optimizer: am.Optimizer}
function M.new(at, section, run)
    local self = setmetatable({ at = at, section = written(section), override = section[OVERRIDE] == true,
                                name = tostring(section._target_), num_steps = 0, lr = run.lr,
                                weight_decay = run.weight_decay or 0, total_steps = run.total_steps,
                                param_groups = run.optimizer.param_groups }, OwnSchedule)
    self:step(0)
    return self
end

--- Count `increment` updates and set every group's lr and weight_decay for the next one.
function OwnSchedule:step(increment)
    self.num_steps = self.num_steps + increment
    for _, group in ipairs(self.param_groups) do
        local lr = self.at(self.num_steps, { lr = group.max_lr or self.lr, min_lr = group.min_lr,
                                             total_steps = self.total_steps })
        if type(lr) ~= "number" or not (lr >= 0 and lr < math.huge) then
            refuse("usage", "%s must return a learning rate of at least 0, and returns %s for update %d", self.name,
                   tostring(lr), self.num_steps)
        end
        group.lr = lr * (group.lr_mult or 1)
        group.weight_decay = self.weight_decay * (group.wd_mult or 1)
    end
end

--- In words, for a log.
function OwnSchedule:describe()
    return string.format("lr %s by %s, weight decay %s", number.text(self.lr), self.name,
                         number.text(self.weight_decay))
end

function OwnSchedule:state_dict()
    return { num_steps = self.num_steps, total_steps = self.total_steps, lr = self.lr,
             weight_decay = self.weight_decay, section = self.section }
end

local function check_steps(state, key, least)
    local v = state[key]
    if type(v) ~= "number" or not (v >= least and v <= 2 ^ 53) or v % 1 ~= 0 then
        refuse("format", "%s must be a whole number of at least %d, not %s", key, least, tostring(v))
    end
end

local function shown(value)
    return type(value) == "number" and number.text(value) or tostring(value)
end

--- Go on from a saved state; the rules are at the head of this file. Raises "usage" when the schedules differ,
--- "format" for a damaged state; then nothing has changed. Returns an array of what the checkpoint changed, each a
--- clause for the log.
function OwnSchedule:load_state_dict(state)
    check_steps(state, "num_steps", 0)
    local notes = {}
    if not self.override then
        for _, key in ipairs { "section", "lr", "weight_decay" } do
            if state[key] ~= self[key] then
                refuse("usage", "the checkpoint was made with another schedule (%s %s, now %s). Write it as it was, or "
                       .. "set lr_scheduler.%s: true to go on with the new one", key, shown(state[key]),
                       shown(self[key]), OVERRIDE)
            end
        end
        check_steps(state, "total_steps", 1)
        if state.total_steps ~= self.total_steps then
            notes[1] = string.format("total_steps of the schedule stays %s, not %s", shown(state.total_steps),
                                     shown(self.total_steps))
        end
        self.total_steps = state.total_steps
    end
    self.num_steps = state.num_steps
    self:step(0)
    return notes
end

return M
