-- The tensor files of one save: written as they come, or from copies in memory by a thread beside the run. Knows
-- which they are, how large, and what their digests are, for the manifest.

local digest = require("am.utils.digest")
local io_core = require("am.core.io")
local path = require("am.utils.path")

local M = {}

---@class am.checkpoint.Saving
---@field writers { rank: integer, count: integer, number: integer, total: integer } this rank among those that share
---  tensors (from 0), and its file's number (from 1) among all
---@field later boolean is it written beside the run?
local Saving = {}
Saving.__index = Saving

--- One writer, alone.
M.ALONE = { rank = 0, count = 1, number = 1, total = 1 }

--- folder: what the manifest's names begin in; writers: M.ALONE by default; later: beside the run.
---@return am.checkpoint.Saving
function M.new(folder, writers, later)
    return setmetatable({ folder = folder, writers = writers or M.ALONE, later = later or false, open_files = {},
                          files = {} }, Saving)
end

--- Open a file (am.core.io's parts, its opts but for `later`). One that several processes write has no digest.
function Saving:open(file, specs, opts)
    opts.later = self.later
    opts.digest = opts.digest or self.writers.total == 1
    local parts = io_core.parts(file, specs, opts)
    self.open_files[parts] = opts.digest
    return parts
end

--- A tensor as it is now: itself, or a copy that training does not change.
function Saving:kept(t)
    if not self.later then
        return t
    end
    local copy = t:device() == "cpu" and t:clone() or t:to("cpu")
    return copy:contiguous()
end

-- Note what was written.
local function note(self, parts)
    local with_digest = self.open_files[parts]
    local bytes = parts:finish(with_digest)
    self.files[#self.files + 1] = { name = path.relative(parts.path, self.folder), bytes = parts:size(),
                                    blake2b = bytes and digest.hex(bytes, #bytes) or nil }
    parts:close()
    self.open_files[parts] = nil
end

--- All of this process's rows are put into a file.
function Saving:close_file(parts)
    if self.later then
        self.waiting = self.waiting or {}
        table.insert(self.waiting, parts)
    else
        note(self, parts)
    end
end

--- Everything is put: the thread begins.
function Saving:begin()
    if self.later then
        self.writing = io_core.write_beside(self.waiting or {})
    end
end

--- Would wait return at once?
function Saving:done()
    return not self.writing or self.writing:done()
end

--- Wait until all is written. Raises the error of a file that could not be; so does each call after it.
function Saving:wait()
    local writing = self.writing
    if writing then
        self.writing = nil
        local ok, e = pcall(writing.wait, writing)
        writing:close()
        self.failed = not ok and e or nil
        for _, parts in ipairs(ok and self.waiting or {}) do
            note(self, parts)
        end
        self.waiting = nil
    end
    if self.failed then
        error(self.failed, 0)
    end
end

--- Let go of everything, after waiting for a thread that writes.
function Saving:close()
    if self.writing then
        self.writing:close()
        self.writing = nil
    end
    for parts in pairs(self.open_files) do
        parts:close()
    end
    self.open_files, self.waiting = {}, nil
end

return M
