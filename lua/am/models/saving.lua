-- Writing a model as a Hugging Face directory: which files there are, what each holds, and where a parameter's rows go
-- in them, so that several processes can write one directory. What things are called in files is weights.lua's.

local io_core = require("am.core.io")
local json = require("am.utils.json")
local path = require("am.utils.path")
local weights = require("am.models.weights")

local M = {}

---@class am.models.FilesPlan what a directory's files hold
---@field files table[] { name =, tensors = { { name, dtype, shape } … } } in order; of those that the original had also
---  those without a tensor
---@field targets table<string, table[]> of a parameter: { name of the tensor in files, its row at which the parameter
---  begins, of a stack of experts also `each` = true: one for each of its rows }
---@field total integer bytes of all tensors
---@field indexed boolean with model.safetensors.index.json
local Plan = {}
Plan.__index = Plan

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

local BYTES = { float64 = 8, int64 = 8, float32 = 4, int32 = 4, bfloat16 = 2, float16 = 2 }

local function bytes_of(tensor)
    local n = BYTES[tensor[2]] or 1
    for _, size in ipairs(tensor[3]) do
        n = n * size
    end
    return n
end

-- The tensors in files, in order, and where each parameter is in them.
local function tensors_of(model, infos)
    local list, targets, stacks = {}, {}, {}
    local function add(name, file_name, dtype, shape)
        local target, part, parts = { file_name, 0 }, nil, nil
        if model.file_names then
            target[1], part, parts = model.file_names:to_file(file_name)
        end
        table.insert(targets[name], target)
        if not part then
            list[#list + 1] = { target[1], dtype, shape }
            return
        end
        local stack = stacks[target[1]] or {}
        stacks[target[1]], stack[part] = stack, { target, shape }
        if #stack == parts then
            local rows = 0
            for _, piece in ipairs(stack) do
                piece[1][2], rows = rows, rows + piece[2][1]
            end
            list[#list + 1] = { target[1], dtype, { rows, unpack(shape, 2) } }
        end
    end
    for name, _, slot in model:parameter_slots() do
        local info = not slot.shared and infos[name]
        if info then
            targets[name] = { each = slot.each }
            for _, file_name in ipairs(weights.names_in_files(name, slot, info.shape[1])) do
                add(name, file_name, info.dtype, slot.each and { unpack(info.shape, 2) } or info.shape)
            end
        end
    end
    return list, targets
end

-- The tensors as lists, one a file: as the original had them (new ones go into the last), or by size.
local function shared_out(list, numbers, count, max_bytes)
    local shards, bytes, total = { {} }, 0, 0
    for i = 1, count do
        shards[i] = {}
    end
    for _, tensor in ipairs(list) do
        local n, i = bytes_of(tensor), numbers and (numbers[tensor[1]] or count) or #shards
        if not numbers and bytes > 0 and bytes + n > max_bytes then
            i, bytes = i + 1, 0
            shards[i] = {}
        end
        table.insert(shards[i], tensor)
        bytes, total = bytes + n, total + n
    end
    return shards, total
end

--- What a directory's files hold. infos: {parameter = { dtype =, shape = }}, of tensors that need not be there; nil:
--- the model's. opts: as M.save's.
---@return am.models.FilesPlan
function M.plan(model, infos, opts)
    if not infos then
        infos = {}
        for name, t in model:named_parameters() do
            infos[name] = { dtype = t:dtype(), shape = t:size() }
        end
    end
    local list, targets = tensors_of(model, infos)
    local numbers, count = nil, 0
    if opts.numbered then
        numbers, count = original_layout(model)
    end
    local shards, total = shared_out(list, numbers, count, opts.max_shard_bytes or 5e9)
    local plan = { files = {}, targets = targets, total = total, indexed = #shards > 1 or opts.numbered == true }
    for i, tensors in ipairs(shards) do
        plan.files[i] = { name = plan.indexed and string.format("model-%05d-of-%05d.safetensors", i, #shards)
                          or "model.safetensors", tensors = tensors }
    end
    return setmetatable(plan, Plan)
end

--- A plan that was stored as a table: { files, targets, total, indexed }, which are sound.
---@return am.models.FilesPlan
function M.planned(t)
    return setmetatable(t, Plan)
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

--- Write the index, where there is one. Weights of an earlier save there go away.
function Plan:write_rest(dir)
    local written, map = {}, {}
    for _, file in ipairs(self.files) do
        written[file.name] = #file.tensors > 0 or not self.indexed
        for _, tensor in ipairs(file.tensors) do
            map[tensor[1]] = file.name
        end
    end
    if self.indexed then
        written["model.safetensors.index.json"] = true
        path.write_file(path.join(dir, "model.safetensors.index.json"),
                        json.encode({ metadata = { total_size = self.total }, weight_map = map },
                                    { indent = 2, sort_keys = true }))
    end
    remove_others(dir, written)
end

--- Write a model's config.json, and generation_config.json when it has one. dtype: of the weights.
function M.write_config(model, dir, dtype)
    model.config.torch_dtype = dtype
    model.config:save(dir)
    if model.generation_config then
        path.write_file(path.join(dir, "generation_config.json"),
                        json.encode(model.generation_config, { indent = 2, sort_keys = true }) .. "\n")
    end
end

--- Open a directory's files for writing in parts. opener: opens one, open(file, specs, { make = }), as
--- am.checkpoint.saving; make: this process makes them, before others open them.
---@return am.models.PartsWriter
function Plan:open(dir, opener, make)
    local files, place = {}, {}
    for _, file in ipairs(self.files) do
        if #file.tensors > 0 then
            files[#files + 1] = opener:open(path.join(dir, file.name), file.tensors, { make = make })
            for _, tensor in ipairs(file.tensors) do
                place[tensor[1]] = files[#files]
            end
        end
    end
    return { files = files, put = function(name, row, t) self:put(place, name, row, t) end }
end

---@class am.models.PartsWriter
---@field files am.Parts[]
---@field put fun(name: string, row: integer, t: table) rows of a parameter, from `row` on

-- Rows of a parameter, to where they are in files.
function Plan:put(place, name, row, t)
    local targets = self.targets[name]
    if not targets.each then
        place[targets[1][1]]:put(targets[1][1], targets[1][2] + row, t)
        return
    end
    for e = 0, t:size(0) - 1 do
        local target, one = targets[row + e + 1], t:select(0, e)
        place[target[1]]:put(target[1], target[2], one)
        one:release()
    end
end

--- Write config.json, generation_config.json when the model has one, and the weights; those saved
--- there before go away. opts: max_shard_bytes (5e9): above it several files with an index; numbered: as
--- NeMo Automodel does, files of the original's layout, and a single one is
--- model-00001-of-00001.safetensors with an index.
function M.save(model, dir, opts)
    opts = opts or {}
    path.mkdir_p(dir)
    local plan, tensors = M.plan(model, nil, opts), weights.saved(model)
    for _, file in ipairs(plan.files) do
        local list = {}
        for i, tensor in ipairs(file.tensors) do
            list[i] = { tensor[1], tensors[tensor[1]] }
        end
        if #list > 0 or not plan.indexed then
            io_core.save_safetensors(path.join(dir, file.name), list)
        end
    end
    plan:write_rest(dir)
    M.write_config(model, dir, model:dtype())
end

return M
