-- Work that comes again in a few shapes, such as forward and backward of micro-batches, done by graphs on a GPU
-- (am.core.graph). Shapes that come once or twice are done as ever; at the third time there is a record.
--
--   local g = graphs.new(parameters, work, log)
--   local loss = g:run { input_ids = t, labels = t, samples = 4 }    -- of work(inputs), a scalar tensor
--
-- work must take what varies from its inputs alone: tensors, whose bytes may be others each time, and numbers and
-- strings, which say along with the shapes which record is run. It may change gradients of the parameters, and leaves
-- no tensor but the one that it returns.

local autograd = require("am.core.autograd")
local graph = require("am.core.graph")
local profile = require("am.training.profile")
local scope = require("am.core.scope")
local strings = require("am.utils.strings")
local tensor = require("am.core.tensor")

local M = {}

local MOST = 64 -- shapes that are remembered

---@class am.training.Graphs
---@field runs integer how often a record was run
local Graphs = {}
Graphs.__index = Graphs

--- parameters: all tensors that belong to the work beside its inputs, frozen ones, too.
---@return am.training.Graphs
function M.new(parameters, work, log)
    return setmetatable({ parameters = graph.parameters(parameters), work = work, log = log, entries = {}, clock = 0,
                          count = 0, runs = 0 }, Graphs)
end

-- What a record goes by.
local function key_of(self, inputs)
    local words = { graph.state(self.parameters) }
    for _, name in ipairs(strings.sorted_keys(inputs)) do
        local value = inputs[name]
        words[#words + 1] = name .. "=" .. (tensor.is(value)
            and value:dtype() .. "[" .. table.concat(value:size(), ",") .. "]" or tostring(value))
    end
    return table.concat(words, " ")
end

local function release(entry)
    if entry.graph then
        entry.graph:release()
        for _, t in pairs(entry.fixed) do
            t:release()
        end
        if entry.value then
            entry.value:release()
        end
    end
end

-- Forget the shape that was seen longest ago.
local function forget_one(self)
    local oldest
    for key, entry in pairs(self.entries) do
        if not oldest or entry.used < self.entries[oldest].used then
            oldest = key
        end
    end
    release(self.entries[oldest])
    self.entries[oldest], self.count = nil, self.count - 1
end

local function entry_of(self, key)
    local entry = self.entries[key]
    if not entry then
        if self.count == MOST then
            forget_one(self)
        end
        entry = { seen = 0 }
        self.entries[key], self.count = entry, self.count + 1
    end
    self.clock = self.clock + 1
    entry.seen, entry.used = entry.seen + 1, self.clock
    return entry
end

local function plainly(self, inputs)
    return scope.scope(function() return self.work(inputs):item() end)
end

-- The tensors that a record reads and writes, outside of scopes; the others among the inputs are numbers.
local function fix(entry, inputs)
    entry.inputs = {}
    for name, value in pairs(inputs) do
        if tensor.is(value) then
            entry.fixed[name] = scope.escape(tensor.empty(value:size(), { dtype = value:dtype(),
                                                                          device = value:device() }))
            value = entry.fixed[name]
        end
        entry.inputs[name] = value
    end
end

local function fill(entry, inputs)
    for name, t in pairs(entry.fixed) do
        autograd.no_grad(t.copy_, t, inputs[name])
    end
end

-- The work on the fixed tensors, whose result becomes another of them.
local function fixed_work(self, entry)
    return function()
        scope.scope(function()
            local result = self.work(entry.inputs):detach()
            autograd.no_grad(entry.value.copy_, entry.value, result)
        end)
    end
end

-- The second time: how the record will be made is tried.
local function rehearse(self, entry, inputs)
    local made = graph.new(self.parameters)
    entry.fixed, entry.graph = {}, made
    fix(entry, inputs)
    fill(entry, inputs)
    local device = inputs[next(entry.fixed)]:device()
    entry.value = scope.escape(tensor.zeros({}, { dtype = "float64", device = device }))
    entry.unfit = made:rehearse(fixed_work(self, entry))
    return entry.value:item()
end

local function run(self, entry)
    entry.graph:run()
    self.runs = self.runs + 1
    return entry.value:item()
end

local function record(self, entry, inputs)
    fill(entry, inputs)
    entry.unfit = entry.graph:record(fixed_work(self, entry))
    if entry.unfit then
        return plainly(self, inputs)
    end
    if not self.recorded then
        self.recorded = true
        self.log:info("micro-batches whose shape comes again are CUDA graphs")
    end
    return run(self, entry)
end

local function note(self, entry)
    release(entry)
    entry.graph, entry.fixed, entry.inputs, entry.value = nil, nil, nil, nil
    if not self.told then
        self.told = true
        self.log:info("steps of a shape that can't be recorded as a CUDA graph go on without: %s", entry.unfit)
    end
end

-- Go on without graphs.
local function give_up(self, e, inputs)
    self.off = tostring(e)
    self:close()
    self.log:warning("no CUDA graphs: %s", self.off)
    return plainly(self, inputs)
end

--- The number that work(inputs) gives, and what it does. inputs: { name = tensor, number or string }, tensors on one
--- GPU, at least one. The work is done as ever on devices without graphs.
function Graphs:run(inputs)
    if self.off or profile.is_running() then
        return plainly(self, inputs)
    end
    local entry = entry_of(self, key_of(self, inputs))
    if entry.unfit or entry.seen == 1 then
        return plainly(self, inputs)
    elseif entry.seen > 3 then
        fill(entry, inputs)
        return run(self, entry)
    end
    local ok, value = pcall(entry.seen == 2 and rehearse or record, self, entry, inputs)
    if not ok and (graph.is_unsupported(value)
                   or graph.is_memory(value) and entry.seen == 2 and (not entry.graph or entry.graph:undo())) then
        return give_up(self, value, inputs)
    elseif not ok then -- a step that is tried again begins anew
        release(entry)
        entry.graph, entry.value, entry.seen = nil, nil, 0
        error(value, 0)
    end
    if entry.unfit then
        note(self, entry)
    end
    return value
end

--- Let go of all records and their memory.
function Graphs:close()
    for _, entry in pairs(self.entries) do
        release(entry)
    end
    self.entries, self.count = {}, 0
end

return M
