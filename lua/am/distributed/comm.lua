-- Groups of ranks: collectives over tensors, by one of the engine's communicators (self, mpi, gloo), and over tensors
-- on a GPU by NCCL. Holds no strategy; which ranks there are says ranks.lua.
--
--   local world = comm.open("mpi", { timeout = 60 })
--   world:all_reduce(t, "sum"):wait()                a work is under way until it is waited for
--   local data_parallel = world:split(color, world:rank(), "dp")

local ffi = require("ffi")
local edge = require("am.core.ffi")
local err = require("am.core.error")
local scope = require("am.core.scope")
local tensor = require("am.core.tensor")

local C, check = edge.C, edge.check
local M = {}

local OPS = { sum = C.AM_SUM, max = C.AM_MAX, min = C.AM_MIN }
local KINDS = { "all_reduce", "reduce_scatter", "all_gather", "broadcast", "all_to_all", "send", "recv", "barrier" }

-- ---- works ----------------------------------------------------------------------------------

---@class am.distributed.Work
local Work = {}
Work.__index = Work

--- Seconds for which this process has waited for the ends of works.
function M.waited() return C.am_comm_waited() end

local work_box = edge.box("am_work")

-- A work whose tensors stay until it is waited for.
local function begun(...)
    return setmetatable({ handle = work_box[0], tensors = { ... } }, Work)
end

--- Wait for its end; what it wrote can be read then. Returns the tensor that was written. Raises "comm" naming the
--- ranks that did not come. On a GPU this returns at once, and what is computed there from then on comes behind the
--- work; what reads from the GPU next raises.
function Work:wait()
    local handle = self.handle
    if handle then
        self.handle = nil
        local ok, e = pcall(check, C.am_work_wait(handle))
        self.failed = not ok and e or nil
    end
    if self.failed then -- also when it is waited for once more: nothing was written
        error(self.failed, 0)
    end
    return self.tensors[1]
end

--- Has it ended?
function Work:done()
    return not self.handle or C.am_work_done(self.handle) ~= 0
end

-- ---- groups ---------------------------------------------------------------------------------

---@class am.distributed.Comm
local Comm = {}
Comm.__index = Comm

local comm_box = edge.box("am_comm")

local function op_of(name)
    return OPS[name or "sum"] or err.raise("usage", "a reduction is sum, max or min, not %s", tostring(name))
end

--- Join the other ranks. engine: "self", "mpi" or "gloo"; opts: timeout (seconds; 600), and for gloo rank, size,
--- address, port, secret; module: its file. Raises "comm".
---@return am.distributed.Comm
function M.open(engine, opts)
    opts = opts or {}
    local o = ffi.new("am_comm_options")
    o.rank, o.size, o.port, o.timeout = opts.rank or 0, opts.size or 0, opts.port or 0, opts.timeout or 0
    o.address, o.secret, o.module = opts.address, opts.secret, opts.module
    check(C.am_comm_open(comm_box, engine, o))
    return setmetatable({ handle = comm_box[0], engine = engine }, Comm)
end

function Comm:rank() return C.am_comm_rank(self.handle) end

function Comm:size() return C.am_comm_size(self.handle) end

--- The place of one of its ranks among all ranks.
function Comm:world_rank(rank) return C.am_comm_world_rank(self.handle, rank) end

--- The group of the ranks that give the same color, in the order of their keys. All of the ranks call this.
---@return am.distributed.Comm
function Comm:split(color, key, name)
    check(C.am_comm_split(comm_box, self.handle, color, key, name))
    return setmetatable({ handle = comm_box[0], engine = self.engine }, Comm)
end

--- Reduce t over the ranks, in place. op: "sum" (default), "max", "min".
---@return am.distributed.Work
function Comm:all_reduce(t, op)
    check(C.am_comm_all_reduce(work_box, self.handle, t, op_of(op)))
    return begun(t)
end

--- from holds a part for each rank, one after another; into `to` goes this rank's part of the reduction.
function Comm:reduce_scatter(to, from, op)
    check(C.am_comm_reduce_scatter(work_box, self.handle, to, from, op_of(op)))
    return begun(to, from)
end

--- Into `to` go the ranks' `from`, one after another.
function Comm:all_gather(to, from)
    check(C.am_comm_all_gather(work_box, self.handle, to, from))
    return begun(to, from)
end

--- t of rank `root` (0) becomes that of all.
function Comm:broadcast(t, root)
    check(C.am_comm_broadcast(work_box, self.handle, t, root or 0))
    return begun(t)
end

local function counts_of(list, size, what)
    if #list ~= size then
        err.raise("usage", "all_to_all: %s has %d numbers for %d ranks", what, #list, size)
    end
    return ffi.new("int64_t[?]", size, list)
end

--- from holds from_counts[r] elements for the r-th rank, one after another; to gets to_counts[r] from it.
function Comm:all_to_all(to, to_counts, from, from_counts)
    local size = self:size()
    check(C.am_comm_all_to_all(work_box, self.handle, to, counts_of(to_counts, size, "to_counts"), from,
                               counts_of(from_counts, size, "from_counts")))
    return begun(to, from)
end

--- Send t to a rank, which receives it with the same tag (0).
function Comm:send(t, rank, tag)
    check(C.am_comm_send(work_box, self.handle, t, rank, tag or 0))
    return begun(t)
end

--- Receive t from a rank.
function Comm:recv(t, rank, tag)
    check(C.am_comm_recv(work_box, self.handle, t, rank, tag or 0))
    return begun(t)
end

--- Wait until all ranks are here.
function Comm:barrier()
    check(C.am_comm_barrier(work_box, self.handle))
    begun():wait()
end

-- ---- numbers and texts ----------------------------------------------------------------------

--- Begin to reduce numbers over the ranks, in double precision: sum by default. Returns a function that waits for them.
function Comm:begin_reduce(list, op)
    local work = self:all_reduce(scope.escape(tensor.tensor(list, { dtype = "float64", device = "cpu" })), op)
    return function()
        local t = work:wait()
        local out = t:totable()
        t:release()
        return out
    end
end

--- Numbers reduced over the ranks.
function Comm:reduce_numbers(list, op)
    return self:begin_reduce(list, op)()
end

--- The texts of all ranks, in order.
function Comm:gather_texts(text)
    local size, longest = self:size(), self:reduce_numbers({ #text }, "max")[1]
    local bytes = 8 + longest
    local own = ffi.new("uint8_t[?]", bytes)
    ffi.cast("int64_t *", own)[0] = #text
    ffi.copy(own + 8, text, #text)
    local all = tensor.zeros({ size * bytes }, { dtype = "uint8", device = "cpu" })
    self:all_gather(all, tensor.from_buffer(own, { bytes }, { dtype = "uint8", device = "cpu" })):wait()
    local buffer, out = all:to_buffer(), {}
    for r = 0, size - 1 do
        local at = ffi.cast("uint8_t *", buffer) + r * bytes
        local n = ffi.new("int64_t[1]")
        ffi.copy(n, at, 8)
        out[r + 1] = ffi.string(at + 8, tonumber(n[0]))
    end
    return out
end

--- { [kind] = { calls =, bytes = } }: what this rank's collectives were, and the bytes of the tensors that it gave.
function Comm:counts()
    local c, out = ffi.new("am_comm_counts"), {}
    check(C.am_comm_count(c, self.handle))
    for i, kind in ipairs(KINDS) do
        out[kind] = { calls = tonumber(c.calls[i - 1]), bytes = tonumber(c.bytes[i - 1]) }
    end
    return out
end

-- ---- the end --------------------------------------------------------------------------------

--- Leave the group, behind all that is under way. Groups that were split off go first.
function Comm:close()
    if self.handle then
        C.am_comm_release(self.handle)
        self.handle = nil
    end
end

--- End all ranks now with an exit status; does not return.
function Comm:abort(status, why)
    C.am_comm_abort(self.handle, status, why)
end

return M
