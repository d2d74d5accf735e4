-- Compressed files of rows, decompressed once. Holds no formats.
--
-- A compressed file cannot be read from its middle, and rows are read in any order, by several processes:
-- so it becomes a file without a name, in TMPDIR or else /var/tmp, that is gone with the last process that
-- has it open. (An index of its blocks would save the disk's space, but gzip's has 32 KB for each, and
-- every jump would decompress a block again.) The engine says what is refused: am_file_decompress in am.h.

local ffi = require("ffi")
local edge = require("am.core.ffi")
local err = require("am.core.error")
local path = require("am.utils.path")
local posix = require("am.utils.posix")

local C = edge.C
local M = {}

--- True for the first bytes of a file that is read here: gzip or zstd, whatever the file is called.
function M.is(head)
    return C.am_compression(head, #head) ~= C.AM_COMPRESSION_NONE
end

local fd = ffi.new("int[1]")

--- An open file (see posix.lua) with what the file of that name holds. Raises "format" when the data is
--- damaged, cut off or would grow beyond measure.
function M.open(name)
    local e
    for _, folder in ipairs(path.temporary_folders()) do
        local rc = C.am_file_decompress(fd, name, path.join(folder, "rows"))
        if rc == C.AM_OK then
            return posix.adopt(fd[0])
        end
        e = edge.error(rc)
        if rc ~= C.AM_EIO then
            error(e, 0)
        end
    end
    error(err.within(e, "decompressing " .. name .. "; TMPDIR names another folder for what it holds"), 0)
end

return M
