-- One thin function per op of the registry (engine/ops/ops.def), PyTorch's names and argument order.
-- Those that take a tensor first are also methods: ops.add(a, b) is a:add(b). dims count from 0,
-- negative ones from the end. Numbers are accepted for either operand of arithmetic. A model's own ops
-- are in model_ops.lua, what is composed of ops in compose.lua.

local ffi = require("ffi")
local C = require("am.core.ffi").C
local apply = require("am.core.apply")
local args = require("am.core.args")
local err = require("am.core.error")
local tensor = require("am.core.tensor")

local inputs, run, new_attrs, given = apply.inputs, apply.run, apply.new_attrs, apply.given
local apply1, apply2, apply3 = apply.apply1, apply.apply2, apply.apply3
local need, whole, int = args.tensor, args.whole, args.int
local CAT = 6 -- tensors that the op takes

local M = {}
for name, fn in pairs(require("am.core.model_ops")) do
    M[name] = fn
end

-- ---- elementwise ----------------------------------------------------------------------------

local function scalar(op, a, value)
    local at = new_attrs()
    at.scalar.value = value
    return apply1(op, a, at)
end

local whole_dtypes = { [C.AM_I32] = true, [C.AM_I64] = true, [C.AM_U8] = true, [C.AM_BOOL] = true }

-- A number with a fraction has no place beside whole numbers, where it would be cut. What is no tensor
-- is told by the op that takes it. (The remainder by 1 would be shorter; now and then LuaJIT 2.1 of 2022 crashes as it
-- compiles it here.)
local function fits(value, t)
    if value - math.floor(value) ~= 0 and tensor.is(t) and whole_dtypes[C.am_tensor_dtype(t)] then
        err.raise("argument", "%g is no whole number, but the tensor is %s; use :float() first", value,
                  t:dtype())
    end
    return value
end

-- A number on either side becomes a one-element tensor of the other's dtype, unless a scalar op
-- does it directly.
local function like(value, t)
    fits(value, t)
    return tensor.full({}, value, { dtype = t:dtype(), device = t:device() })
end

local function operands(a, b)
    if type(a) == "number" and tensor.is(b) then
        return like(a, b), b
    end
    if type(b) == "number" and tensor.is(a) then
        return a, like(b, a)
    end
    return a, b
end

--- a + b; either may be a number.
function M.add(a, b)
    if type(b) == "number" then return scalar(C.AM_OP_add_scalar, a, fits(b, a)) end
    if type(a) == "number" then return scalar(C.AM_OP_add_scalar, b, fits(a, b)) end
    return apply2(C.AM_OP_add, a, b)
end

--- a - b; either may be a number.
function M.sub(a, b)
    if type(b) == "number" then return scalar(C.AM_OP_add_scalar, a, -fits(b, a)) end
    a, b = operands(a, b)
    return apply2(C.AM_OP_sub, a, b)
end

--- a * b, element by element; either may be a number.
function M.mul(a, b)
    if type(b) == "number" then return scalar(C.AM_OP_mul_scalar, a, fits(b, a)) end
    if type(a) == "number" then return scalar(C.AM_OP_mul_scalar, b, fits(a, b)) end
    return apply2(C.AM_OP_mul, a, b)
end

local function float_operand(x)
    return tensor.is(x) and whole_dtypes[C.am_tensor_dtype(x)] and M.to(x, C.AM_F32) or x
end

--- a / b; whole numbers are divided as float32.
function M.div(a, b)
    a, b = operands(float_operand(a), float_operand(b))
    return apply2(C.AM_OP_div, a, b)
end

for _, name in ipairs { "maximum", "minimum", "eq", "ne", "lt", "le", "gt", "ge" } do
    local op = C["AM_OP_" .. name]
    --- Element by element; b (or a) may be a number. Comparisons give bool.
    M[name] = function(a, b)
        a, b = operands(a, b)
        return apply2(op, a, b)
    end
end

--- a ^ b; either may be a number.
function M.pow(a, b)
    if type(b) == "number" then return scalar(C.AM_OP_pow_scalar, a, b) end
    a, b = operands(a, b)
    return apply2(C.AM_OP_pow, a, b)
end

for _, name in ipairs { "neg", "abs", "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "sin", "cos",
                        "tanh", "erf", "sigmoid", "relu", "softplus", "silu", "relu2", "quick_gelu", "sign", "floor",
                        "ceil", "round", "contiguous" } do
    local op = C["AM_OP_" .. name]
    --- A new tensor of a's shape.
    M[name] = function(a) return apply1(op, a) end
end

--- GELU; approximate "tanh" or "none" (by erf, the default).
function M.gelu(a, approximate)
    if approximate ~= nil and approximate ~= "tanh" and approximate ~= "none" then
        err.raise("argument", "gelu: approximate is %s, not \"tanh\" or \"none\"", tostring(approximate))
    end
    return apply1(approximate == "tanh" and C.AM_OP_gelu_tanh or C.AM_OP_gelu, a)
end

--- a within min and max, each of which may be left out.
function M.clamp(a, min, max)
    local at = new_attrs()
    at.clamp.min = args.number("clamp", "min", min, -math.huge)
    at.clamp.max = args.number("clamp", "max", max, math.huge)
    return apply1(C.AM_OP_clamp, a, at)
end

--- a where cond is true, else b (either may be a number).
function M.where(cond, a, b)
    if type(a) == "number" and type(b) == "number" then
        a = tensor.full({}, a, { device = need("where", cond):device() })
    end
    a, b = operands(a, b)
    return apply3(C.AM_OP_where, cond, a, given(C.AM_OP_where, b))
end

-- The dtype and the device that a name, or a table of both, stands for.
local function targets(target)
    if type(target) == "table" then
        args.options("to", target, { "dtype", "device" })
        return target.dtype, target.device
    elseif target == nil or pcall(tensor.dtype_id, target) then
        return target
    elseif pcall(tensor.device_id, target) then
        return nil, target
    end
    local names = {}
    for id = 0, C.AM_DTYPE_COUNT - 1 do names[#names + 1] = tensor.dtype_name(id) end
    for id = 0, C.am_device_count() - 1 do names[#names + 1] = ffi.string(C.am_device_name(id)) end
    err.raise("argument", "to: %s is neither a dtype nor a device here%s; there are %s", tostring(target),
              args.did_you_mean(tostring(target), names), table.concat(names, ", "))
end

--- Another dtype and/or device: t:to("bfloat16"), t:to("ref"), t:to{dtype=, device=}. Moving to
--- another device is not recorded.
function M.to(a, target)
    local dtype, device = targets(target)
    need("to", a)
    if device and tensor.device_id(device) ~= C.am_tensor_device(a) then
        local moved = tensor.empty(a:size(), { dtype = dtype or a:dtype(), device = device })
        return moved:copy_(a)
    end
    if not dtype or tensor.dtype_id(dtype) == C.am_tensor_dtype(a) then
        return a
    end
    local at = new_attrs()
    at.cast.dtype = tensor.dtype_id(dtype)
    return apply1(C.AM_OP_cast, a, at)
end

--- Zero each element with probability p and scale the rest by 1/(1-p); the identity unless training.
function M.dropout(a, p, training)
    args.number("dropout", "p", p)
    if training == false or p == 0 then
        return need("dropout", a)
    end
    local at = new_attrs()
    at.dropout.p = p
    return apply1(C.AM_OP_dropout, a, at)
end

-- ---- reductions -----------------------------------------------------------------------------

-- 1-based place of a dim among n.
local function place(what, dim, n)
    dim = whole(what, "dim", dim)
    local at = dim < 0 and dim + n + 1 or dim + 1
    if at < 1 or at > n then
        err.raise("shape", "%s: dim %d of %d", what, dim, n)
    end
    return at
end

-- A reduction over several dims: they go to the end and become one.
local function over_dims(name, a, dims, keepdim)
    local shape, gone, order, rest, n = need(name, a):size(), {}, {}, {}, 1
    for _, dim in ipairs(args.list(name, "dim", dims)) do
        local at = place(name, dim, #shape)
        if gone[at] then
            err.raise("shape", "%s: dim %d is named twice", name, dim)
        end
        gone[at] = true
    end
    for d, size in ipairs(shape) do
        if not gone[d] then
            order[#order + 1], rest[#rest + 1] = d - 1, size
        end
    end
    for d in pairs(gone) do
        order[#order + 1], n, shape[d] = d - 1, n * shape[d], 1
    end
    rest[#rest + 1] = n
    local reduced = M[name](M.reshape(M.permute(a, order), rest), -1)
    return keepdim and M.reshape(reduced, shape) or reduced
end

for _, name in ipairs { "sum", "mean", "amax", "amin", "argmax", "argmin", "prod", "logsumexp" } do
    local op = C["AM_OP_" .. name]
    --- dim: a number, a list of them, or nil for all.
    M[name] = function(a, dim, keepdim)
        if name == "logsumexp" and need(name, a):numel() == 0 then -- -inf, the logarithm of an empty sum
            return M.log(M.sum(M.exp(a), dim, keepdim))
        end
        if type(dim) == "table" then
            if next(dim) ~= nil then return over_dims(name, a, dim, keepdim) end
            dim = nil
        end
        local at = new_attrs()
        at.reduce.dim = dim and int(name, "dim", dim) or C.AM_ALL_DIMS
        at.reduce.keepdim = keepdim and 1 or 0
        return apply1(op, a, at)
    end
end

for _, name in ipairs { "softmax", "log_softmax", "cumsum" } do
    local op = C["AM_OP_" .. name]
    --- Along dim; a's shape.
    M[name] = function(a, dim)
        local at = new_attrs()
        at.dim.dim = int(name, "dim", dim)
        return apply1(op, a, at)
    end
end

--- Indices that sort a along dim (the last), equal elements in their order, NaN as the greatest.
function M.argsort(a, dim, descending)
    local at = new_attrs()
    at.argsort.dim, at.argsort.descending = int("argsort", "dim", dim, -1), descending and 1 or 0
    return apply1(C.AM_OP_argsort, a, at)
end

-- ---- shape ----------------------------------------------------------------------------------

-- Whole numbers that came one by one or as a table.
local function sizes(what, ...)
    if type((...)) == "table" then
        return args.list(what, "the shape", (...))
    end
    for i = 1, select("#", ...) do
        whole(what, "a size", (select(i, ...)))
    end
    return { ... }
end

local function with_shape(op, a, shape)
    if #shape > C.AM_MAX_DIMS then
        err.raise("shape", "%d dims, but a tensor has at most %d", #shape, C.AM_MAX_DIMS)
    end
    local at = new_attrs()
    at.view.ndim = #shape
    for i = 1, #shape do
        at.view.shape[i - 1] = shape[i]
    end
    return apply1(op, a, at)
end

--- Same elements in another shape; one size may be -1. reshape(a, 2, 3) or reshape(a, {2, 3}).
function M.reshape(a, ...)
    local n = select("#", ...)
    if n > 4 or type((...)) ~= "number" then
        return with_shape(C.AM_OP_reshape, a, sizes("reshape", ...))
    end
    -- the same without a table: a model's layer does this a few times for each token
    local at, s0, s1, s2, s3 = new_attrs(), ...
    local shape = at.view.shape
    at.view.ndim, shape[0] = n, whole("reshape", "a size", s0)
    if n > 1 then shape[1] = whole("reshape", "a size", s1) end
    if n > 2 then shape[2] = whole("reshape", "a size", s2) end
    if n > 3 then shape[3] = whole("reshape", "a size", s3) end
    return apply1(C.AM_OP_reshape, a, at)
end
M.view = M.reshape

--- A view with dims of size 1 repeated to these sizes; -1 keeps one. Leading dims may be added.
function M.expand(a, ...) return with_shape(C.AM_OP_expand, a, sizes("expand", ...)) end

--- A view with the dims in this order.
function M.permute(a, ...)
    local dims = sizes("permute", ...)
    local at = new_attrs()
    if #dims > C.AM_MAX_DIMS then
        err.raise("shape", "permute: too many dims")
    end
    at.permute.ndim = #dims
    for i = 1, #dims do
        at.permute.dims[i - 1] = dims[i]
    end
    return apply1(C.AM_OP_permute, a, at)
end

--- A view with two dims exchanged.
function M.transpose(a, dim0, dim1)
    local at = new_attrs()
    at.transpose.dim0, at.transpose.dim1 = int("transpose", "dim0", dim0), int("transpose", "dim1", dim1)
    return apply1(C.AM_OP_transpose, a, at)
end

--- length elements of dim from start (a view); every step-th where a step is given.
function M.narrow(a, dim, start, length, step)
    local at = new_attrs()
    at.narrow.dim, at.narrow.start = int("narrow", "dim", dim), whole("narrow", "start", start)
    at.narrow.length, at.narrow.step = whole("narrow", "length", length), whole("narrow", "step", step, 1)
    return apply1(C.AM_OP_narrow, a, at)
end

--- One index of a dim, which disappears.
function M.select(a, dim, index)
    local part = M.narrow(need("select", a), int("select", "dim", dim), whole("select", "index", index), 1)
    local shape = a:size()
    table.remove(shape, dim < 0 and dim + #shape + 1 or dim + 1)
    return M.reshape(part, shape)
end

--- A view with a dim of size 1 put in at dim.
function M.unsqueeze(a, dim)
    local shape = need("unsqueeze", a):size()
    table.insert(shape, place("unsqueeze", dim, #shape + 1), 1)
    return M.reshape(a, shape)
end

--- Drop a dim of size 1; all of them when none is named.
function M.squeeze(a, dim)
    local shape, kept = need("squeeze", a):size(), {}
    local at = dim and place("squeeze", dim, #shape)
    for i, n in ipairs(shape) do
        if n ~= 1 or (at and i ~= at) then
            kept[#kept + 1] = n
        end
    end
    return M.reshape(a, kept)
end

--- Join tensors along dim (the first).
function M.cat(list, dim)
    if type(list) ~= "table" or #list < 1 then
        err.raise("argument", "cat: a table of tensors is needed, and one tensor at least")
    end
    args.dense("cat: the table of tensors", list)
    while #list > CAT do
        local joined = {}
        for i = 1, #list, CAT do
            joined[#joined + 1] = M.cat({ unpack(list, i, math.min(i + CAT - 1, #list)) }, dim)
        end
        list = joined
    end
    for i, t in ipairs(list) do
        inputs[i - 1] = given(C.AM_OP_cat, t)
    end
    local at = new_attrs()
    at.dim.dim = int("cat", "dim", dim, 0)
    return run(C.AM_OP_cat, #list, at, list)
end

--- The slices of a along dim at index (a vector of whole numbers), in its order.
function M.index_select(a, dim, index)
    local at = new_attrs()
    at.dim.dim = int("index_select", "dim", dim)
    return apply2(C.AM_OP_index_select, a, index, at)
end

--- a's elements along dim at index, which may be smaller than a in the other dims.
function M.gather(a, dim, index)
    dim = int("gather", "dim", dim)
    local shape, along = need("gather", a):size(), dim < 0 and dim + a:dim() or dim
    need("gather", index)
    for d = 0, index:dim() == #shape and #shape - 1 or -1 do
        if d ~= along and index:size(d) < shape[d + 1] then
            a = M.narrow(a, d, 0, index:size(d))
        end
    end
    local at = new_attrs()
    at.dim.dim = dim
    return apply2(C.AM_OP_gather, a, index, at)
end

for _, name in ipairs { "index_add", "scatter_add" } do
    local op = C["AM_OP_" .. name]
    --- a with src added along dim at index.
    M[name] = function(a, dim, index, src)
        local at = new_attrs()
        at.dim.dim = int(name, "dim", dim)
        return apply3(op, a, index, given(op, src), at)
    end
end

-- ---- matrix products ------------------------------------------------------------------------

--- Matrix product; a vector counts as a row on the left and as a column on the right.
function M.matmul(a, b)
    local row, column = need("matmul", a):dim() == 1, need("matmul", b):dim() == 1
    if not (row or column) then return apply2(C.AM_OP_matmul, a, b) end
    local product = M.matmul(row and M.unsqueeze(a, 0) or a, column and M.unsqueeze(b, 1) or b)
    local shape = product:size()
    if column then shape[#shape] = nil end
    if row then table.remove(shape, #shape - (column and 0 or 1)) end
    return M.reshape(product, shape)
end

local not_methods = { lora_linear = true, linear_cross_entropy = true, cat = true }
for name, fn in pairs(M) do
    if not not_methods[name] then
        tensor.methods[name] = fn
    end
end

return M
