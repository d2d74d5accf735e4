-- config.json: two spellings read as one, written back, checked; overrides; which architectures there are.

local am = require("am")
local config = require("am.models.config")
local files = require("tests.support.files")
local json = require("am.utils.json")
local path = require("am.utils.path")
local tiny = require("tests.support.tiny")

local GOLDEN = "tests/parity/golden/tiny_llama"
local raised = tiny.raised

local function plain(c)
    local out = {}
    for key, value in pairs(c:to_table()) do
        out[key] = value
    end
    return out
end

-- A folder with a config.json of this text; fn(dir, file).
local function with_config(text, fn)
    files.with_folder(function(dir)
        local file = path.join(dir, "config.json")
        path.write_file(file, type(text) == "string" and text or json.encode(text))
        fn(dir, file)
    end)
end

describe("a configuration", function()
    it("is one, however config.json spells it", function()
        local scaled = { torch_dtype = "bfloat16", rope_theta = 5000,
                         rope_scaling = { rope_type = "linear", factor = 2 } }
        for _, spelling in ipairs {
            { torch_dtype = "bfloat16", rope_theta = 5000, rope_scaling = { rope_type = "linear", factor = 2 } },
            { torch_dtype = "bfloat16", rope_theta = 5000, rope_scaling = { type = "linear", factor = 2 } },
            { dtype = "bfloat16", rope_parameters = { rope_type = "linear", factor = 2, rope_theta = 5000 } },
            { dtype = "bfloat16", torch_dtype = "bfloat16", rope_theta = 5000, pad_token_id = json.null,
              rope_parameters = { rope_type = "linear", factor = 2, attention_factor = json.null } },
        } do
            assert.same(scaled, plain(config.new(spelling)))
        end
        for _, spelling in ipairs {
            { rope_theta = 5000 },
            { rope_theta = 5000, rope_scaling = json.null, dtype = json.null },
            { rope_theta = 5000, rope_scaling = { type = "default" } },
            { rope_parameters = { rope_type = "default", rope_theta = 5000 } },
        } do
            assert.same({ rope_theta = 5000 }, plain(config.new(spelling)))
        end
    end)

    it("reads the files of transformers 4 and 5", function()
        for case, key in pairs { rope_llama3 = "rope_scaling", rope_llama3_v5 = "rope_parameters" } do
            local file = path.join(GOLDEN, case, "config.json")
            local c, stored = config.from_pretrained(path.dirname(file)), files.json(file)
            for _, name in ipairs { "factor", "low_freq_factor", "high_freq_factor",
                                    "original_max_position_embeddings" } do
                assert.is_number(stored[key][name])
                assert.equal(stored[key][name], c.rope_scaling[name])
            end
            assert.equal("llama3", c.rope_scaling.rope_type)
            assert.equal(stored.rope_theta or stored.rope_parameters.rope_theta, c.rope_theta)
            assert.is_nil(c.rope_scaling.rope_theta or c.rope_parameters or c.dtype)
            assert.equal("float32", c.torch_dtype)
        end
    end)

    it("keeps what it does not know and comes back as it was written", function()
        files.with_folder(function(dir)
            local c = config.from_pretrained(path.join(GOLDEN, "rope_yarn"))
            c.something_new, c.architectures = { deep = { 1, 2 } }, json.array { "LlamaForCausalLM" }
            c:save(dir)
            local text = assert(path.read_file(path.join(dir, "config.json")))
            assert.is_nil(text:find("_name_or_path", 1, true))
            assert.is_truthy(text:find('"architectures": [', 1, true), text)
            assert.same(plain(c), plain(config.from_pretrained(dir)))
            assert.same(plain(c), plain(config.from_pretrained(path.join(dir, "config.json"))))
        end)
    end)

    it("that is absent or damaged is told by its file", function()
        files.with_folder(function(dir)
            raised("io", { dir, "config.json" }, config.from_pretrained, dir)
            raised("io", { dir }, am.AutoModelForCausalLM.from_pretrained, dir)
            path.write_file(path.join(dir, "adapter_config.json"), "{}")
            raised("io", { "no model directory; it has an adapter" }, config.from_pretrained, dir)
            local inner = path.join(dir, "epoch_0_step_9/model/consolidated")
            path.write_file(path.join(path.mkdir_p(inner), "config.json"), "{}")
            path.symlink_swap(path.join(dir, "epoch_0_step_9"), path.join(dir, "LATEST"))
            for from, to in pairs { ["LATEST/model"] = "LATEST/model/consolidated", [""] = "LATEST/model/consolidated",
                                    ["LATEST"] = "LATEST/model/consolidated" } do
                raised("io", { "no model directory", "; the model is in " .. path.join(dir, to) },
                    config.from_pretrained, path.join(dir, from))
            end
        end)
        for _, text in ipairs { "", "{", "7", '"x"', "null", "[1]", "[]", '{"a": 1}}' } do
            with_config(text, function(dir, file)
                raised("format", file, config.from_pretrained, dir)
            end)
        end
    end)

    it("names the file and the field that is wrong", function()
        for _, case in ipairs {
            { "rms_norm_eps", "1e-5" }, { "rms_norm_eps", -1 }, { "rope_theta", 0 }, { "attention_bias", 1 },
            { "tie_word_embeddings", "true" }, { "max_position_embeddings", 0 }, { "hidden_act", 7 },
            { "attention_dropout", 1.5 }, { "torch_dtype", true }, { "pad_token_id", 29 }, { "pad_token_id", "x" },
            { "initializer_range", -0.1 }, { "rope_scaling", "linear" }, { "rope_scaling", { rope_type = 7 } },
            { "rope_scaling", { rope_type = "linear", factor = "2" } }, { "rope_scaling", { factor = -2 } },
            { "hidden_size", 12.5 }, { "hidden_size", 0 }, { "hidden_size", "12" }, { "hidden_size", false },
            { "vocab_size", 2 ^ 31 + 1 }, { "num_hidden_layers", 10001 }, { "num_attention_heads", -3 },
            { "num_key_value_heads", 1.5 }, { "head_dim", json.object { x = 1 } }, { "intermediate_size", 1e300 },
        } do
            with_config(tiny.fields { [case[1]] = case[2] }, function(dir, file)
                raised("format", { file, '"' .. case[1] }, am.AutoModelForCausalLM.from_pretrained, dir)
            end)
        end
        -- a size that is derived counts too
        with_config(tiny.fields { head_dim = false, hidden_size = 13 }, function(dir, file)
            raised("unsupported", { file, "hidden_size", "num_attention_heads" },
                   am.AutoModelForCausalLM.from_pretrained, dir)
        end)
    end)

    it("names the activation or rotary type that is not known, and those that are", function()
        with_config(tiny.fields { hidden_act = "sine" }, function(dir, file)
            raised("unsupported", { file, "hidden_act", "sine", "silu", "gelu_pytorch_tanh" },
                   am.AutoModelForCausalLM.from_pretrained, dir)
        end)
        with_config(tiny.fields { rope_scaling = { rope_type = "spiral", factor = 2 } }, function(dir, file)
            raised("unsupported", { file, "rope_scaling", "spiral", "llama3", "yarn" },
                   am.AutoModelForCausalLM.from_pretrained, dir)
        end)
        with_config(tiny.fields { rope_scaling = { rope_type = "linear" } }, function(dir, file)
            raised("unsupported", { file, "rope_scaling", '"factor"' }, am.AutoModelForCausalLM.from_pretrained, dir)
        end)
    end)
end)

describe("an architecture", function()
    it("that is not supported is told with those that are", function()
        for _, architectures in ipairs { { "OtherLMHeadModel" }, json.array {}, "LlamaForCausalLM" } do
            with_config(tiny.fields { architectures = architectures, model_type = "other" }, function(dir, file)
                local name = type(architectures) == "table" and architectures[1] or "nil"
                raised("unsupported", { file, name .. " is not supported", "LlamaForCausalLM" },
                       am.AutoModelForCausalLM.from_pretrained, dir)
            end)
        end
        raised("unsupported", { "config.json", "LlamaForCausalLM" }, am.AutoModelForCausalLM.from_config,
               tiny.fields { architectures = false, model_type = "other" })
    end)

    it("is that of model_type where none is named, or the body alone", function()
        for _, names in ipairs { json.array {}, { "LlamaModel" } } do
            local model = tiny.model { architectures = names, model_type = "llama" }
            assert.equal("LlamaForCausalLM", model.class_name)
            model:close()
        end
    end)

    it("can be added", function()
        local built
        am.models.register("TwinForCausalLM", {
            new = function(c)
                built = c
                return require("am.models.llama").new(c)
            end,
            defaults = { hidden_act = "silu", rms_norm_eps = 1e-6 },
        })
        local model = tiny.model { architectures = { "TwinForCausalLM" } }
        assert.equal(built, model.config)
        assert.same({ 1, 3, 29 }, model:forward({ input_ids = { 1, 2, 3 } }).logits:size())
        raised("unsupported", { "Other", "LlamaForCausalLM, ", ", TwinForCausalLM" },
               am.AutoModelForCausalLM.from_config, tiny.fields { architectures = { "Other" } })
        model:close()
    end)
end)

describe("overrides", function()
    local function overridden(fields, overrides)
        local model = am.AutoModelForCausalLM.from_config(fields, { config_overrides = overrides })
        model:close()
        return model.config
    end

    it("with a mistyped name say which is near", function()
        raised("usage", { "max_position_embedings", "max_position_embeddings" },
               am.AutoModelForCausalLM.from_pretrained, path.join(GOLDEN, "gqa"),
               { config_overrides = { max_position_embedings = 16 } })
        assert.equal(7, overridden(tiny.fields {}, { something_of_ones_own = 7 }).something_of_ones_own)
    end)

    it("replace values, also those that give sizes", function()
        local model = am.AutoModelForCausalLM.from_pretrained(path.join(GOLDEN, "gqa"), {
            config_overrides = { attention_dropout = 0.25, rms_norm_eps = 0.5 },
        })
        assert.equal(0.25, model:get("model.layers.1.self_attn").dropout)
        assert.equal(0.5, model:get("model.norm").eps)
        model:close()
        raised("format", { "embed_tokens", "[67, 32]", "[68, 32]" }, am.AutoModelForCausalLM.from_pretrained,
               path.join(GOLDEN, "gqa"), { config_overrides = { vocab_size = 68 } })
        assert.equal(3, overridden(tiny.fields(), { num_hidden_layers = 3 }).num_hidden_layers)
    end)

    it("are checked", function()
        raised("argument", "config_overrides", overridden, tiny.fields(), "x")
        raised("argument", "a configuration", am.AutoModelForCausalLM.from_config, nil)
        raised("argument", "a model is needed", am.patch_model_with_kernel_optimizations, nil)
        raised("format", "rms_norm_eps", overridden, tiny.fields(), { rms_norm_eps = "x" })
        raised("unsupported", "hidden_act", overridden, tiny.fields(), { hidden_act = "sine" })
    end)

    it("merge objects, replace lists and remove what is null", function()
        local scaling = { rope_type = "llama3", factor = 8, low_freq_factor = 1, high_freq_factor = 4,
                          original_max_position_embeddings = 32 }
        local c = overridden(tiny.fields { rope_scaling = scaling, eos_token_id = { 2, 3 }, pad_token_id = 5 },
                             { rope_scaling = { factor = 4 }, eos_token_id = { 9 }, pad_token_id = json.null })
        assert.same({ rope_type = "llama3", factor = 4, low_freq_factor = 1, high_freq_factor = 4,
                      original_max_position_embeddings = 32 }, c.rope_scaling)
        assert.same({ 9 }, { unpack(c.eos_token_id) })
        assert.is_nil(c.pad_token_id)
        scaling = { rope_type = "linear", factor = 8 }
        assert.is_nil(overridden(tiny.fields { rope_scaling = scaling }, { rope_scaling = json.null }).rope_scaling)
    end)

    it("may be spelled as config.json may", function()
        local linear = { rope_type = "linear", factor = 2 }
        for _, overrides in ipairs {
            { rope_scaling = { rope_type = "linear", factor = 2 } }, { rope_scaling = { type = "linear", factor = 2 } },
            { rope_parameters = { rope_type = "linear", factor = 2 } },
        } do
            assert.same(linear, overridden(tiny.fields(), overrides).rope_scaling)
            assert.same(linear, overridden(tiny.fields { rope_scaling = { type = "dynamic", factor = 9 } },
                                           overrides).rope_scaling)
        end
        local c = overridden(tiny.fields { rope_scaling = { type = "linear", factor = 2 } },
                             { rope_parameters = { rope_type = "default", rope_theta = 77 }, dtype = "bfloat16" })
        assert.is_nil(c.rope_scaling)
        assert.equal(77, c.rope_theta)
        assert.equal("bfloat16", c.torch_dtype)
    end)

    it("leave the configuration that was given as it was", function()
        local fields, nested = tiny.fields(), { factor = 2, type = "linear" }
        fields.rope_scaling = nested
        local given = { rope_scaling = { type = "linear", factor = 4 }, vocab_size = 31, dtype = "float16" }
        local c = overridden(fields, given)
        assert.equal(31, c.vocab_size)
        assert.equal(4, c.rope_scaling.factor)
        assert.equal(29, fields.vocab_size)
        assert.same({ factor = 2, type = "linear" }, nested)
        assert.same({ rope_scaling = { type = "linear", factor = 4 }, vocab_size = 31, dtype = "float16" }, given)
        -- two models of one configuration do not share it
        local shared = config.new(tiny.fields())
        local one, two = am.AutoModelForCausalLM.from_config(shared), am.AutoModelForCausalLM.from_config(shared)
        one.config.vocab_size = 1
        assert.equal(29, two.config.vocab_size)
        assert.equal(29, shared.vocab_size)
        one:close()
        two:close()
    end)
end)
