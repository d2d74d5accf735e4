-- Rows to a batch: flat int32 arrays that become tensors by one copy each.
-- Holds no tensors and no device.
--
-- A batch is { B, T, input_ids, labels, position_ids: int32_t[B*T], bounds: int32_t[B*T*2],
--              samples (how many bounds are of), num_label_tokens, num_tokens }.
-- Row b's token t is at index b*T + t (from 0).
-- bounds[2*(b*T + t)] and the entry behind it are the first key that position t of row b may see and
-- the one behind the last, before the causal mask narrows them: the sample's own range. Padding sees
-- nothing (an empty range), so a row's values do not depend on what it is padded or packed with.
-- A batch of sequence_classification_collater has labels of its own: see there.
-- num_tokens counts tokens without the labels' trailing run of IGNORE, as tokens per second does.

local ffi = require("ffi")
local err = require("am.core.error")
local utils = require("am.datasets.utils")

local M = {}

--- What a `collate_fn` section may hold.
M.fields = {
    pad_token_id = { type = "integer", min = 0, default = 0, doc = "input id of padding" },
    pad_seq_len_divisible = { type = "integer", min = 1, doc = "round the batch's length up to a multiple" },
}

-- The samples of a row: array of lengths, where the first begins (padding on the left), and an array of how
-- far from one to the next when that is not their lengths. A mask may number the samples of a pack (1, 1, 2, …).
local function samples_of(row, n)
    if row.seq_lens then
        return row.seq_lens, 0, row.seq_lens_padded
    end
    local mask = row.attention_mask
    if not mask then
        return { n }, 0
    end
    local first, last = 1, n
    while first <= n and mask[first] == 0 do
        first = first + 1
    end
    while last >= first and mask[last] == 0 do
        last = last - 1
    end
    local lengths, number = { first <= last and 0 or nil }, 1
    for i = first, last do
        if mask[i] == number + 1 and i > first then
            number, lengths[#lengths + 1] = number + 1, 0
        elseif mask[i] ~= number then
            err.raise("data", "attention_mask: 1s, or the numbers of samples from 1 on, with 0s at either end are "
                .. "supported, not %s at position %d", tostring(mask[i]), i - 1)
        end
        lengths[#lengths] = lengths[#lengths] + 1
    end
    return lengths, first - 1
end

local function check_row(row)
    local n = type(row.input_ids) == "table" and #row.input_ids
    if not n or n == 0 or type(row.labels) ~= "table" then
        err.raise("data", "a row needs input_ids and labels, arrays of at least one token")
    end
    for _, key in ipairs { "labels", "position_ids", "attention_mask" } do
        if row[key] and #row[key] ~= n then
            err.raise("data", "%s has %d entries, input_ids %d", key, #row[key], n)
        end
    end
    utils.fold_loss_mask(row)
    return n
end

-- Write row b; T - n positions behind it become padding.
local function fill_row(batch, b, row, n, pad_token_id)
    local T = batch.T
    local base = b * T
    local ids, labels, positions, bounds = batch.input_ids, batch.labels, batch.position_ids, batch.bounds
    for t = 0, T - 1 do
        if t < n then
            ids[base + t] = row.input_ids[t + 1]
            labels[base + t] = row.labels[t + 1]
            positions[base + t] = row.position_ids and row.position_ids[t + 1] or 0
        else
            ids[base + t] = pad_token_id
            labels[base + t] = utils.IGNORE
        end
    end
    local lengths, start, steps = samples_of(row, n)
    for i, length in ipairs(lengths) do
        if length < 0 or start + length > n or (steps and (steps[i] or 0) < length) then
            err.raise("data", "seq_lens add up to more than the row's %d tokens", n)
        end
        batch.samples = batch.samples + (length > 0 and 1 or 0)
        for t = start, start + length - 1 do
            bounds[2 * (base + t)], bounds[2 * (base + t) + 1] = start, start + length
            if not row.position_ids then
                positions[base + t] = t - start
            end
        end
        start = start + (steps and steps[i] or length)
    end
end

local function count(batch)
    local learnt, tokens = 0, 0
    for b = 0, batch.B - 1 do
        local last = 0
        for t = 0, batch.T - 1 do
            if batch.labels[b * batch.T + t] ~= utils.IGNORE then
                learnt, last = learnt + 1, t + 1
            end
        end
        tokens = tokens + last
    end
    batch.num_label_tokens, batch.num_tokens = learnt, tokens
end

-- The input id of padding: what the data says (the original's ___PAD_TOKEN_IDS___), or the options.
local function padding_id(rows, opts)
    local ids = rows[1] and rows[1].___PAD_TOKEN_IDS___
    return type(ids) == "table" and ids.input_ids or opts.pad_token_id or 0
end

--- A batch of an array of rows (see utils.lua), padded on the right to the longest, then to a
--- multiple of opts.pad_seq_len_divisible. opts.pad_token_id: default 0; a ___PAD_TOKEN_IDS___ = { input_ids =
--- id } of the first row counts more.
function M.default_collater(rows, opts)
    opts = opts or {}
    local lengths, T = {}, 1
    for b, row in ipairs(rows) do
        lengths[b] = check_row(row)
        T = math.max(T, lengths[b])
    end
    local multiple = opts.pad_seq_len_divisible or 1
    T = math.ceil(T / multiple) * multiple
    local B = #rows
    local batch = {
        B = B, T = T, samples = 0, input_ids = ffi.new("int32_t[?]", B * T), labels = ffi.new("int32_t[?]", B * T),
        position_ids = ffi.new("int32_t[?]", B * T), bounds = ffi.new("int32_t[?]", 2 * B * T),
    }
    for b, row in ipairs(rows) do
        fill_row(batch, b - 1, row, lengths[b], padding_id(rows, opts))
    end
    count(batch)
    return batch
end

-- The class of a row, from 0: a whole number, or a list with one.
local function class_of(row, b, num_labels)
    local class = row.labels
    if type(class) == "table" and #class == 1 then
        class = class[1]
    end
    if type(class) ~= "number" or class % 1 ~= 0 or class < 0 or class >= (num_labels or 2 ^ 31) then
        err.raise("data", "row %d of the batch: labels must be one class, a whole number from 0%s, not %s", b,
            num_labels and " to " .. num_labels - 1 or "", type(class) == "table" and "a list" or tostring(class))
    end
    return class
end

--- A batch of rows { input_ids, labels = class }, otherwise as default_collater makes it, with
---   labels            int32_t[B], the class of each row
---   last_tokens       int32_t[B], where in the flat batch (b * T + t) the last token of each row is, from whose
---                     state a causal model classifies
---   num_label_tokens  B
--- opts.num_labels: refuse classes from here on.
function M.sequence_classification_collater(rows, opts)
    opts = opts or {}
    local plain, classes, last = {}, ffi.new("int32_t[?]", #rows), ffi.new("int32_t[?]", #rows)
    for b, row in ipairs(rows) do
        classes[b - 1] = class_of(row, b, opts.num_labels)
        local labels = {}
        for k = 1, type(row.input_ids) == "table" and #row.input_ids or 0 do
            labels[k] = row.input_ids[k]
        end
        plain[b] = setmetatable({ labels = labels }, { __index = row })
    end
    local batch = M.default_collater(plain, opts)
    for b = 0, batch.B - 1 do
        local t = batch.T - 1
        while t > 0 and batch.bounds[2 * (b * batch.T + t) + 1] == 0 do
            t = t - 1
        end
        last[b] = b * batch.T + t
    end
    batch.labels, batch.last_tokens, batch.num_label_tokens = classes, last, batch.B
    return batch
end

local class_fields = { num_labels = { type = "integer", min = 1, doc = "refuse classes from here on" } }
for key, field in pairs(M.fields) do
    class_fields[key] = field
end

--- What a configuration may name with `_target_`. The original has a collater for each way of packing and
--- torch's; here one does for all.
M.targets = {
    {
        name = "am.datasets.default_collater",
        aliases = {
            "nemo_automodel.components.datasets.utils.default_collater",
            "nemo_automodel.components.datasets.utils.packed_sequence_thd_collater",
            "nemo_automodel.components.datasets.utils.neat_packed_collater",
            "torch.utils.data.default_collate",
        },
        doc = "rows to a batch padded to the longest",
        fields = M.fields,
        call = M.default_collater,
    },
    {
        name = "am.datasets.sequence_classification_collater",
        doc = "rows with one class each to a batch",
        fields = class_fields,
        call = M.sequence_classification_collater,
    },
}

return M
