-- Writing a model as a GGUF file that llama.cpp reads: which tensors, of which types, in which shape. The bytes
-- are the engine's work (am.h, am_gguf_writer); names and changes are gguf.lua's.

local err = require("am.core.error")
local io_core = require("am.core.io")
local ops = require("am.core.ops")
local scope = require("am.core.scope")
local gguf = require("am.models.gguf")
local gguf_metadata = require("am.models.gguf_metadata")
local weights = require("am.models.weights")
local json = require("am.utils.json")
local strings = require("am.utils.strings")

local M = {}

--- By name: what matrices become, and `file` (general.file_type). `instead`: what becomes of rows that do not
--- divide into a type's blocks, as in llama.cpp.
M.types = {
    f32 = { "F32", file = 0 },
    f16 = { "F16", file = 1 },
    bf16 = { "BF16", file = 32 },
    q8_0 = { "Q8_0", file = 7 },
    q4_0 = { "Q4_0", file = 2 },
    q4_k = { "Q4_K", file = 14 },
}
local blocks = { Q8_0 = 32, Q4_0 = 32, Q5_0 = 32, Q4_K = 256 }
local instead = { Q8_0 = "F16", Q4_0 = "F16", Q5_0 = "F16", Q4_K = "Q5_0" }

M.QUANTIZATION_VERSION = 2

--- The entry of M.types by its name, or a "usage" error.
function M.type_named(name)
    local known = strings.sorted_keys(M.types)
    return M.types[name] or err.raise("usage", "GGUF type \"%s\" is not known%s; known are %s", tostring(name),
                                      strings.did_you_mean(tostring(name), known), table.concat(known, ", "))
end

-- The type of a tensor by its name in GGUF and its shape, as llama.cpp's converter chooses: vectors, norms,
-- routers, positions and biases stay f32.
local function type_of(name, shape, wanted)
    if #shape < 2 or name:find("_norm%.weight$") or name:find("ffn_gate_inp") or name == "position_embd.weight"
        or not (name:find("%.weight$") or name:find("%.lora_[ab]$")) then
        return "F32"
    end
    while blocks[wanted] and shape[#shape] % blocks[wanted] ~= 0 do
        wanted = instead[wanted]
    end
    return wanted
end

-- ---- the plan -------------------------------------------------------------------------------

local function changed_shape(desc, name, shape)
    gguf.each_change(desc, name, function(kind) shape = kind.shape and kind.shape(shape) or shape end)
    return shape
end

-- The tensor as GGUF has it, before it is split or stacked.
local function changed(desc, c, name, t)
    t = t:detach()
    gguf.each_change(desc, name, function(kind, ...) t = kind.to_gguf(t, name, c, ...) end)
    return t
end

-- One part of a tensor that GGUF has as several.
local function part_of(t, split, i, n)
    local size = t:size(split.dim) / n
    if not split.interleaved then
        return t:narrow(split.dim, (i - 1) * size, size)
    end
    local shape = t:size()
    table.insert(shape, split.dim + 1, size)
    shape[split.dim + 2] = n
    return t:reshape(shape):narrow(split.dim + 1, i - 1, 1):squeeze(split.dim + 1)
end

local function split_shape(shape, split, n, name)
    local out = { unpack(shape) }
    out[split.dim + 1] = (shape[split.dim + 1] or 0) / n
    if out[split.dim + 1] % 1 ~= 0 then
        err.raise("format", "%s does not divide into %d parts along dim %d", name, n, split.dim)
    end
    return out
end

-- The stack of experts that all of their matrices amount to.
local function stack_entry(desc, c, gguf_name, experts)
    local count = #experts
    for _, expert in pairs(experts) do
        count = math.max(count, expert.number + 1)
    end
    for e = 0, count - 1 do
        if not experts[e + 1] then
            err.raise("format", "%s: expert %d of %d is missing", gguf_name, e, count)
        end
    end
    local shape = changed_shape(desc, experts[1].name, experts[1].tensor:size())
    return { gguf_name, { count, unpack(shape) }, function()
        local list = {}
        for e, expert in ipairs(experts) do
            list[e] = changed(desc, c, expert.name, expert.tensor)
        end
        return ops.stack(list, 0)
    end }
end

--- What a model's tensors become: a list of { GGUF name, shape, function that gives the tensor }. tensors: a list
--- of { Hugging Face name, tensor }.
function M.plan(tensors, desc, c)
    local list, stacks = {}, {}
    for _, item in ipairs(tensors) do
        local name, t = item[1], item[2]
        local places, split, expert = gguf.place(desc, name)
        if not places then
            err.raise("unsupported", "GGUF's architecture \"%s\" has no tensor for %s", desc.architecture, name)
        end
        local shape = changed_shape(desc, name, t:size())
        if expert then
            local stack = stacks[places[1]]
            if not stack then
                stack = { at = #list + 1, experts = {} }
                stacks[places[1]], list[stack.at] = stack, places[1]
            end
            stack.experts[expert + 1] = { name = name, tensor = t, number = expert }
        elseif split then
            for i, place in ipairs(places) do
                list[#list + 1] = { place, split_shape(shape, split, #places, name), function()
                    return part_of(changed(desc, c, name, t), split, i, #places)
                end }
            end
        else
            list[#list + 1] = { places[1], shape, function() return changed(desc, c, name, t) end }
        end
    end
    for name, stack in pairs(stacks) do
        list[stack.at] = stack_entry(desc, c, name, stack.experts)
    end
    return list
end

-- ---- writing --------------------------------------------------------------------------------

-- JSON for the engine from a list of { key, type, value }.
local function metadata_json(values)
    local object, order = {}, {}
    for _, item in ipairs(values) do
        local value = item[3]
        order[#order + 1], object[item[1]] = item[1], { [item[2]] = type(value) == "table" and json.array(value)
            or value }
    end
    return json.encode(json.object(object, order), { separators = "compact", ascii = false })
end

--- Write a GGUF file. values: a list of { key, type, value }; entries: M.plan's; wanted: one of M.types.
function M.write(path, values, entries, wanted)
    local tensors = {}
    for i, entry in ipairs(entries) do
        tensors[i] = { entry[1], type_of(entry[1], entry[2], wanted[1]), entry[2] }
    end
    local writer = io_core.gguf_writer(path, metadata_json(values), tensors)
    local done, e = pcall(function()
        for _, entry in ipairs(entries) do
            scope.scope(function() writer:add(entry[3]()) end)
        end
        writer:commit()
    end)
    writer:close()
    if not done then
        error(e, 0)
    end
end

--- Write a model as a GGUF file: CausalLM:save_gguf.
function M.save(path, model, opts)
    local c, desc = model.config, model.gguf_description
    local wanted = M.type_named(opts.type or "f16")
    if not desc then
        err.raise("unsupported", "%s has no place in GGUF", model.class_name)
    end
    local tensors = weights.listed(model)
    for _, item in ipairs(tensors) do
        if item[1]:find("lora_", 1, true) then
            err.raise("usage", "%s belongs to an adapter; merge it into the model, or convert it by itself", item[1])
        end
    end
    local values, extra = gguf_metadata.write(c, desc)
    local entries = M.plan(tensors, desc, c)
    for _, item in ipairs(extra) do
        entries[#entries + 1] = { item[1], item[2]:size(), function() return item[2] end }
    end
    local by_name = {}
    for _, entry in ipairs(entries) do
        by_name[entry[1]] = entry
    end
    if desc.head and not by_name["output.weight"] then
        local embedding = by_name["token_embd.weight"]
        entries[#entries + 1] = { "output.weight", embedding[2], embedding[3] }
    end
    if opts.name then
        table.insert(values, 3, { "general.name", "string", opts.name })
    end
    values[#values + 1] = { "general.file_type", "u32", wanted.file }
    values[#values + 1] = { "general.quantization_version", "u32", M.QUANTIZATION_VERSION }
    for _, item in ipairs(opts.tokenizer or {}) do
        values[#values + 1] = item
    end
    M.write(path, values, entries, wanted)
end

return M
