-- Timers: where the time of a step goes, named, in levels of detail, after Megatron's.
-- Holds no clock of its own and no logger; a tracker is handed to write().
--
--   local timers = Timers { log_level = 1 }          the section `timers: { log_level: 1 }`
--   timers("forward", 1):start()  …  timers("forward"):stop()
--   local loss = timers:timed("forward", 1, fn, …)   the same around a call
--   timers:log()                                     prints "max time across ranks (ms):" and the times
--   timers:write(tracker, step)                      numbers "forward-time" in seconds
--
-- A timer above the log level costs nothing: it is one that does nothing. Levels: 1 the parts of a step
-- (data, forward, backward, optimizer), 2 what lies inside them. Across ranks `gather` brings the times
-- together, when all of them call collect(); alone, there is one rank.

local edge = require("am.core.ffi")
local err = require("am.core.error")
local log = require("am.utils.log")
local posix = require("am.utils.posix")
local strings = require("am.utils.strings")

local M = {}

local MAX_LEVEL = 2
local options = { max = true, minmax = true, all = true }

--- Keys of the section `timers`.
M.fields = {
    log_level = { type = "integer", min = 0, max = MAX_LEVEL, default = 0,
                  doc = "0: no timers; 1: data, forward, backward, optimizer; 2: clip and hooks, too" },
    log_option = { type = "string", enum = { "max", "minmax", "all" }, default = "max",
                   doc = "of all ranks the longest time, the shortest and the longest, or each" },
}

-- ---- one timer ------------------------------------------------------------------------------

local Timer = {}
Timer.__index = Timer

local function new_timer(name, clock, sync)
    return setmetatable({ name = name, clock = clock, sync = sync, total = 0, active = 0 }, Timer)
end

--- Begin to count; "state" error when it counts already.
function Timer:start()
    if self.started_at then
        err.raise("state", "timer %s has already been started", self.name)
    end
    self.sync()
    self.started_at = self.clock()
end

--- Stop counting; "state" error when it does not count.
function Timer:stop()
    if not self.started_at then
        err.raise("state", "timer %s is not started", self.name)
    end
    self.sync()
    local seconds = self.clock() - self.started_at
    self.started_at = nil
    self.total, self.active = self.total + seconds, self.active + seconds
end

--- Begin anew from zero; active_time stays.
function Timer:reset()
    self.total, self.started_at = 0, nil
end

--- Seconds counted since the last reset. Resets unless told `false`; one that counts goes on counting.
function Timer:elapsed(reset)
    local running = self.started_at ~= nil
    if running then
        self:stop()
    end
    local seconds = self.total
    if reset ~= false then
        self:reset()
    end
    if running then
        self:start()
    end
    return seconds
end

--- Seconds counted since the timer was made.
function Timer:active_time()
    return self.active
end

-- What a timer above the log level is.
local dummy = { name = "dummy" }
function dummy.start() end
function dummy.stop() end
function dummy.reset() end
function dummy.elapsed()
    return 0
end
function dummy.active_time()
    return 0
end

-- ---- a group --------------------------------------------------------------------------------

local Timers = {}
Timers.__index = Timers

--- A group of timers. opts: log_level, log_option; clock (seconds; default: the engine's); sync (called
--- before the clock is read: wait for the device); gather(times) -> array over ranks of such tables, from
--- { name = seconds } of this one; logger.
function M.Timers(opts)
    opts = opts or {}
    if not options[opts.log_option or "max"] then
        err.raise("usage", "timers.log_option: %s is not one of max, minmax and all", tostring(opts.log_option))
    end
    return setmetatable({
        log_level = opts.log_level or 0, log_option = opts.log_option or "max", clock = opts.clock or edge.C.am_clock,
        sync = opts.sync or function() end, gather = opts.gather,
        logger = opts.logger or log.get("am.timers"), timers = {}, levels = {}, names = {},
    }, Timers)
end

--- The timer of a name. The level counts when it is first asked for (default: 2) and must not change.
function Timers:__call(name, level)
    local timer = self.timers[name]
    if timer then
        if level and level ~= self.levels[name] then
            err.raise("argument", "timer %s has level %d, not %d", name, self.levels[name], level)
        end
        return timer
    end
    level = level or MAX_LEVEL
    if level > MAX_LEVEL then
        err.raise("argument", "timer %s: level %d, %d at most", name, level, MAX_LEVEL)
    elseif level > self.log_level then
        return dummy
    end
    timer = new_timer(name, self.clock, self.sync)
    self.timers[name], self.levels[name] = timer, level
    self.names[#self.names + 1] = name
    return timer
end

local function stopped(timer, ...)
    timer:stop()
    return ...
end

--- Call fn(…) and count its time; returns what it does. After an error the timer is as before.
function Timers:timed(name, level, fn, ...)
    local timer = self(name, level)
    if timer == dummy then
        return fn(...)
    end
    if timer.started_at then
        timer:reset() -- an error left it counting
    end
    timer:start()
    return stopped(timer, fn(...))
end

local function own_times(self, names, reset)
    local own = {}
    for _, name in ipairs(names) do
        own[name] = self.timers[name] and self.timers[name]:elapsed(reset) or 0
    end
    return own
end

--- Bring the times of all ranks together, for what is printed and written from here on until they are reset. All
--- ranks call this at the same time; without a timer that counts nothing is done.
function Timers:collect()
    if self.gather and self.log_level > 0 then
        self.collected = self.gather(own_times(self, self.names, false))
    end
end

-- Names, and { [name] = { time of rank 1, … } } of those that counted anything.
local function times_of(self, names, reset)
    names = names or self.names
    local own = own_times(self, names, reset)
    local ranks, times = self.collected or { own }, {}
    if reset ~= false then
        self.collected = nil
    end
    for _, name in ipairs(names) do
        for rank, of_rank in ipairs(ranks) do
            if (of_rank[name] or 0) > 0 then
                times[name] = times[name] or {}
                times[name][rank] = of_rank[name]
            end
        end
    end
    return names, times
end

local function least_and_most(by_rank)
    local least, most = math.huge, -math.huge
    for _, seconds in pairs(by_rank) do
        least, most = math.min(least, seconds), math.max(most, seconds)
    end
    return least, most
end

local function dotted(name)
    return name .. " " .. ("."):rep(48 - #name - 1)
end

local function milliseconds(seconds, normalizer)
    return posix.fixed(seconds * 1000 / normalizer, 2)
end

--- The times as text, in milliseconds divided by `normalizer`; nil when nothing was counted. names: an
--- array (nil: all); reset: false keeps what was counted.
function Timers:text(names, normalizer, reset)
    normalizer = normalizer or 1
    local times
    names, times = times_of(self, names, reset)
    if next(times) == nil then
        return nil
    end
    local lines = { self.log_option == "max" and "max time across ranks (ms):"
        or self.log_option == "minmax" and "(min, max) time across ranks (ms):" or "times across ranks (ms):" }
    for _, name in ipairs(names) do
        local by_rank = times[name]
        if by_rank and self.log_option == "all" then
            lines[#lines + 1] = "  " .. name .. ":"
            for _, rank in ipairs(strings.sorted_keys(by_rank)) do
                lines[#lines + 1] = string.format("     rank %2d: %s", rank - 1,
                                                  milliseconds(by_rank[rank], normalizer))
            end
        elseif by_rank then
            local least, most = least_and_most(by_rank)
            local shown = milliseconds(most, normalizer)
            if self.log_option == "minmax" then
                shown = string.format("(%s, %s)", milliseconds(least, normalizer), shown)
            end
            lines[#lines + 1] = string.format("    %s: %s", dotted(name), shown)
        end
    end
    return table.concat(lines, "\n")
end

--- Print the times, a line for each timer, and begin anew. Nothing is printed when nothing was counted.
function Timers:log(names, normalizer, reset)
    local text = self:text(names, normalizer, reset)
    for line in (text or ""):gmatch("[^\n]+") do
        self.logger:info("%s", line)
    end
end

--- Hand the longest time of each timer over ranks, in seconds, to a tracker: an object with
--- scalars(step, { { "forward-time", seconds }, … }), or with add_scalar(name, seconds, step).
function Timers:write(tracker, step, names, reset)
    local times
    names, times = times_of(self, names, reset)
    local list = {}
    for _, name in ipairs(names) do
        if times[name] then
            local _, most = least_and_most(times[name])
            list[#list + 1] = { name .. "-time", most }
        end
    end
    if tracker.scalars then
        tracker:scalars(step, list)
        return
    end
    for _, item in ipairs(list) do
        tracker:add_scalar(item[1], item[2], step)
    end
end

return M
