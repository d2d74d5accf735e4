-- Communicators between processes: collectives.lua on 1 to 5 ranks, and a rank that does not come.
local helper = require("tests.recipe.helper")
local ranks = require("tests.dist.ranks")

ranks.describe("collectives over MPI", function()
    local function run(n, word)
        return helper.run({ "tests/dist/collectives.lua", word }, { before = ranks.meeting(n) })
    end

    for n = 1, 5 do
        it("are right on " .. n, function()
            local status, out, errors = run(n, "right")
            assert.equal(0, status, errors)
            for rank = 0, n - 1 do
                assert.matches("all is well on rank " .. rank, out)
            end
        end)
    end

    it("do not name a rank that has gone on to the next", function()
        local status, out = run(3, "behind")
        assert.equal(5, status)
        assert.matches("rank 1: recv %d+ of group world did not end within 1 s: there came no "
            .. "rank 2 %(host [^,]+, process %d+%)\n", out)
    end)

    it("name the rank that does not come, and end", function()
        local status, out = run(4, "late")
        assert.equal(5, status)
        for rank = 0, 2 do
            assert.matches("rank " .. rank .. ": all_reduce %d+ of group world did not end within 1 s: there came no "
                .. "rank 3 %(host [^,]+, process %d+%)\n", out)
        end
    end)
end)
