-- Collate functions: examples of conversations, or the token rows of prepared.lua and packed.lua, to a batch of
-- batches.lua. The original has one for each processor; here the processor itself says what differs, so they are one
-- under several names.

local broken = require("am.datasets.vlm.broken")
local batches = require("am.datasets.vlm.batches")
local samples = require("am.datasets.vlm.samples")

local M = {}

local BY_TEMPLATE = "the chat template says where an answer begins"

--- What a `collate_fn` section may hold.
M.fields = {
    max_length = { type = "integer", min = 1, doc = "tokens of a row; longer ones are cut behind their images" },
    drop_overlong = { type = "boolean", default = false, doc = "leave longer ones out instead" },
    pad_token_id = { type = "integer", min = 0, doc = "input id of padding (the tokenizer's)" },
    pad_seq_len_divisible = { type = "integer", min = 1, doc = "round the batch's length up to a multiple" },
    start_of_response_token = { type = "string", null = true, no_effect = BY_TEMPLATE },
    processor = { type = "any", doc = "given by the recipe" },
}

-- The token row of what a dataset gave, or nil for one that is left out.
local function row_of(example, b, processor, opts)
    local row = example
    if example.left_out then
        return nil
    elseif not example.input_ids then
        example = samples.example(example, example.name or "row " .. b .. " of the batch")
        local why
        row, why = samples.row(example, processor)
        if not row then
            example.broken:found(example.name, broken.reason(why))
            return nil
        end
    end
    if row.samples then
        return row -- of a pack, nothing is cut
    end
    return (samples.cut(row, opts, processor))
end

--- A batch of an array of examples (rows of the datasets here, or { conversation = … }) or of token rows. opts: the
--- keys of `fields`. Padded on the right to the longest.
function M.default_collate_fn(examples, processor, opts)
    opts = opts or {}
    local rows = {}
    for b, example in ipairs(examples) do
        rows[#rows + 1] = row_of(example, b, processor, opts)
    end
    local tokenizer = processor.tokenizer
    return batches.new(rows, processor, {
        pad_token_id = opts.pad_token_id or tokenizer.pad_token_id or tokenizer.eos_token_id or 0,
        pad_seq_len_divisible = opts.pad_seq_len_divisible,
    })
end

--- The same; the original's for Qwen2.5-VL.
M.qwen2_5_collate_fn = M.default_collate_fn

--- Collate functions by the class of the processor.
M.COLLATE_FNS = { Qwen2_5_VLProcessor = M.qwen2_5_collate_fn, default = M.default_collate_fn }

--- The one for a processor, where a configuration names none.
function M.collate_fn_for(processor)
    return M.COLLATE_FNS[processor.class] or M.COLLATE_FNS.default
end

local homes = "nemo_automodel.components.datasets.vlm.collate_fns."

--- What a configuration may name with `_target_`.
M.targets = {
    {
        name = "am.datasets.vlm.default_collate_fn",
        aliases = { homes .. "default_collate_fn", homes .. "pad_collate_fn", homes .. "neat_packed_vlm_collater",
                    homes .. "packed_sequence_thd_vlm_collater", homes .. "llava_onevision_collate_fn" },
        doc = "conversations with images to a batch padded to the longest",
        fields = M.fields,
        call = M.default_collate_fn,
    },
    {
        name = "am.datasets.vlm.qwen2_5_collate_fn",
        aliases = { homes .. "qwen2_5_collate_fn" },
        doc = "the same, for Qwen2-VL and Qwen2.5-VL",
        fields = M.fields,
        call = M.qwen2_5_collate_fn,
    },
}

return M
