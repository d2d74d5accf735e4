-- Packing: several samples in one row of fixed length, each kept from seeing the others.
-- Holds no attention: rows carry seq_lens, from which collate.lua makes the bounds.
--
-- Greedy, in the order of the dataset: a pack is closed when the next sample does not fit. Positions
-- restart at 0 in each sample. What is left of a pack is padding: label IGNORE, positions counting on
-- up to packed_sequence_size - 1, and no entry in seq_lens.
-- With split_across_pack a sample that does not fit is cut: its head fills the pack and its tail
-- begins the next one, where its positions count on (modulo the pack's length) but its head is not seen.

local ffi = require("ffi")
local err = require("am.core.error")
local utils = require("am.datasets.utils")

local M = {}

--- What the `packed_sequence` section of a configuration may hold.
M.fields = {
    packed_sequence_size = { type = "integer", min = 0, default = 0, doc = "tokens in a pack; 0: no packing" },
    split_across_pack = { type = "boolean", default = false, doc = "cut samples that do not fit" },
    max_packs = { type = "integer", min = 1, doc = "stop after so many packs" },
    drop_long_samples = { type = "boolean", default = true, doc = "leave out samples longer than a pack" },
}

-- The tokens of all packs, growing: ids, labels and positions behind one another, 12 bytes a token.
local function new_store(size)
    return { size = size, capacity = 16, count = 0, data = ffi.new("int32_t[?]", 48 * size), seq_lens = {} }
end

local function open_pack(store)
    if store.count == store.capacity then
        local data = ffi.new("int32_t[?]", 6 * store.size * store.capacity)
        ffi.copy(data, store.data, 12 * store.size * store.count)
        store.capacity, store.data = 2 * store.capacity, data
    end
    store.count = store.count + 1
    store.seq_lens[store.count] = {}
    store.fill = 0
end

-- Tokens first..last of a row into the open pack.
local function append(store, row, first, last)
    local size = store.size
    local base = 3 * size * (store.count - 1) + store.fill
    for i = first, last do
        local at = base + i - first
        store.data[at] = row.input_ids[i]
        store.data[at + size] = row.labels[i]
        store.data[at + 2 * size] = (i - 1) % size
    end
    local lens = store.seq_lens[store.count]
    lens[#lens + 1] = last - first + 1
    store.fill = store.fill + last - first + 1
end

local function pad_pack(store, padding_id)
    local size = store.size
    local base = 3 * size * (store.count - 1)
    local last_position = store.data[base + 2 * size + store.fill - 1]
    for i = store.fill, size - 1 do
        store.data[base + i] = padding_id
        store.data[base + size + i] = utils.IGNORE
        store.data[base + 2 * size + i] = math.min(size - 1, last_position + 1 + i - store.fill)
    end
end

-- Length without padding at the end.
local function real_length(row)
    local n = #row.input_ids
    while row.attention_mask and n > 0 and row.attention_mask[n] == 0 do
        n = n - 1
    end
    return n
end

local Packed = {}
Packed.__index = Packed

--- A dataset of packs of the rows of `dataset` (len, get; name and stats if it has them). opts: the
--- keys of `fields` and padding_id (default 0). Reads all of `dataset`. stats() counts as skipped the
--- samples that are longer than a pack, and has `samples`, the number of those packed.
function M.pack_dataset(dataset, opts)
    local size = opts.packed_sequence_size
    if type(size) ~= "number" or size % 1 ~= 0 or size < 1 or size > 2 ^ 24 then
        err.raise("usage", "packed_sequence.packed_sequence_size must be a whole number from 1 to 2^24, not %s",
            tostring(size))
    end
    local store, stats = new_store(size), utils.new_stats()
    local max_packs = opts.max_packs or math.huge
    local padding_id = opts.padding_id or 0
    local samples = 0

    -- False once max_packs are closed.
    local function next_pack()
        if store.count > 0 then
            pad_pack(store, padding_id)
        end
        if store.count >= max_packs then
            return false
        end
        open_pack(store)
        return true
    end

    local function place(row, n)
        local first = 1
        while first <= n do
            local room = store.count > 0 and size - store.fill or 0
            local part = math.min(room, n - first + 1)
            if room == 0 or (part < n - first + 1 and not opts.split_across_pack) then
                if not next_pack() then
                    return false
                end
            else
                append(store, row, first, first + part - 1)
                first = first + part
            end
        end
        return true
    end

    for i = 1, dataset:len() do
        local row = dataset:get(i)
        local n = real_length(row)
        local name = utils.row_name(dataset, i)
        if n > size and not opts.split_across_pack then
            if opts.drop_long_samples == false then
                err.raise("data", "%s: %d tokens, more than a pack of %d. Raise packed_sequence.packed_sequence_size, "
                    .. "or set split_across_pack or drop_long_samples", name, n, size)
            end
            utils.skip(stats, name, n .. " tokens, more than a pack")
        elseif n > 0 then
            if not place(row, n) then
                break
            end
            samples = samples + 1
        end
    end
    if store.count == 0 then
        err.raise("data", "packing: all %d samples are longer than packed_sequence.packed_sequence_size (%d) or "
            .. "empty", dataset:len(), size)
    end
    pad_pack(store, padding_id)

    local self = setmetatable({ store = store, counts = stats }, Packed)
    stats.samples = samples
    for i = 1, store.count do
        utils.add_to_stats(stats, self:get(i), "pack " .. i)
    end
    return self
end

function Packed:len()
    return self.store.count
end

--- Pack i (from 1): { input_ids, labels, position_ids [packed_sequence_size], seq_lens }.
function Packed:get(i)
    local store = self.store
    local size = store.size
    local base = 3 * size * (i - 1)
    local row = { input_ids = {}, labels = {}, position_ids = {}, seq_lens = store.seq_lens[i] }
    for k = 1, size do
        row.input_ids[k] = store.data[base + k - 1]
        row.labels[k] = store.data[base + size + k - 1]
        row.position_ids[k] = store.data[base + 2 * size + k - 1]
    end
    return row
end

function Packed.name(_, i)
    return "pack " .. i
end

function Packed:stats()
    return self.counts
end

return M
