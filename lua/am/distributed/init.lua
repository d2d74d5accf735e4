-- Ranks: processes that share a run. This file is what the component offers to recipes: joining, and what a run asks
-- of all ranks whether they are many or one. The grid of ranks is mesh.lua's, what each has of a model layout.lua's,
-- how they share it the strategies' (ddp.lua, fsdp.lua, context_parallel.lua, …), and what makes their gradients one sync.lua's; groups of
-- ranks are comm.lua's; who started this process says ranks.lua.

local comm = require("am.distributed.comm")
local context_parallel = require("am.distributed.context_parallel")
local err = require("am.core.error")
local expert_parallel = require("am.distributed.expert_parallel")
local fsdp = require("am.distributed.fsdp")
local host = require("am.core.host")
local layout = require("am.distributed.layout")
local mesh = require("am.distributed.mesh")
local pipeline = require("am.distributed.pipeline")
local posix = require("am.utils.posix")
local ranks = require("am.distributed.ranks")
local sync = require("am.distributed.sync")

local M = { find = ranks.find, mesh = mesh.new, layout = layout.new, fsdp = fsdp.apply, sync = sync.new,
            context_parallel = context_parallel, expert_parallel = expert_parallel, pipeline = pipeline }

---@class am.distributed.World
---@field rank integer from 0
---@field size integer
---@field local_rank integer
---@field on_host integer ranks on this host, this one among them
---@field on_cpus integer those of them that may run on the same CPUs
---@field group am.distributed.Comm? all ranks; nil with one
local World = {}
World.__index = World

-- nccl is between GPUs: what CPUs have stands for it.
local BACKENDS = { nccl = true, gloo = true, mpi = true, cpu = true, cuda = true }

-- How many ranks are on this host, and how many of them share their CPUs with this one.
local function neighbours(world)
    local name, mask, on_host, on_cpus = posix.hostname(), host.cpu_mask(), 0, 0
    for _, other in ipairs(world:gather(name .. " " .. mask)) do
        local its_name, its_mask = other:match("^(.*) (.*)$")
        on_host = on_host + (its_name == name and 1 or 0)
        on_cpus = on_cpus + (its_name == name and its_mask == mask and 1 or 0)
    end
    return on_host, on_cpus
end

--- Join the other ranks, by what the environment says of them. opts: timeout (seconds), backend ("mpi" or "gloo"
--- instead of what fits the launcher), place (ranks.find's).
---@return am.distributed.World
function M.join(opts)
    opts = opts or {}
    local place = opts.place or ranks.find()
    if opts.backend and not BACKENDS[tostring(opts.backend):match("%a+")] then -- also "cpu:gloo,cuda:nccl"
        err.raise("usage", "dist_env.backend is nccl, gloo or mpi, not %s", tostring(opts.backend))
    end
    local self = setmetatable({ rank = place.rank, size = place.size, local_rank = place.local_rank, place = place },
                              World)
    if place.size > 1 then
        local engine = (opts.backend == "gloo" or opts.backend == "mpi") and opts.backend or place.engine
        self.group = comm.open(engine, { rank = place.rank, size = place.size, address = place.address,
                                         port = place.port, secret = os.getenv("AMLUA_SECRET"),
                                         timeout = opts.timeout })
        if self.group:size() ~= place.size then
            err.raise("comm", "%s says that there are %d ranks, and %s finds %d", place.by, place.size, engine,
                      self.group:size())
        end
    end
    self.on_host, self.on_cpus = neighbours(self)
    return self
end

--- A world of this process alone.
function M.alone()
    return M.join { place = ranks.alone() }
end

--- Does this rank write files and say what happens?
function World:is_main() return self.rank == 0 end

--- Numbers added up over all ranks ("max", "min": the largest, the least).
function World:reduce(list, op)
    return self.group and self.group:reduce_numbers(list, op) or list
end

--- The same without waiting: a function that gives them, which all ranks call once.
function World:begin_reduce(list, op)
    if self.group then
        return self.group:begin_reduce(list, op)
    end
    return function() return list end
end

--- True on all ranks where it is on any.
function World:any(flag)
    return self:reduce({ flag and 1 or 0 }, "max")[1] ~= 0
end

--- The texts of all ranks, in order.
function World:gather(text)
    return self.group and self.group:gather_texts(text) or { text }
end

--- The first rank's text.
function World:from_main(text)
    return self:gather(self:is_main() and text or "")[1]
end

--- Raise "usage" on all ranks unless all have the same text; what: what it is.
function World:check_equal(what, text)
    for i, other in ipairs(self:gather(text)) do
        if other ~= text then
            err.raise("usage", "%s of rank %d and rank %d differ: start all ranks with the same", what, self.rank,
                      i - 1)
        end
    end
end

--- Wait for all ranks.
function World:barrier()
    if self.group then
        self.group:barrier()
    end
end

--- End all ranks with a status, after a failure of this one; returns where there is only this one.
function World:abort(status, why)
    if self.group then
        self.group:abort(status, why)
    end
end

--- Leave the other ranks.
function World:close()
    if self.group then
        self.group:close()
        self.group = nil
    end
end

return M
