-- How much faster two ranks are than one, of one thread each: pairs in one run, one rank alone while the other sleeps,
-- then both, each on the same number of rows. Prints a line for each strategy.
--
--   OMP_NUM_THREADS=1 amlua --nproc-per-node 2 tests/bench/scaling.lua [PAIRS] [STRATEGY ...]
--
-- The launcher binds each rank to a core. Any number of ranks does; the most that can be reached is their number.

local distributed = require("am.distributed")
local edge = require("am.core.ffi")
local posix = require("am.utils.posix")
local probe = require("am.distributed.probe")
local rank_steps = require("tests.bench.rank_steps")

local STEPS = 3 -- of each side of a pair, after one that warms up

local pairs_wanted, strategies = tonumber(arg[1]) or 5, { unpack(arg, 2) }
if #strategies == 0 then
    strategies = { "ddp", "fsdp2" }
end
local world = distributed.join()
if edge.C.am_threads() > 1 then
    error("OMP_NUM_THREADS=1 is needed: ranks of one thread each are compared", 0)
end

-- Mean seconds of some steps, and of waiting in them.
local function timed(training)
    training.step()
    local seconds, waited = 0, 0
    for _ = 1, STEPS do
        local s, w = training.step()
        seconds, waited = seconds + s / STEPS, waited + w / STEPS
    end
    return seconds, waited
end

-- The first rank alone; the others do not even wait for it, since that takes their cores.
local function alone(ended)
    local seconds
    if world:is_main() then
        local training = rank_steps.new(distributed.alone())
        seconds = timed(training)
        training.close()
        io.open(ended, "w"):close()
    else
        while not posix.stat(ended) do
            posix.sleep(0.05)
        end
    end
    world:barrier()
    if world:is_main() then
        posix.unlink(ended)
    end
    return seconds
end

for _, strategy in ipairs(strategies) do
    local ratios, one, many, waits = {}, {}, {}, {}
    for pair = 1, pairs_wanted do
        local own = alone(world:from_main(world:is_main() and os.tmpname() .. ".ended" or ""))
        local training = rank_steps.new(world, strategy)
        local seconds, waited = timed(training)
        training.close()
        seconds = world:reduce({ seconds }, "max")[1]
        waits[pair] = world:reduce({ waited }, "max")[1]
        one[pair], many[pair] = own, seconds
        ratios[pair] = own and world.size * own / seconds
    end
    if world:is_main() then
        local all = {}
        for i, ratio in ipairs(ratios) do
            all[i] = ("%.2f"):format(ratio)
        end
        print(("%s: %.2f times one rank (%s); a step takes one %.3f s, %d ranks %.3f s, of which they wait %.3f s")
            :format(strategy, probe.median(ratios), table.concat(all, " "), probe.median(one), world.size,
                    probe.median(many), probe.median(waits)))
    end
end
world:close()
