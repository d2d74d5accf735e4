-- From the shards of a checkpoint to a Hugging Face directory, without the run: what a checkpoint stores for it beside
-- its shards, and making it, a tensor at a time. recipes/consolidate.lua is its command.
--
--   model/.hf_metadata/{config.json, tokenizer.json, …, files.json}     files.json: which tensor of which file has
--                                                                       which rows of a parameter

local checkpoint = require("am.checkpoint")
local err = require("am.core.error")
local json = require("am.utils.json")
local path = require("am.utils.path")
local saving_model = require("am.models.saving")
local scope = require("am.core.scope")
local tensor = require("am.core.tensor")

local M = { METADATA = ".hf_metadata" }

local FILES = "files.json"
local MAX_BYTES = 256 * 1024 * 1024

--- Store a plan (am.models.saving) in a folder, which is then to be synced.
function M.write_plan(dir, plan)
    local files, targets = {}, {}
    for i, file in ipairs(plan.files) do
        local tensors = {}
        for k, t in ipairs(file.tensors) do
            tensors[k] = { t[1], t[2], json.array { unpack(t[3]) } }
        end
        files[i] = { name = file.name, tensors = json.array(tensors) }
    end
    for name, list in pairs(plan.targets) do
        targets[name] = { each = list.each or false, at = { unpack(list) } }
    end
    path.write_unsynced(path.join(dir, FILES), json.encode({ version = 1, total = plan.total, indexed = plan.indexed,
                                                             files = files, targets = targets }, { sort_keys = true }))
end

-- ---- reading the plan -----------------------------------------------------------------------

local function is_size(n)
    return type(n) == "number" and n >= 0 and n < 2 ^ 53 and n % 1 == 0
end

-- Raise "format" unless a condition holds.
local function need(condition, file, what)
    if not condition then
        err.raise("format", "%s: %s", file, what)
    end
    return condition
end

local function check_tensor(file, t, known)
    need(type(t) == "table" and type(t[1]) == "string" and type(t[2]) == "string" and type(t[3]) == "table"
         and pcall(tensor.dtype_id, t[2]) and #t[3] <= 8, file, "a tensor is not a name, a dtype and a shape")
    for _, n in ipairs(t[3]) do
        need(is_size(n), file, "the shape of " .. t[1] .. " is none")
    end
    need(not known[t[1]], file, t[1] .. " is there twice")
    known[t[1]] = { unpack(t[3]) }
    return { t[1], t[2], known[t[1]] }
end

local function check_target(file, name, target, known)
    need(type(target) == "table" and type(target.at) == "table" and #target.at > 0, file,
         "it does not say where " .. name .. " goes")
    local list = { each = target.each == true }
    need(list.each or #target.at == 1, file, "it says of " .. name .. " several places")
    for i, at in ipairs(target.at) do
        need(type(at) == "table" and type(at[1]) == "string" and known[at[1]] and is_size(at[2]), file,
             "it does not say where " .. name .. " goes")
        list[i] = { at[1], at[2] }
    end
    return list
end

-- A checkpoint's plan, and {tensor in files = shape}.
local function read_plan(file)
    local text, why = path.read_file(file, MAX_BYTES)
    local stored = need(text and json.decode(text), file, why or "it is no JSON")
    need(type(stored) == "table" and type(stored.files) == "table" and type(stored.targets) == "table"
         and is_size(stored.total), file, "it is no plan of files")
    local plan, known = { files = {}, targets = {}, total = stored.total, indexed = stored.indexed == true }, {}
    for i, one in ipairs(stored.files) do
        need(type(one) == "table" and type(one.name) == "string" and one.name:find("^model[%w-]*%.safetensors$")
             and type(one.tensors) == "table", file, "a file has no name that is one")
        plan.files[i] = { name = one.name, tensors = {} }
        for k, t in ipairs(one.tensors) do
            plan.files[i].tensors[k] = check_tensor(file, t, known)
        end
    end
    for name, target in pairs(stored.targets) do
        plan.targets[name] = check_target(file, name, target, known)
    end
    return saving_model.planned(plan), known
end

-- ---- making the directory -------------------------------------------------------------------

--- The folder model/ of what may be a run's folder, a checkpoint's, or that itself. Raises "usage" where there are no
--- shards in it.
function M.find(where)
    local newest = checkpoint.pointed(where, "LATEST")
    for _, dir in ipairs { path.join(where, "model"), where,
                           newest and path.join(where, newest, "model") or where } do
        if #checkpoint.shards.find(dir, "model") > 0 then
            return dir
        elseif path.is_file(path.join(dir, "adapter_config.json")) then
            err.raise("usage", "%s holds an adapter; recipes/merge_lora.lua makes a whole model of it and its base",
                      dir)
        end
    end
    err.raise("usage", "%s holds no checkpoint with shards of a model", where)
end

-- Copy what lies beside the weights: small files.
local function copy_rest(from, to)
    for _, name in ipairs(path.names(from)) do
        if name ~= FILES then
            path.write_file(path.join(to, name), assert(path.read_file(path.join(from, name), MAX_BYTES)))
        end
    end
end

-- Rows that there are of each tensor in files must be all.
local function check_whole(set, plan, known)
    local rows = {}
    for name, target in pairs(plan.targets) do
        local entry = set.entries[name]
            or err.raise("format", "%s lacks %s", set.where, name)
        local shape = entry.shape
        if target.each and #target ~= shape[1] then
            err.raise("format", "%s: %s has %d parts, the plan of files %d", set.where, name, shape[1], #target)
        end
        for _, at in ipairs(target) do
            rows[at[1]] = (rows[at[1]] or 0) + (target.each and (shape[2] or 1) or shape[1] or 1)
        end
    end
    for name, shape in pairs(known) do
        if rows[name] ~= (shape[1] or 1) then
            err.raise("format", "%s: of %s there are %d rows of %d", set.where, name, rows[name] or 0, shape[1] or 1)
        end
    end
end

--- Write the Hugging Face directory of a checkpoint's shards, whole or not at all. model_dir: what M.find returns; out:
--- a new folder. Returns how many files and bytes of tensors it has. Needs no more memory than a tensor.
function M.consolidate(model_dir, out)
    local metadata = path.join(model_dir, M.METADATA)
    if not path.is_file(path.join(metadata, FILES)) then
        err.raise("usage", "%s was written by a version that stored no %s: resume the run with "
                  .. "checkpoint.save_consolidated: true, and save", model_dir, M.METADATA)
    end
    checkpoint.manifest.check(path.dirname(model_dir), function(name)
        return name:find("^model/shard%-.*%.safetensors$") ~= nil or name:find("^model/%.hf_metadata/") ~= nil
    end, 0, 1)
    local plan, known = read_plan(path.join(metadata, FILES))
    local set = checkpoint.shards.open(checkpoint.shards.find(model_dir, "model"))
    check_whole(set, plan, known)
    checkpoint.write_folder(out, function(dir)
        local saving = checkpoint.saving.new(dir)
        local files = plan:open(dir, saving, true)
        for _, name in ipairs(set.names) do
            for _, piece in ipairs(set.entries[name].pieces) do
                scope.scope(function() files.put(name, piece.first, piece.archive:get(name)) end)
            end
        end
        for _, file in ipairs(files.files) do
            saving:close_file(file)
        end
        saving:wait()
        plan:write_rest(dir)
        copy_rest(metadata, dir)
    end)
    set:close()
    return #plan.files, plan.total
end

return M
