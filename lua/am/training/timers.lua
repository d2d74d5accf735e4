-- Named stopwatches: where a step's time goes. Holds no devices: call the engine's synchronize first
-- where work is asynchronous.
--
--   local timers = require("am.training.timers").new()
--   timers("forward"):start() … timers("forward"):stop()
--   timers:text({ "data", "forward" }, { normalizer = 10 })   --> "data 1.20 ms | forward 80.00 ms"

local err = require("am.core.error")
local posix = require("am.utils.posix")

local M = {}

local Timer = {}
Timer.__index = Timer

function Timer:start()
    if self.started then
        err.raise("state", 'timer "%s" is already running', self.name)
    end
    self.started = self.clock()
end

function Timer:stop()
    if not self.started then
        err.raise("state", 'timer "%s" is not running', self.name)
    end
    local seconds = self.clock() - self.started
    self.started = nil
    self.seconds = self.seconds + seconds
    self.active = self.active + seconds
end

--- Forget the seconds measured since the last reset; active_time keeps them.
function Timer:reset()
    self.seconds = 0
    if self.started then
        self.active = self.active + self.clock() - self.started
        self.started = self.clock()
    end
end

--- Seconds measured since the last reset, a running stretch included; resets unless `keep`.
function Timer:elapsed(keep)
    local now = self.clock()
    local seconds = self.seconds + (self.started and now - self.started or 0)
    if not keep then
        self:reset()
    end
    return seconds
end

--- Seconds measured since the timer was made.
function Timer:active_time()
    return self.active + (self.started and self.clock() - self.started or 0)
end

local Timers = {}
Timers.__index = Timers

--- The timer of that name, made on first use.
function Timers:__call(name)
    local timer = self.by_name[name]
    if not timer then
        timer = setmetatable({ name = name, clock = self.clock, seconds = 0, active = 0 }, Timer)
        self.by_name[name] = timer
        self.names[#self.names + 1] = name
    end
    return timer
end

--- Milliseconds of each timer (default: all, in order of first use) divided by opts.normalizer
--- (default 1), as text; resets them unless opts.keep.
function Timers:text(names, opts)
    opts = opts or {}
    local parts = {}
    for _, name in ipairs(names or self.names) do
        if self.by_name[name] then
            local ms = self.by_name[name]:elapsed(opts.keep) * 1000 / (opts.normalizer or 1)
            parts[#parts + 1] = string.format("%s %.2f ms", name, ms)
        end
    end
    return table.concat(parts, " | ")
end

--- A set of timers; `clock` (default: the monotonic one) returns seconds.
function M.new(clock)
    return setmetatable({ by_name = {}, names = {}, clock = clock or posix.monotonic }, Timers)
end

return M
