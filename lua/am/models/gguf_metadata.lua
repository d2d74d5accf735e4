-- What a GGUF file's key-values say of a model, both ways: config.json's fields from them and back. Holds what
-- all architectures share; what one of them has beyond it is in its description (gguf.lua).

local ffi = require("ffi")
local err = require("am.core.error")
local log = require("am.utils.log").get("am.models")
local tensor = require("am.core.tensor")
local config = require("am.models.config")
local json = require("am.utils.json")
local strings = require("am.utils.strings")
local frequencies = require("am.nn.rope").frequencies

local M = {}

-- { key behind the architecture's name, type, field of config.json (nil: of some architectures only), needed }
local standard_keys = {
    { "context_length", "u32", "max_position_embeddings", true },
    { "embedding_length", "u32", "hidden_size", true },
    { "block_count", "u32", "num_hidden_layers", true },
    { "feed_forward_length", "u32", "intermediate_size", true },
    { "attention.head_count", "u32", "num_attention_heads", true },
    { "attention.head_count_kv", "u32", "num_key_value_heads" },
    { "attention.layer_norm_rms_epsilon", "f32", "rms_norm_eps", true },
    { "attention.layer_norm_epsilon", "f32" },
    { "attention.sliding_window", "u32", "sliding_window" },
    { "attention.scale", "f32" },
    { "attention.clamp_kqv", "f32" },
    { "attn_logit_softcapping", "f32", "attn_logit_softcapping" },
    { "final_logit_softcapping", "f32", "final_logit_softcapping" },
    { "embedding_scale", "f32" },
    { "residual_scale", "f32" },
    { "logit_scale", "f32" },
    { "rope.freq_base", "f32", "rope_theta" },
    { "rope.freq_base_swa", "f32" },
    { "expert_count", "u32" },
    { "expert_used_count", "u32", "num_experts_per_tok" },
    { "expert_feed_forward_length", "u32", "moe_intermediate_size" },
    { "expert_shared_feed_forward_length", "u32", "shared_expert_intermediate_size" },
    { "use_parallel_residual", "bool" },
}

local TEXT = "tokenizer.ggml."

-- fn(key, type, field, needed) for each key that a description has.
local function each_key(desc, fn)
    local keys = desc.keys or {}
    for _, row in ipairs(standard_keys) do
        local key, field, needed = row[1], row[3], row[4]
        if keys[key] ~= nil then
            field = keys[key]
        end
        if field then
            fn(key, row[2], field, needed)
        end
    end
end

-- ---- reading --------------------------------------------------------------------------------

-- The numbers of a tensor with one dim.
local function vector(archive, name)
    local info = archive:info(name) or err.raise("format", "%s lacks tensor %s", archive.path, name)
    if #info.shape ~= 1 then
        err.raise("format", "%s: %s is [%s], which is no vector", archive.path, name, table.concat(info.shape, ", "))
    end
    return archive:get(name, "float64"):totable()
end

-- Llama 3.1's scaling, of which a GGUF file holds only what each frequency is divided by. The models
-- differ in `factor`, which is the largest of these; the rest is the same in all of them.
local function scaling_of_factors(archive, c)
    local factors, factor, ones = vector(archive, "rope_freqs.weight"), 1, true
    for _, f in ipairs(factors) do
        factor, ones = f > factor and f or factor, ones and f == 1
    end
    if ones then
        return nil
    end
    local scaling = { rope_type = "llama3", factor = factor, low_freq_factor = 1, high_freq_factor = 4,
                      original_max_position_embeddings = 8192 }
    local same = c.head_dim == 2 * #factors -- else there may be too many to count
    local plain = same and frequencies { theta = c.rope_theta, dim = c.head_dim }
    local scaled = same and frequencies { theta = c.rope_theta, dim = c.head_dim, scaling = scaling }
    for i = 1, same and #factors or 0 do
        same = same and math.abs(plain[i] / scaled[i] / factors[i] - 1) < 1e-5
    end
    if not same then
        err.raise("unsupported", "%s: rope_freqs.weight is not the scaling of Llama 3.1 and its successors; convert "
                  .. "from the Hugging Face directory instead", archive.path)
    end
    return scaling
end

-- Phi-3's factors, one for each frequency.
local function longrope(archive, get)
    local function factors(name)
        return vector(archive, "rope_factors_" .. name .. ".weight")
    end
    return { rope_type = "longrope", short_factor = json.array(factors("short")),
             long_factor = json.array(factors("long")), attention_factor = get("rope.scaling.attn_factor"),
             original_max_position_embeddings = get("rope.scaling.original_context_length") }
end

-- Sizes of heads and positions; rope_theta is read already.
local function read_rope(c, desc, get, archive)
    local heads, hidden = get("attention.head_count"), get("embedding_length")
    local dims = get("rope.dimension_count")
    local size = get("attention.key_length") or not desc.partial_rotary and dims or hidden / heads
    if not desc.no_head_dim then
        c.head_dim = size
    end
    c:integer("head_dim", size)
    if type(dims) == "number" and (desc.partial_rotary or dims ~= size) then
        c.partial_rotary_factor = dims / size
    end
    if desc.keys and desc.keys["rope.freq_base"] == false then
        return
    end
    c.rope_theta = c.rope_theta or 10000
    local kind = get("rope.scaling.type")
    if kind == "linear" or kind == "yarn" then
        c.rope_scaling = { rope_type = kind, factor = get("rope.scaling.factor"),
                           original_max_position_embeddings = get("rope.scaling.original_context_length"),
                           beta_fast = get("rope.scaling.yarn_beta_fast"),
                           beta_slow = get("rope.scaling.yarn_beta_slow"),
                           attention_factor = get("rope.scaling.yarn_attn_factor") }
    elseif archive:info("rope_factors_long.weight") then
        c.rope_scaling = longrope(archive, get)
    elseif archive:info("rope_freqs.weight") then
        c:integer("head_dim", size)
        c:check().rope_scaling = scaling_of_factors(archive, c)
    end
end

-- The fields before any key is read.
local function first_fields(archive, class, desc, meta)
    local embedding = archive:info("token_embd.weight")
        or err.raise("format", "%s holds no tensor \"token_embd.weight\"", archive.path)
    if #embedding.shape ~= 2 or embedding.shape[1] == 0 then
        err.raise("format", "%s: token_embd.weight is [%s], which holds no embeddings", archive.path,
                  table.concat(embedding.shape, ", "))
    end
    local c = config.new {
        architectures = json.array { class },
        model_type = desc.model_type or desc.architecture,
        vocab_size = embedding.shape[1],
        tie_word_embeddings = archive:info("output.weight") == nil,
        initializer_range = 0.02,
        bos_token_id = meta[TEXT .. "bos_token_id"],
        eos_token_id = meta[TEXT .. "eos_token_id"],
        pad_token_id = meta[TEXT .. "padding_token_id"],
        torch_dtype = "float32",
        use_cache = true,
    }
    c._name_or_path = archive.path
    for field, v in pairs(desc.config or {}) do
        c[field] = v
    end
    for field, v in pairs(desc.only or {}) do
        if type(v) == "function" then
            v = c[field] == nil and v(c)
        end
        if v then
            c[field] = v
        end
    end
    for field, name in pairs(desc.flags or {}) do
        c[field] = archive:info(name) ~= nil
    end
    return c
end

--- The configuration that a GGUF file's metadata amounts to.
---@param archive am.Archive
---@param class string the architecture's class, for config.json
function M.read(archive, class, desc)
    local meta = json.decode(archive:metadata_json())
    local arch = desc.architecture
    local function get(key)
        return meta[arch .. "." .. key]
    end
    local function need(key)
        local v = get(key)
        if type(v) ~= "number" then
            err.raise("format", "%s: the metadata lacks %s.%s", archive.path, arch, key)
        end
        return v
    end
    local c = first_fields(archive, class, desc, meta)
    each_key(desc, function(key, _, field, needed)
        c[field] = needed and need(key) or get(key)
    end)
    if not (desc.keys and desc.keys["attention.head_count_kv"] == false) and c.num_key_value_heads == nil then
        c.num_key_value_heads = need("attention.head_count")
    end
    read_rope(c, desc, get, archive)
    if desc.read then
        desc.read(c, get, archive)
    end
    -- what the file does not say is not there, whatever the family's default
    return c:override { pad_token_id = c.pad_token_id or json.null, bos_token_id = c.bos_token_id or json.null,
                        eos_token_id = c.eos_token_id or json.null, rope_scaling = c.rope_scaling or json.null }
end

-- ---- writing --------------------------------------------------------------------------------

-- What llama.cpp divides each frequency by.
local function llama3_factors(c, dims)
    local plain = frequencies { theta = c.rope_theta, dim = dims }
    local scaled = frequencies { theta = c.rope_theta, dim = dims, scaling = c.rope_scaling }
    local out = {}
    for i = 1, #plain do
        out[i] = plain[i] / scaled[i]
    end
    return out
end

local function f32_tensor(list)
    return tensor.from_buffer(ffi.new("float[?]", #list, list), { #list }, { dtype = "float32" })
end

-- Metadata of rope_scaling; `extra` takes tensors that say the rest.
local function write_scaling(c, desc, set, extra, dims)
    local scaling = c.rope_scaling
    local kind = scaling and scaling.rope_type or "default"
    if kind == "linear" then
        set("rope.scaling.type", "linear", "string")
        set("rope.scaling.factor", scaling.factor, "f32")
    elseif kind == "yarn" then
        set("rope.scaling.type", "yarn", "string")
        set("rope.scaling.factor", scaling.factor, "f32")
        set("rope.scaling.original_context_length",
            scaling.original_max_position_embeddings or c.max_position_embeddings, "u32")
        set("rope.scaling.yarn_attn_factor", scaling.attention_factor, "f32")
        set("rope.scaling.yarn_beta_fast", scaling.beta_fast, "f32")
        set("rope.scaling.yarn_beta_slow", scaling.beta_slow, "f32")
    elseif kind == "llama3" and desc.rope_tensors then
        extra[#extra + 1] = { "rope_freqs.weight", f32_tensor(llama3_factors(c, dims)) }
    elseif kind == "longrope" and desc.rope_tensors then
        local original = scaling.original_max_position_embeddings or c.original_max_position_embeddings
        local factor = c.max_position_embeddings / original
        set("rope.scaling.original_context_length", original, "u32")
        set("rope.scaling.attn_factor", scaling.attention_factor
            or factor > 1 and math.sqrt(1 + math.log(factor) / math.log(original)) or 1, "f32")
        extra[#extra + 1] = { "rope_factors_long.weight", f32_tensor(scaling.long_factor) }
        extra[#extra + 1] = { "rope_factors_short.weight", f32_tensor(scaling.short_factor) }
    elseif kind ~= "default" then
        err.raise("unsupported", "GGUF's architecture \"%s\" has no rope_scaling of type \"%s\"", desc.architecture,
                  kind)
    end
end

local function write_rope(c, desc, set, extra)
    local size = c.head_dim or c.hidden_size / c.num_attention_heads
    if c.head_dim then
        set("attention.key_length", size, "u32")
        set("attention.value_length", size, "u32")
    end
    if desc.keys and desc.keys["rope.freq_base"] == false then
        return
    end
    local dims = math.floor(size * (c.partial_rotary_factor or 1))
    set("rope.dimension_count", dims, "u32")
    write_scaling(c, desc, set, extra, dims)
end

-- Raise "unsupported" unless a field has the one value that llama.cpp computes with.
local function check_only(c, desc, field, value)
    local have = c[field]
    if type(value) == "number" and type(have) == "number" and math.abs(have - value) <= 1e-6 * math.abs(value) then
        return
    elseif (have or nil) ~= (value or nil) then
        c:unsupported(field, string.format("llama.cpp's \"%s\" computes with %s, not with %s", desc.architecture,
                                           tostring(value), tostring(have)))
    end
end

-- Raise "unsupported" unless the layers that see all are those of llama.cpp.
local function check_layer_types(c, desc)
    local every = desc.full_every
    for i = 1, every and c.layer_types and c.num_hidden_layers or 0 do
        if (c.layer_types[i] == "full_attention") ~= (i % every == 0) then
            c:unsupported("layer_types", string.format("llama.cpp's \"%s\" sees all in every layer whose number "
                .. "divides by %d, and in no other; number %d is %s", desc.architecture, every, i, c.layer_types[i]))
        end
    end
end

--- The key-values of a model: a list of { key, type, value }, and a list of { name, tensor } that GGUF keeps beside
--- the weights.
function M.write(c, desc)
    local list, extra = {}, {}
    local function put(key, type_name, value)
        list[#list + 1] = { key, type_name, value }
    end
    local function set(key, value, type_name)
        if value ~= nil then
            put(desc.architecture .. "." .. key, type_name, value)
        end
    end
    put("general.architecture", "string", desc.architecture)
    put("general.type", "string", "model")
    each_key(desc, function(key, type_name, field, needed)
        local value = c[field]
        if value == nil and needed then
            err.raise("format", "config.json has no \"%s\", which GGUF needs", field)
        end
        set(key, value, type_name)
    end)
    set("vocab_size", c.vocab_size, "u32")
    write_rope(c, desc, set, extra)
    for _, field in ipairs(strings.sorted_keys(desc.only or {})) do -- the same refusal each time
        local value = desc.only[field]
        if type(value) == "function" then
            value = value(c)
        end
        check_only(c, desc, field, value)
    end
    check_layer_types(c, desc)
    if desc.write then
        desc.write(c, set)
    end
    if desc.no_window and c.sliding_window and c.use_sliding_window ~= false and (not c.max_position_embeddings
        or c.sliding_window < c.max_position_embeddings) then
        log:warning("llama.cpp has no sliding window for \"%s\": beyond %d tokens its answers will differ",
                    desc.architecture, c.sliding_window)
    end
    return list, extra
end

return M
