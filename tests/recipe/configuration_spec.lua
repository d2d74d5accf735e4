-- What sections of a configuration do to a run, beyond what their components' own specs show.
local am = require("am")
local helper = require("tests.recipe.helper")
local json = require("am.utils.json")

-- A changed configuration, whose dataset is another when one is given.
local function config(changes, dataset)
    local cfg = helper.config(helper.folder(), changes)
    cfg.dataset = dataset or cfg.dataset
    return cfg
end

-- A recipe in this process and what it logged; it is closed after use(recipe, log).
local function with_recipe(cfg, use)
    helper.log = ""
    local recipe = helper.recipe(cfg)
    local ok, e = pcall(use, recipe, helper.log)
    helper.close(recipe)
    assert(ok, e)
end

-- A file with one row of each length.
local function rows(lengths)
    local lines = {}
    for i, length in ipairs(lengths) do
        local ids = json.array {}
        for t = 1, length do
            ids[t] = (t * 7 + i) % 40
        end
        lines[i] = json.encode { input_ids = ids, labels = ids }
    end
    return helper.write(helper.folder() .. "/rows.jsonl", table.concat(lines, "\n") .. "\n")
end

local function pretokenized(lengths)
    return { _target_ = "am.datasets.PretokenizedDataset", path_or_dataset_id = rows(lengths) }
end

describe("a configuration", function()
    teardown(helper.cleanup)

    it("is told which of its keys change nothing here", function()
        with_recipe(config {
            model = { use_sdpa_patching = true }, checkpoint = { staging_dir = "x" },
            comet = { project = "x" }, distributed = { strategy = "ddp", dp_size = 1 }, ci = { a = 1 },
        }, function(_, log)
            assert.matches("without effect here: ", log, 1, true)
            for _, key in ipairs { "model.use_sdpa_patching", "checkpoint.staging_dir", "comet" } do
                assert.is_truthy(log:find(key .. " (", 1, true), key)
            end
            assert.is_nil(log:find("dp_size", 1, true))
        end)
        with_recipe(config {}, function(_, log) assert.is_nil(log:find("without effect", 1, true)) end)
    end)

    it("with two seeds goes by the section's, and says so", function()
        with_recipe(config { rng = { seed = 3 }, seed = 4 }, function(recipe, log)
            assert.equal(3, recipe.seed)
            assert.is_truthy(log:find("rng.seed is 3 and seed is 4", 1, true), log)
        end)
    end)

    it("freezes what freeze_config names", function()
        with_recipe(config { freeze_config = { freeze_embeddings = true } }, function(recipe)
            for name, t in recipe.model:named_parameters() do
                assert.equal(name ~= "model.embed_tokens.weight", t.requires_grad)
            end
        end)
        with_recipe(config { freeze_config = { freeze_language_model = true } }, function(recipe)
            for name, t in recipe.model:named_parameters() do
                assert.equal(name == "lm_head.weight", t.requires_grad)
            end
        end)
    end)

    it("may have sections of nothing, and switched off", function()
        local cfg = config { compile = { enabled = false }, peft = json.null }
        for _, key in ipairs { "lr_scheduler", "loss_fn", "dataloader", "validation_dataset" } do
            cfg[key] = json.null
        end
        with_recipe(cfg, function(recipe)
            assert.is_nil(recipe.peft_config)
            recipe:train()
        end)
    end)

    it("recomputes layers where the distributed section says so", function()
        for _, value in ipairs { true, "selective" } do
            with_recipe(config { distributed = { activation_checkpointing = value } }, function(recipe)
                assert.equal(value, recipe.model.model.activation_checkpointing)
            end)
        end
    end)
end)

describe("rows that are longer than the model", function()
    teardown(helper.cleanup)

    for name, limit in pairs { rope_llama3 = 256, rope_yarn = 128, rope_linear = 64, gqa = 64 } do
        it("are refused: " .. name, function()
            local status, _, errors = helper.train(config({
                model = { pretrained_model_name_or_path = "tests/parity/golden/tiny_llama/" .. name },
            }, pretokenized { 20, limit + 1 }))
            assert.is_nil(helper.refusal_problem(1, { "row", limit + 1 .. " tokens", limit .. " positions" }, status,
                                                 "", errors))
        end)
    end

    it("are taken where the rotary embedding grows with them", function()
        local model = { pretrained_model_name_or_path = "tests/parity/golden/tiny_llama/rope_dynamic" }
        with_recipe(config({ model = model }, pretokenized { 20, 70 }), function(recipe) recipe:train() end)
    end)

    it("are dropped by packing before anybody minds", function()
        with_recipe(config({ packed_sequence = { packed_sequence_size = 32 } }, pretokenized { 20, 70, 25, 12 }),
                    function(recipe) recipe:train() end)
    end)
end)

describe("an adapted head", function()
    teardown(helper.cleanup)

    it("never has all logits in memory", function()
        local dir, vocab, tokens = helper.folder(), 20000, 2048
        am.manual_seed(3)
        am.AutoModelForCausalLM.from_config {
            architectures = { "LlamaForCausalLM" }, model_type = "llama", hidden_size = 16, intermediate_size = 16,
            num_hidden_layers = 1, num_attention_heads = 2, num_key_value_heads = 1, vocab_size = vocab,
            max_position_embeddings = tokens, rms_norm_eps = 1e-5,
        }:save_pretrained(dir)
        local ids = {}
        for t = 1, tokens do
            ids[t] = t * 31 % vocab
        end
        local file = helper.write(dir .. "/rows.jsonl", json.encode { input_ids = ids, labels = ids } .. "\n")
        with_recipe(config({
            model = { pretrained_model_name_or_path = dir }, peft = { match_all_linear = true, dim = 2 },
            step_scheduler = { global_batch_size = 1, local_batch_size = 1, max_steps = 1 },
        }, { _target_ = "am.datasets.PretokenizedDataset", path_or_dataset_id = file }), function(recipe)
            local before = am.memory().live_bytes
            require("am.core.ffi").C.am_mem_reset_peak(0)
            recipe:train()
            local above = am.memory().peak_bytes - before
            assert.is_true(above < tokens * vocab * 4 / 2, "up to " .. above .. " bytes")
        end)
    end)
end)
