-- --dry-run: what it looks at, what it says is not at hand, and how near its memory is to what a run takes.
local am = require("am")
local flops = require("am.recipes.flops")
local helper = require("tests.recipe.helper")
local json = require("am.utils.json")
local memory = require("am.recipes.memory")
local path = require("am.utils.path")
local preflight = require("am.recipes.preflight")
local skeleton = require("am.recipes.skeleton")

local function dry_run(cfg, ...)
    return helper.run { helper.finetune, helper.yaml(helper.folder(), cfg), "--dry-run", ... }
end

describe("--dry-run", function()
    teardown(helper.cleanup)

    it("says what a run would do and need, and writes nothing", function()
        local dir = helper.folder() .. "/run"
        local status, out, errors = dry_run(helper.config(dir, {
            validation_dataset = { _target_ = "am.datasets.build_unpacked_dataset", num_sentences = 5,
                                   vocab_size = 67 } }))
        assert.equal(0, status, errors)
        for _, pattern in ipairs {
            "\nmodel      .*gqa: LlamaForCausalLM, 0%.0 million parameters, 0%.0 of them trained, float32\n",
            "\ndata       24 rows\n", "\nvalidation 5 rows\n",
            "\nsteps      6, of 4 rows each %(2 at a time%); an epoch has 6\n",
            "\nmemory     0%.%d+ GiB at most: .* for %d+ tokens at a time; %d+%.%d+ GiB is available\n",
            "\ntime       about [%d.e-]+ s a step .*, [%d.e-]+ s in all",
            "\ndisk       0%.00 GiB a checkpoint, up to 1 of them in .*: 0%.00 GiB; %d+%.%d+ GiB free\n",
        } do
            assert.matches(pattern, out)
        end
        assert.matches("^.*seed: 11\n", out) -- the configuration comes first
        assert.is_nil(helper.read(dir .. "/training.jsonl"))
    end)

    it("goes on without the model", function()
        local status, out, errors = dry_run(helper.config(helper.folder(), {
            model = { pretrained_model_name_or_path = "some/model" } }))
        assert.equal(0, status, errors)
        assert.matches("\nmodel      not looked at: some/model is neither here nor in the Hugging Face cache", out)
        assert.matches("\ndata       not looked at", out)
        assert.matches("\nsteps      at most 6", out)
        assert.matches("\nmemory, time and disk: not known without the model\n", out)
        local cfg = helper.config(helper.folder(), { model = { pretrained_model_name_or_path = "some/model" } })
        cfg.dataset = { _target_ = "am.datasets.PretokenizedDataset", path_or_dataset_id = "/no/such/rows.jsonl" }
        status, out = dry_run(cfg)
        assert.equal(0, status)
        assert.matches("\ndata       not looked at: there is no /no/such/rows%.jsonl\n", out)
    end)

    it("stops at what would stop the run when it builds its parts", function()
        for _, case in ipairs {
            { { optimizer = { betas = { 0.9 } } }, "betas" },
            { { optimizer = { state_dtype = "int4" } }, "state_dtype" },
            { { optimizer = { param_group_overrides = { { pattern = "(" } } } }, "pattern" },
            { { lr_scheduler = { lr_decay_style = "cosin" } }, "lr_decay_style" },
            { { lr_scheduler = { start_wd = 0.5 } }, "end_wd" }, { { device = "gpu" }, "gpu" },
            { { mlflow = { tracking_uri = "file:/x" } }, "mlflow.tracking_uri" },
            { { freeze_config = { freeze_language_model = true },
                model = { pretrained_model_name_or_path = helper.tiny .. "_tied" } }, "nothing is trainable" },
            { { checkpoint = { restore_from = "nosuch" } }, "restore_from" },
            { { step_scheduler = { preemption_signal = "SIGKILL" } }, "preemption_signal" },
        } do
            local status, out, errors = dry_run(helper.config(helper.folder(), case[1]))
            assert.is_nil(helper.refusal_problem(2, { case[2] }, status, out, errors))
            assert.not_matches("\nmodel      ", out)
        end
    end)

    it("goes on without the data", function()
        local cfg = helper.config(helper.folder())
        cfg.dataset = { _target_ = "am.datasets.PretokenizedDataset", path_or_dataset_id = "/no/such/rows.jsonl" }
        local status, out, errors = dry_run(cfg)
        assert.equal(0, status, errors)
        assert.matches("\ndata       not looked at: .*/no/such/rows%.jsonl", out)
        assert.matches("\nmemory     ", out)
    end)

    it("says of an evaluation what it needs, and no more", function()
        local cfg = helper.config(helper.folder(), {
            optimizer = false, dataset = false, validation_dataset = helper.config("").dataset })
        local file = helper.yaml(helper.folder(), cfg)
        local status, out, errors = helper.run { "recipes/evaluate.lua", file, "--dry-run" }
        assert.equal(0, status, errors)
        assert.matches("\nmodel      .*, 0%.0 million parameters, float32\nvalidation 24 rows\n"
            .. "memory     0%.%d+ GiB at most: 0%.00 GiB of weights, 0%.00 GiB of activations for %d+ tokens at a "
            .. "time; %d+%.%d+ GiB is available\n$", out)
    end)

    it("counts averages and a teacher", function()
        local cfg = helper.config(helper.folder(), { ema = { decay = 0.9 } })
        cfg.teacher_model = { _target_ = cfg.model._target_,
                              pretrained_model_name_or_path = "tests/parity/golden/tiny_llama/mha" }
        local function kd(...)
            return helper.run { "recipes/llm_kd.lua", helper.yaml(helper.folder(), cfg), "--dry-run", ... }
        end
        local status, out, errors = kd()
        assert.equal(0, status, errors)
        assert.matches("\nteacher    .*: LlamaForCausalLM, 0%.00 GiB of weights\n", out)
        assert.matches("\nmemory     .*, 0%.00 GiB of averages, 0%.%d+ GiB of the teacher, ", out)
        status, out, errors = kd("--teacher_model.pretrained_model_name_or_path", "/no/such")
        assert.equal(0, status, errors)
        assert.matches("\nteacher    not looked at, nor counted: /no/such does not exist\n", out)
    end)

    it("says that an adapter is not there", function()
        local cfg = helper.config(helper.folder(), { peft = { adapter_path = "/no/such/adapter" } })
        local status, out, errors = dry_run(cfg)
        assert.equal(0, status, errors)
        assert.matches("\nmodel      not looked at: /no/such/adapter does not exist\n", out)
    end)

    it("counts a classifier's head with an adapter", function()
        local dir = helper.folder()
        local cfg = helper.config(dir .. "/run", {
            model = { _target_ = "am.AutoModelForSequenceClassification.from_pretrained", num_labels = 10000 },
            peft = { target_modules = "*.q_proj", dim = 4, use_dora = true },
        })
        cfg.dataset = { _target_ = "am.datasets.MockSequenceClassificationDataset", vocab_size = 67, num_samples = 8 }
        local status, out, errors = helper.run { "recipes/llm_seq_cls.lua", helper.yaml(dir, cfg), "--dry-run" }
        assert.equal(0, status, errors)
        assert.matches("\nmodel      .*: LlamaForSequenceClassification, 0%.3 million parameters, 0%.3 of them trained",
                       out)
        assert.matches("\ndisk ", out)
    end)

    it("says of a stream what can be known", function()
        local dir = helper.folder()
        helper.write(dir .. "/stream.lua", [[
            local function next_row() return { input_ids = { 1, 2, 3 }, labels = { 2, 3, 4 } } end
            local stream = { is_iterable = true, iter = function() return { next = next_row } end }
            return { rows = function() return stream end }
        ]])
        local cfg = helper.config(dir, { model = { pretrained_model_name_or_path = helper.text_model() } })
        cfg.dataset = { _target_ = dir .. "/stream.lua:rows" }
        local status, out, errors = dry_run(cfg, "--allow-user-code")
        assert.equal(0, status, errors)
        assert.matches("\ndata       a stream of rows\n", out)
        assert.matches("\nsteps      at most 6", out)
    end)

    it("audits the training data alone, as the run would", function()
        local dir = helper.folder()
        local rows = { _target_ = "am.datasets.PretokenizedDataset",
                       path_or_dataset_id = helper.write(dir .. "/rows.jsonl",
                                                         '{"input_ids": [5, 6, 7], "labels": [6, 7, 8]}\n') }
        local cfg = helper.config(dir, { model = { pretrained_model_name_or_path = helper.text_model() } })
        cfg.dataset, cfg.validation_dataset = rows, rows
        local _, out = dry_run(cfg)
        assert.equal(1, select(2, out:gsub("data audit: ", "")), out)
        assert.matches("learn no token that ends the answer", out)
        _, out = dry_run(cfg, "--data_audit.enabled", "false")
        assert.not_matches("data audit: ", out)
        local file = helper.yaml(dir, cfg)
        _, out = helper.run { "recipes/llm_pretrain.lua", file, "--dry-run" }
        assert.matches("data audit: ", out)
        assert.not_matches("learn no token that ends the answer", out)
    end)

    it("ends with what would stop the run", function()
        local cfg = helper.config(helper.folder(), { dataset = { mean_len = 90, std_len = 0, max_sentence_len = 100 } })
        local status, _, errors = dry_run(cfg)
        assert.equal(1, status)
        assert.matches("more than the 64 positions of the model", errors)
        cfg = helper.config(helper.folder(), { optimizer = { rl = 1 } })
        assert.equal(2, (dry_run(cfg)))
    end)

    it("says that num_epochs ends the run before max_steps", function()
        local _, out = dry_run(helper.config(helper.folder(), { step_scheduler = { num_epochs = 1, max_steps = 50 } }))
        assert.matches("steps      6, .*num_epochs ends the run before max_steps %(50%)", out)
    end)

    it("says what does not fit", function()
        local cfg = helper.config(helper.folder(), {
            step_scheduler = { global_batch_size = 100000000, local_batch_size = 100000000 },
            dataset = { num_sentences = 4000, mean_len = 50 } })
        cfg.model = { _target_ = "am.AutoModelForCausalLM.from_config", config = {
            architectures = { "LlamaForCausalLM" }, model_type = "llama", hidden_size = 16, intermediate_size = 2 ^ 18,
            num_hidden_layers = 2, num_attention_heads = 2, vocab_size = 67, max_position_embeddings = 64 } }
        local _, out = dry_run(cfg)
        assert.matches("are available, which is too little: see step_scheduler%.local_batch_size", out)
        local tokens = tonumber(out:match("for (%d+) tokens at a time"))
        assert.is_true(tokens >= 4000 * 20 and tokens <= 4000 * 64, tokens) -- of rows that there are
    end)

    it("counts no more rows than there are, as the run does", function()
        local checked, check = nil, memory.check
        memory.check = function(_, tokens, rows) checked = { tokens, rows } end
        finally(function() memory.check = check end)
        local cfg = helper.config(helper.folder(), {
            packed_sequence = { packed_sequence_size = 64 },
            step_scheduler = { global_batch_size = 400, local_batch_size = 400 } })
        local recipe = helper.recipe(cfg)
        local rows = recipe.loader.dataset:len()
        helper.close(recipe)
        assert.is_true(rows < 400)
        assert.same({ rows * 64, rows .. " rows" }, checked)
        local _, out = dry_run(cfg)
        assert.matches("for " .. rows * 64 .. " tokens at a time", out)
    end)

    it("says nothing of memory and time for a recipe that does not say how many tokens it sees", function()
        local dir, text = helper.folder(), "local r = require('recipes.llm_finetune'):extend('own') %s return r"
        local cfg = helper.yaml(dir, helper.config(dir))
        local own = "function r:loss(...) return require('recipes.llm_finetune').loss(self, ...) end "
        local file = helper.write(dir .. "/own.lua", text:format(own))
        local status, out, errors = helper.run { file, cfg, "--dry-run" }
        assert.equal(0, status, errors)
        assert.matches("\nmemory and time: not known for this recipe", out)
        assert.not_matches("\nmemory  ", out)
        assert.matches("\ndisk ", out)
        helper.write(file, text:format(own .. "function r:tokens_at_once(rows, length) return 3 * rows * length end "))
        local _, before = helper.run { helper.finetune, cfg, "--dry-run" }
        _, out = helper.run { file, cfg, "--dry-run" }
        assert.equal(3 * before:match("for (%d+) tokens at a time"), tonumber(out:match("for (%d+) tokens at a time")))
        helper.write(file, text:format("function r:step(w) return require('recipes.llm_finetune').step(self, w) end"))
        _, out = helper.run { file, cfg, "--dry-run" }
        assert.matches("\nmemory  ", out)
    end)

    it("tells durations in words", function()
        assert.same({ "0.5 s", "12 min", "2 h 05 min" },
            { preflight.duration(0.5), preflight.duration(720), preflight.duration(7500) })
    end)
end)

-- A model whose f32 weights take 25 MB, or as `changes` has it, in a folder.
local function model_folder(changes, opts)
    local dir = helper.folder()
    am.manual_seed(3)
    local model = am.AutoModelForCausalLM.from_config(helper.changes({
        architectures = { "LlamaForCausalLM" }, model_type = "llama", hidden_size = 320, intermediate_size = 960,
        num_hidden_layers = 4, num_attention_heads = 5, num_key_value_heads = 5, vocab_size = 3000,
        max_position_embeddings = 1024, rms_norm_eps = 1e-5, tie_word_embeddings = true,
    }, changes or {}), opts)
    model:save_pretrained(dir)
    model:close()
    return dir
end

describe("memory that is expected", function()
    local dir, large_folders
    setup(function()
        dir, large_folders = model_folder(), {}
        for _, dtype in ipairs { "bfloat16", "float32" } do
            large_folders[dtype] = model_folder({ hidden_size = 576, intermediate_size = 1536, num_attention_heads = 9,
                num_key_value_heads = 3, vocab_size = 49152 }, { torch_dtype = dtype })
        end
        for family, changes in pairs {
            gpt2 = { architectures = { "GPT2LMHeadModel" }, model_type = "gpt2" },
            gemma2 = { architectures = { "Gemma2ForCausalLM" }, model_type = "gemma2", head_dim = 64,
                       query_pre_attn_scalar = 64, final_logit_softcapping = 30, attn_logit_softcapping = 50,
                       sliding_window = 64 },
            gpt_neox = { architectures = { "GPTNeoXForCausalLM" }, model_type = "gpt_neox",
                         tie_word_embeddings = false },
            olmoe = { architectures = { "OlmoeForCausalLM" }, model_type = "olmoe", num_experts = 8,
                      num_experts_per_tok = 2, intermediate_size = 240, tie_word_embeddings = false },
        } do
            large_folders[family] = model_folder(changes)
        end
    end)
    teardown(helper.cleanup)

    local function config_of(changes)
        return helper.config(helper.folder(), helper.changes({
            model = { pretrained_model_name_or_path = dir }, checkpoint = { enabled = false },
            step_scheduler = { global_batch_size = 4, local_batch_size = 4, max_steps = 4 },
            dataset = { num_sentences = 16, vocab_size = 3000, mean_len = 128, std_len = 0, max_sentence_len = 128 },
        }, changes))
    end

    local lora = { peft = { dim = 8, target_modules = "*_proj" } }
    local dora = { peft = { dim = 4, use_dora = true, modules_to_save = "model.norm",
                            target_modules = { "*.embed_tokens", "*.layers.1.*_proj" } } }
    local bf16 = { model = { torch_dtype = "bfloat16" } }
    local again = { model = { activation_checkpointing = true } }
    -- of 45 million weights, most of them in the embeddings
    local stored = { of = "bfloat16", dataset = { mean_len = 64, max_sentence_len = 64 } }
    local large = { of = "float32", dataset = { mean_len = 64, max_sentence_len = 64 } }
    local long = { dataset = { mean_len = 512, max_sentence_len = 512 } }
    local fp8 = { fp8 = { enabled = true } } -- the head, too, where there are 49152 tokens, but not with 3000
    local few_bits = { quantization = { load_in_4bit = true } }
    for name, sets in pairs {
        ["full"] = {}, ["long rows"] = { { dataset = { mean_len = 512, max_sentence_len = 512 } } },
        ["short rows"] = { { dataset = { mean_len = 32, max_sentence_len = 32 } } },
        ["recomputed layers"] = { again },
        ["recomputed feed-forward blocks"] = { { model = { activation_checkpointing = "selective" } } },
        ["bfloat16"] = { bf16 }, ["SGD"] = { { optimizer = { _target_ = "am.optim.SGD" } } },
        ["8-bit moments"] = { { optimizer = { state_dtype = "int8" } } },
        ["updates inside backward"] = { { optimizer = { fuse_backward = true },
                                          clip_grad_norm = { max_norm = json.null } } },
        ["LoRA"] = { lora }, ["LoRA, long rows, recomputed"] = { lora, again,
            { dataset = { mean_len = 512, max_sentence_len = 512 } } },
        ["two micro-batches"] = { { step_scheduler = { local_batch_size = 2 } } },
        ["averages"] = { { ema = { decay = 0.9 } } },
        ["bfloat16 file"] = { bf16, stored }, ["bfloat16 file, 8-bit moments"] = { bf16, stored,
            { optimizer = { state_dtype = "int8" } } },
        ["bfloat16 file, LoRA"] = { bf16, stored, lora }, ["f32 file, bfloat16"] = { bf16, large },
        ["f32 file, bfloat16 and LoRA"] = { bf16, large, lora },
        ["products in 8 bits"] = { bf16, fp8, long }, ["products in 8 bits and a head so"] = { bf16, stored, fp8 },
        ["products in 8 bits and a fused head"] = { bf16, stored, fp8,
            { loss_fn = { _target_ = "am.loss.FusedLinearCrossEntropy" } } },
        ["products in 8 bits, LoRA"] = { fp8, lora, long },
        ["products in 8 bits, LoRA, recomputed"] = { bf16, fp8, lora, again, long },
        ["products in 8 bits, LoRA and a head so"] = { bf16, stored, fp8, lora },
        ["weights in 4 bits"] = { bf16, few_bits, lora, long },
        ["weights in 4 bits, float32"] = { few_bits, lora, long },
        ["GPT-2"] = { { of = "gpt2" } }, ["Gemma 2"] = { { of = "gemma2" } }, ["GPT-NeoX"] = { { of = "gpt_neox" } },
        ["experts"] = { { of = "olmoe" } }, ["experts and LoRA"] = { { of = "olmoe" }, lora },
        ["experts, recomputed"] = { { of = "olmoe" }, again },
        ["a teacher and short rows"] = { { dataset = { mean_len = 32, max_sentence_len = 32 } },
            { teacher_model = { _target_ = "am.AutoModelForCausalLM.from_pretrained" } } },
        ["a teacher"] = { lora, { teacher_model = { _target_ = "am.AutoModelForCausalLM.from_pretrained" } } },
    } do
        it("is what a run takes, within a tenth: " .. name, function()
            local cfg = config_of(helper.changes(unpack(sets)))
            if cfg.of then
                cfg.model.pretrained_model_name_or_path, cfg.of = large_folders[cfg.of], nil
            end
            local teacher = cfg.teacher_model
            if teacher then
                teacher.pretrained_model_name_or_path = dir
            end
            local status, out, errors = helper.run { "tests/recipe/peak_memory.lua", helper.yaml(helper.folder(), cfg),
                                                     teacher and "llm_kd" }
            assert.equal(0, status, errors)
            local said, measured = out:match("(%d+) (%d+)")
            if name == "experts and LoRA" then -- pages of the file that stacks were copied from, until others need them
                said = said + 4 * 8 * 3 * 320 * 240 * 4
            end
            print(string.format("# %s: said %.1f MiB, measured %.1f, %.1f %%", name, said / 2 ^ 20,
                                measured / 2 ^ 20, 100 * (said / measured - 1)))
            assert.is_true(math.abs(said / measured - 1) <= 0.1, said .. " said, " .. measured .. " measured")
        end)
    end

    it("is refused with averages and a teacher in it, as the dry run counts them", function()
        local check, needed = memory.check, { teachers = {} }
        memory.check = function(bytes) needed[#needed + 1] = bytes end
        finally(function() memory.check = check end)
        local averages, teacher, allocated
        for _, changes in ipairs {
            {}, { ema = { decay = 0.9 } },
            { teacher_model = { _target_ = "am.AutoModelForCausalLM.from_pretrained",
                                pretrained_model_name_or_path = dir } },
            { teacher_model = { _target_ = "am.AutoModelForCausalLM.from_pretrained",
                                pretrained_model_name_or_path = dir, torch_dtype = "bfloat16" } },
        } do
            collectgarbage() -- twice: what tests before have left must not go while the model comes
            collectgarbage()
            local recipe = helper.recipe(config_of(changes), changes.teacher_model and "recipes/llm_kd.lua")
            averages, teacher = changes.ema and memory.ema_bytes(recipe.model) or averages, recipe.teacher
            needed.teachers[#needed] = teacher and memory.teacher_bytes(teacher, 4 * 128)
            allocated = recipe.teacher_allocated
            helper.close(recipe)
            if teacher then
                teacher:close()
            end
        end
        assert.is_true(averages > 0 and needed.teachers[3] > averages / 2)
        assert.near(averages, needed[2] - needed[1], 1)
        assert.near(needed.teachers[3], needed[3] - needed[1], 1)
        assert.near(needed.teachers[4], needed[4] - needed[1] + allocated, 1)
        assert.is_true(allocated > 1e6)
    end)

    it("is asked of a skeleton that is the model but for its weights", function()
        local adapter = helper.folder()
        local adapted = helper.recipe(config_of(dora))
        am.peft.save_adapter(adapted.model, adapter, adapted.peft_config)
        helper.close(adapted)
        for _, changes in ipairs {
            {}, lora, { freeze_config = { freeze_embeddings = true } }, dora,
            { peft = { dim = 8, target_modules = { "*.embed_tokens", "*.q_proj" } } },
            { peft = { dim = 8, target_modules = "*_proj", modules_to_save = "lm_head", lora_dtype = "float32" },
              model = { torch_dtype = "bfloat16" } },
            { peft = { adapter_path = adapter } }, helper.changes(lora, few_bits), helper.changes(fp8, lora, bf16),
        } do
            local cfg = config_of(changes)
            local recipe = helper.recipe(cfg)
            local whole, names = {}, 0
            for name, t in recipe.model:named_parameters() do
                whole[name] = table.concat(t:size(), " ") .. t:dtype() .. tostring(t.requires_grad)
                names = names + 1
            end
            local model = skeleton.of(recipe)
            for name, t in model:named_parameters() do
                assert.equal(whole[name], table.concat(t:size(), " ") .. t:dtype() .. tostring(t.requires_grad), name)
                names = names - 1
            end
            assert.equal(0, names)
            local opts = recipe:optimizer_options()
            assert.same(memory.expected(recipe.model, opts, 64), memory.expected(model, opts, 64))
            assert.same({ flops.of_step(recipe.model, 4, 64) }, { flops.of_step(model, 4, 64) })
            assert.is_true(flops.product_rate(model, 8)() > 0)
            helper.close(recipe)
        end
    end)
end)

describe("the share of peak", function()
    local model
    setup(function() model = am.AutoModelForCausalLM.from_pretrained(helper.tiny) end)
    teardown(function()
        model:close()
        helper.cleanup()
    end)

    it("counts the head for what is learnt, and is two thirds where nothing is trained", function()
        local costs, linear, attention = flops.costs(model), flops.of_step(model, 3, 16)
        assert.near(linear + attention, flops.of_rows(costs, 3, 16, 48), 1)
        assert.equal(6 * model.lm_head.weight:numel() * 40,
                     flops.of_rows(costs, 3, 16, 48) - flops.of_rows(costs, 3, 16, 8))
        local function ids(n)
            local out = {}
            for k = 1, n do
                out[k] = k
            end
            return out
        end
        local pack = { input_ids = ids(6), labels = ids(6), seq_lens = { 2, 3 } }
        local batch = require("am.datasets").default_collater({ pack, { input_ids = ids(4), labels = ids(4) } }, {})
        assert.equal((3 + 6 + 10) / 2, flops.seen(batch)) -- of two samples and padding, and of one that is shorter
        assert.near(costs.pair * 2 * (9.5 - 21), flops.of_rows(costs, 2, 6, 8, 9.5) - flops.of_rows(costs, 2, 6, 8), 1)
        local forward = flops.costs(model, true)
        assert.near(costs.token + costs.head, 3 * (forward.token + forward.head), 1)
        local recipe = helper.recipe(helper.config(helper.folder(), helper.lora))
        local lora = flops.costs(recipe.model)
        assert.is_true(lora.token > 4 / 6 * costs.token and lora.head == 4 / 6 * costs.head)
        helper.close(recipe)
    end)

    it("is of a rate that is measured without random numbers, and again where it is too low", function()
        am.manual_seed(5)
        local first = am.rand({ 4 }):totable()
        am.manual_seed(5)
        assert.is_true(flops.quick_rate(model, 64) > 0)
        assert.same(first, am.rand({ 4 }):totable())
        local rates, quick_rate = { 1e9, 2e9, 1e12 }, flops.quick_rate
        flops.quick_rate = function() return table.remove(rates, 1) end
        finally(function() flops.quick_rate = quick_rate end)
        local meter = flops.meter(model, 64)
        assert.equal(0.5, meter(5e8))
        assert.equal(0.5, meter(5e11))
        assert.equal(0, #rates)
    end)

    it("is not known of a recipe that makes its own loss", function()
        local recipe = helper.recipe(helper.config(helper.folder()))
        local class = setmetatable({ loss = recipe.loss, parent = getmetatable(recipe) }, { __index = recipe })
        class.__index = class
        local own = setmetatable({}, class)
        assert.is_nil(own:share_of_peak { flops = 1, seconds = 1, num_tokens = 8 })
        assert.is_true(recipe:share_of_peak { flops = 1, seconds = 1, num_tokens = 8 } > 0)
        helper.close(recipe)
    end)
end)

describe("the time that is left", function()
    teardown(helper.cleanup)

    it("counts saves and validations that have not been seen yet", function()
        local dir = helper.folder()
        local cfg = helper.config(dir, {
            step_scheduler = { max_steps = 12, ckpt_every_steps = 5, val_every_steps = 4 },
            validation_dataset = { _target_ = "am.datasets.PretokenizedDataset", path_or_dataset_id =
                helper.write(dir .. "/rows.jsonl", ('{"input_ids": [5, 6, 7], "labels": [6, 7, 8]}\n'):rep(4)) },
        })
        local recipe = helper.recipe(cfg)
        local ahead = require("am.recipes.ahead")
        -- at 3, 7 and 11, and with the checkpoints of 4, 9 and 11: five times twelve tokens, a step has six
        assert.near(5 * 12 / 6 * 2 * 0.4, ahead.validating(recipe, 6, 2), 1e-9)
        assert.equal(0, ahead.saving(recipe)) -- small
        local whole, bytes = 2 ^ 30, preflight.checkpoint_bytes
        preflight.checkpoint_bytes = function() return whole, 0 end
        finally(function() preflight.checkpoint_bytes = bytes end)
        local rate = 3 * whole / ahead.saving(recipe) -- three of them, by what the disk takes
        assert.is_true(rate > 1e6 and rate < 1e12, rate)
        assert.is_nil(table.concat(path.list_dir(dir), " "):find("%.disk"))
        recipe.scheduler.step = 10
        assert.near(1 * 12 / 6 * 2 * 0.4, ahead.validating(recipe, 6, 2), 1e-9)
        helper.close(recipe)
    end)
end)
