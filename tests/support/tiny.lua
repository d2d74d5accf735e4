-- Small random Llamas for the specs of components, comparing weights by their bits, and the error
-- objects that calls raise.

local ffi = require("ffi")
local am = require("am")
local err = require("am.core.error")

local M = {}

--- Fields of a small model's config.json, no size a multiple of a tile, with changes on top (false
--- leaves a field out).
function M.fields(changes)
    local fields = {
        architectures = { "LlamaForCausalLM" }, model_type = "llama", hidden_size = 12, intermediate_size = 20,
        num_hidden_layers = 2, num_attention_heads = 3, num_key_value_heads = 1, head_dim = 6, vocab_size = 29,
        max_position_embeddings = 64, rms_norm_eps = 1e-5, rope_theta = 10000, initializer_range = 0.3,
        tie_word_embeddings = false, bos_token_id = 1, eos_token_id = 2,
    }
    for key, value in pairs(changes or {}) do
        if value == false and type(fields[key]) ~= "boolean" then
            value = nil
        end
        fields[key] = value
    end
    return fields
end

--- A model of these fields with the random weights of a seed.
function M.model(changes, opts)
    am.manual_seed(opts and opts.seed or 7)
    return am.AutoModelForCausalLM.from_config(M.fields(changes), opts)
end

--- A tensor as text: dtype, shape and all its bits.
function M.bits(t)
    local array = t:to_buffer()
    return string.format("%s [%s] ", t:dtype(), table.concat(t:size(), ", ")) .. ffi.string(array, ffi.sizeof(array))
end

--- How many numbers the parameters of a model's structure have, tied ones once.
function M.count(structure)
    local total = 0
    for name, _, slot in structure:parameter_slots() do
        local numbers = structure.tied[name] and 0 or 1
        for _, size in ipairs(slot.shape) do
            numbers = numbers * size
        end
        total = total + numbers
    end
    return total
end

--- {name -> bits} of a model's parameters.
function M.weights(model)
    local out = {}
    for name, t in model:named_parameters() do
        out[name] = M.bits(t)
    end
    return out
end

--- Names in which two tables of bits differ, sorted; empty when they are the same.
function M.differing(a, b)
    local out = {}
    for name, bits in pairs(a) do
        if b[name] ~= bits then
            out[#out + 1] = name
        end
    end
    for name in pairs(b) do
        if a[name] == nil then
            out[#out + 1] = name
        end
    end
    table.sort(out)
    return out
end

--- The text of the error object that fn raises. Fails when there is none, its code is another one, or
--- a word of `wanted` (a string or a list) is not in it.
function M.raised(code, wanted, fn, ...)
    local ok, e = pcall(fn, ...)
    local text = tostring(e)
    if ok or not err.is(e) or e.code ~= code then
        error(ok and "nothing was raised" or "not an error of code " .. code .. ": " .. text, 2)
    end
    for _, word in ipairs(type(wanted) == "table" and wanted or { wanted }) do
        if not text:find(word, 1, true) then
            error(string.format("%q is not in: %s", word, text), 2)
        end
    end
    return text
end

--- Fails unless fn raises an error object of that code, whose text a pattern matches.
function M.fails(code, pattern, fn, ...)
    local text = M.raised(code, {}, fn, ...)
    if not text:find(pattern) then
        error(string.format("%q does not match: %s", pattern, text), 2)
    end
end

local CODES = { format = true, unsupported = true, usage = true, argument = true }

--- What pcall() on hostile input must not give, as text: anything but success or an error object of a code that speaks
--- of input. Else nil.
function M.misbehaved(ok, e)
    if not ok and not err.is(e) then
        return tostring(e)
    end
    return not ok and not CODES[e.code] and e.code .. ": " .. tostring(e) or nil
end

return M
