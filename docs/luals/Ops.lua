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

--- einsum("bij,bjk->bik", a, b): letters name dims; those that the right side lacks are summed over.
--- "..." stands for any number of further dims, which broadcast.
---@param spec string
---@param ... am.Tensor
---@return am.Tensor
function am_Ops.einsum(spec, ...) end

--- x weight^T + bias; weight [out, in] as PyTorch stores it.
---@return am.Tensor
function am_Ops.linear(x, weight, bias) end

--- linear plus scale B A x. opts: scale, dropout (probability, 0), position ("pre" or "post").
---@return am.Tensor
function am_Ops.lora_linear(x, weight, bias, lora_a, lora_b, opts) end

--- Rows of weight [V, C] by index; padding_idx names a row that looking up gives no gradient.
---@return am.Tensor
function am_Ops.embedding(index, weight, padding_idx) end

--- x weight / sqrt(mean x^2 + eps), over the last dim.
---@return am.Tensor
function am_Ops.rms_norm(x, weight, eps) end

--- Cosines and sines [B, T, R] for position_ids int32 [B, T] and inverse frequencies [R/2].
---@return am.Tensor
function am_Ops.rope_table(position_ids, inv_freq, scaling) end

--- Rotate x [B, T, H, D] by a table; pairs are halves, or neighbours when interleaved.
---@return am.Tensor
function am_Ops.rope(x, rotary, interleaved) end

--- act(gate) * up, act by the name in a model's hidden_act.
---@return am.Tensor
function am_Ops.glu(gate, up, act) end

--- q [B,T,H,D], k and v [B,S,K,D], bounds int32 [B,T,2] or nil -> [B,T,H,D].
--- opts: causal (true), window, softcap, scale, dropout (probability).
---@return am.Tensor
function am_Ops.attention(q, k, v, bounds, opts) end

--- Sum over rows of -log softmax(logits)[label], rows with ignore_index (-100) left out.
---@return am.Tensor
function am_Ops.cross_entropy(logits, labels, opts) end

--- The same of hidden weight^T, without ever storing all logits.
---@return am.Tensor
function am_Ops.linear_cross_entropy(hidden, weight, labels, opts) end

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
function am_Ops.relu(a) end

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
