-- A model in stages learns what a whole one learns: gradients bit for bit (pipeline.lua), and recipes under mpirun with
-- pp_size 2 and 4, beside data parallel and FSDP, too. Skipped, and counted, where there is no mpirun or no
-- amlua_mpi.so.
local am = require("am")
local helper = require("tests.recipe.helper")
local ranks = require("tests.dist.ranks")

-- A random model of five layers, so that stages are not alike: what an entry of `cases` has as its model is changes to
-- this.
local function saved(changes)
    local dir = helper.folder()
    am.manual_seed(5)
    am.AutoModelForCausalLM.from_config(helper.changes({
        architectures = { "LlamaForCausalLM" }, model_type = "llama", hidden_size = 32, intermediate_size = 48,
        num_hidden_layers = 5, num_attention_heads = 4, num_key_value_heads = 2, vocab_size = 67,
        max_position_embeddings = 64, tie_word_embeddings = false,
    }, changes or {})):save_pretrained(dir)
    return { model = { pretrained_model_name_or_path = dir } }
end

local function window(rows)
    return { step_scheduler = { global_batch_size = 2 * rows, max_steps = 20 } }
end

local layers = { peft = { target_modules = { "*layers.1.*" }, dim = 4 } }
local cases = { -- name, model, changes to one rank's configuration, and { ranks, distributed } …
    { "full, a last step that is not full", {}, {}, { 2, { pp_size = 2 } }, { 4, { pp_size = 4 } },
      { 2, { pp_size = 2, pipeline = { layers_per_stage = 4, pp_microbatch_size = 1 } } } },
    { "tied embeddings, alone and beside data parallel and FSDP", { tie_word_embeddings = true }, {},
      { 4, { pp_size = 4 } }, { 4, { pp_size = 2 } }, { 4, { pp_size = 2, strategy = "fsdp2" } } },
    { "LoRA, packed rows", {}, { peft = { target_modules = "*_proj", dim = 4 },
                                 packed_sequence = { packed_sequence_size = 48 } }, { 2, { pp_size = 2 } } },
    { "LoRA of one layer: stages without anything to train", {}, layers, { 4, { pp_size = 4 } },
      { 4, { pp_size = 2, strategy = "fsdp2" } } },
    { "groups of matrices that one stage has (Muon)", {}, {
        optimizer = { _target_ = "am.optim.Muon", param_group_overrides = {
            { pattern = "layers.4.mlp", lr_mult = 2 }, { pattern = "layers.0.", wd_mult = 0 } } },
    }, { 2, { pp_size = 2 } } },
    { "frozen embeddings", {}, { freeze_config = { freeze_embeddings = true } }, { 2, { pp_size = 2 } } },
    { "a head alone, beside FSDP", {}, { freeze_config = { freeze_language_model = true } },
      { 4, { pp_size = 2, strategy = "fsdp2" } } },
    { "steps of one micro-batch", {}, window(1), { 4, { pp_size = 4 } } },
    { "steps of three, with activation checkpointing", {}, window(3),
      { 2, { pp_size = 2, activation_checkpointing = true } } },
    { "experts, whose balance is learnt", { architectures = { "MixtralForCausalLM" }, model_type = "mixtral",
                                            num_local_experts = 4, num_experts_per_tok = 2,
                                            output_router_logits = true, router_aux_loss_coef = 0.1 }, {},
      { 4, { pp_size = 4 } }, { 4, { pp_size = 2, ep_size = 2, strategy = "fsdp2" } } },
    { "beside context parallel, packed rows", {}, { packed_sequence = { packed_sequence_size = 48 } },
      { 4, { pp_size = 2, cp_size = 2 } }, { 8, { pp_size = 2, cp_size = 2, strategy = "fsdp2" } } },
}

ranks.describe("pipeline parallel", function()
    it("gives the same bits as a whole model, for any number of micro-batches", function()
        for _, n in ipairs { 2, 3 } do
            local status, out, errors = helper.run({ "tests/dist/pipeline.lua" }, { before = ranks.mpirun(n) })
            assert.equal(0, status, out .. errors)
            assert.matches("memory: ok", out)
        end
    end)

    for _, case in ipairs(cases) do
        it("learns what one rank learns: " .. case[1], function()
            local changes = helper.changes(saved(case[2]), case[3])
            -- a random model at 1e-2 makes 2e-4 of a sum's order in 18 steps
            changes = helper.changes({ optimizer = { lr = 2e-3 } }, changes)
            local one, dir = ranks.train(1, changes)
            for i = 4, #case do
                local n, distributed = unpack(case[i])
                local many, its_dir = ranks.train(n, helper.changes({ distributed = { strategy = "ddp" } },
                                                                    { distributed = distributed }, changes),
                                                  { "--checkpoint.enabled", "false" })
                ranks.compare(one, many)
                local val = helper.jsonl(dir .. "/validation.jsonl")
                for k, record in ipairs(helper.jsonl(its_dir .. "/validation.jsonl")) do
                    assert.is_true(math.abs(val[k].val_loss - record.val_loss) < 2e-5 * math.max(1, val[k].val_loss))
                end
                for k, record in ipairs(many) do
                    assert.equal(one[k].aux_loss == nil, record.aux_loss == nil)
                end
            end
        end)
    end

    it("refuses what stages can't do, with the key and the numbers", function()
        local function refused(text, changes, words)
            local cfg = helper.config(helper.folder(), helper.changes({ distributed = { pp_size = 2 } }, changes))
            local status, out, errors = helper.train(cfg, words, { before = ranks.mpirun(2) })
            assert.not_equal(0, status, out .. errors)
            assert.matches(text, errors)
        end
        refused("pp_size: 2 stages are more than the model's 1 layers",
                { model = { pretrained_model_name_or_path = saved { num_hidden_layers = 1 }.model
                            .pretrained_model_name_or_path } })
        refused("pp_microbatch_size: 3 does not divide step_scheduler.local_batch_size, which is 2",
                { distributed = { pipeline = { pp_microbatch_size = 3 } } })
        refused("samples: a model in stages %(distributed.pp_size 2%) does not generate",
                { samples = { prompts = { "a" } } })
        refused("pipeline.pp_schedule is \"?interleaved1f1b\"?: not there yet",
                { distributed = { pipeline = { pp_schedule = "interleaved1f1b" } } })
    end)
end)
