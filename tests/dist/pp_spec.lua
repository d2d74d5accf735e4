-- A model in stages learns what a whole one learns: recipes under mpirun with pp_size 2 and 4, beside data parallel and
-- FSDP, too. Skipped, and counted, where there is no mpirun or no amlua_mpi.so.
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

local layers = { peft = { target_modules = { "*layers.3.*" }, dim = 4 } }
local cases = { -- name, model, changes to one rank's configuration, and { ranks, distributed } …
    { "full, a last step that is not full", {}, {}, { 2, { pp_size = 2 } }, { 4, { pp_size = 4 } } },
    { "tied embeddings", { tie_word_embeddings = true }, {}, { 2, { pp_size = 2 } }, { 4, { pp_size = 4 } } },
    { "beside data parallel, tied", { tie_word_embeddings = true }, {}, { 4, { pp_size = 2 } } },
    { "beside FSDP, tied", { tie_word_embeddings = true }, {}, { 4, { pp_size = 2, strategy = "fsdp2" } } },
    { "LoRA, packed rows", {}, { peft = { target_modules = "*_proj", dim = 4 },
                             packed_sequence = { packed_sequence_size = 48 } }, { 2, { pp_size = 2 } } },
    { "stages without anything to train", {}, layers, { 4, { pp_size = 4 } } },
    { "frozen embeddings", {}, { freeze_config = { freeze_embeddings = true } }, { 2, { pp_size = 2 } } },
    { "a head alone", {}, { freeze_config = { freeze_language_model = true } }, { 2, { pp_size = 2 } },
      { 4, { pp_size = 2, strategy = "fsdp2" } } },
    { "LoRA of an early layer, beside FSDP", {}, layers, { 4, { pp_size = 2, strategy = "fsdp2" } } },
    { "steps of one micro-batch", {}, window(1), { 4, { pp_size = 4 } } },
    { "steps of three", {}, window(3), { 2, { pp_size = 2 } }, { 4, { pp_size = 4 } } },
    { "steps of eight", {}, window(8), { 2, { pp_size = 2 } } },
    { "activation checkpointing", {}, {}, { 2, { pp_size = 2, activation_checkpointing = true } },
      { 2, { pp_size = 2, activation_checkpointing = "selective" } } },
    { "sizes of stages and micro-batches", {}, {}, { 2, { pp_size = 2, pipeline = { layers_per_stage = 4,
                                                                                  pp_microbatch_size = 1 } } } },
    { "experts, whose balance is learnt", { architectures = { "MixtralForCausalLM" }, model_type = "mixtral",
                                            num_local_experts = 4, num_experts_per_tok = 2,
                                            output_router_logits = true, router_aux_loss_coef = 0.1 }, {},
      { 2, { pp_size = 2 } }, { 4, { pp_size = 4 } } },
}

describe("pipeline parallel", function()
    if not ranks.can_run then
        pending("there is no mpirun, or no amlua_mpi.so")
        return
    end

    teardown(helper.cleanup)

    for _, case in ipairs(cases) do
        it("learns what one rank learns: " .. case[1], function()
            local changes = helper.changes(saved(case[2]), case[3])
            changes.optimizer = { lr = 2e-3 } -- a random model at 1e-2 makes 2e-4 of a sum's order in 18 steps
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
end)
