-- TextDataset: plain text for pretraining. Documents are tokenised, each ended by the end-of-sequence token, put
-- one behind the other and cut into rows of seq_length; every token is learnt. Holds no tokenizer.
--
-- Tokens lie in a file (token_rows.lua) piece by piece; a row is where in it it begins. Rows share one token
-- with the next, whose label it is: no token goes unlearnt between them. The last row may be shorter.

local ffi = require("ffi")
local err = require("am.core.error")
local digest = require("am.utils.digest")
local json = require("am.utils.json")
local log = require("am.utils.log").get("am.datasets")
local file_rows = require("am.datasets.file_rows")
local text_pieces = require("am.datasets.text_pieces")
local token_rows = require("am.datasets.token_rows")
local utils = require("am.datasets.utils")

local M = {}

--- What the `dataset` section may hold for this dataset.
M.fields = {
    path_or_dataset_id = { type = "string|list", required = true, doc = "text file, or a list of them" },
    tokenizer = { target = true, default_target = "am.AutoTokenizer.from_pretrained", required = true,
                  doc = "the model's, unless a section here says otherwise" },
    seq_length = { type = "integer", min = 1, max = 2 ^ 24, default = 2048, doc = "tokens in a row" },
    split_by = { type = "string", enum = text_pieces.SPLIT_BY, default = "file",
                 doc = "what a document is: a file, a line, what blank lines part, or `separator` parts" },
    separator = { type = "string", doc = "text between documents, with split_by: separator" },
    text_column = { type = "string", doc = "the files are rows (JSON or JSONL), and this column is a document" },
    add_eos = { type = "boolean", default = true, doc = "end each document with the end-of-sequence token" },
    limit_dataset_samples = { type = "integer", min = 1, doc = "rows to use, from the first" },
    cache_dir = token_rows.cache_dir,
}

-- ---------------------------------------------------------------- tokens of pieces and documents

-- Add the ids of a document, or of a part of one, to an array.
local function encode(self, ids, text, begins, ends)
    local found, eos = self.tokenizer:encode(text, { add_special_tokens = begins }), self.tokenizer.eos_token_id
    local n = #found
    if eos and found[n] == eos and begins then -- the tokenizer's own, which belongs at the end
        n = n - 1
    end
    for k = 1, n do
        ids[#ids + 1] = found[k]
    end
    if ends and eos and self.add_eos then
        ids[#ids + 1] = eos
    end
end

local function as_row(ids)
    if #ids == 0 then
        return nil, "no text"
    end
    return { input_ids = ids, labels = ids }
end

local PieceRows = {}
PieceRows.__index = PieceRows

function PieceRows:len() return self.pieces:len() end
function PieceRows:place(i) return self.pieces:place(i) end

function PieceRows:row(i)
    local ids = {}
    for _, document in ipairs(self.pieces:get(i)) do
        encode(self, ids, document.text, document.begins, document.ends)
    end
    return as_row(ids)
end

local ColumnRows = {}
ColumnRows.__index = ColumnRows

function ColumnRows:len() return self.source:len() end
function ColumnRows:place(i) return self.source:place(i) end

function ColumnRows:row(i)
    local text, ids = self.source:get(i)[self.text_column], {}
    if text == json.null then
        return as_row(ids)
    elseif type(text) ~= "string" then
        err.raise("data", '%s: "%s" (dataset.text_column) must be a text', self.source:name(i), self.text_column)
    elseif text:find("%S") then
        encode(self, ids, text, true, true)
    end
    return as_row(ids)
end

-- ---------------------------------------------------------------- the dataset

local TextDataset = {}
TextDataset.__index = TextDataset

-- Note of every row where its first token is: the piece, and which of its tokens (from 0).
local function find_rows(self)
    local total, n = self.rows:stats().tokens, self.seq_length
    if total < 2 then
        err.raise("data", "%s: %d tokens are no row", self.files[1], total)
    end
    self.count = math.min(math.ceil((total - 1) / n), self.limit)
    self.starts = ffi.new("int32_t[?]", 2 * self.count)
    local piece, offset, length = 1, 0, self.rows:length(1)
    for k = 0, self.count - 1 do
        while offset >= length do
            offset, piece = offset - length, piece + 1
            length = self.rows:length(piece)
        end
        self.starts[2 * k], self.starts[2 * k + 1] = piece, offset
        offset = offset + n
    end
    local tokens = math.min(total - 1, self.count * n)
    self.counts = utils.new_stats()
    self.counts.rows, self.counts.tokens, self.counts.label_tokens = self.count, tokens, tokens
    self.counts.longest = { length = math.min(n, tokens), name = self:name(1) }
end

-- What token rows depend on beside the content of the files; nil when the tokenizer can't say it.
local function dependencies(opts)
    if not opts.tokenizer.content then
        log:warning("dataset.cache_dir: this tokenizer has no content(), so its rows can't be kept")
        return nil
    end
    return { dataset = "TextDataset", tokenizer = digest.text(opts.tokenizer:content()),
             eos_token_id = opts.tokenizer.eos_token_id, split_by = opts.split_by, separator = opts.separator,
             text_column = opts.text_column, add_eos = opts.add_eos ~= false }
end

-- The source of token rows: pieces of text, or a column's documents.
local function open_source(opts, files)
    local shared = { tokenizer = opts.tokenizer, add_eos = opts.add_eos ~= false, text_column = opts.text_column }
    if opts.text_column then
        shared.source = file_rows.open(files, { texts = { opts.text_column } })
        return setmetatable(shared, ColumnRows)
    end
    shared.pieces, shared.enough = text_pieces.open(files, opts), 64
    if shared.pieces:len() == 0 then
        err.raise("data", "%s: there is no text", files[1])
    end
    return setmetatable(shared, PieceRows)
end

--- A dataset of rows of seq_length tokens; opts: the keys of `fields`, and a tokenizer. Tokenises everything
--- once. Raises "data" for text that is not UTF-8, naming file and byte.
function M.TextDataset(opts)
    if type(opts.tokenizer) ~= "table" or not opts.tokenizer.encode then
        err.raise("usage", "dataset.tokenizer: expected a tokenizer, got a %s without :encode", type(opts.tokenizer))
    elseif opts.text_column and (opts.separator or (opts.split_by or "file") ~= "file") then
        err.raise("usage", "dataset.text_column: rows are documents already; leave split_by and separator out")
    end
    local files = file_rows.files(opts.path_or_dataset_id)
    local depends_on = opts.cache_dir and dependencies(opts)
    local self = setmetatable({
        files = files, seq_length = opts.seq_length or 2048, limit = opts.limit_dataset_samples or math.huge,
        rows = token_rows.open {
            files = files, cache_dir = depends_on and opts.cache_dir, depends_on = depends_on,
            open = function() return open_source(opts, files) end,
        },
    }, TextDataset)
    find_rows(self)
    return self
end

function TextDataset:len()
    return self.count
end

--- What messages call row i: the piece or document that it begins in.
function TextDataset:name(i)
    return self.rows:name(self.starts[2 * i - 2])
end

--- Tokens of row i.
function TextDataset:length(i)
    return math.min(self.seq_length, self.counts.tokens - (i - 1) * self.seq_length)
end

--- Row i: { input_ids, labels }.
function TextDataset:get(i)
    local n, row, found = self:length(i), { input_ids = {}, labels = {} }, 0
    local piece, offset = self.starts[2 * i - 2], self.starts[2 * i - 1]
    while found <= n do
        local ids, _, length = self.rows:sample(piece)
        for k = offset, math.min(length - 1, offset + n - found) do
            if found > 0 then
                row.labels[found] = ids[k]
            end
            found = found + 1
            if found <= n then
                row.input_ids[found] = ids[k]
            end
        end
        piece, offset = piece + 1, 0
    end
    return row
end

function TextDataset:stats()
    return self.counts
end

--- What a configuration may name with `_target_`.
M.targets = { {
    name = "am.datasets.TextDataset",
    doc = "plain text files, tokenised and cut into rows",
    fields = M.fields,
    build = M.TextDataset,
} }

return M
