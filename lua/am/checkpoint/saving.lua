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
                          files = {}, waiting = {} }, Saving)
end

-- Run fn(…) unless something has failed. Ranks that make wholes together go on where one of them has no room; wait
-- raises what was first.
local function try(self, fn, ...)
    if not self.failed then
        local ok, result = pcall(fn, ...)
        if ok then
            return result
        end
        self.failed = result
    end
end

---@class am.checkpoint.SavedFile a file of a save: am.core.io's parts, whose errors wait
local File = {}
File.__index = File

--- Rows of a tensor; see am.core.io's parts.
function File:put(name, row, t)
    if self.parts then
        try(self.saving, self.parts.put, self.parts, name, row, t)
    end
end

--- Open a file (am.core.io's parts, its opts but for `later`). One that several processes write has no digest.
---@return am.checkpoint.SavedFile
function Saving:open(file, specs, opts)
    opts.later = self.later
    opts.digest = opts.digest or self.writers.total == 1
    local parts = try(self, io_core.parts, file, specs, opts)
    local handle = setmetatable({ saving = self, parts = parts, digest = opts.digest }, File)
    self.open_files[handle] = true
    return handle
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
local function note(self, file)
    local parts = file.parts
    local bytes = parts:finish(file.digest)
    self.files[#self.files + 1] = { name = path.relative(parts.path, self.folder), bytes = parts:size(),
                                    blake2b = bytes and digest.hex(bytes, #bytes) or nil }
end

local function close(self, file)
    if file.parts then
        file.parts:close()
    end
    self.open_files[file] = nil
end

--- All of this process's rows are put into a file.
function Saving:close_file(file)
    if self.later then
        table.insert(self.waiting, file)
    else
        try(self, note, self, file)
        close(self, file)
    end
end

--- Everything is put: the thread begins. others: files and folders that it syncs, too.
function Saving:begin(others)
    if self.later then
        local list, paths = {}, { unpack(others or {}) }
        for i, file in ipairs(self.failed and {} or self.waiting) do
            list[i] = file.parts
            paths[#paths + 1] = path.dirname(file.parts.path)
        end
        self.writing = io_core.write_beside(list, paths)
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
        try(self, writing.wait, writing)
        writing:close()
        for _, file in ipairs(self.waiting) do
            try(self, note, self, file)
            close(self, file)
        end
        self.waiting = {}
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
    for file in pairs(self.open_files) do
        close(self, file)
    end
    self.waiting = {}
end

return M
