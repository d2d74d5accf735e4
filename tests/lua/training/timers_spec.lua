-- am.training.timers with a clock of its own.
local timers = require("am.training.timers")

describe("am.training.timers", function()
    local now, t

    before_each(function()
        now = 100
        t = timers.new(function() return now end)
    end)

    local function spend(name, seconds)
        t(name):start()
        now = now + seconds
        t(name):stop()
    end

    it("adds up, resets, and counts a running stretch", function()
        spend("forward", 2)
        spend("forward", 3)
        assert.equal(5, t("forward"):elapsed(true))
        assert.equal(5, t("forward"):elapsed())
        assert.equal(0, t("forward"):elapsed())
        t("forward"):start()
        now = now + 1
        assert.equal(1, t("forward"):elapsed())
        now = now + 4
        assert.equal(4, t("forward"):elapsed())
        now = now + 1
        t("forward"):stop()
        assert.equal(11, t("forward"):active_time())
        assert.equal(1, t("forward"):elapsed())
    end)

    it("refuses to start twice or stop what does not run", function()
        t("a"):start()
        assert.has_error(function() t("a"):start() end)
        t("a"):stop()
        assert.has_error(function() t("a"):stop() end)
    end)

    it("writes a line and resets what it wrote", function()
        spend("data", 0.5)
        spend("step", 0.25)
        assert.equal("data 250.00 ms | step 125.00 ms", t:text(nil, { normalizer = 2, keep = true }))
        assert.equal("step 250.00 ms", t:text { "step", "never used" })
        assert.equal("data 500.00 ms | step 0.00 ms", t:text())
    end)

    it("measures real time by default", function()
        local real = timers.new()
        real("x"):start()
        real("x"):stop()
        local seconds = real("x"):elapsed()
        assert.is_true(seconds >= 0 and seconds < 10)
    end)
end)
