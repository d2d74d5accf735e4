-- Sync: what makes the gradients of a step what one rank's would be, whatever strategies the model is under. A step
-- calls begin before its last backward and finish behind it; then every rank has its parts' whole gradients.
--
-- In this order: FSDP sums over shards as backward goes (fsdp.lua), DDP over the ranks that have the same part
-- (ddp.lua), and last what strategies have marked as parts of sums (Layout:partial).

local autograd = require("am.core.autograd")
local ops = require("am.core.ops")
local scope = require("am.core.scope")
local tensor = require("am.core.tensor")
local DDP = require("am.distributed.ddp")

local M = {}

---@class am.distributed.Sync
local Sync = {}
Sync.__index = Sync

--- opts: fsdp (fsdp.lua's, if the model is under it), bucket_cap_mb.
---@return am.distributed.Sync
function M.new(optimizer, layout, opts)
    local self = setmetatable({ layout = layout, fsdp = opts.fsdp, ddp = {}, partial = {} }, Sync)
    local mesh, axes, seen = layout.mesh, {}, {}
    for _, name in ipairs(layout.names) do
        local entry = layout:get(name)
        local trained = entry.tensor.requires_grad
        if trained and not seen[entry.replicas] and mesh:group(entry.replicas) then
            seen[entry.replicas] = true
            axes[#axes + 1] = entry.replicas
        end
        for _, axis in ipairs(trained and entry.partial or {}) do
            self.partial[axis] = self.partial[axis] or {}
            table.insert(self.partial[axis], name)
        end
    end
    table.sort(axes)
    for i, axis in ipairs(axes) do
        self.ddp[i] = DDP.new(optimizer, mesh:group(axis), {
            bucket_cap_mb = opts.bucket_cap_mb,
            wanted = function(name) return layout:get(name).replicas == axis end,
        })
    end
    return self
end

--- The next backward is the last of this step.
function Sync:begin()
    if self.fsdp then
        self.fsdp:begin()
    end
    for _, ddp in ipairs(self.ddp) do
        ddp:begin()
    end
end

-- Sum the gradients of parameters over an axis, in one collective for each dtype.
local function sum_over(group, layout, names)
    local by_dtype = {}
    for _, name in ipairs(names) do
        local t = layout:get(name).tensor
        local dtype = t:dtype() == "float64" and "float64" or "float32"
        by_dtype[dtype] = by_dtype[dtype] or {}
        table.insert(by_dtype[dtype], t)
    end
    for _, dtype in ipairs { "float32", "float64" } do
        local list, all = by_dtype[dtype] or {}, {}
        for i, t in ipairs(list) do
            all[i] = (t.grad or tensor.zeros(t:size(), { dtype = dtype, device = t:device() })):reshape(-1)
        end
        if #list > 0 then
            local sum, at = group:all_reduce(ops.cat(all, 0)):wait(), 0
            for _, t in ipairs(list) do
                if t.grad then
                    t.grad = sum:narrow(0, at, t:numel()):reshape(t:size())
                end
                at = at + t:numel()
            end
        end
    end
end

--- Sum what is left, and wait for all of it.
function Sync:finish()
    if self.fsdp then
        self.fsdp:finish()
    end
    for _, ddp in ipairs(self.ddp) do
        ddp:finish()
    end
    for _, axis in ipairs { "tp", "pp_ends" } do
        if self.partial[axis] and self.layout.mesh:group(axis) then
            scope.scope(autograd.no_grad, sum_over, self.layout.mesh:group(axis), self.layout, self.partial[axis])
        end
    end
end

--- Let go of weights that were gathered: before they change, and when validation ends.
function Sync:release()
    if self.fsdp then
        self.fsdp:release()
    end
end

--- Take hooks off, and leave groups.
function Sync:close()
    for _, ddp in ipairs(self.ddp) do
        ddp:close()
    end
    if self.fsdp then
        self.fsdp:close()
    end
end

return M
