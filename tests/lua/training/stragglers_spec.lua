-- Ranks that compare the times of their steps: what is counted, when they tell, who is named.
local stragglers = require("am.training.stragglers")

local now, waited, said, warned
-- A watch that hears the seconds of other ranks, besides its own.
local function watch(others, opts)
    now, waited, said, warned = 0, 0, {}, {}
    opts = opts or {}
    opts.clock, opts.waited, opts.host = function() return now end, function() return waited end, "n0"
    opts.gather = function(text)
        local all = { text }
        for i, seconds in ipairs(others) do
            all[i + 1] = string.format("%.9g n%d", seconds, i)
        end
        return all
    end
    opts.say = function(fmt, ...) said[#said + 1] = fmt:format(...) end
    opts.warn = function(fmt, ...) warned[#warned + 1] = fmt:format(...) end
    return stragglers.Stragglers(opts)
end

local function work(seconds, waits)
    now, waited = now + seconds + (waits or 0), waited + (waits or 0)
    return 1, nil, 3
end

describe("stragglers", function()
    it("are told every some steps, and with the last, of the steps since", function()
        local w = watch({ 2, 3 }, { ranks_every = 3 })
        for i = 1, 7 do
            assert.same({ 1, nil, 3 }, { w:timed(work, i <= 3 and 2 or 4, i) })
            now = now + 100 -- not timed
            local list = w:step(i == 7)
            assert.equal(i == 3 or i == 6 or i == 7, list ~= nil)
        end
        assert.same({ "ranks compute for 2 s a step (least 2, most 3: rank 2, host n2)",
                      "ranks compute for 3 s a step (least 2, most 4: rank 0, host n0)",
                      "ranks compute for 3 s a step (least 2, most 4: rank 0, host n0)" }, said)
        assert.same({ "rank 2 (host n2) is slow: it computes for 3 s a step, 1.50 times the median; all wait for it",
                      "rank 0 (host n0) is slow: it computes for 4 s a step, 1.33 times the median; all wait for it",
                      "rank 0 (host n0) is slow: it computes for 4 s a step, 1.33 times the median; all wait for it" },
                    warned)
    end)

    it("are those that are slower than the factor, of two ranks too", function()
        local w = watch({ 1.19, 1, 1, 1.3, 1.25 }, { ranks_every = 1 })
        w:timed(work, 1)
        local list = w:step()
        assert.equal(2, #warned)
        assert.matches("^rank 4 ", warned[1])
        assert.matches("^rank 5 ", warned[2])
        assert.same({ rank = 4, host = "n4", seconds = 1.3 }, list[6])
        w = watch({ 1.21 }, { ranks_every = 1 })
        w:timed(work, 1)
        w:step()
        assert.matches("^rank 1 ", warned[1])
        w = watch({ 1.4 }, { ranks_every = 1, slow_factor = 1.5 })
        w:timed(work, 1)
        w:step()
        assert.equal(0, #warned)
    end)

    it("are not asked for where ranks_every is 0", function()
        local w = watch({ 9 }, { ranks_every = 0 })
        w:timed(work, 1)
        assert.is_nil(w:step(true))
        assert.equal(0, #said + #warned)
    end)
end)
