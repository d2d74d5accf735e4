-- Ranks that share the tokens of each row learn what one rank learns: the recipe under mpirun, the same global batch in
-- the same order. And the ring of attention by itself. Skipped, and counted, where there is no mpirun or no
-- amlua_mpi.so.
local helper = require("tests.recipe.helper")
local ranks = require("tests.dist.ranks")

-- A model of random weights, the same on all ranks.
local function model(kind, config)
    return { model = { _target_ = "am.AutoModelForCausalLM.from_config", config = helper.changes({
        model_type = kind, vocab_size = 67, hidden_size = 32, intermediate_size = 48, num_hidden_layers = 2,
        num_attention_heads = 4, num_key_value_heads = 2, head_dim = 8, max_position_embeddings = 128, pad_token_id = 0,
    }, config or {}) } }
end

local cp = { strategy = "ddp", cp_size = 2 }
local all = { strategy = "ddp", cp_size = 4 }
local cases = { -- name, changes to the configuration, the distributed section by the number of ranks
    { "full, grouped heads, accumulated micro-batches", {}, { [2] = cp, [4] = all } },
    { "rows and tokens shared", {}, { [4] = cp } },
    { "sharded over rows and tokens", {}, { [4] = { strategy = "fsdp2", cp_size = 2 } } },
    { "LoRA, a few labels only", { peft = { target_modules = "*_proj", dim = 4 } }, { [2] = cp } },
    { "packed rows, recomputed layers", { packed_sequence = { packed_sequence_size = 48 } },
      { [2] = { strategy = "ddp", cp_size = 2, activation_checkpointing = true }, [4] = cp } },
    { "windows and soft caps (Gemma 2)", model("gemma2", { sliding_window = 6 }), { [2] = cp, [4] = all } },
    { "sinks, windows and experts that are balanced (GPT-OSS)",
      helper.changes(model("gpt_oss", { sliding_window = 7, num_local_experts = 4, num_experts_per_tok = 2,
                                        rope_scaling = { rope_type = "default" } }),
                     { model = { output_router_logits = true } }), { [2] = cp } },
}

describe("context parallel", function()
    if not ranks.can_run then
        pending("there is no mpirun, or no amlua_mpi.so")
        return
    end

    teardown(helper.cleanup)

    for _, case in ipairs(cases) do
        local name, changes, sizes = unpack(case)
        it("learns what one rank learns: " .. name, function()
            local one = ranks.train(1, changes)
            for n, distributed in pairs(sizes) do
                ranks.compare(one, (ranks.train(n, helper.changes({ distributed = distributed }, changes),
                                                { "--checkpoint.enabled", "false" })))
            end
        end)
    end

    it("attends to other ranks' tokens as one rank does", function()
        for _, n in ipairs { 2, 3, 4 } do
            local status, out, errors = helper.shell(("%s timeout 60 %s tests/dist/ring_attention.lua")
                :format(ranks.mpirun(n), helper.amlua))
            assert.equal(0, status, errors)
            assert.matches("all is well on rank " .. n - 1, out)
        end
    end)
end)
