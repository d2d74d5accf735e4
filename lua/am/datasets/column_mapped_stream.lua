-- ColumnMappedTextInstructionIterableDataset: questions and answers from the columns of files, made as they
-- are read, in the files' order and again from the first when the last was read. Nothing is read before it
-- is needed, so there is no len(); utils.lua says what such a dataset has. What becomes of a row is in
-- columns.lua. A row without a label is passed over; a pass that finds none is an error.

local err = require("am.core.error")
local columns = require("am.datasets.columns")
local file_rows = require("am.datasets.file_rows")
local formatting = require("am.datasets.formatting")
local row_stream = require("am.datasets.row_stream")
local utils = require("am.datasets.utils")

local M = {}

--- What the `dataset` section may hold for this dataset.
M.fields = formatting.fields(columns.fields, {
    streaming = { type = "boolean", enum = { true }, default = true, doc = "this dataset is a stream" },
    repeat_on_exhaustion = { type = "boolean", enum = { true }, default = true,
                             doc = "begin again when all rows were read; step_scheduler.max_steps ends the run" },
    cache_dir = { type = "string", no_effect = "a stream keeps no rows" },
})

-- Rows of a pass: the first to pass over, and the last, of a split such as "train[100:200]".
local function part_of(split)
    if not (split or ""):find("[^%w_]") then
        return 0, math.huge
    end
    local from, to = split:match("^[%w_]+%[(%d*):(%d*)%]$")
    local first, last = tonumber(from) or 0, tonumber(to) or math.huge
    if not from or first >= last then
        err.raise("usage", "dataset.split: \"%s\" is no part of a stream; write a name, or as in \"train[:100]\" the "
            .. "numbers of rows from the first", split)
    end
    return first, last
end

-- ---------------------------------------------------------------- reading

local Iterator = {}
Iterator.__index = Iterator

local function close(self)
    if self.rows then
        self.rows:close()
        self.rows = nil
    end
end

-- The next row of the files, or nil when the pass ends.
local function next_raw(self)
    local dataset, at = self.dataset, self.at
    while at.read < dataset.last do
        if not self.rows then
            if at.file > #dataset.files then
                return nil
            end
            self.rows = row_stream.open(dataset.files[at.file], { texts = dataset.texts })
            if self.rows:skip(at.row) < at.row then
                err.raise("state", "%s has fewer than the %d rows that were read of it: restore the data, or start in "
                    .. "another checkpoint_dir", dataset.files[at.file], at.row)
            end
        end
        local raw, name = self.rows:next()
        if raw then
            at.row, at.read = at.row + 1, at.read + 1
            if at.read > dataset.first then
                return raw, name
            end
        else
            close(self)
            at.file, at.row = at.file + 1, 0
        end
    end
    return nil
end

--- The next token row; nil when its rows were all read and `once` was asked for.
function Iterator:next()
    while true do
        local raw, name = next_raw(self)
        if raw then
            local row = self.dataset.map(raw, name)
            if row and utils.count_labels(row.labels) > 0 then
                self.at.found = self.at.found + 1
                row.name = name
                return row
            end
        else
            close(self)
            if self.at.found == 0 then
                err.raise("data", "%s: no row has a label to learn. Are prompts cut off before the answer "
                    .. "(seq_length), or answers empty?", self.dataset.files[1])
            elseif self.once then
                return nil
            end
            self.at = { pass = self.at.pass + 1, file = 1, row = 0, read = 0, found = 0 }
        end
    end
end

--- Where it goes on: { pass (from 0), file (from 1), row (read of the file), read (of the pass), found (with a
--- label) }.
function Iterator:state_dict()
    local out = {}
    for key, value in pairs(self.at) do
        out[key] = value
    end
    return out
end

local keys = { "pass", "file", "row", "read", "found" }

--- Go on from a saved state. Raises "format" when it is none, "state" later when a file has become shorter.
function Iterator:load_state_dict(state)
    local at = {}
    for _, key in ipairs(keys) do
        local value = type(state) == "table" and state[key]
        if type(value) ~= "number" or value % 1 ~= 0 or value < (key == "file" and 1 or 0) or value > 2 ^ 53 then
            err.raise("format", "the state of a stream: %s must be a whole number, not %s", key, tostring(value))
        end
        at[key] = value
    end
    close(self)
    self.at = at
end

-- ---------------------------------------------------------------- the dataset

local Stream = {}
Stream.__index = Stream
Stream.is_iterable = true

--- An iterator of its own, from the first row. opts.once: it ends when all rows were read.
function Stream:iter(opts)
    return setmetatable({ dataset = self, once = opts and opts.once or false,
                          at = { pass = 0, file = 1, row = 0, read = 0, found = 0 } }, Iterator)
end

--- A stream of token rows; opts: the keys of `fields` and `tokenizer`.
function M.ColumnMappedTextInstructionIterableDataset(opts)
    local first, last = part_of(opts.split)
    return setmetatable({
        files = file_rows.files(opts.path_or_dataset_id, { split = opts.split, name = opts.name }),
        map = columns.mapper(opts), texts = columns.names(opts.column_mapping), first = first,
        last = math.min(last, first + (opts.limit_dataset_samples or math.huge)),
    }, Stream)
end

--- What a configuration may name with `_target_`.
M.targets = { {
    name = "am.datasets.ColumnMappedTextInstructionIterableDataset",
    aliases = {
        "nemo_automodel.components.datasets.llm.column_mapped_text_instruction_iterable_dataset."
            .. "ColumnMappedTextInstructionIterableDataset",
        "nemo_automodel.components.datasets.llm.ColumnMappedTextInstructionIterableDataset",
    },
    doc = "questions and answers from columns of files, as a stream",
    fields = M.fields,
    build = M.ColumnMappedTextInstructionIterableDataset,
} }

return M
