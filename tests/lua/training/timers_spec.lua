-- am.training.timers: what is counted, which levels count, and the texts of NeMo Automodel's Timers.
local timers = require("am.training.timers")

local now, lines
local function group(opts)
    now, lines = 0, {}
    opts = opts or {}
    opts.log_level = opts.log_level or 2
    opts.clock = function() return now end
    opts.logger = { info = function(_, fmt, ...) lines[#lines + 1] = fmt:format(...) end }
    return timers.Timers(opts)
end

local function run(t, name, seconds, level)
    t(name, level):start()
    now = now + seconds
    t(name):stop()
end

describe("a timer", function()
    it("adds up what it counts", function()
        local t = group()
        run(t, "forward", 2)
        run(t, "forward", 3)
        assert.equal(5, t("forward"):elapsed(false))
        assert.equal(5, t("forward"):elapsed())
        assert.equal(0, t("forward"):elapsed())
        run(t, "forward", 1)
        assert.equal(1, t("forward"):elapsed(false))
        assert.equal(6, t("forward"):active_time())
        t("forward"):reset()
        assert.equal(6, t("forward"):active_time())
    end)

    it("goes on counting when it is read", function()
        local t = group()
        t("a"):start()
        now = 2
        assert.equal(2, t("a"):elapsed())
        now = 5
        t("a"):stop()
        assert.equal(3, t("a"):elapsed())
    end)

    it("is started and stopped in turns", function()
        local t = group()
        local function refused(method, message)
            local ok, e = pcall(t("a")[method], t("a"))
            assert.is_false(ok)
            assert.equal("state", e.code)
            assert.truthy(e.msg:find(message, 1, true))
        end
        refused("stop", "timer a is not started")
        t("a"):start()
        refused("start", "timer a has already been started")
    end)

    it("waits for the device before it reads the clock", function()
        local waits = 0
        local t = group { sync = function() waits = waits + 1 end }
        run(t, "a", 1)
        assert.equal(2, waits)
    end)
end)

describe("levels", function()
    it("above the group's do not count", function()
        local t = group { log_level = 1 }
        run(t, "outer", 1, 1)
        run(t, "inner", 1, 2)
        run(t, "unnamed level", 1)
        assert.equal(1, t("outer"):elapsed(false))
        assert.equal(0, t("inner", 2):elapsed())
        t:log()
        assert.equal(2, #lines)
    end)

    it("belong to a name", function()
        local t = group()
        t("a", 1)
        local ok, e = pcall(t, "a", 2)
        assert.is_false(ok)
        assert.equal("argument", e.code)
        assert.is_false((pcall(t, "b", 3)))
    end)

    it("cost nothing around a call", function()
        local t = group { log_level = 0 }
        assert.same({ 3, nil, 4 }, { t:timed("a", 1, function(x) return x, nil, 4 end, 3) })
        t:log()
        assert.equal(0, #lines)
    end)
end)

describe("a call", function()
    it("is timed, also the one after a call that failed", function()
        local t = group()
        assert.is_false((pcall(t.timed, t, "a", 1, error, "no")))
        assert.equal("x", t:timed("a", 1, function() now = now + 2 return "x" end))
        assert.equal(2, t("a"):elapsed())
    end)
end)

describe("the text", function()
    local function two_ranks(option)
        local t = group { log_option = option, gather = function(own)
            return { own, { forward = own.forward and own.forward / 2, backward = 0 } }
        end }
        run(t, "forward", 0.25)
        run(t, "backward", 0.5)
        t:collect()
        return t
    end

    it("has the longest time of all ranks", function()
        local t = two_ranks("max")
        assert.equal("max time across ranks (ms):\n    forward ........................................: 250.00\n"
                     .. "    backward .......................................: 500.00", t:text(nil, 1, false))
        assert.equal("max time across ranks (ms):\n    forward ........................................: 25.00",
                     t:text({ "forward", "unknown" }, 10))
        assert.equal(0, t("forward"):elapsed())
    end)

    it("has the shortest and the longest", function()
        assert.equal("(min, max) time across ranks (ms):\n"
                     .. "    forward ........................................: (125.00, 250.00)\n"
                     .. "    backward .......................................: (500.00, 500.00)",
                     two_ranks("minmax"):text())
    end)

    it("has each rank's", function()
        assert.equal("times across ranks (ms):\n  forward:\n     rank  0: 250.00\n     rank  1: 125.00\n  backward:\n"
                     .. "     rank  0: 500.00", two_ranks("all"):text())
    end)

    it("is that of this rank where nobody collected, and after a reset", function()
        local t = two_ranks("all")
        t:text()
        run(t, "forward", 1)
        assert.equal("times across ranks (ms):\n  forward:\n     rank  0: 1000.00", t:text())
    end)

    it("is none when nothing was counted", function()
        assert.is_nil(group():text())
        local ok, e = pcall(timers.Timers, { log_option = "mean" })
        assert.is_false(ok)
        assert.equal("usage", e.code)
    end)
end)

describe("a tracker", function()
    it("gets the longest times in seconds", function()
        local t, got = group(), {}
        run(t, "forward", 0.25)
        run(t, "backward", 0.5)
        t:write({ scalars = function(_, step, list) got = { step, list } end }, 7, nil, false)
        assert.same({ 7, { { "forward-time", 0.25 }, { "backward-time", 0.5 } } }, got)
        got = {}
        t:write({ add_scalar = function(_, ...) got[#got + 1] = { ... } end }, 7, { "backward" })
        assert.same({ { "backward-time", 0.5, 7 } }, got)
    end)
end)
