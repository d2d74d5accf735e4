-- The Optimizer: groups of parameters, each with a learning rate, a decay and an update rule of its own, and
-- what all rules share: gradients and their norms, clipping, updates inside backward, state, f32 masters.
-- The rules are in elementwise.lua and tensorwise.lua, the families beside them.

local ffi = require("ffi")
local edge = require("am.core.ffi")
local err = require("am.core.error")
local ops = require("am.core.ops")
local scope = require("am.core.scope")
local tensor = require("am.core.tensor")

local C, check, check_retry = edge.C, edge.check, edge.check_retry
local M = {}
local box, double_box = edge.box("am_tensor"), ffi.new("double[1]")
local PIECE = 1024 * 1024 -- elements

---@class am.Optimizer
---@field param_groups table[] { lr, weight_decay, lr_mult, wd_mult, max_lr?, min_lr?, names, num_parameters (other
---  ranks' among them) }; step uses the lr and weight_decay that a group has then, and a schedule writes them
local Optimizer = {}
Optimizer.__index = Optimizer

--- The trainable ones of an iterator of (name, tensor), as an array of { name, tensor }. elsewhere: an array of the
--- same, of those that other ranks train: they are sorted into groups, too, so that all ranks have the same groups.
function M.trainable(named_parameters, elsewhere)
    local entries = {}
    for name, t in named_parameters do
        if t.requires_grad then
            entries[#entries + 1] = { name, t }
        end
    end
    for _, entry in ipairs(elsewhere or {}) do
        entries[#entries + 1] = { entry[1], entry[2], elsewhere = true }
    end
    if #entries == 0 then
        err.raise("usage", "nothing is trainable: every parameter is frozen")
    end
    return entries
end

-- Those that this rank trains.
local function own(entries)
    local list = {}
    for _, entry in ipairs(entries) do
        list[#list + 1] = not entry.elsewhere and entry or nil
    end
    return list
end

local function seal(entries, separate_grads)
    local b = edge.box("am_params")
    check(C.am_params_new(b))
    local params = ffi.gc(b[0], C.am_params_release)
    for _, entry in ipairs(entries) do
        check(C.am_params_add(params, entry[1], entry[2]))
    end
    if separate_grads then
        check(C.am_params_separate_grads(params))
    end
    check_retry(C.am_params_seal, params)
    C.am_params_zero_grad(params)
    check(C.am_mem_trim(C.am_tensor_device(entries[1][2]))) -- old blocks would wait for weights of their sizes
    return params
end

--- An optimizer of groups. Weights of a group move into flat buffers; gradients and moments lie beside them. With
--- fuse_backward each weight is updated inside backward, with its group's numbers at that time, and its gradient
--- is freed at once; step() then only ends the step. So there is one backward a step, and no scaling of gradients.
---@param kind string what a checkpoint calls it
---@param groups table[] { entries = { { name, tensor }, … } as trainable gives them, lr, weight_decay, lr_mult,
---  wd_mult, max_lr?, min_lr?, rule = function(params) returns the rule over sealed parameters }; the first may have
---  no entries
---@param opts {fuse_backward: boolean?}
function M.new(kind, groups, opts)
    local self = setmetatable({ kind = kind, param_groups = {}, parts = {}, places = {}, steps = 0 },
                              Optimizer)
    for g, group in ipairs(groups) do
        local names, part, entries = {}, { rule = false, params = false, group = g }, own(group.entries)
        if #entries > 0 then
            part.params = seal(entries, opts.fuse_backward)
            part.rule = group.rule(part.params)
            self.parts[#self.parts + 1] = part
        end
        for i, entry in ipairs(entries) do
            names[i] = entry[1]
            self.places[#self.places + 1] = { part = part, i = i - 1, name = entry[1] }
        end
        self.param_groups[g] = { lr = group.lr, weight_decay = group.weight_decay, lr_mult = group.lr_mult or 1,
                                 wd_mult = group.wd_mult or 1, max_lr = group.max_lr, min_lr = group.min_lr,
                                 names = names, num_parameters = #group.entries }
    end
    if opts.fuse_backward then
        self.squares = {} -- of the gradients of the step that is open, by place
        self:fuse()
    end
    return self
end

local function parameter(place)
    check(C.am_params_tensor(box, place.part.params, place.i))
    return tensor.own(box[0])
end

-- Have backward update every parameter as soon as its gradient is final. Hooks outlive what they belong
-- to, and must not keep the optimizer alive.
function Optimizer:fuse()
    local weak = setmetatable({ self }, { __mode = "v" })
    self.hooks = {}
    for k, place in ipairs(self.places) do
        self.hooks[k] = parameter(place):register_post_accumulate_grad_hook(function()
            if weak[1] then
                weak[1]:update(k)
            end
        end)
    end
end

-- With fuse_backward: the update of the parameter at place k, which may be the first one of a step.
function Optimizer:update(k)
    local place = self.places[k]
    local g = self.param_groups[place.part.group]
    if not self.open then
        for _, part in ipairs(self.parts) do
            part.rule:begin()
        end
        self.open, self.squares = true, {}
    elseif self.squares[k] then
        err.raise("usage", "optimizer.fuse_backward: there is a second gradient of %s before step(), and the first is "
                  .. "used up. Make one backward a step (step_scheduler.local_batch_size as large as "
                  .. "global_batch_size), or set optimizer.fuse_backward: false", place.name)
    end
    self.squares[k] = 0
    self.squares[k] = place.part.rule:update(place.i, g.lr, g.weight_decay)
end

--- Are weights updated inside backward?
function Optimizer:is_fused() return self.squares ~= nil end

-- After an error in backward some weights are updated and others not.
local function check_whole(self)
    if self.open then
        err.raise("state", "the last step ended halfway, and with optimizer.fuse_backward some weights are updated and "
                  .. "others not: load a checkpoint, or begin anew")
    end
end

--- One update with each group's lr and weight_decay. Gradients are scaled by grad_scale (1).
function Optimizer:step(grad_scale)
    if not self.squares then
        self.steps = self.steps + 1
        for _, part in ipairs(self.parts) do
            local g = self.param_groups[part.group]
            part.rule:step(g.lr, g.weight_decay, grad_scale or 1)
        end
        return
    elseif grad_scale and grad_scale ~= 1 then
        err.raise("usage", "optimizer.fuse_backward: the weights are updated already, so gradients can't be scaled by "
                  .. "%g; set clip_grad_norm.max_norm: null, or optimizer.fuse_backward: false", grad_scale)
    end
    for k = 1, #self.places do
        if not (self.open and self.squares[k]) then
            self:update(k) -- of a gradient that backward did not make
        end
    end
    self.open = false
end

--- Mark all gradients as empty; the next backward overwrites them.
function Optimizer:zero_grad()
    check_whole(self)
    for _, part in ipairs(self.parts) do
        check(C.am_params_zero_grad(part.params))
    end
end

--- The gradients in pieces of about `bytes`, the last parameters first, as backward comes to them: a list of
--- { first, count, numel, places }, places being { part, i, name } of its parameters. wanted(name), if given, says
--- which are asked for. See gradients.
function Optimizer:buckets(bytes, wanted)
    if self.squares then
        err.raise("usage", "optimizer.fuse_backward uses each gradient up at once, and several ranks have to add "
                  .. "theirs up first; set optimizer.fuse_backward: false")
    end
    local list, open = {}, nil
    local function add(place)
        local flat, numel = C.am_params_flat(place.part.params, place.i), parameter(place):numel()
        if not open or open.part ~= place.part or open.flat ~= flat or open.numel * 4 >= bytes then
            open = { part = place.part, flat = flat, count = 0, numel = 0, places = {} }
            list[#list + 1] = open
        end
        open.first, open.count, open.numel = place.i, open.count + 1, open.numel + numel
        open.places[open.count] = place
    end
    for k = #self.places, 1, -1 do
        if not wanted or wanted(self.places[k].name) then
            add(self.places[k])
        else
            open = nil -- a bucket's parameters lie side by side
        end
    end
    return list
end

--- A parameter of a bucket.
function Optimizer.parameter(_, place) return parameter(place) end

--- Has a parameter of a bucket no gradient?
function Optimizer.is_empty(_, place)
    return C.am_params_grad_empty(place.part.params, place.i) ~= 0
end

--- Forget the gradient of a parameter.
function Optimizer.clear_grad(_, place) check(C.am_params_clear_grad(place.part.params, place.i)) end

--- A bucket's gradients as one vector, a view: those that lack one get one of zeros.
function Optimizer.gradients(_, bucket)
    check(C.am_params_grads(box, bucket.part.params, bucket.first, bucket.count))
    return tensor.own(box[0])
end

--- Have norms summed by fn(numbers by parameter's name): where the parameters are parts, of which other ranks have
--- the rest.
function Optimizer:sum_norms_by(fn)
    self.sum_squares = fn
end

-- The norm from each parameter's sum of squares.
local function norm_of(self, squares_of)
    local total, by_name = 0, {}
    for k, place in ipairs(self.places) do
        local value = squares_of(k, place)
        total, by_name[place.name] = total + value, value
    end
    return math.sqrt(self.sum_squares and self.sum_squares(by_name) or total)
end

--- L2 norm of all gradients; with fuse_backward of those that the last step used.
function Optimizer:grad_norm()
    if self.squares then
        return norm_of(self, function(k) return self.squares[k] or 0 end)
    end
    local squares = {}
    for _, part in ipairs(self.parts) do
        local n = C.am_params_count(part.params)
        squares[part] = ffi.new("double[?]", n)
        check(C.am_params_grad_squares(part.params, squares[part], n))
    end
    return norm_of(self, function(_, place) return squares[place.part][place.i] end)
end

-- The sum of the squares of a weight.
local function weight_square(place)
    check(C.am_params_sumsq(place.part.params, place.i, double_box))
    return double_box[0]
end

--- The sums of the squares of weights by name: of what this process has of them.
function Optimizer:weight_squares()
    local out = {}
    for _, place in ipairs(self.places) do
        out[place.name] = weight_square(place)
    end
    return out
end

--- L2 norm of all trainable weights.
function Optimizer:param_norm()
    if self.sum_squares then
        return norm_of(self, function(_, place) return weight_square(place) end)
    end
    local norms, total = {}, 0
    for i, part in ipairs(self.parts) do
        check(C.am_params_norm(part.params, double_box))
        norms[i], total = double_box[0], total + double_box[0] ^ 2
    end
    return #norms == 1 and norms[1] or math.sqrt(total)
end

--- Norm of the gradients, and the factor that brings it down to max_norm (1 when it is below, or
--- when max_norm is nil): torch.nn.utils.clip_grad_norm_'s arithmetic. Hand the factor to step. Gradients of a loss
--- that was multiplied by `scale` (1) are divided by it first: then hand factor / scale to step.
function Optimizer:clip_grad_norm(max_norm, scale)
    if max_norm and self.squares then
        err.raise("usage", "optimizer.fuse_backward updates weights before the norm of all gradients is known; set "
                  .. "clip_grad_norm.max_norm: null, or optimizer.fuse_backward: false")
    end
    local norm = self:grad_norm() / (scale or 1)
    local factor = max_norm and max_norm / (norm + 1e-6) or 1
    return norm, math.min(factor, 1)
end

--- Does a rule see whole matrices, so that a part of one is not enough?
function Optimizer:needs_whole()
    for _, part in ipairs(self.parts) do
        if part.rule.needs_whole then
            return true
        end
    end
    return false
end

--- How many numbers are trained.
function Optimizer:numel()
    local n = 0
    for _, part in ipairs(self.parts) do
        n = n + tonumber(C.am_params_numel(part.params))
    end
    return n
end

-- ---- state ------------------------------------------------------------------------------------

--- Iterator over (parameter name, state name, tensor) of what a checkpoint must hold.
function Optimizer:state_tensors()
    local list = {}
    for _, place in ipairs(self.places) do
        for _, state in ipairs(place.part.rule:states(place.i)) do
            list[#list + 1] = { place.name, state[1], state[2] }
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
    local groups = {}
    for i, g in ipairs(self.param_groups) do
        groups[i] = { lr = g.lr, weight_decay = g.weight_decay, num_parameters = g.num_parameters }
    end
    local part = self.parts[1]
    return { kind = self.kind, step = part and part.rule:steps() or self.steps, param_groups = groups }
end

local function check_number(place, key, v)
    if type(v) ~= "number" or v ~= v or v < 0 or (key == "step" and (v > 2 ^ 53 or v % 1 ~= 0)) then
        err.raise("format", "optimizer state: %s%s must be a %snumber of at least 0, not %s", place, key,
                  key == "step" and "whole " or "", tostring(v))
    end
end

-- The groups of a saved state, checked against those that there are. States of version 0.1 have one group,
-- whose numbers stand beside the step.
local function saved_groups(self, state)
    local saved = state.param_groups
    if saved == nil then
        saved = { { lr = state.lr, weight_decay = state.weight_decay } }
    elseif type(saved) ~= "table" then
        err.raise("format", "optimizer state: param_groups must be a list, not %s", tostring(saved))
    end
    if #saved ~= #self.param_groups then
        err.raise("state", "the checkpoint's optimizer has %d parameter groups, this run's has %d: use the "
                  .. "optimizer.param_group_overrides of the run that saved it", #saved, #self.param_groups)
    end
    for i, g in ipairs(saved) do
        local place = ("param_groups[%d]."):format(i)
        if type(g) ~= "table" then
            err.raise("format", "optimizer state: param_groups[%d] must be a table, not %s", i, tostring(g))
        end
        check_number(place, "lr", g.lr)
        check_number(place, "weight_decay", g.weight_decay)
        if g.num_parameters ~= nil and g.num_parameters ~= self.param_groups[i].num_parameters then
            err.raise("state", "group %d of the checkpoint's optimizer has %s parameters, this run's has %d: use the "
                      .. "optimizer.param_group_overrides of the run that saved it", i, tostring(g.num_parameters),
                      self.param_groups[i].num_parameters)
        end
    end
    return saved
end

--- Go on from a saved state. Raises "state" when it is another optimizer's or has other groups, "format" when it is
--- damaged; then nothing has changed.
function Optimizer:load_state_dict(state)
    if state.kind ~= self.kind then
        err.raise("state", "the checkpoint's optimizer is %s, this run's is %s", tostring(state.kind),
                  self.kind)
    end
    check_number("", "step", state.step)
    local saved = saved_groups(self, state)
    for _, part in ipairs(self.parts) do
        part.rule:set_steps(state.step)
    end
    self.open, self.steps = false, state.step
    for i, g in ipairs(self.param_groups) do
        g.lr, g.weight_decay = saved[i].lr, saved[i].weight_decay
    end
end

--- After weights were loaded from outside: copy them into the f32 masters.
function Optimizer:sync_masters()
    for _, part in ipairs(self.parts) do
        part.rule:sync_masters()
    end
end

-- Master where it is not what `exact` rounds to, else exact: weights that were changed since stay. In pieces,
-- since an embedding's temporaries would be the most that a run ever has.
local function take_where_unchanged(master, exact, dtype)
    local rows = master:size(0)
    local some = math.max(1, math.floor(PIECE * rows / master:numel()))
    for at = 0, rows - 1, some do
        scope.scope(function()
            local n = math.min(some, rows - at)
            local to, from = master:narrow(0, at, n), exact:narrow(0, at, n):to("float32")
            to:copy_(ops.where(from:to(dtype):to("float32"):eq(to), from, to))
        end)
    end
end

--- Give the f32 masters of 16-bit weights the values that the weights were rounded from. get(name) is
--- a tensor of floats, or nil where there is none. Without this a run begins with rounded masters, up to
--- 2^-9 beside the checkpoint.
function Optimizer:load_masters(get)
    scope.scope(function()
        for _, place in ipairs(self.places) do
            local master = place.part.rule:state(place.i, "master")
            if master then
                local dtype = parameter(place):dtype()
                scope.scope(function()
                    local exact = get(place.name)
                    if exact and exact:dtype() ~= dtype then
                        take_where_unchanged(master, exact, dtype)
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
    for _, part in ipairs(self.parts) do
        part.rule:close()
        C.am_params_release(ffi.gc(part.params, nil))
        part.params = nil
    end
    self.parts, self.places = {}, {}
end

return M
