-- Ranks that share experts learn what one rank learns: the recipe under mpirun on tiny mixtures, the same global batch
-- in the same order. Skipped, and counted, where there is no mpirun or no amlua_mpi.so.
local helper = require("tests.recipe.helper")
local model = require("tests.dist.mixtures")
local ranks = require("tests.dist.ranks")

-- The second half of the experts is never chosen: with two ranks the second has nothing to do.
local function starve(m)
    for i = 0, 1 do
        m:get("model.layers." .. i .. ".mlp.router").bias:narrow(0, 2, 2):fill_(-1e4)
    end
end

local ddp, fsdp2 = { strategy = "ddp" }, { strategy = "fsdp2" }
local lora = { target_modules = "*.[qkvo]_proj", dim = 4 }
local cases = { -- what, family, section `distributed`, changes, { ranks, ep_size } …
    { "full, with a balancing loss", "mixtral", ddp,
      { model = { output_router_logits = true, router_aux_loss_coef = 0.1 } }, { 2, 2 }, { 4, 4 } },
    { "LoRA on attention", "mixtral", ddp, { peft = lora }, { 2, 2 } },
    { "LoRA on experts", "mixtral", ddp, { peft = { target_modules = "*.w[123]", dim = 4 } }, { 4, 2 } },
    { "a shared expert, dense layers", "qwen2_moe", ddp, {}, { 2, 2 } },
    { "sharded, and computed again in backward", "qwen3_moe", { strategy = "fsdp2", activation_checkpointing = true },
      {}, { 2, 2 }, { 4, 2 } },
    { "LoRA on stacks", "granite_moe", fsdp2, { peft = { target_modules = "*put_linear", dim = 4 } }, { 4, 4 } },
    { "in stages", "qwen2_moe", { strategy = "fsdp2", pp_size = 2 }, {}, { 4, 2 } },
    { "rows in parts, with a balancing loss", "mixtral", { strategy = "fsdp2", cp_size = 2 },
      { model = { output_router_logits = true, router_aux_loss_coef = 0.1 } }, { 4, 4 } },
    { "packed rows", "olmoe", ddp, { packed_sequence = { packed_sequence_size = 48 } }, { 2, 2 } },
    { "biases", "gpt_oss", ddp, {}, { 4, 2 } },
    { "experts that no token goes to", "gpt_oss", ddp, {}, { 2, 2 }, change = starve },
}

ranks.describe("expert parallel", function()
    for _, n in ipairs { 1, 2, 4 } do
        it("sends rows to their experts and back, on " .. n, function()
            local status, out, errors = helper.run({ "tests/dist/experts.lua" }, { before = ranks.mpirun(n) })
            assert.equal(0, status, errors)
            for rank = 0, n - 1 do
                assert.matches("all is well on rank " .. rank, out)
            end
        end)
    end

    for _, case in ipairs(cases) do
        local what, family, distributed, changes = unpack(case)
        it("learns what one rank learns: " .. family .. ", " .. what, function()
            local given = helper.changes({ model = { pretrained_model_name_or_path = model(family, case.change) },
                                           checkpoint = { enabled = false } }, changes)
            local one, _, said = ranks.train(1, given)
            for i = 5, #case do
                local n, ep = unpack(case[i])
                local many = helper.changes(given, { distributed = helper.changes({ ep_size = ep }, distributed) })
                local records, _, they_said = ranks.train(n, many)
                ranks.compare(one, records)
                local counted = "Trainable parameters %d+ / Total %d+"
                assert.equal(said:match(counted), they_said:match(counted))
            end
        end)
    end

    local resumed = { -- family, changes, and two runs, the second of which goes on: { ranks, ep_size, distributed }
        { "mixtral", {}, { 2, 2, ddp }, { 1 } },
        { "granite_moe", { peft = { target_modules = "*put_linear", dim = 4 } }, { 1 }, { 4, 2, fsdp2 } },
    }
    for _, case in ipairs(resumed) do
        local family, changes = unpack(case)
        it("goes on with another number of ranks: " .. family, function()
            local given, dir = helper.changes({ model = { pretrained_model_name_or_path = model(family) } }, changes),
                helper.folder()
            local whole = ranks.train(1, given)
            for i, steps in ipairs { "7", "20" } do
                local n, ep, distributed = unpack(case[2 + i])
                local shared = n > 1 and { distributed = helper.changes({ ep_size = ep }, distributed) } or {}
                ranks.train(n, helper.changes(given, shared),
                            { "--checkpoint.checkpoint_dir", dir, "--step_scheduler.max_steps", steps })
            end
            ranks.compare(whole, helper.jsonl(dir .. "/training.jsonl"))
        end)
    end

    for what, case in pairs {
        ["a model without experts"] = { 2, 2, nil, "ep_size: 2 ranks are to share experts, and Llama%w+ has none" },
        ["experts that it does not divide"] = { 3, 3, "mixtral", "ep_size: 3 does not divide the 4 experts of model" },
        ["fewer ranks"] = { 2, 4, "mixtral", "ep_size: 4 does not divide the 2 ranks" },
    } do
        it("refuses " .. what, function()
            local n, ep, family, message = unpack(case, 1, 4)
            local cfg = helper.config(helper.folder(), helper.changes({
                distributed = { ep_size = ep }, step_scheduler = { global_batch_size = 12 },
                model = family and { pretrained_model_name_or_path = model(family) } or {},
            }))
            local status, _, errors = helper.train(cfg, nil, { before = ranks.mpirun(n) })
            assert.equal(2, status)
            assert.matches("distributed." .. message, errors)
        end)
    end
end)
