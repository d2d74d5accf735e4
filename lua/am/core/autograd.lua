-- Gradients: requires_grad and grad fields, backward, no_grad, custom ops written in Lua, tapes that are set
-- aside, and recomputation of blocks. The record itself is the engine's (engine/ops/tape.c); backward is
-- pulled from here, so that custom ops run as plain Lua.

local ffi = require("ffi")
local args = require("am.core.args")
local edge = require("am.core.ffi")
local err = require("am.core.error")
local tensor = require("am.core.tensor")
local scope = require("am.core.scope")

local C, check = edge.C, edge.check
local M = {}
local box = edge.box("am_tensor")

tensor.fields.requires_grad = {
    get = function(t) return C.am_tensor_requires_grad(t) ~= 0 end,
    set = function(t, on) check(C.am_tensor_set_requires_grad(t, on and 1 or 0)) end,
}
tensor.fields.grad = {
    get = function(t)
        check(C.am_tensor_grad(box, t))
        return box[0] ~= nil and tensor.own(box[0]) or nil
    end,
    set = function(t, grad)
        check(C.am_tensor_set_grad(t, grad ~= nil and args.tensor("grad", grad) or nil))
    end,
}

--- Mark a leaf as collecting gradients and return it.
function tensor.methods:requires_grad_(on)
    check(C.am_tensor_set_requires_grad(args.tensor("requires_grad_", self), on == false and 0 or 1))
    return self
end

local function with_mode(what, mode, fn, ...)
    args.callable(what, fn)
    local before = C.am_grad_mode_set(mode)
    return err.finally(function() C.am_grad_mode_set(before) end, fn, ...)
end

--- Run fn(...) without recording.
function M.no_grad(fn, ...) return with_mode("no_grad", C.AM_GRAD_OFF, fn, ...) end

--- Run fn(...) with recording on (inside no_grad).
function M.enable_grad(fn, ...) return with_mode("enable_grad", C.AM_GRAD_ON, fn, ...) end

--- Run fn(...) without recording, as generation does with one token a row: products of up to eight rows
--- are done in the way that is fastest for them. A row's bits don't depend on how many of these there
--- are, but they aren't those of no_grad.
function M.inference_mode(fn, ...) return with_mode("inference_mode", C.AM_GRAD_INFERENCE, fn, ...) end

--- Is recording on?
function M.is_grad_enabled() return C.am_grad_mode() == C.AM_GRAD_ON end

-- ---- backward -------------------------------------------------------------------------------

-- Custom nodes that wait for the backward of their tape, by id. Their context holds shells of its own, so that scopes
-- of the forward pass can end; they are released as soon as they have served.
-- depth: how many blocks within one another are being computed again.
---@class am.Tape
local Tape = {}
Tape.__index = Tape

local function new_tape(handle)
    return setmetatable({ handle = handle, pending = {}, depth = 0 }, Tape)
end

local current, next_id = new_tape(), 0

-- A copy of value with every tensor in it (also in nested tables) as a shell of our own.
local function hold(value, shells)
    if tensor.is(value) then
        local shell = scope.escape(value:detach())
        shells[#shells + 1] = shell
        return shell
    elseif type(value) == "table" and getmetatable(value) == nil then
        local copy = {}
        for k, v in pairs(value) do
            copy[k] = hold(v, shells)
        end
        return copy
    end
    return value
end

local function drop(pending, id)
    for _, shell in ipairs(pending[id] and pending[id].shells or {}) do
        shell:release()
    end
    pending[id] = nil
end

-- A tape is empty, so nothing of it waits any more.
local function drop_all(pending)
    for id in pairs(pending) do
        drop(pending, id)
    end
end

-- A scope may release the last tensor that led to a custom op, as after an error in a forward.
local function drop_unreachable()
    if current.depth == 0 and next(current.pending) and C.am_tape_length() == 0 then
        drop_all(current.pending)
    end
end
scope.when_left(drop_unreachable)

local function run_custom(event)
    local node = current.pending[event.id]
    local grads_out = {}
    for i = 1, event.n_out do
        grads_out[i] = event.grad_out[i - 1] ~= nil and tensor.own(event.grad_out[i - 1]) or nil
    end
    if not node then
        err.raise("internal", "backward met a custom op that nobody recorded")
    end
    local grads = { M.no_grad(node.backward, node.ctx, unpack(grads_out, 1, event.n_out)) }
    for i = 1, event.n_in do
        local grad = grads[node.positions[i]]
        if event.needs_grad[i - 1] ~= 0 and grad ~= nil then
            check(C.am_backward_custom_grad(i - 1, grad))
        end
    end
end

-- Functions of leaves' hooks, by id.
local hooks, last_hook = {}, 0

local function run_hooks(event)
    local leaf = tensor.own(event.leaf)
    for _, fn in ipairs { unpack(hooks[event.id] or {}) } do -- a copy: they may remove themselves
        M.no_grad(fn, leaf)
    end
end

-- Backward up to the next event, and what is to be done there.
local function pull_one(event)
    check(C.am_backward_next(event))
    if event.kind == C.AM_EV_CUSTOM then
        run_custom(event)
    elseif event.kind == C.AM_EV_LEAF then
        run_hooks(event)
    end
end

local function pull()
    local event = ffi.new("am_event")
    repeat
        -- A scope each, in which the gradients that come with an event are: they go with it.
        local ok, e = pcall(scope.scope, pull_one, event)
        drop(current.pending, event.kind == C.AM_EV_CUSTOM and event.id)
        if not ok then
            C.am_tape_reset()
            error(e, 0)
        end
    until event.kind == C.AM_EV_DONE
end

local Handle = {}
Handle.__index = Handle

--- Have backward call the function no longer.
function Handle:remove()
    local list = hooks[self.id] or {}
    for i = #list, 1, -1 do
        if list[i] == self.fn then
            table.remove(list, i)
        end
    end
    if #list == 0 and hooks[self.id] then
        hooks[self.id] = nil
        C.am_tensor_set_grad_hook(self.tensor, 0) -- a tensor that is released has none to take away
    end
end

--- Have backward call fn(t) as soon as t's gradient is final: nothing will be added to it any more, nor t
--- read again, so fn may change both. Once in each backward that reaches t, before it returns. t must be
--- a leaf. An error in fn ends backward. Several functions are called in the order they came.
---@return table handle with remove(), which the function stays until
function tensor.methods:register_post_accumulate_grad_hook(fn)
    args.callable("register_post_accumulate_grad_hook", fn)
    local id = C.am_tensor_grad_hook(args.tensor("register_post_accumulate_grad_hook", self))
    if id == 0 then
        last_hook = last_hook + 1
        id = last_hook
        check(C.am_tensor_set_grad_hook(self, id))
        hooks[id] = {}
    end
    table.insert(hooks[id], fn)
    return setmetatable({ id = id, fn = fn, tensor = self }, Handle)
end

local function run_backward()
    local ok, e = pcall(pull)
    if current.depth == 0 then
        drop_all(current.pending)
    end
    if not ok then
        error(e, 0)
    end
end

--- Gradients of all leaves that t depends on, added to their .grad. t must be a scalar unless
--- gradient (of its shape) is given.
function tensor.methods:backward(gradient)
    if gradient ~= nil then
        args.tensor("backward", gradient)
    end
    check(C.am_backward_begin(args.tensor("backward", self), gradient))
    run_backward()
end

--- The same of several tensors at once, with a gradient for each.
function M.backward(tensors, gradients)
    local n = #args.dense("backward", tensors)
    local outs, grads = ffi.new("am_tensor *[?]", n), ffi.new("am_tensor *[?]", n)
    for i = 1, n do
        outs[i - 1], grads[i - 1] = args.tensor("backward", tensors[i]), args.tensor("backward", gradients[i])
    end
    check(C.am_backward_begin_many(outs, grads, n))
    run_backward()
end

-- ---- tapes ----------------------------------------------------------------------------------

local function drop_scope(s)
    check(C.am_scope_take_up(s))
    check(C.am_scope_pop())
end

--- A tape for a graph that waits for its backward while others are recorded, as those of several micro-batches do.
---@return am.Tape
function M.tape()
    local b = edge.box("am_tape")
    check(C.am_tape_new(b))
    return new_tape(ffi.gc(b[0], C.am_tape_release))
end

local scope_box = edge.box("am_scope")

-- Into the tape's scope and onto the tape; a function that goes back.
local function enter(self)
    local before = current
    if self.scope then
        check(C.am_scope_take_up(ffi.gc(self.scope, nil)))
    else
        check(C.am_scope_push())
    end
    current = self
    drop_unreachable()
    return function()
        current = before
        check(C.am_scope_set_aside(scope_box))
        self.scope = ffi.gc(scope_box[0], drop_scope)
        check(C.am_tape_leave())
    end
end

--- Run fn(...) with this tape in the place of the current one, which goes on when fn has returned. What is computed
--- in it belongs to this tape: later calls of run may use it, backward included, until release. Leaves may be used
--- by any tape, and get the gradients of all.
function Tape:run(fn, ...)
    args.callable("tape:run", fn)
    check(C.am_tape_enter(self.handle))
    return err.finally(enter(self), fn, ...)
end

--- Free the tape now, with what is on it and all tensors that were made in its runs.
function Tape:release()
    if self.handle then
        check(C.am_tape_release(self.handle))
        ffi.gc(self.handle, nil)
        self.handle = nil
        drop_all(self.pending)
        if self.scope then
            drop_scope(ffi.gc(self.scope, nil))
            self.scope = nil
        end
    end
end

-- ---- custom ops -----------------------------------------------------------------------------

--- Make an op from Lua functions. forward(ctx, ...) gets the inputs and returns its outputs,
--- computed without recording; what backward needs it puts into ctx. backward(ctx, grad_out, ...)
--- returns a gradient (or nil) for each input, in order. Tensors put into ctx are kept until
--- backward has used them.
---@param def {forward: function, backward: function}
---@return function op
function M.custom(def)
    if type(def) ~= "table" then
        err.raise("argument", "custom: a table {forward = function, backward = function} is needed")
    end
    args.callable("custom: forward", def.forward)
    args.callable("custom: backward", def.backward)
    return function(...)
        local ctx, inputs = {}, { ... }
        local results = { M.no_grad(def.forward, ctx, ...) }
        local ins, outs = ffi.new("am_tensor *[8]"), ffi.new("am_tensor *[8]")
        local positions, n_in = {}, 0
        for i = 1, select("#", ...) do
            if tensor.is(inputs[i]) then
                if n_in == C.AM_CUSTOM_MAX then
                    err.raise("argument", "a custom op takes at most %d tensors", C.AM_CUSTOM_MAX)
                end
                ins[n_in] = inputs[i]
                n_in = n_in + 1
                positions[n_in] = i
            end
        end
        if #results > C.AM_CUSTOM_MAX then
            err.raise("argument", "a custom op gives at most %d tensors", C.AM_CUSTOM_MAX)
        end
        for i, r in ipairs(results) do
            -- An output that is an input would carry that input's history.
            for j = 1, n_in do
                if results[i] == inputs[positions[j]] then
                    results[i] = r:clone()
                end
            end
            outs[i - 1] = results[i]
        end
        drop_unreachable()
        next_id = next_id + 1
        local id, recorded = next_id, ffi.new("int[1]")
        check(C.am_record_custom(recorded, id, outs, #results, ins, n_in))
        if recorded[0] ~= 0 then
            local shells = {}
            current.pending[id] = { ctx = hold(ctx, shells), shells = shells, positions = positions,
                                    backward = def.backward }
        end
        return unpack(results)
    end
end

-- ---- recomputation --------------------------------------------------------------------------

local seed_box, stream_box = ffi.new("uint64_t[1]"), ffi.new("uint64_t[1]")

local function rng_state()
    C.am_rng_get(seed_box, stream_box)
    return seed_box[0], stream_box[0]
end

-- Run fn on fresh leaves on a tape of its own and pull the inputs' gradients out of it.
local function recompute(fn, ctx, seed, stream, ...)
    local leaves, grads_out = {}, { ... }
    for i, x in ipairs(ctx.inputs) do
        leaves[i] = tensor.is(x) and x:detach() or x
        if ctx.needs[i] then
            leaves[i].requires_grad = true
        end
    end
    local seed_now, stream_now = rng_state()
    C.am_rng_set(seed, stream)
    check(C.am_tape_push())
    current.depth = current.depth + 1
    local ok, e = pcall(function()
        local results = { M.enable_grad(fn, unpack(leaves)) }
        local outs, grads, n = ffi.new("am_tensor *[8]"), ffi.new("am_tensor *[8]"), 0
        for i = 1, #results do
            if grads_out[i] ~= nil and results[i].requires_grad then
                outs[n], grads[n] = results[i], grads_out[i]
                n = n + 1
            end
        end
        if n > 0 then
            check(C.am_backward_begin_many(outs, grads, n))
            pull()
        end
    end)
    current.depth = current.depth - 1
    check(C.am_tape_pop())
    C.am_rng_set(seed_now, stream_now)
    if not ok then
        error(e, 0)
    end
    local grads = {}
    for i = 1, #leaves do
        grads[i] = tensor.is(leaves[i]) and leaves[i].grad or nil
    end
    return unpack(grads, 1, #leaves)
end

--- Does backward run a block of checkpoint again just now?
function M.is_recomputing() return current.depth > 0 end

-- Leaves with hooks that fn reads are used by the node that is recorded next.
local function noting_leaves(fn, ...)
    check(C.am_tape_note_leaves(1))
    return err.finally(function() C.am_tape_note_leaves(0) end, fn, ...)
end

--- Run fn(...) and keep only its inputs: backward runs it once more (with the same random numbers)
--- for the intermediate values. fn must not use other computed tensors than its arguments.
function M.checkpoint(fn, ...)
    args.callable("checkpoint", fn)
    if not M.is_grad_enabled() then
        return fn(...)
    end
    local seed, stream = rng_state()
    -- fn's parameters may need gradients where none of its arguments does; this leaf has it recorded.
    local marker = tensor.zeros({}, { device = tensor.is((...)) and (...):device() or nil })
    marker.requires_grad = true
    local op = M.custom {
        forward = function(ctx, _, ...)
            ctx.inputs, ctx.needs = { ... }, {}
            for i, x in ipairs(ctx.inputs) do
                ctx.needs[i] = tensor.is(x) and x.requires_grad
            end
            return noting_leaves(scope.scope, fn, ...)
        end,
        backward = function(ctx, ...)
            return nil, recompute(fn, ctx, seed, stream, ...)
        end,
    }
    return op(marker, ...)
end

return M
