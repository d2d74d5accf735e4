-- Rows of local JSON and JSONL files, read one at a time. Holds no meaning of the rows.
--
-- Opening a file finds where each row begins and ends in one pass over its bytes; reading a row seeks
-- and parses that row alone, so a file larger than memory is fine. JSONL has an object a line; JSON is
-- one array of objects, spread over lines or not. Which of them is told by the first character.

local ffi = require("ffi")
local err = require("am.core.error")
local json = require("am.utils.json")
local path = require("am.utils.path")
local posix = require("am.utils.posix")
local strings = require("am.utils.strings")

local M = {}

local CHUNK = 1048576
local MAX_ROW_BYTES = 64 * 1048576
local NEWLINE, SPACE, TAB, RETURN = 10, 32, 9, 13
local QUOTE, BACKSLASH, COMMA = 34, 92, 44
local OPEN_BRACE, CLOSE_BRACE, OPEN_BRACKET, CLOSE_BRACKET = 123, 125, 91, 93

-- ---------------------------------------------------------------- finding rows

local Index = {} -- growing arrays of offset, length and number, 24 bytes a row
Index.__index = Index

local function new_index()
    local capacity = 1024
    return setmetatable({ count = 0, capacity = capacity, data = ffi.new("double[?]", 3 * capacity) }, Index)
end

function Index:add(offset, length, number)
    if self.count == self.capacity then
        local data = ffi.new("double[?]", 6 * self.capacity)
        ffi.copy(data, self.data, 24 * self.count)
        self.capacity, self.data = 2 * self.capacity, data
    end
    local at = 3 * self.count
    self.data[at], self.data[at + 1], self.data[at + 2] = offset, length, number
    self.count = self.count + 1
end

local function is_space(c)
    return c == SPACE or c == NEWLINE or c == RETURN or c == TAB
end

local function read_at(file, offset, bytes, name)
    local text, msg = posix.read_at(file, offset, bytes)
    if not text then
        err.raise("io", "%s: cannot be read (%s)", name, msg)
    end
    return text
end

-- Calls visit(bytes, n, offset) for each chunk of the file from `offset` on; returns where it ends.
local function chunks(file, offset, name, visit)
    while true do
        local text = read_at(file, offset, CHUNK, name)
        if text == "" then
            return offset
        end
        visit(ffi.cast("const uint8_t *", text), #text, offset)
        offset = offset + #text
    end
end

-- Lines that hold more than white space. Numbers are line numbers.
local function index_lines(file, begin, index, name)
    local line, start, blank = 1, begin, true
    local stop = chunks(file, begin, name, function(bytes, n, offset)
        for i = 0, n - 1 do
            local c = bytes[i]
            if c == NEWLINE then
                if not blank then
                    index:add(start, offset + i - start, line)
                end
                line, start, blank = line + 1, offset + i + 1, true
            elseif blank and not is_space(c) then
                blank = false
            end
        end
    end)
    if not blank then
        index:add(start, stop - start, line)
    end
end

-- Elements of the array that the file holds; the file is read from behind its "[". Numbers count
-- from 1. Only finds where elements end: the parser judges them later.
local function index_elements(file, begin, index, name)
    local depth, in_string, escaped, start, stop = 1, false, false, nil, nil
    local count, after_comma = 0, false
    chunks(file, begin, name, function(bytes, n, offset)
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
                    count = count + 1
                    index:add(start, stop - start, count)
                elseif c == COMMA or after_comma then
                    err.raise("data", "%s: element %d of the array is missing", name, count + 1)
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
                stop = offset + i + 1
            end
        end
    end)
    if depth > 0 then
        err.raise("data", "%s: the array has no end (file cut off?)", name)
    end
end

-- ---------------------------------------------------------------- files

local Source = {}
Source.__index = Source

local function open(name)
    if not path.is_file(name) then
        local hub = name:find("^[%w_.-]+/[%w_.-]+$") and not path.exists(path.dirname(name))
        err.raise("data", hub and "%s: no such file. Data sets of the hub cannot be loaded by name: download it "
            .. "and give the JSON or JSONL file" or "%s: no such file (JSON or JSONL expected)", name)
    end
    local file, msg = posix.open(name, "read")
    if not file then
        err.raise("io", "cannot read %s", msg)
    end
    return file
end

local function index_file(name)
    local file = open(name)
    local index = new_index()
    local head = read_at(file, 0, 4096, name)
    local at = head:sub(1, 3) == "\239\187\191" and 4 or 1
    local first = head:find("[^ \t\r\n]", at)
    if first and head:byte(first) == OPEN_BRACKET then
        index_elements(file, first, index, name)
    else
        index_lines(file, at - 1, index, name)
    end
    return { name = name, file = file, index = index }
end

--- The rows of one file (a name) or several (an array of names), in order.
function M.open(names)
    if type(names) == "string" then
        names = { names }
    end
    if type(names) ~= "table" or #names == 0 then
        err.raise("usage", "path_or_dataset_id must be a file name or a list of them")
    end
    local self = setmetatable({ files = {}, count = 0 }, Source)
    for i, name in ipairs(names) do
        if type(name) ~= "string" then
            err.raise("usage", "path_or_dataset_id: entry %d is not a file name", i)
        end
        local file = index_file(name)
        file.first = self.count
        self.count = self.count + file.index.count
        self.files[i] = file
    end
    if self.count == 0 then
        err.raise("data", "%s: no rows", table.concat(names, ", "))
    end
    return self
end

function Source:len()
    return self.count
end

local function locate(self, i)
    for f = #self.files, 1, -1 do
        local file = self.files[f]
        if i > file.first then
            local at = 3 * (i - file.first - 1)
            local data = file.index.data
            return file, data[at], data[at + 1], data[at + 2]
        end
    end
end

--- What messages call row i: "train.jsonl row 7". In JSONL the number is the line's.
function Source:name(i)
    local file, _, _, number = locate(self, i)
    return string.format("%s row %d", file.name, number)
end

--- Row i (from 1) as a table. Raises "data" naming file and row for what is not a JSON object.
function Source:get(i)
    local file, offset, length = locate(self, i)
    if length > MAX_ROW_BYTES then
        err.raise("data", "%s: %.0f bytes, more than the %d that a row may have", self:name(i), length, MAX_ROW_BYTES)
    end
    local text = read_at(file.file, offset, length, self:name(i))
    if #text ~= length then
        err.raise("io", "%s: cannot be read (the file was changed meanwhile)", self:name(i))
    end
    local bad = strings.utf8_error(text)
    if bad then
        err.raise("data", "%s: byte %d is not UTF-8; convert the file", self:name(i), bad)
    end
    local row, why = json.decode(text)
    if row == nil then
        err.raise("data", "%s: %s", self:name(i), (why:gsub(" at line 1,", " at", 1)))
    elseif type(row) ~= "table" or json.is_array(row) or row == json.null then
        err.raise("data", "%s: not a JSON object", self:name(i))
    end
    return row
end

--- Close the files; get fails afterwards.
function Source:close()
    for _, file in ipairs(self.files) do
        posix.close(file.file)
    end
end

return M
