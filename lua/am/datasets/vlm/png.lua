-- Bytes of a PNG file from RGB pixels, without compression: what the mock dataset needs. Reading is the engine's.

local ffi = require("ffi")
local bit = require("bit")

local M = {}

local crc_table = ffi.new("uint32_t[256]")
for n = 0, 255 do
    local c = ffi.new("uint32_t[1]", n)
    for _ = 1, 8 do
        c[0] = c[0] % 2 == 1 and bit.bxor(bit.rshift(c[0], 1), 0xedb88320) or bit.rshift(c[0], 1)
    end
    crc_table[n] = c[0]
end

local function big_endian(x)
    return string.char(bit.band(bit.rshift(x, 24), 255), bit.band(bit.rshift(x, 16), 255),
                       bit.band(bit.rshift(x, 8), 255), bit.band(x, 255))
end

local function crc(text)
    local c, bytes = bit.tobit(0xffffffff), ffi.cast("const uint8_t *", text)
    for i = 0, #text - 1 do
        c = bit.bxor(bit.tobit(crc_table[bit.band(bit.bxor(c, bytes[i]), 255)]), bit.rshift(c, 8))
    end
    return bit.bnot(c)
end

local function chunk(kind, data)
    return big_endian(#data) .. kind .. data .. big_endian(crc(kind .. data))
end

local function adler(text)
    local a, b, bytes = 1, 0, ffi.cast("const uint8_t *", text)
    for i = 0, #text - 1 do
        a = (a + bytes[i]) % 65521
        b = (b + a) % 65521
    end
    return big_endian(bit.bor(bit.lshift(b, 16), a))
end

-- zlib's format with stored blocks.
local function stored(text)
    local out, at = { "\120\1" }, 1
    repeat
        local piece = text:sub(at, at + 65534)
        at = at + #piece
        local n = #piece
        out[#out + 1] = string.char(at > #text and 1 or 0, n % 256, math.floor(n / 256), 255 - n % 256,
                                    255 - math.floor(n / 256))
        out[#out + 1] = piece
    until at > #text
    out[#out + 1] = adler(text)
    return table.concat(out)
end

--- A PNG file of width x height pixels, `pixels` being their 3 * width * height bytes (a string).
function M.encode(width, height, pixels)
    local lines = {}
    for y = 0, height - 1 do
        lines[y + 1] = "\0" .. pixels:sub(3 * width * y + 1, 3 * width * (y + 1)) -- no filter
    end
    return "\137PNG\r\n\26\n" .. chunk("IHDR", big_endian(width) .. big_endian(height) .. "\8\2\0\0\0")
        .. chunk("IDAT", stored(table.concat(lines))) .. chunk("IEND", "")
end

return M
