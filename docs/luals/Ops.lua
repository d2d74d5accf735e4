---@meta _
-- Written by docs/api.lua; do not edit. For workspace.library of a Lua language server.
-- luacheck: ignore

---@class am.Ops
local am_Ops = {}

--- a + b; either may be a number.
---@return am.Tensor
function am_Ops.add(a, b) end

--- a - b; either may be a number.
---@return am.Tensor
function am_Ops.sub(a, b) end

--- a * b, element by element; either may be a number.
---@return am.Tensor
function am_Ops.mul(a, b) end

--- a / b; whole numbers are divided as float32.
---@return am.Tensor
function am_Ops.div(a, b) end

--- Element by element; b (or a) may be a number. Comparisons give bool.
---@return am.Tensor
function am_Ops.eq(a, b) end

--- Element by element; b (or a) may be a number. Comparisons give bool.
---@return am.Tensor
function am_Ops.ge(a, b) end

--- Element by element; b (or a) may be a number. Comparisons give bool.
---@return am.Tensor
function am_Ops.gt(a, b) end

--- Element by element; b (or a) may be a number. Comparisons give bool.
---@return am.Tensor
function am_Ops.le(a, b) end

--- Element by element; b (or a) may be a number. Comparisons give bool.
---@return am.Tensor
function am_Ops.lt(a, b) end

--- Element by element; b (or a) may be a number. Comparisons give bool.
---@return am.Tensor
function am_Ops.maximum(a, b) end

--- Element by element; b (or a) may be a number. Comparisons give bool.
---@return am.Tensor
function am_Ops.minimum(a, b) end

--- Element by element; b (or a) may be a number. Comparisons give bool.
---@return am.Tensor
function am_Ops.ne(a, b) end

--- a ^ b; either may be a number.
---@return am.Tensor
function am_Ops.pow(a, b) end

--- A new tensor of a's shape.
---@return am.Tensor
function am_Ops.abs(a) end

--- A new tensor of a's shape.
---@return am.Tensor
function am_Ops.ceil(a) end

--- A new tensor of a's shape.
---@return am.Tensor
function am_Ops.contiguous(a) end

--- A new tensor of a's shape.
---@return am.Tensor
function am_Ops.cos(a) end

--- A new tensor of a's shape.
---@return am.Tensor
function am_Ops.erf(a) end

--- A new tensor of a's shape.
---@return am.Tensor
function am_Ops.exp(a) end

--- A new tensor of a's shape.
---@return am.Tensor
function am_Ops.expm1(a) end

--- A new tensor of a's shape.
---@return am.Tensor
function am_Ops.floor(a) end

--- A new tensor of a's shape.
---@return am.Tensor
function am_Ops.log(a) end

--- A new tensor of a's shape.
---@return am.Tensor
function am_Ops.log1p(a) end

--- A new tensor of a's shape.
---@return am.Tensor
function am_Ops.neg(a) end

--- A new tensor of a's shape.
---@return am.Tensor
function am_Ops.quick_gelu(a) end

--- A new tensor of a's shape.
---@return am.Tensor
function am_Ops.relu(a) end

--- A new tensor of a's shape.
---@return am.Tensor
function am_Ops.relu2(a) end

--- A new tensor of a's shape.
---@return am.Tensor
function am_Ops.round(a) end

--- A new tensor of a's shape.
---@return am.Tensor
function am_Ops.rsqrt(a) end

--- A new tensor of a's shape.
---@return am.Tensor
function am_Ops.sigmoid(a) end

--- A new tensor of a's shape.
---@return am.Tensor
function am_Ops.sign(a) end

--- A new tensor of a's shape.
---@return am.Tensor
function am_Ops.silu(a) end

--- A new tensor of a's shape.
---@return am.Tensor
function am_Ops.sin(a) end

--- A new tensor of a's shape.
---@return am.Tensor
function am_Ops.softplus(a) end

--- A new tensor of a's shape.
---@return am.Tensor
function am_Ops.sqrt(a) end

--- A new tensor of a's shape.
---@return am.Tensor
function am_Ops.tanh(a) end

--- GELU; approximate "tanh" or "none" (by erf, the default).
---@return am.Tensor
function am_Ops.gelu(a, approximate) end

--- a within min and max, each of which may be left out.
---@return am.Tensor
function am_Ops.clamp(a, min, max) end

--- a where cond is true, else b (either may be a number).
---@return am.Tensor
function am_Ops.where(cond, a, b) end

--- Another dtype and/or device: t:to("bfloat16"), t:to("ref"), t:to{dtype=, device=}. Moving to
--- another device is not recorded.
---@return am.Tensor
function am_Ops.to(a, target) end

--- Zero each element with probability p and scale the rest by 1/(1-p); the identity unless training.
---@return am.Tensor
function am_Ops.dropout(a, p, training) end

--- dim: a number, a list of them, or nil for all.
---@return am.Tensor
function am_Ops.amax(a, dim, keepdim) end

--- dim: a number, a list of them, or nil for all.
---@return am.Tensor
function am_Ops.amin(a, dim, keepdim) end

--- dim: a number, a list of them, or nil for all.
---@return am.Tensor
function am_Ops.argmax(a, dim, keepdim) end

--- dim: a number, a list of them, or nil for all.
---@return am.Tensor
function am_Ops.argmin(a, dim, keepdim) end

--- dim: a number, a list of them, or nil for all.
---@return am.Tensor
function am_Ops.logsumexp(a, dim, keepdim) end

--- dim: a number, a list of them, or nil for all.
---@return am.Tensor
function am_Ops.mean(a, dim, keepdim) end

--- dim: a number, a list of them, or nil for all.
---@return am.Tensor
function am_Ops.prod(a, dim, keepdim) end

--- dim: a number, a list of them, or nil for all.
---@return am.Tensor
function am_Ops.sum(a, dim, keepdim) end

--- Along dim; a's shape.
---@return am.Tensor
function am_Ops.cumsum(a, dim) end

--- Along dim; a's shape.
---@return am.Tensor
function am_Ops.log_softmax(a, dim) end

--- Along dim; a's shape.
---@return am.Tensor
function am_Ops.softmax(a, dim) end

--- Indices that sort a along dim (the last), equal elements in their order, NaN as the greatest.
---@return am.Tensor
function am_Ops.argsort(a, dim, descending) end

--- Same elements in another shape; one size may be -1. reshape(a, 2, 3) or reshape(a, {2, 3}).
---@return am.Tensor
function am_Ops.reshape(a, ...) end

--- Same elements in another shape; one size may be -1. reshape(a, 2, 3) or reshape(a, {2, 3}).
---@return am.Tensor
function am_Ops.view(a, ...) end

--- A view with dims of size 1 repeated to these sizes; -1 keeps one. Leading dims may be added.
---@return am.Tensor
function am_Ops.expand(a, ...) end

--- A view with the dims in this order.
---@return am.Tensor
function am_Ops.permute(a, ...) end

--- A view with two dims exchanged.
---@return am.Tensor
function am_Ops.transpose(a, dim0, dim1) end

--- length elements of dim from start (a view); every step-th where a step is given.
---@return am.Tensor
function am_Ops.narrow(a, dim, start, length, step) end

--- One index of a dim, which disappears.
---@return am.Tensor
function am_Ops.select(a, dim, index) end

--- A view with a dim of size 1 put in at dim.
---@return am.Tensor
function am_Ops.unsqueeze(a, dim) end

--- Drop a dim of size 1; all of them when none is named.
---@return am.Tensor
function am_Ops.squeeze(a, dim) end

--- Join tensors along dim (the first).
---@return am.Tensor
function am_Ops.cat(list, dim) end

--- The slices of a along dim at index (a vector of whole numbers), in its order.
---@return am.Tensor
function am_Ops.index_select(a, dim, index) end

--- a's elements along dim at index, which may be smaller than a in the other dims.
---@return am.Tensor
function am_Ops.gather(a, dim, index) end

--- a with src added along dim at index.
---@return am.Tensor
function am_Ops.index_add(a, dim, index, src) end

--- a with src added along dim at index.
---@return am.Tensor
function am_Ops.scatter_add(a, dim, index, src) end

--- Matrix product; a vector counts as a row on the left and as a column on the right.
---@return am.Tensor
function am_Ops.matmul(a, b) end

return am_Ops
