-- Generation: one row, greedy or sampled, with a key/value cache. Names of options follow
-- transformers' GenerationConfig.

local ffi = require("ffi")
local autograd = require("am.core.autograd")
local edge = require("am.core.ffi")
local err = require("am.core.error")
local scope = require("am.core.scope")
local tensor = require("am.core.tensor")
local Cache = require("am.nn.cache")
local rope = require("am.nn.rope")

local M = {}

-- The draw of a step: uniform in [0, 1), the same for a seed on every machine.
local function uniform(seed, step)
    return edge.C.am_rng_u32(seed, 0x67656e, step) / 4294967296
end

-- Let the id at place i of a heap sink to where it belongs. The best is on top: the greatest z, of equals
-- the lowest id.
local function sink(heap, size, z, i)
    local id = heap[i]
    local value = z[id]
    while 2 * i + 1 < size do
        local child = 2 * i + 1
        local c = heap[child]
        if child + 1 < size then
            local other = heap[child + 1]
            if z[other] > z[c] or (z[other] == z[c] and other < c) then
                child, c = child + 1, other
            end
        end
        if value > z[c] or (value == z[c] and id < c) then
            break
        end
        heap[i], i = c, child
    end
    heap[i] = id
end

-- next(): ids by falling logit. Of many only the first are asked for, so they aren't all sorted.
local function best_first(z, n)
    local heap, size = ffi.new("int32_t[?]", n), n
    for i = 0, n - 1 do
        heap[i] = i
    end
    for i = math.floor(n / 2) - 1, 0, -1 do
        sink(heap, size, z, i)
    end
    return function()
        local id = heap[0]
        size = size - 1
        heap[0] = heap[size]
        sink(heap, size, z, 0)
        return id
    end
end

-- One of n ids, drawn after temperature, top_k and top_p.
local function sample(logits, n, opts, step)
    local z, highest = ffi.new("double[?]", n), -math.huge
    for i = 0, n - 1 do
        z[i] = logits[i] / opts.temperature
        highest = math.max(highest, z[i])
    end
    local top_k = opts.top_k and opts.top_k > 0 and math.min(opts.top_k, n) or n
    local next_best, ids, masses, total = best_first(z, n), {}, {}, 0
    local function mass_of(i) -- of the i-th best
        if not ids[i] then
            ids[i] = next_best()
            masses[i] = math.exp(z[ids[i]] - highest)
        end
        return masses[i]
    end
    if top_k < n then
        for i = 1, top_k do
            total = total + mass_of(i)
        end
    else
        for i = 0, n - 1 do
            total = total + math.exp(z[i] - highest)
        end
    end
    local keep = top_k
    if opts.top_p and opts.top_p < 1 then
        local mass = 0
        for i = 1, top_k do
            mass = mass + mass_of(i)
            if mass >= opts.top_p * total then
                keep, total = i, mass
                break
            end
        end
    end
    local target, mass = uniform(opts.seed or 42, step) * total, 0
    for i = 1, keep do
        mass = mass + mass_of(i)
        if target < mass then
            return ids[i]
        end
    end
    return ids[keep]
end

local function greedy(logits, n)
    local best = 0
    for i = 1, n - 1 do
        if logits[i] > logits[best] then
            best = i
        end
    end
    return best
end

local function stop_set(model, opts)
    local eos = opts.eos_token_id
    if eos == nil then
        eos = model.generation_config and model.generation_config.eos_token_id
            or model.config.eos_token_id
    end
    local set = {}
    for _, id in ipairs(type(eos) == "table" and eos or { eos }) do
        set[id] = true
    end
    return set
end

-- token_type_ids of a prompt, [1, T] or nil, with `new` for the text that has come since.
local function lengthened(types, length, new)
    if types == nil then
        return nil
    end
    types = tensor.is(types) and types:totable() or types
    local row, given = {}, type(types[1]) == "table" and types[1] or types
    for i = 1, length do
        row[i] = given[i] or new
    end
    return { row }
end

--- How many positions a model of that configuration has; dynamically scaled ones stretch to any length.
function M.position_limit(c)
    return not rope.any_length(c.rope_scaling) and c.max_position_embeddings or math.huge
end

-- The ids of a prompt as a list: of a list, or of a list or tensor of one row, as processors give it.
local function one_row(ids)
    ids = tensor.is(ids) and ids:totable() or ids
    local rows = type(ids) == "table" and type(ids[1]) == "table" and ids
    if type(ids) ~= "table" or (rows and #rows ~= 1) then
        err.raise("argument", "generate goes on from the ids of one prompt, not from %s",
            rows and #rows .. " rows" or "a " .. type(ids))
    end
    return rows and rows[1] or ids
end

--- Ids of the prompt (a list, or a tensor of one row) followed by new ones, as transformers returns them.
--- opts: max_new_tokens (20), do_sample (false), temperature (1), top_k, top_p, seed (42),
--- eos_token_id (number or list; the checkpoint's by default; false: never stop), use_cache (true),
--- on_token (function(id), called as each comes), inputs (what forward takes beside input_ids for the prompt:
--- pixel_values and so on).
---@param ids integer[]|am.Tensor
function M.generate(model, ids, opts)
    ids = one_row(ids)
    opts = setmetatable({ temperature = opts and opts.temperature or 1 }, { __index = opts or {} })
    if #ids == 0 then
        err.raise("argument", "generate needs at least one token id to go on from")
    end
    if not (opts.temperature > 0 and opts.temperature < math.huge) then
        err.raise("argument", "temperature must be above 0; for greedy decoding leave do_sample off")
    elseif opts.top_p and not (opts.top_p >= 0 and opts.top_p <= 1) then
        err.raise("argument", "top_p must be within 0 and 1, not %s", tostring(opts.top_p))
    end
    local max_new = opts.max_new_tokens or 20
    local c = model.config
    local limit = M.position_limit(c)
    if #ids + max_new > limit then
        err.raise("argument", "generate: a prompt of %d tokens and max_new_tokens of %d are more than the model's %d "
                  .. "positions; shorten the prompt or ask for less", #ids, max_new, limit)
    end
    local out, stop = {}, stop_set(model, opts)
    for i = 1, #ids do -- unpack knows a few thousand values at most
        out[i] = ids[i]
    end
    local was_training = model.training
    model:eval()
    local cache = opts.use_cache ~= false and Cache.new(#ids + max_new) or nil
    local ok, e = pcall(function()
        local feed, stage = out, nil
        for step = 1, max_new do
            local now = cache and model.rotary_stage and model:rotary_stage(#out)
            if stage ~= now and step > 1 then -- the keys in the cache are rotated otherwise
                cache:reset()
                feed = out
            end
            stage = now
            local logits, n
            scope.scope(function()
                local input = tensor.from_buffer(ffi.new("int32_t[?]", #feed, feed), { 1, #feed },
                                                 { dtype = "int32", device = model:device() })
                -- Prompts are of any length, 1 too, and go through products that are the same for all of them.
                local mode = step > 1 and #feed == 1 and autograd.inference_mode or autograd.no_grad
                local args = { input_ids = input, cache = cache, logits_to_keep = 1 }
                if feed == out then -- the prompt is seen
                    setmetatable(args, { __index = opts.inputs })
                    args.token_type_ids = opts.inputs and lengthened(opts.inputs.token_type_ids, #out,
                                                                             model.new_token_type or 0)
                end
                local result = mode(model.forward, model, args)
                logits, n = result.logits:to("float32"):to_buffer()
            end)
            local id = opts.do_sample and sample(logits, n, opts, step) or greedy(logits, n)
            out[#out + 1] = id
            if opts.on_token then
                opts.on_token(id)
            end
            if stop[id] then
                break
            end
            feed = cache and { id } or out
        end
    end)
    if cache then
        cache:release()
    end
    model:train(was_training)
    if not ok then
        error(e, 0)
    end
    return out
end

return M
