-- Ranks that share matrices, and tokens between blocks, learn what one rank learns: the recipe under mpirun, the same
-- global batch in the same order. Skipped, and counted, where there is no mpirun or no amlua_mpi.so.
local helper = require("tests.recipe.helper")
local ranks = require("tests.dist.ranks")

local function with(distributed, changes)
    return helper.changes({ distributed = distributed }, changes or {})
end

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

local cases = {
    { "full, rows of two, 67 tokens of the vocabulary by two", 2, tp(2) },
    { "rows that other ranks have", 4, tp(2) },
    { "sequence parallel", 2, tp(2, sequence) },
    { "sequence parallel, rows that other ranks have", 4, tp(2, sequence), packed },
    { "four ranks", 4, tp(4), of(mha, 67) },
    { "four ranks, sequence parallel, tokens that they don't divide", 4, tp(4, sequence), of(mha, 67) },
    { "LoRA", 2, tp(2), lora },
    { "LoRA, sequence parallel, recomputed", 2, tp(2, helper.changes(sequence, { activation_checkpointing = true })),
      lora },
    { "DoRA of every map", 2, tp(2), { peft = { match_all_linear = true, dim = 4, use_dora = true } } },
    { "tied embeddings", 2, tp(2), of(tied, 67) },
    { "tied embeddings, sequence parallel", 4, tp(2, sequence), of(tied, 67) },
    { "frozen embeddings", 2, tp(2, sequence), { freeze_config = { freeze_embeddings = true } } },
    { "packed rows", 2, tp(2), packed },
    { "GPT-2", 2, tp(2, sequence), of(GOLDEN .. "gpt2", 48, { model = no_dropout }) },
    { "Phi-3", 2, tp(2), of(GOLDEN .. "phi3", 48) },
    { "Phi-3, LoRA, sequence parallel", 2, tp(2, sequence),
      of(GOLDEN .. "phi3", 48, { peft = { target_modules = "*_proj", dim = 4 } }) },
    { "experts", 2, tp(2, sequence), of(GOLDEN .. "qwen2_moe", 48, { model = { output_router_logits = true } }) },
    { "sharded, too", 4, fsdp },
    { "sharded, too, sequence parallel, recomputed", 4, helper.changes(fsdp, sequence, {
        activation_checkpointing = true }), of(tied, 67) },
    { "sharded, too, LoRA", 4, fsdp, lora },
}

describe("tensor parallel", function()
    if not ranks.can_run then
        pending("there is no mpirun, or no amlua_mpi.so")
        return
    end

    teardown(helper.cleanup)

    local alone = {}

    for _, case in ipairs(cases) do
        local name, n, distributed, changes = unpack(case)
        it("learns what one rank learns: " .. name, function()
            local key = changes or cases
            alone[key] = alone[key] or ranks.train(1, changes)
            ranks.compare(alone[key], (ranks.train(n, with(distributed, changes), WITHOUT_FILES)))
        end)
    end
end)
