-- GGUF files as bytes, written from Lua tables: for files that the engine's writer would not write. F32 tensors only.

local ffi = require("ffi")
local path = require("am.utils.path")

local M = {}

local function number(ctype, value)
    return ffi.string(ffi.new(ctype .. "[1]", value), ffi.sizeof(ctype))
end

local function text(s)
    return number("uint64_t", #s) .. s
end

-- The number of a value's type, and its bytes. Tables are arrays of what their first item is.
local function encoded(v)
    if type(v) == "string" then
        return 8, text(v)
    elseif type(v) == "boolean" then
        return 7, v and "\1" or "\0"
    elseif type(v) == "table" then
        local items, kind = {}, 4
        for i, item in ipairs(v) do
            kind, items[i] = encoded(item)
        end
        return 9, number("uint32_t", kind) .. number("uint64_t", #items) .. table.concat(items)
    elseif v % 1 == 0 and v >= 0 and v < 2 ^ 32 then
        return 4, number("uint32_t", v)
    elseif v % 1 == 0 and math.abs(v) < 2 ^ 53 then
        return 11, number("int64_t", v)
    end
    return math.abs(v) < 1e38 and 6 or 12, number(math.abs(v) < 1e38 and "float" or "double", v)
end

--- The bytes of tensors: a list of { name, tensor } -> a list of { name, shape, offset }, and all bytes.
function M.laid_out(tensors)
    local infos, data, at = {}, {}, 0
    for i, item in ipairs(tensors) do
        local array, n = item[2]:to_buffer()
        local bytes = ffi.string(array, n * 4)
        infos[i] = { item[1], item[2]:size(), at }
        data[i] = bytes .. ("\0"):rep(-#bytes % 32)
        at = at + #data[i]
    end
    return infos, table.concat(data)
end

--- Write a file of version 3: { key -> value }, and what laid_out returns (a list of { name, shape, offset }, bytes).
function M.write_parts(file, meta, infos, data)
    local head, described = {}, {}
    for key, v in pairs(meta) do
        local kind, bytes = encoded(v)
        head[#head + 1] = text(key) .. number("uint32_t", kind) .. bytes
    end
    for i, info in ipairs(infos) do
        local dims = {}
        for d = #info[2], 1, -1 do -- innermost first
            dims[#dims + 1] = number("uint64_t", info[2][d])
        end
        described[i] = text(info[1]) .. number("uint32_t", #dims) .. table.concat(dims) .. number("uint32_t", 0)
            .. number("uint64_t", info[3])
    end
    local before = "GGUF" .. number("uint32_t", 3) .. number("uint64_t", #infos) .. number("uint64_t", #head)
        .. table.concat(head) .. table.concat(described)
    path.write_file(file, before .. ("\0"):rep(-#before % 32) .. data)
end

--- Write a file of { key -> value } and a list of { name, tensor }.
function M.write(file, meta, tensors)
    M.write_parts(file, meta, M.laid_out(tensors))
end

return M
