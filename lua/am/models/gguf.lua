-- GGUF files under Hugging Face names: which architecture a file is of, and its tensors as a checkpoint's. Reading
-- and writing (gguf_export.lua) follow one description of an architecture, which its file in this folder returns
-- as `gguf`:
--
--   architecture    general.architecture, and the prefix of its keys: "llama"
--   model_type      config.json's, where it is another word
--   root            what the names of its tensors begin with: "model." by default
--   names           { Hugging Face name = GGUF's } where gguf_names.lua has another. Without ".weight" and ".bias",
--                   except for tensors that have neither there: { ["model.layers.%d.self_attn.sinks"] =
--                   "blk.%d.attn_sinks.weight" }
--   splits          list of { Hugging Face name, { GGUF's, … }, dim = d, interleaved = true|nil }: one tensor there
--                   is several here, its parts along d one after another or in turn
--   changes         list of { Lua pattern of Hugging Face names, kind, … }: gguf_changes.lua has the kinds
--   keys            { ["expert_count"] = "num_experts" }: fields of config.json where gguf_metadata.lua's
--                   standard_keys have others or none; false: there is no such key
--   config          fields that are the same in every model of it: { hidden_act = "silu" }
--   only            { field = value or function(c) }: what llama.cpp computes with; other values are not written, and
--                   it is what is read
--   flags           { field = tensor }: boolean fields that say whether there is such a tensor
--   partial_rotary  a part of each head is rotated (partial_rotary_factor)
--   no_head_dim     config.json has no head_dim
--   rope_tensors    llama.cpp reads scaled frequencies of it from tensors (Llama 3.1's, Phi-3's)
--   no_window       llama.cpp has no sliding window for it
--   full_every      every how many layers one sees all in llama.cpp, whatever layer_types say
--   head            llama.cpp needs output.weight, also where embeddings are tied
--   from            function(archive): { GGUF name = Hugging Face name } where that depends on the file
--   experts         true: a file of this architecture with experts; false: one without. Else both
--   write_only      true: files of it are read as another architecture that has the same name
--   read, write     functions for what no table says: read(c, get, archive) completes the configuration c, get(key)
--                   being a value of the metadata; write(c, set) sets metadata, set(key, value, type)
--
-- What changes on the way: gguf_changes.lua. Names that all share: gguf_names.lua. Key-values: gguf_metadata.lua.

local err = require("am.core.error")
local ops = require("am.core.ops")
local scope = require("am.core.scope")
local changes = require("am.models.gguf_changes")
local standard_names = require("am.models.gguf_names")
local json = require("am.utils.json")

local M = {}

-- ---- architectures --------------------------------------------------------------------------

--- general.architecture of a file, and whether it has experts.
function M.architecture(archive)
    local meta = json.decode(archive:metadata_json())
    local name = meta["general.architecture"]
    if type(name) ~= "string" then
        err.raise("format", "%s: general.architecture must be a text, which names the model's family", archive.path)
    end
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

--- fn(kind's functions, arguments …) for each change that befalls a Hugging Face tensor.
function M.each_change(desc, name, fn)
    for _, change in ipairs(desc.changes or {}) do
        if name:find(change[1]) then
            fn(changes[change[2]], unpack(change, 3))
        end
    end
end

-- Raise "format" where tensors are too small for what befalls them on the way, or parts of one another's size.
local function check_shapes(archive, list, least)
    local first
    for _, gguf in ipairs(list) do
        local info = archive:info(gguf) or err.raise("format", "%s lacks tensor %s", archive.path, gguf)
        local shape, numel = table.concat(info.shape, ", "), 1
        for _, n in ipairs(info.shape) do
            numel = numel * n
        end
        first = first or shape
        if #info.shape < least or numel == 0 then
            err.raise("format", "%s: %s is [%s], which holds no %s", archive.path, gguf, shape,
                      least > 1 and "matrices" or "numbers")
        elseif shape ~= first then
            err.raise("format", "%s: %s is [%s], but %s, which belongs to it, [%s]", archive.path, gguf, shape, list[1],
                      first)
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
    local from, places = map_of(desc).from, {}
    if desc.from then
        from = setmetatable(desc.from(archive), { __index = from })
    end
    for _, gguf in ipairs(archive:names()) do
        local pattern, suffix, numbers = look_up(from, gguf)
        local hf = pattern and from[pattern] .. suffix
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
            local least = split and split.dim + 1 or expert and 2 or 0
            M.each_change(desc, name, function(kind)
                as, least = kind.in_f32 and "float32" or as, math.max(least, 1)
            end)
            if least > 0 then
                check_shapes(archive, list, least)
            end
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
            M.each_change(desc, name, function(kind, ...)
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
