-- am.training.rng over a stand-in for the engine's three functions.
local ffi = require("ffi")
local rng = require("am.training.rng")

local function engine()
    local state = { seed = ffi.new("uint64_t", 0), stream = ffi.new("uint64_t", 0) }
    return {
        state = state,
        am_rng_seed = function(seed)
            state.seed, state.stream = ffi.new("uint64_t", seed), ffi.new("uint64_t", 0)
            return 0
        end,
        am_rng_get = function(seed, stream)
            seed[0], stream[0] = state.seed, state.stream
            return 0
        end,
        am_rng_set = function(seed, stream)
            state.seed, state.stream = ffi.new("uint64_t", seed), ffi.new("uint64_t", stream)
            return 0
        end,
    }
end

describe("am.training.rng", function()
    it("seeds at once, with the process number when ranked", function()
        local e = engine()
        rng.StatefulRNG { seed = 42, engine = e, rank = 3 }
        assert.equal(42, tonumber(e.state.seed))
        rng.StatefulRNG { seed = 42, engine = e, ranked = true, rank = 3 }
        assert.equal(45, tonumber(e.state.seed))
        for _, seed in ipairs { -1, 1.5, "1", 2 ^ 54 } do
            assert.has_error(function() rng.StatefulRNG { seed = seed, engine = e } end)
        end
    end)

    it("saves and restores all 64 bits", function()
        local e = engine()
        local r = rng.StatefulRNG { seed = 7, engine = e }
        e.state.stream = 0xfedcba9876543210ULL
        e.state.seed = 0xffffffffffffffffULL
        local state = r:state_dict()
        assert.same({ seed = "18446744073709551615", stream = "18364758544493064720" }, state)
        e.am_rng_seed(0)
        r:load_state_dict(state)
        assert.is_true(e.state.stream == 0xfedcba9876543210ULL and e.state.seed == 0xffffffffffffffffULL)
        for _, bad in ipairs { "", "x", "-1", "18446744073709551616", "99999999999999999999", 5 } do
            assert.has_error(function() r:load_state_dict { seed = bad, stream = "0" } end)
        end
    end)

    it("restores the state after a scope, also when it raises", function()
        local e = engine()
        rng.StatefulRNG { seed = 42, engine = e }
        e.state.stream = 9ULL
        local a, b = rng.scoped({ seed = 1, engine = e }, function(x, y)
            assert.equal(1, tonumber(e.state.seed))
            e.state.stream = 5ULL
            return y, x
        end, "x", "y")
        assert.same({ "y", "x" }, { a, b })
        local ok, message = pcall(rng.scoped, { engine = e }, function()
            assert.equal(95050, tonumber(e.state.seed))
            error("inside", 0)
        end)
        assert.same({ false, "inside" }, { ok, message })
        assert.same({ 42, 9 }, { tonumber(e.state.seed), tonumber(e.state.stream) })
    end)
end)
