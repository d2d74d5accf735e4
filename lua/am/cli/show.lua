-- How the prompt prints values: tensors as PyTorch does, tables one level deep, modules as their tree.
-- Only returns text. It reads fields raw and runs no metamethod, so that looking changes nothing.
--
--   show.value(x) -> text   of any length of lines      show.brief(x) -> text   one short line

local ffi = require("ffi")
local edge = require("am.core.ffi")
local tensor = require("am.core.tensor")
local Module = require("am.nn.module")

local C, check = edge.C, edge.check
local M = {}

local WIDTH = 80        -- columns that rows of a tensor are broken at
local THRESHOLD = 1000  -- tensors with more elements are printed as their edges
local EDGE = 3          -- elements at either end of a dim that are left then
local MAX_FIELDS = 60   -- of a table
local MAX_TEXT = 60     -- bytes of a string inside a table

-- ---- tensors --------------------------------------------------------------------------------

local GAP = {} -- stands for what is left out
local box = edge.box("am_tensor")

-- `count` elements along the last dim from an offset, as Lua numbers; integers as text, which is exact.
local function read_row(t, offset, count, stride, out)
    local n, step = ffi.new("int64_t[1]", count), ffi.new("int64_t[1]", stride)
    check(C.am_tensor_as_strided(box, t, 1, n, step, offset))
    local row = tensor.own(box[0])
    local array = row:to_buffer()
    row:release()
    local dtype = t:dtype()
    for i = 0, count - 1 do
        if dtype == "bool" then
            out[#out + 1] = array[i] ~= 0 and "true" or "false"
        elseif dtype:find("int", 1, true) then
            out[#out + 1] = (tostring(array[i]):gsub("U?LL$", ""))
        else
            out[#out + 1] = tonumber(array[i])
        end
    end
end

-- Elements as nested lists in which GAP stands for the middle of a long dim.
local function collect(t)
    local shape, strides = t:size(), C.am_tensor_strides(t)
    local cut = t:numel() > THRESHOLD
    local function walk(dim, offset)
        local n, stride, out = shape[dim], tonumber(strides[dim - 1]), {}
        local function part(first, count)
            if dim == #shape then
                return read_row(t, offset + first * stride, count, stride, out)
            end
            for i = first, first + count - 1 do
                out[#out + 1] = walk(dim + 1, offset + i * stride)
            end
        end
        if cut and n > 2 * EDGE then
            part(0, EDGE)
            out[#out + 1] = GAP
            part(n - EDGE, EDGE)
        else
            part(0, n)
        end
        return out
    end
    return walk(1, 0)
end

local function each_number(list, fn)
    for _, v in ipairs(list) do
        if type(v) == "number" then
            fn(v)
        elseif type(v) == "table" then
            each_number(v, fn)
        end
    end
end

-- How to print the floats of a tensor, nearly as PyTorch chooses it: whole numbers as "2.", numbers
-- of very different or extreme size with an exponent, else four places.
local function float_format(list)
    local whole, least, most = true, math.huge, 0
    each_number(list, function(v)
        local size = math.abs(v)
        if size < math.huge then -- neither infinite nor NaN
            whole = whole and v % 1 == 0
            least, most = size > 0 and math.min(least, size) or least, math.max(most, size)
        end
    end)
    if most > 1e8 or (not whole and most > 0 and (most / least > 1000 or least < 1e-4)) then
        return "%.4e"
    end
    return whole and "%.0f." or "%.4f"
end

local function format_number(v, format)
    if v ~= v then
        return "nan"
    elseif math.abs(v) == math.huge then
        return v > 0 and "inf" or "-inf"
    end
    return string.format(format, v)
end

-- Numbers in the nested lists become text; returns the longest one's length.
local function to_text(list, format)
    local width = 0
    for i, v in ipairs(list) do
        if type(v) == "table" and v ~= GAP then
            width = math.max(width, to_text(v, format))
        elseif v ~= GAP then
            list[i] = type(v) == "number" and format_number(v, format) or v
            width = math.max(width, #list[i])
        end
    end
    return width
end

local function row_text(row, width, indent)
    local lines, line = {}, {}
    local per_line = math.max(1, math.floor((WIDTH - indent) / (width + 2)))
    for _, v in ipairs(row) do
        if #line == per_line then
            lines[#lines + 1], line = table.concat(line, ", "), {}
        end
        line[#line + 1] = v == GAP and "..." or string.rep(" ", width - #v) .. v
    end
    lines[#lines + 1] = table.concat(line, ", ")
    return "[" .. table.concat(lines, ",\n" .. string.rep(" ", indent + 1)) .. "]"
end

local function block_text(list, width, depth, indent)
    if depth == 1 then
        return row_text(list, width, indent)
    end
    local parts = {}
    for i, v in ipairs(list) do
        parts[i] = v == GAP and "..." or block_text(v, width, depth - 1, indent + 1)
    end
    local between = "," .. string.rep("\n", depth - 1) .. string.rep(" ", indent + 1)
    return "[" .. table.concat(parts, between) .. "]"
end

local function elements(t)
    local rank = t:dim()
    if rank == 0 then
        local one = {}
        read_row(t, 0, 1, 1, one)
        to_text(one, float_format(one))
        return one[1]
    elseif t:numel() == 0 then
        return "[]"
    end
    local list = collect(t)
    return block_text(list, to_text(list, float_format(list)), rank, 0)
end

local function tensor_head(t)
    local notes = { t:dtype(), t:device() }
    if not t:alive() then
        notes[#notes + 1] = "released"
    elseif t.requires_grad then
        notes[#notes + 1] = C.am_tensor_is_leaf(t) ~= 0 and "requires_grad" or "requires_grad, computed"
    end
    return string.format("tensor [%s] %s", table.concat(t:size(), ", "), table.concat(notes, ", "))
end

local function tensor_text(t)
    return t:alive() and tensor_head(t) .. "\n" .. elements(t) or tensor_head(t)
end

-- ---- everything else ------------------------------------------------------------------------

-- What a terminal would take for a command, a model's output for instance, is made visible.
local function printable(text)
    return (text:gsub("[%z\1-\8\11-\31\127]", function(c) return string.format("\\%03d", c:byte()) end))
end

-- Where a function comes from: "lua/am/core/ops.lua:214"; nil for those written in C.
local function origin(fn)
    local info = debug.getinfo(fn, "S")
    if info.what == "C" then
        return nil
    end
    local file, home = info.source:gsub("^[@=]", ""), require("am.cli").home
    if home and file:sub(1, #home + 1) == home .. "/" then
        file = file:sub(#home + 2)
    end
    return string.format("%s:%d", file:match("^[^\n]*"), info.linedefined)
end

-- A field of an object or of the tables it inherits from, without running an __index function.
local function inherited(x, key)
    for _ = 1, 20 do
        local value = rawget(x, key)
        if value ~= nil then
            return value
        end
        local meta = debug.getmetatable(x)
        x = type(meta) == "table" and rawget(meta, "__index") or nil
        if type(x) ~= "table" then
            return nil
        end
    end
end

local function is_module(x)
    return type(x) == "table" and inherited(x, "named_modules") == Module.named_modules and rawget(x, "_children")
end

local function count(t)
    local n = 0
    for _ in next, t do
        n = n + 1
    end
    return n
end

-- "llm_finetune" for a recipe, "Linear" for a module: what its class calls it.
local function class_name(x)
    local name = inherited(x, "class_name") or (debug.getmetatable(x) and inherited(x, "name"))
    return type(name) == "string" and name or nil
end

-- A table's own __tostring is run when it is one of ours: error objects say what went wrong.
local function is_error(x)
    return require("am.core.error").is(x)
end

--- One short line for a value, as it is shown inside a table.
function M.brief(x)
    local kind = type(x)
    if kind == "string" then
        local text = #x > MAX_TEXT and x:sub(1, MAX_TEXT) .. "..." or x
        return (printable(string.format("%q", text):gsub("\\\n", "\\n")))
    elseif kind == "function" then
        return "function" .. (origin(x) and " (" .. origin(x) .. ")" or "")
    elseif tensor.is(x) then
        return tensor_head(x)
    elseif kind == "table" then
        if is_error(x) then
            return tostring(x)
        end
        local name, n = class_name(x), count(x)
        return (name and name .. " " or "") .. (n == 0 and "{}" or n == 1 and "{1 field}" or "{" .. n .. " fields}")
    elseif kind == "cdata" then
        return "cdata " .. tostring(ffi.typeof(x)):gsub("^ctype", "")
    end
    return tostring(x)
end

local order = { number = 1, string = 2, boolean = 3 }

local function before(a, b)
    local ka, kb = order[type(a)] or 9, order[type(b)] or 9
    if ka ~= kb then
        return ka < kb
    elseif ka <= 2 then
        return a < b
    end
    return tostring(a) < tostring(b)
end

local function key_text(key)
    if type(key) == "string" and key:find("^[%a_][%w_]*$") then
        return key
    end
    return "[" .. M.brief(key) .. "]"
end

local function table_text(t)
    local name, keys = class_name(t), {}
    for key in next, t do
        keys[#keys + 1] = key
    end
    table.sort(keys, before)
    local fields, length = {}, 0
    for i = 1, math.min(#keys, MAX_FIELDS) do
        local value = M.brief(rawget(t, keys[i]))
        fields[i] = keys[i] == i and value or key_text(keys[i]) .. " = " .. value
        length = length + #fields[i] + 2
    end
    if #keys > MAX_FIELDS then
        fields[#fields + 1] = string.format("... %d more", #keys - MAX_FIELDS)
    end
    local head = name and name .. " " or ""
    if length < WIDTH - 4 - #head then
        return head .. "{" .. (#fields > 0 and " " .. table.concat(fields, ", ") .. " " or "") .. "}"
    end
    return head .. "{\n  " .. table.concat(fields, ",\n  ") .. "\n}"
end

--- A value as the prompt prints it.
function M.value(x)
    if type(x) == "string" then
        return printable(x)
    elseif tensor.is(x) then
        return tensor_text(x)
    elseif is_module(x) then
        return Module.repr(x)
    elseif type(x) == "table" and not is_error(x) then
        return table_text(x)
    elseif type(x) == "cdata" and (ffi.istype("int64_t", x) or ffi.istype("uint64_t", x)) then
        return tostring(x)
    end
    return M.brief(x)
end

return M
