-- The short form: each key's long form, both forms mixed, and what is said of mistakes in it.
local config = require("am.config")
local err = require("am.core.error")
local path = require("am.utils.path")
local short_form = require("am.config.short_form")

local function parse(text, overrides)
    local opts = { name = "run.yaml", overrides = overrides, getenv = function() return "env" end }
    return config.expand_short_form(config.parse(text, opts))
end

local function fails(text, pattern, overrides)
    local ok, e = pcall(parse, text, overrides)
    assert.is_false(ok, "no error for " .. text)
    assert.is_true(err.is(e) and e.code == "usage", tostring(e))
    assert.matches(pattern, e.msg)
end

describe("the short form", function()
    it("stands for the long form", function()
        local text = config.print(parse [[
model:
  name: some/model
  config_overrides: {attention_dropout: 0.1}
data:
  dataset_type: instruction
  path: rows.jsonl
  columns: {question: prompt, answer: reply}
  batch_size: 4
  validation_path: held_out.jsonl
training:
  optimizer: adamw
  learning_rate: 1e-4
  num_epochs: 3
distributed: {strategy: fsdp2, tensor_parallel_size: 1}
]])
        assert.equal([[
model:
  config_overrides:
    attention_dropout: 0.1
  _target_: am.AutoModelForCausalLM.from_pretrained
  pretrained_model_name_or_path: some/model
distributed:
  strategy: fsdp2
  tp_size: 1
dataset:
  _target_: am.datasets.ColumnMappedTextInstructionDataset
  path_or_dataset_id: rows.jsonl
  column_mapping:
    question: prompt
    answer: reply
validation_dataset:
  _target_: am.datasets.ColumnMappedTextInstructionDataset
  path_or_dataset_id: held_out.jsonl
  column_mapping:
    question: prompt
    answer: reply
step_scheduler:
  local_batch_size: 4
  num_epochs: 3
  grad_acc_steps: 1
optimizer:
  _target_: torch.optim.AdamW
  lr: 0.0001
]], text)
        assert.equal(text, config.print(parse(text)))
    end)

    -- every key that stands for one other
    for _, key in ipairs(short_form.keys) do
        it("has " .. key[1] .. " for " .. key[2], function()
            local section, name = key[1]:match("^(%w+)%.(.+)$")
            local cfg = parse(section .. ": {" .. name .. ": $X}")
            assert.is_true(cfg:has(key[2]))
            assert.equal(key.value and key.value("env") or "env", cfg:get(key[2]))
            assert.equal("run.yaml:1 (" .. key[1] .. ")", cfg:where(key[2]))
            assert.is_false(cfg:has(key[1]))
        end)
    end

    it("knows what rows there are", function()
        local cases = {
            { "{path: a}", "am.datasets.ColumnMappedTextInstructionDataset", "path_or_dataset_id" },
            { "{dataset_type: packed, path: a, seq_length: 512}", "am.datasets.ColumnMappedTextInstructionDataset",
                "path_or_dataset_id" },
            { "{dataset_type: evaluation, path: a, limit: 5}",
                "nemo_automodel.components.datasets.llm.hellaswag.HellaSwag", "path_or_dataset" },
            { "{dataset_type: vlm, path: a}", "nemo_automodel.components.datasets.vlm.datasets.make_cord_v2_dataset",
                "path_or_dataset" },
        }
        for _, case in ipairs(cases) do
            local cfg = parse("data: " .. case[1])
            assert.equal(case[2], cfg:get("dataset._target_"))
            assert.equal("a", cfg:get("dataset." .. case[3]))
        end
        assert.equal("am.datasets.build_unpacked_dataset", parse("data: {dataset_type: mock}"):get("dataset._target_"))
        assert.equal(512, parse("data: " .. cases[2][1]):get("packed_sequence.packed_sequence_size"))
        assert.is_false(parse("data: " .. cases[2][1]):has("dataset.seq_length"))
        assert.equal(2048, parse("data: {dataset_type: packed, path: a}"):get("packed_sequence.packed_sequence_size"))
        assert.equal(5, parse("data: " .. cases[3][1]):get("dataset.limit_dataset_samples"))
        assert.equal(64, parse("data: {path: a, seq_length: 64}"):get("dataset.seq_length"))
        local cfg = parse("data: {dataset_type: evaluation, path: a, split: train, validation_split: validation}")
        assert.same({ "train", "validation", "a" }, { cfg:get("dataset.split"), cfg:get("validation_dataset.split"),
            cfg:get("validation_dataset.path_or_dataset") })
    end)

    it("makes a step of data.batch_size rows unless it is told how many", function()
        assert.equal(1, parse("data: {batch_size: 4}"):get("step_scheduler.grad_acc_steps"))
        local text = "data: {batch_size: 4}\ntraining: {gradient_accumulation_steps: 8}"
        assert.equal(8, parse(text):get("step_scheduler.grad_acc_steps"))
        local cfg = parse("data: {batch_size: 4}\ntraining: {global_batch_size: 16}")
        assert.is_false(cfg:has("step_scheduler.grad_acc_steps"))
    end)

    it("is left alone where there is none of it", function()
        local text = "model:\n  _target_: a\noptimizer:\n  lr: 1\ndistributed:\n  strategy: ddp\n"
        assert.equal(text, config.print(parse(text)))
    end)

    it("mixes with the long form where they agree", function()
        local cfg = parse("training: {learning_rate: 1e-4}\noptimizer: {_target_: torch.optim.SGD, lr: 1e-4}")
        assert.equal(1e-4, cfg:get("optimizer.lr"))
        assert.equal("torch.optim.SGD", cfg:get("optimizer._target_"))
        fails("training: {learning_rate: 1e-4}\noptimizer: {lr: 2e-4}",
            "^run%.yaml:1: training%.learning_rate stands for optimizer%.lr, which run%.yaml:2 sets to something else")
    end)

    it("gives way to the command line, and wins from there", function()
        local text = "training: {learning_rate: 1e-4}"
        assert.equal(5, parse(text, { { path = "optimizer.lr", value = "5" } }):get("optimizer.lr"))
        assert.equal(5, parse("optimizer: {lr: 1}", { { path = "training.learning_rate", value = "5" } })
            :get("optimizer.lr"))
        assert.equal(5, parse(text, { { path = "training.learning_rate", value = "5" } }):get("optimizer.lr"))
        fails("a: 1", "stands for optimizer%.lr", {
            { path = "training.learning_rate", value = "5" }, { path = "optimizer.lr", value = "6" },
        })
    end)

    it("says what is wrong with it by its own names", function()
        fails("training: {learning_rat: 1}", '^run%.yaml:1: training%.learning_rat: unknown key of the short form '
            .. '%(did you mean "learning_rate"')
        fails("data: {colums: 1}", 'data%.colums: unknown key of the short form %(did you mean "columns"')
        fails("data: {dataset_type: instructions}", '"instructions" %(did you mean "instruction"%?%); expected one of '
            .. "evaluation, instruction, mock, packed, vlm")
        fails("data: {dataset_type: [1]}", "expected one of")
        fails("data: {dataset_type: mock, path: a}", "data%.path: a data set of type mock has no path")
        fails("data: {dataset_type: evaluation, path: a, columns: {a: b}}", "of type evaluation has no columns")
        fails("data: 3", "data: expected a section of keys")
        fails("training: [1]", "training: expected a section of keys")
        local cfg = parse("training: {learning_rate: fast}")
        local ok, e = pcall(config.validate, cfg, { fields = { optimizer = { fields = { lr = "number" } } } })
        assert.is_false(ok)
        assert.matches('^run%.yaml:1 %(training%.learning_rate%): optimizer%.lr: expected a number, got .* "fast"',
            e.msg)
    end)

    it("keeps variables and secrets out of what is printed", function()
        local text = config.print(parse("model: {name: $X}\ndata: {path: 'https://me:abc@host/x'}"))
        assert.matches("pretrained_model_name_or_path: \"$X\"", text)
        assert.not_matches("abc", text)
    end)

    it("has every key in the table of the documentation", function()
        local page = assert(path.read_file("docs/configuration.md"))
        local function documented(name)
            assert.is_truthy(page:find("`" .. name .. "`", 1, true), name)
        end
        for _, key in ipairs(short_form.keys) do
            documented(key[1])
            documented(key[2])
        end
        for _, key in ipairs(short_form.data_keys) do
            documented("data." .. key)
        end
    end)
end)
