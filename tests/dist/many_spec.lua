-- More ranks than CPUs: 16, and with AMLUA_MANY_RANKS=64 so many, learn what one does.
local helper = require("tests.recipe.helper")
local ranks = require("tests.dist.ranks")

local most = tonumber(os.getenv("AMLUA_MANY_RANKS"))
local STEPS = 5

ranks.describe("many ranks", function()
    for _, n in ipairs { 16, most } do
        for _, distributed in ipairs { { strategy = "ddp" }, { strategy = "fsdp2" } } do
            it(("learn what one rank learns: %d, %s"):format(n, distributed.strategy), function()
                local changes = { step_scheduler = { global_batch_size = n, local_batch_size = 1, max_steps = STEPS },
                                  dataset = { num_sentences = 2 * n + 3 }, checkpoint = { enabled = false } }
                local one = ranks.train(1, changes)
                ranks.compare(one, (ranks.train(n, helper.changes(changes, { distributed = distributed }))))
            end)
        end
    end
end)
