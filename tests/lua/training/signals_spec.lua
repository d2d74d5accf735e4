-- am.training.signals over a stand-in for the engine's functions.
local signals = require("am.training.signals")

local function engine()
    local e = { mode = 0, pending = 0, cleared = 0, added = {} }
    e.am_signals_watch = function(mode) e.mode = mode return 0 end
    e.am_signals_add = function(number) table.insert(e.added, number) return 0 end
    e.am_signals_pending = function() return e.pending end
    e.am_signals_clear = function() e.cleared, e.pending = e.cleared + 1, 0 end
    return e
end

describe("am.training.signals", function()
    it("tells the signal and the exit status", function()
        local e = engine()
        e.pending = 15 -- from before the run
        local s = signals.watch { engine = e, preemption_signal = "SIGTERM" }
        assert.same({ 1, 1 }, { e.mode, e.cleared })
        assert.is_nil(s:pending())
        assert.equal(0, s:exit_status())
        e.pending = 15
        assert.same({ 15, "SIGTERM" }, { s:pending() })
        assert.equal(0, s:exit_status())
        e.pending = 2
        assert.same({ 2, "SIGINT" }, { s:pending() })
        s:unwatch()
        assert.equal(0, e.mode)
        assert.equal(130, s:exit_status())
    end)

    it("takes names, numbers and lists, and nil for none", function()
        for _, case in ipairs { { "SIGTERM", {} }, { "term", {} }, { 15, {} }, { { "SIGTERM", 2 }, {} },
                                { "SIGUSR1", { 10 } }, { "usr1", { 10 } }, { 12, { 12 } },
                                { { "SIGTERM", "SIGXCPU", "USR2" }, { 24, 12 } } } do
            local e = engine()
            assert.is_nil(signals.watch({ engine = e, preemption_signal = case[1] }):pending())
            assert.same(case[2], e.added)
        end
        for _, wanted in ipairs { "SIGKILL", 9, { "SIGTERM", "SIGSEGV" }, true } do
            local ok, e = pcall(signals.watch, { engine = engine(), preemption_signal = wanted })
            assert.is_false(ok)
            assert.equal("usage", e.code)
        end
        local e = engine()
        local s = signals.watch { engine = e }
        e.pending = 15
        assert.equal(0, e.mode)
        assert.is_nil(s:pending())
    end)

    it("are watched beside the others by the engine, in a run only", function()
        local C = require("am.core.ffi").C
        local posix = require("am.utils.posix")
        assert.equal(tonumber(C.AM_ESTATE), C.am_signals_add(10))
        local s = signals.watch { preemption_signal = "SIGUSR2" }
        assert.equal(tonumber(C.AM_EINVAL), C.am_signals_add(9))
        os.execute("kill -USR2 " .. posix.getpid())
        assert.same({ 12, "SIGUSR2" }, { s:pending() })
        assert.equal(0, s:exit_status())
        s:unwatch()
        C.am_signals_clear()
        assert.equal(tonumber(C.AM_ESTATE), C.am_signals_add(12))
    end)
end)
