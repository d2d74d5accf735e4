-- Single modules of which each rank of a tensor-parallel group keeps a part: maps cut along what they give (column
-- parallel) or what they take (row parallel), embeddings cut along the vocabulary, norms over what is cut. Each
-- is changed in place and keeps its names; adapters (LoRA, DoRA) are cut with their map. Which modules are cut, and
-- where ranks' results are put together, says tensor_parallel.lua.
--
-- `tp` is what that file makes: ops (tensor_ops.lua), layout, size.

local autograd = require("am.core.autograd")
local err = require("am.core.error")
local ops = require("am.core.ops")

local M = {}

-- ---- parameters -------------------------------------------------------------------------------

--- Keep this rank's part of a parameter along dim; parts as layout:cut's.
function M.cut(tp, name, t, dim, parts)
    if tp.handled[name] or not tp.layout.entries[name] then -- one weight of two modules, or another stage's
        return
    end
    local sizes = parts or { t:size(dim) }
    for _, n in ipairs(sizes) do
        if math.ceil(n / tp.size) * (tp.size - 1) >= n then
            err.raise("usage", "distributed.tp_size: %d ranks cannot share the %d of %s (dim %d), for one would have "
                      .. "none", tp.size, n, name, dim)
        end
    end
    tp.layout:cut(name, "tp", dim, parts)
    tp.handled[name] = true
end

--- The gradient that this rank has of a parameter is a part of a sum.
function M.partial(tp, name)
    if not tp.handled[name] and tp.layout.entries[name] then
        tp.layout:partial(name, "tp")
        tp.handled[name] = true
    end
end

--- The same of all parameters of a module that are whole.
function M.all_partial(tp, path, module)
    for name, owner, slot in module:parameter_slots() do
        if owner[slot.name] and not slot.shared then
            M.partial(tp, path .. "." .. name)
        end
    end
end

-- A module with other values in some fields: changed = { field = function() value }.
local function with_fields(module, changed)
    return setmetatable({}, {
        __index = function(_, key)
            if changed[key] then
                return changed[key]()
            end
            return module[key]
        end,
        __newindex = module,
    })
end

--- A bias of a module that gives a part of a sum: each rank adds its share.
function M.share_field(tp, path, module, field)
    M.partial(tp, path .. "." .. field)
    local plain = module.forward
    local shared = with_fields(module, { [field] = function() return module[field] * (1 / tp.size) end })
    module.forward = function(_, ...) return plain(shared, ...) end
end

-- What DoRA keeps of the whole weight is that of a part now.
local function forget_norms(module)
    if module.squared_rows then
        module.squared_rows:release()
        module.squared_rows = nil
    end
end

-- Rows of a DoRA's weight are cut: their squares are added up over the ranks.
local function add_up_squares(tp, module)
    module.whole_squares = function(_, squares) return tp.ops:all_reduce(squares) end
end

-- ---- maps -------------------------------------------------------------------------------------

-- The dims of what a map gives and takes in its weight, and those in its adapter's: [out, in], turned round in Conv1D,
-- behind a dim of experts in stacks.
local function dims_of(module)
    local first = module.num_experts and 1 or 0
    if module.fan_in_fan_out or module.class_name == "Conv1D" then
        return 1, 0, first
    end
    return first, first + 1, first
end

--- Is a module a map that can be cut?
function M.is_map(module)
    return module.in_features ~= nil and module.out_features ~= nil and module.weight ~= nil
end

--- Cut a map along what it gives: each rank computes a part of it from the whole input. parts: the widths of what is
--- cut on its own.
function M.column(tp, path, module, parts)
    local out, _, first = dims_of(module)
    M.cut(tp, path .. ".weight", module.weight, out, parts)
    if module.bias then
        M.cut(tp, path .. ".bias", module.bias, 0, parts)
    end
    if module.lora_A then
        M.partial(tp, path .. ".lora_A.weight")
        M.cut(tp, path .. ".lora_B.weight", module.lora_B.weight, first, parts)
    end
    if module.lora_magnitude_vector then
        M.cut(tp, path .. ".lora_magnitude_vector.weight", module.lora_magnitude_vector.weight, 0, parts)
    end
    forget_norms(module)
end

--- Cut a map along what it takes: each rank's result is a part of a sum, which leave(y) makes the whole result, before
--- the bias is added. Without leave the parts are what the map gives, each with its share of the bias.
function M.row(tp, path, module, leave)
    local _, into, first = dims_of(module)
    M.cut(tp, path .. ".weight", module.weight, into)
    if module.lora_A then
        M.cut(tp, path .. ".lora_A.weight", module.lora_A.weight, first + 1)
        M.partial(tp, path .. ".lora_B.weight")
    end
    if module.lora_magnitude_vector then
        M.partial(tp, path .. ".lora_magnitude_vector.weight")
        add_up_squares(tp, module)
    end
    forget_norms(module)
    if not leave then
        return module.bias and M.share_field(tp, path, module, "bias")
    end
    local plain = module.forward
    local product = with_fields(module, { bias = function() return nil end })
    module.forward = function(self, x)
        local y = leave(plain(product, x))
        return self.bias and y + self.bias or y
    end
end

--- Cut a map along what it gives, and put the ranks' parts together: it gives what it did. Returns a function (x) that
--- gives this rank's part alone.
function M.column_gathered(tp, path, module)
    local plain, last = module.forward, module.out_features
    M.column(tp, path, module)
    module.forward = function(self, x)
        local y = plain(self, tp.ops.copy(x))
        return tp.ops.gather(y, y:dim() - 1, last)
    end
    return function(x) return plain(module, x) end
end

--- Cut a map along what it takes, which comes whole.
function M.row_split(tp, path, module)
    M.row(tp, path, module, tp.ops.reduce)
    local plain = module.forward
    module.forward = function(self, x)
        local first, count = tp.ops:chunk(module.in_features)
        -- the gradients of the pieces are put together by the sum that copy makes of them
        return plain(self, tp.ops.copy(x):narrow(-1, first, count))
    end
end

-- ---- embeddings -------------------------------------------------------------------------------

-- The padding row among those from `first` on.
local function own_padding(module, first, count)
    local at = module.padding_idx and module.padding_idx - first
    module.padding_idx = at and at >= 0 and at < count and at or nil
end

--- Cut an embedding along the vocabulary: a rank looks up what it has, the others' rows are zeros.
function M.embedding(tp, path, module)
    local first, count = tp.ops:chunk(module.num_embeddings)
    M.cut(tp, path .. ".weight", module.weight, 0)
    if module.lora_embedding_A then
        M.cut(tp, path .. ".lora_embedding_A.weight", module.lora_embedding_A.weight, 0)
        M.partial(tp, path .. ".lora_embedding_B.weight")
        own_padding(module.lora_embedding_A, first, count)
    end
    if module.lora_magnitude_vector then
        M.partial(tp, path .. ".lora_magnitude_vector.weight")
        add_up_squares(tp, module)
        forget_norms(module)
    end
    own_padding(module, first, count)
    local plain = module.lookup
    module.lookup = function(self, index)
        local at, mine = autograd.no_grad(function()
            local row = index - first
            local inside = ops.logical_and(row:ge(0), row:lt(count))
            return ops.where(inside, row, 0), inside:unsqueeze(-1)
        end)
        local rows = plain(self, at)
        return tp.ops.reduce(rows * mine:to(rows:dtype()))
    end
end

-- ---- norms ------------------------------------------------------------------------------------

--- An RMSNorm over numbers of which each rank has a part.
function M.rms_norm(tp, path, module)
    if module.class_name ~= "RMSNorm" then
        err.raise("unsupported", "distributed.tp_size: %s is a %s over heads that ranks share, which is known of "
                  .. "RMSNorm only", path, module.class_name)
    end
    M.cut(tp, path .. ".weight", module.weight, 0)
    module.forward = function(self, x)
        local wide = x:dtype() == "float64" and x or x:to("float32")
        local squares = tp.ops.reduce_shared((wide * wide):sum(-1, true))
        local root = (squares * (1 / self.size) + self.eps):rsqrt()
        return (wide * root * (self.weight:to(wide:dtype()) + self.offset)):to(x:dtype())
    end
end

return M
