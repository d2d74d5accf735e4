-- am.training.rng and signals, and am.datasets.philox, with the engine itself.
local C = require("am.core.ffi").C
local philox = require("am.datasets.philox")
local posix = require("am.utils.posix")
local rng = require("am.training.rng")
local signals = require("am.training.signals")

describe("am.training with the engine", function()
    it("saves and restores the engine's random state", function()
        local r = rng.StatefulRNG { seed = 42 }
        assert.same({ seed = "42", stream = "0" }, r:state_dict())
        local state = { seed = "18446744073709551615", stream = "18364758544493064720" }
        r:load_state_dict(state)
        assert.same(state, r:state_dict())
        rng.scoped({ seed = 1 }, function()
            assert.same({ seed = "1", stream = "0" }, r:state_dict())
        end)
        assert.same(state, r:state_dict())
    end)

    it("draws what the engine draws", function()
        for _, seed in ipairs { 0ULL, 42ULL, 0xffffffffffffffffULL } do
            for _, stream in ipairs { 0ULL, 7ULL, 0x5348554600000003ULL } do
                local draw = philox.sequence(seed, stream)
                for index = 0, 8 do
                    assert.equal(C.am_rng_u32(seed, stream, index), draw())
                end
            end
        end
    end)

    it("sees SIGTERM and Ctrl-C without ending the process", function()
        for name, number in pairs { TERM = 15, INT = 2 } do
            local s = signals.watch { preemption_signal = "SIGTERM" }
            assert.is_nil(s:pending())
            io.popen(string.format("kill -%s %d", name, posix.getpid())):close() -- os.execute would ignore SIGINT
            assert.equal(number, (s:pending()))
            assert.equal(name == "INT" and 130 or 0, s:exit_status())
            s:unwatch()
            C.am_signals_clear()
        end
    end)
end)
