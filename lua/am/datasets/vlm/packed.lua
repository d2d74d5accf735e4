-- Packing with images: several samples in one row, each with its pictures in order, which see nothing of one
-- another. Which samples share a pack says ../packed.lua; samples are never split. Tokens are known by then, so packs
-- are full as they can be (the original estimates).

local err = require("am.core.error")
local packed = require("am.datasets.packed")
local formatting = require("am.datasets.formatting")
local utils = require("am.datasets.utils")
local TYPES = require("am.datasets.vlm.samples").TYPES

local M = {}

local EXACT = "lengths are known, not estimated"

--- What the `packed_sequence` section may hold beside ../packed.lua's.
M.fields = formatting.fields(packed.fields, {
    pack_size = { type = "integer", min = 0, max = 2 ^ 24, doc = "newer spelling of packed_sequence_size" },
    max_length = { type = "integer", min = 1, doc = "tokens of a sample; longer ones are left out" },
    packing_format = { type = "string", enum = { "thd", "neat" }, no_effect = "attention knows the samples of a row" },
    packing_ratio = { type = "number", above = 0, max = 1, no_effect = EXACT },
    balance_media_tokens = { type = "boolean", no_effect = "ranks take packs in turns" },
    collate_max_length = { type = "integer", min = 1, no_effect = "a batch is as long as its packs" },
    pretokenize = { type = "boolean", no_effect = "rows are tokenised before the first step" },
    inject_fake_images = { type = "boolean", no_effect = "rows without images need none" },
    attn_implementation = { type = "string", no_effect = "attention knows the samples of a row" },
})

local Packs = {}
Packs.__index = Packs

Packs.has_pictures = true

--- Tokens in a pack by a section: packed_sequence_size, or pack_size; 0: no packing.
function M.size(opts)
    local size = opts.packed_sequence_size or 0
    return size > 0 and size or opts.pack_size or 0
end

--- A dataset of packs of a prepared dataset (prepared.lua). opts: the keys of `fields`, and padding_id, which stands
--- for padding_idx where that is absent.
function M.pack_dataset(prepared, opts)
    if opts.split_across_pack or (opts.cp_size or 1) > 1 then
        err.raise("usage", "packed_sequence.%s: samples with images are not split",
            opts.split_across_pack and "split_across_pack" or "cp_size")
    end
    local inner = { packed_sequence_size = M.size(opts), packing_strategy = opts.packing_strategy,
                    max_packs = opts.max_packs, drop_long_samples = opts.drop_long_samples,
                    padding_idx = opts.padding_idx, padding_id = opts.padding_id }
    return setmetatable({ packs = packed.pack_dataset(prepared, inner), prepared = prepared,
                          size = inner.packed_sequence_size,
                          padding = inner.padding_idx or inner.padding_id or 0 }, Packs)
end

function Packs:len() return self.packs:len() end
function Packs:length() return self.size end
function Packs:name(i) return self.packs:name(i) end
function Packs:stats() return self.packs:stats() end

-- Samples one behind the other, filled up with padding.
local function joined(self, samples, name)
    local row = { input_ids = {}, labels = {}, position_ids = {}, seq_lens = {}, samples = samples, name = name }
    for _, key in ipairs(TYPES) do
        row[key] = samples[1][key] and {} -- a processor gives them to all rows, or to none
    end
    local fill = 0
    for s, sample in ipairs(samples) do
        for k, id in ipairs(sample.input_ids) do
            row.input_ids[fill + k], row.labels[fill + k], row.position_ids[fill + k] = id, sample.labels[k], k - 1
        end
        for _, key in ipairs(TYPES) do
            for k, x in ipairs(row[key] and sample[key] or {}) do
                row[key][fill + k] = x
            end
        end
        row.seq_lens[s] = #sample.input_ids
        fill = fill + row.seq_lens[s]
    end
    for k = fill + 1, self.size do
        row.input_ids[k], row.labels[k], row.position_ids[k] = self.padding, utils.IGNORE, 0
    end
    function row.join(kept)
        return joined(self, kept, name)
    end
    return row
end

--- Pack i (from 1): a token row with seq_lens; samples, the rows in it; and join(samples) -> the pack of these.
--- { left_out = why, name } where none of them can be read any more.
function Packs:get(i)
    local samples, why = {}, nil
    for _, r in ipairs(self.packs:members(i)) do
        local sample = self.prepared:get(r)
        why = why or sample.left_out
        samples[#samples + 1] = not sample.left_out and sample or nil
    end
    return #samples > 0 and joined(self, samples, self:name(i)) or { left_out = why, name = self:name(i) }
end

return M
