-- Attention whose scores are stored, [B, H, T, S] of them: what attn_implementation "eager" runs, to check the
-- op without scores, and what biases of the scores (ALiBi) need.

local ffi = require("ffi")
local ops = require("am.core.ops")
local tensor = require("am.core.tensor")

local M = {}

--- ALiBi's slope of each of n heads (Press et al. 2022), as transformers' build_alibi_tensor has them.
function M.slopes(n)
    local slopes, power = {}, 2 ^ math.floor(math.log(n) / math.log(2) + 1e-9)
    local base = 2 ^ -(2 ^ -(math.log(power) / math.log(2) - 3))
    for i = 1, power do
        slopes[i] = base ^ i
    end
    base = 2 ^ -(2 ^ -(math.log(2 * power) / math.log(2) - 3))
    for i = power + 1, n do
        slopes[i] = base ^ (2 * (i - power) - 1)
    end
    return slopes
end

-- Of each query, the first key that it may see and the one after the last: a function(b, t).
local function ranges(bounds, t, s, window, causal)
    local kept = bounds and bounds:to_buffer()
    return function(b, q)
        local first, stop = 0, causal and math.min(s, q + s - t + 1) or s
        if kept then
            first = kept[(b * t + q) * 2]
            stop = math.min(stop, kept[(b * t + q) * 2 + 1])
        end
        return window and math.max(first, stop - window) or first, stop, first
    end
end

-- What is added to scores: 0 or the least number [B or 1, 1, T, S]; with slopes, also how far each key is from its
-- sample's first.
local function mask(bounds, b, t, s, opts)
    local rows, from = bounds and b or 1, opts.slopes
    local range, least = ranges(bounds, t, s, opts.window, opts.causal ~= false), -3.4028234663852886e38
    local out = ffi.new("float[?]", rows * t * s)
    local distance = from and ffi.new("float[?]", rows * t * s)
    local empty = ffi.new("float[?]", rows * t)
    for i = 0, rows - 1 do
        for q = 0, t - 1 do
            local row, first, stop, start = (i * t + q) * s, range(i, q)
            empty[i * t + q] = first < stop and 1 or 0
            for key = 0, s - 1 do
                out[row + key] = key >= first and key < stop and 0 or least
                if from then
                    distance[row + key] = math.max(key - start, 0)
                end
            end
        end
    end
    return out, empty, distance, rows
end

--- The same as ops.attention, its gradients too. opts: those of ops.attention, and slopes: of ALiBi, one a head.
function M.attention(q, k, v, bounds, opts)
    local b, t, h, d = unpack(q:size())
    local s, kv = k:size(1), k:size(2)
    local placed = { dtype = "float32", device = q:device() }
    local masked, some, distance, rows = mask(bounds, b, t, s, opts)
    local function wide(x, heads) -- [B, n, heads, D] -> [B, K, heads / K, n, D]
        local y = x:reshape(b, x:size(1), kv, heads / kv, d):permute(0, 2, 3, 1, 4)
        return y:dtype() == "float64" and y or y:to("float32")
    end
    local scores = wide(q, h):matmul(wide(k, kv):transpose(-1, -2)) * (opts.scale or 1 / math.sqrt(d))
    scores = scores:reshape(b, h, t, s)
    if (opts.softcap or 0) > 0 then
        scores = (scores * (1 / opts.softcap)):tanh() * opts.softcap
    end
    local dtype = scores:dtype()
    if opts.slopes then -- in bfloat16, as transformers rounds it
        local slopes = tensor.tensor(opts.slopes, placed):reshape(1, h, 1, 1):to("bfloat16"):to("float32")
        local far = tensor.from_buffer(distance, { rows, 1, t, s }, placed)
        local bias = (slopes * far):to("bfloat16"):to("float32") * (1 / math.sqrt(d))
        scores = scores + bias:to(dtype)
    end
    scores = scores + tensor.from_buffer(masked, { rows, 1, t, s }, placed):to(dtype)
    if opts.sinks then
        scores = ops.cat({ scores, opts.sinks:to(dtype):reshape(1, h, 1, 1):expand(b, h, t, 1) }, -1)
    end
    local weights = scores:softmax(-1)
    weights = opts.sinks and weights:narrow(-1, 0, s) or weights
    if (opts.dropout or 0) > 0 then
        weights = weights:dropout(opts.dropout)
    end
    weights = weights * tensor.from_buffer(some, { rows, 1, t, 1 }, placed):to(dtype) -- nothing seen gives zeros
    local out = weights:reshape(b, kv, h / kv, t, s):matmul(wide(v, kv))
    return out:permute(0, 3, 1, 2, 4):reshape(b, t, h, d):to(q:dtype())
end

return M
