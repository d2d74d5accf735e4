-- am.loggers.outbox: when records are sent, and what happens to them when they can't be.
local helpers = require("tests.lua.loggers.helpers")
local outbox = require("am.loggers.outbox")

local clock, sent, connects, answer, connected

local function box()
    return outbox.new {
        clock = clock,
        connect = function()
            connects = connects + 1
            return connected()
        end,
        send = function(items)
            local ok, msg, permanent = answer(items)
            for _, item in ipairs(ok and items or {}) do
                sent[#sent + 1] = item
            end
            return ok, msg, permanent
        end,
    }
end

before_each(function()
    clock, sent, connects = helpers.clock(100), {}, 0
    connected = function() return true end
    answer = function() return true end
end)

describe("an outbox", function()
    it("sends what has gathered every five seconds", function()
        local b = box()
        assert.is_true(b:poll())
        for i = 1, 9 do
            b:add(i)
            assert.is_false(b:poll())
        end
        clock:set(105)
        assert.is_true(b:poll())
        assert.same({ 1, 2, 3, 4, 5, 6, 7, 8, 9 }, sent)
        clock:set(200)
        assert.is_false(b:poll())
        assert.equal(1, connects)
    end)

    it("waits longer after each failure, five minutes at most, and loses nothing", function()
        local b, times = box(), {}
        b:poll()
        b:add("a")
        answer = function() times[#times + 1] = clock.now return nil, "gone" end
        local last
        for t = 105, 1400 do
            clock:set(t)
            local ok, msg = b:poll()
            last = ok == nil and msg or last
        end
        assert.equal("gone", last)
        assert.same({ 105, 110, 120, 140, 180, 260, 420, 720, 1020, 1320 }, times)
        answer = function() return true end
        clock:set(1700)
        assert.is_true(b:poll())
        assert.same({ "a" }, sent)
    end)

    it("lets a slow server cost at most a fiftieth of the time", function()
        local b = box()
        b:poll()
        answer = function()
            clock:set(clock.now + 2)
            return true
        end
        local spent = 0
        for _ = 1, 1000 do
            b:add("x")
            clock:set(clock.now + 1)
            local before = clock.now
            b:poll()
            spent = spent + clock.now - before
        end
        assert.truthy(spent > 0 and spent <= 0.02 * 1000 + 2)
    end)

    it("gives a request what is left of its time", function()
        local b
        local budgets = {}
        answer = function()
            budgets[#budgets + 1] = b:budget()
            clock:set(clock.now + 2)
            budgets[#budgets + 1] = b:budget()
            clock:set(clock.now + 2)
            budgets[#budgets + 1] = b:budget()
            return true
        end
        b = box()
        b:add(1)
        b:poll()
        assert.same({ 3, 1, 0 }, budgets)
    end)

    it("connects until it succeeds, before anything is sent", function()
        local b = box()
        connected = function() return nil, "no server" end
        b:add(1)
        assert.same({ nil, "no server" }, { b:poll() })
        connected = function() return true end
        clock:set(105)
        b:poll()
        assert.equal(2, connects)
        assert.same({ 1 }, sent)
    end)

    it("gives up when a failure is for good", function()
        local b = box()
        connected = function() return nil, "a wrong key", true end
        assert.same({ nil, "a wrong key" }, { b:poll() })
        clock:set(10000)
        assert.is_false(b:poll())
        b:add(1)
        assert.same({ 1, nil }, { b:drain(10) })
        assert.equal(1, connects)
    end)

    it("keeps every second record when there are too many", function()
        local limit = outbox.LIMIT
        outbox.LIMIT = 10
        local b = box()
        for i = 1, 11 do
            b:add(i)
        end
        outbox.LIMIT = limit
        b:poll()
        assert.same({ 1, 3, 5, 7, 9, 11 }, sent)
        assert.equal(5, b.dropped)
    end)

    it("sends all at the end, in batches, within its time", function()
        local b = box()
        for i = 1, 2 * outbox.BATCH + 1 do
            b:add(i)
        end
        local sizes = {}
        answer = function(items) sizes[#sizes + 1] = #items return true end
        assert.equal(0, (b:drain(10)))
        assert.same({ outbox.BATCH, outbox.BATCH, 1 }, sizes)
        answer = function() clock:set(clock.now + 6) return nil, "slow" end
        b:add("late")
        assert.same({ 1, "slow" }, { b:drain(10) })
        assert.equal(112, clock.now)
    end)
end)
