-- Distributed data parallel: every rank has the whole model and some of a step's rows, and gradients are added up over
-- the ranks (Li et al. 2020, arXiv:2006.15704). What an optimizer must have says am.optim's Optimizer (buckets,
-- gradients, …); nothing else of it is used.
--
--   local ddp = DDP.new(optimizer, group)
--   … backward of all micro-batches but the last …
--   ddp:begin()                  from here on buckets are added up as soon as their gradients are final
--   … backward of the last …
--   ddp:finish()                 the rest; then all ranks have the same gradients, bit for bit
--
-- Buckets are added up in one order on all ranks, whatever order gradients come in. A parameter that got no gradient
-- on any rank has none afterwards, as with one rank.

local tensor = require("am.core.tensor")

local M = {}

local BUCKET_MB = 25 -- torch's

---@class am.distributed.DDP
local DDP = {}
DDP.__index = DDP

--- optimizer: whose gradients they are; group: the ranks (comm.lua). opts: bucket_cap_mb (25), wanted(name): which
--- parameters (all).
---@return am.distributed.DDP
function M.new(optimizer, group, opts)
    local self = setmetatable({ optimizer = optimizer, group = group, syncing = false, handles = {} }, DDP)
    opts = opts or {}
    self.buckets = optimizer:buckets((opts.bucket_cap_mb or BUCKET_MB) * 2 ^ 20, opts.wanted)
    for _, bucket in ipairs(self.buckets) do
        for _, place in ipairs(bucket.places) do
            self.handles[#self.handles + 1] = optimizer:parameter(place):register_post_accumulate_grad_hook(function()
                self:ready(bucket)
            end)
        end
    end
    return self
end

-- Begin to add up the buckets that are next in order, as long as their gradients are final.
local function begin_next(self, all)
    local bucket = self.buckets[self.next]
    while bucket and (all or bucket.waiting == 0) do
        for k, place in ipairs(bucket.places) do
            self.found[self.at + k] = self.optimizer:is_empty(place) and 0 or 1
        end
        self.at = self.at + bucket.count
        self.works[self.next] = self.group:all_reduce(self.optimizer:gradients(bucket))
        self.next = self.next + 1
        bucket = self.buckets[self.next]
    end
end

--- The gradient of one of a bucket's parameters is final: called by backward.
function DDP:ready(bucket)
    if self.syncing then
        bucket.waiting = bucket.waiting - 1
        begin_next(self)
    end
end

--- The next backward is the last of this step.
function DDP:begin()
    self.syncing, self.next, self.at, self.works, self.found = true, 1, 0, {}, {}
    for _, bucket in ipairs(self.buckets) do
        bucket.waiting = bucket.count
    end
end

--- Add up what is left, and wait for all of it. Without begin before, all of it.
function DDP:finish()
    if not self.syncing then
        self:begin()
    end
    self.syncing = false
    begin_next(self, true)
    local found = self.group:all_reduce(tensor.tensor(self.found, { dtype = "int32" }), "max")
    for _, work in ipairs(self.works) do
        work:wait()
    end
    local any, at = found:wait():totable(), 0
    for _, bucket in ipairs(self.buckets) do
        for k, place in ipairs(bucket.places) do
            if any[at + k] == 0 then
                self.optimizer:clear_grad(place)
            end
        end
        at = at + bucket.count
    end
    self.works, self.found = nil, nil
end

--- Take the hooks off the parameters.
function DDP:close()
    for _, handle in ipairs(self.handles) do
        handle:remove()
    end
    self.handles = {}
end

return M
