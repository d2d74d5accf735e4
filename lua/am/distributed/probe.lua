-- What lies between ranks, measured: what an all_reduce takes, what a message from the first rank to each other one
-- and back takes, and how far their clocks are apart. Judges nothing; recipes/doctor.lua does.

local edge = require("am.core.ffi")
local posix = require("am.utils.posix")
local tensor = require("am.core.tensor")

local M = {}

local ROUNDS = 20 -- of a small message
local LARGE, LARGE_ROUNDS = 2 ^ 22, 3 -- bytes of a message that takes its time by its size
local REDUCED, SMALL_CALLS, LARGE_CALLS = 2 ^ 24, 30, 5

--- The middle of a list of numbers, which is sorted.
function M.median(list)
    table.sort(list)
    return (list[math.ceil(#list / 2)] + list[math.ceil((#list + 1) / 2)]) / 2
end

--- Seconds of a call, by the median of several after one that counts nothing.
function M.seconds_of(calls, fn)
    fn()
    local times = {}
    for i = 1, calls do
        local began = edge.C.am_clock()
        fn()
        times[i] = edge.C.am_clock() - began
    end
    return M.median(times)
end

--- Seconds of an all_reduce over all ranks of `bytes` bytes of f32.
function M.all_reduce_seconds(group, bytes, calls)
    local t = tensor.zeros { math.max(1, bytes / 4) }
    return M.seconds_of(calls, function() group:all_reduce(t):wait() end)
end

--- { latency, seconds, bytes, bandwidth }: seconds of an all_reduce of one number and of `bytes` bytes, and the
--- bytes a second of the latter that each rank sends, 2 (n - 1) / n times its bytes in the best of ways. nil for one.
function M.all_reduce(world)
    if not world.group then
        return nil
    end
    local latency = M.all_reduce_seconds(world.group, 4, SMALL_CALLS)
    local seconds = M.all_reduce_seconds(world.group, REDUCED, LARGE_CALLS)
    return { latency = latency, seconds = seconds, bytes = REDUCED,
             bandwidth = 2 * (world.size - 1) / world.size * REDUCED / seconds }
end

-- The other end of link().
local function answer(group)
    local small, large = tensor.zeros({ 1 }, { dtype = "float64" }), tensor.zeros { LARGE / 4 }
    for _ = 1, ROUNDS do
        group:recv(small, 0):wait()
        group:send(tensor.tensor({ posix.time() }, { dtype = "float64" }), 0):wait()
    end
    for _ = 1, LARGE_ROUNDS do
        group:recv(large, 0):wait()
        group:send(large, 0):wait()
    end
end

-- { latency, bandwidth, clock, clock_error } of a rank, as the first sees it.
local function link(group, rank)
    local small, large = tensor.zeros({ 1 }, { dtype = "float64" }), tensor.zeros { LARGE / 4 }
    local trips, least, clock = {}, math.huge, nil
    for i = 1, ROUNDS do
        local began, at = edge.C.am_clock(), posix.time()
        group:send(small, rank):wait()
        group:recv(small, rank):wait()
        trips[i] = edge.C.am_clock() - began
        if trips[i] < least then -- its clock was read half-way
            least, clock = trips[i], small:item() - at - trips[i] / 2
        end
    end
    local best = math.huge
    for _ = 1, LARGE_ROUNDS do
        local began = edge.C.am_clock()
        group:send(large, rank):wait()
        group:recv(large, rank):wait()
        best = math.min(best, edge.C.am_clock() - began)
    end
    return { latency = M.median(trips) / 2, bandwidth = 2 * LARGE / best, clock = clock, clock_error = least / 2 }
end

--- On the first rank, by rank from 1 on: seconds that a small message takes one way, bytes a second of a large one,
--- by how many seconds the rank's clock is ahead of the first one's, and how exactly that is known. Nothing on the
--- others. The first rank asks one after another.
function M.links(world)
    local list = {}
    if world.group and world.rank > 0 then
        answer(world.group)
    elseif world.group then
        for rank = 1, world.size - 1 do
            list[rank] = link(world.group, rank)
        end
    end
    return list
end

return M
