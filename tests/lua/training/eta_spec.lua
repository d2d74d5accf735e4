-- Time that is left, on a clock that is made up.
local eta = require("am.training.eta")

describe("am.training.eta", function()
    it("says nothing before ten steps, then what the rest takes", function()
        local clock, e = 100, eta.new { total_steps = 110 }
        for i = 1, 9 do
            clock = clock + (i == 1 and 30 or 2) -- the first step is no measure
            assert.is_nil(e:tick(clock))
        end
        local left, step = e:tick(clock + 2)
        assert.equal(200, left)
        assert.equal(2, step)
    end)

    it("counts what lies between steps, and goes along", function()
        local clock, e, left = 0, eta.new { total_steps = 100 }, nil
        for i = 1, 50 do
            clock = clock + (i % 5 == 0 and 6 or 1) -- every fifth is validated
            left = e:tick(clock)
        end
        assert.is_true(math.abs(left - 100) < 5, left)
    end)

    it("goes on from what an earlier run did, and ends at nothing", function()
        local e, left = eta.new { total_steps = 20, done = 10 }, nil
        for i = 1, 12 do
            left = e:tick(i)
        end
        assert.equal(0, left)
    end)
end)
