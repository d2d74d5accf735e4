-- Batches that are begun before they are asked for: pictures are prepared by background threads while the step
-- before is computed. Rows and tokens are made here, on the caller's thread, as always. Knows nothing of pictures:
-- a batch that has any has start(), finish() -> batch and bytes (vlm/batches.lua).
--
-- What is ahead changes no batch, no order and no position: those are counted as batches are handed out. An error of
-- a batch that was begun ahead is raised when that batch is asked for.

local edge = require("am.core.ffi")
local err = require("am.core.error")

local M = {}

local BATCHES = 2 -- ahead, where nobody says
local MOST_BYTES = 2 ^ 30 -- of pictures in batches ahead; beyond, no further one is begun

--- Batches to begin ahead, for the options of a loader; sets the number of threads. None of text alone, and none
--- where num_workers is 0.
function M.depth(opts)
    if not opts.dataset.has_pictures then
        return 0
    end
    if opts.num_workers then
        edge.check(edge.C.am_image_threads_set(opts.num_workers))
    end
    return opts.num_workers == 0 and 0 or opts.prefetch_factor or BATCHES
end

local Queue = {}
Queue.__index = Queue

--- make(position) -> batch, the position behind it; nothing at the end.
function M.new(depth, make)
    return setmetatable({ depth = depth, make = make, entries = {} }, Queue)
end

--- Forget what was begun.
function Queue:clear()
    self.entries = {}
end

-- The batch at `position`, begun.
local function begin(self, position)
    local batch, after = self.make(position)
    if batch and batch.start then
        batch:start()
    end
    return batch, after
end

-- Begin batches until there are `depth` behind the first, or many bytes.
local function fill(self, position)
    local entries, bytes = self.entries, 0
    for _, entry in ipairs(entries) do
        bytes = bytes + (entry.batch and entry.batch.bytes or 0)
    end
    local at = position
    if #entries > 0 then
        at = entries[#entries].after -- nil behind a problem
    end
    while at and #entries <= self.depth and (#entries == 0 or bytes < MOST_BYTES) do
        local ok, batch, after = pcall(begin, self, at)
        if not ok and err.is(batch) and batch.code == "interrupted" then
            error(batch, 0)
        elseif not ok then
            entries[#entries + 1] = { position = at, problem = batch }
            break
        elseif not batch then
            break
        end
        entries[#entries + 1] = { position = at, after = after, batch = batch }
        bytes = bytes + (batch.bytes or 0)
        at = after
    end
end

--- The batch at `position`, which there must be, finished; those behind it are begun.
function Queue:take(position)
    if self.entries[1] and self.entries[1].position ~= position then
        self:clear()
    end
    fill(self, position)
    local entry = table.remove(self.entries, 1)
    if entry.problem then
        self:clear()
        error(entry.problem, 0)
    end
    return entry.batch.finish and entry.batch:finish() or entry.batch
end

return M
