-- Rows of a JSON or JSONL file. Holds no meaning of the rows.
--
-- JSONL has an object a line; JSON is one array of objects, spread over lines or not. Which of them is told
-- by the first character. A row is parsed alone, when it is read.

local err = require("am.core.error")
local json = require("am.utils.json")
local text_rows = require("am.datasets.text_rows")

local M = {}

local NEWLINE, SPACE, TAB, RETURN = 10, 32, 9, 13
local QUOTE, BACKSLASH, COMMA = 34, 92, 44
local OPEN_BRACE, CLOSE_BRACE, OPEN_BRACKET, CLOSE_BRACKET = 123, 125, 91, 93

local function is_space(c)
    return c == SPACE or c == NEWLINE or c == RETURN or c == TAB
end

-- Both of these call found(offset, length, number) for the rows that begin from `begin` on and before
-- `stop`; the first has `number`.

-- Lines that hold more than white space. Numbers are line numbers.
local function each_line(file, begin, stop, number, name, found)
    local line, start, blank = number, begin, true
    stop = text_rows.chunks(file, begin, stop, name, function(bytes, n, offset)
        for i = 0, n - 1 do
            local c = bytes[i]
            if c == NEWLINE then
                if not blank then
                    found(start, offset + i - start, line)
                end
                line, start, blank = line + 1, offset + i + 1, true
            elseif blank and not is_space(c) then
                blank = false
            end
        end
    end)
    if not blank then
        found(start, stop - start, line)
    end
end

-- Elements of the array that the file holds, from behind its "[" or from one of them on. Numbers count
-- from 1. Only finds where elements end: the parser judges them later.
local function each_element(file, begin, stop, number, name, found)
    local depth, in_string, escaped, start, last = 1, false, false, nil, nil
    local after_comma, to_end = false, stop == math.huge
    text_rows.chunks(file, begin, stop, name, function(bytes, n, offset)
        for i = 0, n - 1 do
            local c = bytes[i]
            if in_string then
                if escaped then
                    escaped = false
                elseif c == BACKSLASH then
                    escaped = true
                elseif c == QUOTE then
                    in_string = false
                end
            elseif depth == 0 then
                if not is_space(c) then
                    err.raise("data", "%s: text after the end of the array", name)
                end
            elseif depth == 1 and (c == COMMA or c == CLOSE_BRACKET) then
                if start then
                    found(start, last - start, number)
                    number = number + 1
                elseif c == COMMA or after_comma then
                    err.raise("data", "%s: element %d of the array is missing", name, number)
                end
                start, after_comma = nil, c == COMMA
                depth = c == CLOSE_BRACKET and 0 or 1
            else
                if c == QUOTE then
                    in_string = true
                elseif c == OPEN_BRACE or c == OPEN_BRACKET then
                    depth = depth + 1
                elseif c == CLOSE_BRACE or c == CLOSE_BRACKET then
                    depth = math.max(1, depth - 1)
                end
            end
            if depth > 0 and not is_space(c) and not (depth == 1 and c == COMMA and not in_string) then
                start = start or offset + i
                last = offset + i + 1
            end
        end
    end)
    if depth > 0 and to_end then
        err.raise("data", "%s: the array has no end (file cut off?)", name)
    end
end

local JsonRows = {}
JsonRows.__index = JsonRows

--- The rows of an open file (see file_rows.lua), which they take over. parse: as for M.parse.
function M.open(handle, parse)
    local head = text_rows.read_at(handle.file, 0, 4096, handle.name)
    local at = head:sub(1, 3) == "\239\187\191" and 4 or 1
    local first = head:find("[^ \t\r\n]", at)
    local array = first and head:byte(first) == OPEN_BRACKET
    local rows = text_rows.open(handle, array and each_element or each_line, array and first or at - 1)
    return setmetatable({ rows = rows, parse = parse }, JsonRows)
end

function JsonRows:len() return self.rows:len() end
function JsonRows:number(k) return self.rows:number(k) end
function JsonRows:rest() return self.rows:rest() end
function JsonRows:close() return self.rows:close() end

--- A row from its text, which is UTF-8; opts as am.utils.json.decode takes them (`ordered`,
--- `exact_numbers`). Raises "data" naming the row for what is not a JSON object.
function M.parse(text, name, opts)
    local row, why = json.decode(text, opts)
    if row == nil then
        err.raise("data", "%s: %s", name, (why:gsub(" at line 1,", " at", 1)))
    elseif type(row) ~= "table" or json.is_array(row) or row == json.null then
        err.raise("data", "%s: not a JSON object", name)
    end
    return row
end

--- Row k (from 1) as a table. Raises "data" naming file and row for what is not a JSON object.
function JsonRows:get(k)
    local text, name = self.rows:text(k)
    return M.parse(text, name, self.parse)
end

return M
