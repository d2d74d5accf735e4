-- Every family under tensor parallel computes what the whole model does: tensor_parallel.lua on two ranks. Skipped, and
-- counted, where there is no mpirun or no amlua_mpi.so.
local helper = require("tests.recipe.helper")
local ranks = require("tests.dist.ranks")

ranks.describe("tensor parallel", function()
    for what, words in pairs {
        ["all families"] = {}, ["sequence parallel, recomputed, LoRA"] = { "sequence", "checkpoint", "lora" },
        ["dropout"] = { "dropout" }, ["sequence parallel, dropout"] = { "sequence", "dropout" },
        ["DoRA"] = { "dora", "llama", "gpt2", "phi3", "gemma", "olmo2" },
    } do
        it("computes what one rank computes: " .. what, function()
            local status, out, errors = helper.run({ "tests/dist/tensor_parallel.lua", unpack(words) },
                                                   { before = ranks.mpirun(2) })
            assert.equal(0, status, errors)
            assert.matches("families are as one rank has them, on rank 1", out)
        end)
    end
end)
