-- How long a run still takes, from the steps that it has done. Holds no clock of its own: the time of day is
-- handed in, so that what lies between steps (data, validation, saving) counts, too.
--
--   local eta = eta.new { total_steps = 500, done = 20 }
--   at the end of each step: local left = eta:tick(now)     seconds, or nil before there is something to go by

local M = {}

local ETA = {}
ETA.__index = ETA

local WARM_UP = 1   -- the first step asks the system for memory and is left out
M.STEPS = 10        -- before the first estimate

--- opts: total_steps of the run, done (steps that an earlier run did; 0).
function M.new(opts)
    return setmetatable({ total = opts.total_steps, done = opts.done or 0, ticks = 0 }, ETA)
end

--- A step has ended at `now` (seconds of any clock). Returns the seconds that are left, and how long a step
--- takes; nil for the first STEPS steps.
function ETA:tick(now)
    self.ticks, self.done = self.ticks + 1, self.done + 1
    if self.ticks == WARM_UP then
        self.started = now
    end
    if self.ticks < M.STEPS then
        return nil
    end
    local step = (now - self.started) / (self.ticks - WARM_UP)
    return step * math.max(0, self.total - self.done), step
end

return M
