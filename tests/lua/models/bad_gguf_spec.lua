-- GGUF files of every family with each key of their metadata, and the shape of each kind of tensor, turned into
-- something hostile: the file is a model that runs, or an error object names the key or the tensor; never a Lua error,
-- never a wait. Damaged bytes: tests/c/test_gguf.c and tests/fuzz.

local am = require("am")
local edge = require("am.core.ffi")
local files = require("tests.support.files")
local gguf_file = require("tests.support.gguf_file")
local io_core = require("am.core.io")
local json = require("am.utils.json")
local path = require("am.utils.path")
local tiny = require("tests.support.tiny")

local ROOT = "tests/parity/models/golden"
local VALUES = { -1, 0, 1, 3, 1.5, 2 ^ 31 - 1, 1e9, 2 ^ 40, 1e300, 0 / 0, math.huge, -math.huge, "x", "yarn", "linear",
                 "none", true, false, {}, { 1, 2 }, { "a" } }
-- Keys that models may lack, which change how others are read.
local MORE = { "rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length",
               "attention.sliding_window", "attention.key_length", "rope.dimension_count", "attention.head_count_kv",
               "expert_count", "rope.freq_base" }

-- What an error may name instead of a key, without its architecture: the field of config.json that it becomes.
local INSTEAD = {
    ["general.architecture"] = { "GGUF architecture", "holds tensors", "lacks" }, -- another family's keys are missing
    ["general.alignment"] = { "offset", "ends at byte" },
    context_length = { "max_position_embeddings", "n_positions" },
    embedding_length = { "hidden_size", "n_embd", "head_dim", "hidden_dim" },
    block_count = { "num_hidden_layers", "n_layer", "num_layers", "layer_types" },
    feed_forward_length = { "intermediate_size", "ffn_hidden_size", "n_inner" },
    ["attention.head_count"] = { "num_attention_heads", "n_head", "head_dim" },
    ["attention.sliding_window"] = { "sliding_window" },
    ["attention.head_count_kv"] = { "num_key_value_heads", "num_kv_heads" },
    ["attention.key_length"] = { "head_dim", "partial_rotary_factor", "rotary_pct", "rope_freqs.weight",
                                 "rope_scaling" },
    ["attention.layer_norm_rms_epsilon"] = { "rms_norm_eps" },
    ["attention.layer_norm_epsilon"] = { "norm_eps", "layer_norm" },
    ["attention.scale"] = { "attention_multiplier" },
    ["attention.temperature_scale"] = { "llama_4_scaling_beta" },
    ["attention.clamp_kqv"] = { "clip_qkv" },
    embedding_scale = { "embedding_multiplier" },
    residual_scale = { "residual_multiplier" },
    logit_scale = { "logits_scaling" },
    ["rope.dimension_count"] = { "partial_rotary_factor", "rotary_pct", "head_dim", "rope_scaling" },
    ["rope.freq_base"] = { "rope_theta", "rotary_emb_base", "rope_freqs.weight" },
    ["rope.freq_base_swa"] = { "rope_local_base_freq" },
    ["rope.scaling."] = { "rope_scaling" },
    ["rope_factors_long.weight"] = { "long_factor" },
    ["rope_factors_short.weight"] = { "short_factor" },
    expert_count = { "num_experts", "num_local_experts" },
    expert_used_count = { "num_experts_per_tok" },
    expert_feed_forward_length = { "intermediate_size" },
    expert_shared_feed_forward_length = { "shared_expert_intermediate_size" },
}
-- Sizes that the file's tensors contradict: which of the two is wrong nobody knows.
local BY_TENSORS = { "%[[%d, ]*%], but config.json makes it %[[%d, ]+%]", "lacks these tensors of %w+: ",
                     "holds tensors that %w+ has no place for: ", "rows of %S+ [%w_.]+ do not divide" }

-- metadata, and a list of { name, tensor }, of a file.
local function contents(file)
    local archive, tensors = io_core.open(file), {}
    for _, name in ipairs(archive:names()) do
        tensors[#tensors + 1] = { name, archive:get(name, "float32") }
    end
    local meta = json.decode(archive:metadata_json())
    archive:close()
    return meta, tensors
end

-- nil when an outcome is as it should be, else what is wrong with it. A key or a tensor must be named.
local function problem(ok, e, key)
    if ok or tiny.misbehaved(ok, e) then
        return tiny.misbehaved(ok, e)
    end
    local text, bare = tostring(e), key:gsub("^[%w-]+%.", "")
    for _, name in ipairs { key, bare, unpack(INSTEAD[key] or INSTEAD[bare] or INSTEAD[bare:match("^rope.scaling.")]
                                              or {}) } do
        if text:find(name, 1, true) then
            return nil
        end
    end
    for _, pattern in ipairs(BY_TENSORS) do
        if text:find(pattern) then
            return nil
        end
    end
    return "the error does not name it: " .. tostring(e)
end

local function runs(file)
    am.scope(function()
        local model = am.AutoModelForCausalLM.from_pretrained(file)
        model:forward { input_ids = { { 0, 0, 0 } } }
        model:close()
    end)
end

local function tried(file, key)
    local start = os.clock()
    local ok, e = pcall(runs, file)
    local took = os.clock() - start
    return problem(ok, e, key) or took > 2 and "it takes " .. took .. " s" or nil
end

local function shown(v)
    return type(v) == "table" and "{" .. table.concat(v, ", ") .. "}" or tostring(v)
end

-- { name, shape, offset } of a tensor in shapes that it should not have, and under names that are not its own.
local function broken_infos(info)
    local name, shape, at = unpack(info)
    local a, b = shape[1] or 1, shape[2] or 1
    local list = {}
    for _, other in ipairs { {}, { 0 }, { 1 }, { a }, { b, a }, { a, b, 1 }, { 1, a, b }, { a, 0 }, { 0, b },
                             { a, b, 0 }, { 2 ^ 31, 0 }, { 0, 2 ^ 31 }, { a + 1, b }, { a - 1, b },
                             { 2 ^ 40, 2 ^ 40 }, { 2 ^ 60, 1 }, { 1, 1, 1, 1 } } do
        list[#list + 1] = { name, other, at }
    end
    for _, other in ipairs { "", "x", name .. ".x", "blk.99999999999999999999.ffn_up.weight",
                             "blk.-1.ffn_up.weight" } do
        list[#list + 1] = { other, shape, at }
    end
    return list
end

edge.check(edge.C.am_threads_set(1)) -- there is nothing to share

-- Fields of goldens that GGUF cannot say, as it can.
local FITTING = {
    gemma2 = { query_pre_attn_scalar = 6 }, gpt_oss = { swiglu_limit = 7 },
    gemma3 = { query_pre_attn_scalar = 8, sliding_window_pattern = 6,
               layer_types = json.array { "sliding_attention", "sliding_attention", "sliding_attention" } },
    phi = { qk_layernorm = false }, qwen2_moe = { mlp_only_layers = json.array {} },
    smollm3 = { no_rope_layers = json.array { 1, 1, 1 } }, olmoe = { num_key_value_heads = 4 },
}
local NOT_IN_GGUF = { glm = true, ministral = true, falcon_alibi = true }

-- fn(file, meta, tensors) with the GGUF file of a model with a golden's configuration.
local function with_golden(case, fn)
    files.with_folder(function(folder)
        local file = path.join(folder, "x.gguf")
        local fields = json.decode(assert(path.read_file(path.join(ROOT, case, "config.json"), 1e6)))
        local rope = fields.rope_scaling or fields.rope_parameters
        for field, value in pairs(FITTING[case] or {}) do
            fields[field] = value
        end
        if type(rope) == "table" and rope.rope_type == "llama3" then -- others' factors are not read
            rope.factor, rope.low_freq_factor, rope.high_freq_factor = 8, 1, 4
            rope.original_max_position_embeddings, rope.rope_theta = 8192, 500000
        elseif type(rope) == "table" and rope.mscale then
            rope.mscale = rope.mscale_all_dim
        end
        local model = am.AutoModelForCausalLM.from_config(fields, { torch_dtype = "float32" })
        model:save_gguf(file, { type = "f32" })
        model:close()
        runs(file)
        fn(file, contents(file))
    end)
end

describe("a GGUF file of", function()
    local cases = {}
    for _, case in ipairs(path.names(ROOT)) do
        cases[#cases + 1] = not NOT_IN_GGUF[case] and case or nil
    end
    for _, case in ipairs(cases) do
        it(case .. " with one key broken is refused by its name, or is a model that runs", function()
            with_golden(case, function(file, meta, tensors)
                local problems = {}
                local infos, data = gguf_file.laid_out(tensors)
                local arch, keys = meta["general.architecture"], {}
                for key in pairs(meta) do
                    keys[key] = true
                end
                for _, key in ipairs(MORE) do
                    keys[arch .. "." .. key] = true
                end
                for key in pairs(keys) do
                    local kept = meta[key]
                    for i = 0, #VALUES do
                        meta[key] = VALUES[i] -- none first
                        gguf_file.write_parts(file, meta, infos, data)
                        local wrong = tried(file, key)
                        problems[#problems + 1] = wrong and string.format("%s = %s: %s", key, shown(VALUES[i]), wrong)
                    end
                    meta[key] = kept
                end
                table.sort(problems)
                assert.equal("", table.concat(problems, "\n"))
            end)
        end)

        it(case .. " with one tensor broken is refused by its name, or is a model that runs", function()
            with_golden(case, function(file, meta, tensors)
                local problems = {}
                local infos, data = gguf_file.laid_out(tensors)
                for i, info in ipairs(infos) do
                    if not info[1]:find("^blk%.[1-9]") then
                        for _, broken in ipairs(broken_infos(info)) do
                            infos[i] = broken
                            gguf_file.write_parts(file, meta, infos, data)
                            local wrong = tried(file, info[1])
                            problems[#problems + 1] = wrong and string.format("%s as %s [%s]: %s", info[1], broken[1],
                                                                              shown(broken[2]), wrong)
                        end
                        infos[i] = info
                    end
                end
                assert.equal("", table.concat(problems, "\n"))
            end)
        end)
    end
end)
