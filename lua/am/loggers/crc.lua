-- Cyclic redundancy checks of event files: CRC-32C (Castagnoli) for TensorBoard, CRC-32 (zlib's) for W&B.
-- Holds no file format. Sums are numbers from 0 to 2^32 - 1.
--
--   crc.crc32c("123456789") -> 0xe3069283     crc.crc32("123456789") -> 0xcbf43926
--   crc.masked(sum)         the form that a TFRecord holds, so that a sum may itself be summed

local ffi = require("ffi")
local bit = require("bit")

local M = {}

local band, bnot, bxor, rol, rshift = bit.band, bit.bnot, bit.bxor, bit.rol, bit.rshift

-- The sums of all single bytes, for a polynomial with its bits reversed.
local function table_of(polynomial)
    local t = ffi.new("int32_t[256]")
    for byte = 0, 255 do
        local sum = byte
        for _ = 1, 8 do
            sum = bxor(rshift(sum, 1), band(sum, 1) == 1 and polynomial or 0)
        end
        t[byte] = sum
    end
    return t
end

local function unsigned(x)
    return x % 2 ^ 32
end

local function sum_of(t, text)
    local data, sum = ffi.cast("const uint8_t *", text), bnot(0)
    for i = 0, #text - 1 do
        sum = bxor(t[band(bxor(sum, data[i]), 0xff)], rshift(sum, 8))
    end
    return unsigned(bnot(sum))
end

local castagnoli, zlib = table_of(0x82f63b78), table_of(0xedb88320)

function M.crc32c(text)
    return sum_of(castagnoli, text)
end

function M.crc32(text)
    return sum_of(zlib, text)
end

--- Rotated right by 15 bits, plus a constant: tensorflow/core/lib/hash/crc32c.h.
function M.masked(sum)
    return (unsigned(rol(sum, 17)) + 0xa282ead8) % 2 ^ 32
end

return M
