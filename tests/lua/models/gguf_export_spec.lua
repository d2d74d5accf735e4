-- Models of all families as GGUF files and back, types, splits, adapters, and what is refused. That llama.cpp
-- computes the same of these files is shown by tests/parity/gguf_check.py.

local am = require("am")
local files = require("tests.support.files")
local io_core = require("am.core.io")
local json = require("am.utils.json")
local path = require("am.utils.path")
local tiny = require("tests.support.tiny")
local weights = require("am.models.weights")

local raised, load = tiny.raised, am.AutoModelForCausalLM.from_pretrained
local GOLDEN = "tests/parity/models/golden/"

-- name in files -> f32 numbers
local function numbers(model)
    local out = {}
    for name, t in pairs(weights.saved(model)) do
        out[name] = t:detach():to("float32"):contiguous()
    end
    return out
end

-- Goldens of what GGUF cannot say, with the field that it is about.
local REFUSED = {
    falcon_alibi = "alibi", gemma2 = "query_pre_attn_scalar", gemma3 = "query_pre_attn_scalar",
    gpt_oss = "swiglu_limit", phi = "qk_layernorm", qwen2_moe = "mlp_only_layers", smollm3 = "no_rope_layers",
    olmoe = "num_key_value_heads", ministral3 = "mscale",
}
local SCALED_OTHERWISE = { llama = true } -- by no factors that Llama 3.1 or its successors have
local WINDOW_LOST = { mistral = true, qwen2 = true } -- llama.cpp has none for these
local NOT_IN_GGUF = { glm = true, ministral = true }

describe("a GGUF file of a family", function()
    for _, name in ipairs(path.names(GOLDEN)) do
        local dir = GOLDEN .. name
        it("is " .. name .. "'s, or a refusal", function()
            files.with_folder(function(folder)
                local model, file = load(dir), path.join(folder, "f32.gguf")
                local wanted = NOT_IN_GGUF[name] and "has no place in GGUF" or REFUSED[name]
                if wanted then
                    raised("unsupported", { wanted }, function() model:save_gguf(file, { type = "f32" }) end)
                    assert.is_false(path.exists(file))
                    return model:close()
                end
                model:save_gguf(file, { type = "f32" })
                if SCALED_OTHERWISE[name] then
                    raised("unsupported", { "rope_freqs.weight" }, load, file)
                    return model:close()
                end
                local back = load(file)
                local a, b, plus_one = numbers(model), numbers(back), name:find("^gemma") or name == "nemotron"
                for key, t in pairs(a) do
                    local other = b[key] or error(name .. " lacks " .. key)
                    local worst = (t - other):abs():max():item()
                    -- what is stored as 1 + w comes back with its rounding
                    assert.is_true(worst <= (plus_one and key:find("norm%.weight$") and 2e-7 or 0),
                                   name .. ": " .. key .. " is off by " .. worst)
                end
                local args = { input_ids = { 3, 1, 4, 1, 5, 9, 2, 6 } }
                local x, y = model:forward(args).logits, back:forward(args).logits
                local off, largest = (x - y):abs():max():item(), x:abs():max():item()
                -- epsilons and scales are f32 in the file
                assert.is_true(off <= 1e-5 * largest or WINDOW_LOST[name], name .. ": logits are off by " .. off)
                model:close()
                back:close()
            end)
        end)
    end
end)

describe("the types of a GGUF file", function()
    local function stored(model, opts)
        local out
        files.with_folder(function(folder)
            local file = path.join(folder, "x.gguf")
            model:save_gguf(file, opts)
            local archive = io_core.open(file)
            out = { meta = json.decode(archive:metadata_json()) }
            for _, name in ipairs(archive:names()) do
                out[name] = archive:info(name).stored_as
            end
            archive:close()
        end)
        return out
    end

    it("are asked for, and stay f32 where llama.cpp wants that", function()
        local model = tiny.model { hidden_size = 64, intermediate_size = 256, num_attention_heads = 4, head_dim = 16,
                                   num_key_value_heads = 4, attention_bias = true }
        for name, expected in pairs { f32 = "F32", f16 = "F16", bf16 = "BF16", q8_0 = "Q8_0", q4_0 = "Q4_0" } do
            local types = stored(model, { type = name })
            for _, matrix in ipairs { "token_embd.weight", "output.weight", "blk.0.attn_q.weight",
                                       "blk.1.ffn_up.weight" } do
                assert.equal(expected, types[matrix])
            end
            for _, vector in ipairs { "output_norm.weight", "blk.0.attn_norm.weight", "blk.0.attn_q.bias" } do
                assert.equal("F32", types[vector])
            end
        end
        assert.equal("F16", stored(model, {})["blk.0.attn_q.weight"])
        model:close()
    end)

    it("are read as one dtype, that of the matrices", function()
        for _, name in ipairs { "f16", "bf16" } do
            files.with_folder(function(folder)
                local model, file = tiny.model {}, path.join(folder, "half.gguf")
                model:save_gguf(file, { type = name })
                model:close()
                local read = load(file) -- its norms are f32
                for key, t in read:named_parameters() do
                    assert.equal(name == "f16" and "float16" or "bfloat16", t:dtype(), key)
                end
                assert.equal(5, #read:generate({ 1, 2 }, { max_new_tokens = 3, eos_token_id = false }))
                read:close()
            end)
        end
    end)

    it("are others where rows do not divide into blocks", function()
        local model = tiny.model { hidden_size = 64, intermediate_size = 256, num_attention_heads = 4, head_dim = 16,
                                   num_key_value_heads = 4 }
        local types = stored(model, { type = "q4_k", name = "it" })
        assert.equal("Q5_0", types["blk.0.ffn_up.weight"]) -- rows of 64
        assert.equal("Q4_K", types["blk.0.ffn_down.weight"]) -- rows of 256
        assert.same({ 14, 2, "it" }, { types.meta["general.file_type"], types.meta["general.quantization_version"],
                                      types.meta["general.name"] })
        model:close()
        model = tiny.model {} -- rows of 12 and 20
        types = stored(model, { type = "q8_0" })
        assert.equal("F16", types["blk.0.ffn_up.weight"])
        model:close()
    end)

    it("have names", function()
        local model = tiny.model {}
        raised("usage", { '"q4k"', 'q4_k' }, function() model:save_gguf("/nonexistent/x.gguf", { type = "q4k" }) end)
        raised("io", { "/nonexistent/x.gguf" }, function() model:save_gguf("/nonexistent/x.gguf", {}) end)
        model:close()
    end)
end)

describe("a model that GGUF cannot hold", function()
    it("has an adapter on it", function()
        local model = tiny.model {}
        am.peft.apply(model, { target_modules = { "*q_proj" } })
        raised("usage", { "lora_", "merge" }, function() model:save_gguf("/nonexistent/x.gguf", {}) end)
        model:close()
    end)

    it("has a scaling of positions that llama.cpp lacks", function()
        local model = tiny.model { rope_scaling = { rope_type = "dynamic", factor = 2 } }
        raised("unsupported", { "rope_scaling", "dynamic" }, function() model:save_gguf("/nonexistent/x.gguf", {}) end)
        model:close()
    end)

    it("has windows in other layers than llama.cpp", function()
        for name, good in pairs { Gemma2ForCausalLM = true, GptOssForCausalLM = true, Gemma3ForCausalLM = false } do
            for _, types in ipairs { { "sliding_attention", "full_attention" },
                                     { "full_attention", "sliding_attention" } } do
                local model = tiny.model { architectures = { name }, layer_types = types, query_pre_attn_scalar = 6,
                                           sliding_window = 4, num_local_experts = 2, num_experts_per_tok = 1 }
                if good and types[2] == "full_attention" then
                    files.with_folder(function(folder) model:save_gguf(path.join(folder, "x.gguf"), {}) end)
                else
                    raised("unsupported", { "layer_types", "llama.cpp" },
                           function() model:save_gguf("/nonexistent/x.gguf", {}) end)
                end
                model:close()
            end
        end
    end)

    it("classifies", function()
        local model = am.AutoModelForSequenceClassification.from_config(tiny.fields {}, { num_labels = 2 })
        raised("unsupported", { "score" }, function() model:save_gguf("/nonexistent/x.gguf", {}) end)
        model:close()
    end)
end)

describe("an adapter's GGUF file", function()
    it("has A and B, their rows in GGUF's order, and one alpha", function()
        files.with_folder(function(folder)
            local model, file = tiny.model { num_attention_heads = 3, head_dim = 4 }, path.join(folder, "lora.gguf")
            am.peft.apply(model, { target_modules = { "*q_proj", "*down_proj" }, dim = 2, alpha = 6 })
            local q = model:get("model.layers.0.self_attn.q_proj")
            local b = q.lora_B.weight:detach():normal_(0, 1)
            am.models.save_gguf_adapter(file, model, am.peft.adapters(model), { name = "mine" })
            local archive = io_core.open(file)
            local meta = json.decode(archive:metadata_json())
            assert.same({ "llama", "adapter", "lora", 6, "mine" }, {
                meta["general.architecture"], meta["general.type"], meta["adapter.type"], meta["adapter.lora.alpha"],
                meta["general.name"],
            })
            assert.equal(8, #archive:names())
            assert.same({ 2, 12 }, archive:info("blk.0.attn_q.weight.lora_a").shape)
            local rows = archive:get("blk.0.attn_q.weight.lora_b", "float32")
            local expected = b:reshape(3, 2, 2, 2):transpose(1, 2):contiguous():reshape(12, 2)
            assert.equal(tiny.bits(expected), tiny.bits(rows))
            assert.not_equal(tiny.bits(b), tiny.bits(rows))
            assert.equal(tiny.bits(model:get("model.layers.1.mlp.down_proj").lora_A.weight:detach()),
                         tiny.bits(archive:get("blk.1.ffn_down.weight.lora_a", "float32")))
            archive:close()
            model:close()
        end)
    end)

    it("is refused for DoRA and tied heads", function()
        local model = tiny.model { tie_word_embeddings = true }
        am.peft.apply(model, { target_modules = { "lm_head" } })
        raised("unsupported", { "lm_head", "shares" }, function()
            am.models.save_gguf_adapter("/nonexistent/x.gguf", model, am.peft.adapters(model))
        end)
        model:close()
        model = tiny.model {}
        am.peft.apply(model, { target_modules = { "*q_proj" }, use_dora = true })
        raised("unsupported", { "q_proj", "DoRA" }, am.peft.adapters, model)
        model:close()
    end)
end)
