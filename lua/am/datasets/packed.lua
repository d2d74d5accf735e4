-- Packing: several samples in one row of fixed length, each kept from seeing the others.
-- Holds no attention: rows carry seq_lens, from which collate.lua makes the bounds.
--
-- Greedy, in the order of the dataset: a pack is closed when the next sample does not fit. Positions
-- restart at 0 in each sample. What is left of a pack is padding: label IGNORE, positions counting on
-- up to packed_sequence_size - 1, and no entry in seq_lens.
-- With split_across_pack a sample that does not fit is cut: its head fills the pack and its tail
-- begins the next one, where its positions count on (modulo the pack's length) but its head is not seen.
--
-- Only where each pack begins is kept: the row, and the token in it. A pack is put together when it is read.

local ffi = require("ffi")
local err = require("am.core.error")
local token_rows = require("am.datasets.token_rows")
local utils = require("am.datasets.utils")

local M = {}

--- What the `packed_sequence` section of a configuration may hold.
M.fields = {
    packed_sequence_size = { type = "integer", min = 0, default = 0, doc = "tokens in a pack; 0: no packing" },
    split_across_pack = { type = "boolean", default = false, doc = "cut samples that do not fit" },
    max_packs = { type = "integer", min = 1, doc = "stop after so many packs" },
    drop_long_samples = { type = "boolean", default = true, doc = "leave out samples longer than a pack" },
}

local Packed = {}
Packed.__index = Packed

-- The pieces of samples in the pack that begins with token t of row r, in order, as visit(row, first,
-- last, its input_ids, its labels). Returns where the next pack begins, or nil at the end of the rows.
-- A sample that is longer than a pack is passed over, after long(row, its length), unless it may be cut.
local function each_piece(self, r, t, visit, long)
    local room = self.size
    while r <= self.num_rows do
        local ids, labels, n = self.rows:sample(r)
        local fits = n - t + 1 <= room
        if n > self.size and not self.split then
            long(r, n)
        elseif fits or (self.split and room > 0) then
            local last = fits and n or t + room - 1
            if last >= t then
                visit(r, t, last, ids, labels)
            end
            room = room - (last - t + 1)
            if not fits then
                return r, last + 1
            end
        else
            return r, t
        end
        r, t = r + 1, 1
    end
end

local function nothing() end

-- Note where a pack begins, and count what is in it. Returns where the next one begins.
local function add_pack(self, r, t, long)
    if self.count == self.capacity then
        local starts = ffi.new("int32_t[?]", 4 * self.capacity)
        ffi.copy(starts, self.starts, 8 * self.count)
        self.capacity, self.starts = 2 * self.capacity, starts
    end
    local tokens, learnt, longest, samples = 0, 0, 0, 0
    local next_r, next_t = each_piece(self, r, t, function(_, first, last, _, labels)
        for k = first - 1, last - 1 do
            learnt = learnt + (labels[k] ~= utils.IGNORE and 1 or 0)
        end
        tokens, longest, samples = tokens + last - first + 1, math.max(longest, last - first + 1), samples + 1
    end, long)
    if tokens > 0 then
        self.starts[2 * self.count], self.starts[2 * self.count + 1] = r, t
        self.count = self.count + 1
        utils.add_counts(self.counts, tokens, learnt, longest, self:name(self.count))
        if next_t and next_t > 1 then -- a sample is counted where it ends
            samples = samples - 1
        end
        self.counts.samples = self.counts.samples + samples
    end
    return next_r, next_t
end

--- A dataset of packs of the rows of `dataset` (len, get; name and stats if it has them). opts: the
--- keys of `fields` and padding_id (default 0). Reads all of `dataset`. stats() counts as skipped the
--- samples that are longer than a pack, and has `samples`, the number of those packed.
function M.pack_dataset(dataset, opts)
    local size = opts.packed_sequence_size
    if type(size) ~= "number" or size % 1 ~= 0 or size < 1 or size > 2 ^ 24 then
        err.raise("usage", "packed_sequence.packed_sequence_size must be a whole number from 1 to 2^24, not %s",
            tostring(size))
    end
    local self = setmetatable({
        rows = dataset.sample and dataset or token_rows.copy(dataset), num_rows = dataset:len(),
        size = size, split = opts.split_across_pack or false, padding_id = opts.padding_id or 0,
        count = 0, capacity = 16, starts = ffi.new("int32_t[?]", 32), counts = utils.new_stats(),
    }, Packed)
    self.counts.samples = 0
    local function long(r, n)
        local name = utils.row_name(dataset, r)
        if opts.drop_long_samples == false then
            err.raise("data", "%s: %d tokens, more than a pack of %d. Raise packed_sequence.packed_sequence_size, "
                .. "or set split_across_pack or drop_long_samples", name, n, size)
        end
        utils.skip(self.counts, name, n .. " tokens, more than a pack")
    end
    local r, t = 1, 1
    while r and self.count < (opts.max_packs or math.huge) do
        r, t = add_pack(self, r, t, long)
    end
    if self.count == 0 then
        err.raise("data", "packing: all %d samples are longer than packed_sequence.packed_sequence_size (%d) or "
            .. "empty", dataset:len(), size)
    end
    return self
end

function Packed:len()
    return self.count
end

--- Pack i (from 1): { input_ids, labels, position_ids [packed_sequence_size], seq_lens }.
function Packed:get(i)
    local size, fill = self.size, 0
    local row = { input_ids = {}, labels = {}, position_ids = {}, seq_lens = {} }
    local r, t = self.starts[2 * i - 2], self.starts[2 * i - 1]
    each_piece(self, r, t, function(_, first, last, ids, labels)
        for k = first - 1, last - 1 do
            fill = fill + 1
            row.input_ids[fill], row.labels[fill], row.position_ids[fill] = ids[k], labels[k], k % size
        end
        row.seq_lens[#row.seq_lens + 1] = last - first + 1
    end, nothing)
    local last_position = row.position_ids[fill]
    for k = fill + 1, size do
        row.input_ids[k], row.labels[k] = self.padding_id, utils.IGNORE
        row.position_ids[k] = math.min(size - 1, last_position + k - fill)
    end
    return row
end

--- Tokens of a pack, its padding included.
function Packed:length()
    return self.size
end

function Packed.name(_, i)
    return "pack " .. i
end

function Packed:stats()
    return self.counts
end

return M
