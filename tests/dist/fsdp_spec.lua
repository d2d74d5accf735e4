-- Sharded ranks learn what one rank learns: the recipe under mpirun, the same global batch in the same order. Skipped,
-- and counted, where there is no mpirun or no amlua_mpi.so.
local helper = require("tests.recipe.helper")
local ranks = require("tests.dist.ranks")

local function with(distributed, changes)
    return helper.changes({ distributed = distributed }, changes or {})
end

local fsdp2, hsdp = { strategy = "fsdp2" }, { strategy = "fsdp2", dp_replicate_size = 2 }
local cases = {
    { "full, an epoch that does not fill its last step", fsdp2 },
    { "LoRA", fsdp2, { peft = { target_modules = "*_proj", dim = 4 } } },
    { "frozen and tied embeddings", fsdp2, { freeze_config = { freeze_embeddings = true } } },
    { "packed rows", fsdp2, { packed_sequence = { packed_sequence_size = 48 } } },
    { "activation checkpointing", { strategy = "fsdp2", activation_checkpointing = true } },
    { "weights that stay for a step", { strategy = "fsdp2", reshard_after_forward = false } },
    { "HSDP", hsdp, nil, { 4 } },
    { "megatron_fsdp: optim", { strategy = "megatron_fsdp", data_parallel_sharding_strategy = "optim" }, nil, { 2 } },
    { "megatron_fsdp: optim_grads", { strategy = "megatron_fsdp", data_parallel_sharding_strategy = "optim_grads" }, nil,
      { 2 } },
}

describe("fully sharded data parallel", function()
    if not ranks.can_run then
        pending("there is no mpirun, or no amlua_mpi.so")
        return
    end

    teardown(helper.cleanup)

    for _, case in ipairs(cases) do
        local name, distributed, changes, sizes = unpack(case)
        it("learns what one rank learns: " .. name, function()
            local one = ranks.train(1, changes)
            for _, n in ipairs(sizes or { 2, 4 }) do
                ranks.compare(one, (ranks.train(n, with(distributed, changes), { "--checkpoint.enabled", "false" })))
            end
        end)
    end
end)
