---@meta _
-- Written by docs/api.lua; do not edit. For workspace.library of a Lua language server.
-- luacheck: ignore

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

--- See the elements of source, a dense tensor of the same dtype and shape, from now on; with nil let go of its own
--- (torch's `t.data = source`). For parameters whose bytes come and go: backward looks them up again.
function am_Tensor:set_data(source) end

--- A copy with storage of its own and no history.
---@return am.Tensor
function am_Tensor:clone() end

--- The same bytes without history.
---@return am.Tensor
function am_Tensor:detach() end

--- Free now what this tensor holds; using it afterwards is an error.
function am_Tensor:release() end

return am_Tensor
