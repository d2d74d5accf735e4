-- The file run-<id>.wandb: a log of records in LevelDB's format behind a header of W&B's, which `wandb sync`
-- reads and sends.
-- Holds no records (wandb_records.lua) and reads none.
--
--   local store = wandb_store.open("…/run-abcd1234.wandb")      store:write(bytes)   store.size   store:close()
--   wandb_store.open(name, { size = 4096 })                      go on behind that many bytes; what follows goes
--
-- A record is cut so that no piece crosses a block of 32 kB; a piece has a CRC-32 (zlib's, over its kind and
-- its bytes), a length and a kind: 1 all of a record, 2 its beginning, 3 its middle, 4 its end. A record is
-- one write: a killed run tears at most the last one. After a failed write the next one first cuts the file
-- back to what was whole.

local bit = require("bit")
local crc = require("am.loggers.crc")
local err = require("am.core.error")
local pb = require("am.loggers.protobuf")
local posix = require("am.utils.posix")

local M = {}

local BLOCK, HEAD = 32768, 7
local FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
M.HEADER = ":W&B\225\190\0" -- the mark, 0xBEE1, version 0

local function uint16(n)
    return string.char(bit.band(n, 255), bit.rshift(n, 8))
end

local function piece(kind, data)
    local typed = string.char(kind) .. data
    return pb.fixed32(crc.crc32(typed)) .. uint16(#data) .. typed
end

--- What is written for a record when the file has `size` bytes.
function M.frame(record, size)
    local parts, room = {}, BLOCK - size % BLOCK
    if room < HEAD then
        parts[1] = ("\0"):rep(room)
        room = BLOCK
    end
    local at = 1
    repeat
        local data = record:sub(at, at + room - HEAD - 1)
        local first, last = at == 1, at + #data > #record
        at = at + #data
        parts[#parts + 1] = piece(first and last and FULL or first and FIRST or last and LAST or MIDDLE, data)
        room = BLOCK
    until last
    return table.concat(parts)
end

local Store = {}
Store.__index = Store

local function fail(self, msg)
    err.raise("io", "cannot write %s: %s", self.name, msg)
end

local function reopen(self)
    local ok, msg = posix.truncate(self.name, self.size)
    if not ok then
        fail(self, msg)
    end
    self.file, msg = posix.open(self.name, "append")
    if not self.file then
        fail(self, msg)
    end
end

-- True when a file can be gone on with behind `size` bytes.
local function holds(name, size)
    local file = posix.open(name, "read")
    local head = file and posix.read(file, #M.HEADER)
    local st = posix.stat(name)
    return head == M.HEADER and st ~= nil and st.size >= size and size >= #M.HEADER
end

--- Open a file: a new one, or with opts.size the one that is there, if it is such a file and long enough.
--- `store.resumed` says which.
function M.open(name, opts)
    local self = setmetatable({ name = name, size = opts and opts.size or 0 }, Store)
    self.resumed = self.size > 0 and holds(name, self.size)
    if self.resumed then
        reopen(self)
        return self
    end
    self.size = 0
    local file, msg = posix.open(name, "create")
    if not file then
        err.raise("io", "cannot write %s", msg)
    end
    self.file = file
    self:append(M.HEADER)
    return self
end

-- Bytes as they are.
function Store:append(bytes)
    if not self.file then
        reopen(self)
    end
    local ok, msg = posix.write(self.file, bytes)
    if not ok then
        posix.close(self.file)
        self.file = nil
        fail(self, msg)
    end
    self.size = self.size + #bytes
end

--- Add a record: a protocol buffer message.
function Store:write(record)
    self:append(M.frame(record, self.size))
end

--- Wait until what was written is on the disk.
function Store:flush()
    local ok, msg = true, nil
    if self.file then
        ok, msg = posix.fsync(self.file)
    end
    if not ok then
        fail(self, msg)
    end
end

function Store:close()
    if self.file then
        posix.close(self.file)
        self.file = nil
    end
end

return M
