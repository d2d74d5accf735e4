-- Rows to a batch: flat int32 arrays that become tensors by one copy each.
-- Holds no tensors and no device.
--
-- A batch is { B, T, input_ids, labels, position_ids: int32_t[B*T], bounds: int32_t[B*T*2],
--              num_label_tokens, num_tokens }. Row b's token t is at index b*T + t (from 0).
-- bounds[2*(b*T + t)] and the entry behind it are the first key that position t of row b may see and
-- the one behind the last, before the causal mask narrows them: the sample's own range. Padding sees
-- nothing (an empty range), so a row's values do not depend on what it is padded or packed with.
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

-- The samples of a row: array of lengths, and where the first begins (padding on the left).
local function samples_of(row, n)
    if row.seq_lens then
        return row.seq_lens, 0
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
    for i = first, last do
        if mask[i] ~= 1 then
            err.raise("data", "attention_mask: 1s with 0s at either end are supported, not %s at position %d",
                tostring(mask[i]), i - 1)
        end
    end
    return { last - first + 1 }, first - 1
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
    local lengths, start = samples_of(row, n)
    for _, length in ipairs(lengths) do
        if start + length > n then
            err.raise("data", "seq_lens add up to more than the row's %d tokens", n)
        end
        for t = start, start + length - 1 do
            bounds[2 * (base + t)], bounds[2 * (base + t) + 1] = start, start + length
            if not row.position_ids then
                positions[base + t] = t - start
            end
        end
        start = start + length
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

--- A batch of an array of rows (see utils.lua), padded on the right to the longest, then to a
--- multiple of opts.pad_seq_len_divisible. opts.pad_token_id: default 0.
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
        B = B, T = T, input_ids = ffi.new("int32_t[?]", B * T), labels = ffi.new("int32_t[?]", B * T),
        position_ids = ffi.new("int32_t[?]", B * T), bounds = ffi.new("int32_t[?]", 2 * B * T),
    }
    for b, row in ipairs(rows) do
        fill_row(batch, b - 1, row, lengths[b], opts.pad_token_id or 0)
    end
    count(batch)
    return batch
end

--- What a configuration may name with `_target_`.
M.targets = { {
    name = "am.datasets.default_collater",
    aliases = { "nemo_automodel.components.datasets.utils.default_collater" },
    doc = "rows to a batch padded to the longest",
    fields = M.fields,
    call = M.default_collater,
} }

return M
