-- Datasets, packing, batches. This file is what the component offers; how rows look is in utils.lua.
--
-- A dataset of one's own is any object with len() and get(i) that returns rows as utils.lua says.

local agent_chat = require("am.datasets.agent_chat")
local block_causal_mask = require("am.datasets.block_causal_mask")
local chat_dataset = require("am.datasets.chat_dataset")
local collate = require("am.datasets.collate")
local column_mapped = require("am.datasets.column_mapped")
local column_mapped_stream = require("am.datasets.column_mapped_stream")
local dataloader = require("am.datasets.dataloader")
local hellaswag = require("am.datasets.hellaswag")
local megatron_dataset = require("am.datasets.megatron_dataset")
local mock = require("am.datasets.mock")
local mock_iterable_dataset = require("am.datasets.mock_iterable_dataset")
local mock_packed = require("am.datasets.mock_packed")
local mock_seq_cls = require("am.datasets.mock_seq_cls")
local nanogpt_dataset = require("am.datasets.nanogpt_dataset")
local packed = require("am.datasets.packed")
local pretokenized = require("am.datasets.pretokenized")
local seq_cls = require("am.datasets.seq_cls")
local squad = require("am.datasets.squad")
local text_dataset = require("am.datasets.text_dataset")
local utils = require("am.datasets.utils")
local vlm = require("am.datasets.vlm")
local xlam = require("am.datasets.xlam")

local M = {
    ColumnMappedTextInstructionDataset = column_mapped.ColumnMappedTextInstructionDataset,
    ColumnMappedTextInstructionIterableDataset = column_mapped_stream.ColumnMappedTextInstructionIterableDataset,
    ChatDataset = chat_dataset.ChatDataset,
    make_agent_chat_dataset = agent_chat.make_agent_chat_dataset,
    GLUE_MRPC = seq_cls.GLUE_MRPC,
    MockSequenceClassificationDataset = mock_seq_cls.MockSequenceClassificationDataset,
    HellaSwag = hellaswag.HellaSwag,
    make_squad_dataset = squad.make_squad_dataset,
    make_xlam_dataset = xlam.make_xlam_dataset,
    PretokenizedDataset = pretokenized.PretokenizedDataset,
    MegatronPretraining = megatron_dataset.MegatronPretraining,
    NanogptDataset = nanogpt_dataset.NanogptDataset,
    TextDataset = text_dataset.TextDataset,
    MockIterableDataset = mock_iterable_dataset.MockIterableDataset,
    build_packed_dataset = mock_packed.build_packed_dataset,
    build_unpacked_dataset = mock.build_unpacked_dataset,
    pack_dataset = packed.pack_dataset,
    packed_sequence_fields = packed.fields,
    create_block_causal_mask = block_causal_mask.create_block_causal_mask,
    default_collater = collate.default_collater,
    sequence_classification_collater = collate.sequence_classification_collater,
    StatefulDataLoader = dataloader.StatefulDataLoader,
    vlm = vlm,
    describe = utils.describe,
    IGNORE = utils.IGNORE,
}

--- What a configuration may name with `_target_`: what each of these declares.
M.targets = {}
for _, module in ipairs {
    column_mapped, column_mapped_stream, chat_dataset, agent_chat, hellaswag, squad, xlam, seq_cls, pretokenized,
    megatron_dataset, nanogpt_dataset, text_dataset, mock, mock_packed, mock_iterable_dataset, mock_seq_cls, packed,
    collate, dataloader, vlm,
} do
    for _, target in ipairs(module.targets) do
        M.targets[#M.targets + 1] = target
    end
end

return M
