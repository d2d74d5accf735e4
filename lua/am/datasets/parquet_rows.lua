-- Rows of a Parquet file as tables that JSON could hold. The reading is the engine's
-- (engine/io/parquet.c); here its flat list of values becomes tables again.
--
-- Whole numbers beyond 2^53 become the nearest double, as in JSON rows. NaN and infinities are null. Dates and
-- timestamps are milliseconds since 1970 (UTC), as `datasets` writes them to JSON; times of day, decimals
-- and UUIDs are text; bytes are text as they are. A map is an array of arrays of a key and a value.

local ffi = require("ffi")
local edge = require("am.core.ffi")
local err = require("am.core.error")
local json = require("am.utils.json")
local strings = require("am.utils.strings")

local C, check = edge.C, edge.check
local M = {}

local NULL, FALSE, TRUE, NUMBER, TEXT = C.AM_PARQUET_NULL, C.AM_PARQUET_FALSE, C.AM_PARQUET_TRUE,
    C.AM_PARQUET_NUMBER, C.AM_PARQUET_TEXT

local ParquetRows = {}
ParquetRows.__index = ParquetRows

-- Which columns are read, as the engine takes it; leaves those alone among the root's children.
local function choose(handle, root, wanted, name)
    local names, numbers = {}, {}
    for i, column in ipairs(root.children) do
        names[i], numbers[column.name] = column.name, i
    end
    local mask, children = ffi.new("uint8_t[?]", #names), {}
    for _, column in ipairs(wanted) do
        local i = numbers[column] or err.raise("data", '%s: no column "%s"%s; it has %s', name, column,
            strings.did_you_mean(column, names), table.concat(names, ", "))
        mask[i - 1] = 1
    end
    check(C.am_parquet_select(handle, mask, #names))
    for i, column in ipairs(root.children) do
        children[#children + 1] = mask[i - 1] == 1 and column or nil
    end
    root.children = children
end

local box = edge.box("am_parquet")

--- The rows of the file of that name; opts.columns: the columns to read (all of them unless given).
function M.open(name, opts)
    check(C.am_parquet_open(box, name))
    local handle = ffi.gc(box[0], C.am_parquet_release)
    local root, why = json.decode(ffi.string(C.am_parquet_schema(handle)))
    if not root then
        err.raise("format", "%s: its schema is %s", name, why)
    end
    if opts.columns then
        choose(handle, root, opts.columns, name)
    end
    return setmetatable({ name = name, handle = handle, root = root, count = tonumber(C.am_parquet_rows(handle)) },
                        ParquetRows)
end

function ParquetRows:len()
    return self.count
end

function ParquetRows.number(_, k)
    return k
end

-- A node's value, from number `at` on; also the number of what follows it.
local read

local function read_struct(values, at, node)
    local out, children = {}, node.children
    for i = 1, #children do
        local child = children[i]
        out[child.name], at = read(values, at, child)
    end
    return out, at
end

local function read_list(values, at, node, count)
    local out, item = json.array(), node.children[1]
    for i = 1, count do
        out[i], at = read(values, at, item)
    end
    return out, at
end

local function read_map(values, at, node, count)
    local out, key, value = json.array(), node.children[1], node.children[2]
    for i = 1, count do
        local pair = json.array()
        pair[1], at = read(values, at, key)
        pair[2], at = read(values, at, value)
        out[i] = pair
    end
    return out, at
end

function read(values, at, node)
    local v = values[at]
    local kind = v.kind
    at = at + 1
    if kind == TEXT then
        return ffi.string(v.text, v.count), at
    elseif kind == NUMBER then
        return v.number, at
    elseif kind == NULL then
        return json.null, at
    elseif kind == TRUE then
        return true, at
    elseif kind == FALSE then
        return false, at
    elseif node.kind == "struct" then
        return read_struct(values, at, node)
    end
    return (node.kind == "map" and read_map or read_list)(values, at, node, v.count)
end

local values_box, count_box = ffi.new("const am_parquet_value *[1]"), ffi.new("int64_t[1]")

--- Row k (from 1) as a table.
function ParquetRows:get(k)
    if not self.handle then
        err.raise("state", "%s: is closed", self.name)
    end
    check(C.am_parquet_row(self.handle, k - 1, values_box, count_box))
    return (read_struct(values_box[0], 0, self.root))
end

--- Let go of the pages that were read last.
function ParquetRows:rest()
    C.am_parquet_rest(self.handle)
end

function ParquetRows:close()
    C.am_parquet_release(ffi.gc(self.handle, nil))
    self.handle = nil
end

return M
