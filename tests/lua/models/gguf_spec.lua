-- GGUF files as llama.cpp's converter writes them: names, the row order of rotary projections, metadata.
-- The files are written here, in f32, from models whose weights are known.

local am = require("am")
local compare = require("tests.support.compare")
local files = require("tests.support.files")
local gguf_file = require("tests.support.gguf_file")
local path = require("am.utils.path")
local tiny = require("tests.support.tiny")

local raised, load = tiny.raised, am.AutoModelForCausalLM.from_pretrained

local write = gguf_file.write

-- Rows of a rotary projection in llama.cpp's order: convert_hf_to_gguf.py's LlamaModel.permute.
local function permuted(t, heads)
    local rows, rest = t:size(0), t:numel() / t:size(0)
    return t:detach():reshape(heads, 2, rows / heads / 2, rest):transpose(1, 2):contiguous():reshape(t:size())
end

local stems = {
    ["self_attn.q_proj"] = "attn_q", ["self_attn.k_proj"] = "attn_k", ["self_attn.v_proj"] = "attn_v",
    ["self_attn.o_proj"] = "attn_output", ["mlp.gate_proj"] = "ffn_gate", ["mlp.up_proj"] = "ffn_up",
    ["mlp.down_proj"] = "ffn_down", input_layernorm = "attn_norm", post_attention_layernorm = "ffn_norm",
}

-- What llama.cpp makes of a model: metadata and tensors.
local function converted(model)
    local c, tensors = model.config, {}
    for name, t in model:named_parameters() do
        local layer, stem, suffix = name:match("^model%.layers%.(%d+)%.(.+)%.(%a+)$")
        local gguf = layer and ("blk.%s.%s.%s"):format(layer, stems[stem], suffix)
            or ({ ["model.embed_tokens.weight"] = "token_embd.weight", ["model.norm.weight"] = "output_norm.weight",
                  ["lm_head.weight"] = "output.weight" })[name]
        local heads = stem == "self_attn.q_proj" and c.num_attention_heads
            or stem == "self_attn.k_proj" and c.num_key_value_heads
        tensors[#tensors + 1] = { gguf, heads and permuted(t, heads) or t }
    end
    return {
        ["general.architecture"] = "llama", ["llama.embedding_length"] = c.hidden_size,
        ["llama.feed_forward_length"] = c.intermediate_size, ["llama.block_count"] = c.num_hidden_layers,
        ["llama.attention.head_count"] = c.num_attention_heads,
        ["llama.attention.head_count_kv"] = c.num_key_value_heads, ["llama.attention.key_length"] = c.head_dim,
        ["llama.rope.dimension_count"] = c.head_dim, ["llama.context_length"] = c.max_position_embeddings,
        ["llama.attention.layer_norm_rms_epsilon"] = c.rms_norm_eps, ["llama.rope.freq_base"] = c.rope_theta,
        ["tokenizer.ggml.bos_token_id"] = 1, ["tokenizer.ggml.eos_token_id"] = 2,
    }, tensors
end

-- fn(file, model) with the GGUF file of a tiny model; edit(meta, tensors) changes it first.
local function with_file(changes, edit, fn)
    files.with_folder(function(dir)
        local model, file = tiny.model(changes), path.join(dir, "tiny.gguf")
        local meta, tensors = converted(model)
        if edit then
            edit(meta, tensors)
        end
        write(file, meta, tensors)
        fn(file, model)
        model:close()
    end)
end

local function remove(tensors, name)
    for i, item in ipairs(tensors) do
        if item[1] == name then
            return table.remove(tensors, i)
        end
    end
    error("no tensor " .. name)
end

-- ---- the specs ------------------------------------------------------------------------------

describe("a GGUF file", function()
    for name, changes in pairs {
        ["with a head"] = {}, ["with tied embeddings"] = { tie_word_embeddings = true },
        ["with biases"] = { attention_bias = true, mlp_bias = true },
        ["with grouped heads"] = { num_attention_heads = 4, num_key_value_heads = 2, head_dim = 4 },
        ["with eleven layers"] = { num_hidden_layers = 11, hidden_size = 6 },
    } do
        it("gives the weights and the configuration it was made of: " .. name, function()
            with_file(changes, nil, function(file, model)
                for full, p in model:named_parameters() do
                    if full:match("bias$") then -- zeros would show no permutation
                        p:detach():normal_(0, 1)
                    end
                end
                write(file, converted(model))
                local back = load(file)
                assert.same({}, tiny.differing(tiny.weights(model), tiny.weights(back)))
                for key, expected in pairs(tiny.fields(changes)) do
                    local got = back.config[key]
                    if key == "rms_norm_eps" then
                        compare.near(key, got, expected, 1e-12)
                    elseif key ~= "initializer_range" then
                        assert.same(expected, type(got) == "table" and { unpack(got) } or got)
                    end
                end
                assert.equal(file, back.resolved_path)
                back:close()
            end)
        end)
    end

    it("says the same as a directory that it is saved to", function()
        with_file({ attention_bias = true }, nil, function(file, model)
            local dir = path.join(path.dirname(file), "hf")
            local from_file = load(file, { torch_dtype = "float32" })
            from_file:save_pretrained(dir)
            local from_dir, args = load(dir), { input_ids = { 3, 1, 4, 1, 5 } }
            local expected = tiny.bits(model:forward(args).logits)
            assert.equal(expected, tiny.bits(from_file:forward(args).logits))
            assert.equal(expected, tiny.bits(from_dir:forward(args).logits))
            from_file:close()
            from_dir:close()
        end)
    end)

    it("is converted to the dtype that is asked for", function()
        with_file({}, nil, function(file, model)
            local back, expected = load(file, { torch_dtype = "bfloat16" }), {}
            for name, t in model:named_parameters() do
                expected[name] = tiny.bits(t:detach():to("bfloat16"))
            end
            assert.same({}, tiny.differing(expected, tiny.weights(back)))
            back:close()
        end)
    end)

    it("says how positions are scaled", function()
        for _, kind in ipairs { "linear", "yarn" } do
            with_file({}, function(meta)
                meta["llama.rope.scaling.type"], meta["llama.rope.scaling.factor"] = kind, 4
                meta["llama.rope.scaling.original_context_length"] = 16
            end, function(file)
                local c = am.AutoConfig.from_pretrained(file)
                assert.same({ rope_type = kind, factor = 4, original_max_position_embeddings = 16 }, c.rope_scaling)
            end)
        end
        with_file({}, function(meta) meta["llama.rope.scaling.type"] = "none" end, function(file)
            assert.is_nil(am.AutoConfig.from_pretrained(file).rope_scaling)
        end)
    end)

    it("has Llama 3.1's scaling as what each frequency is divided by", function()
        local scaling = { rope_type = "llama3", factor = 8, low_freq_factor = 1, high_freq_factor = 4,
                          original_max_position_embeddings = 8192 }
        local changes = { head_dim = 16, rope_theta = 500000, rope_scaling = scaling }
        -- as convert_hf_to_gguf.py computes them
        local function factors(factor)
            local out = {}
            for i = 0, 7 do
                local wavelength = 2 * math.pi * 500000 ^ (2 * i / 16)
                local smooth = (8192 / wavelength - 1) / 3
                out[i + 1] = smooth > 1 and 1 or smooth < 0 and factor or 1 / ((1 - smooth) / factor + smooth)
            end
            return out
        end
        assert.is_true(factors(8)[5] > 1.1 and factors(8)[5] < 7.9, "none is between")
        for _, factor in ipairs { 8, 32 } do
            scaling.factor = factor
            with_file(changes, function(_, tensors)
                tensors[#tensors + 1] = { "rope_freqs.weight", am.tensor(factors(factor)) }
            end, function(file, model)
                local back, args = load(file), { input_ids = { 3, 1, 4, 1, 5 } }
                assert.same(scaling, back.config.rope_scaling)
                assert.equal(tiny.bits(model:forward(args).logits), tiny.bits(back:forward(args).logits))
                back:close()
            end)
        end
        with_file({}, function(_, tensors)
            tensors[#tensors + 1] = { "rope_freqs.weight", am.ones { 3 } }
        end, function(file) assert.is_nil(am.AutoConfig.from_pretrained(file).rope_scaling) end)
        for _, other in ipairs { { 1, 2, 3, 4, 5, 6, 7, 8 }, { 8 }, { 0, 1, 2, 3, 8, 8, 8, 0 / 0 } } do
            with_file(changes, function(_, tensors)
                tensors[#tensors + 1] = { "rope_freqs.weight", am.tensor(other) }
            end, function(file) raised("unsupported", { file, "rope_freqs.weight" }, load, file) end)
        end
    end)

    it("may leave out what has a default", function()
        with_file({ num_key_value_heads = 3, head_dim = 4 }, function(meta)
            for _, key in ipairs { "attention.head_count_kv", "attention.key_length", "rope.freq_base",
                                   "rope.dimension_count" } do
                meta["llama." .. key] = nil
            end
            meta["tokenizer.ggml.eos_token_id"] = nil
        end, function(file, model)
            local back = load(file)
            local c = back.config
            assert.same({ 3, 4, 10000 }, { c.num_key_value_heads, c.head_dim, c.rope_theta })
            assert.is_nil(c.eos_token_id)
            assert.same({}, tiny.differing(tiny.weights(model), tiny.weights(back)))
            back:close()
        end)
    end)
end)

describe("a GGUF file that does not fit", function()
    local function refused(code, wanted, edit, changes)
        with_file(changes, edit, function(file)
            wanted[#wanted + 1] = file
            raised(code, wanted, load, file)
        end)
    end

    it("is told by its architecture", function()
        refused("unsupported", { '"other"', "llama" }, function(meta) meta["general.architecture"] = "other" end)
        refused("format", { "general.architecture" }, function(meta) meta["general.architecture"] = nil end)
        refused("format", { "general.architecture" }, function(meta) meta["general.architecture"] = { "llama" } end)
    end)

    it("is told by what its metadata lacks", function()
        for _, key in ipairs { "embedding_length", "feed_forward_length", "block_count", "attention.head_count",
                               "context_length", "attention.layer_norm_rms_epsilon" } do
            refused("format", { "llama." .. key }, function(meta) meta["llama." .. key] = nil end)
            refused("format", { "llama." .. key }, function(meta) meta["llama." .. key] = "x" end)
        end
    end)

    it("is told by sizes that cannot be", function()
        refused("format", { "num_hidden_layers" }, function(meta) meta["llama.block_count"] = 0 end)
        refused("format", { "hidden_size" }, function(meta) meta["llama.embedding_length"] = 0.5 end)
        refused("format", { "head_dim" }, function(meta) meta["llama.attention.key_length"] = 2.5 end)
        refused("format", { "rms_norm_eps" }, function(meta)
            meta["llama.attention.layer_norm_rms_epsilon"] = 2
        end)
        refused("format", { "num_key_value_heads" }, function(meta)
            meta["llama.attention.head_count_kv"] = "x"
        end)
    end)

    it("is told by its tensors", function()
        refused("format", { "token_embd.weight" }, function(_, tensors) remove(tensors, "token_embd.weight") end)
        refused("format", { "lacks", "model.layers.1.mlp.down_proj.weight" }, function(_, tensors)
            remove(tensors, "blk.1.ffn_down.weight")
        end)
        refused("format", { "no place", "blk.0.ssm_in.weight" }, function(_, tensors)
            tensors[#tensors + 1] = { "blk.0.ssm_in.weight", am.ones { 2 } }
        end)
        refused("format", { "no place", "model.layers.2.mlp.down_proj.weight" }, function(_, tensors)
            tensors[#tensors + 1] = { "blk.2.ffn_down.weight", am.ones { 2 } }
        end)
        refused("format", { "no place", "stray" }, function(_, tensors)
            tensors[#tensors + 1] = { "stray", am.ones { 2 } }
        end)
        refused("format", { "model.layers.0.mlp.up_proj.weight", "[20, 13]", "[20, 12]" }, function(_, tensors)
            remove(tensors, "blk.0.ffn_up.weight")
            tensors[#tensors + 1] = { "blk.0.ffn_up.weight", am.ones { 20, 13 } }
        end)
        refused("format", { "blk.0.attn_q.weight", "7 rows", "3 heads" }, function(_, tensors)
            remove(tensors, "blk.0.attn_q.weight")
            tensors[#tensors + 1] = { "blk.0.attn_q.weight", am.ones { 7, 12 } }
        end)
    end)

    it("is told when it ends too early", function()
        with_file({}, nil, function(file)
            local whole = assert(path.read_file(file))
            for _, keep in ipairs { 3, 20, 200, #whole - 100 } do
                path.write_file(file, whole:sub(1, keep))
                raised("format", file, load, file)
            end
        end)
    end)
end)
