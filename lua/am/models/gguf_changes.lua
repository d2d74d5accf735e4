-- Tensors whose numbers GGUF has in another order, shape or scale than Hugging Face checkpoints: each kind of
-- change both ways. Which tensors they befall is said by the architecture files (gguf.lua).

local err = require("am.core.error")
local ops = require("am.core.ops")

local M = {}

-- A count that a field of config.json gives, or a function of the configuration.
local function count(config, field)
    local n = type(field) == "function" and field(config) or config[field]
    if n == nil and field == "num_key_value_heads" then
        n = config.num_attention_heads
    end
    if type(n) ~= "number" or n < 1 or n % 1 ~= 0 then
        err.raise("format", "%s: \"%s\" must be a positive integer, not %s", config._name_or_path or "config.json",
                  tostring(field), tostring(n))
    end
    return n
end

-- rows = heads * parts * size, or an error about the tensor.
local function part_size(t, name, heads, parts)
    local rows = t:size(0)
    if t:dim() < 1 or rows % (heads * parts) ~= 0 then
        err.raise("format", "the %d rows of %s do not divide into %s of %d heads", rows, name,
                  parts == 2 and "pairs" or "parts", heads)
    end
    return rows / heads / parts
end

local function reordered(t, a, b, c)
    return t:reshape(a, b, c, t:numel() / t:size(0)):transpose(1, 2):contiguous():reshape(t:size())
end

--- { "rotary", heads }: rows of a rotary projection. Hugging Face has each head's in halves, GGUF in pairs.
--- heads: the field of config.json that counts them.
M.rotary = {
    of_rows = true, -- also of an adapter's B, whose rows are these
    to_gguf = function(t, name, config, heads)
        local n = count(config, heads)
        return reordered(t, n, 2, part_size(t, name, n, 2))
    end,
    from_gguf = function(t, name, config, heads)
        local n = count(config, heads)
        return reordered(t, n, part_size(t, name, n, 2), 2)
    end,
}

--- { "add", x }: GGUF has x more (norms that Hugging Face stores as a difference to one).
M.add = {
    in_f32 = true, -- a sum rounded to 16 bits would not lead back
    to_gguf = function(t, _, _, x) return t:to("float32") + x end,
    from_gguf = function(t, _, _, x) return t:to("float32") - x end,
}

--- { "transpose" }: a matrix that Hugging Face stores as [in, out].
local function transposed(t, name)
    if t:dim() < 2 then
        err.raise("format", "%s has %d dims, too few for a matrix", name, t:dim())
    end
    return t:transpose(-2, -1):contiguous()
end
M.transpose = {
    to_gguf = transposed,
    from_gguf = transposed,
    --- The shape in GGUF, where it is another.
    shape = function(s)
        local out = { unpack(s) }
        out[#s - 1], out[#s] = s[#s], s[#s - 1]
        return out
    end,
}

-- Heads of queries and of keys (or values) in a joint projection.
local function groups(t, name, config, heads, kv_heads)
    local q = count(config, heads)
    local kv = kv_heads and count(config, kv_heads) or q
    local size = t:size(0) / (q + 2 * kv)
    if size % 1 ~= 0 or q % kv ~= 0 then
        err.raise("format", "the %d rows of %s do not divide into %d heads and twice %d", t:size(0), name, q, kv)
    end
    return q / kv, kv, size, t:numel() / t:size(0)
end

--- { "qkv", heads, kv_heads }: rows of a joint projection. Hugging Face has a key's and a value's behind the
--- queries that use them, GGUF all queries, then all keys, then all values.
M.qkv = {
    of_rows = true,
    to_gguf = function(t, name, config, heads, kv_heads)
        local per, kv, size, width = groups(t, name, config, heads, kv_heads)
        local all, shape = t:reshape(kv, per + 2, size, width), t:size()
        local function part(from, n) return all:narrow(1, from, n):contiguous():reshape(kv * n * size, width) end
        return ops.cat({ part(0, per), part(per, 1), part(per + 1, 1) }, 0):reshape(shape)
    end,
    from_gguf = function(t, name, config, heads, kv_heads)
        local per, kv, size, width = groups(t, name, config, heads, kv_heads)
        local all, shape = t:reshape(kv * (per + 2) * size, width), t:size()
        local function part(from, n)
            return all:narrow(0, from * kv * size, n * kv * size):reshape(kv, n, size, width)
        end
        return ops.cat({ part(0, per), part(per, 1), part(per + 1, 1) }, 1):contiguous():reshape(shape)
    end,
}

return M
