-- Functions under PyTorch's names that are exact compositions of the engine's ops, so their gradients
-- are those of the ops. Adds them to ops.lua's functions and to the methods of tensors; einsum is in
-- einsum.lua. Dims and indices count from 0, negative dims from the end.

local args = require("am.core.args")
local err = require("am.core.error")
local ops = require("am.core.ops")
local tensor = require("am.core.tensor")

local C = require("am.core.ffi").C
local need, whole = args.tensor, args.whole
local M = {}

-- The place of a dim among n, counted from 0.
local function place(what, dim, n)
    dim = whole(what, "dim", dim)
    local d = dim < 0 and dim + n or dim
    if d < 0 or d >= n then
        err.raise("shape", "%s: dim %d of a tensor with %d dims", what, dim, n)
    end
    return d
end

-- Fail unless a has n dims.
local function dims_are(what, a, n)
    if need(what, a):dim() ~= n then
        err.raise("shape", "%s: a tensor with %d dims where %d are needed", what, a:dim(), n)
    end
end

-- Whole numbers that came one by one or as a table.
local function list(what, name, ...)
    if type((...)) == "table" then
        return args.list(what, name, (...))
    end
    for i = 1, select("#", ...) do
        whole(what, name, (select(i, ...)))
    end
    return { ... }
end

local function indices(numbers, a)
    return tensor.tensor(numbers, { dtype = "int64", device = a:device() })
end

-- ---- casts ----------------------------------------------------------------------------------

for name, dtype in pairs { float = "float32", double = "float64", half = "float16", bfloat16 = "bfloat16",
                           int = "int32", long = "int64", bool = "bool" } do
    --- The tensor in the dtype that the name says; itself where it has it already.
    M[name] = function(a) return ops.to(need(name, a), dtype) end
end

-- fn(a) computed in float32 where a has 16 bits, and rounded once.
local function in_f32(what, a, fn)
    local dtype = need(what, a):dtype()
    if dtype == "bfloat16" or dtype == "float16" then
        return ops.to(fn(ops.to(a, "float32")), dtype)
    end
    return fn(a)
end

-- ---- elementwise ----------------------------------------------------------------------------

--- a, at least min.
function M.clamp_min(a, min) return ops.clamp(a, args.number("clamp_min", "min", min)) end
--- a, at most max.
function M.clamp_max(a, max) return ops.clamp(a, nil, args.number("clamp_max", "max", max)) end

--- a with value (a number or a tensor) where mask is true.
function M.masked_fill(a, mask, value)
    return ops.where(need("masked_fill", mask), value, need("masked_fill", a))
end

local function truth(what, a) return need(what, a):dtype() == "bool" and a or ops.ne(a, 0) end

--- bool: is an element 0?
function M.logical_not(a) return ops.eq(need("logical_not", a), 0) end
--- bool: are both not 0?
function M.logical_and(a, b) return ops.where(truth("logical_and", a), truth("logical_and", b), 0) end
--- bool: is at least one of both not 0?
function M.logical_or(a, b) return ops.where(truth("logical_or", a), 1, truth("logical_or", b)) end
--- bool: is exactly one of both not 0?
function M.logical_xor(a, b) return ops.ne(truth("logical_xor", a), truth("logical_xor", b)) end

--- bool: is an element NaN?
function M.isnan(a) return ops.ne(need("isnan", a), a) end

local function is_float(what, a) return need(what, a):dtype():find("float") ~= nil end

--- bool: is an element infinite?
function M.isinf(a) return is_float("isinf", a) and ops.eq(ops.abs(a), math.huge) or ops.ne(a, a) end
--- bool: is an element neither infinite nor NaN?
function M.isfinite(a) return is_float("isfinite", a) and ops.lt(ops.abs(a), math.huge) or ops.eq(a, a) end

-- ---- reductions -----------------------------------------------------------------------------

--- Is any element not 0? Over one dim, a list of dims, or everything.
function M.any(a, dim, keepdim) return ops.gt(ops.sum(truth("any", a), dim, keepdim), 0) end
--- Are all elements not 0? Over one dim, a list of dims, or everything.
function M.all(a, dim, keepdim) return ops.eq(ops.sum(ops.eq(need("all", a), 0), dim, keepdim), 0) end

local function extreme(all, pair, arg)
    --- The largest (min: smallest) of everything; with a tensor for dim, of each two elements; with a dim,
    --- values and indices along it (ties: the first, which gets the whole gradient).
    return function(a, dim, keepdim)
        if dim == nil then
            return all(a)
        elseif tensor.is(dim) then
            return pair(a, dim)
        end
        local index = arg(a, dim, true)
        local value = ops.gather(a, dim, index)
        if keepdim then
            return value, index
        end
        return ops.squeeze(value, dim), ops.squeeze(index, dim)
    end
end
M.max = extreme(ops.amax, ops.maximum, ops.argmax)
M.min = extreme(ops.amin, ops.minimum, ops.argmin)

-- How many elements a reduction over dim (nil, a number or a list) takes together.
local function count(a, dim)
    if dim == nil then
        return a:numel()
    end
    local n = 1
    for _, d in ipairs(type(dim) == "table" and dim or { dim }) do
        n = n * a:size(d)
    end
    return n
end

-- x^(1/p) with gradient 0, not infinity, at 0.
local function root(x, p)
    local zero = ops.eq(x, 0)
    return ops.where(zero, 0, ops.pow(ops.where(zero, 1, x), 1 / p))
end

--- Mean square distance from the mean, the sum divided by the count less correction (1).
function M.var(a, dim, correction, keepdim)
    correction = args.number("var", "correction", correction, 1)
    return in_f32("var", a, function(x)
        local d = x - ops.mean(x, dim, true)
        return ops.sum(d * d, dim, keepdim) / math.max(count(x, dim) - correction, 0)
    end)
end

--- The square root of var.
function M.std(a, dim, correction, keepdim)
    return in_f32("std", a, function(x) return root(M.var(x, dim, correction, keepdim), 2) end)
end

--- (sum |a|^p)^(1/p), p 2 unless given; math.huge gives the largest |a|, 0 the number of those not 0.
function M.norm(a, p, dim, keepdim)
    p = args.number("norm", "p", p, 2)
    return in_f32("norm", a, function(x)
        if p == math.huge then
            return ops.amax(ops.abs(x), dim, keepdim)
        elseif p == -math.huge then
            return ops.amin(ops.abs(x), dim, keepdim)
        elseif p == 0 then
            return ops.to(ops.sum(ops.ne(x, 0), dim, keepdim), x:dtype())
        elseif p == 1 then
            return ops.sum(ops.abs(x), dim, keepdim)
        end
        return root(ops.sum(p == 2 and x * x or ops.pow(ops.abs(x), p), dim, keepdim), p)
    end)
end

-- ---- orders ---------------------------------------------------------------------------------

--- Values and indices in order along dim (the last); equal elements keep their order.
function M.sort(a, dim, descending)
    local index = ops.argsort(a, dim, descending)
    return ops.gather(a, dim or -1, index), index
end

--- The k largest (smallest: largest false) along dim (the last), in order: values, indices.
function M.topk(a, k, dim, largest)
    dim, k = dim or -1, whole("topk", "k", k)
    local index = ops.narrow(ops.argsort(a, dim, largest ~= false), dim, 0, k)
    return ops.gather(a, dim, index), index
end

-- ---- mixtures of experts --------------------------------------------------------------------

--- Places of a router's choice in the order of experts. index [N, k] (int32 or int64, 0 to n_experts - 1)
--- -> order [N k]: places in index's elements, sorted by expert and among equals in their order; offsets
--- int32 [n_experts + 1]: expert e has order's elements offsets[e] to offsets[e + 1] - 1, as grouped_linear
--- takes them; tokens [N k]: the row of index that each comes from.
function M.sort_by_expert(index, n_experts)
    dims_are("sort_by_expert", index, 2)
    if whole("sort_by_expert", "the number of experts", n_experts) < 1 then
        err.raise("argument", "sort_by_expert: %d experts", n_experts)
    end
    local n, k, at = index:size(0), index:size(1), { dtype = "int64", device = index:device() }
    local flat = ops.reshape(index, n * k)
    local order = ops.argsort(flat)
    local ones = tensor.ones({ n * k }, at)
    local counts = ops.scatter_add(tensor.zeros({ n_experts }, at), 0, flat, ones)
    local offsets = ops.cat { tensor.zeros({ 1 }, at), ops.cumsum(counts, 0) }
    local rows = ops.cumsum(tensor.ones({ n, 1 }, at), 0) - 1
    return order, ops.to(offsets, "int32"),
           ops.index_select(ops.reshape(ops.expand(rows, n, k), n * k), 0, order)
end

-- ---- shape ----------------------------------------------------------------------------------

--- A matrix transposed.
function M.t(a)
    dims_are("t", a, 2)
    return ops.transpose(a, 0, 1)
end

--- The dims from first to last (all) as one.
function M.flatten(a, first, last)
    local shape, n = need("flatten", a):size(), math.max(a:dim(), 1)
    first, last = place("flatten", first or 0, n), place("flatten", last or -1, n)
    if first > last then
        err.raise("shape", "flatten: dim %d lies behind dim %d", first, last)
    end
    local flat, size = {}, 1
    for d = 1, #shape do
        if d <= first or d > last + 1 then
            flat[#flat + 1] = shape[d]
        else
            size = size * shape[d]
            if d == last + 1 then
                flat[#flat + 1] = size
            end
        end
    end
    return ops.reshape(a, #shape == 0 and { 1 } or flat)
end

--- a repeated so often along each dim; missing leading dims are added. PyTorch's repeat: that name is
--- a word of Lua's, so it can only be called as t["repeat"](t, …).
function M.tile(a, ...)
    local times, shape = list("tile", "a number of repeats", ...), need("tile", a):size()
    while #shape < #times do table.insert(shape, 1, 1) end
    a = ops.reshape(a, shape)
    for i, n in ipairs(times) do
        if n < 0 then
            err.raise("argument", "tile: %d repeats", n)
        end
        local d, spread = #shape - #times + i, { unpack(shape) }
        table.insert(spread, d, n)
        shape[d] = n * shape[d]
        a = ops.reshape(ops.expand(ops.unsqueeze(a, d - 1), spread), shape)
    end
    return a
end
M["repeat"] = M.tile

--- Tensors of one shape as the slices of a new dim (the first).
function M.stack(tensors, dim)
    local parts = {}
    if type(tensors) ~= "table" then
        err.raise("argument", "stack: a table of tensors is needed, not a %s", type(tensors))
    end
    for i, t in ipairs(args.dense("stack: the table of tensors", tensors)) do
        parts[i] = ops.unsqueeze(t, dim or 0)
    end
    return ops.cat(parts, dim or 0)
end

--- A list of pieces along dim (the first): of so many elements each, or of the sizes in a list.
function M.split(a, sizes, dim)
    dim = dim or 0
    local all, at, parts = need("split", a):size(dim), 0, {}
    if type(sizes) ~= "table" then
        local each = whole("split", "the size of a piece", sizes)
        if each < 1 then
            err.raise("argument", "split: pieces of %d elements", each)
        end
        sizes = {}
        for i = 1, math.max(math.ceil(all / each), 1) do sizes[i] = math.min(each, all - (i - 1) * each) end
    end
    for i, n in ipairs(args.list("split", "the list of sizes", sizes)) do
        parts[i] = ops.narrow(a, dim, at, n)
        at = at + n
    end
    if at ~= all then
        err.raise("shape", "split: sizes add up to %d, but dim %d has %d", at, dim, all)
    end
    return parts
end

--- At most n pieces of equal size along dim, the last one smaller where they don't divide it.
function M.chunk(a, n, dim)
    if whole("chunk", "the number of pieces", n) < 1 then
        err.raise("argument", "chunk: %d pieces", n)
    end
    return M.split(a, math.max(math.ceil(need("chunk", a):size(dim or 0) / n), 1), dim)
end

--- A list of the slices along dim, without that dim.
function M.unbind(a, dim)
    local parts = {}
    for i = 1, need("unbind", a):size(dim or 0) do
        parts[i] = ops.select(a, dim or 0, i - 1)
    end
    return parts
end

--- The order along each of dims turned round.
function M.flip(a, ...)
    need("flip", a)
    for _, dim in ipairs(list("flip", "dim", ...)) do
        local n, reversed = a:size(dim), {}
        for i = 1, n do reversed[i] = n - i end
        a = ops.index_select(a, dim, indices(reversed, a))
    end
    return a
end

--- Elements moved on by shift along dim, those past the end to the front; lists for several dims,
--- without dims in the order of the flattened tensor.
function M.roll(a, shifts, dims)
    if dims == nil then
        return ops.reshape(M.roll(ops.reshape(need("roll", a), -1), shifts, 0), a:size())
    end
    shifts, dims = list("roll", "shift", shifts), list("roll", "dim", dims)
    if #shifts ~= #dims then
        err.raise("argument", "roll: %d shifts for %d dims", #shifts, #dims)
    end
    for i, dim in ipairs(dims) do
        local n = need("roll", a):size(dim)
        local at = n > 0 and shifts[i] % n or 0
        if at > 0 then
            a = ops.cat({ ops.narrow(a, dim, n - at, at), ops.narrow(a, dim, 0, n - at) }, dim)
        end
    end
    return a
end

--- a's elements along dim at index, both broadcast to each other outside of it; without dim from the
--- flattened tensor.
function M.take_along_dim(a, index, dim)
    if dim == nil then
        return ops.gather(ops.reshape(a, -1), 0, ops.reshape(need("take_along_dim", index), -1))
    end
    dims_are("take_along_dim", index, need("take_along_dim", a):dim())
    local at = place("take_along_dim", dim, a:dim()) + 1
    local from, to = a:size(), index:size()
    for d = 1, #from do
        if d ~= at then
            local n = from[d] == 1 and to[d] or from[d]
            from[d], to[d] = n, n
        end
    end
    return ops.gather(ops.expand(a, from), dim, ops.expand(index, to))
end

local function triangle(name, keep)
    --- a with 0 above (triu: below) a diagonal of the last two dims: the main one, or the one so many further
    --- to the right.
    M[name] = function(a, diagonal)
        diagonal = whole(name, "diagonal", diagonal, 0)
        if need(name, a):dim() < 2 then
            err.raise("shape", "%s: a tensor with %d dims where 2 are needed", name, a:dim())
        end
        local function numbers(n)
            local t = {}
            for i = 1, n do t[i] = i - 1 end
            return indices(t, a)
        end
        local rows = ops.unsqueeze(numbers(a:size(-2)), 1) + diagonal
        return ops.where(keep(numbers(a:size(-1)), rows), a, 0)
    end
end
triangle("tril", ops.le)
triangle("triu", ops.ge)

-- ---- products -------------------------------------------------------------------------------

for name, dims in pairs { mm = { 2, 2 }, bmm = { 3, 3 }, mv = { 2, 1 }, dot = { 1, 1 } } do
    --- matmul of tensors with the dims that the name says: mm two matrices, bmm batches of them, mv a matrix
    --- and a vector, dot two vectors.
    M[name] = function(a, b)
        dims_are(name, a, dims[1])
        dims_are(name, b, dims[2])
        if name == "bmm" and a:size(0) ~= b:size(0) then
            err.raise("shape", "bmm: batches of %d and %d", a:size(0), b:size(0))
        end
        return ops.matmul(a, b)
    end
end

--- [n], [m] -> [n, m]: all products.
function M.outer(a, b)
    dims_are("outer", a, 1)
    dims_are("outer", b, 1)
    return ops.unsqueeze(a, 1) * b
end

-- ---- in place -------------------------------------------------------------------------------

for _, name in ipairs { "add", "sub", "mul", "div" } do
    local op = ops[name]
    --- t = t op b, or t op alpha * b. Not recorded.
    tensor.methods[name .. "_"] = function(t, b, alpha)
        local before = C.am_grad_mode_set(0)
        local ok, e = pcall(function()
            need(name .. "_", t)
            if type(alpha) == "number" and type(b) == "number" then
                b, alpha = b * alpha, nil
            end
            t:copy_(op(t, alpha and ops.mul(b, alpha) or b))
        end)
        C.am_grad_mode_set(before)
        if not ok then
            error(e, 0)
        end
        return t
    end
end

for name, fn in pairs(M) do
    ops[name] = fn
    if name ~= "stack" then
        tensor.methods[name] = fn
    end
end

return M
