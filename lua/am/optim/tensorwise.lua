-- Rules whose updates see a whole tensor at a time (Muon, SOAP, Shampoo, Adafactor), written in Lua over the
-- engine's ops. The other kind of rule is elementwise.lua. Holds no rule: a family hands one in.
--
-- A rule is a table with
--   states(shape, dtype)   array of { name, shape, dtype, fill } of a parameter's state; dtype is that of its
--                          arithmetic, float32 or float64; fill(tensor), if there, gives it numbers other than 0
--   update(w, g, state, s) changes w (the weight, or its f32 master) and state (by name) in place; g is the gradient.
--                          s holds lr, weight_decay, t (steps, this one included), and place, the parameter's name.
--   fused                  in place of update: the same, but of the weight itself, with its master (if any) in state,
--                          and a gradient that is still to be multiplied by s.grad_scale
-- It runs in a scope without recording, so that what it makes is released after each parameter: a step needs no
-- more memory than its largest parameter does.

local ffi = require("ffi")
local autograd = require("am.core.autograd")
local edge = require("am.core.ffi")
local scope = require("am.core.scope")
local tensor = require("am.core.tensor")

local C, check = edge.C, edge.check
local M = {}
local box, double_box = edge.box("am_tensor"), ffi.new("double[1]")

local Tensorwise = { needs_whole = true }
Tensorwise.__index = Tensorwise

local function is_half(dtype)
    return dtype == "bfloat16" or dtype == "float16"
end

--- The dtype that a weight of `dtype` is computed in.
function M.arithmetic(dtype)
    return dtype == "float64" and "float64" or "float32"
end

--- Over sealed parameters. opts: master_weights, maximize.
function M.new(rule, params, opts)
    local self = setmetatable({ rule = rule, params = params, maximize = opts.maximize, t = 0, weights = {},
                                names = {}, held = {} }, Tensorwise)
    for i = 0, tonumber(C.am_params_count(params)) - 1 do
        check(C.am_params_tensor(box, params, i))
        local w = tensor.own(box[0])
        local device, dtype = w:device(), w:dtype()
        local list = {}
        for k, state in ipairs(rule.states(w:size(), M.arithmetic(dtype))) do
            list[k] = { state[1], tensor.zeros(state[2], { dtype = state[3], device = device }) }
            if state[4] then
                scope.scope(state[4], list[k][2])
            end
        end
        if is_half(dtype) and opts.master_weights ~= false then
            list[#list + 1] = { "master", w:detach():to("float32") }
        end
        for _, state in ipairs(list) do
            scope.escape(state[2])
        end
        self.weights[i], self.names[i], self.held[i] = w, ffi.string(C.am_params_name(params, i)), list
    end
    return self
end

--- Count a step whose updates come one by one.
function Tensorwise:begin() self.t = self.t + 1 end

-- The update of parameter i, whose gradient is multiplied by `scale`.
local function apply(self, i, lr, weight_decay, scale)
    local weight = self.weights[i]
    local grad = weight.grad
    if not grad or weight:numel() == 0 then
        return
    end
    local state = {}
    for _, s in ipairs(self.held[i]) do
        state[s[1]] = s[2]
    end
    if self.maximize then
        scale = -scale
    end
    local s = { lr = lr, weight_decay = weight_decay, t = self.t, place = self.names[i], grad_scale = scale }
    if self.rule.fused then
        self.rule.fused(weight, grad, state, s)
        return
    end
    scope.scope(autograd.no_grad, function()
        local w = state.master or weight:detach():to(M.arithmetic(weight:dtype()))
        self.rule.update(w, scale == 1 and grad or grad * scale, state, s)
        if is_half(weight:dtype()) then
            weight:detach():copy_(w)
        end
    end)
end

--- Update parameter i (from 0) and empty its gradient; the sum of the gradient's squares.
function Tensorwise:update(i, lr, weight_decay)
    check(C.am_params_grad_sumsq(self.params, i, double_box))
    apply(self, i, lr, weight_decay, 1)
    check(C.am_params_clear_grad(self.params, i))
    return double_box[0]
end

--- One step over all parameters that have a gradient.
function Tensorwise:step(lr, weight_decay, grad_scale)
    self:begin()
    for i = 0, #self.held do
        apply(self, i, lr, weight_decay, grad_scale)
    end
end

function Tensorwise:steps() return self.t end

function Tensorwise:set_steps(n) self.t = n end

-- A view, which its user may release.
local function view(t)
    return t:detach()
end

--- A state of parameter i as a view, or nil where there is none.
function Tensorwise:state(i, what)
    for _, s in ipairs(self.held[i]) do
        if s[1] == what then
            return view(s[2])
        end
    end
end

--- Array of { name of the state, tensor } of parameter i.
function Tensorwise:states(i)
    local list = {}
    for k, s in ipairs(self.held[i]) do
        list[k] = { s[1], view(s[2]) }
    end
    return list
end

function Tensorwise:sync_masters()
    for i = 0, #self.held do
        local master = self:state(i, "master")
        if master then
            master:copy_(self.weights[i]:detach())
        end
    end
end

function Tensorwise:close()
    for i = 0, #self.held do
        for _, s in ipairs(self.held[i]) do
            s[2]:release()
        end
    end
    self.held, self.weights = {}, {}
end

return M
