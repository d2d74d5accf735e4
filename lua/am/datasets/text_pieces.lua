-- Plain text files in pieces of some ten thousand bytes, each of them whole documents where these are not
-- larger than a megabyte. Holds no tokenizer.
--
-- What a document is, split_by says: a whole file, a line, what blank lines part, or a separator. A longer
-- document is cut behind a line, else behind a word. Only where pieces begin is kept, so files may be larger
-- than memory.

local err = require("am.core.error")
local edge = require("am.core.ffi")
local number_file = require("am.datasets.number_file")
local posix = require("am.utils.posix")
local strings = require("am.utils.strings")

local M = {}

local ENOUGH = 32768 -- bytes after which a piece ends with its document
local WINDOWS = { 65536, 1048576 } -- bytes in which that end is looked for, and then in how many more

--- Values of split_by.
M.SPLIT_BY = { "file", "line", "blank_line", "separator" }

local patterns = { line = "\n", blank_line = "\n[ \t\r]*\n[ \t\r\n]*" }

-- Where the next end of a document in text is: first and last byte of what parts it from the next; nil when
-- there is none.
local function find_end(self, text, from)
    if self.split_by == "separator" then
        return text:find(self.separator, from, true)
    end
    local pattern = patterns[self.split_by]
    if pattern then
        return text:find(pattern, from)
    end
end

local function read_at(file, offset, bytes)
    local text, msg = posix.read_at(file.file, offset, bytes)
    if not text then
        err.raise("io", "%s: cannot be read (%s)", file.name, msg)
    end
    return text
end

-- The end of a document that is at least ENOUGH bytes into a text, or the last one there is.
local function document_end(self, text)
    local stop
    local _, last = find_end(self, text, 1)
    while last do
        stop = last
        if stop >= ENOUGH then
            break
        end
        _, last = find_end(self, text, stop + 1)
    end
    return stop
end

-- Where to cut a text that is one part of a document: behind a line that no white space follows, behind
-- a space, or between two letters.
local function inner_end(text)
    for k = #text - 1, math.floor(#text / 2), -1 do
        if text:byte(k) == 10 and not text:find("^%s", k + 1) then
            return k
        end
    end
    for k = #text - 1, math.floor(#text / 2), -1 do
        if text:byte(k) == 32 then
            return k - 1
        end
    end
    local k = #text
    while k > 1 and text:byte(k) >= 0x80 and text:byte(k) < 0xc0 do
        k = k - 1
    end
    return math.max(k - 1, 1)
end

-- The length of the piece that begins at `offset`, and whether it ends with a document.
local function piece_at(self, file, offset)
    local text
    for _, bytes in ipairs(WINDOWS) do
        text = read_at(file, offset, bytes)
        local rest = offset + #text >= file.size
        if rest and (#text <= ENOUGH or self.split_by == "file") then
            return #text, true
        end
        local stop = document_end(self, text)
        if stop and (stop >= ENOUGH or not rest) then
            return stop, true
        elseif rest then
            return #text, true
        end
    end
    return inner_end(text), false
end

local Pieces = {}
Pieces.__index = Pieces

local function index_file(self, f)
    local file = self.files[f]
    local offset, begins = read_at(file, 0, 3) == "\239\187\191" and 3 or 0, true
    local number = 0
    while offset < file.size do
        edge.check(edge.C.am_signals_check())
        local bytes, ends = piece_at(self, file, offset)
        if bytes == 0 then
            err.raise("io", "%s: became shorter while it was read", file.name)
        end
        number = number + 1
        self.pieces[#self.pieces + 1] = { f, number, offset, bytes, begins, ends }
        offset, begins = offset + bytes, ends
    end
end

--- The pieces of an array of files; opts: split_by ("file"), separator (for "separator").
function M.open(names, opts)
    local self = setmetatable({ files = {}, pieces = {}, split_by = opts.split_by or "file",
                                separator = opts.separator }, Pieces)
    if (self.split_by == "separator") ~= (self.separator ~= nil and self.separator ~= "") then
        err.raise("usage", "dataset.split_by: separator and dataset.separator, a text, go together")
    end
    for f, name in ipairs(names) do
        self.files[f] = number_file.open(name)
        index_file(self, f)
    end
    return self
end

function Pieces:len()
    return #self.pieces
end

--- Which of the files piece i is of, and its number there.
function Pieces:place(i)
    return self.pieces[i][1], self.pieces[i][2]
end

--- Documents of piece i: an array of { text, begins, ends }, which say whether it has the document's begin and
--- end. White space alone is no document.
function Pieces:get(i)
    local f, _, offset, bytes, begins, ends = unpack(self.pieces[i])
    local file = self.files[f]
    local text = read_at(file, offset, bytes)
    local bad = #text == bytes and strings.utf8_error(text)
    if #text ~= bytes then
        err.raise("io", "%s: became shorter while it was used", file.name)
    elseif bad then
        err.raise("data", "%s: byte %.0f is not UTF-8; convert the file", file.name, offset + bad)
    end
    local documents, at = {}, 1
    while at <= #text do
        local first, last = find_end(self, text, at)
        local part = text:sub(at, (first or #text + 1) - 1)
        part = self.split_by == "line" and part:gsub("\r$", "") or part
        local is_tail = at == 1 and not begins
        if is_tail or part:find("%S") then
            documents[#documents + 1] = { text = part, begins = not is_tail, ends = first ~= nil or ends }
        end
        at = (last or #text) + 1
    end
    return documents
end

return M
