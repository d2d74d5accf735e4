-- Ranks that share matrices, and tokens between blocks, learn what one rank learns: the recipe under mpirun, the same
-- global batch in the same order. Skipped, and counted, where there is no mpirun or no amlua_mpi.so.
local helper = require("tests.recipe.helper")
local mixture = require("tests.dist.mixtures")
local ranks = require("tests.dist.ranks")

local function tp(size, more)
    return helper.changes({ strategy = "ddp", tp_size = size }, more or {})
end

local WITHOUT_FILES = { "--checkpoint.enabled", "false" }

local GOLDEN = "tests/parity/models/golden/"

-- Another model for the run.
local function of(name, vocab, changes)
    return helper.changes({ model = { pretrained_model_name_or_path = name },
                            dataset = { vocab_size = vocab }, validation_dataset = { vocab_size = vocab } },
                          changes or {})
end

local mha, tied = "tests/parity/golden/tiny_llama/mha", "tests/parity/golden/tiny_llama/gqa_tied"
local no_dropout = { resid_pdrop = 0, embd_pdrop = 0, attn_pdrop = 0 }
local sequence = { sequence_parallel = true }
local lora = { peft = { target_modules = "*_proj", dim = 4 } }
local packed = { packed_sequence = { packed_sequence_size = 48 } }
local fsdp = { strategy = "fsdp2", tp_size = 2 }

-- transformers' own plan of Llama, and others.
local plans = {
    llama = {
        ["layers.*.self_attn.q_proj"] = "colwise", ["layers.*.self_attn.k_proj"] = "colwise",
        ["layers.*.self_attn.v_proj"] = "colwise", ["layers.*.self_attn.o_proj"] = "rowwise",
        ["layers.*.mlp.gate_proj"] = "colwise", ["layers.*.mlp.up_proj"] = "colwise",
        ["layers.*.mlp.down_proj"] = "rowwise",
    },
    rest = { -- what other plans leave whole
        ["model.embed_tokens"] = "embedding_rowwise", ["lm_head"] = "colwise_gather_output",
        ["model.layers.*.self_attn.q_proj"] = "colwise_rep", ["model.layers.*.self_attn.o_proj"] = "rowwise_rep",
    },
    one_layer = { ["model.layers.1.mlp.*"] = "colwise", ["model.layers.1.mlp.down_proj"] = "rowwise" },
}

local cases = {
    { "a plan: layers alone", 2, tp(2, { tp_plan = plans.llama }) },
    { "a plan: vocabulary and single maps", 2, tp(2, { tp_plan = plans.rest }), lora },
    { "a plan: vocabulary and single maps, sequence parallel", 2,
      tp(2, helper.changes(sequence, { tp_plan = plans.rest })), of(GOLDEN .. "qwen2", 48) },
    { "a plan: one block, sequence parallel", 2, tp(2, helper.changes(sequence, { tp_plan = plans.one_layer })) },
    { "full, rows of two, 67 tokens of the vocabulary by two", 2, tp(2) },
    { "rows that other ranks have", 4, tp(2) },
    { "sequence parallel", 2, tp(2, sequence) },
    { "sequence parallel, rows that other ranks have", 4, tp(2, sequence), packed },
    { "four ranks, sequence parallel", 4, tp(4, sequence), of(mha, 67) },
    { "LoRA", 2, tp(2), lora },
    { "LoRA, sequence parallel, recomputed", 2, tp(2, helper.changes(sequence, { activation_checkpointing = true })),
      lora },
    { "LoRA with dropout, of maps whose dropout ranks share", 2, tp(2),
      { peft = { target_modules = { "*.o_proj", "*.down_proj" }, dim = 4, dropout = 0.3 } } },
    { "GPT-2 with dropout of what ranks share", 2, tp(2), of(GOLDEN .. "gpt2", 48, { model = { attn_pdrop = 0 } }) },
    { "DoRA of every map", 2, tp(2), { peft = { match_all_linear = true, dim = 4, use_dora = true } } },
    { "tied embeddings, sequence parallel", 4, tp(2, sequence), of(tied, 67) },
    { "frozen embeddings", 2, tp(2, sequence), { freeze_config = { freeze_embeddings = true } } },
    { "packed rows", 2, tp(2), packed },
    { "GPT-2", 2, tp(2, sequence), of(GOLDEN .. "gpt2", 48, { model = no_dropout }) },
    { "Phi-3, LoRA, sequence parallel", 2, tp(2, sequence),
      of(GOLDEN .. "phi3", 48, { peft = { target_modules = "*_proj", dim = 4 } }) },
    { "experts", 2, tp(2, sequence), of(GOLDEN .. "qwen2_moe", 48, { model = { output_router_logits = true } }) },
    { "in stages, too", 4, tp(2, { pp_size = 2 }) },
    { "in stages, too, sequence parallel, tied", 4, tp(2, helper.changes(sequence, { pp_size = 2 })), of(tied, 67) },
    { "in stages, too, LoRA of every map", 4, tp(2, { pp_size = 2 }),
      { peft = { match_all_linear = true, dim = 4 } } },
    { "in stages, too, experts, recomputed in part", 4,
      tp(2, helper.changes(sequence, { pp_size = 2, activation_checkpointing = "selective" })),
      of(GOLDEN .. "qwen2_moe", 48, { model = { output_router_logits = true } }) },
    { "parts of rows, too, packed", 4, tp(2, helper.changes(sequence, { cp_size = 2 })), packed },
    { "sharded, parts of rows, too, LoRA, recomputed", 4,
      helper.changes(fsdp, { cp_size = 2, activation_checkpointing = true }), lora },
    { "sharded, too, sequence parallel, recomputed", 4, helper.changes(fsdp, sequence, {
        activation_checkpointing = true }), of(tied, 67) },
    { "sharded, too, LoRA", 4, fsdp, lora },
}

ranks.describe("tensor parallel", function()
    local alone = {}

    for _, case in ipairs(cases) do
        local name, n, distributed, changes = unpack(case)
        it("learns what one rank learns: " .. name, function()
            local key = changes or cases
            alone[key] = alone[key] or ranks.train(1, changes)
            ranks.compare(alone[key], (ranks.train(n, ranks.with(distributed, changes), WITHOUT_FILES)))
        end)
    end

    for family, changes in pairs {
        mixtral = { model = { output_router_logits = true } },
        qwen2_moe = { distributed = { sequence_parallel = true } },
        granite_moe = { peft = { target_modules = "*put_linear", dim = 4 } },
        gpt_oss = { distributed = { strategy = "fsdp2" } },
    } do
        it("learns what one rank learns: experts that ranks share by number, and by width: " .. family, function()
            local given = helper.changes({ model = { pretrained_model_name_or_path = mixture(family) } }, changes)
            local one = ranks.train(1, helper.changes(given, { distributed = false }), WITHOUT_FILES)
            local many = helper.changes({ distributed = { strategy = "ddp", tp_size = 2, ep_size = 2 } }, given)
            ranks.compare(one, (ranks.train(4, many, WITHOUT_FILES)))
        end)
    end

    local function refused(n, distributed, changes)
        local cfg = helper.config(helper.folder(), ranks.with(distributed, changes))
        local status, _, errors = helper.train(cfg, nil, { before = ranks.mpirun(n), limit = 60 })
        assert.not_equal(0, status)
        return errors
    end

    it("refuses what ranks cannot share, with the key and the numbers", function()
        assert.matches("distributed.tp_size: 3 does not divide num_attention_heads (4)", refused(3, tp(3)), 1, true)
        assert.matches("distributed.tp_size: 4 does not divide num_key_value_heads (2)", refused(4, tp(4)), 1, true)
        assert.matches("distributed.tp_size asks for a multiple of 4 processes, but this run has 2 ranks",
                       refused(2, tp(4)), 1, true)
    end)

    it("refuses plans that cannot be, with the name that is meant", function()
        local function because(words, plan, changes)
            assert.matches("distributed.tp_plan: " .. words, refused(2, tp(2, { tp_plan = plan }), changes), 1, true)
        end
        because("model.norm is sequence_parallel; set distributed.sequence_parallel: true",
                { ["model.norm"] = "sequence_parallel" })
        because("model.embed_tokens and lm_head have one weight: name both or none",
                { lm_head = "colwise" }, { model = { pretrained_model_name_or_path = tied } })
    end)
end)
