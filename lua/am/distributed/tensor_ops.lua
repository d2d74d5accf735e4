-- Collectives that gradients flow through, for ranks that share matrices or tokens (Megatron-LM's f and g: Shoeybi et
-- al. 2019, arXiv:1909.08053; along tokens: Korthikanti et al. 2022, arXiv:2205.05198). Holds no module.
--
-- What ranks have of a tensor is whole (the same on all), a part of a sum, or a piece along a dim: ceil(n / size) long,
-- the last ones filled up with zeros, as split makes them, or shorter, as of matrices that are cut. The gradient of a
-- whole tensor is a part of a sum where what follows differs by rank, and whole where it does not; each op says which
-- it takes.

local bit = require("bit")
local ffi = require("ffi")
local autograd = require("am.core.autograd")
local edge = require("am.core.ffi")
local err = require("am.core.error")
local layout = require("am.distributed.layout")
local ops = require("am.core.ops")
local tensor = require("am.core.tensor")

local C = edge.C
local M = {}

---@class am.distributed.TensorOps
---@field size integer ranks
---@field rank integer from 0
---@field copy function whole -> whole; its gradients are parts of a sum
---@field reduce function part of a sum -> whole, whose gradient is whole
---@field reduce_shared function part of a sum -> whole, whose gradients are parts of a sum
---@field gather function (piece, dim, n) -> whole, n long, whose gradient is whole
---@field gather_shared function the same, whose gradients are parts of a sum
---@field split function (whole, dim) -> piece
---@field reduce_split function (part of a sum, dim) -> piece of the sum
local TensorOps = {}
TensorOps.__index = TensorOps

-- ---- without gradients ------------------------------------------------------------------------

local function all_reduce(group, t)
    return group:all_reduce(t:clone()):wait()
end

-- t with zeros behind it along dim, n long.
local function filled(t, dim, n)
    local shape = t:size()
    if shape[dim + 1] == n then
        return t
    end
    shape[dim + 1] = n - shape[dim + 1]
    return ops.cat({ t, tensor.zeros(shape, { dtype = t:dtype(), device = t:device() }) }, dim)
end

-- This rank's piece of t.
local function piece(self, t, dim)
    local n = t:size(dim)
    local first, count = self:chunk(n)
    return filled(t:narrow(dim, first, count), dim, math.ceil(n / self.size))
end

-- The elements in front of a dim, and behind it.
local function around(shape, dim)
    local before, behind = 1, 1
    for d, n in ipairs(shape) do
        before = before * (d <= dim and n or 1)
        behind = behind * (d > dim + 1 and n or 1)
    end
    return before, behind
end

-- The ranks' pieces as one, n long.
local function all_gather(self, group, t, dim, n)
    local shape = t:size()
    local before, behind = around(shape, dim)
    local chunk = math.ceil(n / self.size)
    local all = tensor.empty({ self.size, before, chunk, behind }, { dtype = t:dtype(), device = t:device() })
    group:all_gather(all, filled(t, dim, chunk):contiguous()):wait()
    shape[dim + 1] = self.size * chunk
    return all:permute(1, 0, 2, 3):reshape(shape):narrow(dim, 0, n)
end

-- This rank's piece of the sum of the ranks' t.
local function reduce_scatter(self, group, t, dim)
    local shape = t:size()
    local chunk = math.ceil(shape[dim + 1] / self.size)
    local before, behind = around(shape, dim)
    local parts = filled(t, dim, chunk * self.size):reshape(before, self.size, chunk, behind)
    shape[dim + 1] = chunk
    local out = tensor.empty(shape, { dtype = t:dtype(), device = t:device() })
    group:reduce_scatter(out, parts:permute(1, 0, 2, 3):contiguous()):wait()
    return out
end

-- ---- with gradients ---------------------------------------------------------------------------

-- An op of a tensor, whose backward is another: both get the tensor, dim and n. forward's n is that of the piece's
-- whole, backward's that of what came in.
local function pair(forward, backward)
    return autograd.custom {
        forward = function(ctx, x, dim, n)
            ctx.dim, ctx.n = dim, dim and x:size(dim)
            return forward(x, dim, n)
        end,
        backward = function(ctx, grad)
            grad = backward(grad, ctx.dim, ctx.n)
            return ctx.n and grad:narrow(ctx.dim, 0, ctx.n) or grad
        end,
    }
end

--- The ops of a group of ranks.
---@param group am.distributed.Comm
---@return am.distributed.TensorOps
function M.new(group)
    local self = setmetatable({ size = group:size(), rank = group:rank(), group = group }, TensorOps)
    local function same(x) return x:detach() end
    local function sum(x) return all_reduce(group, x) end
    local function own(x, dim) return piece(self, x, dim) end
    local function joined(x, dim, n) return all_gather(self, group, x, dim, n) end
    local function own_sum(x, dim) return reduce_scatter(self, group, x, dim) end
    self.copy, self.reduce, self.reduce_shared = pair(same, sum), pair(sum, same), pair(sum, sum)
    self.gather, self.gather_shared = pair(joined, own), pair(joined, own_sum)
    self.split, self.reduce_split = pair(own, joined), pair(own_sum, joined)
    self.key = ffi.cast("uint64_t", 0x9E3779B97F4A7C15ULL) * self.rank
    return self
end

--- Reduce t over the ranks, in place and without gradients. op: "sum" (default), "max", "min".
function TensorOps:all_reduce(t, op)
    return self.group:all_reduce(t, op):wait()
end

--- The first of n things that this rank has, and how many.
function TensorOps:chunk(n)
    return layout.chunk(n, self.size, self.rank)
end

-- ---- random numbers ---------------------------------------------------------------------------

local seed, stream = ffi.new("uint64_t[1]"), ffi.new("uint64_t[1]")

local function flip(key)
    edge.check(C.am_rng_get(seed, stream))
    edge.check(C.am_rng_set(bit.bxor(seed[0], key), stream[0]))
end

--- Run fn(...) with random numbers of this rank's own, or, inside of such a function, with those that all ranks share.
--- Ranks draw equally often, so that what they share stays the same.
function TensorOps:with_other_numbers(fn, ...)
    if self.rank == 0 then
        return fn(...)
    end
    flip(self.key)
    return err.finally(function() flip(self.key) end, fn, ...)
end

return M
