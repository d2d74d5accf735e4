-- Weights of a model from files: Hugging Face directories (sources.lua) and GGUF files (gguf.lua); saving.lua writes
-- them. What a parameter is called in files is its name in the model, but for stacks of experts: files hold one matrix
-- for each; and where the model has file_names (file_names.lua), which apply as files are opened and written.

local err = require("am.core.error")
local autograd = require("am.core.autograd")
local io_core = require("am.core.io")
local log = require("am.utils.log").get("am.models")
local scope = require("am.core.scope")
local packed = require("am.core.packed")
local tensor = require("am.core.tensor")
local gguf = require("am.models.gguf")
local mxfp4 = require("am.models.mxfp4")
local sources = require("am.models.sources")
local strings = require("am.utils.strings")

local M = {}

-- ---- names in files -------------------------------------------------------------------------

--- Names in files of a parameter: its own, or for a stack of experts ("….experts.w1.weight") a list of one for each
--- ("….experts.0.w1.weight", …), of which there are `count` (the module's).
function M.names_in_files(name, slot, count)
    if not slot.each then
        return { name }
    end
    local stem, leaf = name:match("^(.*)%.([^.]+%.[^.]+)$")
    local names = {}
    for e = 1, count or slot.shape[1] do
        names[e] = string.format("%s.%d.%s", stem, e - 1, leaf)
    end
    return names
end

local names_in_files = M.names_in_files

-- List of {name in files, tensor} of a model's parameters, or of their gradients where they have one.
local function in_files(model, gradients)
    local list = {}
    for name, module, slot in model:parameter_slots() do
        local t = not slot.shared and module[slot.name] or nil
        if packed.is(t) and not gradients then
            err.raise("state", "%s is in few bits, which no checkpoint here holds: merge the adapter, or unpack the "
                      .. "weights first (am.quantization.qlora.dequantize)", name)
        end
        t = t and gradients and t.grad or not gradients and t
        if t and slot.each then
            for e, file_name in ipairs(names_in_files(name, slot)) do
                list[#list + 1] = { file_name, t:select(0, e - 1) }
            end
        elseif t then
            list[#list + 1] = { name, t }
        end
    end
    return model.file_names and model.file_names:to_files(list) or list
end

local function as_table(list)
    local out = {}
    for _, item in ipairs(list) do
        out[item[1]] = item[2]
    end
    return out
end

--- List of {name in files, tensor} of a model's parameters, views of them, in their order; copies of those that are
--- stacked in files (file_names.lua). Shared ones come once, under the first name.
function M.listed(model)
    return autograd.no_grad(in_files, model)
end

--- The same as a table {name in files = tensor}.
function M.saved(model)
    return as_table(M.listed(model))
end

--- The same of their gradients, where they have one.
function M.saved_gradients(model)
    return as_table(autograd.no_grad(in_files, model, true))
end

-- ---- loading --------------------------------------------------------------------------------

-- Names with, for some, the one that was probably meant; the first eight of them.
local function list_of(names, others)
    table.sort(names)
    local shown = {}
    for i = 1, math.min(#names, 8) do
        shown[i] = names[i]
        if #others > 0 and #others <= 1000 then
            local near = strings.nearest(names[i], others)
            shown[i] = names[i] .. (near and " (there is " .. near .. ")" or "")
        end
    end
    return table.concat(shown, ", ") .. (#names > 8 and string.format(", … (%d in all)", #names) or "")
end

local function check_shape(t, want, name, where)
    local have = t:size()
    local same = #have == #want
    for i = 1, #want do
        same = same and have[i] == want[i]
    end
    if not same then
        err.raise("format", "%s: tensor %s is [%s], but config.json makes it [%s]", where, name,
                  table.concat(have, ", "), table.concat(want, ", "))
    end
end

-- A parameter from a source in a dtype (nil: as stored), or nil and the names that lack. It belongs to the scope
-- that is open.
local function read_parameter(source, name, slot, dtype)
    local names, lacking, stack = names_in_files(name, slot), {}, nil
    local function get(file_name, shape)
        local t = source.get(file_name, dtype)
        if t then
            check_shape(t, shape, file_name, source.where)
        else
            lacking[#lacking + 1] = file_name
        end
        return t
    end
    if not slot.each then
        return get(name, slot.shape), lacking
    end
    for e, file_name in ipairs(names) do -- a scope each: one that stays would hold the whole file
        local made = scope.scope(function()
            local one = get(file_name, { unpack(slot.shape, 2) })
            local fresh = one and not stack and tensor.empty(slot.shape, { dtype = one:dtype(), device = one:device() })
            if one then
                (stack or fresh):select(0, e - 1):copy_(one)
            end
            return fresh or nil
        end)
        stack = stack or made
    end
    if #lacking > 0 then
        return nil, lacking
    end
    return stack
end

-- Give a module a tensor that was read or made, in few bits where pack(module, slot, t) returns that.
local function place(module, slot, t, pack)
    local few = pack and pack(module, slot, t)
    if few then
        scope.escape(few.bytes)
        t:release()
    end
    module[slot.name] = few or scope.escape(t)
end

-- Random numbers for one parameter, as transformers initialises it.
local function initialize_slot(model, module, slot, opts)
    local t, init = tensor.empty(slot.shape, { dtype = opts.dtype, device = opts.device }), slot.init
    if type(init) == "table" and init.std then
        t:normal_(0, init.std)
    elseif init == "normal" or type(init) == "number" then
        t:normal_(0, (model.config.initializer_range or 0.02) * (type(init) == "number" and init or 1))
    else
        t:fill_(type(init) == "table" and init.fill or init == "ones" and 1 or 0)
    end
    if module.padding_idx and slot.name == "weight" then
        scope.scope(function() t:narrow(0, module.padding_idx, 1):fill_(0) end)
    end
    place(module, slot, t, opts.pack)
end

-- Parameters that the source does not have and that may begin anew: model.fresh names them.
local function initialize_fresh(model, fresh, where, opts)
    for _, item in ipairs(fresh) do
        initialize_slot(model, item.module, item.slot, opts)
        log:warning("%s has no %s: it begins with random numbers, so train it before use", where, item.name)
    end
end

-- What a source has and no parameter wants, but for what files may hold besides.
local function unexpected_in(model, source, used)
    local list = {}
    local layer = "^" .. model.names.body .. "%." .. model.names.layers .. "%.(%d+)%."
    for name in pairs(source.names) do
        -- older files carry the rotary frequencies, which are computed here
        local known = used[name] or name:find("rotary_emb%.inv_freq$")
            or model.layers_asked and (tonumber(name:match(layer)) or -1) >= model.layers_asked
        for _, pattern in ipairs(model.unused or {}) do
            known = known or name:find(pattern)
        end
        if not known then
            list[#list + 1] = name
        end
    end
    return list
end

local halves = { float16 = true, bfloat16 = true }

-- The dtype of a model whose tensors are stored in several (GGUF files have norms in float32, whatever the matrices
-- are in): the one that config.json names, or the widest of the matrices. nil where all are of one.
local function common_dtype(model, named)
    local first, mixed, widest
    for _, t in model:named_parameters() do
        local dtype = packed.is(t) and t.weight_dtype or t:dtype()
        first = first or dtype
        mixed = mixed or dtype ~= first
        if t:dim() > 1 and dtype ~= widest then
            widest = (not widest or halves[widest] and not halves[dtype]) and dtype
                or halves[widest] and halves[dtype] and "float32" or dtype == "float64" and dtype or widest
        end
    end
    return mixed and ((halves[named] or named == "float32" or named == "float64") and named or widest or first) or nil
end

-- Give parameters that are stored in several dtypes one, since ops mix none.
local function unify(model, named)
    local dtype = common_dtype(model, named)
    if not dtype then
        return
    end
    for _, module, slot in model:parameter_slots() do
        local t = module[slot.name]
        if tensor.is(t) and t:dtype() ~= dtype then
            module[slot.name] = scope.escape(t:to(dtype))
            t:release()
        end
    end
end

--- Fill a model's parameters from a source; ties shared ones. dtype nil keeps what is stored, if all is in one dtype;
--- named is that of config.json; pack: see place.
local function load(model, source, dtype, named, pack)
    local missing, used, fresh = {}, {}, {}
    for name, module, slot in model:parameter_slots() do
        for _, file_name in ipairs(names_in_files(name, slot)) do
            used[file_name] = true
        end
        if not model.tied[name] then
            local t, lacking = read_parameter(source, name, slot, dtype)
            if t then
                place(module, slot, t, pack)
            elseif model.fresh and model.fresh[name] then
                fresh[#fresh + 1] = { name = name, module = module, slot = slot }
            else
                for _, file_name in ipairs(lacking) do
                    missing[#missing + 1] = file_name
                end
            end
        end
    end
    local unexpected = unexpected_in(model, source, used)
    if #missing > 0 then
        err.raise("format", "%s lacks these tensors of %s: %s%s", source.where, model.class_name,
                  list_of(missing, unexpected), #unexpected == 0 and ""
                      or "; and it holds some that have no place: " .. list_of(unexpected, {}))
    elseif #unexpected > 0 then
        err.raise("format", "%s holds tensors that %s has no place for: %s", source.where,
                  model.class_name, list_of(unexpected, {}))
    end
    if not dtype then
        unify(model, named)
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

-- A directory's tensors under the model's names.
local function open_directory(model, dir, device)
    return sources.with_body(sources.renamed(mxfp4.unpacked(sources.directory(dir, device)), model), model)
end

--- Load from a Hugging Face directory.
function M.from_directory(model, dir, opts)
    local source = open_directory(model, dir, opts.device)
    load(model, source, opts.dtype, model.config.torch_dtype, opts.pack)
    source.close()
end

--- Load from an open GGUF archive; `description` is the architecture's `gguf`.
function M.from_gguf(model, archive, description, opts)
    load(model, gguf.source(archive, description, model.config, opts.device), opts.dtype, nil, opts.pack)
    model.gguf = description
end

--- use(get) with the checkpoint that a model came from: get(name, dtype) is a stored parameter in a dtype
--- of one's choice, or nil. Does nothing for a model that came from none.
function M.with_stored(model, use)
    local where, device = model.resolved_path, model:device()
    if not where then
        return
    end
    local source = model.gguf and gguf.source(io_core.open(where), model.gguf, model.config, device)
        or open_directory(model, where, device)
    local slots = {}
    for name, _, slot in model:parameter_slots() do
        slots[name] = slot
    end
    use(function(name, dtype)
        return slots[name] and (read_parameter(source, name, slots[name], dtype))
    end)
    source.close()
end

--- Random weights as transformers initialises them: normal(0, initializer_range), ones, zeros; an
--- embedding's padding row is zero. opts: dtype, device, pack (see place).
function M.initialize(model, opts)
    for name, module, slot in model:parameter_slots() do
        if not model.tied[name] then
            initialize_slot(model, module, slot, opts)
        end
    end
    M.tie(model)
end

return M
