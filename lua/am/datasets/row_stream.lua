-- The rows of a file one after another, as they are read: for data sets that nobody wants to go through
-- before the first step. Lines of JSON are read as they come, in memory for one of them; files of other
-- formats are opened by file_rows.lua, which finds where their rows are first.

local err = require("am.core.error")
local path = require("am.utils.path")
local posix = require("am.utils.posix")
local file_rows = require("am.datasets.file_rows")
local json_rows = require("am.datasets.json_rows")
local text_rows = require("am.datasets.text_rows")

local M = {}

local CHUNK = 1048576

-- ---------------------------------------------------------------- lines of JSON

local Lines = {}
Lines.__index = Lines

local function read_at(self, bytes)
    local text, msg = posix.read_at(self.file, self.offset, bytes)
    if not text then
        err.raise("io", "%s: cannot be read (%s)", self.name, msg)
    end
    self.offset = self.offset + #text
    return text
end

local function lines_of(name)
    local file, msg = posix.open(name, "read")
    if not file then
        err.raise("io", "cannot read %s", msg)
    end
    local self = setmetatable({ file = file, name = name, offset = 0, at = 1, scanned = 1, number = 0 }, Lines)
    self.buffer = read_at(self, CHUNK)
    if self.buffer:sub(1, 3) == "\239\187\191" then
        self.at, self.scanned = 4, 4
    end
    return self
end

-- The next line, or nil at the end.
local function next_line(self)
    while true do
        local stop = self.buffer:find("\n", self.scanned, true)
        if stop then
            local line = self.buffer:sub(self.at, stop - 1)
            self.at, self.scanned = stop + 1, stop + 1
            return line
        end
        local rest = self.buffer:sub(self.at)
        if #rest > text_rows.MAX_ROW_BYTES then
            err.raise("data", "%s: more than the %d bytes that a row may have",
                file_rows.row_name(self.name, self.number + 1), text_rows.MAX_ROW_BYTES)
        end
        local more = self.ended and "" or read_at(self, CHUNK)
        if more == "" then
            self.ended, self.buffer, self.at, self.scanned = true, "", 1, 1
            return rest ~= "" and rest or nil
        end
        self.buffer, self.at, self.scanned = rest .. more, 1, #rest + 1
    end
end

-- The text of the next row, or nil; its number is that of its line.
local function next_text(self)
    repeat
        local line = next_line(self)
        if not line then
            return nil
        end
        self.number = self.number + 1
        if line:find("%S") then
            return line
        end
    until false
end

function Lines:next()
    local text = next_text(self)
    if not text then
        return nil
    end
    local name = file_rows.row_name(self.name, self.number)
    return json_rows.parse(text_rows.checked(text, name), name), name
end

function Lines:skip(count)
    for i = 1, count do
        if not next_text(self) then
            return i - 1
        end
    end
    return count
end

function Lines:close()
    posix.close(self.file)
end

-- ---------------------------------------------------------------- files of other formats

local Indexed = {}
Indexed.__index = Indexed

function Indexed:next()
    if self.at >= self.source:len() then
        return nil
    end
    self.at = self.at + 1
    return self.source:get(self.at), self.source:name(self.at)
end

function Indexed:skip(count)
    local n = math.min(count, self.source:len() - self.at)
    self.at = self.at + n
    return n
end

function Indexed:close()
    self.source:close()
end

-- ---------------------------------------------------------------- which of them

-- Whether a file looks like lines of JSON, rather than one array or another format.
local function is_lines(name)
    local ending = name:lower():match("%.([%w]+)$")
    if ending ~= "jsonl" and ending ~= "ndjson" and ending ~= "json" then
        return false
    end
    local file = posix.open(name, "read")
    local head = file and posix.read_at(file, 0, 4096) or ""
    if file then
        posix.close(file)
    end
    return head:gsub("^\239\187\191", ""):match("^%s*(.)") == "{"
end

--- The rows of a file: next() gives a row (a table) and what messages call it, nil at the end; skip(n)
--- passes over n rows and says how many there were; close(). Raises "data" naming the row for one that
--- is not a JSON object, "io" for a file that cannot be read. opts: as file_rows.open takes them, for files
--- that are no lines of JSON.
function M.open(name, opts)
    if path.is_file(name) and is_lines(name) then
        return lines_of(name)
    end
    return setmetatable({ source = file_rows.open({ name }, opts), at = 0 }, Indexed)
end

return M
