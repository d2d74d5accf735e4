-- What waits to be sent to a server, and when it is sent: the part that all network trackers share.
-- Holds no protocol: `connect` and `send` are the tracker's.
--
--   local box = outbox.new { connect = fn, send = fn }
--   box:add(record)   box:poll()   box:drain(20)
--
-- poll() is called after every step and mostly returns at once. It sends what has gathered every few
-- seconds, with what `budget()` says as the time-out of each request, so that a server that is slow or
-- gone costs a step at most BUDGET seconds. After that many seconds it waits fifty times as long, so that
-- all of it stays below 2 % of the run; after a failure also at least 5 seconds, twice as long after
-- each further one, and five minutes at most. Nothing waits for ever in memory: beyond LIMIT records
-- every second one is dropped, which leaves a curve that is whole.
--
-- connect()   -> true, or nil, message, permanent      called until it succeeds; it keeps what it has
--                                                      found out, so that the next call goes on from there
-- send(items) -> true, or nil, message, permanent      of an array of records, BATCH at most
-- A failure that is permanent (a wrong key) ends all trying.

local edge = require("am.core.ffi")

local M = { BATCH = 500, LIMIT = 50000, BUDGET = 3, EVERY = 5, LONGEST = 300 }

local SHARE = 50 -- seconds of waiting for one of sending

local Outbox = {}
Outbox.__index = Outbox

--- opts: connect, send; clock: seconds that only go forward (for tests).
function M.new(opts)
    return setmetatable({ connect = opts.connect, send = opts.send, clock = opts.clock or edge.C.am_clock, items = {},
                          next_at = 0, failures = 0, dropped = 0 }, Outbox)
end

--- Records that wait.
function Outbox:count()
    return #self.items
end

function Outbox:add(item)
    local items = self.items
    items[#items + 1] = item
    if #items > M.LIMIT then
        local kept = {}
        for i = 1, #items, 2 do
            kept[#kept + 1] = items[i]
        end
        self.dropped = self.dropped + #items - #kept
        self.items = kept
    end
end

--- Seconds that the call in progress may still take.
function Outbox:budget()
    return math.max(self.stop_at - self.clock(), 0)
end

local function without_first(items, n)
    local rest = {}
    for i = n + 1, #items do
        rest[#rest + 1] = items[i]
    end
    return rest
end

-- One attempt: connect where that is still to be done, else a batch.
local function attempt(self)
    if not self.connected then
        local ok, msg, permanent = self.connect()
        if not ok then
            return nil, msg, permanent
        end
        self.connected = true
    end
    local batch = {}
    for i = 1, math.min(#self.items, M.BATCH) do
        batch[i] = self.items[i]
    end
    if #batch == 0 then
        return true
    end
    local ok, msg, permanent = self.send(batch)
    if ok then
        self.items = without_first(self.items, #batch)
    end
    return ok, msg, permanent
end

-- attempt(), and what its end says about the next one. is_free: no step waits for it.
local function try(self, seconds, is_free)
    local started = self.clock()
    self.stop_at = started + seconds
    local ok, msg, permanent = attempt(self)
    local took = self.clock() - started
    self.failures = ok and 0 or self.failures + 1
    self.dead = permanent or false
    local wait = ok and M.EVERY or math.min(M.EVERY * 2 ^ (self.failures - 1), M.LONGEST)
    self.next_at = self.clock() + math.max(wait, is_free and 0 or SHARE * took)
    return ok, msg
end

--- Send when it is time. Returns true when something was tried and went well, nil, message when it
--- failed, and false when nothing was tried. `seconds`: how long it may take before training, when no
--- step waits for it; absent: BUDGET.
function Outbox:poll(seconds)
    if self.dead or self.clock() < self.next_at or (self.connected and #self.items == 0) then
        return false
    end
    return try(self, seconds or M.BUDGET, seconds ~= nil)
end

--- At the end: send what waits, for at most so many seconds, giving up at the second failure in a row.
--- Returns how many records are left, and why.
function Outbox:drain(seconds)
    local stop_at, msg = self.clock() + seconds, nil
    local failed = 0
    while not self.dead and (#self.items > 0 or not self.connected) and failed < 2 do
        local left = stop_at - self.clock()
        if left <= 0 then
            break
        end
        local ok
        ok, msg = try(self, left, true)
        failed = ok and 0 or failed + 1
    end
    return #self.items, msg
end

return M
