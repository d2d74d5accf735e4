-- Packing: several samples in one row of fixed length, each kept from seeing the others.
-- Holds no attention: rows carry seq_lens, from which collate.lua makes the bounds.
--
-- packing_strategy thd is greedy, in the order of the dataset: a pack is closed when the next sample does not
-- fit. neat puts long samples first and fills the emptiest pack: see neat_packing.lua. Positions restart at 0
-- in each sample. What is left of a pack is padding: label IGNORE, no entry in seq_lens, and positions that
-- count on up to packed_sequence_size - 1 (neat: 0).
-- With split_across_pack a sample that does not fit is cut: its head fills the pack and its tail
-- begins the next one, where its positions count on (modulo the pack's length) but its head is not seen.
-- With cp_size above 1 each sample is padded to a multiple of 2 * cp_size, and seq_lens_padded says so.
--
-- Only where each pack begins is kept: the row, and the token in it; neat: which row follows which. A pack is
-- put together when it is read.

local ffi = require("ffi")
local err = require("am.core.error")
local neat_packing = require("am.datasets.neat_packing")
local token_rows = require("am.datasets.token_rows")
local utils = require("am.datasets.utils")

local M = {}

--- What the `packed_sequence` section of a configuration may hold.
M.fields = {
    packed_sequence_size = { type = "integer", min = 0, max = 2 ^ 24, default = 0,
                             doc = "tokens in a pack; 0: no packing" },
    packing_strategy = { type = "string", enum = { "thd", "neat" }, default = "thd",
                         doc = "thd: samples in their order; neat: so that they fill packs best" },
    split_across_pack = { type = "boolean", default = false, doc = "cut samples that do not fit (thd)" },
    max_packs = { type = "integer", min = 1, null = true, doc = "stop after so many packs" },
    drop_long_samples = { type = "boolean", default = true, doc = "leave out samples longer than a pack" },
    prepacked = { type = "boolean", default = false, doc = "rows are packs already (they have seq_lens)" },
    padding_idx = { type = "integer", min = 0, doc = "input id of padding (the model's)" },
    cp_size = { type = "integer", min = 1, max = 65536, default = 1,
                doc = "pad each sample to a multiple of twice as many tokens (thd)" },
    num_proc = { type = "integer", min = 1, no_effect = "rows are tokenised by a process for each thread" },
}

local Packed = {}
Packed.__index = Packed

-- Tokens of a sample with the padding behind it.
local function padded(self, n)
    return math.ceil(n / self.unit) * self.unit
end

-- The pieces of samples in the pack that begins with token t of row r, in order, as visit(row, first,
-- last, its input_ids, its labels). Returns where the next pack begins, or nil at the end of the rows.
-- A sample that is longer than a pack is passed over, after long(row, its length), unless it may be cut.
local function each_piece(self, r, t, visit, long)
    local room = self.size
    while r <= self.num_rows do
        local ids, labels, n = self.rows:sample(r)
        local fits = padded(self, n - t + 1) <= room
        if n > self.size and not self.split then
            long(r, n)
        elseif fits or (self.split and room > 0) then
            local last = fits and n or t + room - 1
            if last >= t then
                visit(r, t, last, ids, labels)
            end
            room = room - padded(self, last - t + 1)
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

-- The same for the samples of pack b (from 0) of the neat strategy.
local function each_in_bin(self, b, visit)
    local r = self.bins.first[b]
    while r ~= 0 do
        local ids, labels, n = self.rows:sample(r)
        visit(r, 1, n, ids, labels)
        r = self.bins.next[r]
    end
end

-- Counts over the pieces of a pack, as a visitor and its result.
local function counter()
    local c = { tokens = 0, learnt = 0, longest = 0, samples = 0 }
    return c, function(_, first, last, _, labels)
        for k = first - 1, last - 1 do
            c.learnt = c.learnt + (labels[k] ~= utils.IGNORE and 1 or 0)
        end
        c.tokens, c.longest = c.tokens + last - first + 1, math.max(c.longest, last - first + 1)
        c.samples = c.samples + 1
    end
end

-- Count pack i. It is a row, also when all of its labels went to its neighbours' pieces.
local function count_pack(self, c, i)
    if c.learnt == 0 then
        self.counts.rows, self.counts.tokens = self.counts.rows + 1, self.counts.tokens + c.tokens
    else
        utils.add_counts(self.counts, c.tokens, c.learnt, c.longest, self:name(i))
    end
end

-- Note where a pack begins, and count what is in it. Returns where the next one begins.
local function add_pack(self, r, t, long)
    if self.count == self.capacity then
        local starts = ffi.new("int32_t[?]", 4 * self.capacity)
        ffi.copy(starts, self.starts, 8 * self.count)
        self.capacity, self.starts = 2 * self.capacity, starts
    end
    local c, visit = counter()
    local next_r, next_t = each_piece(self, r, t, visit, long)
    if c.tokens > 0 then
        self.starts[2 * self.count], self.starts[2 * self.count + 1] = r, t
        self.count = self.count + 1
        count_pack(self, c, self.count)
        -- a sample is counted where it ends
        self.counts.samples = self.counts.samples + c.samples - (next_t and next_t > 1 and 1 or 0)
    end
    return next_r, next_t
end

local function pack_greedily(self, max_packs, long)
    local r, t = 1, 1
    while r and self.count < max_packs do
        r, t = add_pack(self, r, t, long)
    end
end

local function pack_neatly(self, max_packs, long)
    local n = self.num_rows
    local lengths = ffi.new("int32_t[?]", n)
    for r = 1, n do
        local _, _, length = self.rows:sample(r)
        lengths[r - 1] = length
        if length > self.size then
            long(r, length)
        end
    end
    self.bins = neat_packing.choose(lengths, n, self.size)
    self.count = math.min(self.bins.count, max_packs)
    for b = 0, self.count - 1 do
        local c, visit = counter()
        each_in_bin(self, b, visit)
        count_pack(self, c, b + 1)
        self.counts.samples = self.counts.samples + c.samples
    end
end

local function check(dataset, opts)
    local size, cp_size, neat = opts.packed_sequence_size, opts.cp_size or 1, opts.packing_strategy == "neat"
    if type(size) ~= "number" or size % 1 ~= 0 or size < 1 or size > 2 ^ 24 then
        err.raise("usage", "packed_sequence.packed_sequence_size must be a whole number from 1 to 2^24, not %s",
            tostring(size))
    elseif opts.packing_strategy and not neat and opts.packing_strategy ~= "thd" then
        err.raise("usage", "packed_sequence.packing_strategy is thd or neat, not %s", tostring(opts.packing_strategy))
    elseif opts.split_across_pack and (neat or cp_size > 1) then
        err.raise("usage", "packed_sequence.split_across_pack goes neither with packing_strategy neat nor with cp_size")
    elseif cp_size > 1 and not neat and size % (2 * cp_size) ~= 0 then
        err.raise("usage", "packed_sequence.packed_sequence_size (%d) must be a multiple of twice cp_size (%d)", size,
            cp_size)
    elseif dataset.is_iterable then
        err.raise("usage", "packed_sequence needs a dataset that knows its length, and this one is a stream, whose "
            .. "rows are full already; leave packed_sequence out")
    end
end

--- A dataset of packs of the rows of `dataset` (len, get; name and stats if it has them). opts: the
--- keys of `fields`; padding_id stands for padding_idx where that is absent (default 0). Reads all of `dataset`.
--- stats() counts as skipped the samples that are longer than a pack, and has `samples`, the number of those
--- packed. With `prepacked` it is `dataset` itself.
function M.pack_dataset(dataset, opts)
    if opts.prepacked then
        return dataset
    end
    check(dataset, opts)
    if not dataset.sample and dataset:len() > 0 and (dataset:get(1) or {}).seq_lens then
        err.raise("usage", "packed_sequence: %s is a pack of several samples already; set prepacked: true, or leave "
            .. "packed_sequence out", utils.row_name(dataset, 1))
    end
    local size, neat = opts.packed_sequence_size, opts.packing_strategy == "neat"
    local self = setmetatable({
        rows = dataset.sample and dataset or token_rows.copy(dataset), num_rows = dataset:len(),
        size = size, split = opts.split_across_pack or false, padding_id = opts.padding_idx or opts.padding_id or 0,
        unit = not neat and (opts.cp_size or 1) > 1 and 2 * opts.cp_size or 1,
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
    local pack = neat and pack_neatly or pack_greedily
    pack(self, opts.max_packs or math.huge, long)
    if self.count == 0 then
        err.raise("data", "packing: all %d samples are longer than packed_sequence.packed_sequence_size (%d) or "
            .. "empty", dataset:len(), size)
    end
    return self
end

function Packed:len()
    return self.count
end

-- Add a sample's tokens first … last, and the padding behind it.
local function add_piece(self, row, fill, first, last, ids, labels)
    local n, size = last - first + 1, self.size
    for k = 0, padded(self, n) - 1 do
        local at, is_token = fill + k + 1, k < n
        row.input_ids[at] = is_token and ids[first + k - 1] or self.padding_id
        row.labels[at] = is_token and labels[first + k - 1] or utils.IGNORE
        row.position_ids[at] = (first + k - 1) % size
    end
    row.seq_lens[#row.seq_lens + 1] = n
    if row.seq_lens_padded then
        row.seq_lens_padded[#row.seq_lens] = padded(self, n)
    end
    return fill + padded(self, n)
end

-- Visit the pieces of pack i, from 1.
local function each_of_pack(self, i, visit)
    if self.bins then
        each_in_bin(self, i - 1, visit)
    else
        each_piece(self, self.starts[2 * i - 2], self.starts[2 * i - 1], visit, nothing)
    end
end

--- Pack i (from 1): { input_ids, labels, position_ids [packed_sequence_size], seq_lens }, with cp_size also
--- seq_lens_padded, which add up to packed_sequence_size.
function Packed:get(i)
    local size, fill = self.size, 0
    local row = { input_ids = {}, labels = {}, position_ids = {}, seq_lens = {},
                  seq_lens_padded = self.unit > 1 and {} or nil }
    local function visit(_, first, last, ids, labels)
        fill = add_piece(self, row, fill, first, last, ids, labels)
    end
    each_of_pack(self, i, visit)
    local last_position = row.position_ids[fill]
    if row.seq_lens_padded then
        local n = #row.seq_lens_padded
        row.seq_lens_padded[n] = row.seq_lens_padded[n] + size - fill
    end
    for k = fill + 1, size do
        row.input_ids[k], row.labels[k] = self.padding_id, utils.IGNORE
        row.position_ids[k] = self.bins and 0 or math.min(size - 1, last_position + k - fill)
    end
    return row
end

--- The rows whose tokens are in pack i, in order.
function Packed:members(i)
    local out = {}
    local function visit(r)
        out[#out + 1] = r
    end
    each_of_pack(self, i, visit)
    return out
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

--- The dataset itself: the original's PackedSequence packs when this is called.
function Packed:pack()
    return self
end

-- A target whose section has the dataset that is packed.
local function target(name, doc, aliases, defaults)
    local fields = { dataset = { target = true, required = true, given = { "tokenizer" }, doc = "what is packed" },
                     split = { type = "string", no_effect = "the dataset's own section says which rows" } }
    for key, field in pairs(M.fields) do
        fields[key] = field
    end
    fields.packed_sequence_size = { type = "integer", min = 1, max = 2 ^ 24, required = true, doc = "tokens in a pack" }
    fields.packing_strategy, fields.prepacked = nil, nil
    for i, alias in ipairs(aliases) do
        aliases[i] = "nemo_automodel.components.datasets.llm." .. alias
    end
    local function build(args)
        local opts = {}
        for _, source in ipairs { defaults, args } do
            for key, value in pairs(source) do
                opts[key] = value
            end
        end
        return M.pack_dataset(args.dataset, opts)
    end
    return { name = "am.datasets." .. name, aliases = aliases, doc = doc, fields = fields, build = build }
end

--- What a configuration may name with `_target_`.
M.targets = {
    target("PackedSequence", "another dataset, packed in its order", {
        "packed_sequence.PackedSequence", "packed_sequence.pack_dataset" }, { packing_strategy = "thd" }),
    target("neat_pack_dataset", "another dataset, packed as full as it goes", {
        "neat_packing.neat_pack_dataset" }, { packing_strategy = "neat" }),
}

return M
