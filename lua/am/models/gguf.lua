-- GGUF files under Hugging Face names: which architecture a file is of, the configuration that its metadata
-- amounts to, and its tensors as a checkpoint's. Both directions read one description of an architecture, which
-- its file in this folder returns as `gguf`:
--
--   architecture  general.architecture, and the prefix of its keys: "llama"
--   model_type    config.json's, where it is another word
--   root          what the names of its tensors begin with: "model." by default
--   names         { Hugging Face name = GGUF's } where gguf_names.lua has another. Without ".weight" and ".bias",
--                 except for tensors that have neither there: { ["model.layers.%d.self_attn.sinks"] =
--                 "blk.%d.attn_sinks.weight" }
--   splits        list of { Hugging Face name, { GGUF's, … }, dim = d, interleaved = true|nil }: one tensor there
--                 is several here, its parts along d one after another or in turn
--   changes       list of { Lua pattern of Hugging Face names, kind, … }: gguf_changes.lua has the kinds
--   keys          { ["attention.head_count"] = "n_head" }: fields of config.json where `standard_keys` below has
--                 others; false: there is none
--   config        fields that are the same in every model of it: { hidden_act = "silu" }
--   experts       true: a file of this architecture with experts; one without is another's
--   write_only    true: files of it are read as another architecture that has the same name
--   read, write   functions for what no table says: read(c, get, archive) completes the configuration c, get(key)
--                 being a value of the metadata; write(c, set) sets metadata, set(key, value, type)
--
-- What changes on the way: gguf_changes.lua. Names that all share: gguf_names.lua.

local err = require("am.core.error")
local ops = require("am.core.ops")
local scope = require("am.core.scope")
local config = require("am.models.config")
local changes = require("am.models.gguf_changes")
local standard_names = require("am.models.gguf_names")
local json = require("am.utils.json")
local frequencies = require("am.nn.rope").frequencies

local M = {}

-- ---- metadata -------------------------------------------------------------------------------

-- { key behind the architecture's name, field of config.json, needed }. Of two with one key the first that a
-- configuration has is written.
local standard_keys = {
    { "context_length", "max_position_embeddings", true },
    { "embedding_length", "hidden_size", true },
    { "block_count", "num_hidden_layers", true },
    { "feed_forward_length", "intermediate_size", true },
    { "attention.head_count", "num_attention_heads", true },
    { "attention.head_count_kv", "num_key_value_heads" },
    { "attention.layer_norm_rms_epsilon", "rms_norm_eps", true },
    { "attention.layer_norm_epsilon", false },
    { "attention.sliding_window", "sliding_window" },
    { "rope.freq_base", "rope_theta" },
    { "expert_count", false },
    { "expert_used_count", "num_experts_per_tok" },
    { "expert_feed_forward_length", "moe_intermediate_size" },
    { "expert_shared_feed_forward_length", "shared_expert_intermediate_size" },
    { "attn_logit_softcapping", "attn_logit_softcapping" },
    { "final_logit_softcapping", "final_logit_softcapping" },
}

local TEXT = "tokenizer.ggml."

-- Llama 3.1's scaling, of which a GGUF file holds only what each frequency is divided by. The models
-- differ in `factor`, which is the largest of these; the rest is the same in all of them.
local function scaling_of_factors(archive, c)
    local factors, factor, ones = archive:get("rope_freqs.weight", "float64"):totable(), 1, true
    for _, f in ipairs(factors) do
        factor, ones = f > factor and f or factor, ones and f == 1
    end
    if ones then
        return nil
    end
    local scaling = { rope_type = "llama3", factor = factor, low_freq_factor = 1, high_freq_factor = 4,
                      original_max_position_embeddings = 8192 }
    local plain = frequencies { theta = c.rope_theta, dim = c.head_dim }
    local scaled = frequencies { theta = c.rope_theta, dim = c.head_dim, scaling = scaling }
    local same = #factors == #plain
    for i = 1, same and #factors or 0 do
        same = same and math.abs(plain[i] / scaled[i] / factors[i] - 1) < 1e-5
    end
    if not same then
        err.raise("unsupported", "%s: rope_freqs.weight is not the scaling of Llama 3.1 and its successors; convert "
                  .. "from the Hugging Face directory instead", archive.path)
    end
    return scaling
end

-- Positions: rope_theta is read already.
local function read_rope(c, get, archive, heads, hidden)
    local dims = get("rope.dimension_count")
    c.head_dim = get("attention.key_length") or dims or hidden / heads
    if dims and dims ~= c:integer("head_dim") then
        c.partial_rotary_factor = dims / c.head_dim
    end
    c.rope_theta = c.rope_theta or 10000
    local kind = get("rope.scaling.type")
    if kind == "linear" or kind == "yarn" then
        c.rope_scaling = { rope_type = kind, factor = get("rope.scaling.factor"),
                           original_max_position_embeddings = get("rope.scaling.original_context_length") }
    elseif archive:info("rope_freqs.weight") then
        c:integer("head_dim")
        c:check().rope_scaling = scaling_of_factors(archive, c)
    end
end

-- The fields that standard_keys and the description name.
local function read_fields(c, desc, get, need)
    local keys = desc.keys or {}
    for _, row in ipairs(standard_keys) do
        local key, field = row[1], row[2]
        if keys[key] ~= nil then
            field = keys[key]
        end
        if field then
            c[field] = row[3] and need(key) or get(key)
        end
    end
    for key, field in pairs(keys) do
        if field and c[field] == nil then
            c[field] = get(key)
        end
    end
end

--- The configuration that a GGUF file's metadata amounts to.
---@param archive am.Archive
---@param class string the architecture's class, for config.json
function M.config(archive, class, desc)
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
    local embedding = archive:info("token_embd.weight")
        or err.raise("format", "%s holds no tensor \"token_embd.weight\"", archive.path)
    local c = config.new {
        architectures = json.array { class },
        model_type = desc.model_type or arch,
        vocab_size = embedding.shape[1],
        tie_word_embeddings = archive:info("output.weight") == nil,
        attention_bias = archive:info("blk.0.attn_q.bias") ~= nil,
        mlp_bias = archive:info("blk.0.ffn_gate.bias") ~= nil,
        attention_dropout = 0,
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
    local heads, hidden = need("attention.head_count"), need("embedding_length")
    read_fields(c, desc, get, need)
    c.num_key_value_heads = c.num_key_value_heads or heads
    read_rope(c, get, archive, heads, hidden)
    if desc.read then
        desc.read(c, get, archive)
    end
    return c
end

--- general.architecture of a file, and whether it has experts.
function M.architecture(archive)
    local meta = json.decode(archive:metadata_json())
    local name = tostring(meta["general.architecture"])
    local experts = meta[name .. ".expert_count"]
    return name, type(experts) == "number" and experts > 0
end

--- Whether files with what M.architecture returns are read by a description.
function M.reads(desc, name, experts)
    return desc.architecture == name and not desc.write_only and (desc.experts == nil or desc.experts == experts)
end

-- ---- names ----------------------------------------------------------------------------------

-- "a.3.b" -> "a.%d.b", { "3" }
local function pattern_of(name)
    local numbers = {}
    local pattern = name:gsub("%.(%d+)%f[.%z]", function(digits)
        numbers[#numbers + 1] = digits
        return ".%d"
    end)
    return pattern, numbers
end

local function filled(pattern, numbers)
    local i = 0
    return (pattern:gsub("%%d", function()
        i = i + 1
        return numbers[i]
    end))
end

local function suffix_of(name)
    local stem, suffix = name:match("^(.*)(%.%a+)$")
    if suffix == ".weight" or suffix == ".bias" then
        return stem, suffix
    end
end

local maps = setmetatable({}, { __mode = "k" })

-- Both directions of an architecture's names: to[Hugging Face pattern] = list of GGUF patterns, from[GGUF
-- pattern] = Hugging Face pattern, splits[Hugging Face pattern] = the description's entry.
local function map_of(desc)
    local map = maps[desc]
    if map then
        return map
    end
    map = { to = {}, from = {}, splits = {} }
    maps[desc] = map
    for _, split in ipairs(desc.splits or {}) do
        map.to[split[1]], map.splits[split[1]] = split[2], split
        for _, gguf in ipairs(split[2]) do
            map.from[gguf] = split[1]
        end
    end
    for hf, gguf in pairs(desc.names or {}) do
        map.to[hf], map.from[gguf] = { gguf }, hf
    end
    local root = desc.root or "model."
    for _, row in ipairs(standard_names) do
        local gguf = row[1]
        for i = 2, #row do
            local hf = row[i]
            if hf:sub(1, #root) == root or not hf:find(".", 1, true) then
                map.to[hf] = map.to[hf] or { gguf }
                map.from[gguf] = map.from[gguf] or hf
            end
        end
    end
    return map
end

-- The pattern that a table has an entry for, its suffix and numbers; nil for a name that it does not cover.
local function look_up(entries, name)
    local pattern, numbers = pattern_of(name)
    if entries[pattern] then
        return pattern, "", numbers
    end
    local stem, suffix = suffix_of(pattern)
    if stem and entries[stem] then
        return stem, suffix, numbers
    end
end

--- Where a Hugging Face tensor is in GGUF: a list of names (several for one that is split), the entry of
--- `splits` or nil, and the number in the stack of experts or nil. Nothing for an unknown name.
function M.place(desc, name)
    local map = map_of(desc)
    local pattern, suffix, numbers = look_up(map.to, name)
    if not pattern then
        return nil
    end
    local list = {}
    for i, gguf in ipairs(map.to[pattern]) do
        list[i] = filled(gguf, numbers) .. suffix
    end
    return list, map.splits[pattern], tonumber(numbers[2])
end

-- ---- tensors --------------------------------------------------------------------------------

-- fn(kind's functions, arguments …) for each change that befalls a tensor.
local function each_change(desc, name, fn)
    for _, change in ipairs(desc.changes or {}) do
        if name:find(change[1]) then
            fn(changes[change[2]], unpack(change, 3))
        end
    end
end

-- A tensor's parts along a dim, one after another or in turn, as one again.
local function join(parts, split)
    if not split.interleaved then
        return ops.cat(parts, split.dim)
    end
    for i, t in ipairs(parts) do
        parts[i] = t:unsqueeze(split.dim + 1)
    end
    local shape = parts[1]:size()
    table.remove(shape, split.dim + 2)
    shape[split.dim + 1] = shape[split.dim + 1] * #parts
    return ops.cat(parts, split.dim + 1):reshape(shape)
end

local MOST_EXPERTS = 10000 -- an empty tensor may claim any number of rows

-- { Hugging Face name -> its place } of all tensors of an archive. Those that have none keep their name, to be
-- reported as unexpected.
local function places_of(archive, desc)
    local map, places = map_of(desc), {}
    for _, gguf in ipairs(archive:names()) do
        local pattern, suffix, numbers = look_up(map.from, gguf)
        local hf = pattern and map.from[pattern] .. suffix
        local _, wanted = (hf or ""):gsub("%%d", "")
        if hf and wanted > #numbers then
            for e = 0, math.min(archive:info(gguf).shape[1] or 0, MOST_EXPERTS) - 1 do
                places[filled(hf, { numbers[1], tostring(e) })] = true
            end
        elseif hf then
            places[filled(hf, numbers)] = true
        elseif not gguf:match("^rope_f%a+[%a_]*%.weight$") then
            places[gguf] = true
        end
    end
    return places
end

--- {where, names, get(name, dtype) -> tensor or nil, close} over a GGUF file, under Hugging Face names.
function M.source(archive, desc, c, device)
    local names = places_of(archive, desc)
    local held = {} -- the stack of experts that was used last
    local function stack(gguf, dtype)
        if held.name ~= gguf or held.dtype ~= dtype then
            if held.tensor then
                held.tensor:release()
            end
            held = { name = gguf, dtype = dtype, tensor = scope.escape(archive:get(gguf, dtype, device)) }
        end
        return held.tensor
    end
    local function get(name, dtype)
        local list, split, expert = M.place(desc, name)
        if not names[name] or not list then
            return nil
        end
        return scope.scope(function()
            local t
            local as = dtype
            each_change(desc, name, function(kind) as = kind.in_f32 and "float32" or as end)
            if split then
                local parts = {}
                for i, gguf in ipairs(list) do
                    parts[i] = archive:get(gguf, as, device)
                end
                t = join(parts, split)
            elseif expert then
                t = stack(list[1], as):select(0, expert)
            else
                t = archive:get(list[1], as, device)
            end
            each_change(desc, name, function(kind, ...)
                t = kind.from_gguf(t, archive.path .. ": " .. list[1], c, ...)
            end)
            return dtype and t:to(dtype) or t
        end)
    end
    return {
        where = archive.path,
        names = names,
        get = get,
        close = function()
            if held.tensor then
                held.tensor:release()
            end
            archive:close()
        end,
    }
end

return M
