-- A step's collectives carry what the strategies say: volume.lua on 2 and 4 ranks, in steps of several micro-batches.
local helper = require("tests.recipe.helper")
local mixture = require("tests.dist.mixtures")
local ranks = require("tests.dist.ranks")

local cases = { -- ranks, section `distributed`, the family of a mixture of experts
    { 2, { strategy = "ddp" } },
    { 2, { strategy = "fsdp2" } },
    { 2, { strategy = "fsdp2", defer_fsdp_grad_sync = true } },
    { 2, { strategy = "megatron_fsdp", data_parallel_sharding_strategy = "optim" } },
    { 2, { strategy = "megatron_fsdp", data_parallel_sharding_strategy = "optim_grads" } },
    { 4, { strategy = "fsdp2", dp_replicate_size = 2 } },
    { 4, { strategy = "ddp", ep_size = 2 }, "mixtral" },
    { 4, { strategy = "fsdp2", ep_size = 2 }, "qwen3_moe" },
    { 2, { strategy = "ddp", tp_size = 2 } },
    { 4, { strategy = "ddp", tp_size = 2, sequence_parallel = true } },
    { 4, { strategy = "fsdp2", tp_size = 2 } },
}

ranks.describe("a step's volume", function()
    for _, case in ipairs(cases) do
        local n, distributed, family = unpack(case)
        local what = ("%s on %d ranks, %d copies, experts over %d, matrices over %d%s%s"):format(
            distributed.data_parallel_sharding_strategy or distributed.strategy, n,
            distributed.dp_replicate_size or 1, distributed.ep_size or 1,
            distributed.tp_size or 1, distributed.sequence_parallel and ", tokens, too" or "",
            distributed.defer_fsdp_grad_sync and ", gradients once a step" or "")
        it("is what is computed: " .. what, function()
            local dir = helper.folder()
            local cfg = helper.config(dir, helper.changes({
                step_scheduler = { global_batch_size = 16, max_steps = 4 }, dataset = { num_sentences = 32 },
                distributed = distributed, checkpoint = { enabled = false },
                model = family and { pretrained_model_name_or_path = mixture(family) } or {},
            }))
            local status, out, errors = helper.run({ "tests/dist/volume.lua", helper.yaml(dir, cfg) },
                                                   { before = ranks.mpirun(n) })
            assert.equal(0, status, out .. errors)
            for rank = 0, n - 1 do
                assert.matches("as computed on rank " .. rank, out)
            end
        end)
    end
end)
