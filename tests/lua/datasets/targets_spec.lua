-- The targets of am.datasets and am.training in a configuration, by NeMo Automodel's names.
local config = require("am.config")
local datasets = require("am.datasets")
local training = require("am.training")
local helpers = require("tests.lua.datasets.helpers")

describe("targets", function()
    local ctx

    before_each(function()
        ctx = { registry = config.new_registry() }
        ctx.registry:define_all(datasets.targets)
        ctx.registry:define_all(training.targets)
    end)

    local function section(t)
        return config.from_table(t)
    end

    it("build a dataset and a loader from their sections", function()
        local name = helpers.file '{"q":"a b","a":"c"}\n{"q":"a","a":"d e"}\n'
        local ds = config.instantiate(section {
            _target_ = "nemo_automodel.components.datasets.llm.column_mapped_text_instruction_dataset."
                .. "ColumnMappedTextInstructionDataset",
            path_or_dataset_id = name, column_mapping = { question = "q", answer = "a" }, answer_boundary = "prefix",
            add_eos = true,
        }, ctx, { tokenizer = helpers.tokenizer() })
        os.remove(name)
        assert.equal(2, ds:len())
        local loader = config.instantiate(section {
            _target_ = "torchdata.stateful_dataloader.StatefulDataLoader", batch_size = 2, shuffle = false,
            collate_fn = { _target_ = "nemo_automodel.components.datasets.utils.default_collater",
                pad_seq_len_divisible = 8 },
        }, ctx, { dataset = ds, seed = 1 })
        local batch = loader:next()
        assert.same({ 2, 8, 5 }, { batch.B, batch.T, batch.num_label_tokens })
    end)

    it("take a tokenizer's section without a target", function()
        local name = helpers.file '{"q":"a","a":"b"}\n'
        local built
        ctx.registry:define {
            name = "am.AutoTokenizer.from_pretrained",
            fields = { pretrained_model_name_or_path = { type = "string", required = true } },
            build = function(args)
                built = args.pretrained_model_name_or_path
                return helpers.tokenizer()
            end,
        }
        ctx.registry:define { name = "am.Other", build = function(args) return args end }
        local function dataset(tokenizer)
            return config.instantiate(section {
                _target_ = "am.datasets.ColumnMappedTextInstructionDataset", path_or_dataset_id = name,
                column_mapping = { question = "q", answer = "a" }, tokenizer = tokenizer,
                answer_boundary = "prefix",
            }, ctx)
        end
        assert.equal(1, dataset { pretrained_model_name_or_path = "somewhere" }:len())
        assert.equal("somewhere", built)
        helpers.fails("usage", "tokenizer: expected a section of keys", dataset, "somewhere")
        helpers.fails("usage", "tokenizer.name: unknown key", dataset, { name = "somewhere" })
        helpers.fails("usage", "dataset.tokenizer: expected a tokenizer", dataset, { _target_ = "am.Other" })
        os.remove(name)
    end)

    it("take a collate function by name, or the default one", function()
        for _, collate_fn in ipairs { "nemo_automodel.components.datasets.utils.default_collater", false } do
            local loader = config.instantiate(section {
                _target_ = "torchdata.stateful_dataloader.StatefulDataLoader", collate_fn = collate_fn or nil,
            }, ctx, { dataset = helpers.dataset { 3 } })
            assert.equal(3, loader:next().T)
        end
    end)

    it("refuse unknown keys with the nearest name", function()
        helpers.fails("usage", "limit_dataset_samples", config.instantiate, section {
            _target_ = "am.datasets.ColumnMappedTextInstructionDataset", path_or_dataset_id = "x",
            column_mapping = { question = "q", answer = "a" }, limit_dataset_sample = 3,
        }, ctx, { tokenizer = {} })
        helpers.fails("usage", "answer", config.instantiate, section {
            _target_ = "am.datasets.ColumnMappedTextInstructionDataset", path_or_dataset_id = "x",
            column_mapping = { question = "q", answr = "a" },
        }, ctx, { tokenizer = {} })
    end)

    it("give the step scheduler its defaults, and null its meaning", function()
        local function scheduler(t)
            return config.instantiate(section(t), ctx, { batches_per_epoch = 7 }, {
                default_target = "am.training.StepScheduler",
            })
        end
        local s = scheduler { max_steps = 5, local_batch_size = 4 }
        assert.same({ 100, 8, 5 }, { s.ckpt_every_steps, s.grad_acc_steps, s.max_steps })
        local node = section { local_batch_size = 32 }
        node:set("ckpt_every_steps", nil)
        s = config.instantiate(node, ctx, { batches_per_epoch = 7 }, { default_target = "am.training.StepScheduler" })
        assert.same({ 7, 70 }, { s.ckpt_every_steps, s.max_steps })
        helpers.fails("usage", "max_steps", scheduler, { max_step = 5 })
    end)
end)
