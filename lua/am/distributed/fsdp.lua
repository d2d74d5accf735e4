-- Fully sharded data parallel: each rank has a part of every parameter, of its gradient and of its optimizer state,
-- and the whole of a layer only while the layer runs (Rajbhandari et al. 2020, arXiv:1910.02054; Zhao et al. 2023,
-- arXiv:2304.11277). Parameters are cut by rows, as FSDP2 does, over the mesh's axis "shard".
--
--   unit     a layer of the decoder: gathered before its forward and released behind it, again around its backward,
--            when its gradients are summed and each rank keeps its rows. The next unit comes while one runs.
--   root     all else (embeddings, norm, head): gathered when the model's forward begins, until finish or release
--
-- The model's tensors are shells whose bytes come and go (Tensor:set_data); what the optimizer trains are the parts,
-- which Layout knows. Collectives come in one order on all ranks, also where a rank's loss needs no gradient: what
-- its backward did not come to is made up for (complete).
--
-- Hooks are ops that do nothing: one on a unit's output, whose backward is the first of the unit's, and one on its
-- input, whose backward is the last.

local autograd = require("am.core.autograd")
local scope = require("am.core.scope")
local tensor = require("am.core.tensor")

local M = {}

local AXES = { "shard", "expert_dp" } -- over which parameters are cut: most, and experts that ranks share already
local MOST_REDUCES = 2 -- units whose gradients wait for their sum at a time

---@class am.distributed.FSDP
local FSDP = {}
FSDP.__index = FSDP

-- What makes a tensor like t, or of another dtype.
local function like(t, dtype)
    return { dtype = dtype or t:dtype(), device = t:device() }
end

-- ---- one parameter --------------------------------------------------------------------------

-- What is needed to gather and reduce a parameter. Raises nothing; nil where it stays whole.
local function sharded(self, name)
    local entry = self.layout:get(name)
    local axis = entry.replicas == "expert_dp" and "expert_dp" or "shard"
    local group, shape = self.mesh:group(axis), entry.tensor:size()
    if not group or #shape == 0 then
        return nil
    end
    local old, part = entry.tensor, self.layout:take(name, axis, 0)
    local p = { part = part, full = old, axis = axis, group = group, reduce_group = self.reduce_groups[axis],
                shape = shape, trainable = old.requires_grad, rows = shape[1] }
    p.chunk = math.ceil(p.rows / group:size())
    part.requires_grad = p.trainable
    if self.param_dtype and old:dtype() ~= self.param_dtype then
        p.full = scope.escape(tensor.empty(shape, like(old, self.param_dtype)))
        p.full.requires_grad = p.trainable
        self.layout:put(name, p.full)
        old:release()
    end
    p.full:set_data(nil)
    entry.tensor = part
    self.layout:replicas(name, axis == "shard" and "dp_replicate" or "none")
    return p
end

-- The shape with another number of rows.
local function rows_of(p, n)
    local shape = { unpack(p.shape) }
    shape[1] = n
    return shape
end

-- t with zeros behind it up to n rows; t itself where it has them.
local function padded(p, t, n)
    if t:size(0) == n then
        return t
    end
    local out = tensor.zeros(rows_of(p, n), like(t))
    if t:size(0) > 0 then
        out:narrow(0, 0, t:size(0)):copy_(t)
    end
    return out
end

local function cast(t, dtype)
    return dtype and t:dtype() ~= dtype and t:to(dtype) or t
end

-- ---- units: weights -------------------------------------------------------------------------

-- Begin to gather a unit.
local function gather(unit)
    if unit.state ~= "sharded" then
        return
    end
    unit.state, unit.works = "coming", {}
    scope.scope(autograd.no_grad, function()
        for i, p in ipairs(unit.params) do
            local from = padded(p, cast(p.part:detach(), p.full:dtype()), p.chunk)
            local all = scope.escape(tensor.empty(rows_of(p, p.chunk * p.group:size()), like(from)))
            unit.works[i] = { p = p, all = all, work = p.group:all_gather(all, from) }
        end
    end)
end

-- Have a unit's weights.
local function need(unit)
    gather(unit)
    if unit.state == "coming" then
        for _, w in ipairs(unit.works) do
            w.work:wait()
            scope.scope(function() w.p.full:set_data(w.all:narrow(0, 0, w.p.rows)) end)
            w.all:release()
        end
        unit.state, unit.works = "whole", nil
    end
end

local function release(unit)
    if unit.state == "coming" then
        need(unit)
    end
    if unit.state == "whole" then
        for _, p in ipairs(unit.params) do
            p.full:set_data(nil)
        end
        unit.state = "sharded"
    end
end

-- ---- units: gradients -----------------------------------------------------------------------

-- Add what a reduction gave to the gradients of this rank's rows.
local function collect(list)
    scope.scope(autograd.no_grad, function()
        for _, r in ipairs(list) do
            local sum = r.work:wait()
            local own, before = sum:narrow(0, 0, r.p.part:size(0)), r.p.part.grad
            if own:numel() > 0 then
                r.p.part.grad = before and before + own:to(before:dtype()) or own
            end
            sum:release()
        end
    end)
end

-- Begin to sum a unit's gradients.
local function reduce(self, unit)
    local list = {}
    scope.scope(autograd.no_grad, function()
        for _, p in ipairs(unit.params) do
            if p.trainable then
                local grad, n = p.full.grad, p.chunk * p.group:size()
                local dtype = self.reduce_dtype or (p.full:dtype() == "float64" and "float64" or "float32")
                p.found = p.found or grad ~= nil
                local from = grad and padded(p, cast(grad, dtype), n)
                    or tensor.zeros(rows_of(p, n), like(p.full, dtype))
                local to = scope.escape(tensor.empty(rows_of(p, p.chunk), like(p.full, dtype)))
                list[#list + 1] = { p = p, work = p.reduce_group:reduce_scatter(to, from) }
                p.full.grad = nil
            end
        end
    end)
    table.insert(self.reducing, list)
    if #self.reducing > MOST_REDUCES then
        collect(table.remove(self.reducing, 1))
    end
end

-- ---- around forward and backward ------------------------------------------------------------

local function before_backward(self, unit)
    need(unit)
    local earlier = self.units[unit.index - 1]
    if earlier and earlier.learns then
        gather(earlier)
    end
end

local function after_backward(self, unit)
    if self.reshard then
        release(unit)
    end
    unit.due = false
    if self.syncing or not self.deferred then
        reduce(self, unit)
    end
end

-- A unit's forward, between ops whose backwards gather and release.
local function run(self, unit, forward, module, x, ...)
    local recorded, again = autograd.is_grad_enabled(), autograd.is_recomputing()
    need(unit)
    local other = self.units[unit.index + (again and -1 or 1)]
    if other and not (again and not other.learns) then
        gather(other)
    end
    if not (recorded and unit.learns) then
        return self:after_forward(unit, again, forward(module, x, ...))
    end
    local results = { forward(module, self.enter(self.marker, x, unit), ...) }
    results[1] = self.leave(results[1], unit)
    return self:after_forward(unit, again, unpack(results))
end

--- Release a unit behind its forward, but for one that its backward needs at once.
function FSDP:after_forward(unit, again, ...)
    local at_once = again or autograd.is_grad_enabled() and unit.learns and unit.index == #self.units
    if self.reshard and not at_once then
        release(unit)
    end
    return ...
end

-- The model's forward begins.
local function begin_forward(self)
    if not self.pipelined then
        self:complete()
    end
    need(self.root)
    if autograd.is_grad_enabled() then
        self.round = true
        for _, unit in ipairs(self.units) do
            unit.due = unit.learns
        end
    end
end

--- Do what backward of the last forward would have done and did not come to, as other ranks' did.
function FSDP:complete()
    if not self.round then
        return
    end
    self.round = false
    for i = #self.units, 1, -1 do
        if self.units[i].due then
            before_backward(self, self.units[i])
            after_backward(self, self.units[i])
        end
    end
    if self.root.learns and (self.syncing or not self.deferred) then
        reduce(self, self.root)
    end
end

-- ---- what recipes call ----------------------------------------------------------------------

--- The next backward is the last of this step.
function FSDP:begin()
    if not self.pipelined then
        self:complete() -- of the micro-batch before, whose gradients may wait
    end
    self.syncing = true
end

--- Wait until this rank's parts have their gradients, summed over the ranks; weights go.
function FSDP:finish()
    self.syncing = true
    self:complete()
    self.syncing = false
    for _, list in ipairs(self.reducing) do
        collect(list)
    end
    self.reducing = {}
    self:release()
    for _, axis in ipairs(AXES) do
        local group, params, found = self.mesh:group(axis), self.trainable[axis], {}
        for i, p in ipairs(params) do
            found[i], p.found = p.found and 1 or 0, nil
        end
        for i, any in ipairs(#params > 0 and group:reduce_numbers(found, "max") or {}) do
            if any == 0 then -- on no rank: there is no gradient, as with one
                params[i].part.grad = nil
            end
        end
    end
end

--- Let go of all weights that were gathered: before parts change, and when validation ends.
function FSDP:release()
    release(self.root)
    for _, unit in ipairs(self.units) do
        release(unit)
    end
end

--- Leave the groups.
function FSDP:close()
    for _, group in pairs(self.reduce_groups) do
        group:close()
    end
    self.reduce_groups = {}
end

-- ---- putting it on a model ------------------------------------------------------------------

local function identity(before, after)
    return autograd.custom {
        forward = function(ctx, ...)
            return before(ctx, ...):detach()
        end,
        backward = after,
    }
end

-- The modules that are units: the decoder's layers, in order.
local function layers_of(model)
    local body = model:get_decoder()
    local list = body.names and body[body.names.layers]
    local out = {}
    for i, child in ipairs(list and list._children or {}) do
        out[i] = child.module
    end
    return out
end

local function new_unit(self, names, index)
    local unit = { index = index, params = {}, state = "sharded", learns = false }
    for _, name in ipairs(names) do
        unit.learns = unit.learns or self.layout:get(name).tensor.requires_grad -- also what stays whole (experts)
        local p = sharded(self, name)
        unit.params[#unit.params + 1] = p
        if p and p.trainable then
            table.insert(self.trainable[p.axis], p)
        end
    end
    return unit
end

--- Shard a model that every rank has whole, or whose parameters are cut otherwise already. opts: reshard_after_forward
--- (true; false: a step gathers a layer once, and keeps it until finish), defer_sync (sum gradients with a step's last
--- micro-batch alone, and keep them whole until then), param_dtype (of gathered weights; as stored), reduce_dtype (of
--- gradients that are summed; float32), pipelined (several forwards come before the first backward),
--- learns_before (what the layers are given needs a gradient).
---@return am.distributed.FSDP
function M.apply(model, mesh, layout, opts)
    local self = setmetatable({ mesh = mesh, layout = layout, units = {}, reducing = {}, reduce_groups = {},
                                trainable = { shard = {}, expert_dp = {} },
                                reshard = opts.reshard_after_forward ~= false,
                                deferred = opts.defer_sync or opts.pipelined, pipelined = opts.pipelined,
                                learns_before = opts.learns_before,
                                param_dtype = opts.param_dtype, reduce_dtype = opts.reduce_dtype }, FSDP)
    for _, axis in ipairs(AXES) do
        local group = mesh:group(axis)
        self.reduce_groups[axis] = group and group:split(0, group:rank(), axis .. " gradients")
    end
    self.marker = scope.escape(tensor.zeros({}, { device = model:device() }))
    self.marker.requires_grad = true
    self.enter = identity(function(ctx, _, x, unit) ctx.unit = unit.index return x end,
                          function(ctx, grad) after_backward(self, self.units[ctx.unit]) return nil, grad end)
    self.leave = identity(function(ctx, x, unit) ctx.unit = unit.index return x end,
                          function(ctx, grad) before_backward(self, self.units[ctx.unit]) return grad end)
    self:cut(model)
    return self
end

--- Make units of the model's layers and a root of the rest.
function FSDP:cut(model)
    local of_layer, names, rest = {}, {}, {}
    local layers = layers_of(model)
    for i, layer in ipairs(layers) do
        names[i] = {}
        for _, module in layer:named_modules() do
            of_layer[module] = i
        end
    end
    for _, name in ipairs { unpack(self.layout.names) } do
        local i = of_layer[self.layout:get(name).places[1][1]]
        table.insert(i and names[i] or rest, name)
    end
    self.root = new_unit(self, rest)
    local learns = self.root.learns or self.learns_before
    for i, layer in ipairs(layers) do
        local unit, forward = new_unit(self, names[i], i), layer.forward
        learns = learns or unit.learns
        unit.learns = learns -- its input may need a gradient
        self.units[i] = unit
        layer.forward = function(module, x, ...) return run(self, unit, forward, module, x, ...) end
    end
    local forward = model.forward
    model.forward = function(...)
        begin_forward(self)
        return forward(...)
    end
end

return M
