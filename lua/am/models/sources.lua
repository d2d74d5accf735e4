-- Where weights come from: a Hugging Face directory as {where, names, get(name, dtype) -> tensor or nil, close}. Its
-- tensors are in one file or in several with an index, safetensors or what torch.save writes.

local err = require("am.core.error")
local io_core = require("am.core.io")
local json = require("am.utils.json")
local path = require("am.utils.path")

local M = {}

local FILES = { "model.safetensors", "pytorch_model.bin" } -- the first that is there

-- {tensor name = file} of an index.
local function read_index(file)
    local map = json.decode(assert(path.read_file(file, 256 * 1024 * 1024)))
    map = type(map) == "table" and map.weight_map
    if type(map) ~= "table" then
        err.raise("format", "%s has no weight_map", file)
    end
    local where = {}
    for name, shard in pairs(map) do
        if type(shard) ~= "string" or shard:find("/", 1, true) then
            err.raise("format", "%s: tensor %s is in %s, which is no file name", file, name, tostring(shard))
        end
        where[name] = shard
    end
    return where
end

-- {tensor name = file} of a directory, and the files that are open already.
local function contents(dir)
    for _, name in ipairs(FILES) do
        local index = path.join(dir, name .. ".index.json")
        if path.is_file(index) then
            return read_index(index), {}
        elseif path.is_file(path.join(dir, name)) then
            local archive, where = io_core.open(path.join(dir, name)), {}
            for _, tensor_name in ipairs(archive:names()) do
                where[tensor_name] = name
            end
            return where, { [name] = archive }
        end
    end
    err.raise("io", "%s has neither model.safetensors nor model.safetensors.index.json, nor pytorch_model.bin, so it "
              .. "is no checkpoint that can be read", dir)
end

--- The source over a directory's files.
function M.directory(dir, device)
    local where, files = contents(dir)
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

-- The i-th of n equal parts of a tensor's first dim; the tensor itself where there are none, whose shape is then wrong.
local function chunk(t, i, n)
    local size = t:dim() > 0 and t:size(0) / n or 0.5
    return size % 1 == 0 and t:narrow(0, (i - 1) * size, size) or t
end

--- The same source, or one whose tensors are called as the model calls them, by its file_names.
function M.renamed(source, model)
    if not model.file_names then
        return source
    end
    local names, parts = {}, {}
    for name in pairs(source.names) do
        local inside = model.file_names:to_model(name)
        if type(inside) == "table" then
            for i, part in ipairs(inside) do
                names[part], parts[part] = name, { i, #inside }
            end
        else
            names[inside] = name
        end
    end
    return setmetatable({
        names = names,
        get = function(name, dtype)
            local t, part = names[name] and source.get(names[name], dtype) or nil, parts[name]
            return t and part and chunk(t, part[1], part[2]) or t
        end,
    }, { __index = source })
end

--- The same source, or one that adds the body's name to its tensors': files of a model without a head (GPT-2's first
--- ones) leave it out.
function M.with_body(source, model)
    local body = model.names and model.names.head and model.names.body .. "."
    if not body then
        return source
    end
    local known = {}
    for name, _, slot in model:parameter_slots() do
        known[name] = slot
    end
    local names, bare = {}, false
    for name in pairs(source.names) do
        if name:sub(1, #body) == body then
            return source
        end
        local inside = known[name] == nil and name:sub(1, #model.names.head + 1) ~= model.names.head .. "."
        names[inside and body .. name or name] = true
        bare = bare or inside and known[body .. name] ~= nil
    end
    if not bare then
        return source
    end
    return setmetatable({
        names = names,
        get = function(name, dtype)
            return source.get(name:sub(1, #body) == body and name:sub(#body + 1) or name, dtype)
        end,
    }, { __index = source })
end

return M
