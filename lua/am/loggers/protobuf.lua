-- Protocol buffer messages as text, field by field, for formats with a dozen known fields.
-- Holds no schema and reads nothing: https://protobuf.dev/programming-guides/encoding.
--
--   pb.int(1, 150) -> "\8\150\1"     pb.bytes(2, "testing")     pb.message(3, field, field, …)
--   pb.double(1, x)  pb.float(2, x)  pb.fixed32(x)
--
-- A field of nil is no text, so that optional ones need no `if` around them.

local ffi = require("ffi")
local bit = require("bit")

local M = {}

local VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

-- Seven bits a byte, the lowest first; of a whole number up to 2^53. Negative ones take ten bytes.
local function varint(n)
    if n >= 0 and n < 128 then
        return string.char(n)
    end
    local bytes, left = {}, ffi.cast("uint64_t", ffi.cast("int64_t", n))
    repeat
        local low = tonumber(bit.band(left, 0x7fULL))
        left = bit.rshift(left, 7)
        bytes[#bytes + 1] = string.char(left ~= 0 and low + 128 or low)
    until left == 0
    return table.concat(bytes)
end

local function key(field, wire_type)
    return varint(field * 8 + wire_type)
end

--- A whole number; also booleans and enums.
function M.int(field, n)
    if n == nil then
        return ""
    end
    return key(field, VARINT) .. varint(n == true and 1 or n == false and 0 or n)
end

--- Text or bytes.
function M.bytes(field, text)
    return text and key(field, BYTES) .. varint(#text) .. text or ""
end

--- A message of these fields.
function M.message(field, ...)
    return M.bytes(field, table.concat { ... })
end

local function raw(ctype, x)
    return ffi.string(ffi.new(ctype .. "[1]", x), ffi.sizeof(ctype))
end

function M.double(field, x)
    return x and key(field, FIXED64) .. raw("double", x) or ""
end

function M.float(field, x)
    return x and key(field, FIXED32) .. raw("float", x) or ""
end

--- Four or eight bytes of an unsigned number, little-endian, without a key: for the frames around messages.
function M.fixed32(x)
    return raw("uint32_t", x)
end

function M.fixed64(x)
    return raw("uint64_t", x)
end

return M
