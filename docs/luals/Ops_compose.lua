---@meta _
-- Written by docs/api.lua; do not edit. For workspace.library of a Lua language server.
-- luacheck: ignore

---@class am.Ops
local am_Ops = {}

--- The tensor in the dtype that the name says; itself where it has it already.
---@return am.Tensor
function am_Ops.bfloat16(a) end

--- The tensor in the dtype that the name says; itself where it has it already.
---@return am.Tensor
function am_Ops.bool(a) end

--- The tensor in the dtype that the name says; itself where it has it already.
---@return am.Tensor
function am_Ops.double(a) end

--- The tensor in the dtype that the name says; itself where it has it already.
---@return am.Tensor
function am_Ops.float(a) end

--- The tensor in the dtype that the name says; itself where it has it already.
---@return am.Tensor
function am_Ops.half(a) end

--- The tensor in the dtype that the name says; itself where it has it already.
---@return am.Tensor
function am_Ops.int(a) end

--- The tensor in the dtype that the name says; itself where it has it already.
---@return am.Tensor
function am_Ops.long(a) end

--- a, at least min.
---@return am.Tensor
function am_Ops.clamp_min(a, min) end

--- a, at most max.
---@return am.Tensor
function am_Ops.clamp_max(a, max) end

--- a with value (a number or a tensor) where mask is true.
---@return am.Tensor
function am_Ops.masked_fill(a, mask, value) end

--- bool: is an element 0?
---@return am.Tensor
function am_Ops.logical_not(a) end

--- bool: are both not 0?
---@return am.Tensor
function am_Ops.logical_and(a, b) end

--- bool: is at least one of both not 0?
---@return am.Tensor
function am_Ops.logical_or(a, b) end

--- bool: is exactly one of both not 0?
---@return am.Tensor
function am_Ops.logical_xor(a, b) end

--- bool: is an element NaN?
---@return am.Tensor
function am_Ops.isnan(a) end

--- bool: is an element infinite?
---@return am.Tensor
function am_Ops.isinf(a) end

--- bool: is an element neither infinite nor NaN?
---@return am.Tensor
function am_Ops.isfinite(a) end

--- Is any element not 0? Over one dim, a list of dims, or everything.
---@return am.Tensor
function am_Ops.any(a, dim, keepdim) end

--- Are all elements not 0? Over one dim, a list of dims, or everything.
---@return am.Tensor
function am_Ops.all(a, dim, keepdim) end

--- The largest (min: smallest) of everything; with a tensor for dim, of each two elements; with a dim,
--- values and indices along it (ties: the first, which gets the whole gradient).
---@return am.Tensor
---@return am.Tensor?
function am_Ops.max(a, dim, keepdim) end

--- The largest (min: smallest) of everything; with a tensor for dim, of each two elements; with a dim,
--- values and indices along it (ties: the first, which gets the whole gradient).
---@return am.Tensor
---@return am.Tensor?
function am_Ops.min(a, dim, keepdim) end

--- Mean square distance from the mean, the sum divided by the count less correction (1).
---@return am.Tensor
function am_Ops.var(a, dim, correction, keepdim) end

--- The square root of var.
---@return am.Tensor
function am_Ops.std(a, dim, correction, keepdim) end

--- (sum |a|^p)^(1/p), p 2 unless given; math.huge gives the largest |a|, 0 the number of those not 0.
---@return am.Tensor
function am_Ops.norm(a, p, dim, keepdim) end

--- Values and indices in order along dim (the last); equal elements keep their order.
---@return am.Tensor
---@return am.Tensor
function am_Ops.sort(a, dim, descending) end

--- The k largest (smallest: largest false) along dim (the last), in order: values, indices.
---@return am.Tensor
---@return am.Tensor
function am_Ops.topk(a, k, dim, largest) end

--- Places of a router's choice in the order of experts. index [N, k] (int32 or int64, 0 to n_experts - 1)
--- -> order [N k]: places in index's elements, sorted by expert and among equals in their order; offsets
--- int32 [n_experts + 1]: expert e has order's elements offsets[e] to offsets[e + 1] - 1, as grouped_linear
--- takes them; tokens [N k]: the row of index that each comes from.
---@return am.Tensor
function am_Ops.sort_by_expert(index, n_experts) end

--- A matrix transposed.
---@return am.Tensor
function am_Ops.t(a) end

--- The dims from first to last (all) as one.
---@return am.Tensor
function am_Ops.flatten(a, first, last) end

--- a repeated so often along each dim; missing leading dims are added. PyTorch's repeat: that name is
--- a word of Lua's, so it can only be called as t["repeat"](t, …).
---@return am.Tensor
function am_Ops.tile(a, ...) end

--- Tensors of one shape as the slices of a new dim (the first).
---@return am.Tensor
function am_Ops.stack(tensors, dim) end

--- A list of pieces along dim (the first): of so many elements each, or of the sizes in a list.
---@return am.Tensor[]
function am_Ops.split(a, sizes, dim) end

--- At most n pieces of equal size along dim, the last one smaller where they don't divide it.
---@return am.Tensor[]
function am_Ops.chunk(a, n, dim) end

--- A list of the slices along dim, without that dim.
---@return am.Tensor[]
function am_Ops.unbind(a, dim) end

--- The order along each of dims turned round.
---@return am.Tensor
function am_Ops.flip(a, ...) end

--- Elements moved on by shift along dim, those past the end to the front; lists for several dims,
--- without dims in the order of the flattened tensor.
---@return am.Tensor
function am_Ops.roll(a, shifts, dims) end

--- a's elements along dim at index, both broadcast to each other outside of it; without dim from the
--- flattened tensor.
---@return am.Tensor
function am_Ops.take_along_dim(a, index, dim) end

--- a with 0 above (triu: below) a diagonal of the last two dims: the main one, or the one so many further
--- to the right.
---@return am.Tensor
function am_Ops.tril(a, diagonal) end

--- a with 0 above (triu: below) a diagonal of the last two dims: the main one, or the one so many further
--- to the right.
---@return am.Tensor
function am_Ops.triu(a, diagonal) end

--- matmul of tensors with the dims that the name says: mm two matrices, bmm batches of them, mv a matrix
--- and a vector, dot two vectors.
---@return am.Tensor
function am_Ops.bmm(a, b) end

--- matmul of tensors with the dims that the name says: mm two matrices, bmm batches of them, mv a matrix
--- and a vector, dot two vectors.
---@return am.Tensor
function am_Ops.dot(a, b) end

--- matmul of tensors with the dims that the name says: mm two matrices, bmm batches of them, mv a matrix
--- and a vector, dot two vectors.
---@return am.Tensor
function am_Ops.mm(a, b) end

--- matmul of tensors with the dims that the name says: mm two matrices, bmm batches of them, mv a matrix
--- and a vector, dot two vectors.
---@return am.Tensor
function am_Ops.mv(a, b) end

--- [n], [m] -> [n, m]: all products.
---@return am.Tensor
function am_Ops.outer(a, b) end

return am_Ops
