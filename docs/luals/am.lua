---@meta am
-- Written by docs/api.lua; do not edit. For workspace.library of a Lua language server.
-- luacheck: ignore

---@class am: am.Ops
---@field version string
---@field ops am.Ops
---@field autograd am.autograd
---@field nn am.nn
---@field AutoModelForCausalLM am.AutoModelForCausalLM
---@field AutoModelForSequenceClassification am.AutoModelForSequenceClassification
---@field AutoConfig am.AutoConfig
---@field models am.models
---@field AutoTokenizer am.AutoTokenizer
---@field AutoProcessor am.AutoProcessor
---@field AutoImageProcessor am.AutoImageProcessor
---@field peft am.peft
---@field optim am.optim
---@field loss am.loss
---@field recipe am.recipe
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

--- All tensors of a safetensors, GGUF or PyTorch file as {name = tensor}.
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

--- Switch a live model's ops, and say which runs how: {attention = "fused" or "eager", rms_norm = "fused" or
--- "composed", layer_norm =, glu =}, for those that it has. Numbers stay the same but for rounding.
---@param model am.nn.Module
---@param opts? {attn_implementation: string?, use_liger_kernel: boolean?, use_sdpa_patching: boolean?, sdpa_method: any} attn_implementation: eager stores the scores, any other is fused (sdpa by default), and for flash_attention_2 and flash_attention_3 a GPU's library may compute it (docs/cuda.md); use_liger_kernel: false composes norms and gated activations. The last two choose among kernels of which there is one, so they change nothing.
function am.patch_model_with_kernel_optimizations(model, opts) end

--- A PeftConfig from some of the fields; the rest get their defaults.
function am.PeftConfig(values) end

return am
