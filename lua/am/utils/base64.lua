-- Base64 (RFC 4648, with padding).

local ffi = require("ffi")
local bit = require("bit")

local M = {}

local ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

local digits = ffi.new("int8_t[256]")
ffi.fill(digits, 256, -1)
for i = 1, 64 do
    digits[ALPHABET:byte(i)] = i - 1
end

--- A string of any bytes as base64.
function M.encode(text)
    local out = {}
    for i = 1, #text, 3 do
        local a, b, c = text:byte(i, i + 2)
        local bits = a * 65536 + (b or 0) * 256 + (c or 0)
        for k = 3, 0, -1 do
            local digit = math.floor(bits / 64 ^ k) % 64 + 1
            out[#out + 1] = (k == 1 and not b or k == 0 and not c) and "=" or ALPHABET:sub(digit, digit)
        end
    end
    return table.concat(out)
end

--- The bytes of a base64 text; nil where it is none. White space and padding are passed over.
function M.decode(text)
    text = text:gsub("%s+", ""):gsub("=+$", "")
    local out, n, bits, count = ffi.new("uint8_t[?]", math.floor(#text * 3 / 4) + 1), 0, 0, 0
    local bytes = ffi.cast("const uint8_t *", text)
    for i = 0, #text - 1 do
        local digit = digits[bytes[i]]
        if digit < 0 then
            return nil
        end
        bits, count = bit.bor(bit.lshift(bit.band(bits, 0xffffff), 6), digit), count + 6
        if count >= 8 then
            count = count - 8
            out[n] = bit.band(bit.rshift(bits, count), 255)
            n = n + 1
        end
    end
    return count < 6 and ffi.string(out, n) or nil
end

return M
