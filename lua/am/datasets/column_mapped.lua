-- ColumnMappedTextInstructionDataset: questions and answers from the columns of files. What becomes of a row
-- is in columns.lua; the same as a stream is column_mapped_stream.lua.

local columns = require("am.datasets.columns")
local formatting = require("am.datasets.formatting")
local mapped = require("am.datasets.mapped")
local stream = require("am.datasets.column_mapped_stream")

local M = {}

--- What the `dataset` section may hold for this dataset.
M.fields = formatting.fields(columns.fields, {
    streaming = { type = "boolean", default = false,
                  doc = "the iterable dataset: rows as they are read, again and again, in the files' order" },
})

--- A dataset of token rows. opts: the keys of `fields` and `tokenizer`. Reads and tokenizes everything
--- once, unless `streaming`: "data" for the first row that is not JSON or lacks a column, or when no row has
--- a label.
function M.ColumnMappedTextInstructionDataset(opts)
    if opts.streaming then
        return stream.ColumnMappedTextInstructionIterableDataset(opts)
    end
    return mapped.open {
        dataset = "ColumnMappedTextInstructionDataset", fields = M.fields, opts = opts, map = columns.mapper(opts),
        columns = columns.names(opts.column_mapping), texts = columns.names(opts.column_mapping),
        path = opts.path_or_dataset_id, split = opts.split, name = opts.name, limit = opts.limit_dataset_samples,
    }
end

--- What a configuration may name with `_target_`.
M.targets = { {
    name = "am.datasets.ColumnMappedTextInstructionDataset",
    aliases = {
        "nemo_automodel.components.datasets.llm.column_mapped_text_instruction_dataset."
            .. "ColumnMappedTextInstructionDataset",
        "nemo_automodel.components.datasets.llm.ColumnMappedTextInstructionDataset",
        "nemo_automodel.datasets.llm.column_mapped_text_instruction_dataset.ColumnMappedTextInstructionDataset",
    },
    doc = "questions and answers from columns of files",
    fields = M.fields,
    build = M.ColumnMappedTextInstructionDataset,
} }

return M
