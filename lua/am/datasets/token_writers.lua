-- Writers of the files that MegatronPretraining and NanogptDataset read. They take tokens as they come and need
-- four bytes of memory a sequence. Holds no tokenizer.
--
-- A writer has append(ids, n), a C array of ids; end_sequence(); end_document(); finish(), which gives the files
-- their names; and discard(). Until then they have others, so that half a file is never taken for a whole.

local ffi = require("ffi")
local err = require("am.core.error")
local path = require("am.utils.path")
local posix = require("am.utils.posix")
local indexed_dataset = require("am.datasets.indexed_dataset")
local nanogpt_dataset = require("am.datasets.nanogpt_dataset")

local M = {}

local BUFFER = 262144 -- numbers that are gathered before they are written

-- ---------------------------------------------------------------- numbers to a file

local Out = {}
Out.__index = Out

local function fail(self, msg)
    err.raise("io", "cannot write %s: %s", self.name, msg)
end

-- A file of numbers of a C type, that will be called `name`.
local function create(name, ctype)
    path.mkdir_p(path.dirname(name))
    local self = setmetatable({ name = name, tmp = path.unique(name), width = ffi.sizeof(ctype), used = 0,
                                buffer = ffi.new(ctype .. "[?]", BUFFER) }, Out)
    local msg
    self.file, msg = posix.open(self.tmp, "create")
    return self.file and self or fail(self, msg)
end

local function flush(self)
    local ok, msg = posix.write(self.file, self.buffer, self.used * self.width)
    self.used = 0
    return ok or fail(self, msg)
end

local function put(self, x)
    if self.used == BUFFER then
        flush(self)
    end
    self.buffer[self.used] = x
    self.used = self.used + 1
end

local function write_at(self, offset, text)
    flush(self)
    local ok, msg = posix.write_at(self.file, offset, text)
    return ok or fail(self, msg)
end

local function close(self)
    flush(self)
    for _, step in ipairs { posix.fsync, posix.close } do
        local ok, msg = step(self.file)
        if not ok then
            fail(self, msg)
        end
    end
    self.closed = true
end

local function discard(self)
    if not self.closed then
        posix.close(self.file)
    end
    posix.unlink(self.tmp)
end

local function check_ids(self, ids, n, limit)
    for k = 0, n - 1 do
        if ids[k] < 0 or ids[k] >= limit then
            err.raise("data", "%s: id %d does not fit; the vocabulary has %d", self.name, ids[k], limit)
        end
    end
end

local function little_endian(ctype, ...)
    local values = { ... }
    return ffi.string(ffi.new(ctype .. "[?]", #values, values), #values * ffi.sizeof(ctype))
end

-- ---------------------------------------------------------------- Megatron

local Megatron = {}
Megatron.__index = Megatron

-- A list of numbers that grows.
local function grow(list, ctype, x)
    if list.count == list.capacity then
        list.capacity = math.max(1024, 2 * list.capacity)
        local array = ffi.new(ctype .. "[?]", list.capacity)
        if list.array then
            ffi.copy(array, list.array, list.count * ffi.sizeof(ctype))
        end
        list.array = array
    end
    list.array[list.count] = x
    list.count = list.count + 1
end

--- A writer of PREFIX.bin and PREFIX.idx. Tokens have two bytes where the vocabulary has less than 65500, as the
--- original's, else four.
function M.megatron(prefix, vocab_size)
    local code = vocab_size < 65500 and 8 or 4
    return setmetatable({ code = code, bin = create(prefix .. ".bin", indexed_dataset.codes[code]),
                          idx_name = prefix .. ".idx", vocab_size = vocab_size, length = 0, tokens = 0,
                          lengths = { count = 0, capacity = 0 }, documents = { count = 0, capacity = 0 } }, Megatron)
end

function Megatron:append(ids, n)
    check_ids(self.bin, ids, n, self.vocab_size)
    if self.length + n > 2 ^ 31 - 1 then
        err.raise("data", "%s: a document of more than 2^31 tokens", self.bin.name)
    end
    for k = 0, n - 1 do
        put(self.bin, ids[k])
    end
    self.length, self.tokens = self.length + n, self.tokens + n
end

--- The sequence ends; without tokens there is none.
function Megatron:end_sequence()
    if self.length > 0 then
        grow(self.lengths, "int32_t", self.length)
        self.length = 0
    end
end

--- The document ends; without sequences there is none.
function Megatron:end_document()
    self:end_sequence()
    local documents = self.documents
    if self.lengths.count > (documents.count > 0 and documents.array[documents.count - 1] or 0) then
        grow(documents, "int32_t", self.lengths.count)
    end
end

local function write_index(self, width)
    local n, d = self.lengths.count, self.documents.count
    local idx = create(self.idx_name, "int64_t")
    self.idx = idx
    local ok, msg = posix.write(idx.file, indexed_dataset.MAGIC .. little_endian("uint64_t", 1)
                                .. string.char(self.code) .. little_endian("uint64_t", n, d + 1))
    ok = ok and posix.write(idx.file, self.lengths.array, 4 * n)
    if not ok then
        fail(idx, msg or "the disk is full")
    end
    local place = 0
    for k = 0, n - 1 do
        put(idx, place)
        place = place + self.lengths.array[k] * width
    end
    put(idx, 0)
    for k = 0, d - 1 do
        put(idx, self.documents.array[k])
    end
    close(idx)
end

--- Write the index. Returns the numbers of documents and tokens.
function Megatron:finish()
    self:end_document()
    if self.tokens == 0 then
        err.raise("data", "%s: there is no text", self.bin.name)
    end
    close(self.bin)
    write_index(self, self.bin.width)
    path.rename(self.bin.tmp, self.bin.name)
    path.rename(self.idx.tmp, self.idx.name)
    self.finished = true
    return self.documents.count, self.tokens
end

--- Remove what is not finished.
function Megatron:discard()
    for _, out in ipairs { not self.finished and self.bin or nil, not self.finished and self.idx or nil } do
        discard(out)
    end
end

-- ---------------------------------------------------------------- nanogpt

local Nanogpt = {}
Nanogpt.__index = Nanogpt

local function next_shard(self)
    local name = string.format("%s_%06d.bin", self.prefix, self.shards)
    self.bin = create(name, self.vocab_size < 65536 and "uint16_t" or "uint32_t")
    self.begins = create((name:gsub("%.bin$", ".bos.idx")), "int32_t")
    self.shards, self.shard_tokens = self.shards + 1, 0
    for _ = 1, nanogpt_dataset.HEADER / self.bin.width do
        put(self.bin, 0)
    end
end

local function finish_shard(self)
    write_at(self.bin, 0, little_endian("int32_t", nanogpt_dataset.MAGIC, nanogpt_dataset.VERSION, self.shard_tokens,
                                        self.bin.width))
    for _, out in ipairs { self.bin, self.begins } do
        close(out)
        path.rename(out.tmp, out.name)
    end
    self.bin, self.begins = nil, nil
end

--- A writer of shards PREFIX_000000.bin, … of shard_tokens tokens, a document going on in the next where it does
--- not fit. Beside each, .bos.idx: in which tokens of it documents begin.
function M.nanogpt(prefix, vocab_size, shard_tokens, bos_token_id)
    return setmetatable({ prefix = prefix, vocab_size = vocab_size, limit = shard_tokens, bos = bos_token_id,
                          shards = 0, tokens = 0, documents = 0 }, Nanogpt)
end

function Nanogpt:append(ids, n)
    for k = 0, n - 1 do
        if not self.bin then
            next_shard(self)
        end
        if ids[k] < 0 or ids[k] >= self.vocab_size then
            check_ids(self.bin, ids, n, self.vocab_size)
        end
        if ids[k] == self.bos then
            put(self.begins, self.shard_tokens)
        end
        put(self.bin, ids[k])
        self.shard_tokens = self.shard_tokens + 1
        if self.shard_tokens == self.limit then
            finish_shard(self)
        end
    end
    self.tokens = self.tokens + n
end

function Nanogpt.end_sequence() end

function Nanogpt:end_document()
    self.documents = self.documents + 1
end

--- Returns the numbers of documents, tokens and shards.
function Nanogpt:finish()
    if self.tokens == 0 then
        err.raise("data", "%s: there is no text", self.prefix)
    elseif self.bin then
        finish_shard(self)
    end
    return self.documents, self.tokens, self.shards
end

function Nanogpt:discard()
    for _, out in ipairs { self.bin, self.begins } do
        discard(out)
    end
end

return M
