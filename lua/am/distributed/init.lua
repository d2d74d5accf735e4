-- Ranks: processes that share a run. This file is what the component offers to recipes: joining, and what a run asks
-- of all ranks whether they are many or one. The grid of ranks is mesh.lua's, what each has of a model layout.lua's,
-- how they share it the strategies' (ddp.lua, fsdp.lua, tensor_parallel.lua, …), and what makes their gradients one
-- sync.lua's; groups of ranks are comm.lua's; who started this process says ranks.lua.

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
local strings = require("am.utils.strings")
local sync = require("am.distributed.sync")
local tensor_parallel = require("am.distributed.tensor_parallel")

local M = { find = ranks.find, mesh = mesh.new, layout = layout.new, fsdp = fsdp.apply, sync = sync.new,
            context_parallel = context_parallel, expert_parallel = expert_parallel, pipeline = pipeline,
            tensor_parallel = tensor_parallel }

---@class am.distributed.World
---@field rank integer from 0
---@field size integer
---@field local_rank integer its place among the ranks on this host, from 0, as the launcher says, or by hosts' names
---@field on_host integer ranks on this host, this one among them
---@field on_cpus integer those of them that may run on the same CPUs
---@field is_first_on_host boolean of the ranks on this host the one with the least number
---@field group am.distributed.Comm? all ranks; nil with one
local World = {}
World.__index = World

-- nccl, beside gloo or mpi, is what GPUs have anyway; cpu and cuda begin a pair.
local BACKENDS = { nccl = true, gloo = true, mpi = true, cpu = true, cuda = true }

-- How many ranks are on this host, how many of them share their CPUs with this one, and how many are before it there.
local function neighbours(world)
    local name, mask, on_host, on_cpus, before = posix.hostname(), host.cpu_mask(), 0, 0, 0
    for i, other in ipairs(world:gather(name .. " " .. mask)) do
        local its_name, its_mask = other:match("^(.*) (.*)$")
        before = before + (its_name == name and i <= world.rank and 1 or 0)
        on_host = on_host + (its_name == name and 1 or 0)
        on_cpus = on_cpus + (its_name == name and its_mask == mask and 1 or 0)
    end
    return on_host, on_cpus, before
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
    if place.size > 1 and opts.backend == "gloo" and place.engine ~= "gloo" then
        place = ranks.over_gloo(place)
    end
    local self = setmetatable({ rank = place.rank, size = place.size, place = place }, World)
    if place.size > 1 then
        local engine = opts.backend == "mpi" and "mpi" or place.engine
        self.group = comm.open(engine, { rank = place.rank, size = place.size, address = place.address,
                                         port = place.port, secret = os.getenv("AMLUA_SECRET"),
                                         timeout = opts.timeout })
        if self.group:size() ~= place.size then
            err.raise("comm", "%s says that there are %d ranks, and %s finds %d", place.by, place.size, engine,
                      self.group:size())
        end
    end
    local before
    self.on_host, self.on_cpus, before = neighbours(self)
    self.local_rank, self.is_first_on_host = place.local_rank or before, before == 0
    return self
end

--- A world of this process alone.
function M.alone()
    return M.join { place = ranks.alone() }
end

--- Does this rank write files and say what happens?
function World:is_main() return self.rank == 0 end

--- Seconds for which this rank has waited for others so far.
World.waited = comm.waited

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

-- The first line in which two texts differ, of each.
local function difference(a, b)
    local lines, others = strings.split(a, "\n"), strings.split(b, "\n")
    for i = 1, math.max(#lines, #others) do
        if lines[i] ~= others[i] then
            return strings.trim(lines[i] or "nothing"), strings.trim(others[i] or "nothing")
        end
    end
end

--- Raise the same "usage" on all ranks unless all have the same text; what: what it is.
function World:check_equal(what, text)
    local texts = self:gather(text)
    for i, other in ipairs(texts) do
        if other ~= texts[1] then
            local e = err.new("usage", ("%s of rank 0 and rank %d differ (%s, %s): start all ranks with the same")
                :format(what, i - 1, difference(texts[1], other)))
            e.agreed = true
            error(e, 0)
        end
    end
end

-- An error as a text: its code, a line, its message.
local function packed(e)
    return err.is(e) and e.code .. "\n" .. tostring(e) or "internal\n" .. debug.traceback(tostring(e), 2)
end

--- The value that fn(…) gives, once it went well on all ranks; else all raise the same error, which names the first
--- rank that failed and its host, unless all failed alike. In fn no rank may wait for others.
function World:together(fn, ...)
    if not self.group then
        return fn(...)
    end
    local ok, result = xpcall(fn, packed, ...)
    local failed, first, alike = 0, nil, true
    for i, text in ipairs(self:gather(ok and "" or posix.hostname() .. "\n" .. result)) do
        local name, code, message = text:match("^([^\n]*)\n([^\n]*)\n(.*)$")
        if name then
            failed = failed + 1
            first = first or { rank = i - 1, host = name, code = code, message = message }
            alike = alike and message == first.message
        end
    end
    if not first then
        return result
    end
    local e = err.new(first.code, first.message)
    if not (alike and failed == self.size) then
        e.msg = ("rank %d (host %s)%s: %s"):format(first.rank, first.host, failed > 1
            and (", and %d more ranks"):format(failed - 1) or "", e.msg)
    end
    e.agreed = true
    error(e, 0)
end

--- Run fn(…) as together does, but on each host on the first rank before the others, who find what it has left in a
--- folder. Gives nothing back.
function World:first_of_host(fn, ...)
    self:together(function(...) return self.is_first_on_host and fn(...) end, ...)
    self:together(function(...) return not self.is_first_on_host and fn(...) end, ...)
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
