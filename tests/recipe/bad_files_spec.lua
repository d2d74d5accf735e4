-- Bad adapters, output folders, prompts and options of generate.lua, and data that changed between two runs: told by
-- name, nothing lost.
-- The rest of bad input is in bad_input_spec.lua.
local am = require("am")
local helper = require("tests.recipe.helper")
local json = require("am.utils.json")
local path = require("am.utils.path")

local text_model, adapter

local function refused(status, wanted, got, out, errors)
    assert.is_nil(helper.refusal_problem(status, wanted, got, out, errors))
end

-- A copy of the adapter with fields of adapter_config.json changed (false: removed).
local function changed(changes)
    return helper.model(changes, adapter, "adapter_config.json")
end

local function generate(with, ...)
    return helper.run { "recipes/generate.lua", "--model", text_model, "--adapter", with, "--prompt", "Hi",
                        "--max_new_tokens", "4", ... }
end

describe("an adapter", function()
    setup(function()
        text_model = helper.text_model()
        local dir = helper.folder()
        local status, _, errors = helper.train(helper.config(dir, {
            model = { pretrained_model_name_or_path = text_model }, peft = { dim = 4, target_modules = "*_proj" },
        }))
        assert.equal(0, status, errors)
        adapter = path.join(helper.latest(dir), "model")
    end)
    teardown(helper.cleanup)

    it("that is whole is taken", function()
        local status, _, errors = generate(adapter)
        assert.equal(0, status, errors)
    end)

    it("with a wrong adapter_config.json is refused", function()
        for _, case in ipairs {
            { { r = 8 }, { "lora_", "adapter_model.safetensors" } }, { { r = "x" }, { '"r"' } },
            { { r = 0 }, { '"r"' } }, { { r = 2.5 }, { '"r"', "whole" } }, { { r = 1e300 }, { '"r"' } },
            { { lora_alpha = false }, { "lora_alpha" } },
            { { lora_dropout = "x" }, { "lora_dropout" } }, { { peft_type = "IA3" }, { "IA3", "LORA" } },
            { { bias = "all" }, { "bias" } }, { { use_dora = true }, { "lora_magnitude_vector" } },
            { { modules_to_save = json.array { "lm_head" } }, { "lm_head.weight", "modules_to_save" } },
            { { init_lora_weights = "pissa" }, { "pissa" } },
        } do
            refused(1, case[2], generate(changed(case[1])))
        end
    end)

    it("whose files are damaged is refused", function()
        for _, name in ipairs { "adapter_config.json", "adapter_model.safetensors" } do
            for _, text in ipairs { "", "{", "7", "[]", "x" } do
                local dir = changed {}
                helper.write(path.join(dir, name), text)
                refused(1, { name }, generate(dir))
            end
            local dir = changed {}
            os.remove(path.join(dir, name))
            refused(1, { name }, generate(dir))
        end
        local dir = changed {}
        for _, text in ipairs { "7", "{", '{"dropout_position": 7}' } do -- not needed, so not trusted either
            helper.write(dir .. "/automodel_peft_config.json", text)
            assert.equal(0, (generate(dir)))
        end
    end)

    it("of another model is refused", function()
        local out = helper.folder() .. "/out"
        refused(1, { "adapter_model.safetensors", "lora_" }, helper.run {
            "recipes/merge_lora.lua", "--base-model", helper.tiny, "--adapter-path", adapter, "--output-dir", out })
        assert.is_false(path.exists(out))
        local status, _, errors = helper.train(helper.config(helper.folder(), { peft = { adapter_path = adapter } }))
        refused(1, { "adapter_model.safetensors", "peft" }, status, "", errors)
    end)

    it("of another rank does not go on from a checkpoint", function()
        local dir = helper.folder()
        local cfg = helper.config(dir, { peft = { dim = 4 }, step_scheduler = { max_steps = 2 } })
        assert.equal(0, (helper.train(cfg)))
        refused(1, { "peft.dim is 4 there and 8 here" }, helper.train(cfg, { "--peft.dim", "8" }))
        refused(1, { "self_attn", "adapter" }, helper.train(cfg, { "--peft.target_modules", "*.mlp.*" }))
        assert.equal(2, #helper.curve(dir))
    end)

    it("is the starting point of a run that names it", function()
        local dir = helper.folder()
        local cfg = helper.config(dir, {
            model = { pretrained_model_name_or_path = text_model }, peft = { adapter_path = adapter },
            optimizer = { lr = 0 }, step_scheduler = { max_steps = 1 },
        })
        local status, _, errors = helper.train(cfg)
        assert.equal(0, status, errors)
        assert.same(helper.tensors(adapter .. "/adapter_model.safetensors"),
                    helper.tensors(path.join(helper.latest(dir), "model/adapter_model.safetensors")))
        refused(2, { "peft.dim is 8, but 4", adapter }, helper.train(cfg, { "--peft.dim", "8" }))
    end)

    it("that says something else merged is not written", function()
        local dir, out = changed {}, helper.folder() .. "/merged"
        local file = dir .. "/adapter_model.safetensors"
        local tensors = am.load_safetensors(file)
        for name, t in pairs(tensors) do -- above the greatest float32 once multiplied
            tensors[name] = am.full(t:size(), 3e38)
        end
        am.save_safetensors(file, tensors)
        refused(1, { "merged model is another one" }, helper.run {
            "recipes/merge_lora.lua", "--base-model", text_model, "--adapter-path", dir, "--output-dir", out })
        assert.same({}, path.names(path.dirname(out)))
    end)

    it("says the same merged as not", function()
        local merged = helper.folder() .. "/merged"
        local words = { "recipes/merge_lora.lua", "--base-model", text_model, "--adapter-path", adapter,
                        "--output-dir", merged }
        local status, told, errors = helper.run(words)
        assert.equal(0, status, errors)
        assert.matches("self%-check on %d+ tokens in float32: logits differ by up to", told)
        assert.same({ "merged" }, path.names(path.dirname(merged)))
        local function say(...)
            local code, out = helper.run { "recipes/generate.lua", "--prompt", "What is 3?", "--max_new_tokens", "12",
                                           "--json", ... }
            assert.equal(0, code)
            return out
        end
        local said = say("--model", text_model, "--adapter", adapter)
        assert.equal(said, say("--model", merged))
        assert.not_equal(said, say("--model", text_model))
        -- an output that is there stays
        local before = helper.read(merged .. "/model.safetensors")
        refused(2, { merged, "--output-dir" }, helper.run(words))
        refused(2, { merged, "--output-dir" }, helper.run { "recipes/convert.lua", "--input", text_model,
                                                            "--output-dir", merged })
        assert.equal(before, helper.read(merged .. "/model.safetensors"))
    end)
end)

describe("a run", function()
    setup(function() text_model = helper.text_model() end)
    teardown(helper.cleanup)

    it("whose folder cannot be written says so before the first step", function()
        local file = helper.write(helper.folder() .. "/file", "")
        for dir, named in pairs { [file] = file, [file .. "/below"] = file, ["/proc/nowhere"] = "/proc/nowhere" } do
            refused(1, { named }, helper.train(helper.config(dir)))
        end
    end)

    it("does not go on in the middle of an epoch of other data", function()
        local dir = helper.folder()
        local cfg = helper.config(dir, { step_scheduler = { max_steps = 3 } })
        assert.equal(0, (helper.train(cfg)))
        refused(1, { "24", "25", "dataloader_dp_rank_0.json" },
                helper.train(cfg, { "--step_scheduler.max_steps", "5", "--dataset.num_sentences", "25" }))
        assert.equal(3, #helper.curve(dir))
    end)

    it("converts what it reads to the dtype asked for", function()
        local out = helper.folder() .. "/bf16"
        local status, _, errors = helper.run { "recipes/convert.lua", "--input", text_model, "--output-dir", out,
                                               "--torch_dtype", "bfloat16" }
        assert.equal(0, status, errors)
        local model = am.AutoModelForCausalLM.from_pretrained(out)
        assert.equal("bfloat16", model:dtype())
        model:close()
        refused(1, { "float17" }, helper.run { "recipes/convert.lua", "--input", text_model, "--output-dir",
                                               out .. "2", "--torch_dtype", "float17" })
    end)
end)

describe("output that cannot be written", function()
    teardown(helper.cleanup)

    it("is an error, not a loss nobody hears of", function()
        for _, to in ipairs { ">/dev/full", ">&-" } do
            local status, _, errors = helper.shell(string.format("'%s' -e 'print(1)' %s", helper.amlua, to))
            assert.equal(1, status)
            assert.matches("not all of the output could be written", errors)
        end
    end)
end)

describe("generate.lua", function()
    teardown(helper.cleanup)

    it("is refused for what it cannot mean", function()
        local model = helper.text_model()
        local function ask(status, wanted, ...)
            refused(status, wanted, helper.run { "recipes/generate.lua", ... })
        end
        ask(2, { "--prompt" }, "--model", model)
        ask(2, { "--modle", "--model" }, "--modle", model)
        ask(2, { "--top_k" }, "--model", model, "--prompt", "a", "--top_k", "x")
        ask(2, { "--temperature" }, "--model", model, "--prompt", "a", "--temperature", "-1")
        ask(1, { "prompt is empty" }, "--model", model, "--prompt", "", "--raw")
        ask(1, { "/no/adapter" }, "--model", model, "--prompt", "a", "--adapter", "/no/adapter")
        ask(1, { "/no/model" }, "--model", "/no/model", "--prompt", "a")
        local long = ("word "):rep(400)
        ask(1, { "256" }, "--model", model, "--prompt", long)
        local scaled = helper.model({ rope_scaling = { rope_type = "linear", factor = 8 } }, model)
        ask(1, { "256" }, "--model", scaled, "--prompt", long)
        local wide = helper.model({ max_position_embeddings = 16384 }, model)
        local status, _, errors = helper.run { "recipes/generate.lua", "--model", wide, "--raw", "--prompt",
                                               ("word "):rep(9000), "--max_new_tokens", "1" }
        assert.equal(0, status, errors)
    end)
end)
