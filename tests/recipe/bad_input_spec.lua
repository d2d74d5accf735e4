-- Bad input: the message names the file, key, row or tensor and what to do; the exit status is 2 for
-- usage and configuration, 1 for the rest; nothing that was there is lost; nothing crashes.
local am = require("am")
local helper = require("tests.recipe.helper")
local json = require("am.utils.json")
local path = require("am.utils.path")

local text_model

local function columns(file)
    return { _target_ = "am.datasets.ColumnMappedTextInstructionDataset", path_or_dataset_id = file,
             column_mapping = { question = "question", answer = "answer" } }
end

-- A configuration whose rows are text of a file.
local function text_config(dir, rows, changes)
    local file = type(rows) == "string" and helper.write(path.join(dir, "rows.jsonl"), rows) or nil
    local cfg = helper.config(dir, helper.changes({
        model = { pretrained_model_name_or_path = text_model },
        step_scheduler = { max_steps = 2, global_batch_size = 2 },
    }, changes))
    cfg.dataset = columns(file)
    for key, value in pairs(changes and changes.dataset or {}) do
        cfg.dataset[key] = value
    end
    return cfg
end

local function refused(status, wanted, got, out, errors)
    assert.is_nil(helper.refusal_problem(status, wanted, got, out, errors))
end

local function train_refused(status, wanted, cfg, overrides, opts)
    refused(status, wanted, helper.train(cfg, overrides, opts))
end

describe("bad input", function()
    setup(function() text_model = helper.text_model() end)
    teardown(helper.cleanup)

    -- ---- configuration ------------------------------------------------------------------

    local typos = {
        { "a section", { optimiser = { lr = 1 } }, { "optimiser", "optimizer", "config.yaml:" } },
        { "a key", { optimizer = { learning_rate = 1 } }, { "learning_rate", "config.yaml:" } },
        { "a key near another", { optimizer = { weight_decai = 1 } }, { "weight_decai", "weight_decay" } },
        { "a target", { optimizer = { _target_ = "torch.optim.AdamX" } },
          { "torch.optim.AdamX", "did you mean torch.optim.Adam" } },
        { "a step key", { step_scheduler = { max_step = 4 } }, { "max_step", "max_steps" } },
        { "a checkpoint key", { checkpoint = { dir = "x" } }, { "checkpoint.dir" } },
        { "a number that is none", { optimizer = { lr = "fast" } }, { "optimizer.lr", "fast" } },
        { "a negative size", { step_scheduler = { local_batch_size = -1 } }, { "local_batch_size", "-1" } },
        { "batch sizes that do not divide", { step_scheduler = { global_batch_size = 5 } },
          { "global_batch_size", "divisible" } },
        { "a dropout of 1", { peft = { dropout = 1 } }, { "peft.dropout" } },
        { "an initialization", { peft = { lora_A_init = "xaiver" } }, { "peft.lora_A_init", "xaiver", "kaiming" } },
        { "a dtype", { model = { torch_dtype = "float17" } }, { "float17", "model" } },
        { "an integer dtype", { model = { torch_dtype = "int32" } }, { "int32", "model" } },
        { "a state dtype", { optimizer = { state_dtype = "int4" } }, { "int4", "optimizer", "int8" } },
        { "betas", { optimizer = { betas = { 0.9 } } }, { "betas" } },
        { "a device", { device = "gpu" }, { "gpu", "cpu" } },
        { "a device's number", { device = 0 }, { "device", "cuda:0", "not by a number" } },
        { "a dtype of products", { quantization = { load_in_4bit = true, bnb_4bit_compute_dtype = "int8" },
                                   peft = { target_modules = "*_proj" } },
          { "quantization", "bnb_4bit_compute_dtype", "bfloat16" } },
        { "a loss scale", { grad_scaler = { init_scale = 1e39 } }, { "grad_scaler.init_scale", "1.7" } },
        { "several processes", { distributed = { dp_size = 4 } }, { "distributed.dp_size", "one process" } },
        { "a strategy", { distributed = { strategy = "fsdp3" } }, { "distributed.strategy", "fsdp2" } },
        { "a key of processes", { dist_env = { bakend = "x" } }, { "dist_env.bakend", "backend" } },
        { "a module that is no name", { peft = { target_modules = { 1 } } }, { "peft", "no module matches" } },
        { "a module of nothing", { peft = { target_modules = { "a", json.null } } }, { "peft.target_modules" } },
        { "a recipe of FP8", { fp8 = { enabled = true, recipe_name = "mxfp8" } },
          { "fp8.recipe_name", "mxfp8", "rowwise" } },
        { "PiSSA", { peft = { lora_A_init = "pissa" } }, { "peft.lora_A_init", "gaussian" } },
        { "a module to save", { peft = { modules_to_save = "lm_haed" } }, { "peft", "no module lm_haed" } },
        { "a regular expression", { peft = { target_modules = "*.[q_proj" } }, { "peft.target_modules", "*.[q_proj" } },
        { "betas above 1", { optimizer = { betas = { 0.9, 1.5 } } }, { "optimizer", "betas" } },
        { "a module pattern", { peft = { target_modules = "q_prj" } }, { "peft", "q_proj" } },
        { "a schedule", { lr_scheduler = { lr_decay_style = "cosin" } }, { "lr_decay_style", "cosin", "cosine" } },
        { "a preemption signal", { step_scheduler = { preemption_signal = "SIGKILL" } },
          { "preemption_signal", "SIGTERM" } },
        { "a loss", { loss_fn = { _target_ = "am.loss.CrossEntropy" } },
          { "am.loss.CrossEntropy", "MaskedCrossEntropy" } },
        { "a loss of distillation", { loss_fn = { _target_ = "am.loss.KDLoss" } },
          { "loss_fn._target_: am.loss.KDLoss cannot stand here", "am.loss.MaskedCrossEntropy" } },
        { "an optimizer for a loss", { loss_fn = { _target_ = "torch.optim.AdamW" } },
          { "loss_fn._target_: am.optim.AdamW cannot stand here" } },
        { "a loss for an optimizer", { optimizer = { _target_ = "am.loss.MaskedCrossEntropy" } },
          { "optimizer._target_: am.loss.MaskedCrossEntropy cannot stand here" } },
        { "a loss for an adapter", { peft = { _target_ = "am.loss.MaskedCrossEntropy" } },
          { "peft._target_", "am.PeftConfig can" } },
        { "a loss that makes batches", { dataloader = { collate_fn = "am.loss.MaskedCrossEntropy" } },
          { "dataloader.collate_fn: am.loss.MaskedCrossEntropy cannot stand here", "am.datasets.default_collater" } },
        { "a section that is no section", { optimizer = { betas = { a = 1 } } }, { "betas" } },
    }
    for _, case in ipairs(typos) do
        it("in the configuration: " .. case[1], function()
            train_refused(case[4] or 2, case[3], helper.config(helper.folder(), case[2]))
        end)
    end

    it("on the command line", function()
        local cfg = helper.config(helper.folder())
        train_refused(2, { "optimizer.rl", "lr" }, cfg, { "--optimizer.rl", "3" })
        train_refused(2, { "step_scheduler.max_steps" }, cfg, { "--step_scheduler.max_steps", "many" })
        train_refused(2, { "-x" }, cfg, { "-x" })
        train_refused(2, { "--threads" }, cfg, { "--threads", "0" })
        refused(2, { "recipes/no.lua" }, helper.run { "recipes/no.lua" })
        refused(2, { "a configuration is needed" }, helper.run { helper.finetune })
        refused(2, { "/no/such.yaml" }, helper.run { helper.finetune, "/no/such.yaml" })
    end)

    it("as YAML", function()
        local dir = helper.folder()
        for _, case in ipairs {
            { "model: {a: 1\n", { "bad.yaml:" } }, { "model: [1, 2]\n", { "bad.yaml:1", "model" } },
            { "- 1\n- 2\n", { "bad.yaml" } }, { "", { "bad.yaml" } }, { "just text\n", { "bad.yaml" } },
            { "\0\255\254", { "bad.yaml" } }, { "a: &a [*a]\n", { "bad.yaml" } }, { "seed: 1\nseed: 2\n", { "seed" } },
        } do
            local file = helper.write(path.join(dir, "bad.yaml"), case[1])
            refused(2, case[2], helper.run { helper.finetune, file })
        end
        refused(2, { "folder" }, helper.run { helper.finetune, dir })
    end)

    -- ---- models -------------------------------------------------------------------------

    it("for a model: absent, no checkpoint, other architecture", function()
        local function model(name, ...)
            train_refused(1, { ... }, helper.config(helper.folder(), {
                model = { pretrained_model_name_or_path = name } }))
        end
        model("/no/model", "/no/model", "does not exist", "config.yaml:")
        model("someone/not-in-the-cache", "someone/not-in-the-cache", "cache")
        model(helper.folder(), "config.json")
        local dir = helper.model()
        os.remove(dir .. "/model.safetensors")
        model(dir, dir, "model.safetensors")
        model(helper.model { architectures = { "MambaForCausalLM" } }, "MambaForCausalLM", "LlamaForCausalLM",
              "config.json")
        model(helper.model { architectures = false, model_type = false }, "config.json", "LlamaForCausalLM")
        model(helper.tiny .. "/model.safetensors", "model.safetensors", "directory")
        model(helper.write(helper.folder() .. "/config.json", "{}"), "config.json")
    end)

    it("for a model: config.json that lies", function()
        local function model(changes, ...)
            train_refused(1, { ... }, helper.config(helper.folder(), {
                model = { pretrained_model_name_or_path = helper.model(changes) } }))
        end
        model({ hidden_size = 48 }, "embed_tokens", "[67, 32]", "[67, 48]", "config.json")
        model({ intermediate_size = 45 }, "mlp", "[44, 32]", "[45, 32]", "config.json")
        model({ vocab_size = 68 }, "embed_tokens", "[67, 32]", "[68, 32]")
        model({ num_hidden_layers = 3 }, "lacks", "model.layers.2.")
        model({ num_hidden_layers = 1 }, "model.layers.1.")
        model({ num_hidden_layers = "two" }, "num_hidden_layers", "two")
        model({ num_hidden_layers = 1e9 }, "num_hidden_layers")
        model({ hidden_size = -1 }, "hidden_size")
        model({ num_key_value_heads = 3 }, "num_key_value_heads", "config.json")
        model({ num_attention_heads = 0 }, "num_attention_heads")
        model({ hidden_act = "swish2" }, "swish2")
        model({ rope_parameters = { rope_type = "spiral" } }, "spiral", "llama3")
        model({ rope_parameters = { rope_type = "yarn", rope_theta = 1e4 } }, "factor")
        model({ rope_parameters = { rope_type = "linear", factor = "x", rope_theta = 1e4 } }, "factor")
        model({ rms_norm_eps = "small" }, "rms_norm_eps")
        model({ rope_parameters = { rope_type = "default", rope_theta = "hot" } }, "rope_theta")
        model({ max_position_embeddings = "long" }, "max_position_embeddings")
        model({ pad_token_id = 900 }, "pad_token_id", "66")
        model({ rope_scaling = "abc", rope_parameters = false }, "rope_scaling")
        local dir = helper.model()
        helper.write(dir .. "/config.json", "{\"hidden_size\": 32,")
        train_refused(1, { "config.json" }, helper.config(helper.folder(), {
            model = { pretrained_model_name_or_path = dir } }))
    end)

    it("for a model: weights that are damaged", function()
        local whole = helper.read(helper.tiny .. "/model.safetensors")
        local header = tonumber(require("ffi").cast("const uint64_t *", whole)[0])
        local function little(n)
            return require("ffi").string(require("ffi").new("uint64_t[1]", n), 8)
        end
        for name, bytes in pairs {
            empty = "", short = whole:sub(1, 5), cut_header = whole:sub(1, 100), cut_data = whole:sub(1, -5),
            longer = whole .. "abcd",
            huge_header = little(2 ^ 60) .. whole:sub(9), no_json = little(header) .. ("x"):rep(header),
            beyond = little(header) .. whole:sub(9, 8 + header):gsub("%[0, *%d+%]", "[0,99999999]", 1)
                .. whole:sub(9 + header),
            text = "this is no model\n",
        } do
            local dir = helper.model()
            helper.write(dir .. "/model.safetensors", bytes)
            local cfg = helper.config(helper.folder(), { model = { pretrained_model_name_or_path = dir } })
            refused(1, { "model.safetensors" }, helper.train(cfg))
            local gguf = helper.write(dir .. "/model.gguf", "GGUF" .. bytes)
            cfg.model.pretrained_model_name_or_path = gguf
            assert.is_truthy(name)
            refused(1, { "model.gguf" }, helper.train(cfg))
        end
    end)

    it("for a tokenizer", function()
        local rows = '{"question": "Who?", "answer": "Me."}\n'
        local function tokenizer(change, ...)
            local dir = helper.copy(text_model, helper.folder() .. "/model")
            change(dir .. "/tokenizer.json")
            train_refused(1, { ... }, text_config(helper.folder(), rows, {
                model = { pretrained_model_name_or_path = dir } }))
        end
        tokenizer(os.remove, "tokenizer.json")
        tokenizer(function(file) helper.write(file, '{"model": {"type": "Quantum"}}') end, "tokenizer.json", "Quantum")
        tokenizer(function(file) helper.write(file, helper.read(file):sub(1, 3000)) end, "tokenizer.json")
        tokenizer(function(file) helper.write(file, "[]") end, "tokenizer.json")
        for _, name in ipairs { "dataset", "validation_dataset" } do
            for _, case in ipairs {
                { text_model, "a section of keys" }, { { pretrained = text_model }, "pretrained" },
                { { _target_ = "am.PeftConfig" }, "expected a tokenizer" },
            } do
                local cfg = text_config(helper.folder(), rows)
                cfg.validation_dataset = columns(cfg.dataset.path_or_dataset_id)
                cfg[name].tokenizer = case[1]
                train_refused(2, { name, ".tokenizer", case[2] }, cfg)
            end
        end
    end)

    -- ---- data ---------------------------------------------------------------------------

    it("for rows: not JSON, no column, wrong type", function()
        local good = '{"question": "Who?", "answer": "Me."}\n'
        for _, case in ipairs {
            { good .. good .. "{broken\n", { "rows.jsonl row 3" } },
            { good .. '{"question": "Who?", "anser": "x"}\n', { "rows.jsonl row 2", '"answer"', "anser" } },
            { good .. '{"question": "Who?", "answer": 7}\n', { "rows.jsonl row 2", "answer" } },
            { good .. "[1, 2]\n", { "rows.jsonl row 2", "object" } },
            { good .. '{"question": null, "answer": "x"}\n', { "rows.jsonl row 2" } },
            { "", { "rows.jsonl", "no rows" } },
            { '[{"question": "a", "answer": "b"}, ', { "rows.jsonl" } },
        } do
            train_refused(1, case[2], text_config(helper.folder(), case[1]))
        end
        train_refused(1, { "/no/rows.jsonl" }, text_config(helper.folder(), nil,
                                                          { dataset = { path_or_dataset_id = "/no/rows.jsonl" } }))
        train_refused(2, { "column_mapping", "answer" }, text_config(helper.folder(), good, {
            dataset = { column_mapping = { question = "question" } } }))
        train_refused(2, { "column_mapping", "instruction" }, text_config(helper.folder(), good, {
            dataset = { column_mapping = { instruction = "question", answer = "answer" } } }))
    end)

    it("for rows of token ids", function()
        for _, case in ipairs {
            { '{"input_ids": [1, 2, 67]}', { "row 1", "67" } }, { '{"input_ids": [1, -2]}', { "row 1", "-2" } },
            { '{"input_ids": "abc"}', { "row 1", "input_ids" } }, { '{"input_ids": []}', { "rows.jsonl" } },
            { '{"input_ids": [1, 2], "labels": [1]}', { "row 1", "labels" } },
            { '{"input_ids": [1.5, 2]}', { "row 1", "1.5" } }, { '{"labels": [1, 2]}', { "row 1", "input_ids" } },
        } do
            local dir = helper.folder()
            local cfg = helper.config(dir)
            cfg.dataset = { _target_ = "am.datasets.PretokenizedDataset",
                            path_or_dataset_id = helper.write(dir .. "/rows.jsonl", case[1] .. "\n") }
            train_refused(1, case[2], cfg)
        end
    end)

    it("for rows without a label: skipped, counted, named; an error when none is left", function()
        local good, empty = '{"question": "Who?", "answer": "Me."}\n', '{"question": "Who?", "answer": ""}\n'
        local cut = { dataset = { seq_length = 8, truncation = true, add_eos = false } }
        local long = '{"question": "' .. ("why "):rep(40) .. '?", "answer": "Because."}\n'
        local dir = helper.folder()
        local status, _, errors = helper.train(text_config(dir, good .. long .. good .. long, cut))
        assert.equal(0, status, errors)
        assert.is_truthy(errors:find("2 rows", 1, true), errors)
        assert.is_truthy(errors:find("2 skipped", 1, true), errors)
        assert.is_truthy(errors:find("rows.jsonl row 2", 1, true) and errors:find("rows.jsonl row 4", 1, true), errors)
        train_refused(1, { "rows.jsonl", "no row has a label", "2 rows read" },
                      text_config(helper.folder(), long .. long, cut))
        train_refused(1, { "rows.jsonl", "no row has a label" },
                      text_config(helper.folder(), empty))
    end)

    it("for rows longer than the model allows: the row is named before training", function()
        local dir = helper.folder()
        local ids = {}
        for i = 1, 90 do
            ids[i] = i % 60
        end
        local cfg = helper.config(dir)
        local rows = ('{"input_ids": [1, 2, 3]}\n'):rep(20) .. '{"input_ids": [' .. table.concat(ids, ",") .. "]}\n"
        cfg.dataset = { _target_ = "am.datasets.PretokenizedDataset",
                        path_or_dataset_id = helper.write(dir .. "/rows.jsonl", rows) }
        train_refused(1, { "rows.jsonl row 21", "89", "64", "seq_length" }, cfg)
        assert.same({}, helper.curve(dir))
        -- packed, every sample starts at position 0
        cfg.dataset.path_or_dataset_id = helper.write(dir .. "/short.jsonl", ('{"input_ids": [1, 2, 3]}\n'):rep(90))
        cfg.packed_sequence = { packed_sequence_size = 120 }
        local status, _, errors = helper.train(cfg, { "--step_scheduler.max_steps", "1" })
        assert.equal(0, status, errors)
        -- a pack that cannot hold any sample
        train_refused(1, { "packed_sequence_size" }, helper.config(helper.folder(), {
            packed_sequence = { packed_sequence_size = 1 }, dataset = { mean_len = 9, std_len = 0 } }))
    end)
end)

describe("nothing is lost", function()
    teardown(helper.cleanup)

    local function finished(dir, changes)
        local cfg = helper.config(dir, helper.changes({
            step_scheduler = { max_steps = 4, ckpt_every_steps = 1, num_epochs = 100 } }, changes))
        local status, _, errors = helper.train(cfg)
        assert.equal(0, status, errors)
        return cfg
    end

    it("when the loss is no number: the last good checkpoint stays", function()
        for _, keep in ipairs { 1, 5 } do
            local dir = helper.folder()
            -- weights of 1e30 give a loss that is no number in the step behind the one that made them
            local cfg = helper.config(dir, {
                step_scheduler = { max_steps = 9, ckpt_every_steps = 1, num_epochs = 100 },
                optimizer = { lr = 1e30 },
                lr_scheduler = { lr_decay_style = "linear", init_lr = 0, lr_warmup_steps = 1, lr_decay_steps = 9 },
                checkpoint = { max_recent_checkpoints = keep },
            })
            train_refused(1, { "step 2", "optimizer.lr", "epoch_0_step_0" }, cfg)
            assert.equal(2, #helper.curve(dir))
            local latest = helper.latest(dir)
            assert.matches("epoch_0_step_0$", latest)
            cfg.optimizer.lr = 1e-3
            cfg.lr_scheduler.override_opt_param_scheduler = true
            local status, _, errors = helper.train(cfg)
            assert.equal(0, status, errors)
            assert.equal(9, #helper.curve(dir))
        end
        -- without any checkpoint
        local dir = helper.folder()
        train_refused(1, { "step 1", "No checkpoint" }, helper.config(dir, { optimizer = { lr = 1e38 } }))
    end)

    it("when the disk is full during a save", function()
        local dir = helper.folder()
        local cfg = finished(dir)
        local before = helper.latest(dir)
        local copy = helper.copy(before, helper.folder() .. "/copy")
        -- no file may grow beyond 64 KiB: the weights do not fit
        train_refused(1, { "epoch_", "earlier checkpoints are untouched" }, cfg,
                      { "--step_scheduler.max_steps", "6" }, { before = "ulimit -f 64; trap '' XFSZ;" })
        assert.equal(before, helper.latest(dir))
        assert.is_nil(helper.checkpoint_difference(copy, before))
        for _, name in ipairs(path.list_dir(dir)) do
            assert.is_nil(name:find("reserving", 1, true), name)
        end
        local status, _, errors = helper.train(cfg, { "--step_scheduler.max_steps", "6" })
        assert.equal(0, status, errors)
        assert.equal(6, #helper.curve(dir))
    end)

    it("when the disk is full: a file system of 400 KiB", function()
        local mount = helper.folder()
        if os.execute("mount -t tmpfs -o size=400k tmpfs " .. mount .. " 2>/dev/null") ~= 0 then
            pending("mounting needs root")
            return
        end
        local dir = path.join(mount, "run")
        local cfg = helper.config(dir, { step_scheduler = { max_steps = 9, ckpt_every_steps = 1, num_epochs = 100 } })
        local ok, e = pcall(train_refused, 1, { "No space left" }, cfg)
        local latest = helper.latest(dir)
        local names = latest and helper.tree(latest) or {}
        local readable = latest and pcall(helper.tensors, path.join(latest, "optim/optimizer.safetensors"))
        os.execute("umount -l " .. mount)
        assert.is_true(ok, tostring(e))
        assert.is_true(#names >= 8 and readable, "the checkpoint before is not whole")
    end)

    it("when memory is too little: said before the first step", function()
        local dir = helper.folder()
        local cfg = helper.config(dir, {
            dataset = { num_sentences = 2e6 }, step_scheduler = { global_batch_size = 1e6, local_batch_size = 1e6 } })
        local settings = { "GiB", "step_scheduler.local_batch_size", "seq_length", "activation_checkpointing" }
        train_refused(1, settings, cfg, nil,
                      { before = "ulimit -v 4000000;" })
        assert.same({}, helper.curve(dir))
    end)

    it("when a checkpoint is another model's", function()
        local dir = helper.folder()
        finished(dir)
        local before = helper.latest(dir)
        local copy = helper.copy(before, helper.folder() .. "/copy")
        local other = "tests/parity/golden/tiny_llama/"
        for _, case in ipairs {
            { { model = { pretrained_model_name_or_path = other .. "mha" } }, { "num_key_value_heads" } },
            { { model = { pretrained_model_name_or_path = helper.model {
                rope_parameters = { rope_type = "linear", factor = 2, rope_theta = 1e4 } } } }, { "rope_scaling" } },
            { { model = { torch_dtype = "bfloat16" } }, { "dtype" } },
            { { peft = { dim = 4 } }, { "peft" } },
            { { optimizer = { _target_ = "am.optim.SGD" } }, {} },
        } do
            local changed = helper.config(dir, helper.changes({ step_scheduler = { max_steps = 6 } }, case[1]))
            train_refused(1, { path.basename(before), unpack(case[2]) }, changed)
            assert.equal(before, helper.latest(dir))
            assert.is_nil(helper.checkpoint_difference(copy, before))
        end
        assert.equal(4, #helper.curve(dir))
        -- an adapter of another base: the same shapes, other weights
        local lora = helper.folder()
        local cfg = finished(lora, { peft = { dim = 4 } })
        local base = helper.folder()
        am.manual_seed(77)
        local fields = json.decode(helper.read(helper.tiny .. "/config.json"))
        am.AutoModelForCausalLM.from_config(fields):save_pretrained(base)
        cfg.model.pretrained_model_name_or_path = base
        train_refused(1, { "weights", path.basename(helper.latest(lora)) }, cfg, { "--step_scheduler.max_steps", "6" })
        -- the same base, but another meaning of A and B
        cfg.model.pretrained_model_name_or_path = helper.tiny
        train_refused(1, { "peft.alpha is 32 there and 64 here" }, cfg, { "--peft.alpha", "64" })
        -- full fine-tuning of other weights
        cfg = helper.config(dir, { model = { pretrained_model_name_or_path = base },
                                   step_scheduler = { max_steps = 6 } })
        train_refused(1, { "base_weights", path.basename(before) }, cfg)
    end)

    it("when a checkpoint is damaged", function()
        local whole = helper.folder()
        local cfg = finished(whole)
        local latest = path.basename(helper.latest(whole))
        for _, file in ipairs(helper.tree(helper.latest(whole))) do
            for _, damage in ipairs { "cut", "absent", "other" } do
                local reads = file ~= "config.yaml" and file ~= "losses.json" and file .. damage ~= "hooks.jsonother"
                    and file .. damage ~= "manifest.jsonabsent" -- there were checkpoints without
                    and not file:find("/.hf_metadata/", 1, true) -- recipes/consolidate.lua's
                if reads then
                    local dir = helper.folder() .. "/run"
                    helper.copy(whole, dir)
                    local name = path.join(dir, latest, file)
                    if damage == "cut" then
                        helper.write(name, helper.read(name):sub(1, -20))
                    elseif damage == "absent" then
                        os.remove(name)
                    else
                        helper.write(name, file:match("json$") and "{}" or "x")
                    end
                    cfg.checkpoint.checkpoint_dir = dir
                    local named = file == "signature.json" and damage == "other" and "another model"
                        or path.basename(file)
                    train_refused(1, { named }, cfg, { "--step_scheduler.max_steps", "6" })
                end
            end
        end
    end)

    it("when restore_from names none", function()
        local dir = helper.folder()
        local cfg = finished(dir)
        train_refused(2, { "restore_from", "epoch_0_step_99", "epoch_0_step_0" }, cfg,
                      { "--checkpoint.restore_from", "epoch_0_step_99" })
        helper.write(path.join(dir, "epoch_0_step_0/.incomplete"), "")
        train_refused(1, { "epoch_0_step_0", "not finished" }, cfg, { "--checkpoint.restore_from", "epoch_0_step_0" })
    end)

    it("when the run goes on: more steps, more epochs, another schedule", function()
        local dir = helper.folder()
        local cfg = finished(dir)
        local status, _, errors = helper.train(cfg)
        assert.equal(0, status, errors)
        assert.is_truthy(errors:find("complete at step 4", 1, true), errors)
        assert.equal(4, #helper.curve(dir))
        -- raised: as if it had been planned so (the learning rate is constant: its length has no effect)
        local longer = helper.folder()
        finished(longer, { step_scheduler = { max_steps = 7 } })
        status, _, errors = helper.train(cfg, { "--step_scheduler.max_steps", "7" })
        assert.equal(0, status, errors)
        assert.same(helper.curve(longer), helper.curve(dir))
        assert.is_nil(helper.checkpoint_difference(helper.latest(longer), helper.latest(dir),
                                                   "optim/lr_scheduler.json"))
        -- epochs: six steps each
        local epochs = helper.folder()
        cfg = helper.config(epochs, { step_scheduler = { num_epochs = 1 } })
        cfg.step_scheduler.max_steps = nil
        assert.equal(0, (helper.train(cfg)))
        assert.equal(6, #helper.curve(epochs))
        assert.equal(0, (helper.train(cfg, { "--step_scheduler.num_epochs", "2" })))
        assert.equal(12, #helper.curve(epochs))
        assert.equal(1, helper.jsonl(epochs .. "/training.jsonl")[12].epoch)
        -- another learning rate is refused, with a schedule and without
        train_refused(2, { "override_opt_param_scheduler", "max_lr" }, cfg,
                      { "--step_scheduler.num_epochs", "3", "--optimizer.lr", "0.5" })
        train_refused(2, { "override_opt_param_scheduler", "lr_decay_style" }, cfg,
                      { "--step_scheduler.num_epochs", "3", "--lr_scheduler.lr_decay_style", "linear" })
        assert.equal(12, #helper.curve(epochs))
        status, _, errors = helper.train(cfg, { "--step_scheduler.num_epochs", "3", "--optimizer.lr", "0.5",
                                                "--lr_scheduler.override_opt_param_scheduler", "true" })
        assert.equal(0, status, errors)
        local records = helper.jsonl(epochs .. "/training.jsonl")
        assert.equal(18, #records)
        assert.equal(0.5, records[13].lr)
    end)
end)
