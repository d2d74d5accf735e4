-- Conversations with images: datasets, token rows, batches, packing. This file is what the folder offers.
--
--   local dataset = vlm.ImageFolder { path_or_dataset = "stamps" }         -- conversations
--   local rows = vlm.prepare(dataset, processor)                           -- token rows with plans of pictures
--   rows = vlm.pack_dataset(rows, { packed_sequence_size = 2048 })         -- where packing is wanted
--   local loader = StatefulDataLoader { dataset = rows, processor = processor,
--                                       collate_fn = vlm.collate_fn_for(processor) }
--   for batch in loader:batches() do … batch.fields.pixel_values … end
--
-- A processor is handed in; see samples.lua and batches.lua for what is asked of it.

local batches = require("am.datasets.vlm.batches")
local collate = require("am.datasets.vlm.collate")
local columns = require("am.datasets.vlm.columns")
local conversation = require("am.datasets.vlm.conversation")
local conversations = require("am.datasets.vlm.conversations")
local cord_v2 = require("am.datasets.vlm.cord_v2")
local image_folder = require("am.datasets.vlm.image_folder")
local mock = require("am.datasets.vlm.mock")
local packed = require("am.datasets.vlm.packed")
local prepared = require("am.datasets.vlm.prepared")

local M = {
    make_cord_v2_dataset = cord_v2.make_cord_v2_dataset,
    make_rdr_dataset = columns.make_rdr_dataset,
    make_medpix_dataset = columns.make_medpix_dataset,
    make_shopify_product_catalogue_dataset = columns.make_shopify_product_catalogue_dataset,
    make_conversation_dataset = conversations.make_conversation_dataset,
    make_unimm_chat_dataset = conversations.make_unimm_chat_dataset,
    ImageFolder = image_folder.ImageFolder,
    build_mock_vlm_dataset = mock.build_mock_vlm_dataset,
    json2token = cord_v2.json2token,
    read_conversation = conversation.read,
    prepare = prepared.prepare,
    pack_dataset = packed.pack_dataset,
    pack_size = packed.size,
    packed_sequence_fields = packed.fields,
    default_collate_fn = collate.default_collate_fn,
    qwen2_5_collate_fn = collate.qwen2_5_collate_fn,
    COLLATE_FNS = collate.COLLATE_FNS,
    collate_fn_for = collate.collate_fn_for,
    new_batch = batches.new,
}

--- What a configuration may name with `_target_`: what each of these declares.
M.targets = {}
for _, module in ipairs { cord_v2, columns, conversations, image_folder, mock, collate } do
    for _, target in ipairs(module.targets) do
        M.targets[#M.targets + 1] = target
    end
end

return M
