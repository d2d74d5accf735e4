-- Which of several ranks is slow: each adds up what its steps took it, without waiting for others, and every some steps
-- they tell one another. What is said and how ranks talk is handed in.
--
--   local watch = Stragglers { gather = …, waited = …, host = "n1", say = …, warn = … }
--   watch:timed(step, …)     count what a call takes; the same values come back
--   watch:step(last)         once a step, on all ranks: tells, where it is time

local edge = require("am.core.ffi")

local M = {}

--- Keys of the section `timers`.
M.fields = {
    ranks_every = { type = "integer", min = 0, default = 50,
                    doc = "steps after which several ranks compare the times of theirs; 0: they do not" },
    slow_factor = { type = "number", above = 1, default = 1.2,
                    doc = "a rank that takes so many times the median is named by a warning" },
}

---@class am.training.Stragglers
local Stragglers = {}
Stragglers.__index = Stragglers

--- opts: gather(text), the texts of all ranks; waited(), seconds for which this rank has waited for others so far;
--- host, the name of this one; say(fmt, …) and warn(fmt, …); ranks_every, slow_factor; clock (seconds).
---@return am.training.Stragglers
function M.Stragglers(opts)
    local self = setmetatable({ busy = 0, steps = 0 }, Stragglers)
    for name, spec in pairs(M.fields) do
        self[name] = opts[name] or spec.default
    end
    for _, name in ipairs { "gather", "waited", "host", "say", "warn" } do
        self[name] = opts[name]
    end
    self.clock = opts.clock or edge.C.am_clock
    return self
end

local function counted(self, began, waited, ...)
    self.busy = self.busy + self.clock() - began - (self.waited() - waited)
    return ...
end

--- fn(…), and what it takes beside waiting is counted.
function Stragglers:timed(fn, ...)
    return counted(self, self.clock(), self.waited(), fn(...))
end

-- { rank, host, seconds } of all ranks, the fastest first.
local function all_ranks(self)
    local list = {}
    for i, text in ipairs(self.gather(string.format("%.9g %s", self.busy / self.steps, self.host))) do
        local seconds, host = text:match("^(%S+) (.*)$")
        list[i] = { rank = i - 1, host = host, seconds = tonumber(seconds) }
    end
    table.sort(list, function(a, b) return a.seconds < b.seconds or a.seconds == b.seconds and a.rank < b.rank end)
    return list
end

--- A step has ended. last: of the run. Every ranks_every steps, and with the last, ranks tell one another what a step
--- took them in the mean since they did so before: { rank, host, seconds } of all, the fastest first; else nil.
function Stragglers:step(last)
    self.steps = self.steps + 1
    if self.ranks_every == 0 or self.steps < self.ranks_every and not last then
        return nil
    end
    local list = all_ranks(self)
    local least, most = list[1], list[#list]
    local median = list[math.ceil(#list / 2)].seconds -- of two the faster: the other may be slow
    self.say("ranks compute for %.4g s a step (least %.4g, most %.4g: rank %d, host %s)", median, least.seconds,
             most.seconds, most.rank, most.host)
    for i = #list, 1, -1 do
        local r = list[i]
        if r.seconds <= self.slow_factor * median then
            break
        end
        self.warn("rank %d (host %s) is slow: it computes for %.4g s a step, %.2f times the median; all wait for it",
                  r.rank, r.host, r.seconds, r.seconds / median)
    end
    self.busy, self.steps = 0, 0
    return list
end

return M
