-- Sharded ranks learn what one rank learns: the recipe under mpirun, the same global batch in the same order. Skipped,
-- and counted, where there is no mpirun or no amlua_mpi.so.
local helper = require("tests.recipe.helper")
local ranks = require("tests.dist.ranks")

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
    { "megatron_fsdp: optim_grads", { strategy = "megatron_fsdp", data_parallel_sharding_strategy = "optim_grads" },
      nil, { 2 } },
    { "gradients summed once a step", { strategy = "fsdp2", defer_fsdp_grad_sync = true }, nil, { 2 } },
    { "averages of the weights", fsdp2, { ema = { decay = 0.5 } }, { 2 } },
}

ranks.describe("fully sharded data parallel", function()
    for _, case in ipairs(cases) do
        local name, distributed, changes, sizes = unpack(case)
        it("learns what one rank learns: " .. name, function()
            local one = ranks.train(1, changes)
            for _, n in ipairs(sizes or { 2, 4 }) do
                ranks.compare(one, (ranks.train(n, ranks.with(distributed, changes),
                                                { "--checkpoint.enabled", "false" })))
            end
        end)
    end

    it("answers prompts with averaged weights, and goes on with its own", function()
        local changes = {
            model = { pretrained_model_name_or_path = helper.text_model() }, ema = { decay = 0.9 },
            samples = { prompts = { "Who?" }, max_new_tokens = 4 },
            step_scheduler = { max_steps = 6, val_every_steps = 2 },
        }
        local one, dir = ranks.train(1, changes)
        local two, its_dir = ranks.train(2, ranks.with(fsdp2, changes))
        ranks.compare(one, two)
        local its_answers = helper.jsonl(its_dir .. "/samples.jsonl")
        for i, answer in ipairs(helper.jsonl(dir .. "/samples.jsonl")) do
            assert.equal(answer.text, its_answers[i].text)
        end
    end)

    it("holds the Nth part of weights, gradients and moments, and a layer or two beside them", function()
        local held, most = {}, {}
        for _, n in ipairs { 1, 2, 4 } do
            local status, out, errors = helper.run({ "tests/dist/fsdp_memory.lua" },
                                                   { before = n > 1 and ranks.mpirun(n) or nil })
            assert.equal(0, status, errors)
            local parameters, bytes, peak = out:match("(%d+) parameters, (%d+) bytes held, (%d+) bytes at most")
            held[n], most[n] = tonumber(bytes), tonumber(peak)
            assert.is_true(held[n] >= parameters * 16 / n, "weight, gradient and two moments of each")
            assert.is_true(math.abs(held[n] * n / held[1] - 1) < 0.01, held[n] .. " bytes of " .. n .. " ranks")
        end
        assert.is_true(most[2] < 0.6 * most[1] and most[4] < 0.4 * most[1])
    end)

    it("rounds what is gathered and what is summed as mp_policy says", function()
        local one = ranks.train(1, { step_scheduler = { max_steps = 3 } }, { "--checkpoint.enabled", "false" })
        local two = ranks.train(2, ranks.with({ strategy = "fsdp2", mp_policy = {
            _target_ = "torch.distributed.fsdp.MixedPrecisionPolicy", param_dtype = "torch.bfloat16",
            reduce_dtype = "bf16",
        } }, { step_scheduler = { max_steps = 3 } }), { "--checkpoint.enabled", "false" })
        local difference = math.abs(one[1].loss - two[1].loss)
        assert.is_true(difference > 1e-5 and difference < 2e-2, "bf16's rounding: " .. difference)
    end)

    it("finds copies of a shard that differ, when a checkpoint is written", function()
        local spoilt = helper.write(helper.folder() .. "/spoilt.lua", [[
            local Recipe = require("recipes.llm_finetune"):extend("spoilt")
            function Recipe:step(window)
                local metrics = require("recipes.llm_finetune").step(self, window)
                if self.world.rank == 2 then
                    for name, t in self.layout:named_parameters() do
                        if name:find("q_proj") then
                            t:detach():copy_(t:detach() * 1.5)
                        end
                    end
                end
                return metrics
            end
            return Recipe]])
        local cfg = helper.config(helper.folder(), ranks.with(hsdp, { step_scheduler = { max_steps = 2,
                                                                                   global_batch_size = 8 } }))
        local words = { spoilt, helper.yaml(helper.folder(), cfg) }
        local status, _, errors = helper.run(words, { before = ranks.mpirun(4), limit = 60 })
        assert.not_equal(0, status)
        assert.matches("the weights of rank 0 and rank 2 differ, which must be the same", errors, 1, true)
    end)

    it("refuses an optimizer that sees whole matrices", function()
        local muon = { optimizer = { _target_ = "am.optim.Muon", lr = 1e-2 } }
        local cfg = helper.config(helper.folder(), ranks.with(fsdp2, muon))
        local status, _, errors = helper.train(cfg, nil, { before = ranks.mpirun(2), limit = 60 })
        assert.not_equal(0, status)
        assert.matches("optimizer muon sees whole matrices, of which each rank has a part", errors)
    end)

    it("refuses sizes that are not the number of ranks", function()
        for key, words in pairs { dp_size = "dp_size asks for 3 processes, but this run has 2 ranks",
                                  dp_replicate_size = "a multiple of 3 processes, but this run has 2 ranks" } do
            local cfg = helper.config(helper.folder(), ranks.with { strategy = "fsdp2", [key] = 3 })
            local status, _, errors = helper.train(cfg, nil, { before = ranks.mpirun(2), limit = 60 })
            assert.not_equal(0, status)
            assert.matches(words, errors, 1, true)
        end
    end)
end)
