-- Forward and backward of micro-batches as CUDA graphs, where `compile.mode` asks for them (torch.compile's
-- "reduce-overhead"). Methods of the recipes for language models (llm.lua); graphs are am.training.graphs'.
--
-- Micro-batches of one shape share a record. So what varies with their content is rounded up, in the record and
-- without it: the number of places with a label that go through the head, and of packed samples.

local ffi = require("ffi")
local am = require("am")
local datasets = require("am.datasets")
local graphs = require("am.training.graphs")
local packed = require("am.core.packed")

local Methods = {}

-- ---- whether ----------------------------------------------------------------------------------

-- Methods that say what a micro-batch computes.
local COMPUTE = { "batch_gradients", "inputs", "run_model", "label_states", "labelled", "loss",
                  "objective", "own_tokens" }

-- Has a recipe that extends llm_finetune.lua, the first to have batch_gradients, its own one of these?
local function computes_otherwise(self)
    local class, first = getmetatable(self), nil
    while class do
        first, class = rawget(class, "batch_gradients") and class or first, class.parent
    end
    for _, name in ipairs(COMPUTE) do
        if self[name] ~= first[name] then
            return true
        end
    end
    return false
end

-- Why there can be no graphs, or nil.
local function obstacle(self)
    local cut = self.fsdp or self.pipeline or self:is_cut() or self.mesh:size("cp") > 1
    return computes_otherwise(self) and "the recipe " .. self.name .. " computes its loss in its own way"
        or cut and "ranks share the model, and exchange parts of it while it runs"
        or self.optimizer:is_fused() and "optimizer.fuse_backward updates weights in backward"
        or self.qat and "qat rounds from a step on"
        or self.cfg:has("neftune") and "neftune's noise goes by the length of rows"
        or self.model.config.output_router_logits and "model.output_router_logits adds a loss that the host reads"
        or nil
end

-- All tensors of a model that kernels get, frozen ones too.
local function tensors_of(model)
    local list = {}
    for _, t in model:named_parameters() do
        list[#list + 1] = packed.is(t) and t.bytes or t
    end
    return list
end

local SIMPLE = { number = true, boolean = true, string = true }

-- Is anything simple in a module other than known, which then has it?
local function take_changes(module, known)
    local changed = false
    for name, value in pairs(module) do
        if SIMPLE[type(value)] and known[name] ~= value then
            known[name], changed = value, true
        end
    end
    for name in pairs(known) do
        if rawget(module, name) == nil then
            known[name], changed = nil, true
        end
    end
    return changed
end

-- A function that says how often numbers and switches of a model's modules (LoRA's scale, what dropout leaves out,
-- activation_checkpointing) have been found to be others: kernels were recorded with what they were.
local function counter_of_changes(model)
    local known, count = {}, 0
    for _, module in model:named_modules() do
        known[module] = {}
    end
    return function()
        local changed = false
        for module, values in pairs(known) do
            changed = take_changes(module, values) or changed
        end
        count = count + (changed and 1 or 0)
        return count
    end
end

local GRAPH_MODES = { ["reduce-overhead"] = true, ["max-autotune"] = true }

--- The am.training.Graphs of the run; nil where none are asked for, or there can be none.
function Methods:build_graphs()
    local section = self:section("compile")
    if not (section.enabled and GRAPH_MODES[section.mode]) or not self.ctx.device:match("^cuda") then
        return nil
    end
    local why = obstacle(self)
    if why then
        self.log:info("compile.mode %s without CUDA graphs: %s", section.mode, why)
        return nil
    end
    self.count_changes = counter_of_changes(self.model)
    return graphs.new(tensors_of(self.model), function(inputs) return self:recorded_work(inputs) end, self.log)
end

-- ---- a micro-batch ----------------------------------------------------------------------------

-- At least n: a multiple of `step`, of large numbers one of eight to each power of two.
local function round_up(n, step)
    while n > step * 16 do
        step = step * 2
    end
    return math.ceil(n / step) * step
end

-- Places in [B T] that go through the head, and their labels, as C arrays and their number: those with a label, filled
-- up by place 0 without one. No places where it is worth nothing to choose, or the head's scales are of all of them.
local function head_places(self, batch)
    local head, n, count = self.model:get_output_embeddings(), batch.B * batch.T, batch.num_label_tokens
    local rounded = round_up(math.max(count, 1), 64) -- as many rows as a tile of a product has
    if rounded >= n or head and head.fp8 then
        return nil, batch.labels, n
    end
    local places, labels = ffi.new("int32_t[?]", rounded), ffi.new("int32_t[?]", rounded)
    ffi.copy(places, self.labelled_rows(batch), 4 * count)
    for i = 0, rounded - 1 do
        labels[i] = i < count and batch.labels[places[i]] or datasets.IGNORE
    end
    return places, labels, rounded
end

-- A micro-batch as am.training.Graphs takes it. scale: what its loss's gradient is.
local function inputs_of(self, batch, scale)
    local int32 = self.int32_on(self.model:device())
    local inputs = self:inputs(batch, int32)
    local places, labels, count = head_places(self, batch)
    inputs.places = places and int32(places, { count })
    inputs.labels = int32(labels, { count })
    inputs.scale = am.tensor({ scale }, { dtype = self.model:dtype() == "float64" and "float64" or "float32",
                                          device = self.model:device() })
    if inputs.samples and inputs.samples > batch.B then
        inputs.samples = round_up(inputs.samples, 4)
    end
    inputs.changes = self.count_changes()
    self.longest = inputs.longest -- counts for rotary frequencies, and their stage is what says how
    inputs.stage, inputs.longest = self.model:rotary_stage(inputs.longest), nil
    return inputs
end

--- Forward and backward of a micro-batch: what is recorded. Returns the sum of its losses.
function Methods:recorded_work(inputs)
    local out = self.model:forward {
        input_ids = inputs.input_ids, position_ids = inputs.position_ids, bounds = inputs.bounds,
        samples = inputs.samples, longest = self.longest, logits_to_keep = false,
    }
    local hidden = out.hidden_states
    hidden = hidden:reshape(hidden:size(0) * hidden:size(1), hidden:size(2))
    if inputs.places then
        hidden = hidden:index_select(0, inputs.places)
    end
    local sum = self.loss_fn(hidden, inputs.labels, self.model:head_context())
    sum:backward(inputs.scale:reshape {})
    return sum
end

--- As batch_gradients of llm_finetune.lua, by a record where there is one.
function Methods:recorded_gradients(batch, scale)
    local value = self.timers:timed("graph", 1, self.graphs.run, self.graphs, inputs_of(self, batch, scale))
    if self.world.size == 1 then
        self:check_number("loss", value)
    end
    return value
end

return Methods
