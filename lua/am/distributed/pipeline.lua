-- Pipeline parallel: the ranks of the mesh's axis "pp" have a decoder's layers in turns, and micro-batches go through
-- them one behind the other. Schedule 1F1B (Narayanan et al. 2019, 2021, arXiv:2104.04473): a stage runs ahead by as
-- many forwards as there are stages behind it, and then does one forward and one backward in turns, so that it never
-- holds more graphs than that. Any number of micro-batches will do.
--
--   local pipeline = Pipeline.apply(model, mesh, layout, { pipeline = { layers_per_stage = … } })
--   pipeline:run(batches, { states =, loss =, before_last = })      forward and backward of a step
--   pipeline:forward(batch, { states =, loss = })                   forward alone
--
-- The first stage has what comes before the layers, the last one the last norm and the head. What goes from stage to
-- stage are states [B, T, C], and the logits of routers where the loss balances experts; their shapes go before them.
-- Each pair of neighbours has a group for each direction, whose sends wait for nobody else's. Which rows a batch has
-- and how gradients are summed over other axes is not this file's: all stages are given the same batches.

local autograd = require("am.core.autograd")
local err = require("am.core.error")
local scope = require("am.core.scope")
local tensor = require("am.core.tensor")
local wires = require("am.distributed.pipeline_wires")

local M = {}

local MOST = 4 -- tensors under way to a neighbour, for each stage

---@class am.distributed.Pipeline
---@field stage integer from 0
---@field stages integer
---@field first integer the first of its layers, from 1
---@field last integer
---@field trains boolean has this stage, or one before it, something to train?
---@field trains_before boolean has one before it?
local Pipeline = {}
Pipeline.__index = Pipeline

-- ---- which stage has what -------------------------------------------------------------------

--- The layers of each stage, { { first, last } … }, from 1: as even as can be, the first stages having one more, or
--- `each` (nil: none said) of them, and the last stage what is left. Raises "usage" where that can't be.
function M.deal(layers, stages, each)
    if stages > layers then
        err.raise("usage", "distributed.pp_size: %d stages are more than the model's %d layers", stages, layers)
    elseif each and math.ceil(layers / each) ~= stages then
        err.raise("usage", "distributed.pipeline.layers_per_stage: %d of %d layers each make %d stages, and pp_size is "
                  .. "%d; every rank has one stage", each, layers, math.ceil(layers / each), stages)
    end
    local list, at = {}, 0
    for s = 1, stages do
        local n = each and math.min(each, layers - at)
            or math.floor(layers / stages) + (s <= layers % stages and 1 or 0)
        list[s] = { at + 1, at + n }
        at = at + n
    end
    return list
end

-- The body that has the layers: the model's own, or its language model's.
local function layers_of(model)
    local body = model:get_decoder()
    if not body.run_layers then
        err.raise("unsupported", "distributed.pp_size: %s has a body of its own, which is not cut into stages; set it "
                  .. "to 1", model.class_name)
    end
    return body
end

-- Is name that of a module's path, or of what is below it?
local function is_below(name, path)
    return name == path or name:sub(1, #path + 1) == path .. "."
end

-- A function (name) -> the stage (from 0) that a parameter is used in.
local function stage_of(model, body, dealt)
    local at
    for path, module in model:named_modules() do
        at = module == body and path or at
    end
    local layers, of_layer = at .. "." .. body.names.layers .. ".", {}
    for s, range in ipairs(dealt) do
        for i = range[1], range[2] do
            of_layer[tostring(i - 1)] = s - 1
        end
    end
    return function(name)
        if name:sub(1, #layers) == layers then
            return of_layer[name:sub(#layers + 1):match("^[^.]+")]
        end
        local first = is_below(name, model.names.body) and not is_below(name, at .. "." .. body.names.norm)
        return first and 0 or #dealt - 1
    end
end

-- What a model's tensors are used for: an array of { name, tensor, places = { { module, slot } … }, stages = set,
-- count = of these, owner = the first of them }, the same on all ranks.
local function uses_of(model, of_name)
    local list, by_tensor = {}, {}
    for name, module, slot in model:parameter_slots() do
        local t, stage = module[slot.name], of_name(name)
        if t then
            local use = by_tensor[t] or { tensor = t, places = {}, stages = {}, count = 0, owner = stage }
            if not by_tensor[t] then
                by_tensor[t], list[#list + 1] = use, use
            end
            use.name = not slot.shared and name or use.name
            use.count = use.count + (use.stages[stage] and 0 or 1)
            use.stages[stage], use.owner = true, math.min(use.owner, stage)
            table.insert(use.places, { module, slot.name })
        end
    end
    return list
end

-- Drop what other stages have. The tensor of a tied head stays with the last stage and with the embeddings' one, and
-- its gradients are summed between these. Returns the first stage that has something to train.
local function leave_others(self, layout, of_name)
    local leaving, first = {}, math.huge
    for _, use in ipairs(uses_of(self.model, of_name)) do
        local own = use.stages[self.stage]
        if not own then
            leaving[#leaving + 1] = use.name
        elseif use.count == 2 then
            layout:partial(use.name, "pp_ends")
            layout:get(use.name).stages = 2
        end
        if use.tensor.requires_grad then
            first = math.min(first, use.owner)
            table.insert(self.trained, { name = use.name, owner = use.owner, places = use.places, own = own,
                                         shape = use.tensor:size(), dtype = use.tensor:dtype(),
                                         device = use.tensor:device(), tensor = use.tensor })
        end
    end
    layout:leave(leaving)
    return first
end

-- ---- cutting the model ----------------------------------------------------------------------

-- The instance's methods, where a stage's are others than the whole model's.
local function cut(self, body)
    local model, device, dtype = self.model, self.model:device(), self.model:dtype()
    function model.device() return device end
    function model.dtype() return dtype end
    if not self:is_last() and model.states then -- a classifier's own forward has its head in it
        model.forward = model.states
    end
    function model.generate()
        err.raise("unsupported", "distributed.pp_size: a model in stages does not generate; set it to 1")
    end
    if self.stage > 0 and model.model ~= body then
        function model.model.merged() end -- pictures are the first stage's
    end
    function body.forward(_, input_ids, position_ids, ctx)
        local x, logits = self.given.x, { unpack(self.given.logits) }
        x = x or body:first_states(input_ids, position_ids, ctx)
        local own
        x, own = body:run_layers(x, position_ids, ctx, self.first, self.last)
        for _, z in ipairs(self.balances and own or {}) do
            logits[#logits + 1] = z
        end
        if self:is_last() then
            return body:last_states(x), logits
        end
        self.made = logits
        return x, {}
    end
end

--- Cut a model into stages. All ranks of the mesh call this together. options: the `distributed` section's, of which
--- pipeline.layers_per_stage. Raises "usage" and "unsupported".
---@return am.distributed.Pipeline
function M.apply(model, mesh, layout, options)
    local body, stages = layers_of(model), mesh:size("pp")
    local dealt = M.deal(body.layer_count, stages, (options.pipeline or {}).layers_per_stage)
    local stage = mesh:rank("pp")
    local self = setmetatable({ model = model, stage = stage, stages = stages, first = dealt[stage + 1][1],
                                last = dealt[stage + 1][2], balances = model.config.output_router_logits,
                                trained = {}, group = mesh:group("pp") }, Pipeline)
    cut(self, body)
    local trained = leave_others(self, layout, stage_of(model, body, dealt))
    self.trains, self.trains_before = trained <= stage, trained < stage
    self.links = wires.links(self.group, stage, stages)
    for name, group in pairs(self.links) do
        self[name] = name:find("_in$") and wires.inbox(group, model:device()) or wires.outbox(group, MOST * stages)
    end
    return self
end

--- Does this stage have the norm and the head, and so the loss?
function Pipeline:is_last() return self.stage == self.stages - 1 end

-- ---- what other stages train ----------------------------------------------------------------

--- An array of { name, tensor } of what other stages train, whose tensors have a shape and nothing else.
function Pipeline:trained_elsewhere()
    local list = {}
    for _, p in ipairs(self.trained) do
        list[#list + 1] = not p.own and { p.name, p.tensor } or nil
    end
    return list
end

local function put(p, t)
    for _, place in ipairs(p.places) do
        place[1][place[2]] = t
    end
end

-- Run use() while the modules have make(p) for what other stages train.
local function with(self, make, use)
    for _, p in ipairs(self.trained) do
        local t = make(p)
        if not p.own then
            put(p, t)
        end
    end
    err.finally(function()
        for _, p in ipairs(self.trained) do
            if not p.own then
                put(p, nil)
            end
        end
    end, use)
end

--- use() while the modules have what all stages train, as an adapter that is saved. whole(name): a tensor of this
--- stage, whole. All ranks of the mesh call this together.
function Pipeline:with_trained(whole, use)
    scope.scope(autograd.no_grad, with, self, function(p)
        local t = p.own and whole(p.name):contiguous() or tensor.empty(p.shape, { dtype = p.dtype, device = p.device })
        return self.group:broadcast(t, p.owner):wait()
    end, use)
end

--- use() while the modules have tensors of the right shapes for what other stages train: for an adapter that is read.
function Pipeline:with_room(use)
    scope.scope(autograd.no_grad, with, self, function(p)
        return not p.own and tensor.zeros(p.shape, { dtype = p.dtype, device = p.device }) or nil
    end, use)
end

-- ---- one micro-batch ------------------------------------------------------------------------

-- What comes from the stage before, as leaves: states and a list of router logits.
local function receive(self, grad)
    if self.stage == 0 then
        return { logits = {} }
    end
    local x, logits = self.forward_in:take_states()
    for _, t in ipairs(grad and self.trains_before and { x, unpack(logits) } or {}) do
        t.requires_grad = true
    end
    return { x = x, logits = logits }
end

-- Forward of a micro-batch. Returns what the stage was given, and the loss or what goes to the next stage: states and
-- a list of router logits.
local function compute(self, batch, work, grad)
    local given = receive(self, grad)
    self.given = given
    if self:is_last() then
        return given, work.loss(batch), {}
    end
    local x = work.states(batch)
    return given, x, self.made
end

-- All that a step makes is its tape's, until its backward is done.
local function forward_step(self, batch, work, is_last_one)
    local step = { tape = autograd.tape() }
    step.given, step.out, step.logits = step.tape:run(compute, self, batch, work, true)
    if not self:is_last() then
        scope.scope(self.forward_out.send_states, self.forward_out, step.out, step.logits)
    end
    if self.forward_in and not is_last_one then
        self.forward_in:expect_states()
    end
    return step
end

-- The gradient of what a stage was given, zeros where there is none.
local function gradient(t)
    local grad = t.grad
    return grad and grad:to(t:dtype()) or tensor.zeros(t:size(), { dtype = t:dtype(), device = t:device() })
end

local function backward_step(self, step)
    if self:is_last() then
        if step.out.requires_grad then -- else no part that is trained was used
            step.tape:run(step.out.backward, step.out)
        end
    elseif self.trains then
        self.backward_in:expect_gradients(step.out, step.logits)
        local grad, of_logits = self.backward_in:take_gradients()
        local outs, grads = {}, {}
        for i, t in ipairs { step.out, unpack(step.logits) } do
            if t.requires_grad then
                outs[#outs + 1], grads[#grads + 1] = t, i == 1 and grad or of_logits[i - 1]
            end
        end
        if #outs > 0 then
            step.tape:run(autograd.backward, outs, grads)
        end
    end
    if self.trains_before then
        local of_logits = {}
        for i, t in ipairs(step.given.logits) do
            of_logits[i] = gradient(t)
        end
        self.backward_out:send_gradients(gradient(step.given.x), of_logits)
    end
end

-- ---- many of them ---------------------------------------------------------------------------

--- Forward and backward of a step's micro-batches. work:
---   states(batch)    run the model over a micro-batch and return its hidden states; not on the last stage
---   loss(batch)      the tensor whose gradients are wanted; on the last stage
---   before_last()    called before the last backward
function Pipeline:run(batches, work)
    local n = #batches
    local ahead = math.min(n, self.stages - self.stage - 1)
    local steps = {}
    for k = 1, n + ahead do
        if k <= n then
            steps[k] = forward_step(self, batches[k], work, k == n)
        end
        local due = k - ahead
        if due > 0 then
            if due == n then
                work.before_last()
            end
            scope.scope(backward_step, self, steps[due])
            steps[due].tape:release()
            steps[due] = nil
        end
    end
    self:flush()
end

--- Forward of one micro-batch alone: the loss on the last stage, nil on others. Call flush behind the last.
function Pipeline:forward(batch, work)
    local _, out, logits = compute(self, batch, work, false)
    if self:is_last() then
        return out
    end
    self.forward_out:send_states(out, logits)
end

--- Wait until all that was sent is there.
function Pipeline:flush()
    for _, name in ipairs { "forward_out", "backward_out" } do
        if self[name] then
            self[name]:flush()
        end
    end
end

--- Leave the groups; before the mesh is closed.
function Pipeline:close()
    for _, group in pairs(self.links) do
        group:close()
    end
    self.links = {}
end

return M
