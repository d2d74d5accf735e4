-- Philox4x32-10 (Salmon et al. 2011) in Lua: random numbers that depend on nothing but their arguments,
-- the same as the engine's am_rng_u32. For shuffles and mock data; random ops are the engine's.

local ffi = require("ffi")
local bit = require("bit")

local M = {}

local u64 = ffi.typeof("uint64_t")
local LOW = 0xffffffffULL
local bxor, band, rshift = bit.bxor, bit.band, bit.rshift

--- The four 32-bit words of `block` of `stream` under `seed`, as Lua numbers from 0 to 2^32 - 1.
function M.block(seed, stream, block)
    seed, stream, block = u64(seed), u64(stream), u64(block)
    local c0, c1 = band(block, LOW), rshift(block, 32)
    local c2, c3 = band(stream, LOW), rshift(stream, 32)
    local k0, k1 = band(seed, LOW), rshift(seed, 32)
    for _ = 1, 10 do
        local p0, p1 = 0xD2511F53ULL * c0, 0xCD9E8D57ULL * c2
        c0, c1, c2, c3 = bxor(rshift(p1, 32), c1, k0), band(p1, LOW), bxor(rshift(p0, 32), c3, k1), band(p0, LOW)
        k0, k1 = band(k0 + 0x9E3779B9ULL, LOW), band(k1 + 0xBB67AE85ULL, LOW)
    end
    return tonumber(c0), tonumber(c1), tonumber(c2), tonumber(c3)
end

--- A function that gives the words of `stream` under `seed` one after the other, from index 0.
function M.sequence(seed, stream)
    local block, at = 0, 4
    local w = { 0, 0, 0, 0 }
    return function()
        if at == 4 then
            w[1], w[2], w[3], w[4] = M.block(seed, stream, block)
            block, at = block + 1, 0
        end
        at = at + 1
        return w[at]
    end
end

-- Streams that no random op of the engine reaches: those count up from 0.
local SHUFFLE_STREAMS = 0x5348554600000000ULL

--- A permutation of 1..n for `epoch` under `seed`, as int32_t[n] (from index 0). Fisher-Yates from the
--- last place down; place i takes one of the i + 1 left, by word * (i + 1) / 2^32.
function M.permutation(n, seed, epoch)
    local order = ffi.new("int32_t[?]", n)
    for i = 0, n - 1 do
        order[i] = i + 1
    end
    local draw = M.sequence(seed, SHUFFLE_STREAMS + epoch)
    for i = n - 1, 1, -1 do
        local j = math.min(i, math.floor(draw() * (i + 1) / 4294967296))
        order[i], order[j] = order[j], order[i]
    end
    return order
end

return M
