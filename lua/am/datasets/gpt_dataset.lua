-- GPTDataset: rows of seq_length tokens out of the documents of an IndexedDataset, in the order of
-- Megatron's and the original's class of this name. Holds no blends (blended_dataset.lua).
--
-- Documents are shuffled and put one behind the other, as many epochs of them as num_samples needs. Row k of
-- that line is its tokens k * seq_length to (k + 1) * seq_length, one more than a row has: labels are shifted
-- by one. Then rows are shuffled. When of the last epoch less than 80 % are wanted, it is shuffled apart from
-- those before, so that none of its documents takes the place of one of theirs. Random numbers are NumPy's.

local ffi = require("ffi")
local edge = require("am.core.ffi")
local err = require("am.core.error")
local index_cache = require("am.datasets.index_cache")
local mt19937 = require("am.datasets.mt19937")
local utils = require("am.datasets.utils")

local M = {}

local LIMIT = 2 ^ 31 - 1 -- of documents over all epochs, and of rows

-- ---------------------------------------------------------------- the three indices

-- Documents first … stop - 1, `epochs` times over, into array[from …]; shuffled. Returns where it ends.
local function add_documents(array, from, first, stop, epochs, generator)
    local n, at = epochs * (stop - first), from
    for _ = 1, epochs do
        for document = first, stop - 1 do
            array[at] = document
            at = at + 1
        end
    end
    generator:shuffle(array + from, n)
    return at
end

-- Of each row and of the end, the place in `documents` and the token in that document where it begins.
local function sample_index(lengths, documents, num_documents, seq_length, count)
    local index = ffi.new("int32_t[?]", 2 * (count + 1))
    local at, offset = 0, 0
    for k = 1, count do
        local remaining = seq_length + 1
        while remaining > 0 do
            local length = lengths[documents[at]] - offset
            remaining = remaining - length
            if remaining <= 0 then
                offset = offset + remaining + length - 1
            elseif at == num_documents - 1 then
                offset = lengths[documents[at]] - 1
                break
            else
                at, offset = at + 1, 0
            end
        end
        index[2 * k], index[2 * k + 1] = at, offset
        if k % 1048576 == 0 then
            edge.check(edge.C.am_signals_check())
        end
    end
    return index
end

-- 0 … total-1, the first `apart` of them shuffled among themselves and then the rest.
local function shuffle_index(apart, total, generator)
    local index = ffi.new("int32_t[?]", total)
    for k = 0, total - 1 do
        index[k] = k
    end
    generator:shuffle(index, apart)
    generator:shuffle(index + apart, total - apart)
    return index
end

-- How many epochs the rows take, how many rows there are then, and how many of them are shuffled apart
-- (nil: all together).
local function plan(self)
    local tokens, seq_length, wanted = self.tokens_per_epoch, self.seq_length, self.num_samples
    local epochs = wanted and math.max(1, math.ceil((wanted * seq_length + 1) / tokens)) or 1
    local rows = math.floor((epochs * tokens - 1) / seq_length)
    if epochs == 1 then
        return 1, rows, nil
    end
    local before = math.floor(((epochs - 1) * tokens - 1) / seq_length)
    local rows_per_epoch = math.floor((tokens - 1) / seq_length)
    local apart = wanted - before < math.floor(0.80 * rows_per_epoch)
    return epochs, rows, apart and before or nil
end

local function build(self)
    local generator = mt19937.numpy(self.seed)
    local per_epoch = self.stop - self.first
    local n = self.epochs * per_epoch
    local documents = ffi.new("int32_t[?]", n)
    if self.apart then
        local at = add_documents(documents, 0, self.first, self.stop, self.epochs - 1, generator)
        add_documents(documents, at, self.first, self.stop, 1, generator)
    else
        add_documents(documents, 0, self.first, self.stop, self.epochs, generator)
    end
    local samples = sample_index(self.indexed.lengths, documents, n, self.seq_length, self.rows)
    local order = shuffle_index(self.apart or self.rows, self.rows, generator)
    return { documents = documents, samples = samples, order = order }
end

-- ---------------------------------------------------------------- the dataset

local GPTDataset = { has_order = true }
GPTDataset.__index = GPTDataset

local function check_sizes(self)
    local where = string.format("%s, split %s", self.indexed.prefix, self.split)
    if self.tokens_per_epoch <= self.seq_length then
        err.raise("data", "%s: %.0f tokens in %d documents are less than a row of seq_length %d and one more", where,
            self.tokens_per_epoch, self.stop - self.first, self.seq_length)
    elseif self.epochs * (self.stop - self.first) > LIMIT or self.rows > LIMIT then
        err.raise("usage", "%s: %.0f epochs of %d documents are more than an index holds; ask for fewer samples",
            where, self.epochs, self.stop - self.first)
    end
end

--- opts: indexed (an IndexedDataset), first, stop (its documents first … stop - 1, from 0), split (its name),
--- num_samples (nil: one epoch), seq_length, seed, pad_token_id, eos_token_id (nil where there is none),
--- vocab_size, cache_dir; reset_position_ids (positions restart behind each eos), reset_attention_mask (what
--- is before it is not seen), eod_mask_loss (what follows an eos is not learnt).
function M.new(opts)
    local self = setmetatable({}, GPTDataset)
    for key, value in pairs(opts) do
        self[key] = value
    end
    self.tokens_per_epoch = 0
    for i = self.first, self.stop - 1 do
        self.tokens_per_epoch = self.tokens_per_epoch + self.indexed.lengths[i]
    end
    if self.tokens_per_epoch > self.seq_length then
        self.epochs, self.rows, self.apart = plan(self)
    end
    check_sizes(self)
    self.num_documents = self.epochs * (self.stop - self.first)
    self.index = index_cache.get(self, function() return build(self) end)
    self.count = math.min(self.num_samples or self.rows, self.rows)
    return self
end

function GPTDataset:len()
    return self.count
end

--- Tokens of a row.
function GPTDataset:length()
    return self.seq_length
end

function GPTDataset:name(i)
    return string.format("%s sample %d", self.indexed.prefix, self.index.order[i - 1])
end

--- Counts by formula: each token is taken for learnt.
function GPTDataset:stats()
    local stats = utils.new_stats()
    stats.rows, stats.tokens = self.count, self.count * self.seq_length
    stats.label_tokens, stats.longest = stats.tokens, { length = self.seq_length, name = self.indexed.prefix }
    return stats
end

local function index_is_damaged(self, what)
    err.raise("format", "%s: the index of %s is damaged; remove it from index_mapping_dir", self.indexed.prefix, what)
end

-- Tokens of sample k (from 0), seq_length and one, as a Lua array. The index may come from a file, so what it
-- says is checked before it is used.
local function tokens_of(self, k)
    local documents, samples, text = self.index.documents, self.index.samples, {}
    local at, offset, last, last_offset = samples[2 * k], samples[2 * k + 1], samples[2 * k + 2], samples[2 * k + 3]
    if at < 0 or last < at or last >= self.num_documents then
        index_is_damaged(self, "samples")
    end
    for place = at, last do
        local document = documents[place]
        if document < 0 or document >= self.indexed.count then
            index_is_damaged(self, "documents")
        end
        local stop = place == last and last_offset + 1 or self.indexed.lengths[document]
        local ids = self.indexed:get(document, offset, stop - offset)
        for t = 0, stop - offset - 1 do
            local id = tonumber(ids[t])
            if id < 0 or id >= self.vocab_size then
                err.raise("data", "%s: token %d of sequence %d is %.0f, but ids are 0 to %.0f; is it of another "
                    .. "tokenizer?", self.indexed.bin.name, offset + t, document, id, self.vocab_size - 1)
            end
            text[#text + 1] = id
        end
        offset = 0
        if #text > self.seq_length + 1 then
            break
        end
    end
    if #text ~= self.seq_length + 1 then
        index_is_damaged(self, "samples")
    end
    return text
end

-- Which of text[first … last] is padding: pad_token_id, or where that is the eos too, what follows the first
-- eos of those at the end. Returns is_padding(k).
local function padding_of(self, text, first, last)
    local pad = self.pad_token_id
    if not pad or pad ~= self.eos_token_id then
        return function(k) return text[k] == pad end
    end
    local content = last
    while content >= first and text[content] == pad do
        content = content - 1
    end
    return function(k) return k > content + 1 end
end

-- Positions and boundaries by the eos of a row, where they are asked for.
local function add_boundaries(self, row, eos)
    local position_ids, seq_lens, start = {}, {}, 1
    for k = 1, #row.input_ids do
        position_ids[k] = k - (self.reset_position_ids and start or 1)
        if eos[k] or k == #row.input_ids then
            seq_lens[#seq_lens + 1], start = k + 1 - start, k + 1
        end
    end
    row.position_ids = position_ids
    row.seq_lens = self.reset_attention_mask and seq_lens or nil
end

--- Row i (from 1): { input_ids, labels } of seq_length, with position_ids and seq_lens where documents are
--- kept apart.
function GPTDataset:get(i)
    local k = self.index.order[i - 1]
    if k < 0 or k >= self.rows then
        index_is_damaged(self, "the order")
    end
    local n, text = self.seq_length, tokens_of(self, k)
    local is_padding, label_is_padding = padding_of(self, text, 1, n), padding_of(self, text, 2, n + 1)
    local row, eos = { input_ids = {}, labels = {} }, {}
    for t = 1, n do
        eos[t] = text[t] == self.eos_token_id
        row.input_ids[t] = is_padding(t) and 0 or text[t]
        local learnt = not label_is_padding(t + 1) and not (self.eod_mask_loss and eos[t])
        row.labels[t] = learnt and text[t + 1] or utils.IGNORE
    end
    if self.reset_position_ids or self.reset_attention_mask then
        add_boundaries(self, row, eos)
    end
    return row
end

return M
