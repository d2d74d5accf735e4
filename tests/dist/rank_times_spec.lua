-- What a run says of its ranks' times: who is slow, by name, in a run where one sleeps; timers of all ranks.
local helper = require("tests.recipe.helper")
local ranks = require("tests.dist.ranks")

local sleeper = [[
return { sleeper = function()
    return { name = "sleeper", updated = function(_, recipe)
        if recipe.world.rank == 1 then require("am.utils.posix").sleep(0.2) end
    end }
end }
]]

ranks.describe("the times of ranks", function()
    local function run(n, changes)
        local dir = helper.folder()
        local cfg = helper.config(dir, helper.changes({ step_scheduler = { global_batch_size = 8, max_steps = 8 } },
                                                      changes))
        local status, out, errors = helper.train(cfg, { "--allow-user-code" }, { before = ranks.mpirun(n) })
        assert.equal(0, status, out .. errors)
        return out .. errors
    end

    it("name the rank that is slow, as often as was asked for", function()
        local file = helper.write(helper.folder() .. "/sleeper.lua", sleeper)
        local out = run(4, { hooks = { { _target_ = file .. ":sleeper" } }, timers = { ranks_every = 3 } })
        local _, said = out:gsub("ranks compute for %S+ s a step %(least %S+, most %S+: rank 1, host [^)]+%)", "")
        assert.equal(3, said, out) -- after three steps, six and the last
        local warned = 0
        for rank, host in out:gmatch("rank (%d) %(host ([^)]+)%) is slow: it computes for ") do
            assert.truthy(host ~= "")
            warned = warned + (rank == "1" and 1 or 0)
        end
        assert.equal(3, warned, out)
    end)

    it("are those of the timers, too", function()
        local out = run(2, { timers = { log_level = 1, log_option = "all", ranks_every = 0 },
                             tensorboard = { log_dir = helper.folder() } })
        local _, steps = out:gsub("forward:[^\n]*\n[^\n]*rank  0: [%d.]+\n[^\n]*rank  1: [%d.]+\n", "")
        assert.equal(8, steps, out)
        assert.is_nil(out:find("ranks compute for", 1, true))
    end)
end)
