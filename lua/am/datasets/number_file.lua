-- Files of numbers that are read where they are wanted: token shards and their indices. Holds no format.
--
-- They are read, not mapped: a file that becomes shorter meanwhile is then an error and not the end of the
-- process, and a read of a row's tokens takes some microseconds.

local ffi = require("ffi")
local err = require("am.core.error")
local posix = require("am.utils.posix")

local M = {}

local NumberFile = {}
NumberFile.__index = NumberFile

--- Open a regular file: { name, size in bytes }.
function M.open(name)
    local st, msg = posix.stat(name)
    if not st then
        err.raise("data", "%s", msg)
    elseif st.type ~= "file" then
        err.raise("data", "%s: is no file", name)
    end
    local file
    file, msg = posix.open(name, "read")
    if not file then
        err.raise("io", "cannot read %s", msg)
    end
    return setmetatable({ name = name, size = st.size, mtime = st.mtime, file = file }, NumberFile)
end

--- Read `bytes` from `offset` on into a C array. What is asked for must lie within `size`.
function NumberFile:fill(array, offset, bytes)
    local n, msg = posix.read_into(self.file, array, offset, bytes)
    if not n then
        err.raise("io", "%s: cannot be read (%s)", self.name, msg)
    elseif n < bytes then
        err.raise("io", "%s: became shorter while it was used", self.name)
    end
    return array
end

function NumberFile:close()
    posix.close(self.file)
end

local Reader = {}
Reader.__index = Reader

--- Reads numbers of a C type into an array that is used again: reader:read(file, offset, count).
function M.reader(ctype)
    return setmetatable({ array_type = ffi.typeof(ctype .. "[?]"), bytes = ffi.sizeof(ctype),
                          capacity = 0 }, Reader)
end

--- `count` numbers from byte `offset` of a file on, as a C array that is good until the next call.
function Reader:read(file, offset, count)
    if count > self.capacity then
        self.capacity = math.max(count, 1024)
        self.array = self.array_type(self.capacity)
    end
    return file:fill(self.array, offset, count * self.bytes)
end

return M
