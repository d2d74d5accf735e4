---@meta am
-- Written by docs/api.lua; do not edit. For workspace.library of a Lua language server.
-- luacheck: ignore

---@class am.nn
local nn = {}


---@class am: am.Ops
---@field version string
---@field ops am.Ops
local am = {}

--- Run fn(...) without recording.
function am.no_grad(fn, ...) end

--- Run fn(...) without recording, as generation does with one token a row: products of up to eight rows
--- are done in the way that is fastest for them. A row's bits don't depend on how many of these there
--- are, but they aren't those of no_grad.
function am.inference_mode(fn, ...) end

--- Run fn(...) and keep only its inputs: backward runs it once more (with the same random numbers)
--- for the intermediate values. fn must not use other computed tensors than its arguments.
function am.checkpoint(fn, ...) end

--- arange(stop), arange(start, stop[, step]): start, start + step, … below stop (above, for a negative
--- step). int64 when all are whole numbers, else float32. The options come last.
---@return am.Tensor
function am.arange(...) end

--- n numbers at equal distances, first and last included.
---@return am.Tensor
function am.linspace(first, last, n, opts) end

--- 1 on the diagonal of an n by m (n) matrix, else 0.
---@return am.Tensor
function am.eye(n, m, opts) end

--- An uninitialised tensor of t's shape, and of its dtype and device unless opts say otherwise.
---@return am.Tensor
function am.empty_like(t, opts) end

--- Zeros of t's shape, and of its dtype and device unless opts say otherwise.
---@return am.Tensor
function am.zeros_like(t, opts) end

--- Ones of t's shape, and of its dtype and device unless opts say otherwise.
---@return am.Tensor
function am.ones_like(t, opts) end

--- Uniform in [0, 1) of t's shape, and of its dtype and device unless opts say otherwise.
---@return am.Tensor
function am.rand_like(t, opts) end

--- Standard normal of t's shape, and of its dtype and device unless opts say otherwise.
---@return am.Tensor
function am.randn_like(t, opts) end

--- value everywhere, of t's shape, and of its dtype and device unless opts say otherwise.
---@return am.Tensor
function am.full_like(t, value, opts) end

--- Whole numbers from low (0) to high - 1, int64: randint(high, shape) or randint(low, high, shape).
---@return am.Tensor
function am.randint(low, high, shape, opts) end

--- 0..n-1 in a random order, int64.
---@return am.Tensor
function am.randperm(n, opts) end

--- All tensors of a safetensors or GGUF file as {name = tensor}.
function am.load_safetensors(path, opts) end

--- Write {name = tensor}, or a list of {name, tensor} to keep an order, as safetensors. metadata is
--- JSON text of an object of strings; {"format":"pt"} by default.
function am.save_safetensors(path, tensors, metadata) end

--- A tensor from NumPy's .npy file. opts.device: where to.
---@return am.Tensor
function am.load_npy(path, opts) end

--- Write a tensor as NumPy's .npy file.
function am.save_npy(path, t) end

--- Run fn(...) in a scope and return its results. Tensors among the results (also inside tables)
--- stay; all others made inside are released, unless backward still needs them.
function am.scope(fn, ...) end

--- Let a tensor (or a table of them) outlive every scope.
function am.escape(value) end

--- The device that constructors use when none is named.
function am.set_default_device(name) end

--- An uninitialised tensor.
---@param shape integer[]
---@param opts? {dtype?: string, device?: string}
---@return am.Tensor
function am.empty(shape, opts) end

--- A tensor of a shape ({2, 3}) with value everywhere.
---@return am.Tensor
function am.full(shape, value, opts) end

--- Zeros of a shape ({2, 3}); float32 unless opts.dtype says otherwise.
---@return am.Tensor
function am.zeros(shape, opts) end

--- Ones of a shape ({2, 3}); float32 unless opts.dtype says otherwise.
---@return am.Tensor
function am.ones(shape, opts) end

--- Uniform in [0, 1), from the engine's generator.
---@return am.Tensor
function am.rand(shape, opts) end

--- Standard normal, from the engine's generator.
---@return am.Tensor
function am.randn(shape, opts) end

--- A tensor from a number or nested tables of numbers; float32 unless opts.dtype says otherwise
--- (bool for booleans).
---@return am.Tensor
function am.tensor(data, opts) end

--- A tensor with a copy of a C array (row-major, elements of opts.dtype). An array that is too short is an
--- error; how much lies behind a bare pointer nobody knows.
---@return am.Tensor
function am.from_buffer(array, shape, opts) end

--- Seed the random generator with a whole number.
function am.manual_seed(seed) end

--- {live_bytes, peak_bytes, cached_bytes, live_storages} of a device.
function am.memory(device) end

--- A PeftConfig from some of the fields; the rest get their defaults.
function am.PeftConfig(values) end

---@class am.Tensor: am.Ops
---@operator add(am.Tensor|number): am.Tensor
---@operator sub(am.Tensor|number): am.Tensor
---@operator mul(am.Tensor|number): am.Tensor
---@operator div(am.Tensor|number): am.Tensor
---@operator pow(am.Tensor|number): am.Tensor
---@operator unm: am.Tensor
---@field grad am.Tensor? the gradient
---@field requires_grad boolean whether the gradient is wanted
local am_Tensor = {}

--- Mark a leaf as collecting gradients and return it.
---@return am.Tensor
function am_Tensor:requires_grad_(on) end

--- Have backward call fn(t) as soon as t's gradient is final: nothing will be added to it any more, nor t
--- read again, so fn may change both. Once in each backward that reaches t, before it returns. t must be
--- a leaf. An error in fn ends backward. Several functions are called in the order they came.
---@return table handle with remove(), which the function stays until
function am_Tensor:register_post_accumulate_grad_hook(fn) end

--- Gradients of all leaves that t depends on, added to their .grad. t must be a scalar unless
--- gradient (of its shape) is given.
function am_Tensor:backward(gradient) end

--- t = t op b, or t op alpha * b. Not recorded.
---@return am.Tensor
function am_Tensor:add_(b, alpha) end

--- t = t op b, or t op alpha * b. Not recorded.
---@return am.Tensor
function am_Tensor:div_(b, alpha) end

--- t = t op b, or t op alpha * b. Not recorded.
---@return am.Tensor
function am_Tensor:mul_(b, alpha) end

--- t = t op b, or t op alpha * b. Not recorded.
---@return am.Tensor
function am_Tensor:sub_(b, alpha) end

--- An uninitialised tensor of t's shape, and of its dtype and device unless opts say otherwise.
---@return am.Tensor
function am_Tensor:empty_like(opts) end

--- Zeros of t's shape, and of its dtype and device unless opts say otherwise.
---@return am.Tensor
function am_Tensor:zeros_like(opts) end

--- Ones of t's shape, and of its dtype and device unless opts say otherwise.
---@return am.Tensor
function am_Tensor:ones_like(opts) end

--- Uniform in [0, 1) of t's shape, and of its dtype and device unless opts say otherwise.
---@return am.Tensor
function am_Tensor:rand_like(opts) end

--- Standard normal of t's shape, and of its dtype and device unless opts say otherwise.
---@return am.Tensor
function am_Tensor:randn_like(opts) end

--- value everywhere, of t's shape, and of its dtype and device unless opts say otherwise.
---@return am.Tensor
function am_Tensor:full_like(value, opts) end

--- Sizes as a Lua table, or the size of one dim (0-based, negative from the end).
---@return integer[]|integer
function am_Tensor:size(dim) end

--- Sizes as a Lua table.
---@return integer[]
function am_Tensor:shape() end

--- How many dims there are.
---@return integer
function am_Tensor:dim() end

--- How many elements there are.
---@return integer
function am_Tensor:numel() end

--- The dtype's name: "float32", "bfloat16", "int64", ...
---@return string
function am_Tensor:dtype() end

--- The device's name: "cpu", "ref", ...
---@return string
function am_Tensor:device() end

--- Do the elements lie in memory one after the other, in row-major order?
function am_Tensor:is_contiguous() end

--- False once its memory is gone: released, or at the end of its scope.
function am_Tensor:alive() end

--- Bytes of all elements.
function am_Tensor:nbytes() end

--- The one element as a Lua number; waits for the device.
---@return number
function am_Tensor:item() end

--- A C array with a row-major copy of the elements (bf16 and f16 as float), and their count.
function am_Tensor:to_buffer() end

--- Nested Lua tables (a number for rank 0, booleans for bool).
function am_Tensor:totable() end

--- Overwrite with src (a tensor, broadcast and converted as needed, or a number). Not recorded.
---@return am.Tensor
function am_Tensor:copy_(src) end

--- Overwrite with a number. Not recorded.
---@return am.Tensor
function am_Tensor:fill_(value) end

--- Overwrite with 0. Not recorded.
---@return am.Tensor
function am_Tensor:zero_() end

--- Overwrite with random numbers, uniform from lo (0) to below hi (1). Not recorded.
---@return am.Tensor
function am_Tensor:uniform_(lo, hi) end

--- Overwrite with random numbers, normal with mean (0) and standard deviation (1). Not recorded.
---@return am.Tensor
function am_Tensor:normal_(mean, std) end

--- A copy with storage of its own and no history.
---@return am.Tensor
function am_Tensor:clone() end

--- The same bytes without history.
---@return am.Tensor
function am_Tensor:detach() end

--- Free now what this tensor holds; using it afterwards is an error.
function am_Tensor:release() end

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

---@class am.autograd
local am_autograd = {}

--- Run fn(...) without recording.
function am_autograd.no_grad(fn, ...) end

--- Run fn(...) with recording on (inside no_grad).
function am_autograd.enable_grad(fn, ...) end

--- Run fn(...) without recording, as generation does with one token a row: products of up to eight rows
--- are done in the way that is fastest for them. A row's bits don't depend on how many of these there
--- are, but they aren't those of no_grad.
function am_autograd.inference_mode(fn, ...) end

--- Is recording on?
function am_autograd.is_grad_enabled() end

--- Make an op from Lua functions. forward(ctx, ...) gets the inputs and returns its outputs,
--- computed without recording; what backward needs it puts into ctx. backward(ctx, grad_out, ...)
--- returns a gradient (or nil) for each input, in order. Tensors put into ctx are kept until
--- backward has used them.
---@param def {forward: function, backward: function}
---@return function op
function am_autograd.custom(def) end

--- Run fn(...) and keep only its inputs: backward runs it once more (with the same random numbers)
--- for the intermediate values. fn must not use other computed tensors than its arguments.
function am_autograd.checkpoint(fn, ...) end

---@class am.nn.Module
local am_nn_Module = {}

--- A class of modules: local Linear = Module.class("Linear"); instances by Linear.new(...).
function am_nn_Module.class(name) end

--- An instance of a class, to be filled by its constructor.
function am_nn_Module.init(class) end

--- Declare a parameter: its shape and how to initialise it ("normal", "ones", "zeros" or a function
--- of the tensor). The tensor itself comes with `materialize` or `set_parameter`.
function am_nn_Module:declare(name, shape, init) end

--- Add a child under a name ("q_proj", or "0" in lists).
function am_nn_Module:add(name, child) end

--- Put another module in place of a child.
function am_nn_Module:replace(name, child) end

--- Iterator over (path, module), parents before children, in declaration order.
function am_nn_Module:named_modules(prefix) end

--- Iterator over (name, module, slot) of all declared parameters; slot has name, shape, init.
function am_nn_Module:parameter_slots() end

--- Iterator over (Hugging Face name, tensor). A tensor shared by two names comes once, under the
--- first, as in PyTorch.
function am_nn_Module:named_parameters() end

--- Make a parameter the same tensor as one that another module owns.
function am_nn_Module:share(name, t) end

--- The module at a dotted path.
function am_nn_Module:get(path) end

--- Set training mode here and below (dropout is on in it).
function am_nn_Module:train(on) end

--- The same as train(false).
function am_nn_Module:eval() end

--- The tree of modules as text, one a line.
function am_nn_Module:repr() end

---@class am.nn.Linear: am.nn.Module
local am_nn_Linear = {}

---@param in_features integer
---@param out_features integer
---@param bias boolean?
function am_nn_Linear.new(in_features, out_features, bias) end

--- x [..., in] -> [..., out]
function am_nn_Linear:forward(x) end

--- What repr shows in brackets.
function am_nn_Linear:extra_repr() end

---@class am.nn.Embedding: am.nn.Module
local am_nn_Embedding = {}

--- padding_idx (optional): looking this row up gives it no gradient, as in PyTorch.
function am_nn_Embedding.new(num_embeddings, embedding_dim, padding_idx) end

--- index [...] -> [..., embedding_dim]
function am_nn_Embedding:forward(index) end

--- NEFTune (Jain et al. 2023, arXiv:2310.05914): rows x [B, T, C] plus uniform(-1, 1) noise_alpha / sqrt(T C),
--- a draw of the generator's next stream; x itself without noise_alpha and outside of training. T is the length
--- of the rows as they come, padding and packed samples included, as in transformers.
function am_nn_Embedding:add_noise(x) end

--- What repr shows in brackets.
function am_nn_Embedding:extra_repr() end

---@class am.nn.RMSNorm: am.nn.Module
local am_nn_RMSNorm = {}

--- A norm over a last dim of `size`, its weight all ones.
function am_nn_RMSNorm.new(size, eps) end

--- x [..., size] -> the same shape
function am_nn_RMSNorm:forward(x) end

--- What repr shows in brackets.
function am_nn_RMSNorm:extra_repr() end

---@class am.nn.GatedMLP: am.nn.Module
local am_nn_GatedMLP = {}

--- hidden_act is a name of ops.activations.
---@param opts {hidden_size: integer, intermediate_size: integer, hidden_act: string, bias: boolean?}
function am_nn_GatedMLP.new(opts) end

--- x [..., hidden_size] -> the same shape
function am_nn_GatedMLP:forward(x) end

---@class am.nn.Attention: am.nn.Module
local am_nn_Attention = {}

---@param opts {hidden_size: integer, num_heads: integer, num_kv_heads: integer, head_dim: integer, bias: boolean?, output_bias: boolean?, dropout: number?, window: integer?}
function am_nn_Attention.new(opts) end

--- x [B, T, C], rotary [B or 1, T, D] (ops.rope_table), ctx {bounds=, cache=, layer=} -> [B, T, C].
--- With a cache (nn.cache) keys and values of earlier calls are seen too.
function am_nn_Attention:forward(x, rotary, ctx) end

---@class am.nn.Cache
local am_nn_Cache = {}

--- A cache for `batch` rows of at most `length` tokens. Release it with cache:release().
---@param opts {layers: integer, batch: integer, length: integer, kv_heads: integer, head_dim: integer, dtype: string, device: string}
function am_nn_Cache.new(opts) end

--- Store k and v [B, T, K, D] of a layer (1-based) behind what is there; returns views of all so
--- far, without a history. Call advance(T) after the last layer.
function am_nn_Cache:append(layer, k, v) end

--- Count t more tokens, once every layer has appended theirs.
function am_nn_Cache:advance(t) end

--- Free the stored keys and values now.
function am_nn_Cache:release() end

---@class am.AutoModelForCausalLM
local am_AutoModelForCausalLM = {}

--- A model with a checkpoint's weights, in eval mode, all floating parameters requiring grad.
---@param name string a Hugging Face directory, a GGUF file, or a hub name (cached or downloaded: utils/hub.lua)
---@param opts? {torch_dtype: string?, device: string?, config_overrides: table?, revision: string?, activation_checkpointing: boolean|"selective"?}
---@return am.CausalLM
function am_AutoModelForCausalLM.from_pretrained(name, opts) end

--- A model with random weights from a configuration (AutoConfig's, or a table of its fields).
---@return am.CausalLM
function am_AutoModelForCausalLM.from_config(c, opts) end

---@class am.AutoModelForSequenceClassification
local am_AutoModelForSequenceClassification = {}

--- The same with a head that classifies (sequence_classification.lua). opts.num_labels: classes, those of
--- config.json by default. The head of a checkpoint that has none begins with random numbers.
---@return am.SequenceClassifier
function am_AutoModelForSequenceClassification.from_pretrained(name, opts) end

--- A classifier with random weights.
---@return am.SequenceClassifier
function am_AutoModelForSequenceClassification.from_config(c, opts) end

---@class am.AutoConfig
local am_AutoConfig = {}

--- config.json of a directory, a hub name, or a GGUF file. opts.revision: of a hub name.
---@return am.PretrainedConfig
function am_AutoConfig.from_pretrained(name, opts) end

---@class am.models
local am_models = {}

--- A configuration with a copy of config.json's fields, given as a table or another configuration.
function am_models.PretrainedConfig(fields) end

--- How many positions a model of that configuration has; dynamically scaled ones stretch to any length.
function am_models.position_limit(c) end

--- Add an architecture: what config.json's "architectures" names -> a module path, or the table
--- that such a module returns ({new = function(config), gguf = ...}).
function am_models.register(name, implementation) end

--- The dtype that torch_dtype names; nil for auto, which is the checkpoint's.
function am_models.weight_dtype(name) end

--- A model's modules without weights: the names and shapes of its parameters (Module:parameter_slots).
--- c, opts: as from_config's, with opts.classifier of AutoModelForSequenceClassification's. Raises "unsupported"
--- for an architecture that is not there.
function am_models.structure(c, opts) end

---@class am.CausalLM: am.nn.Module
local am_CausalLM = {}

--- Run the model. args: input_ids [B, T] (tensor or nested tables), attention_mask, position_ids,
--- labels (unshifted, -100 ignored), bounds (int32 [B, T, 2]: key ranges, instead of a mask),
--- cache (nn.cache), logits_to_keep (0: all; k: the last k positions only), output_hidden_states.
--- Returns {logits=, loss=, hidden_states=}; hidden_states are those after the last norm, and with
--- logits_to_keep = false there are no logits at all.
function am_CausalLM:forward(args) end

--- hidden [..., C] -> logits [..., V]
function am_CausalLM:head(hidden) end

--- The head's weight [V, C], for losses that never store logits; nil when the head is more than
--- that (a bias, an adapter).
function am_CausalLM:head_weight() end

--- The name of the device that the embeddings are on.
function am_CausalLM:device() end

--- The name of the embeddings' dtype.
function am_CausalLM:dtype() end

--- How many numbers the parameters have, and how many of them require grad.
function am_CausalLM:num_parameters() end

--- New token ids after `ids` (a Lua array): see generation.lua for opts.
---@return integer[]
function am_CausalLM:generate(ids, opts) end

--- Write config.json and safetensors (with an index when in several files) as transformers reads.
function am_CausalLM:save_pretrained(dir, opts) end

--- Free all parameters now.
function am_CausalLM:close() end

---@class am.SequenceClassifier: am.CausalLM
local am_SequenceClassifier = {}

--- Run the model. args: those of a causal model (input_ids [B, T], attention_mask, position_ids, bounds) and
--- labels (B classes). Returns { logits = [B, num_labels], loss = mean cross-entropy }.
function am_SequenceClassifier:forward(args) end

--- The head's weight [num_labels, C].
function am_SequenceClassifier:head_weight() end

--- Raises "usage": a classifier does not generate.
function am_SequenceClassifier:generate() end

---@class am.PretrainedConfig
local am_PretrainedConfig = {}

--- Put other values in place of this configuration's: objects are merged, null takes a value away. A
--- name that looks like a mistyped one is a "usage" error.
function am_PretrainedConfig:override(values) end

--- A field that must be a positive integer of at most `max` (2^31); the error names the file.
function am_PretrainedConfig:integer(key, default, max) end

--- Raise a "format" error naming file and field unless the fields have the types that models read.
function am_PretrainedConfig:check() end

--- An error object about a field of this configuration.
function am_PretrainedConfig:unsupported(key, e) end

--- Fields as a plain table in the hub's spelling, for config.json.
function am_PretrainedConfig:to_table() end

--- Write config.json into a directory.
function am_PretrainedConfig:save(dir) end

---@class am.AutoTokenizer
local am_AutoTokenizer = {}

--- A tokenizer from a Hugging Face directory, a GGUF file, or a hub name. opts.revision: of a hub name.
---@return am.Tokenizer
function am_AutoTokenizer.from_pretrained(name, opts) end

---@class am.Tokenizer
---@field bos_token string? and eos_token, unk_token, pad_token, sep_token, cls_token, mask_token
---@field bos_token_id integer? and the others' ids
---@field chat_template string|table|nil the source, or sources by name
---@field add_bos_token boolean whether tokenizer_config.json says so; encode does what tokenizer.json says
---@field model_max_length number? of tokenizer_config.json
---@field vocab_size integer highest id + 1, added tokens included
local am_Tokenizer = {}

--- Number of tokens, added ones included.
function am_Tokenizer:len() end

--- Ids of a text, as an array. opts.add_special_tokens (default true): put around it what the
--- tokenizer's post-processor says. opts.return_offsets: a second array of { first, last } with
--- text:sub(first, last) being what each id came from (empty for added ids).
---@return integer[]
function am_Tokenizer:encode(text, opts) end

--- Text of ids (an array, or one id). opts.skip_special_tokens (default false); opts.errors: "replace"
--- (default; bytes that are not UTF-8 become U+FFFD, as in transformers) or "keep" (the bytes themselves,
--- for joining pieces).
---@return string
function am_Tokenizer:decode(ids, opts) end

--- Id of a token, or ids of an array of tokens. An unknown token gives unk_token_id, or raises "data"
--- where there is none.
function am_Tokenizer:convert_tokens_to_ids(tokens) end

--- Token of an id, or tokens of an array of ids, as the vocabulary spells them.
function am_Tokenizer:convert_ids_to_tokens(ids) end

--- All that ids depend on, as text: the tokenizer, its special tokens and chat templates. For the keys of
--- caches.
function am_Tokenizer:content() end

--- Write tokenizer.json, tokenizer_config.json and special_tokens_map.json into a directory.
function am_Tokenizer:save_pretrained(dir) end

--- The source of the template to use: `wanted` (source or name), else the one for tools when there
--- are tools, else the default.
function am_Tokenizer:get_chat_template(wanted, tools) end

--- A conversation as ids, or as text. `messages`: { { role = "user", content = "…" }, … }. opts:
---   tokenize (default true)          ids; false: the text
---   add_generation_prompt            end with the header of an assistant's turn
---   tools, documents                 for templates that use them
---   chat_template                    another template: its source, or its name among several
---   return_dict                      { input_ids, attention_mask } instead of the array of ids
---   return_assistant_tokens_mask     with return_dict: assistant_masks too, 1 for what the template's
---                                    {% generation %} blocks wrote
--- Any other option becomes a variable of the template. Special tokens are not added: the template
--- writes them.
function am_Tokenizer:apply_chat_template(messages, opts) end

---@class am.peft
local am_peft = {}

--- Iterator over (path, LinearLoRA or EmbeddingLoRA) of a model.
function am_peft.lora_modules(model) end

--- Write a model's adapter, and the modules that are trained whole, into a folder that exists. config is its
--- PeftConfig. The base's own embeddings, which PEFT writes with an adapter of them, are left out.
function am_peft.save_adapter(model, dir, config) end

--- Put the adapter of a directory onto a model (freezing everything else but modules_to_save). opts: dtype of the
--- adapter (default: each weight's own), dropout, dropout_position (default: the adapter's), check, a function
--- of the PeftConfig that may refuse it while the model is as it was.
--- Returns the PeftConfig that it amounts to.
function am_peft.load_adapter(model, dir, opts) end

--- Overwrite what is trained of an adapted model with what a directory holds (resume).
function am_peft.restore_adapter(model, dir) end

--- A PeftConfig from some of the fields; the rest get their defaults.
function am_peft.PeftConfig(values) end

--- Adapt a model: by the config's patterns, or from its adapter_path. Everything else is frozen, but for what
--- modules_to_save names. Returns the config in force and the adapted paths.
function am_peft.apply(model, config) end

--- NEFTune: while the model trains, its input embeddings get uniform noise of at most noise_alpha / sqrt(T C), see
--- am.nn.embedding. 0 ends it. Adapters and merging keep it. Nothing in files tells of it.
function am_peft.neftune(model, noise_alpha) end

--- Fold every adapter into its weight; the model is a plain one afterwards. A head and an embedding that shared a
--- weight have one each when either was adapted. Returns how many adapters there were.
function am_peft.merge(model) end

--- Merge, then compare the logits of a row of token ids with those before. Raises a "state" error when they are
--- further apart than rounding to the weights' dtype explains; the model is merged all the same. Returns a report:
--- modules (merged), worst (greatest difference of a logit), largest (logit), same (tokens whose likeliest next
--- token stayed), tokens, dtype.
---@param ids integer[]
function am_peft.merge_checked(model, ids) end

---@class am.optim
local am_optim = {}

--- What a file that a configuration names with file.lua:NAME returns under NAME. Groups, clipping, f32 masters,
--- updates inside backward, checkpoints and the keys of family.common_fields (lr, weight_decay, …) come along.
---@param kind string what a checkpoint calls the optimizer
---@param fields table further keys of the section, or other defaults of the common ones
---@param rule fun(opts: table): table the keys' values -> { states?, update } as tensorwise.lua describes them; called once for each parameter group
---@return {fields: table, build: fun(args: table, ctx: table): am.Optimizer}
function am_optim.custom(kind, fields, rule) end

--- An optimizer for the trainable parameters of an iterator such as model:named_parameters(): see optimizer.lua.
---@param kind string "adam", "adamw", "sgd", "lion", …
---@param named_parameters function iterator of (name, tensor)
---@param opts table what the target of that kind has as fields, without which its defaults count
---@return am.Optimizer
function am_optim.new(kind, named_parameters, opts) end

--- Bytes of optimizer state, f32 master included, of a parameter of `shape` with weights of `size` bytes.
--- opts: an optimizer section's keys, with `_target_`; or those of M.new, with `kind`. An optimizer of the user's own
--- is taken for one with two moments.
function am_optim.state_bytes(opts, name, shape, size) end

---@class am.optim.scheduler
local am_optim_scheduler = {}

--- Learning rate of update n (from 0) under schedule `s` (a table of the fields), before a group's
--- lr_mult. `group` may hold its own max_lr and min_lr.
function am_optim_scheduler.lr_at(s, n, group) end

--- Weight decay of update n (from 0) under schedule `s`, before a group's wd_mult.
function am_optim_scheduler.wd_at(s, n) end

--- A schedule from all of its fields (see `fields`; wsd_decay_steps and lr_wsd_decay_style only for
--- WSD). Also in `opts`:
---   optimizer   table with `param_groups` (default: none; ask lr() and weight_decay() instead). A
---               group built with its own lr or weight_decay keeps its ratio to the first group,
---               noted as lr_mult and wd_mult; one with max_lr or min_lr has its own curve.
---   derived     set of the field names that were not written down but follow from the run's length
--- Starts at step 0, which sets the optimizer's values for the first update.
---@return am.Scheduler
function am_optim_scheduler.new(opts) end

--- A schedule from the `lr_scheduler` section `cfg`, or the constant one of a configuration without
--- that section (or with nothing but the two resume flags in it). `run`: lr and weight_decay of the
--- optimizer, total_steps planned, optimizer.
--- Derived where `cfg` is silent: init_lr = lr/10, max_lr = lr, min_lr = lr/100, style cosine,
--- lr_warmup_steps = min(1000, total/10), lr_decay_steps = wd_incr_steps = total, weight decay constant.
---@return am.Scheduler
function am_optim_scheduler.from_config(cfg, run) end

---@class am.Optimizer
---@field param_groups table[] { lr, weight_decay, lr_mult, wd_mult, max_lr?, min_lr?, names }; step uses the lr and weight_decay that a group has then, and a schedule writes them
local am_Optimizer = {}

--- One update with each group's lr and weight_decay. Gradients are scaled by grad_scale (1).
function am_Optimizer:step(grad_scale) end

--- Mark all gradients as empty; the next backward overwrites them.
function am_Optimizer:zero_grad() end

--- L2 norm of all gradients; with fuse_backward of those that the last step used.
function am_Optimizer:grad_norm() end

--- L2 norm of all trainable weights.
function am_Optimizer:param_norm() end

--- Norm of the gradients, and the factor that brings it down to max_norm (1 when it is below, or
--- when max_norm is nil): torch.nn.utils.clip_grad_norm_'s arithmetic. Hand the factor to step.
function am_Optimizer:clip_grad_norm(max_norm) end

--- How many numbers are trained.
function am_Optimizer:numel() end

--- Iterator over (parameter name, state name, tensor) of what a checkpoint must hold.
function am_Optimizer:state_tensors() end

--- Numbers that a checkpoint must hold beside the tensors.
function am_Optimizer:state_dict() end

--- Go on from a saved state. Raises "state" when it is another optimizer's or has other groups, "format" when it is
--- damaged; then nothing has changed.
function am_Optimizer:load_state_dict(state) end

--- After weights were loaded from outside: copy them into the f32 masters.
function am_Optimizer:sync_masters() end

--- Give the f32 masters of 16-bit weights the values that the weights were rounded from. get(name) is
--- a float32 tensor, or nil where there is none. Without this a run begins with rounded masters, up to
--- 2^-9 beside the checkpoint.
function am_Optimizer:load_masters(get) end

--- Free the flat buffers and moments now.
function am_Optimizer:close() end

---@class am.Scheduler
local am_Scheduler = {}

--- Learning rate of the next update (of a group with lr_mult 1 and no curve of its own).
function am_Scheduler:lr() end

--- Weight decay of the next update (of a group with wd_mult 1).
function am_Scheduler:weight_decay() end

--- Count `increment` updates and set every group's lr and weight_decay for the next one.
function am_Scheduler:step(increment) end

--- Every field of the schedule, and num_steps.
function am_Scheduler:state_dict() end

--- Go on from a saved state; the rules are at the head of this file. Fields that an older state
--- lacks keep the configuration's values. Raises "usage" when the schedules differ, "format" for a
--- damaged state; then nothing has changed. Returns an array of what the checkpoint changed, each a
--- clause for the log ("lr_decay_steps stays 100, not 200").
function am_Scheduler:load_state_dict(state) end

---@class am.loss
local am_loss = {}

--- A function (hidden, labels, ctx) as at the head of this file: the SUM of cross-entropies over label tokens.
--- opts: ignore_index (-100), logit_softcapping (ctx.softcap).
function am_loss.MaskedCrossEntropy(opts) end

--- A function (hidden [N, C], teacher_hidden [N, D], ctx) -> T^2 times the SUM over rows of the KL between
--- softmax(teacher / T) and softmax(student / T), a scalar tensor; gradients go to the student alone. ctx:
--- head and teacher_head, from hidden states to logits [n, V], and vocab_size. Logits are made in chunks, and
--- again in backward. opts: the keys of `fields`.
function am_loss.KDLoss(opts) end

---@class am.recipe
local am_recipe = {}

--- A new recipe; as Recipe:extend.
function am_recipe.extend(name) end

---@class am.recipe.Recipe
local am_recipe_Recipe = {}

--- A recipe that inherits from this one.
function am_recipe_Recipe.extend(parent, name) end

--- Make a recipe object; nothing is loaded before setup.
function am_recipe_Recipe.create(class, source, overrides, opts) end

--- Sections and keys that a configuration may have; recipes add theirs.
function am_recipe_Recipe.schema() end

--- Save and restore a part with every checkpoint: `file` is its JSON file in the checkpoint's folder,
--- `part` has state_dict() and load_state_dict(state).
function am_recipe_Recipe:track(file, part) end

--- A setting of the checkpoint section, defaults filled in.
function am_recipe_Recipe:checkpoint_setting(key) end

--- The folder that checkpoints and logs are in.
function am_recipe_Recipe:checkpoint_dir() end

--- Overridden by recipes: write the model and the optimizer into a folder / read them back, and what
--- identifies the model (a table of numbers and strings) so that another's checkpoint is refused.
function am_recipe_Recipe.save_model() end

--- Overridden by recipes: see save_model.
function am_recipe_Recipe.load_model() end

--- Overridden by recipes: see save_model.
function am_recipe_Recipe.signature() end

--- Overridden by recipes: the names of the validation sets, in order.
function am_recipe_Recipe.validation_names() end

--- What losses.json calls the loss of a validation set: "val_loss" when it is the only one, else its name.
function am_recipe_Recipe:loss_key(name) end

--- The key of losses.json that decides which checkpoint is the best.
function am_recipe_Recipe:best_key() end

--- What losses.json of the checkpoint that this run came from holds; empty without one.
function am_recipe_Recipe:saved_losses() end

--- Publish epoch_E_step_S with everything tracked. losses: what losses.json holds.
function am_recipe_Recipe:save_checkpoint(epoch, step, losses, is_last) end

--- The state that this step began with is useless: a checkpoint of it is withdrawn. Returns the
--- newest good one, or nil.
function am_recipe_Recipe:withdraw_checkpoint(step) end

--- Refuse a checkpoint of another model.
function am_recipe_Recipe:check_checkpoint(dir) end

--- Go on from the checkpoint that the configuration names, or the newest. Returns its folder, or nil
--- for a fresh start.
function am_recipe_Recipe:load_checkpoint() end

--- Open training.jsonl and validation.jsonl (validation_NAME.jsonl for a set with a name) beside the
--- checkpoints; lines of `step` (in the latter `validation_step`) and later go. With checkpointing off there
--- is nothing to go on from, and an earlier run's lines stay.
function am_recipe_Recipe:open_logs(step, validation_step) end

--- Write a record to the log of that name, if there is one: "training", "validation NAME" or "samples".
function am_recipe_Recipe:log_record(name, record) end

--- Close the logs and let other runs into the folder.
function am_recipe_Recipe:close_logs() end

--- Parse, set up, train; SIGTERM and Ctrl-C save and end with status 0 and 130.
function am_recipe_Recipe.run(class, argv) end

--- True once the run was asked to end by a signal.
function am_recipe_Recipe:stop_requested() end

---@class am.chat
local am_chat = {}

--- Parses a template. opts: `steps` and `output` (limits on work and on bytes written), `now` (seconds
--- since the epoch, or a function giving them, for strftime_now; the clock by default).
--- Raises "format" naming the line, "unsupported" for tags that need other templates.
---@return am.chat.Template
function am_chat.compile(source, opts) end

--- Renders `messages` with a template (source text or a compiled one); `opts` holds the other
--- variables of render. Returns the text and the spans.
function am_chat.apply(template, messages, opts) end

--- The value of a JSON text. Raises "data" naming the byte where it is malformed.
function am_chat.from_json(text) end

---@class am.chat.Template
---@field source string
---@field has_generation boolean whether it marks the assistant's turns with {% generation %} blocks
local am_chat_Template = {}

--- Renders the template. `vars`: messages (an array of {role =, content =, …}; needed), tools and
--- documents (arrays, None when absent), add_generation_prompt (false when absent), and any other
--- variable: bos_token, eos_token, enable_thinking, … Plain Lua data is converted as values.from_lua
--- says. Returns the text and the generation blocks as an array of {first, last} bytes, so that
--- text:sub(first, last) is a block's text (an empty one has last = first - 1).
--- Raises "data" for messages that cannot be used and for the template's own raise_exception, "format"
--- with the line for a template that fails or exceeds a limit.
---@return string text
---@return table spans
function am_chat_Template:render(vars) end

---@class am.datasets
local am_datasets = {}

--- A dataset of token rows. opts: the keys of `fields`. Reads and tokenizes everything once: "data" naming row
--- and message for the first that is no conversation.
function am_datasets.make_agent_chat_dataset(opts) end

--- [B, 1, T, T] of bool: position q of row b sees position k when both are of one sample and k is not behind
--- q. seq_lens: an array for each row with the lengths of its samples, each row adding up to the same T, as
--- the original's create_block_causal_mask takes them.
function am_datasets.create_block_causal_mask(seq_lens) end

--- A dataset of token rows. opts: the keys of `fields`. Reads and tokenizes everything once: "data" naming
--- row and message for the first that is no conversation.
function am_datasets.ChatDataset(opts) end

--- A batch of an array of rows (see utils.lua), padded on the right to the longest, then to a
--- multiple of opts.pad_seq_len_divisible. opts.pad_token_id: default 0; a ___PAD_TOKEN_IDS___ = { input_ids =
--- id } of the first row counts more.
function am_datasets.default_collater(rows, opts) end

--- A batch of rows { input_ids, labels = class }, otherwise as default_collater makes it, with
---   labels            int32_t[B], the class of each row
---   last_tokens       int32_t[B], where in the flat batch (b * T + t) the last token of each row is, from whose
---                     state a causal model classifies
---   num_label_tokens  B
--- opts.num_labels: refuse classes from here on.
function am_datasets.sequence_classification_collater(rows, opts) end

--- A dataset of token rows. opts: the keys of `fields` and `tokenizer`. Reads and tokenizes everything
--- once, unless `streaming`: "data" for the first row that is not JSON or lacks a column, or when no row has
--- a label.
function am_datasets.ColumnMappedTextInstructionDataset(opts) end

--- A stream of token rows; opts: the keys of `fields` and `tokenizer`.
function am_datasets.ColumnMappedTextInstructionIterableDataset(opts) end

--- opts: dataset (len, get), collate_fn (array of rows -> batch; default_collater), batch_size (1),
--- shuffle (false), seed (0), drop_last (false), group_by_length (false; with step_rows, batch_size by
--- default: see grouped.lua. Reads the length of every row), shuffle_buffer_size (for streams).
---@return am.DataLoader
function am_datasets.StatefulDataLoader(opts) end

--- A dataset of token rows. opts: the keys of `fields`. Reads and tokenizes everything once: "data" for the
--- first row that has no such columns.
function am_datasets.HellaSwag(opts) end

--- The rows of one split; opts: the keys of `fields`. All of .idx is read and checked.
function am_datasets.MegatronPretraining(opts) end

--- A dataset of random sentences, each closed by id 1; opts: the keys of `fields`. Row i depends on
--- i and the seed alone. Labels are shifted and all of them learnt.
function am_datasets.build_unpacked_dataset(opts) end

--- A dataset of num_samples x batch_size rows; opts: the keys of `fields`. The last token of a row has no
--- label.
function am_datasets.MockIterableDataset(opts) end

--- A dataset of num_blocks packed rows; opts: the keys of `fields`.
function am_datasets.build_packed_dataset(opts) end

--- A dataset of random rows; opts: the keys of `fields`.
function am_datasets.MockSequenceClassificationDataset(opts) end

--- A dataset that is read in order and has no length; opts: the keys of `fields`. Headers of all shards are
--- read and checked.
function am_datasets.NanogptDataset(opts) end

--- A dataset of packs of the rows of `dataset` (len, get; name and stats if it has them). opts: the
--- keys of `fields`; padding_id stands for padding_idx where that is absent (default 0). Reads all of `dataset`.
--- stats() counts as skipped the samples that are longer than a pack, and has `samples`, the number of those
--- packed. With `prepacked` it is `dataset` itself.
function am_datasets.pack_dataset(dataset, opts) end

--- A dataset of the rows that have a label to learn; opts: the keys of `fields`. Reads everything once.
function am_datasets.PretokenizedDataset(opts) end

--- A dataset of rows with a class. opts: the keys of `fields`. Reads and tokenizes everything once: "data" for
--- the first row that has no such columns.
function am_datasets.GLUE_MRPC(opts) end

--- A dataset of token rows. opts: the keys of `fields`. Reads and tokenizes everything once: "data" for the
--- first row that has no such columns, or when no row has a label.
function am_datasets.make_squad_dataset(opts) end

--- A dataset of rows of seq_length tokens; opts: the keys of `fields`, and a tokenizer. Tokenises everything
--- once. Raises "data" for text that is not UTF-8, naming file and byte.
function am_datasets.TextDataset(opts) end

--- One line about a dataset: "120 rows, 5310 tokens, 1180 of them learnt (22.2 %); 2 skipped: …".
function am_datasets.describe(stats) end

--- A dataset of token rows. opts: the keys of `fields`. Reads and tokenizes everything once: "data" for the
--- first row that has no such columns.
function am_datasets.make_xlam_dataset(opts) end

---@class am.DataLoader
local am_DataLoader = {}

--- Batches in an epoch.
function am_DataLoader:len() end

--- Batches left in this epoch.
function am_DataLoader:remaining() end

--- Go to the start of epoch `epoch`, unless that is the one being read.
function am_DataLoader:set_epoch(epoch) end

--- The next batch of this epoch, or nil at its end.
function am_DataLoader:next() end

--- Iterator over one pass from the first row in the dataset's order, whatever shuffle and position
--- say; it leaves them as they are.
function am_DataLoader:batches() end

--- The first row, for a look at it.
function am_DataLoader:sample_row() end

--- { epoch, position (rows read of it), done (it is read to its end), num_rows, seed, shuffle, group_rows }.
function am_DataLoader:state_dict() end

--- Go on from a saved state with the saved order, also with another batch_size. In the middle of an
--- epoch the dataset must have as many rows as then; at its end it may have grown or shrunk.
function am_DataLoader:load_state_dict(state) end

---@class am.training
local am_training = {}

--- Seed the engine with opts.seed, plus opts.rank (process number) when opts.ranked.
---@return am.StatefulRNG
function am_training.StatefulRNG(opts) end

--- Run fn(...) under its own seed (default 95050; opts as StatefulRNG's) and restore the state, also
--- when it raises. Returns what fn returns.
function am_training.scoped_rng(opts, fn, ...) end

--- Watch from now on. opts.preemption_signal: the configuration's value, a name, number or list; nil
--- for none: then nothing is watched and signals end the process at once. Ctrl-C is watched with any.
---@return am.Signals
function am_training.watch_signals(opts) end

--- Batch sizes from the configuration: local_batch_size (rows a micro-batch), grad_acc_steps
--- (micro-batches a step on each of dp_size processes) and global_batch_size (rows a step).
--- `opts` is the step_scheduler section; `loader_batch_size` is dataloader.batch_size, the older
--- spelling of local_batch_size, as grad_acc_steps is that of global_batch_size.
function am_training.batch_sizes(opts, loader_batch_size, dp_size) end

--- A new scheduler. `opts` holds the keys of the configuration (see `fields`) and
---   batches_per_epoch   micro-batches this process sees in an epoch; nil for a stream of unknown
---                       length, which needs max_steps
---   loader_batch_size   dataloader.batch_size of the configuration, if any
---   dp_size             processes that share a step (default 1)
---   stop_requested      function: true once the run was asked to end (SIGTERM, Ctrl-C); asked at most
---                       once a step. That step is checkpointed, not validated, and is the last.
--- An absent key is null to this function: ckpt_every_steps once an epoch, num_epochs 10, or as many
--- as max_steps needs when that is given.
---@return am.StepScheduler
function am_training.StepScheduler(opts) end

---@class am.StepScheduler
local am_StepScheduler = {}

--- Optimizer steps of the whole run, counted from step 0, as the configuration plans it.
function am_StepScheduler:total_steps() end

--- Iterator over the epochs still to do, the current one (which may be half done) first.
function am_StepScheduler:epochs() end

--- Iterator over what is left of the current epoch: arrays of grad_acc_steps micro-batches, the last
--- of an epoch possibly shorter.
function am_StepScheduler:windows(loader) end

--- The next window whatever epoch it is in, for steps taken by hand; nil at the end of the run.
function am_StepScheduler:next_window(loader) end

--- True in the last step of the run: max_steps reached, or the last epoch's last window.
function am_StepScheduler:is_last_step() end

--- True when this step is to be checkpointed: every ckpt_every_steps, at the end of an epoch (unless
--- save_checkpoint_every_epoch is false) and of the run, and when a stop was asked for.
function am_StepScheduler:is_ckpt_step() end

--- True when this step is to be validated: every val_every_steps, and at checkpoints (unless
--- validate_on_checkpoint is false). When a stop was asked for it is not; the state then says that it
--- is due, for the run that goes on.
function am_StepScheduler:is_val_step() end

--- Make this step the last one of the run, as if it had been planned so.
function am_StepScheduler:stop() end

--- The validation of this step was left because a stop was asked for: it is due, and the step is the
--- last.
function am_StepScheduler:leave_validation() end

--- The number and epoch of the last step done, when its validation is due; nil otherwise. From here on
--- it counts as done.
function am_StepScheduler:take_due_validation() end

--- True when the recipe should run the Lua collector.
function am_StepScheduler:is_gc_step() end

--- True when trackers get this step's numbers: every log_remote_every_steps.
function am_StepScheduler:is_remote_logging_step() end

--- { step, epoch, validation_due } to go on from. Within a window its step counts as done: save after
--- the update.
function am_StepScheduler:state_dict() end

--- Go on from a saved state. The run's end is the configuration's, so raising max_steps or
--- num_epochs continues a finished run.
function am_StepScheduler:load_state_dict(state) end

---@class am.StatefulRNG
local am_StatefulRNG = {}

--- { seed, stream } of the engine's generator, as decimal text.
function am_StatefulRNG:state_dict() end

--- Go on from a saved state.
function am_StatefulRNG:load_state_dict(state) end

---@class am.Signals
local am_Signals = {}

--- Number and name of the signal that came, or nil.
function am_Signals:pending() end

--- Exit status of a run that ended well: 0, also after SIGTERM, or 130 after Ctrl-C.
function am_Signals:exit_status() end

--- Give signals back to the system's default; what came stays pending.
function am_Signals:unwatch() end

---@class am.evaluation
local am_evaluation = {}

--- Log-likelihoods of continuations. requests: an array of { context, continuation }, texts. limit: the
--- positions that the model has; of longer texts the end counts. Returns an array of { sum (natural
--- logarithm), tokens, greedy (every token is the model's first choice) }.
function am_evaluation.score(model, tokenizer, requests, limit) end

--- F1 over the words that two answers share.
function am_evaluation.f1(prediction, truth) end

--- 1 when two answers are the same but for case, punctuation, articles and white space, else 0.
function am_evaluation.exact_match(prediction, truth) end

---@class am.checkpoint
local am_checkpoint = {}

--- Keep other runs out of a folder while the lock is held; the system lets go of it when the process
--- ends, however it does. The file ".lock" stays and says who held it last.
---@return am.checkpoint.Lock
function am_checkpoint.lock(root) end

--- Put right what an interrupted save left behind.
function am_checkpoint.clean(root) end

--- The checkpoint's name that a pointer holds, or nil.
function am_checkpoint.pointed(root, pointer) end

--- Write a folder that stands alone, as a merged model's: write(dir) fills it. It gets its name, which must be free
--- or an empty folder's, when it is complete and on disk; on an error nothing is there.
function am_checkpoint.write_folder(final, write) end

--- Write a checkpoint: write(dir) fills the folder. On an error nothing is published, what was there
--- stays, and the reserved folder is removed. pointers: names beside LATEST that shall mean it too.
--- Returns the published folder.
function am_checkpoint.save(root, name, write, pointers) end

--- Names of complete checkpoints under root, oldest step first.
function am_checkpoint.list(root) end

--- The folder to go on from. restore_from: nil for the newest under root (nil when there is none), a
--- pointer ("LATEST", "LOWEST_VAL"), a checkpoint's name under root, or a path. A named one that is not
--- there is an error that lists those that are.
function am_checkpoint.resolve(root, restore_from) end

--- Write a table of numbers, strings and booleans as a JSON file in a folder of a checkpoint.
function am_checkpoint.write_json(file, value) end

--- Read what write_json wrote.
function am_checkpoint.read_json(file) end

--- Write tensors ({name, tensor} in order) as one safetensors file, making its folder. metadata is
--- JSON text of an object of strings; {"format":"pt"} by default.
function am_checkpoint.write_tensors(file, list, metadata) end

--- Copy the tensors of a file into those of a list ({name, tensor}); names, shapes and dtypes must be
--- the same on both sides.
function am_checkpoint.read_tensors(file, list) end

--- Take back a checkpoint whose state turned out to be useless: it gets another name, and LATEST the
--- newest of the others. Returns that one's folder, or nil, and the new name.
function am_checkpoint.withdraw(root, dir) end

--- Remove all but the newest `keep` checkpoints and those that LATEST and LOWEST_VAL name.
function am_checkpoint.prune(root, keep) end

---@class am.checkpoint.Lock
local am_checkpoint_Lock = {}

--- Let others in.
function am_checkpoint_Lock:release() end

---@class am.loggers
local am_loggers = {}

--- Trackers that are not open yet. Raises a "usage" error for what a section can't mean (a tracking_uri
--- that no server has, …): a recipe calls this before it loads anything.
---@return am.Trackers
function am_loggers.new(sections) end

--- new() and open() in one.
---@return am.Trackers
function am_loggers.open(sections, run) end

---@class am.Trackers
local am_Trackers = {}

--- Ids and places of the trackers' runs, for a checkpoint.
function am_Trackers:state_dict() end

--- Before open().
function am_Trackers:load_state_dict(state) end

--- Open what the sections ask for; `run` as above. A server that does not answer is a warning.
function am_Trackers:open(run) end

--- A step: a record as training.jsonl has it.
function am_Trackers:train(record) end

--- A validation: its name ("default", or that of validation_dataset_<name>) and a record as
--- validation.jsonl has it.
function am_Trackers:validation(name, record) end

--- Further numbers of a step that train() was called with: an array of { name, number }.
function am_Trackers:scalars(step, list) end

--- What the model says to a prompt at a step: before the first step, and later.
function am_Trackers:sample(step, prompt, text) end

--- A file that belongs to the run, for trackers that keep files.
function am_Trackers:artifact(path) end

--- Before a checkpoint is saved: what it will be resumed with is written and survives.
function am_Trackers:flush() end

--- The end: "finished", "failed" or "killed" (asked to end before its last step), and why.
function am_Trackers:finish(status, message) end

---@class am.config
local am_config = {}

--- A configuration node of plain Lua tables; `label` says in messages where it came from.
---@return am.config.Node
function am_config.from_table(t, label) end

--- Apply overrides, an array of { path = "a.b", value = text or nil for true }, in order.
function am_config.apply_overrides(node, overrides) end

--- Read YAML text. opts: name (in messages), overrides, getenv (for tests; default os.getenv).
---@return am.config.Node
function am_config.parse(text, opts) end

--- Read a YAML file, in the long form or the short one; opts as for parse. Raises "usage" naming file,
--- line and what to do.
---@return am.config.Node
function am_config.load(file, opts) end

--- Build what a section describes. `ctx` is { registry, roots, allow_user_code, … } and is handed to
--- every build function; `overrides` are arguments given by the program, which win over the file's.
--- opts: default_target (a name, for a section without _target_), ignore (array of keys that are not
--- the target's). Everything is checked before anything is built; raises "usage".
function am_config.instantiate(node, ctx, overrides, opts) end

--- The function that a leaf names (`collate_fn: a.b`), or that a section with _target_ describes.
function am_config.callable(node, ctx) end

--- True for nodes.
function am_config.is_node(v) end

--- YAML text of a map node. Secrets are redacted unless `opts.redact` is false.
function am_config.print(node, opts) end

--- An empty registry.
---@return am.config.Registry
function am_config.new_registry() end

--- Raise one "usage" error for an array of problems, if there are any, or an "unsupported" one for
--- what is only not there yet.
function am_config.raise(problems) end

--- The value of a leaf as its spec wants it: a number or boolean under a "string" spec is its text.
function am_config.leaf_value(node, spec) end

--- Check a whole configuration: `schema` is a spec with `fields` (the sections) and `ignore`, an
--- array of sections to pass over (default: ci and recipe). Raises one "usage" error with all that
--- is wrong. Nothing is built, and user code runs only where ctx allows it. ctx.without_effect becomes
--- an array that names the keys whose spec says no_effect.
function am_config.validate(node, schema, ctx) end

--- True when text under `key` (the last part of a path) should not be shown.
function am_config.is_secret_key(key) end

--- Translate the short form's keys in a configuration, in place; without any nothing changes. Raises "usage".
function am_config.expand_short_form(root) end

---@class am.config.Node
---@field kind "map"|"list"|"leaf"
---@field order string[]? keys of a map, in order
---@field children table? key or position (from 1) -> Node
---@field value any of a leaf; nil is null
---@field float boolean? the number was written as a float
---@field text string? the scalar as written, when the leaf came from text
---@field template string? text with environment variables in it, kept for printing
---@field origin { file: string?, line: integer?, label: string?, via: string? } via: the key it was written as
---@field parent am.config.Node?
---@field key string|integer|nil
local am_config_Node = {}

--- Put `child` at `key` (text in a map, position from 1 in a list), replacing what is there.
function am_config_Node:attach(key, child) end

--- A deep copy without a parent.
function am_config_Node:copy() end

--- The node at a dotted path, or nil. A key that itself holds dots is found when it is the rest of
--- the path.
function am_config_Node:child(path) end

--- The value at `path`, or `default` when there is none; null is a value and reads as nil.
function am_config_Node:get(path, default) end

--- True when there is something at `path`, null included.
function am_config_Node:has(path) end

--- Keys of a map, in order.
function am_config_Node:keys() end

--- Iterate over key and value (as get gives it) of a map, in order; null values read as nil.
function am_config_Node:pairs() end

--- Plain Lua data: maps without their null keys, lists marked by json.array with null in place.
--- With `keep_null`, null keys of maps are json.null too. Maps remember their key order for JSON.
function am_config_Node:to_table(keep_null) end

--- Set a dotted path to a Lua value, table or node. `origin` (optional) says where it came from.
function am_config_Node:set(path, value, origin) end

--- Remove what a dotted path names, if it is there and in a map.
function am_config_Node:unset(path) end

--- "a.b.0" from the root; "" for the root.
function am_config_Node:path() end

--- Where the value came from: "file.yaml:12", "command line (--a.b)". For a path that is not there,
--- the nearest part that is.
function am_config_Node:where(path) end

---@class am.config.Registry
local am_config_Registry = {}

--- Add a target; a name that is taken is a defect of the caller.
function am_config_Registry:define(entry) end

--- Add an array of targets.
function am_config_Registry:define_all(entries) end

--- Give a target further names; one that is taken is left as it is.
function am_config_Registry:alias(name, aliases) end

--- Say of names (an array; `*` stands for any letters) that they are known and not there yet, and why.
--- A target that is defined under such a name is there all the same.
function am_config_Registry:define_later(names, reason) end

--- Why a name is not there yet, or nil.
function am_config_Registry:why_later(name) end

--- The target of a name or alias, or nil.
function am_config_Registry:lookup(name) end

--- Every name and alias, sorted.
function am_config_Registry:names() end

--- Up to three names like `name`: nearest as a whole, then by its last part alone, which is what
--- people remember of a dotted name.
function am_config_Registry:suggest(name) end

nn.Module = am_nn_Module
nn.Linear = am_nn_Linear
nn.Embedding = am_nn_Embedding
nn.RMSNorm = am_nn_RMSNorm
nn.GatedMLP = am_nn_GatedMLP
nn.Attention = am_nn_Attention
nn.Cache = am_nn_Cache
am.nn = nn
am.autograd = am_autograd
am.AutoModelForCausalLM = am_AutoModelForCausalLM
am.AutoModelForSequenceClassification = am_AutoModelForSequenceClassification
am.AutoConfig = am_AutoConfig
am.models = am_models
am.AutoTokenizer = am_AutoTokenizer
am.peft = am_peft
am.optim = am_optim
am.loss = am_loss
am.recipe = am_recipe
am_recipe.Recipe = am_recipe_Recipe

return am
