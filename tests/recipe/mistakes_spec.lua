-- Five mistakes that everyone makes: each ends in one message that says what to change.
local helper = require("tests.recipe.helper")
local text_model

local function config_of(rows, changes)
    local dir = helper.folder()
    local cfg = helper.config(dir, { model = { pretrained_model_name_or_path = text_model } })
    cfg.dataset = { _target_ = "am.datasets.ColumnMappedTextInstructionDataset",
                    path_or_dataset_id = rows and helper.write(dir .. "/rows.jsonl", rows) or dir .. "/absent.jsonl",
                    column_mapping = { question = "question", answer = "answer" } }
    for section, keys in pairs(changes or {}) do
        cfg[section] = cfg[section] or {}
        for key, value in pairs(keys) do
            cfg[section][key] = value
        end
    end
    return cfg
end

local ROWS = ('{"question": "Who keeps the light?", "answer": "Ada."}\n'):rep(8)

-- The run ends with a status, and on stderr with one message that has every part and no traceback.
local function ends(status, parts, cfg, opts)
    local got, out, errors = helper.train(cfg, nil, opts)
    assert.is_nil(helper.refusal_problem(status, parts, got, out, errors))
    local _, messages = errors:gsub("amlua: ", "")
    assert.equal(1, messages, errors)
    print("# " .. errors:match("amlua: ([^\n]*)"))
end

describe("a common mistake ends in one message:", function()
    setup(function() text_model = helper.text_model() end)
    teardown(helper.cleanup)

    it("a typo", function()
        ends(2, { "config.yaml:", "optimizer.weight_decy", 'did you mean "weight_decay"?' },
             config_of(ROWS, { optimizer = { weight_decy = 0.1 } }))
        ends(2, { "config.yaml:", "optimiser", 'did you mean "optimizer"?' },
             config_of(ROWS, { optimiser = { lr = 1 } }))
    end)

    it("a wrong column", function()
        ends(1, { "rows.jsonl", "prompt", "question", "column_mapping" },
             config_of(ROWS, { dataset = { column_mapping = { question = "prompt", answer = "answer" } } }))
    end)

    it("a missing file", function()
        ends(1, { "absent.jsonl", "no such file", "in dataset, " }, config_of(nil))
        ends(1, { "/no/model", "does not exist" },
             config_of(ROWS, { model = { pretrained_model_name_or_path = "/no/model" } }))
    end)

    it("too large a batch", function()
        ends(1, { "GiB", "step_scheduler.local_batch_size", "activation_checkpointing" },
             config_of(('{"question": "%s?", "answer": "Ada."}\n'):format(("why "):rep(50)):rep(20000),
                       { step_scheduler = { global_batch_size = 20000, local_batch_size = 20000 } }),
             { before = "ulimit -v 4000000;" })
    end)

    it("a wrong template", function()
        local plain = helper.model({ chat_template = false }, text_model, "tokenizer_config.json")
        ends(2, { "chat template", "use_hf_chat_template", "-Instruct" }, config_of(ROWS, {
            model = { pretrained_model_name_or_path = plain }, dataset = { use_hf_chat_template = true } }))
        local file = helper.write(helper.folder() .. "/template.jinja",
                                  "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}")
        for _, streaming in ipairs { false, true } do -- what the message advises
            local status, out, errors = helper.train(config_of(ROWS, {
                model = { pretrained_model_name_or_path = plain }, step_scheduler = { max_steps = 1 },
                dataset = { use_hf_chat_template = true, chat_template = file, streaming = streaming } }))
            assert.equal(0, status, out .. errors)
        end
        local other = helper.model({ chat_template = "{% for m in conversation %}{{ m.role }}{% endfor %}" },
                                   text_model, "tokenizer_config.json")
        ends(1, { "chat_template" }, config_of(ROWS, {
            model = { pretrained_model_name_or_path = other }, dataset = { use_hf_chat_template = true } }))
        local broken = helper.model({ chat_template = "{% for m in messages %}{{ m.role }" }, text_model,
                                    "tokenizer_config.json")
        ends(1, { "chat template, line 1", "unexpected '}'" }, config_of(ROWS, {
            model = { pretrained_model_name_or_path = broken }, dataset = { use_hf_chat_template = true } }))
    end)
end)
