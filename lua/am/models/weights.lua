-- Weights of a model from and to files: Hugging Face directories (one safetensors file or several
-- with an index) and GGUF files (gguf.lua).

local err = require("am.core.error")
local io_core = require("am.core.io")
local log = require("am.utils.log").get("am.models")
local scope = require("am.core.scope")
local tensor = require("am.core.tensor")
local gguf = require("am.models.gguf")
local json = require("am.utils.json")
local path = require("am.utils.path")
local strings = require("am.utils.strings")

local M = {}

-- ---- sources --------------------------------------------------------------------------------

-- {get(name) -> tensor or nil, names, close} over a directory's safetensors files.
local function directory_source(dir, device)
    local index = path.join(dir, "model.safetensors.index.json")
    local single = path.join(dir, "model.safetensors")
    local files, where = {}, {}
    if path.is_file(index) then
        local map = json.decode(assert(path.read_file(index, 256 * 1024 * 1024)))
        map = type(map) == "table" and map.weight_map
        if type(map) ~= "table" then
            err.raise("format", "%s has no weight_map", index)
        end
        for name, file in pairs(map) do
            if type(file) ~= "string" or file:find("/", 1, true) then
                err.raise("format", "%s: tensor %s is in %s, which is no file name", index, name,
                          tostring(file))
            end
            where[name] = file
        end
    elseif path.is_file(single) then
        files["model.safetensors"] = io_core.open(single)
        for _, name in ipairs(files["model.safetensors"]:names()) do
            where[name] = "model.safetensors"
        end
    else
        err.raise("io", "%s has neither model.safetensors nor model.safetensors.index.json, so it is "
                  .. "no checkpoint that can be read", dir)
    end
    return {
        where = dir,
        names = where,
        get = function(name, dtype)
            local file = where[name]
            if not file then
                return nil
            end
            files[file] = files[file] or io_core.open(path.join(dir, file))
            return files[file]:get(name, dtype, device)
        end,
        close = function()
            for _, archive in pairs(files) do
                archive:close()
            end
        end,
    }
end

-- ---- loading --------------------------------------------------------------------------------

local function list_of(names)
    table.sort(names)
    local shown = { unpack(names, 1, 8) }
    return table.concat(shown, ", ") .. (#names > 8 and string.format(", … (%d in all)", #names) or "")
end

local function check_shape(t, slot, name, where)
    local have, want = t:size(), slot.shape
    local same = #have == #want
    for i = 1, #want do
        same = same and have[i] == want[i]
    end
    if not same then
        err.raise("format", "%s: tensor %s is [%s], but config.json makes it [%s]", where, name,
                  table.concat(have, ", "), table.concat(want, ", "))
    end
end

-- Random numbers for one parameter, as transformers initialises it.
local function initialize_slot(model, module, slot, opts)
    local t = scope.escape(tensor.empty(slot.shape, opts))
    if slot.init == "normal" then
        t:normal_(0, model.config.initializer_range or 0.02)
    else
        t:fill_(slot.init == "ones" and 1 or 0)
    end
    if module.padding_idx and slot.name == "weight" then
        scope.scope(function() t:narrow(0, module.padding_idx, 1):fill_(0) end)
    end
    module[slot.name] = t
end

-- Parameters that the source does not have and that may begin anew: model.fresh names them.
local function initialize_fresh(model, fresh, where, opts)
    for _, item in ipairs(fresh) do
        initialize_slot(model, item.module, item.slot, opts)
        log:warning("%s has no %s: it begins with random numbers, so train it before use", where, item.name)
    end
end

--- Fill a model's parameters from a source; ties shared ones. dtype nil keeps what is stored.
local function load(model, source, dtype)
    local missing, used, fresh = {}, {}, {}
    for name, module, slot in model:parameter_slots() do
        local tied = model.tied[name]
        if not tied then
            local t = source.get(name, dtype)
            used[name] = true
            if t then
                check_shape(t, slot, name, source.where)
                module[slot.name] = scope.escape(t)
            elseif model.fresh and model.fresh[name] then
                fresh[#fresh + 1] = { name = name, module = module, slot = slot }
            else
                missing[#missing + 1] = name
            end
        else
            used[name] = true
        end
    end
    if #missing > 0 then
        err.raise("format", "%s lacks these tensors of %s: %s", source.where, model.class_name,
                  list_of(missing))
    end
    local unexpected = {}
    for name in pairs(source.names) do
        -- older files carry the rotary frequencies, which are computed here
        if not used[name] and not (model.unused and model.unused[name])
            and not strings.ends_with(name, "rotary_emb.inv_freq") then
            unexpected[#unexpected + 1] = name
        end
    end
    if #unexpected > 0 then
        err.raise("format", "%s holds tensors that %s has no place for: %s", source.where,
                  model.class_name, list_of(unexpected))
    end
    M.tie(model)
    if #fresh > 0 then
        initialize_fresh(model, fresh, source.where, { dtype = dtype or model:dtype(), device = model:device() })
    end
end

--- Point tied parameters at the tensors they share.
function M.tie(model)
    for name, of in pairs(model.tied) do
        local owner, key = model:get(name:match("^(.*)%.")), name:match("[^.]+$")
        owner:share(key, model:get(of:match("^(.*)%."))[of:match("[^.]+$")])
    end
end

--- Load from a Hugging Face directory.
function M.from_directory(model, dir, opts)
    local source = directory_source(dir, opts.device)
    load(model, source, opts.dtype)
    source.close()
end

--- Load from an open GGUF archive; `description` is the architecture's `gguf`.
function M.from_gguf(model, archive, description, opts)
    load(model, gguf.source(archive, description, model.config, opts.device), opts.dtype)
    model.gguf = description
end

--- use(get) with the checkpoint that a model came from: get(name, dtype) is a stored tensor in a dtype
--- of one's choice, or nil. Does nothing for a model that came from none.
function M.with_stored(model, use)
    local where, device = model.resolved_path, model:device()
    if not where then
        return
    end
    local source = model.gguf and gguf.source(io_core.open(where), model.gguf, model.config, device)
        or directory_source(where, device)
    use(source.get)
    source.close()
end

--- Random weights as transformers initialises them: normal(0, initializer_range), ones, zeros; an
--- embedding's padding row is zero.
function M.initialize(model, opts)
    for name, module, slot in model:parameter_slots() do
        if not model.tied[name] then
            initialize_slot(model, module, slot, opts)
        end
    end
    M.tie(model)
end

-- ---- saving ---------------------------------------------------------------------------------

-- {tensor name -> number of its file} of the checkpoint that a model came from, and how many there
-- are; nil when it was in one file.
local function original_layout(model)
    local text = model.resolved_path
        and path.read_file(path.join(model.resolved_path, "model.safetensors.index.json"), 256 * 1024 * 1024)
    local map = text and json.decode(text)
    map = type(map) == "table" and type(map.weight_map) == "table" and map.weight_map or {}
    local numbers, count = {}, 0
    for name, file in pairs(map) do
        local i, of = tostring(file):match("^model%-(%d+)%-of%-(%d+)%.safetensors$")
        i, of = tonumber(i), tonumber(of)
        if i and i >= 1 and i <= of and of <= 99999 then
            numbers[name], count = i, math.max(count, of)
        end
    end
    return count > 0 and numbers or nil, count
end

-- The tensors as lists, one a file: as the original had them (new ones go into the last), or by size.
local function shards_of(model, opts)
    local shards, bytes, total = { {} }, 0, 0
    local numbers, count = nil, 0
    if opts.numbered then
        numbers, count = original_layout(model)
    end
    for i = 1, count do
        shards[i] = {}
    end
    for name, t in model:named_parameters() do
        local n, i = t:nbytes(), numbers and (numbers[name] or count) or #shards
        if not numbers and bytes > 0 and bytes + n > (opts.max_shard_bytes or 5e9) then
            i, bytes = i + 1, 0
            shards[i] = {}
        end
        table.insert(shards[i], { name, t })
        bytes, total = bytes + n, total + n
    end
    return shards, total
end

-- Weights that an earlier save left in the folder would be read instead of those just written.
local function remove_others(dir, written)
    for _, name in ipairs(path.names(dir)) do
        local ours = name == "model.safetensors" or name == "model.safetensors.index.json"
            or name:match("^model%-%d+%-of%-%d+%.safetensors$")
        if ours and not written[name] then
            path.remove_tree(path.join(dir, name))
        end
    end
end

--- Write config.json, generation_config.json when the model has one, and the weights; those saved
--- there before go away. opts: max_shard_bytes (5e9): above it several files with an index; numbered: as
--- NeMo Automodel does, files of the original's layout, and a single one is
--- model-00001-of-00001.safetensors with an index.
function M.save(model, dir, opts)
    opts = opts or {}
    path.mkdir_p(dir)
    local shards, total = shards_of(model, opts)
    local written = {}
    if #shards == 1 and not opts.numbered then
        io_core.save_safetensors(path.join(dir, "model.safetensors"), shards[1])
        written["model.safetensors"] = true
    else
        local map = {}
        for i, shard in ipairs(shards) do
            local file = string.format("model-%05d-of-%05d.safetensors", i, #shards)
            if #shard > 0 then
                io_core.save_safetensors(path.join(dir, file), shard)
                written[file] = true
            end
            for _, item in ipairs(shard) do
                map[item[1]] = file
            end
        end
        path.write_file(path.join(dir, "model.safetensors.index.json"),
                        json.encode({ metadata = { total_size = total }, weight_map = map },
                                    { indent = 2, sort_keys = true }))
        written["model.safetensors.index.json"] = true
    end
    remove_others(dir, written)
    model.config.torch_dtype = model:dtype()
    model.config:save(dir)
    if model.generation_config then
        path.write_file(path.join(dir, "generation_config.json"),
                        json.encode(model.generation_config, { indent = 2, sort_keys = true }) .. "\n")
    end
end

return M
