-- IndexedDataset: Megatron's pair of files, .bin with token ids and .idx which says where its sequences are.
-- Holds no samples and no order (gpt_dataset.lua); token_writers.lua writes such files.
--
-- .idx: "MMIDIDX\0\0", uint64 version 1, uint8 dtype of the tokens, uint64 number n of sequences, uint64
-- number d of documents, int32[n] lengths in tokens, int64[n] places in .bin in bytes, int64[d] the first
-- sequence of each document and, last, n. Whatever follows (modes of images) is left alone.

local ffi = require("ffi")
local err = require("am.core.error")
local number_file = require("am.datasets.number_file")

local M = {}

M.MAGIC, M.HEADER = "MMIDIDX\0\0", 34
--- Codes of dtypes that tokens may have.
M.codes = { "uint8_t", "int8_t", "int16_t", "int32_t", "int64_t", [8] = "uint16_t" }

local MAX_SEQUENCES = 2 ^ 31 - 1
local PIECE = 65536 -- numbers that are checked at a time

local IndexedDataset = {}
IndexedDataset.__index = IndexedDataset

local counts = ffi.new("uint64_t[2]")
local places = number_file.reader("int64_t")

--- A prefix without .bin or .idx.
function M.prefix(name)
    return (name:gsub("%.bin$", ""):gsub("%.idx$", ""))
end

-- The dtype's code and the numbers of sequences and documents, all of which fit into the file.
local function read_header(idx, refuse)
    if idx.size < M.HEADER then
        refuse("%.0f bytes, less than a header has", idx.size)
    end
    local head = ffi.string(idx:fill(ffi.new("char[?]", M.HEADER), 0, M.HEADER), M.HEADER)
    if head:sub(1, 9) ~= M.MAGIC then
        refuse("does not begin with MMIDIDX")
    elseif head:sub(10, 17) ~= "\1\0\0\0\0\0\0\0" then
        refuse("its version is not 1")
    end
    local code = head:byte(18)
    if not M.codes[code] then
        refuse("dtype code %d is none that tokens have (1 to 5 and 8)", code)
    end
    ffi.copy(counts, head:sub(19, 34), 16)
    local n, d = tonumber(counts[0]), tonumber(counts[1])
    if n > MAX_SEQUENCES or d > idx.size or M.HEADER + 12 * n + 8 * d > idx.size then
        refuse("%.0f sequences and %.0f documents do not fit into its %.0f bytes (cut off?)", n, d, idx.size)
    elseif d == 0 then
        refuse("it names no document")
    end
    return code, n, d
end

-- Every sequence lies within .bin.
local function check_sequences(self, refuse)
    for first = 0, self.count - 1, PIECE do
        local n = math.min(PIECE, self.count - first)
        local at = places:read(self.idx, self.places_at + 8 * first, n)
        for k = 0, n - 1 do
            local length, place = self.lengths[first + k], tonumber(at[k])
            if length < 0 or place < 0 or place + length * self.width > self.bin.size then
                refuse("sequence %d of %d tokens at byte %.0f does not lie within %s, which has %.0f bytes",
                    first + k, length, place, self.bin.name, self.bin.size)
            end
        end
    end
end

--- Open PREFIX.idx and PREFIX.bin: an object with `count` sequences and their `lengths`, an int32_t[count].
function M.open(prefix)
    prefix = M.prefix(prefix)
    local idx = number_file.open(prefix .. ".idx")
    local bin = number_file.open(prefix .. ".bin")
    local function refuse(what, ...)
        idx:close()
        bin:close()
        err.raise("data", "%s: " .. what .. "; is it an index of Megatron's?", idx.name, ...)
    end
    local code, n, d = read_header(idx, refuse)
    local self = setmetatable({
        prefix = prefix, idx = idx, bin = bin, count = n, ctype = M.codes[code], width = ffi.sizeof(M.codes[code]),
        lengths = idx:fill(ffi.new("int32_t[?]", n), M.HEADER, 4 * n), places_at = M.HEADER + 4 * n,
        tokens = number_file.reader(M.codes[code]),
    }, IndexedDataset)
    check_sequences(self, refuse)
    local last = tonumber(places:read(idx, self.places_at + 8 * n + 8 * (d - 1), 1)[0])
    if last ~= n then
        refuse("its documents end at sequence %.0f, but there are %.0f", last, n)
    end
    return self
end

--- `count` tokens of sequence i (from 0) from token `offset` on, as a C array that is good until the next
--- call. Raises "data" where they are not within the sequence.
function IndexedDataset:get(i, offset, count)
    if i < 0 or i >= self.count or offset < 0 or count < 0 or offset + count > self.lengths[i] then
        err.raise("data", "%s: %d tokens from token %d of sequence %d on were asked for, which are not there",
            self.idx.name, count, offset, i)
    end
    local place = tonumber(places:read(self.idx, self.places_at + 8 * i, 1)[0]) + offset * self.width
    if place < 0 or place + count * self.width > self.bin.size then
        err.raise("io", "%s: changed while it was used", self.idx.name)
    end
    return self.tokens:read(self.bin, place, count)
end

function IndexedDataset:close()
    self.idx:close()
    self.bin:close()
end

return M
