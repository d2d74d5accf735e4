-- NanogptDataset: .bin shards of token ids, read one after the other without end. Holds no tokenizer;
-- token_writers.lua writes such shards.
--
-- A shard is 256 int32 (magic, version 1, number of tokens, bytes of a token), then its tokens. Two
-- magics are known: 278895051 of nanogpt_data_processor.py, whose tokens have 2 or 4 bytes, and 20240520
-- of modded-nanogpt's fineweb.py, whose tokens have 2. A row is seq_len tokens, its labels those one
-- further on; the next row begins behind these seq_len + 1, with align_to_bos at the next bos_token. Rows
-- do not reach over the end of a shard.
--
-- The original's rule for several processes: each reads every n-th file; a single file is cut into equal
-- parts; where files are fewer than processes, those without one read all. (The original also cuts files
-- where there are as many as processes, and then skips most of them; here each is read whole.) Its .bos.idx
-- files are not read: its own tool writes bytes there where its reader expects tokens.

local ffi = require("ffi")
local edge = require("am.core.ffi")
local err = require("am.core.error")
local glob = require("am.utils.glob")
local mt19937 = require("am.datasets.mt19937")
local number_file = require("am.datasets.number_file")

local M = {}

--- What the `dataset` section may hold for this dataset.
M.fields = {
    file_pattern = { type = "string|list", required = true, doc = "pattern of the shards' names, or a list of names" },
    seq_len = { type = "integer", min = 1, max = 2 ^ 24, required = true, doc = "tokens in a row" },
    bos_token = { type = "integer", min = 0, null = true, doc = "id that begins a document, for align_to_bos" },
    shuffle_files = { type = "boolean", default = false, doc = "a new order of the shards in every pass" },
    align_to_bos = { type = "boolean", default = false, doc = "rows begin with bos_token" },
    vocab_size = { type = "integer", min = 1, doc = "refuse ids from here on (the model's)" },
    dp_rank = { type = "integer", min = 0, default = 0, doc = "given by the recipe: number of this process" },
    dp_world_size = { type = "integer", min = 1, default = 1, doc = "given by the recipe: processes that share it" },
}

local HEADER = 1024
local MAGIC, LEGACY_MAGIC, VERSION = 278895051, 20240520, 1
local SHUFFLE_SEED = 12345 -- of the original's first worker
local SCAN = 65536 -- tokens that a search for bos_token reads at a time

M.MAGIC, M.VERSION, M.HEADER = MAGIC, VERSION, HEADER

-- ---------------------------------------------------------------- shards

local header = ffi.new("int32_t[4]")
local readers = { [2] = number_file.reader("uint16_t"), [4] = number_file.reader("uint32_t") }

--- Open a shard: a number_file with `tokens` and `width` (bytes of a token).
function M.open_shard(name)
    local file = number_file.open(name)
    local function refuse(what, ...)
        file:close()
        err.raise("data", "%s: " .. what .. "; is it a nanogpt .bin shard?", name, ...)
    end
    if file.size < HEADER then
        refuse("%.0f bytes, less than a header has", file.size)
    end
    file:fill(header, 0, 16)
    local magic, version, tokens, width = header[0], header[1], header[2], header[3]
    if magic ~= MAGIC and magic ~= LEGACY_MAGIC then
        refuse("begins with the number %d, not with %d or %d", magic, MAGIC, LEGACY_MAGIC)
    elseif version ~= VERSION then
        refuse("version %d, only %d is known", version, VERSION)
    end
    width = magic == LEGACY_MAGIC and 2 or width
    if width ~= 2 and width ~= 4 then
        refuse("tokens of %d bytes, not 2 or 4", width)
    elseif tokens < 0 or HEADER + tokens * width > file.size then
        refuse("%d tokens of %d bytes do not fit into its %.0f bytes (cut off?)", tokens, width, file.size)
    end
    file.tokens, file.width = tokens, width
    return file
end

local function read(shard, first, count)
    return readers[shard.width]:read(shard, HEADER + first * shard.width, count)
end

-- The first place from `at` on, and before `stop`, that holds bos_token; `stop` when there is none.
local function find_bos(shard, bos_token, at, stop)
    while at < stop do
        local n = math.min(SCAN, stop - at)
        local ids = read(shard, at, n)
        for k = 0, n - 1 do
            if ids[k] == bos_token then
                return at + k
            end
        end
        at = at + n
        edge.check(edge.C.am_signals_check())
    end
    return stop
end

-- ---------------------------------------------------------------- reading rows

local Iterator = {}
Iterator.__index = Iterator

-- The shards of this process in the order of a pass, counted from 0.
local function files_of_pass(dataset, pass)
    local files = { unpack(dataset.own_files) }
    if dataset.shuffle_files then
        local generator = mt19937.python(SHUFFLE_SEED)
        for _ = 0, pass do
            generator:shuffle_list(files)
        end
    end
    return files
end

local function close(self)
    if self.shard then
        self.shard:close()
        self.shard = nil
    end
end

-- Begin pass `pass` at shard number `file` (from 1).
local function begin(self, pass, file, position)
    close(self)
    if pass ~= self.pass then
        self.pass, self.files = pass, files_of_pass(self.dataset, pass)
    end
    self.file, self.position = file, position
end

-- The shard being read, opened when it is not.
local function current(self)
    if not self.shard then
        self.shard = M.open_shard(self.files[self.file])
        local first, stop = 0, self.shard.tokens
        if self.dataset.part then
            local count, part = self.dataset.dp_world_size, self.dataset.part
            local each = math.floor(stop / count)
            first, stop = part * each, part == count - 1 and stop or (part + 1) * each
        end
        self.position, self.stop = self.position or first, stop
    end
    return self.shard
end

-- Go to the next shard; false at the end of a pass when only one is wanted.
local function next_shard(self)
    if self.file < #self.files then
        begin(self, self.pass, self.file + 1)
        return true
    elseif not self.found then
        err.raise("data", "%s: no shard has a row of %d tokens and one more%s", self.dataset.files[1],
            self.dataset.seq_len, self.dataset.align_to_bos and " behind a bos_token" or "")
    elseif self.once then
        self.ended = true
        return false
    end
    begin(self, self.pass + 1, 1)
    return true
end

local function to_row(self, shard, first)
    local n, limit = self.dataset.seq_len, self.dataset.vocab_size
    local ids, input_ids, labels = read(shard, first, n + 1), {}, {}
    for k = 0, n do
        if ids[k] >= limit then
            err.raise("data", "%s: token %.0f is %.0f, but ids end at %.0f; is it of another tokenizer?", shard.name,
                first + k, ids[k], limit - 1)
        end
    end
    for k = 1, n do
        input_ids[k], labels[k] = ids[k - 1], ids[k]
    end
    return { input_ids = input_ids, labels = labels, name = string.format("%s token %.0f", shard.name, first) }
end

--- The next row, with its `name`; nil only after the one pass that was asked for.
function Iterator:next()
    while not self.ended do
        local shard, dataset = current(self), self.dataset
        if dataset.align_to_bos then
            self.position = find_bos(shard, dataset.bos_token, self.position, self.stop)
        end
        if self.position + dataset.seq_len < self.stop then
            local row = to_row(self, shard, self.position)
            self.position, self.found = self.position + dataset.seq_len + 1, true
            return row
        elseif not next_shard(self) then
            close(self)
        end
    end
end

--- { pass, file, position, tokens }: passes done, number of the shard in this one, where in it the next row
--- is looked for, and how many tokens it has.
function Iterator:state_dict()
    local shard = not self.ended and current(self)
    return { pass = self.pass, file = self.file, position = self.position, tokens = shard and shard.tokens or nil,
             ended = self.ended or nil }
end

local function is_count(x)
    return type(x) == "number" and x % 1 == 0 and x >= 0 and x < 2 ^ 53
end

--- Go on from there. The shards must be those of then.
function Iterator:load_state_dict(state)
    if not (is_count(state.pass) and state.pass < 1000000 and is_count(state.file) and state.file >= 1
        and is_count(state.position)) then
        err.raise("format", "state of NanogptDataset: pass, file and position must be whole numbers")
    elseif state.file > #self.dataset.own_files then
        err.raise("state", "the checkpoint was made at shard %d, but file_pattern has %d: restore the data, or start "
            .. "in another checkpoint_dir", state.file, #self.dataset.own_files)
    end
    begin(self, state.pass, state.file, state.position)
    self.ended, self.found = state.ended == true, true
    if not self.ended and (current(self).tokens ~= state.tokens or state.position > self.shard.tokens) then
        err.raise("state", "%s has %.0f tokens, but had others when the checkpoint was made: restore the data, or "
            .. "start in another checkpoint_dir", self.shard.name, self.shard.tokens)
    end
end

-- ---------------------------------------------------------------- the dataset

local NanogptDataset = { is_iterable = true }
NanogptDataset.__index = NanogptDataset

--- A reader of the rows from the first on; opts.once: stop after one pass over the shards.
function NanogptDataset:iter(opts)
    local iterator = setmetatable({ dataset = self, once = opts and opts.once or false, ended = false }, Iterator)
    begin(iterator, 0, 1)
    return iterator
end

-- What the process of that number reads: the names of its shards, and which part of its only one.
local function share(files, rank, count)
    if #files == 1 and count > 1 then
        return files, rank
    end
    local own = {}
    for i = rank + 1, #files, count do
        own[#own + 1] = files[i]
    end
    return #own > 0 and own or files, nil
end

local function find_files(pattern)
    if type(pattern) == "string" then
        local found = glob.files(pattern)
        return #found > 0 and found
            or err.raise("data", "dataset.file_pattern: no file is called \"%s\"", pattern)
    end
    for i, name in ipairs(pattern) do
        if type(name) ~= "string" then
            err.raise("usage", "dataset.file_pattern: entry %d is no file name", i)
        end
    end
    return #pattern > 0 and pattern or err.raise("usage", "dataset.file_pattern is empty")
end

--- A dataset that is read in order and has no length; opts: the keys of `fields`. Headers of all shards are
--- read and checked.
function M.NanogptDataset(opts)
    if opts.align_to_bos and not opts.bos_token then
        err.raise("usage", "dataset.align_to_bos needs bos_token, the id that begins a document")
    end
    local rank, count = opts.dp_rank or 0, opts.dp_world_size or 1
    local files = find_files(opts.file_pattern)
    for _, name in ipairs(files) do
        M.open_shard(name):close()
    end
    local own, part = share(files, rank, count)
    return setmetatable({
        files = files, own_files = own, part = part, dp_world_size = count, seq_len = opts.seq_len,
        bos_token = opts.bos_token, shuffle_files = opts.shuffle_files or false,
        align_to_bos = opts.align_to_bos or false, vocab_size = math.min(opts.vocab_size or 2 ^ 31, 2 ^ 31),
    }, NanogptDataset)
end

--- What a configuration may name with `_target_`.
M.targets = { {
    name = "am.datasets.NanogptDataset",
    aliases = {
        "nemo_automodel.components.datasets.llm.nanogpt_dataset.NanogptDataset",
        "nemo_automodel.components.datasets.llm.nanogpt_dataset.NanogptDatasetConfig",
    },
    doc = "token shards (.bin) of nanogpt, read in order without end",
    fields = M.fields,
    build = M.NanogptDataset,
} }

return M
