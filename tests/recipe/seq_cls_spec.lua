-- Classification of sequences as a whole run, and pretraining on streams.
local ffi = require("ffi")
local am = require("am")
local helper = require("tests.recipe.helper")
local io_core = require("am.core.io")
local path = require("am.utils.path")

local function run(cfg, file)
    local recipe = helper.recipe(cfg, file)
    recipe:train()
    helper.close(recipe)
end

describe("llm_seq_cls.lua", function()
    teardown(helper.cleanup)

    local function config(dir, more)
        return helper.config(dir, helper.changes({
            model = { _target_ = "nemo_automodel.NeMoAutoModelForSequenceClassification.from_pretrained",
                      pretrained_model_name_or_path = helper.tiny, num_labels = 3 },
            dataset = { _target_ = "tests/recipe/seq_cls_rows.lua:rows", num_sentences = false, vocab_size = false,
                        mean_len = false, max_sentence_len = false, count = 24 },
            validation_dataset = { _target_ = "tests/recipe/seq_cls_rows.lua:rows", count = 9 },
            dataloader = { collate_fn = "nemo_automodel.components.datasets.utils.default_collater" },
            step_scheduler = { max_steps = 40, val_every_steps = 40, ckpt_every_steps = 40 },
            checkpoint = { save_consolidated = "final" },
        }, more or {}))
    end

    local function train(cfg)
        for key, value in pairs(cfg.dataset) do
            cfg.dataset[key] = value ~= false and value or nil
        end
        local status, _, errors = helper.run { "recipes/llm_seq_cls.lua", helper.yaml(helper.folder(), cfg),
                                               "--allow-user-code" }
        assert.equal(0, status, errors)
    end

    it("learns classes, and says how many it gets right", function()
        local dir = helper.folder()
        train(config(dir))
        local records = helper.jsonl(path.join(dir, "training.jsonl"))
        assert.near(math.log(3), records[1].loss, 0.5)
        assert.is_true(records[40].loss < 0.3, tostring(records[40].loss))
        assert.equal(1, records[40].accuracy)
        assert.equal(4, records[1].num_label_tokens)
        assert.equal(1, helper.jsonl(path.join(dir, "validation.jsonl"))[1].val_accuracy)

        -- what is exported classifies as the run did
        local model = am.AutoModelForSequenceClassification.from_pretrained(helper.latest(dir)
                                                                             .. "/model/consolidated")
        local rows = dofile("tests/recipe/seq_cls_rows.lua").rows { count = 9 }
        for i = 1, 9 do
            local row = rows:get(i)
            local logits = model:forward({ input_ids = { row.input_ids } }).logits
            assert.equal(row.labels[1] or row.labels, logits:argmax(-1):item())
        end
    end)

    it("trains the whole head beside an adapter, and goes on bit for bit", function()
        local whole, parts = helper.folder(), helper.folder()
        local lora = { peft = { dim = 4, dropout = 0.1 } }
        train(config(whole, helper.changes(lora, { step_scheduler = { max_steps = 6, ckpt_every_steps = 6 } })))
        train(config(parts, helper.changes(lora, { step_scheduler = { max_steps = 3, ckpt_every_steps = 3 } })))
        train(config(parts, helper.changes(lora, { step_scheduler = { max_steps = 6, ckpt_every_steps = 3 } })))
        assert.same(helper.curve(whole), helper.curve(parts))
        local adapter = io_core.open(helper.latest(whole) .. "/model/adapter_model.safetensors")
        assert.is_truthy(adapter:info("base_model.model.score.weight"))
        adapter:close()

        -- merged, it is a classifier of its own
        local out = helper.folder() .. "/merged"
        local status, _, errors = helper.run { "recipes/merge_lora.lua", "--base-model", helper.tiny, "--adapter-path",
                                               helper.latest(whole) .. "/model", "--output-dir", out }
        assert.equal(0, status, errors)
        local merged = am.AutoModelForSequenceClassification.from_pretrained(out)
        local adapted = am.AutoModelForSequenceClassification.from_pretrained(helper.tiny, { num_labels = 3 })
        am.peft.load_adapter(adapted, helper.latest(whole) .. "/model")
        local row = { input_ids = { 11, 24, 37, 5 } }
        local difference = merged:forward(row).logits - adapted:forward(row).logits
        assert.is_true(difference:abs():max():item() < 1e-5)
    end)

    it("says what a causal model lacks", function()
        local cfg = config(helper.folder(), { model = { _target_ = "am.AutoModelForCausalLM.from_pretrained" } })
        cfg.model.num_labels = nil
        for key, value in pairs(cfg.dataset) do
            cfg.dataset[key] = value ~= false and value or nil
        end
        local status, _, errors = helper.run { "recipes/llm_seq_cls.lua", helper.yaml(helper.folder(), cfg),
                                               "--allow-user-code" }
        assert.equal(2, status)
        assert.matches("model%._target_: no classifier; take am%.AutoModelForSequenceClassification", errors)
    end)
end)

describe("llm_pretrain.lua", function()
    teardown(helper.cleanup)

    it("learns a stream of tokens from random weights, and goes on bit for bit", function()
        local data = helper.folder()
        local head, tokens = ffi.new("int32_t[256]", { 278895051, 1, 2000, 2 }), ffi.new("uint16_t[2000]")
        for i = 0, 1999 do
            tokens[i] = (i * i + 3 * i) % 67
        end
        local shard = helper.write(data .. "/a.bin", ffi.string(head, 1024) .. ffi.string(tokens, 4000))
        local function config(dir, steps)
            return helper.config(dir, {
                model = { _target_ = "am.AutoModelForCausalLM.from_config", pretrained_model_name_or_path = false,
                          config = helper.tiny },
                step_scheduler = { max_steps = steps, ckpt_every_steps = 3 },
            }), { _target_ = "nemo_automodel.components.datasets.llm.nanogpt_dataset.NanogptDataset",
                  file_pattern = shard, seq_len = 16 }
        end
        local function pretrain(dir, steps)
            local cfg, dataset = config(dir, steps)
            cfg.model.pretrained_model_name_or_path, cfg.dataset = nil, dataset
            run(cfg, "recipes/llm_pretrain.lua")
        end
        local whole, parts = helper.folder(), helper.folder()
        pretrain(whole, 6)
        pretrain(parts, 3)
        pretrain(parts, 6)
        assert.same(helper.curve(whole), helper.curve(parts))
        assert.equal(6, #helper.curve(whole))
    end)
end)
