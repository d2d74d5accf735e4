-- Datasets, packing, batches. This file is what the component offers; how rows look is in utils.lua.
--
-- A dataset of one's own is any object with len() and get(i) that returns rows as utils.lua says.

local collate = require("am.datasets.collate")
local column_mapped = require("am.datasets.column_mapped")
local dataloader = require("am.datasets.dataloader")
local mock = require("am.datasets.mock")
local packed = require("am.datasets.packed")
local pretokenized = require("am.datasets.pretokenized")
local utils = require("am.datasets.utils")

local M = {
    ColumnMappedTextInstructionDataset = column_mapped.ColumnMappedTextInstructionDataset,
    PretokenizedDataset = pretokenized.PretokenizedDataset,
    build_unpacked_dataset = mock.build_unpacked_dataset,
    pack_dataset = packed.pack_dataset,
    packed_sequence_fields = packed.fields,
    default_collater = collate.default_collater,
    StatefulDataLoader = dataloader.StatefulDataLoader,
    describe = utils.describe,
    IGNORE = utils.IGNORE,
}

--- What a configuration may name with `_target_`.
M.targets = {
    {
        name = "am.datasets.ColumnMappedTextInstructionDataset",
        aliases = {
            "nemo_automodel.components.datasets.llm.column_mapped_text_instruction_dataset."
                .. "ColumnMappedTextInstructionDataset",
        },
        doc = "questions and answers from columns of JSON and JSONL files",
        fields = column_mapped.fields,
        build = M.ColumnMappedTextInstructionDataset,
    },
    {
        name = "am.datasets.PretokenizedDataset",
        doc = "rows of input_ids and labels from JSONL files",
        fields = pretokenized.fields,
        build = M.PretokenizedDataset,
    },
    {
        name = "am.datasets.build_unpacked_dataset",
        aliases = { "nemo_automodel.components.datasets.llm.mock.build_unpacked_dataset" },
        doc = "random sentences",
        fields = mock.fields,
        build = M.build_unpacked_dataset,
    },
    {
        name = "am.datasets.default_collater",
        aliases = { "nemo_automodel.components.datasets.utils.default_collater" },
        doc = "rows to a batch padded to the longest",
        fields = collate.fields,
        call = M.default_collater,
    },
    {
        name = "am.datasets.StatefulDataLoader",
        aliases = { "torchdata.stateful_dataloader.StatefulDataLoader" },
        doc = "batches in a shuffled order that can be resumed",
        fields = dataloader.fields,
        build = M.StatefulDataLoader,
    },
}

return M
