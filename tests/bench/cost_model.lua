-- The cost model of docs/distributed.md against this machine: alpha and beta of each collective, fitted, and what a step
-- of ddp and fsdp2 takes by them, beside what it takes.
--
--   OMP_NUM_THREADS=1 amlua --nproc-per-node N tests/bench/cost_model.lua [ROUNDS]
--
-- A collective of m bytes takes alpha + m beta. A step takes its computation, measured on all ranks at once, each for
-- itself, plus what collectives take of it beyond what they do beside it. Ranks that fill their cores have no core
-- left to do them beside it: the model's step is the sum, and the longer of the two is what overlap could give.

local distributed = require("am.distributed")
local edge = require("am.core.ffi")
local rank_steps = require("tests.bench.rank_steps")
local tensor = require("am.core.tensor")

local SIZES = { 4, 2 ^ 12, 2 ^ 16, 2 ^ 20, 2 ^ 23, 2 ^ 25 } -- bytes
local CALLS, STEPS = 7, 3

local rounds = tonumber(arg[1]) or 3
local world = distributed.join()
local n = world.size
if n == 1 then
    error("several ranks are needed: amlua --nproc-per-node 2 tests/bench/cost_model.lua", 0)
end

local kinds = {
    all_reduce = function(bytes)
        local t = tensor.zeros { bytes / 4 }
        return function() world.group:all_reduce(t):wait() end
    end,
    all_gather = function(bytes)
        local part = tensor.zeros { math.max(1, bytes / 4 / n) }
        local whole = tensor.zeros { part:numel() * n }
        return function() world.group:all_gather(whole, part):wait() end
    end,
    reduce_scatter = function(bytes)
        local part = tensor.zeros { math.max(1, bytes / 4 / n) }
        local whole = tensor.zeros { part:numel() * n }
        return function() world.group:reduce_scatter(part, whole):wait() end
    end,
}

local function seconds_of(fn)
    fn()
    local times = {}
    for i = 1, CALLS do
        local began = edge.C.am_clock()
        fn()
        times[i] = edge.C.am_clock() - began
    end
    return rank_steps.median(times)
end

-- alpha, beta: of the line whose relative errors' squares are least.
local function fitted(points)
    local s0, s1, s2, t0, t1 = 0, 0, 0, 0, 0
    for _, p in ipairs(points) do
        local w, m, t = 1 / p[2] ^ 2, p[1], p[2]
        s0, s1, s2, t0, t1 = s0 + w, s1 + w * m, s2 + w * m * m, t0 + w * t, t1 + w * m * t
    end
    local d = s0 * s2 - s1 * s1
    return math.max(0, (s2 * t0 - s1 * t1) / d), (s0 * t1 - s1 * t0) / d
end

local function say(...)
    if world:is_main() then
        print(string.format(...))
    end
end

local cost = {}
for _, kind in ipairs { "all_reduce", "all_gather", "reduce_scatter" } do
    local points = {}
    for i, bytes in ipairs(SIZES) do
        points[i] = { bytes, world:reduce({ seconds_of(kinds[kind](bytes)) }, "max")[1] }
    end
    local alpha, beta = fitted(points)
    cost[kind] = function(bytes, calls) return calls * alpha + bytes * beta end
    -- what crosses a rank's link at best, in the size of the whole
    local share = (kind == "all_reduce" and 2 or 1) * (n - 1) / n
    say("%-14s alpha %.1f us, beta %.3f ns a byte: %.2f GB/s of each rank's link", kind, alpha * 1e6, beta * 1e9,
        share / beta / 1e9)
end

-- Mean seconds of some steps of a training, the slowest rank's, and of what they tell others, by kind: bytes, calls.
local function timed(training)
    training.step()
    local before = training.counts()
    world:barrier()
    local began = edge.C.am_clock()
    for _ = 1, STEPS do
        training.step()
    end
    local seconds = (edge.C.am_clock() - began) / STEPS
    local told = {}
    for kind, count in pairs(training.counts()) do
        told[kind] = { bytes = (count.bytes - before[kind].bytes) / STEPS,
                       calls = (count.calls - before[kind].calls) / STEPS }
    end
    return world:reduce({ seconds }, "max")[1], told
end

for _, strategy in ipairs { "ddp", "fsdp2" } do
    local computed, taken, told, bytes = {}, {}, nil, nil
    for round = 1, rounds do
        local training = rank_steps.new(distributed.alone())
        computed[round], bytes = timed(training), training.bytes
        training.close()
        training = rank_steps.new(world, strategy)
        taken[round], told = timed(training)
        training.close()
    end
    local communication = 0
    for kind, price in pairs(cost) do
        local bytes_of_whole = told[kind].bytes * (kind == "all_gather" and n or 1) -- a rank gives its part
        communication = communication + price(bytes_of_whole, told[kind].calls)
        if told[kind].calls > 0 then
            say("  %s: %g x %s of %.1f MB (gradients have %.1f MB)", strategy, told[kind].calls, kind,
                bytes_of_whole / 2 ^ 20, bytes / 2 ^ 20)
        end
    end
    local alone, together = rank_steps.median(computed), rank_steps.median(taken)
    say("%-6s %d ranks: computes %.3f s, tells %.3f s; model %.3f s (%.3f s with all overlapped); measured %.3f s, %.0f %% "
        .. "of the model", strategy, n, alone, communication, alone + communication, math.max(alone, communication),
        together, 100 * together / (alone + communication))
end
world:close()
