-- Products in 8 bits on ranks that share rows, weights or layers: scales are of the same micro-batches and whole
-- weights, so they learn what one rank learns. Skipped, and counted, where there is no mpirun or no amlua_mpi.so.
local ranks = require("tests.dist.ranks")

-- Where sums of gradients in another order make a number in 8 bits another one, losses are off by about 1e-4.
local LATER = 2e-3

ranks.describe("products in 8 bits", function()
    for _, recipe in ipairs { "tensorwise", "rowwise" } do
        it("are one rank's: " .. recipe, function()
            local changes = { fp8 = { enabled = true, recipe_name = recipe }, optimizer = { lr = 1e-3 },
                              step_scheduler = { max_steps = 6, val_every_steps = 6 } }
            local one = ranks.train(1, changes, { "--checkpoint.enabled", "false" })
            for _, distributed in ipairs { { strategy = "ddp" }, { strategy = "fsdp2" }, { pp_size = 2 } } do
                local two = ranks.train(2, ranks.with(distributed, changes), { "--checkpoint.enabled", "false" })
                ranks.compare(one, two, LATER)
            end
        end)
    end
end)
