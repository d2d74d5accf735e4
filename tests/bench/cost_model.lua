-- The cost model of docs/distributed.md against this machine: alpha and beta of each collective, fitted, and what a
-- step of ddp and fsdp2 takes by them, beside what it takes.
--
--   OMP_NUM_THREADS=1 amlua --nproc-per-node N tests/bench/cost_model.lua [STEPS]
--
-- A collective of m bytes takes alpha + m beta. A step takes its computation, measured on all ranks at once, each for
-- itself, plus what collectives take of it beyond what they do beside it. Ranks that fill their cores have no core
-- left to do them beside it: the model's step is the sum, and the longer of the two is what overlap could give.

local distributed = require("am.distributed")
local edge = require("am.core.ffi")
local probe = require("am.distributed.probe")
local rank_steps = require("tests.bench.rank_steps")
local tensor = require("am.core.tensor")

local SIZES = { 4, 2 ^ 12, 2 ^ 16, 2 ^ 20, 2 ^ 23, 2 ^ 25 } -- bytes
local CALLS = 7

local steps = tonumber(arg[1]) or 8
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
        points[i] = { bytes, world:reduce({ probe.seconds_of(CALLS, kinds[kind](bytes)) }, "max")[1] }
    end
    local alpha, beta = fitted(points)
    cost[kind] = function(bytes, calls) return calls * alpha + bytes * beta end
    -- what crosses a rank's link at best, in the size of the whole
    local share = (kind == "all_reduce" and 2 or 1) * (n - 1) / n
    say("%-14s alpha %.1f us, beta %.3f ns a byte: %.2f GB/s of each rank's link", kind, alpha * 1e6, beta * 1e9,
        share / beta / 1e9)
end

-- Seconds of a step, the slowest rank's.
local function timed(training)
    world:barrier()
    local began = edge.C.am_clock()
    training.step()
    return world:reduce({ edge.C.am_clock() - began }, "max")[1]
end

-- What a step tells others, by kind: { calls, bytes }.
local function told_in(training)
    local before, told = training.counts(), {}
    training.step()
    for kind, count in pairs(training.counts()) do
        told[kind] = { calls = count.calls - before[kind].calls, bytes = count.bytes - before[kind].bytes }
    end
    return told
end

for _, strategy in ipairs { "ddp", "fsdp2" } do
    local alone, shared = rank_steps.new(distributed.alone()), rank_steps.new(world, strategy)
    alone.step()
    shared.step()
    local told, communication = told_in(shared), 0
    for _, kind in ipairs { "all_reduce", "all_gather", "reduce_scatter" } do
        local whole = told[kind].bytes * (kind == "all_gather" and n or 1) -- a rank gives its part
        communication = communication + cost[kind](whole, told[kind].calls)
        if told[kind].calls > 0 then
            say("  %s: %d x %s of %.1f MB together (gradients have %.1f MB)", strategy, told[kind].calls, kind,
                whole / 2 ^ 20, alone.bytes / 2 ^ 20)
        end
    end
    local computed, taken, ratios = {}, {}, {}
    for i = 1, steps do -- in turns: a machine's speed varies
        computed[i], taken[i] = timed(alone), timed(shared)
        ratios[i] = taken[i] / (computed[i] + communication)
    end
    local computes = probe.median(computed)
    say("%-6s %d ranks: computes %.3f s, tells %.3f s; model %.3f s (%.3f s with all overlapped)", strategy, n,
        computes, communication, computes + communication, math.max(computes, communication))
    say("       measured %.3f s, %.2f of the model (median of %d pairs)", probe.median(taken),
        probe.median(ratios), steps)
    shared.close()
    alone.close()
end
world:close()
