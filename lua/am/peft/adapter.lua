-- Adapters as HF PEFT stores them: adapter_model.safetensors and adapter_config.json. Reads those
-- that PEFT wrote, writes those that it reads; automodel_peft_config.json keeps the rest. What the
-- configuration may say is adapter_config.lua's.

local err = require("am.core.error")
local hub = require("am.utils.hub")
local io_core = require("am.core.io")
local scope = require("am.core.scope")
local adapter_config = require("am.peft.adapter_config")
local EmbeddingLoRA = require("am.peft.embedding")
local experts = require("am.peft.experts")
local lora = require("am.peft.lora")
local whole = require("am.peft.whole")
local path = require("am.utils.path")
local strings = require("am.utils.strings")

local M = {}

local PREFIX = "base_model.model."
local kinds = { Linear = lora.LinearLoRA, Conv1D = lora.LinearLoRA, Embedding = EmbeddingLoRA,
                GroupedLinear = experts.GroupedLinearLoRA }

--- The adapter of a module, without numbers: class by what it wraps. top_k: how many experts see a token, by which
--- moe_rank_scaling divides their rank. own: the rank and alpha that this module has.
function M.wrap(base, config, top_k, own)
    if not own and config.moe_rank_scaling and base.num_experts then
        own = { dim = math.max(1, math.floor(config.dim / top_k)) }
    end
    return kinds[base.class_name].new(base, setmetatable(own or {}, { __index = config }))
end

--- Iterator over (path, LinearLoRA or EmbeddingLoRA) of a model.
function M.modules(model)
    local next_module = model:named_modules()
    return function()
        local name, module
        repeat
            name, module = next_module()
        until not name or module.tensor_names
        return name, module
    end
end

-- The array of { name behind the path in files, the Lua module with the weight, transposed } of an adapter.
local function parts_of(module)
    local list = {}
    for name, child in pairs(module.tensor_names) do
        if module[child] then
            list[#list + 1] = { name, module[child], (module.transposed or {})[name] }
        end
    end
    table.sort(list, function(a, b) return a[1] < b[1] end)
    return list
end

-- ---- writing --------------------------------------------------------------------------------

-- What adapter_config.json says of the adapted modules. Rank and alpha are those of experts, where there are some:
-- PEFT takes no others for them.
local function described(model, config)
    local what = { target_modules = {}, rank = config.dim, alpha = config.alpha, rank_pattern = {}, alpha_pattern = {} }
    for name, module in M.modules(model) do
        if module.num_experts and not what.experts then
            what.experts, what.rank, what.alpha = true, module.dim, module.alpha
        end
        what.fan_in_fan_out = what.fan_in_fan_out or module.fan_in_fan_out
        for _, path_in_file in ipairs(experts.targets(name, module)) do
            table.insert(what.target_modules, path_in_file)
        end
    end
    for name, module in M.modules(model) do
        for _, key in ipairs(experts.targets(name, module)) do
            what.rank_pattern[key] = module.dim ~= what.rank and module.dim or nil
            what.alpha_pattern[key] = module.alpha ~= what.alpha and module.alpha or nil
        end
    end
    table.sort(what.target_modules)
    what.target_parameters = experts.target_parameters(M.modules(model))
    return what
end

--- Write a model's adapter, and the modules that are trained whole, into a folder that exists. config is its
--- PeftConfig. The base's own embeddings, which PEFT writes with an adapter of them, are left out.
function M.save(model, dir, config)
    local tensors, what = {}, described(model, config)
    for name, module in M.modules(model) do
        if module.num_experts then
            for _, item in ipairs(experts.written(name, module, #what.target_parameters)) do
                tensors[#tensors + 1] = { PREFIX .. item[1], item[2] }
            end
        else
            for _, part in ipairs(parts_of(module)) do
                local t = part[2].weight
                tensors[#tensors + 1] = { PREFIX .. name .. "." .. part[1],
                                          part[3] and t:detach():transpose(0, 1):contiguous() or t }
            end
        end
    end
    for _, item in ipairs(whole.parameters(model, config.modules_to_save or {})) do
        tensors[#tensors + 1] = { PREFIX .. item[1], item[2][item[3].name] }
    end
    io_core.save_safetensors(path.join(dir, "adapter_model.safetensors"), tensors)
    adapter_config.write(model, dir, config, what)
end

--- What a model's adapters compute, for writers of other formats: an array of { name, a [r, in], b [out, r], scale,
--- embedding = true where a is [in, r] }. Raises "unsupported" for DoRA, which is more than that.
function M.list(model)
    local list = {}
    for name, module in M.modules(model) do
        if module.lora_magnitude_vector then
            err.raise("unsupported", "%s is adapted by DoRA, which other programs' LoRA files cannot hold; merge it",
                      name)
        end
        local embedding = module.lora_embedding_A ~= nil
        list[#list + 1] = { name = name, embedding = embedding or nil, scale = module.scale,
                            a = (module.lora_embedding_A or module.lora_A).weight,
                            b = (module.lora_embedding_B or module.lora_B).weight }
    end
    return list
end

-- ---- reading --------------------------------------------------------------------------------

-- A tensor's name in three forms of PEFT's, or nil: the module's path and the part of its adapter.
local function adapter_part(name)
    for _, ending in ipairs { "", "%.weight", "%.default", "%.default%.weight" } do
        local module, part = name:match("^(.+)%.(lora_[%a_]+)" .. ending .. "$")
        if module then
            return module, part
        end
    end
end

-- A name in an adapter as the model has it: those made with transformers 4 have the hub's names of models with
-- pictures (am.models.file_names).
local function in_model(model, name)
    local own = model.file_names and model.file_names:to_model(name)
    return type(own) == "string" and own or name
end

--- The PeftConfig of a directory or a hub's name for a model, its target_modules the paths of the modules that are
--- adapted, and {path -> {dim, alpha}}. Reads no weights.
function M.describe(dir, model)
    dir = hub.resolve(dir)
    local config, numbers_of = adapter_config.read(dir)
    local archive, numbers = io_core.open(path.join(dir, "adapter_model.safetensors")), {}
    for _, name in ipairs(archive:names()) do
        local module, part = adapter_part(in_model(model, name:match("^base_model%.model%.(.+)$") or ""))
        if part and part:find("B$") then
            local there = model:get(module)
            local places = not (there and kinds[there.class_name])
                and experts.places(model, module, archive:info(name).shape[1])
            for _, place in ipairs(places or { { module, name = module } }) do
                numbers[place[1]] = numbers_of(place.name)
            end
        end
    end
    archive:close()
    config.target_modules = strings.sorted_keys(numbers)
    return config, numbers
end

-- adapter_model.safetensors as { adapters = {path -> {part -> tensor}}, bases = {path -> tensor}, whole =
-- {name -> tensor} }, the last of the modules that `names` covers; and the file.
local function read_tensors(dir, names, model, dtype)
    local file = path.join(dir, "adapter_model.safetensors")
    local archive, found = io_core.open(file), { adapters = {}, bases = {}, whole = {} }
    local covers = whole.covers(names)
    local function take(name, as) return scope.escape(archive:get(name, as, model:device())) end
    for _, name in ipairs(archive:names()) do
        local own = in_model(model, name:match("^base_model%.model%.(.+)$") or "")
        local module, part = adapter_part(own)
        local saved = own:gsub("%.modules_to_save%.default", "")
        if module then
            found.adapters[module] = found.adapters[module] or {}
            found.adapters[module][part] = take(name, dtype)
        elseif own:match("^(.+)%.base_layer%.weight$") then
            found.bases[own:match("^(.+)%.base_layer%.weight$")] = take(name)
        elseif covers(saved:match("^(.*)%.[^.]+$") or "") then
            found.whole[saved] = take(name)
        else
            err.raise("unsupported", "%s: tensor %s is no LoRA weight of a linear map or an embedding, and of no "
                      .. "module in modules_to_save", file, name)
        end
    end
    archive:close()
    return found, file
end

local function check_shape(file, what, t, wanted, why)
    local have = table.concat(t:size(), ", ")
    if have ~= table.concat(wanted, ", ") then
        err.raise("format", "%s: %s is [%s], but %s [%s]", file, what, have, why, table.concat(wanted, ", "))
    end
end

-- The parts of an adapter beside the tensors of a file that are theirs: an array of { part's name, module,
-- tensor in the file's shape, transposed }, all there and of the right shape.
local function matched(file, name, module, tensors, why)
    local list, wanted = {}, {}
    for _, part in ipairs(parts_of(module)) do
        local short = part[1]:match("^[%w_]+")
        local shape, t = part[2]._parameters[1].shape, tensors and tensors[short]
        if not t then
            err.raise("format", "%s lacks %s of %s", file, short, name)
        end
        check_shape(file, short .. " of " .. name, t, part[3] and { shape[2], shape[1] } or shape, why)
        list[#list + 1], wanted[short] = { short, part[2], t, part[3] }, true
    end
    for short in pairs(tensors) do
        if not wanted[short] then
            err.raise("format", "%s holds %s of %s, which has no place there%s", file, short, name,
                      short == "lora_magnitude_vector" and " without use_dora" or "")
        end
    end
    return list
end

-- All of the file's tensors must have a place in the model.
local function check_places(model, found, file, names)
    for name in pairs(found.adapters) do
        local module = model:get(name)
        if module and module.class_name:find("Experts") then
            err.raise("unsupported", "%s: it adapts the experts of %s, which %s does not let be adapted", file, name,
                      model.class_name)
        elseif not module or not (kinds[module.class_name] or module.tensor_names) then
            err.raise("format", "%s: the model has no linear map or embedding %s; the adapter belongs to another "
                      .. "model", file, name)
        end
    end
    for name, t in pairs(found.bases) do
        local module = found.adapters[name] and model:get(name)
        if not module then
            err.raise("format", "%s: it holds the weight of %s, which it does not adapt", file, name)
        end
        check_shape(file, "the weight of " .. name, t, module._parameters[1].shape,
                    "the model's, whose vocabulary differs, is")
    end
    local known = {}
    for _, item in ipairs(whole.parameters(model, names)) do
        local t = found.whole[item[1]]
        if not t then
            err.raise("format", "%s lacks %s, which modules_to_save names", file, item[1])
        end
        check_shape(file, item[1], t, item[3].shape, "the model's is")
        known[item[1]] = true
    end
    for name in pairs(found.whole) do
        if not known[name] then
            err.raise("format", "%s: the model has no weight %s; the adapter belongs to another model", file, name)
        end
    end
end

-- Put the base weights that a file holds (PEFT's, of embeddings and heads) into the model, shared ones for both.
local function load_bases(model, bases)
    for name, t in pairs(bases) do
        local module = model:get(name)
        module.weight = scope.escape(t:to(module.weight:dtype()):clone())
        for tied, of in pairs(model.tied or {}) do
            if name .. ".weight" == of then
                model:get(tied:match("^(.*)%.")):share("weight", module.weight)
            end
        end
    end
end

--- Put the adapter of a directory onto a model (freezing everything else but modules_to_save). opts: dtype of the
--- adapter (default: each weight's own), dropout, dropout_position (default: the adapter's), check, a function
--- of the PeftConfig that may refuse it while the model is as it was.
--- Returns the PeftConfig that it amounts to.
function M.load(model, dir, opts)
    opts = opts or {}
    dir = hub.resolve(dir)
    local config, numbers_of = adapter_config.read(dir)
    config.dropout = opts.dropout or config.dropout
    config.dropout_position = opts.dropout_position or config.dropout_position
    local names = config.modules_to_save or {}
    local found, file = read_tensors(dir, names, model, opts.dtype)
    local known_as = experts.gather(model, found.adapters, file)
    config.target_modules = strings.sorted_keys(found.adapters)
    check_places(model, found, file, names)
    if opts.check then
        opts.check(config)
    end
    lora.apply(model, function(name) return found.adapters[name] ~= nil end, function(name, base)
        local wrapped = M.wrap(base, config, nil, numbers_of(known_as[name] or name))
        for _, part in ipairs(matched(file, name, wrapped, found.adapters[name], "the model and r make it")) do
            local t = part[4] and part[3]:transpose(0, 1) or part[3]
            -- training writes to it, so it must not stay a view of the file
            part[2].weight = scope.escape(t:to(opts.dtype or base.weight:dtype()):clone())
        end
        return wrapped
    end)
    load_bases(model, found.bases)
    whole.train(model, names, found.whole)
    return config
end

--- Overwrite what is trained of an adapted model with what a directory holds (resume).
function M.restore(model, dir)
    local names = model.modules_to_save or {}
    local found, file = read_tensors(dir, names, model)
    experts.gather(model, found.adapters, file)
    for name, module in M.modules(model) do
        for _, part in ipairs(matched(file, name, module, found.adapters[name] or {}, "this run makes it")) do
            part[2].weight:copy_(part[4] and part[3]:transpose(0, 1) or part[3])
            part[3]:release()
        end
        found.adapters[name] = nil
    end
    local extra = next(found.adapters) or next(found.bases)
    if extra then
        err.raise("format", "%s holds an adapter of %s, which this run does not adapt", file, extra)
    end
    check_places(model, found, file, names)
    for _, item in ipairs(whole.parameters(model, names)) do
        item[2][item[3].name]:copy_(found.whole[item[1]])
        found.whole[item[1]]:release()
    end
end

return M
