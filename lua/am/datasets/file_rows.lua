-- Rows of files, in whatever format they are: what datasets read. Holds no format itself.
--
-- A format's file has open(handle, …); a handle is { name, file }, an open file (see posix.lua). It gives
-- the rows of one file:
--   len()  get(k) -> table   number(k) what messages call row k   rest() forget what was read   close()
-- Compression and Parquet are told by a file's first bytes, CSV and TSV by its name; all else is JSON.

local err = require("am.core.error")
local path = require("am.utils.path")
local posix = require("am.utils.posix")
local compressed = require("am.datasets.compressed")
local csv_rows = require("am.datasets.csv_rows")
local file_names = require("am.datasets.file_names")
local json_rows = require("am.datasets.json_rows")
local parquet_rows = require("am.datasets.parquet_rows")
local text_rows = require("am.datasets.text_rows")

local M = {}

--- The names of files as a list; see file_names.lua.
M.files = file_names.files

--- What a field that `files` takes says of itself.
M.doc = "file (JSON, JSONL, CSV, TSV or Parquet), folder, pattern, a list of them, or a hub name"

--- What messages call row `number` of a file.
M.row_name = text_rows.row_name

-- First bytes of files that are taken for data and are not read.
local others = {
    { "BZh", "compressed by bzip2" }, { "\253\55\122\88\90\0", "compressed by xz" },
    { "\4\34\77\24", "compressed by lz4" }, { "version https://git-lfs", "a pointer of Git LFS, not the file itself" },
    { "PK\3\4", "a zip archive" }, { "ARROW1", "an Arrow file" }, { "SQLite format 3", "an SQLite data base" },
}

local HEAD = 32 -- bytes that tell what a file is

-- Its first bytes; raises for what is not read.
local function head_of(handle)
    local head = text_rows.read_at(handle.file, 0, HEAD, handle.name)
    for _, other in ipairs(others) do
        if head:sub(1, #other[1]) == other[1] then
            err.raise("data", "%s: is %s, which is not read; JSON, JSONL, CSV, TSV and Parquet are, also compressed by "
                .. "gzip or zstd", handle.name, other[2])
        end
    end
    return head
end

local function open_handle(handle, opts)
    local head = head_of(handle)
    local is_compressed = compressed.is(head)
    if is_compressed then
        posix.close(handle.file)
        handle.file = compressed.open(handle.name)
        head = head_of(handle)
    end
    local extension = file_names.extension(handle.name)
    local is_parquet = head:find("^PAR[1E]") ~= nil or extension == "parquet"
    if is_compressed and (is_parquet or compressed.is(head)) then
        err.raise("data", "%s: is %s within, which is not read; decompress it once", handle.name,
            is_parquet and "a Parquet file" or "compressed again")
    end
    if is_parquet then
        posix.close(handle.file)
        return parquet_rows.open(handle.name, opts)
    elseif extension == "csv" or extension == "tsv" then
        return csv_rows.open(handle, extension == "tsv" and "\t" or ",", opts)
    end
    return json_rows.open(handle, opts.json)
end

local function open_file(name, opts)
    if not path.is_file(name) then
        err.raise("data", "%s: no such file", name)
    end
    local file, msg = posix.open(name, "read")
    if not file then
        err.raise("io", "cannot read %s", msg)
    end
    return open_handle({ name = name, file = file }, opts)
end

local Source = {}
Source.__index = Source

--- The rows of files, in order: those of a list that `files` gave, or of what it takes. opts.columns: the
--- columns to read, each of which must be there; of JSON, where rows say themselves what they hold, all are
--- read all the same. opts.texts: columns that are text in CSV files whatever their cells hold. opts.json: how
--- JSON is parsed, see am.utils.json.decode. Raises "data" when there are no rows.
function M.open(names, opts)
    local self = setmetatable({ files = {}, count = 0 }, Source)
    names = M.files(names)
    for i, name in ipairs(names) do
        local rows = open_file(name, opts or {})
        self.files[i] = { name = name, rows = rows, first = self.count }
        self.count = self.count + rows:len()
    end
    if self.count == 0 then
        err.raise("data", "%s: no rows", table.concat(names, ", "))
    end
    return self
end

function Source:len()
    return self.count
end

-- The file of row i, and which of its rows that is. The file that was read before rests.
local function locate(self, i)
    local low, high = 1, #self.files
    while low < high do
        local middle = math.ceil((low + high) / 2)
        if self.files[middle].first < i then
            low = middle
        else
            high = middle - 1
        end
    end
    if self.last and self.last ~= low then
        self.files[self.last].rows:rest()
    end
    self.last = low
    return low, i - self.files[low].first
end

--- Where row i is: which of the files (from 1), and its number there. In JSONL and CSV that is the line's.
function Source:place(i)
    local f, k = locate(self, i)
    return f, self.files[f].rows:number(k)
end

--- What messages call row i.
function Source:name(i)
    local f, number = self:place(i)
    return M.row_name(self.files[f].name, number)
end

--- Row i (from 1) as a table of what JSON can hold. Raises an error that names file and row for one that
--- cannot be read.
function Source:get(i)
    local f, k = locate(self, i)
    return self.files[f].rows:get(k)
end

--- Close the files; get fails afterwards.
function Source:close()
    for _, file in ipairs(self.files) do
        file.rows:close()
    end
end

return M
