-- Ranks that share the tokens of each row learn what one rank learns: the recipe under mpirun, the same global batch in
-- the same order. And the ring of attention by itself. Skipped, and counted, where there is no mpirun or no
-- amlua_mpi.so.
local am = require("am")
local context_parallel = require("am.distributed.context_parallel")
local datasets = require("am.datasets")
local helper = require("tests.recipe.helper")
local json = require("am.utils.json")
local Module = require("am.nn.module")
local ranks = require("tests.dist.ranks")

-- One of the tests' tiny models of a family, which has a vocabulary of 48.
local function family(name, changes)
    return helper.changes({
        model = { pretrained_model_name_or_path = "tests/parity/models/golden/" .. name },
        dataset = { vocab_size = 48 }, validation_dataset = { vocab_size = 48 },
    }, changes or {})
end

local cp = { strategy = "ddp", cp_size = 2 }
local all = { strategy = "ddp", cp_size = 4 }
local cases = { -- name, changes to the configuration, the distributed section by the number of ranks
    { "full, grouped heads, accumulated micro-batches", {}, { [2] = cp, [4] = all } },
    { "rows and tokens shared", {}, { [4] = cp } },
    { "sharded over rows and tokens", {}, { [4] = { strategy = "fsdp2", cp_size = 2 } } },
    { "stages of layers, and tokens shared", {}, { [4] = { strategy = "ddp", pp_size = 2, cp_size = 2 } } },
    { "matrices and tokens shared", family("gemma2"), { [4] = { strategy = "fsdp2", tp_size = 2, cp_size = 2 } } },
    { "experts by the ranks that share tokens", family("mixtral", { model = { output_router_logits = true } }),
      { [2] = { strategy = "fsdp2", cp_size = 2, ep_size = 2 } } },
    { "LoRA", { peft = { target_modules = "*_proj", dim = 4 } }, { [2] = cp } },
    { "packed rows, recomputed layers", { packed_sequence = { packed_sequence_size = 48 } },
      { [2] = { strategy = "ddp", cp_size = 2, activation_checkpointing = true }, [4] = cp } },
    { "windows and soft caps (Gemma 2)", family("gemma2"), { [2] = cp, [4] = all } },
    { "sinks, windows and experts that are balanced (GPT-OSS)",
      family("gpt_oss", { model = { output_router_logits = true } }), { [2] = cp, [4] = cp } },
    { "frequencies by the longest row (Phi-3)", family("phi3_longrope"), { [2] = cp } },
    { "learned positions (GPT-2)", family("gpt2", { model = { attn_pdrop = 0, resid_pdrop = 0, embd_pdrop = 0 } }),
      { [2] = cp } },
}

ranks.describe("context parallel", function()
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

    -- Rows of which only the last two tokens are learnt: most ranks have none of them.
    local function few_labels(dir)
        local lines = {}
        for i = 1, 20 do
            local row = { input_ids = {}, labels = {} }
            for k = 1, 5 + i * 7 % 23 do
                row.input_ids[k], row.labels[k] = (i * 31 + k * k) % 48, -100
            end
            row.labels[#row.labels - 1], row.labels[#row.labels] = i, 47 - i
            lines[i] = json.encode(row)
        end
        return helper.write(dir .. "/rows.jsonl", table.concat(lines, "\n") .. "\n")
    end

    it("learns from ranks that have no labels, and validates, with a teacher as without", function()
        local dir = helper.folder()
        local rows = { _target_ = "am.datasets.PretokenizedDataset", path_or_dataset_id = few_labels(dir),
                       cache_dir = dir }
        local function train(n, recipe, distributed)
            local out = helper.folder()
            local cfg = helper.config(out, {
                step_scheduler = { global_batch_size = 8, local_batch_size = 2, max_steps = 8, val_every_steps = 4 },
                dataset = false, distributed = distributed, metrics = { { _target_ = "am.metrics.TokenAccuracy" } },
                teacher_model = recipe:find("kd") and {
                    _target_ = "am.AutoModelForCausalLM.from_pretrained",
                    pretrained_model_name_or_path = "tests/parity/golden/tiny_llama/mha" } or nil,
            })
            cfg.dataset, cfg.validation_dataset = rows, rows
            local status, _, errors = helper.run({ recipe, helper.yaml(helper.folder(), cfg) },
                                                 { before = n > 1 and ranks.mpirun(n) or nil })
            assert.equal(0, status, errors)
            return helper.jsonl(out .. "/training.jsonl"), helper.jsonl(out .. "/validation.jsonl")
        end
        for _, recipe in ipairs { helper.finetune, "recipes/llm_kd.lua" } do
            local one, validated = train(1, recipe)
            for _, distributed in ipairs { all, cp } do
                local many, also = train(4, recipe, distributed)
                ranks.compare(one, many)
                for i, r in ipairs(validated) do
                    assert.near(r.val_loss, also[i].val_loss, 2e-5)
                    assert.equal(assert(r.val_token_accuracy), also[i].val_token_accuracy)
                    assert.equal(r.num_label_tokens, also[i].num_label_tokens)
                end
            end
        end
    end)

    it("has noise on embeddings be as large as in whole rows", function()
        local llama = am.AutoModelForCausalLM.from_pretrained(helper.tiny)
        am.peft.neftune(llama, 6)
        context_parallel.apply(llama, { size = function() return 4 end })
        assert.equal(3, llama:get_input_embeddings().noise_alpha) -- by 1 / sqrt(T C), and T is a quarter
        llama:close()
    end)

    it("refuses by name what ranks can't share", function()
        local function refused(changes)
            local cfg = helper.config(helper.folder(), helper.changes({ distributed = cp }, changes))
            local status, out, errors = helper.train(cfg, nil, { before = ranks.mpirun(2) })
            assert.not_equal(0, status, out)
            return errors
        end
        for message, changes in pairs {
            ["attn_implementation is eager"] = { model = { attn_implementation = "eager" } },
            ["cp_size is 2, but model%.layers%.0%.self_attn drops 0%.1"] = { model = { attention_dropout = 0.1 } },
            ["biases by distance %(ALiBi%)"] = {
                model = { pretrained_model_name_or_path = "tests/parity/models/golden/falcon_alibi" } },
            ["cp_size asks for a multiple of 3"] = { distributed = { cp_size = 3 } },
        } do
            assert.matches(message, refused(changes))
        end
        local mesh = { size = function() return 2 end, group = function() end }
        local ok, e = pcall(context_parallel.check, { class_name = "Sees", get_image_features = true }, mesh)
        assert.matches("Sees sees images", tostring(not ok and e))
        ok, e = pcall(context_parallel.check, Module.init(Module.class("Convolution")), mesh)
        assert.matches("Convolution has no attention", tostring(not ok and e))
        local batch = datasets.sequence_classification_collater { { input_ids = { 3, 4 }, labels = 1 } }
        ok, e = pcall(context_parallel.shard, batch, mesh)
        assert.matches("a class is told from a row's last token", tostring(not ok and e))
    end)

    it("attends to other ranks' tokens as one rank does", function()
        for _, n in ipairs { 2, 3, 4 } do
            local status, out, errors = helper.shell(("%s timeout 60 %s tests/dist/ring_attention.lua")
                :format(ranks.mpirun(n), helper.amlua))
            assert.equal(0, status, errors)
            assert.matches("all is well on rank " .. n - 1, out)
        end
    end)
end)
