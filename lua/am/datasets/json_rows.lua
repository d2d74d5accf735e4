-- Rows of local JSON and JSONL files, read one at a time. Holds no meaning of the rows.
--
-- Opening a file counts its rows in one pass over its bytes, and notes where each block of them begins;
-- reading a row finds it in its block and parses it alone. So a file may be larger than memory, and ten
-- million short rows take a few megabytes. JSONL has an object a line; JSON is one array of objects,
-- spread over lines or not. Which of them is told by the first character.

local ffi = require("ffi")
local err = require("am.core.error")
local json = require("am.utils.json")
local path = require("am.utils.path")
local posix = require("am.utils.posix")
local strings = require("am.utils.strings")

local M = {}

local CHUNK = 1048576
local BLOCK_ROWS, BLOCK_BYTES = 64, 65536 -- a block is closed by whichever comes first
local MAX_ROW_BYTES = 64 * 1048576
local NEWLINE, SPACE, TAB, RETURN = 10, 32, 9, 13
local QUOTE, BACKSLASH, COMMA = 34, 92, 44
local OPEN_BRACE, CLOSE_BRACE, OPEN_BRACKET, CLOSE_BRACKET = 123, 125, 91, 93

-- ---------------------------------------------------------------- finding rows

local Index = {} -- of each block's first row: where it is, which one it is (from 0), and its number
Index.__index = Index

local function new_index()
    local capacity = 64
    return setmetatable({ count = 0, blocks = 0, capacity = capacity, data = ffi.new("double[?]", 3 * capacity) },
                        Index)
end

function Index:add(offset, number)
    local last = 3 * (self.blocks - 1)
    if self.blocks == 0 or self.count - self.data[last + 1] >= BLOCK_ROWS
        or offset - self.data[last] >= BLOCK_BYTES then
        if self.blocks == self.capacity then
            local data = ffi.new("double[?]", 6 * self.capacity)
            ffi.copy(data, self.data, 24 * self.blocks)
            self.capacity, self.data = 2 * self.capacity, data
        end
        last = last + 3
        self.data[last], self.data[last + 1], self.data[last + 2] = offset, self.count, number
        self.blocks = self.blocks + 1
    end
    self.count = self.count + 1
end

-- The block that holds row k (from 0).
function Index:find(k)
    local low, high = 0, self.blocks - 1
    while low < high do
        local middle = math.floor((low + high + 1) / 2)
        if self.data[3 * middle + 1] <= k then
            low = middle
        else
            high = middle - 1
        end
    end
    return low
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

local chunk = ffi.new("uint8_t[?]", CHUNK) -- one for all: a new one each time would keep the collector busy

-- Calls visit(bytes, n, offset) for each chunk of the file from `offset` to `stop`, or its end; returns
-- where that is.
local function chunks(file, offset, stop, name, visit)
    while offset < stop do
        local n, msg = posix.read_into(file, chunk, offset, math.min(CHUNK, stop - offset))
        if not n then
            err.raise("io", "%s: cannot be read (%s)", name, msg)
        elseif n == 0 then
            break
        end
        visit(chunk, n, offset)
        offset = offset + n
    end
    return offset
end

-- Both of these call found(offset, length, number) for the rows that begin from `begin` on and before
-- `stop`; the first has `number`.

-- Lines that hold more than white space. Numbers are line numbers.
local function each_line(file, begin, stop, number, name, found)
    local line, start, blank = number, begin, true
    stop = chunks(file, begin, stop, name, function(bytes, n, offset)
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
    chunks(file, begin, stop, name, function(bytes, n, offset)
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
    local array = first and head:byte(first) == OPEN_BRACKET
    local each_row = array and each_element or each_line
    each_row(file, array and first or at - 1, math.huge, 1, name, function(offset, _, number)
        index:add(offset, number)
    end)
    return { name = name, file = file, index = index, each_row = each_row }
end

--- The names of files as a list: `names` is one of them, or a list. Raises where there is no such file.
function M.files(names)
    if type(names) == "string" then
        names = { names }
    end
    if type(names) ~= "table" or #names == 0 then
        err.raise("usage", "path_or_dataset_id must be a file name or a list of them")
    end
    local list = {}
    for i, name in ipairs(names) do
        if type(name) ~= "string" then
            err.raise("usage", "path_or_dataset_id: entry %d is not a file name", i)
        end
        posix.close(open(name))
        list[i] = name
    end
    return list
end

--- The rows of one file (a name) or several (an array of names), in order.
function M.open(names)
    local self = setmetatable({ files = {}, count = 0 }, Source)
    names = M.files(names)
    for i, name in ipairs(names) do
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

-- Where the rows of a file's block are: a list of { offset, length, number }.
local function read_block(file, b)
    local data, rows = file.index.data, {}
    local stop = b + 1 < file.index.blocks and data[3 * b + 3] or math.huge
    file.each_row(file.file, data[3 * b], stop, data[3 * b + 2], file.name, function(offset, length, number)
        rows[#rows + 1] = { offset, length, number }
    end)
    return rows
end

-- The file of row i, its number there, and where it is in it. The block that was read last is kept.
local function locate(self, i)
    local f = #self.files
    while i <= self.files[f].first do
        f = f - 1
    end
    local file, k = self.files[f], i - self.files[f].first - 1
    local b = file.index:find(k)
    if self.block_file ~= f or self.block ~= b then
        self.rows, self.block_file, self.block = read_block(file, b), f, b
    end
    local row = self.rows[k - file.index.data[3 * b + 1] + 1]
    if not row then
        err.raise("io", "%s: cannot be read (the file was changed meanwhile)", file.name)
    end
    return f, row
end

--- Where row i is: which of the files (from 1), and its number there. In JSONL that is the line's.
function Source:place(i)
    local f, row = locate(self, i)
    return f, row[3]
end

--- What messages call a row: "train.jsonl row 7".
function M.row_name(file, number)
    return string.format("%s row %d", file, number)
end

--- What messages call row i.
function Source:name(i)
    local f, number = self:place(i)
    return M.row_name(self.files[f].name, number)
end

--- Row i (from 1) as a table. Raises "data" naming file and row for what is not a JSON object.
function Source:get(i)
    local f, at = locate(self, i)
    local file, offset, length = self.files[f], at[1], at[2]
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
