-- Optimizers over the engine's flat buffers: Adam, AdamW and SGD with PyTorch's arguments. Schedules
-- are in scheduler.lua; clipping is clip_grad_norm below.

local ffi = require("ffi")
local edge = require("am.core.ffi")
local err = require("am.core.error")
local ops = require("am.core.ops")
local scope = require("am.core.scope")
local tensor = require("am.core.tensor")

local C, check, check_retry = edge.C, edge.check, edge.check_retry
local M = {}

local kinds = { adam = C.AM_OPTIM_ADAM, adamw = C.AM_OPTIM_ADAMW, sgd = C.AM_OPTIM_SGD }
local state_names = { "exp_avg", "exp_avg_absmax", "exp_avg_sq", "exp_avg_sq_absmax", "momentum_buffer",
                      "momentum_buffer_absmax", "master" }
local box, double_box = edge.box("am_tensor"), ffi.new("double[1]")

---@class am.Optimizer
local Optimizer = {}
Optimizer.__index = Optimizer

local function betas_of(opts)
    local betas = opts.betas or { 0.9, 0.999 }
    if type(betas) ~= "table" or type(betas[1]) ~= "number" or type(betas[2]) ~= "number" then
        err.raise("usage", "optimizer.betas must be two numbers, as in [0.9, 0.999]")
    end
    return betas[1], betas[2]
end

local function state_dtype_of(opts)
    if opts.state_dtype == nil then
        return -1
    end
    if opts.state_dtype == "int8" then -- no tensors' dtype: what is stored are codes
        return C.AM_U8
    end
    local known, id = pcall(tensor.dtype_id, opts.state_dtype)
    if not known or (id ~= C.AM_F32 and id ~= C.AM_BF16) then
        err.raise("usage", "optimizer.state_dtype must be float32, bfloat16 or int8, not %s",
                  tostring(opts.state_dtype))
    end
    return id
end

-- Seal the trainable parameters of an iterator of (name, tensor).
local function seal(named_parameters, separate_grads)
    local b = edge.box("am_params")
    check(C.am_params_new(b))
    local params, any = ffi.gc(b[0], C.am_params_release), false
    for name, t in named_parameters do
        if t.requires_grad then
            check(C.am_params_add(params, name, t))
            any = true
        end
    end
    if not any then
        err.raise("usage", "nothing is trainable: every parameter is frozen")
    end
    if separate_grads then
        check(C.am_params_separate_grads(params))
    end
    check_retry(C.am_params_seal, params)
    return params
end

-- Have backward update every parameter as soon as its gradient is final. Hooks outlive what they belong
-- to, and must not keep the optimizer alive.
local function fuse(self)
    local weak, handles = setmetatable({ self }, { __mode = "v" }), {}
    for i = 0, tonumber(C.am_params_count(self.params)) - 1 do
        check(C.am_params_tensor(box, self.params, i))
        handles[i + 1] = tensor.own(box[0]):register_post_accumulate_grad_hook(function()
            if weak[1] then
                weak[1]:update(i)
            end
        end)
    end
    return handles
end

--- An optimizer for the trainable parameters of an iterator such as model:named_parameters().
--- Weights move into flat buffers; gradients and moments lie beside them. With fuse_backward each weight
--- is updated inside backward, with the group's numbers at that time, and its gradient is freed at once;
--- step() then only ends the step. So there is one backward a step, and no scaling of gradients in step.
---@param kind "adam"|"adamw"|"sgd"
---@param named_parameters function iterator of (name, tensor)
---@param opts {lr: number, betas: number[]?, eps: number?, weight_decay: number?, momentum: number?,
---  dampening: number?, nesterov: boolean?, master_weights: boolean?, state_dtype: string?,
---  fuse_backward: boolean?}
function M.new(kind, named_parameters, opts)
    local self = setmetatable({ kind = kind }, Optimizer)
    local config = ffi.new("am_optim_config")
    config.kind = kinds[kind] or err.raise("usage", "there is no optimizer \"%s\"", tostring(kind))
    config.beta1, config.beta2 = betas_of(opts)
    config.eps = opts.eps or 1e-8
    config.momentum, config.dampening = opts.momentum or 0, opts.dampening or 0
    config.nesterov = opts.nesterov and 1 or 0
    config.master_weights = opts.master_weights == false and 0 or 1
    config.state_dtype = state_dtype_of(opts)
    self.params = seal(named_parameters, opts.fuse_backward)
    local b = edge.box("am_optim")
    check_retry(C.am_optim_new, b, self.params, config)
    self.handle = ffi.gc(b[0], C.am_optim_release)
    local decay = opts.weight_decay or (kind == "adamw" and 0.01 or 0)
    self.param_groups = { { lr = opts.lr or 1e-3, weight_decay = decay } }
    C.am_params_zero_grad(self.params)
    if opts.fuse_backward then
        self.squares = {} -- of the gradients of the step that is open, by parameter
        self.hooks = fuse(self)
    end
    return self
end

-- With fuse_backward: the update of parameter i, which may be the first one of a step.
function Optimizer:update(i)
    local g = self.param_groups[1]
    if not self.open then
        check(C.am_optim_begin(self.handle))
        self.open, self.squares = true, {}
    elseif self.squares[i] then
        err.raise("usage", "optimizer.fuse_backward: there is a second gradient of %s before step(), and the first is "
                  .. "used up. Make one backward a step (step_scheduler.local_batch_size as large as "
                  .. "global_batch_size), or set optimizer.fuse_backward: false",
                  ffi.string(C.am_params_name(self.params, i)))
    end
    self.squares[i] = 0
    check(C.am_optim_update(self.handle, double_box, i, g.lr, g.weight_decay))
    self.squares[i] = double_box[0]
end

-- After an error in backward some weights are updated and others not.
local function check_whole(self)
    if self.open then
        err.raise("state", "the last step ended halfway, and with optimizer.fuse_backward some weights are updated and "
                  .. "others not: load a checkpoint, or begin anew")
    end
end

--- One update with the group's lr and weight_decay. Gradients are scaled by grad_scale (1).
function Optimizer:step(grad_scale)
    local g = self.param_groups[1]
    if not self.squares then
        check(C.am_optim_step(self.handle, g.lr, g.weight_decay, grad_scale or 1))
        return
    elseif grad_scale and grad_scale ~= 1 then
        err.raise("usage", "optimizer.fuse_backward: the weights are updated already, so gradients can't be scaled by "
                  .. "%g; set clip_grad_norm.max_norm: null, or optimizer.fuse_backward: false", grad_scale)
    end
    for i = 0, tonumber(C.am_params_count(self.params)) - 1 do
        if not (self.open and self.squares[i]) then
            self:update(i) -- of a gradient that backward did not make
        end
    end
    self.open = false
end

--- Mark all gradients as empty; the next backward overwrites them.
function Optimizer:zero_grad()
    check_whole(self)
    check(C.am_params_zero_grad(self.params))
end

--- L2 norm of all gradients; with fuse_backward of those that the last step used.
function Optimizer:grad_norm()
    if self.squares then
        local total = 0
        for i = 0, tonumber(C.am_params_count(self.params)) - 1 do
            total = total + (self.squares[i] or 0)
        end
        return math.sqrt(total)
    end
    check(C.am_params_grad_norm(self.params, 1, double_box))
    return double_box[0]
end

--- L2 norm of all trainable weights.
function Optimizer:param_norm()
    check(C.am_params_norm(self.params, double_box))
    return double_box[0]
end

--- Norm of the gradients, and the factor that brings it down to max_norm (1 when it is below, or
--- when max_norm is nil): torch.nn.utils.clip_grad_norm_'s arithmetic. Hand the factor to step.
function Optimizer:clip_grad_norm(max_norm)
    if max_norm and self.squares then
        err.raise("usage", "optimizer.fuse_backward updates weights before the norm of all gradients is known; set "
                  .. "clip_grad_norm.max_norm: null, or optimizer.fuse_backward: false")
    end
    local norm = self:grad_norm()
    local factor = max_norm and max_norm / (norm + 1e-6) or 1
    return norm, math.min(factor, 1)
end

function Optimizer:numel()
    return tonumber(C.am_params_numel(self.params))
end

--- Iterator over (parameter name, state name, tensor) of what a checkpoint must hold.
function Optimizer:state_tensors()
    local list = {}
    for i = 0, tonumber(C.am_params_count(self.params)) - 1 do
        local name = ffi.string(C.am_params_name(self.params, i))
        for _, what in ipairs(state_names) do
            check(C.am_optim_state(box, self.handle, what, i))
            if box[0] ~= nil then
                list[#list + 1] = { name, what, tensor.own(box[0]) }
            end
        end
    end
    local i = 0
    return function()
        i = i + 1
        if list[i] then
            return unpack(list[i])
        end
    end
end

--- Numbers that a checkpoint must hold beside the tensors.
function Optimizer:state_dict()
    check_whole(self)
    local g = self.param_groups[1]
    return { kind = self.kind, step = tonumber(C.am_optim_steps(self.handle)), lr = g.lr,
             weight_decay = g.weight_decay }
end

function Optimizer:load_state_dict(state)
    if state.kind ~= self.kind then
        err.raise("state", "the checkpoint's optimizer is %s, this run's is %s", tostring(state.kind),
                  self.kind)
    end
    for _, key in ipairs { "step", "lr", "weight_decay" } do
        local v = state[key]
        if type(v) ~= "number" or v ~= v or v < 0 or (key == "step" and (v > 2 ^ 53 or v % 1 ~= 0)) then
            err.raise("format", "optimizer state: %s must be a %snumber of at least 0, not %s", key,
                      key == "step" and "whole " or "", tostring(v))
        end
    end
    check(C.am_optim_set_steps(self.handle, state.step))
    self.open = false
    self.param_groups[1].lr, self.param_groups[1].weight_decay = state.lr, state.weight_decay
end

--- After weights were loaded from outside: copy them into the f32 masters.
function Optimizer:sync_masters()
    check(C.am_optim_sync_masters(self.handle))
end

-- master where it is not what `exact` rounds to, else exact: weights that were changed since stay.
local function exact_where_unchanged(master, exact, dtype)
    return ops.where(exact:to(dtype):to("float32"):eq(master), exact, master)
end

--- Give the f32 masters of 16-bit weights the values that the weights were rounded from. get(name) is
--- a float32 tensor, or nil where there is none. Without this a run begins with rounded masters, up to
--- 2^-9 beside the checkpoint.
function Optimizer:load_masters(get)
    scope.scope(function()
        for i = 0, tonumber(C.am_params_count(self.params)) - 1 do
            local name = ffi.string(C.am_params_name(self.params, i))
            check(C.am_optim_state(box, self.handle, "master", i))
            local master = box[0] ~= nil and tensor.own(box[0])
            if master then
                check(C.am_params_tensor(box, self.params, i))
                local dtype = tensor.own(box[0]):dtype()
                scope.scope(function()
                    local exact = get(name)
                    if exact then
                        master:copy_(exact_where_unchanged(master, exact, dtype))
                    end
                end)
            end
        end
    end)
end

--- Free the flat buffers and moments now.
function Optimizer:close()
    for _, handle in ipairs(self.hooks or {}) do
        handle:remove()
    end
    C.am_optim_release(ffi.gc(self.handle, nil))
    C.am_params_release(ffi.gc(self.params, nil))
    self.handle, self.params = nil, nil
end

-- ---- what a configuration may name -----------------------------------------------------------

local common = {
    lr = { type = "number", default = 1e-3, min = 0, doc = "learning rate" },
    weight_decay = { type = "number", min = 0, doc = "decay of weights" },
    master_weights = { type = "boolean", default = true, doc = "f32 copies of 16-bit weights" },
    state_dtype = { type = "string", doc = "of the moments: float32 (default), bfloat16 or int8" },
    fuse_backward = { type = "boolean", default = false,
                      doc = "update each weight inside backward, so that not all gradients exist at once" },
    amsgrad = { type = "boolean", enum = { false }, doc = "not there" },
    maximize = { type = "boolean", enum = { false }, doc = "not there" },
    foreach = { type = "boolean", no_effect = "updates are always fused" },
    fused = { type = "boolean", no_effect = "updates are always fused" },
}
local adam = {
    betas = { type = "list", items = { type = "number", required = true }, default = { 0.9, 0.999 },
              doc = "decay of the moments" },
    eps = { type = "number", default = 1e-8, min = 0, doc = "added to the denominator" },
}
local sgd = {
    momentum = { type = "number", default = 0, min = 0, doc = "momentum" },
    dampening = { type = "number", default = 0, doc = "dampening of momentum" },
    nesterov = { type = "boolean", default = false, doc = "Nesterov momentum" },
}

local function target(kind, name, extra)
    local fields = {}
    for _, set in ipairs { common, extra } do
        for k, v in pairs(set) do
            fields[k] = v
        end
    end
    return {
        name = "am.optim." .. name,
        aliases = { "torch.optim." .. name, "torch.optim." .. kind .. "." .. name },
        doc = name .. " as torch.optim has it",
        fields = fields,
        build = function(args, ctx)
            args.weight_decay = args.weight_decay or (kind == "adamw" and 0.01 or 0)
            return M.new(kind, ctx.named_parameters, args)
        end,
    }
end

--- Targets for the recipe's registry; ctx.named_parameters is the model's iterator.
M.targets = { target("adam", "Adam", adam), target("adamw", "AdamW", adam), target("sgd", "SGD", sgd) }

return M
