-- Layout: which part of every parameter this rank has, as strategies have cut it, and how parts become wholes again.
-- Strategies cut (tensor_parallel.lua, expert_parallel.lua, fsdp.lua); checkpoints and norms ask.
--
--   local layout = Layout.new(model, mesh)
--   layout:cut("model.layers.0.self_attn.q_proj.weight", "tp", 0)     the module has this rank's rows from now on
--   layout:part(name, whole)     of a tensor of the parameter's whole shape what this rank has
--   layout:whole(name, part)     the reverse, which all ranks of the cuts' axes call together
--
-- A cut gives each of an axis' n ranks a chunk of ceil(size / n) along a dim, the last ones less or nothing. Cuts
-- follow one another: a matrix whose columns are cut over tp may have its rows cut over shard.

local ops = require("am.core.ops")
local err = require("am.core.error")
local scope = require("am.core.scope")
local tensor = require("am.core.tensor")

local M = {}

---@class am.distributed.Cut
---@field axis string
---@field dim integer
---@field parts integer[] sizes along dim that are cut each on its own
---@field shape integer[] before the cut

---@class am.distributed.Entry
---@field name string
---@field places table[] { module, name } that have it: its own, and those that share it (tied embeddings)
---@field tensor table what the optimizer gets
---@field shape integer[] of the whole
---@field cuts am.distributed.Cut[]
---@field partial string[] axes over which this rank's gradient is a part of a sum
---@field replicas string the axis over whose ranks gradients are summed

---@class am.distributed.Layout
local Layout = {}
Layout.__index = Layout

--- Of a model that every rank has whole.
---@return am.distributed.Layout
function M.new(model, mesh)
    local self = setmetatable({ mesh = mesh, entries = {}, names = {} }, Layout)
    local shared = {}
    for name, module, slot in model:parameter_slots() do
        local t = module[slot.name]
        if t and slot.shared then
            shared[#shared + 1] = { module, slot.name }
        elseif t then
            self.names[#self.names + 1] = name
            self.entries[name] = { name = name, places = { { module, slot.name } }, tensor = t, shape = t:size(),
                                   cuts = {}, partial = {}, replicas = "dp_cp" }
        end
    end
    for _, place in ipairs(shared) do
        for _, entry in pairs(self.entries) do
            if entry.tensor == place[1][place[2]] then
                table.insert(entry.places, place)
            end
        end
    end
    return self
end

--- What is known of a parameter. Raises "argument" for a name that this rank does not have.
---@return am.distributed.Entry
function Layout:get(name)
    return self.entries[name] or err.raise("argument", "this rank has no parameter %s", tostring(name))
end

--- Iterator over (name, tensor): what the optimizer is to train, and what is frozen, in the model's order.
function Layout:named_parameters()
    local i = 0
    return function()
        i = i + 1
        local name = self.names[i]
        if name then
            return name, self.entries[name].tensor
        end
    end
end

-- ---- cutting --------------------------------------------------------------------------------

--- Where a rank's chunk of n begins, and how long it is.
local function chunk(n, size, rank)
    local length = math.ceil(n / size)
    local first = math.min(rank * length, n)
    return first, math.min(length, n - first)
end
M.chunk = chunk

-- The pieces of t that a rank has by a cut: { first, length } along its dim.
local function pieces(cut, size, rank)
    local list, at = {}, 0
    for i, n in ipairs(cut.parts) do
        local first, length = chunk(n, size, rank)
        list[i] = { at + first, length }
        at = at + n
    end
    return list
end

local function cat(list, dim)
    return #list == 1 and list[1] or ops.cat(list, dim)
end

local function apply_cut(t, cut, size, rank)
    local list = {}
    for _, piece in ipairs(pieces(cut, size, rank)) do
        if piece[2] > 0 then
            list[#list + 1] = t:narrow(cut.dim, piece[1], piece[2])
        end
    end
    return #list == 0 and t:narrow(cut.dim, 0, 0) or cat(list, cut.dim)
end

--- Note a cut and return the part: a tensor of its own, without a gradient yet. The module keeps what it has.
function Layout:take(name, axis, dim, parts)
    local entry, size = self:get(name), self.mesh:size(axis)
    local shape = entry.tensor:size()
    local cut = { axis = axis, dim = dim, parts = parts or { shape[dim + 1] }, shape = shape }
    local sum = 0
    for _, n in ipairs(cut.parts) do
        sum = sum + n
    end
    if sum ~= shape[dim + 1] then
        err.raise("argument", "%s: parts of %d along dim %d, which has %d", name, sum, dim, shape[dim + 1])
    end
    local part = scope.scope(function()
        return apply_cut(entry.tensor:detach(), cut, size, self.mesh:rank(axis)):clone()
    end)
    entry.cuts[#entry.cuts + 1] = cut
    return scope.escape(part)
end

--- Put a tensor (nil: none) where a parameter is, in all places.
function Layout:put(name, t)
    for _, place in ipairs(self:get(name).places) do
        place[1][place[2]] = t
    end
end

--- The module's tensor becomes this rank's chunk along dim over an axis. parts: sizes along dim that are cut each on
--- its own, as of a map that is several in one; one by default.
function Layout:cut(name, axis, dim, parts)
    local entry = self:get(name)
    local old, part = entry.tensor, self:take(name, axis, dim, parts)
    part.requires_grad = old.requires_grad
    entry.tensor = part
    self:put(name, part)
    old:release()
    return part
end

--- This rank's gradient of a parameter is a part of a sum over an axis.
function Layout:partial(name, axis)
    table.insert(self:get(name).partial, axis)
end

--- Sum a parameter's gradient over this axis, and not over dp_cp.
function Layout:replicas(name, axis)
    self:get(name).replicas = axis
end

--- This rank does not have these parameters.
function Layout:leave(names)
    local gone = {}
    for _, name in ipairs(names) do
        gone[name] = true
        local t = self:get(name).tensor
        self:put(name, nil)
        t:release()
        self.entries[name] = nil
    end
    local left = {}
    for _, name in ipairs(self.names) do
        left[#left + 1] = not gone[name] and name or nil
    end
    self.names = left
end

-- ---- parts and wholes -----------------------------------------------------------------------

--- Of a tensor of the parameter's whole shape what this rank has: a view where it can be one.
function Layout:part(name, t)
    for _, cut in ipairs(self:get(name).cuts) do
        t = apply_cut(t, cut, self.mesh:size(cut.axis), self.mesh:rank(cut.axis))
    end
    return t
end

-- Undo a cut: all ranks of its axis give their parts.
local function join(mesh, cut, t)
    local size, dim = mesh:size(cut.axis), cut.dim
    if size == 1 then
        return t
    end
    local own, shape = 0, t:size()
    for _, piece in ipairs(pieces(cut, size, 0)) do -- the first rank's is the longest
        own = own + piece[2]
    end
    shape[dim + 1] = own
    local from = t:contiguous()
    if t:size(dim) < own then
        from = tensor.zeros(shape, { dtype = t:dtype(), device = t:device() })
        if t:size(dim) > 0 then
            from:narrow(dim, 0, t:size(dim)):copy_(t)
        end
    end
    local all = tensor.empty({ size, from:numel() }, { dtype = t:dtype(), device = t:device() })
    mesh:group(cut.axis):all_gather(all, from):wait()
    local list = {}
    for p in ipairs(cut.parts) do
        for r = 0, size - 1 do
            local at, of = 0, pieces(cut, size, r)
            for before = 1, p - 1 do
                at = at + of[before][2]
            end
            if of[p][2] > 0 then
                list[#list + 1] = all:select(0, r):reshape(shape):narrow(dim, at, of[p][2])
            end
        end
    end
    return #list == 0 and t or cat(list, dim)
end

--- The reverse of part: the whole of a tensor (the parameter, its gradient, a moment) of which each rank has its part.
--- All ranks of the cuts' axes call this together.
function Layout:whole(name, t)
    local cuts = self:get(name).cuts
    for i = #cuts, 1, -1 do
        t = join(self.mesh, cuts[i], t)
    end
    return t
end

--- Is anything cut?
function Layout:is_cut(name)
    return #self:get(name).cuts > 0
end

--- How many ranks of the world have the same part of a parameter.
function Layout:copies(name)
    local n = self.mesh:size("stage")
    for _, cut in ipairs(self:get(name).cuts) do
        n = n / self.mesh:size(cut.axis)
    end
    return n * (self:get(name).stages or 1)
end

--- The sum over the world of numbers that belong to parameters, such as squares of gradients, each counted once: of
--- this rank's, by name.
function Layout:sum(numbers)
    local total = 0
    for _, name in ipairs(self.names) do -- in one order
        total = total + (numbers[name] or 0) / self:copies(name)
    end
    return self.mesh.world:reduce({ total })[1]
end

--- How many numbers the whole model has, and how many of them are trained: all ranks call this together.
function Layout:num_parameters()
    local all, trained = {}, {}
    for _, name in ipairs(self.names) do
        local t = self:get(name).tensor
        all[name], trained[name] = t:numel(), t.requires_grad and t:numel() or nil
    end
    return math.floor(self:sum(all) + 0.5), math.floor(self:sum(trained) + 0.5)
end

return M
