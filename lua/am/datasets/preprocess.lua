-- Documents of text and JSON files to token files: tokenised in several processes, in memory that does not grow
-- with the files. Holds no tokenizer and no formats: text_pieces.lua and file_rows.lua read, token_writers.lua
-- writes.

local ffi = require("ffi")
local edge = require("am.core.ffi")
local err = require("am.core.error")
local json = require("am.utils.json")
local strings = require("am.utils.strings")
local file_rows = require("am.datasets.file_rows")
local text_pieces = require("am.datasets.text_pieces")
local workers = require("am.datasets.workers")

local M = {}

-- What comes between ids, which are not negative.
local END_SEQUENCE, END_DOCUMENT, SKIPPED = -1, -2, -3
local BLOCK = { rows = 64, pieces = 4 } -- rows that a process makes at a time

-- ---------------------------------------------------------------- ids of a row

local Ids = {}
Ids.__index = Ids

local function new_ids()
    return setmetatable({ count = 0, capacity = 65536, array = ffi.new("int32_t[?]", 65536) }, Ids)
end

function Ids:put(x)
    if self.count == self.capacity then
        local array = ffi.new("int32_t[?]", 2 * self.capacity)
        ffi.copy(array, self.array, 4 * self.count)
        self.capacity, self.array = 2 * self.capacity, array
    end
    self.array[self.count] = x
    self.count = self.count + 1
end

-- A text's ids; `begins` and `ends`: the document's begin and end are in it.
local function put_text(self, ids, text, begins, ends)
    local found = self.tokenizer:encode(text, { add_special_tokens = begins })
    if begins and self.bos and #found > 0 and found[1] ~= self.bos then
        ids:put(self.bos)
    end
    for k = 1, #found do
        ids:put(found[k])
    end
    if ends and self.eod then
        ids:put(self.eod)
    end
end

local function put_document(self, ids, document)
    put_text(self, ids, document.text, document.begins, document.ends)
    if document.ends then
        ids:put(END_DOCUMENT)
    end
end

-- A column's value: a text, or a list of texts, each of which is a sequence. All else is left out and counted.
local function put_value(self, ids, value)
    local texts = type(value) == "table" and json.is_array(value) and value or { value }
    local kept = {}
    for _, text in ipairs(texts) do
        if type(text) == "string" and text ~= "" then
            kept[#kept + 1] = text
        else
            ids:put(SKIPPED)
        end
    end
    for k, text in ipairs(kept) do
        put_text(self, ids, text, true, k == #kept)
        ids:put(k == #kept and END_DOCUMENT or END_SEQUENCE)
    end
    if value == nil or #texts == 0 then
        ids:put(SKIPPED)
    end
end

local function put_row(self, ids, i)
    if self.pieces then
        for _, document in ipairs(self.pieces:get(i)) do
            put_document(self, ids, document)
        end
    else
        put_value(self, ids, self.source:get(i)[self.key])
    end
end

-- ---------------------------------------------------------------- all rows

local STOP = {}

-- Hand a block's ids to the writer.
local function take(self, array, count)
    local from, writer = 0, self.writer
    for k = 0, count do
        local mark = k == count and 0 or array[k]
        if k == count or mark < 0 then
            if k > from then
                writer:append(array + from, k - from)
            end
            from = k + 1
            if mark == END_SEQUENCE then
                writer:end_sequence()
            elseif mark == END_DOCUMENT then
                writer:end_document()
                if writer.tokens >= self.max_tokens then
                    error(STOP, 0)
                end
            elseif mark == SKIPPED then
                self.skipped = self.skipped + 1
            end
        end
    end
end

local function each_block(self)
    local rows = self.pieces or self.source
    local size = self.pieces and BLOCK.pieces or BLOCK.rows
    local ids = new_ids()
    local blocks = math.ceil(rows:len() / size)
    local function make(b)
        ids.count = 0
        for i = size * (b - 1) + 1, math.min(size * b, rows:len()) do
            put_row(self, ids, i)
        end
        if ids.count % 2 == 1 then -- blocks travel as whole doubles
            ids:put(-4)
        end
        return ids.array, 4 * ids.count
    end
    local count = math.min(edge.C.am_threads(), math.floor(blocks / 8))
    if count > 1 and workers.each(blocks, count, make, function(data, bytes)
        take(self, ffi.cast("int32_t *", data), bytes / 4)
    end) then
        return
    end
    for b = 1, blocks do
        edge.check(edge.C.am_signals_check())
        local array, bytes = make(b)
        take(self, array, bytes / 4)
    end
end

-- Raise "data" where nothing was found, naming the input and what there is instead of the column.
local function check_found(self, files)
    if self.writer.tokens > 0 then
        return
    elseif not self.source then
        err.raise("data", "%s: there is no text", files[1])
    end
    local row = self.source:get(1)
    if row[self.key] ~= nil then
        err.raise("data", '%s: no row has text in column "%s"', files[1], self.key)
    end
    local names = strings.sorted_keys(row)
    err.raise("data", '%s: no column "%s"%s; it has %s; name the column with the documents (--json-keys)',
        self.source:name(1), self.key, strings.did_you_mean(self.key, names), table.concat(names, ", "))
end

--- Tokenise the documents of files and write them. opts:
---   files        text, JSON or JSONL files; key: the column that holds a document (nil: plain text)
---   split_by, separator   of plain text, see text_pieces.lua
---   tokenizer    append_eod: end each document with its eos token; bos: put its bos token before each that does
---                not begin with it
---   max_tokens   stop behind the document that reaches so many
---   writer       of token_writers.lua
--- Returns the numbers of documents, tokens and fragments left out (empty, or no text), and what else
--- writer:finish() gives. What is not finished is removed.
function M.run(opts)
    local tokenizer = opts.tokenizer
    local self = { tokenizer = tokenizer, writer = opts.writer, key = opts.key, skipped = 0,
                   max_tokens = opts.max_tokens or math.huge, eod = opts.append_eod and tokenizer.eos_token_id or nil,
                   bos = opts.bos and tokenizer.bos_token_id or nil }
    for option, token in pairs { append_eod = "eos_token_id", bos = "bos_token_id" } do
        if opts[option] and not tokenizer[token] then
            err.raise("usage", "the tokenizer has no %s", (token:gsub("_id$", "")))
        end
    end
    local ok, e = pcall(function()
        if opts.key then
            self.source = file_rows.open(opts.files, { texts = { opts.key } })
        else
            self.pieces = text_pieces.open(opts.files, opts)
        end
        each_block(self)
    end)
    local done
    if ok or e == STOP then
        done = { pcall(function()
            check_found(self, opts.files)
            return opts.writer:finish()
        end) }
        ok, e = done[1], done[2]
    end
    opts.writer:discard()
    if not ok then
        error(e, 0)
    end
    return done[2], done[3], self.skipped, done[4]
end

return M
