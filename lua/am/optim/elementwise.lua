-- The engine's optimizers over a set of parameters: Adam, AdamW, SGD and Lion, whose updates see one element
-- at a time and run over flat buffers. One kind of the two that an Optimizer (optimizer.lua) is put together
-- from; the other is tensorwise.lua. Holds no groups and no schedules.

local ffi = require("ffi")
local edge = require("am.core.ffi")
local err = require("am.core.error")
local tensor = require("am.core.tensor")

local C, check, check_retry = edge.C, edge.check, edge.check_retry
local M = {}

local kinds = { adam = C.AM_OPTIM_ADAM, adamw = C.AM_OPTIM_ADAMW, sgd = C.AM_OPTIM_SGD, lion = C.AM_OPTIM_LION }
local state_names = { "exp_avg", "exp_avg_absmax", "exp_avg_sq", "exp_avg_sq_absmax", "max_exp_avg_sq",
                      "momentum_buffer", "momentum_buffer_absmax", "master" }
local box, double_box = edge.box("am_tensor"), ffi.new("double[1]")

local Elementwise = {}
Elementwise.__index = Elementwise

--- The engine's number of a state_dtype: -1 for the default, AM_U8 for "int8".
function M.state_dtype(name)
    if name == nil then
        return -1
    elseif name == "int8" then -- no tensors' dtype: what is stored are codes
        return C.AM_U8
    end
    local known, id = pcall(tensor.dtype_id, name)
    if not known or (id ~= C.AM_F32 and id ~= C.AM_BF16) then
        err.raise("usage", "optimizer.state_dtype must be float32, bfloat16 or int8, not %s", tostring(name))
    end
    return id
end

--- Two numbers of a list of betas.
function M.betas(betas, default)
    betas = betas or default
    if type(betas) ~= "table" or #betas ~= 2 or type(betas[1]) ~= "number" or type(betas[2]) ~= "number" then
        err.raise("usage", "optimizer.betas must be two numbers, as in [%g, %g]", default[1], default[2])
    end
    return betas[1], betas[2]
end

--- Over sealed parameters. opts: betas, eps, momentum, dampening, nesterov, amsgrad, bias_correction, maximize,
--- master_weights, state_dtype.
function M.new(kind, params, opts)
    local config = ffi.new("am_optim_config")
    config.kind = kinds[kind]
    config.beta1, config.beta2 = M.betas(opts.betas, kind == "lion" and { 0.9, 0.99 } or { 0.9, 0.999 })
    config.eps = opts.eps or 1e-8
    config.momentum, config.dampening = opts.momentum or 0, opts.dampening or 0
    config.nesterov, config.amsgrad = opts.nesterov and 1 or 0, opts.amsgrad and 1 or 0
    config.no_bias_correction, config.maximize = opts.bias_correction == false and 1 or 0, opts.maximize and 1 or 0
    config.master_weights = opts.master_weights == false and 0 or 1
    config.state_dtype = M.state_dtype(opts.state_dtype)
    local b = edge.box("am_optim")
    check_retry(C.am_optim_new, b, params, config)
    return setmetatable({ handle = ffi.gc(b[0], C.am_optim_release) }, Elementwise)
end

--- Count a step whose updates come one by one.
function Elementwise:begin() check(C.am_optim_begin(self.handle)) end

--- Update parameter i (from 0) and empty its gradient; the sum of the gradient's squares.
function Elementwise:update(i, lr, weight_decay)
    check(C.am_optim_update(self.handle, double_box, i, lr, weight_decay))
    return double_box[0]
end

--- One step over all parameters that have a gradient.
function Elementwise:step(lr, weight_decay, grad_scale)
    check(C.am_optim_step(self.handle, lr, weight_decay, grad_scale))
end

function Elementwise:steps() return tonumber(C.am_optim_steps(self.handle)) end

function Elementwise:set_steps(n) check(C.am_optim_set_steps(self.handle, n)) end

--- A state of parameter i as a view, or nil where there is none.
function Elementwise:state(i, what)
    check(C.am_optim_state(box, self.handle, what, i))
    return box[0] ~= nil and tensor.own(box[0]) or nil
end

--- Array of { name of the state, tensor } of parameter i.
function Elementwise:states(i)
    local list = {}
    for _, what in ipairs(state_names) do
        local t = self:state(i, what)
        if t then
            list[#list + 1] = { what, t }
        end
    end
    return list
end

function Elementwise:sync_masters() check(C.am_optim_sync_masters(self.handle)) end

function Elementwise:close()
    C.am_optim_release(ffi.gc(self.handle, nil))
    self.handle = nil
end

return M
