-- Seeds, state and scopes of the engine's random numbers (Philox, keyed by a seed, one stream number
-- an op). Holds no generator: `engine` may stand for the C functions am_rng_seed, am_rng_get and
-- am_rng_set (default: the engine's).
--
--   local rng = require("am.training.rng").StatefulRNG{ seed = 42 }   -- seeds the engine
--   rng:state_dict()   rng:load_state_dict(state)
--   rng_module.scoped({ seed = 1 }, function() … end)   -- the state is restored after it, always
--
-- State is { seed, stream } as decimal strings: 64 bits do not fit a JSON number.

local ffi = require("ffi")
local err = require("am.core.error")

local M = {}

--- What the `rng` section of a configuration may hold.
M.fields = {
    seed = { type = "integer", min = 0, doc = "seed of all random numbers (the top-level seed)" },
    ranked = { type = "boolean", default = true, doc = "add the process number to the seed" },
    deterministic = { type = "boolean", no_effect = "runs of one seed are the same" },
}

local function check(code)
    if code ~= 0 then
        err.raise("internal", "random numbers: the engine answered %d", code)
    end
end

local function effective_seed(opts)
    local seed = opts.seed
    if type(seed) ~= "number" or seed % 1 ~= 0 or seed < 0 or seed > 2 ^ 53 then
        err.raise("usage", "seed must be a whole number from 0 to 2^53, not %s", tostring(seed))
    end
    return seed + (opts.ranked and opts.rank or 0)
end

local function engine_of(opts)
    return opts.engine or require("am.core.ffi").C
end

local function get(engine)
    local seed, stream = ffi.new("uint64_t[1]"), ffi.new("uint64_t[1]")
    check(engine.am_rng_get(seed, stream))
    return seed[0], stream[0]
end

local function decimal(x)
    return (tostring(x):gsub("ULL$", ""))
end

-- tonumber() would round beyond 2^53.
local function from_decimal(text, what)
    if type(text) ~= "string" or not text:find("^%d+$") or #text > 20 then
        err.raise("format", "random number state: %s is not a whole number", what)
    end
    local x = ffi.new("uint64_t", 0)
    for digit in text:gmatch("%d") do
        x = x * 10 + tonumber(digit)
    end
    if decimal(x) ~= text:gsub("^0+(%d)", "%1") then
        err.raise("format", "random number state: %s is beyond 64 bits", what)
    end
    return x
end

local StatefulRNG = {}
StatefulRNG.__index = StatefulRNG

--- Seed the engine with opts.seed, plus opts.rank (process number) when opts.ranked.
function M.StatefulRNG(opts)
    local self = setmetatable({ engine = engine_of(opts), seed = effective_seed(opts) }, StatefulRNG)
    check(self.engine.am_rng_seed(self.seed))
    return self
end

--- From here on, have other numbers than other ranks, which are made alike up to here: weights are, dropout is not.
function StatefulRNG:spread(rank)
    local seed, stream = get(self.engine)
    check(self.engine.am_rng_set(seed + rank, stream))
    self.seed = self.seed + rank
end

--- { seed, stream } of the engine's generator, as decimal text.
function StatefulRNG:state_dict()
    local seed, stream = get(self.engine)
    return { seed = decimal(seed), stream = decimal(stream) }
end

--- Go on from a saved state. Returns notes: another seed than this run was given.
function StatefulRNG:load_state_dict(state)
    check(self.engine.am_rng_set(from_decimal(state.seed, "seed"), from_decimal(state.stream, "stream")))
    local given = self.seed
    self.seed = tonumber(state.seed)
    return given ~= self.seed and { string.format("seed %s, not %d", state.seed, given) } or {}
end

--- Run fn(...) under its own seed (default 95050; opts as StatefulRNG's) and restore the state, also
--- when it raises. Returns what fn returns.
function M.scoped(opts, fn, ...)
    local engine = engine_of(opts)
    local seed, stream = get(engine)
    check(engine.am_rng_seed(effective_seed { seed = opts.seed or 95050, ranked = opts.ranked, rank = opts.rank }))
    return err.finally(function() check(engine.am_rng_set(seed, stream)) end, fn, ...)
end

return M
