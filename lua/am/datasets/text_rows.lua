-- Rows of a text file, found by their place: the part of reading that JSON and CSV share. Holds no format;
-- a format says where rows begin.
--
-- Opening a file counts its rows in one pass over its bytes, and notes where each block of them begins;
-- reading a row finds it in its block. So a file may be larger than memory, and ten million short rows take
-- a few megabytes.

local ffi = require("ffi")
local edge = require("am.core.ffi")
local err = require("am.core.error")
local posix = require("am.utils.posix")
local strings = require("am.utils.strings")

local M = {}

local BLOCK_ROWS, BLOCK_BYTES = 64, 65536 -- a block is closed by whichever comes first

--- The largest row that is read, in bytes.
M.MAX_ROW_BYTES = 64 * 1048576
--- How much of a file is read at once when its rows are looked for.
M.CHUNK = 1048576

--- What messages call a row: "train.jsonl row 7".
function M.row_name(file, number)
    return string.format("%s row %d", file, number)
end

--- The text of a row, which must be UTF-8.
function M.checked(text, name)
    local bad = strings.utf8_error(text)
    if bad then
        err.raise("data", "%s: byte %d is not UTF-8; convert the file", name, bad)
    end
    return text
end

-- ---------------------------------------------------------------- where blocks begin

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

-- ---------------------------------------------------------------- reading

--- `bytes` of an open file from `offset` on, fewer where it ends.
function M.read_at(file, offset, bytes, name)
    local text, msg = posix.read_at(file, offset, bytes)
    if not text then
        err.raise("io", "%s: cannot be read (%s)", name, msg)
    end
    return text
end

local chunk = ffi.new("uint8_t[?]", M.CHUNK) -- one for all: a new one each time would keep the collector busy

--- Calls visit(bytes, n, offset) for each chunk of the file from `offset` to `stop`, or its end; returns
--- where that is.
function M.chunks(file, offset, stop, name, visit)
    while offset < stop do
        edge.check(edge.C.am_signals_check())
        local n, msg = posix.read_into(file, chunk, offset, math.min(M.CHUNK, stop - offset))
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

local TextRows = {}
TextRows.__index = TextRows

--- The rows of an open file (see file_rows.lua), which they take over.
---   each_row(file, begin, stop, number, name, found)  calls found(offset, length, number, …) for the rows
---            that begin from `begin` on and before `stop`; the first has `number`
---   begin    where the first row may be
---   number   the first one's (1 unless given)
---   on_row   is called with all that follows a row's number when rows are counted
function M.open(handle, each_row, begin, number, on_row)
    local self = setmetatable({ name = handle.name, file = handle.file, index = new_index(), each_row = each_row },
                              TextRows)
    each_row(self.file, begin, math.huge, number or 1, self.name, function(offset, _, row_number, ...)
        self.index:add(offset, row_number)
        if on_row then
            on_row(row_number, ...)
        end
    end)
    return self
end

function TextRows:len()
    return self.index.count
end

-- Where the rows of a block are: a list of { offset, length, number }.
local function read_block(self, b)
    local data, rows = self.index.data, {}
    local stop = b + 1 < self.index.blocks and data[3 * b + 3] or math.huge
    self.each_row(self.file, data[3 * b], stop, data[3 * b + 2], self.name, function(offset, length, number)
        rows[#rows + 1] = { offset, length, number }
    end)
    return rows
end

-- Row k: where it is, its length, its number. The block that was read last is kept.
local function locate(self, k)
    local b = self.index:find(k - 1)
    if self.block ~= b then
        self.rows, self.block = read_block(self, b), b
    end
    local row = self.rows[k - self.index.data[3 * b + 1]]
    if not row then
        err.raise("io", "%s: cannot be read (the file was changed meanwhile)", self.name)
    end
    return row[1], row[2], row[3]
end

--- The number of row k (from 1): its line's, where rows are lines.
function TextRows:number(k)
    local _, _, number = locate(self, k)
    return number
end

--- The text of row k, which is UTF-8, and what messages call the row.
function TextRows:text(k)
    local offset, length, number = locate(self, k)
    local name = M.row_name(self.name, number)
    if length > M.MAX_ROW_BYTES then
        err.raise("data", "%s: %.0f bytes, more than the %d that a row may have", name, length, M.MAX_ROW_BYTES)
    end
    local text = M.read_at(self.file, offset, length, name)
    if #text ~= length then
        err.raise("io", "%s: cannot be read (the file was changed meanwhile)", name)
    end
    return M.checked(text, name), name
end

--- Forget the block that was read last.
function TextRows:rest()
    self.rows, self.block = nil, nil
end

function TextRows:close()
    posix.close(self.file)
end

return M
