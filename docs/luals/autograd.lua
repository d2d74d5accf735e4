---@meta _
-- Written by docs/api.lua; do not edit. For workspace.library of a Lua language server.
-- luacheck: ignore

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

--- The same of several tensors at once, with a gradient for each.
function am_autograd.backward(tensors, gradients) end

--- A tape for a graph that waits for its backward while others are recorded, as those of several micro-batches do.
---@return am.Tape
function am_autograd.tape() end

--- Make an op from Lua functions. forward(ctx, ...) gets the inputs and returns its outputs,
--- computed without recording; what backward needs it puts into ctx. backward(ctx, grad_out, ...)
--- returns a gradient (or nil) for each input, in order. Tensors put into ctx are kept until
--- backward has used them.
---@param def {forward: function, backward: function}
---@return function op
function am_autograd.custom(def) end

--- Does backward run a block of checkpoint again just now?
function am_autograd.is_recomputing() end

--- Run fn(...) and keep only its inputs: backward runs it once more (with the same random numbers)
--- for the intermediate values. fn must not use other computed tensors than its arguments.
function am_autograd.checkpoint(fn, ...) end

return am_autograd
