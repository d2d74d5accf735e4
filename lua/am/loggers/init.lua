-- Trackers: where the numbers of a run go beside training.jsonl and the console. This file is what the
-- component offers; each tracker has a file of its own.
--
--   local trackers = loggers.new { tensorboard = {…}, wandb = {…}, mlflow = {…}, report = {…} }
--   trackers:load_state_dict(state)      of a resumed run
--   trackers:open(run)                   loggers.open(sections, run) is new and open in one
--   trackers:train(record)   trackers:validation("default", record)   trackers:sample(step, prompt, text, more)
--   trackers:flush()   trackers:finish("finished")
--
-- sections   the sections of the configuration as plain tables; nil: off, but for the report, which is on.
--            `enabled: false` (for wandb also NeMo Automodel's `enable: false`) turns one off.
-- run        name          of the run; default: the last two parts of model_name joined by "_", else "run"
--            dir           where checkpoints and training.jsonl are; trackers write below it
--            config        the configuration as a table, secrets redacted; config_text  the same as YAML
--            model_name    as the configuration has it
--            start_step    the first step that train() will be called with
--            total_steps   how many there will be, if known
--            resumed_from  the checkpoint's folder, or nil for a fresh start
--            remote_every  step_scheduler.log_remote_every_steps: servers get each such step only
--            environment   lines for the report: an array of { name, text }
--            http          am.utils.http, or what stands in for it in a test
--            custom        array of trackers of the user's own: { name = text, tracker = object }
--
-- Records are those of training.jsonl and validation.jsonl; step is what training.jsonl calls step.
--
-- What a tracker is: a table with any of these methods, called as tracker:method(…).
--   train(record)  validation(name, record)  sample(step, prompt, text, more)  artifact(path)
--   scalars(step, list)        further numbers of a step: { { "forward-time", 0.25 }, … }
--   poll()                     after every step: time for what is not urgent
--   flush()                    before a checkpoint: make what was written survive
--   finish(status, message)    the end: "finished", "failed" or "killed"
--   state_dict()               what open(section, run, state) of a resumed run is given
--
-- A tracker never ends a run. An error in one is a warning, the first time, and that tracker is left alone
-- for a while, longer each time; training.jsonl is written by the recipe and knows nothing of this. Only
-- mistakes of the configuration are raised, by new().

local err = require("am.core.error")
local edge = require("am.core.ffi")
local log = require("am.utils.log")
local mlflow = require("am.loggers.mlflow")
local report = require("am.loggers.report")
local secrets = require("am.loggers.secrets")
local tensorboard = require("am.loggers.tensorboard")
local wandb = require("am.loggers.wandb")

local M = {}

local kinds = {
    { name = "tensorboard", open = tensorboard.open, fields = tensorboard.fields },
    { name = "wandb", open = wandb.open, fields = wandb.fields, check = wandb.check, remote = true },
    { name = "mlflow", open = mlflow.open, fields = mlflow.fields, check = mlflow.check, remote = true },
    { name = "report", open = report.open, fields = report.fields, default = {} },
}

--- The sections as a recipe's schema has them.
M.schema = {
    trackers = { type = "list", items = { target = true }, doc = "trackers of one's own, as in docs/trackers.md" },
    comet = { type = "any", no_effect = "there is no tracker for Comet; training.jsonl holds the same numbers" },
}
local docs = { tensorboard = "event files for TensorBoard", wandb = "Weights & Biases", mlflow = "an MLflow server",
               report = "report.html, on by default" }
for _, kind in ipairs(kinds) do
    M.schema[kind.name] = { fields = kind.fields, doc = docs[kind.name] }
end

local function section_of(sections, kind)
    local section = sections[kind.name]
    if section == nil or section == true then
        section = section and {} or kind.default
    end
    if not section or section.enabled == false or section.enable == false then
        return nil
    end
    return section
end

local Trackers = {}
Trackers.__index = Trackers

-- ---- guarding the run from its trackers -----------------------------------------------------

local FIRST_PAUSE, LONGEST_PAUSE = 10, 600 -- seconds

local function failed(self, entry, what)
    local message = secrets.redact(tostring(what))
    entry.failures = entry.failures + 1
    local pause = math.min(FIRST_PAUSE * 2 ^ (entry.failures - 1), LONGEST_PAUSE)
    entry.paused_until = self.clock() + pause
    if entry.failures == 1 and not entry.warned then
        entry.warned = true
        self.log:warning("%s: %s; the run goes on without it and it is tried again now and then (training.jsonl has "
                         .. "every step)", entry.name, message)
    else
        self.log:debug("%s: %s", entry.name, message)
    end
end

-- Call a method if the tracker has it and is not paused. An interruption is the user's, and passed on.
local function call(self, entry, method, ...)
    local tracker = entry.tracker
    if not tracker[method] or (entry.paused_until and self.clock() < entry.paused_until) then
        return nil
    end
    local ok, result = pcall(tracker[method], tracker, ...)
    if ok then
        entry.failures, entry.paused_until = 0, nil
        return result
    elseif err.is(result) and result.code == "interrupted" then
        error(result, 0)
    end
    failed(self, entry, result)
    return nil
end

local function all(self, method, ...)
    for _, entry in ipairs(self.entries) do
        call(self, entry, method, ...)
    end
end

-- ---- the interface --------------------------------------------------------------------------

local function default_name(run)
    local parts = {}
    for part in (run.model_name or ""):gmatch("[^/]+") do
        parts[#parts + 1] = part
    end
    local last = table.concat(parts, "_", math.max(#parts - 1, 1))
    return last ~= "" and last or "run"
end

--- Trackers that are not open yet. Raises a "usage" error for what a section can't mean (a tracking_uri
--- that no server has, …): a recipe calls this before it loads anything.
function M.new(sections)
    for _, kind in ipairs(kinds) do
        local section = section_of(sections, kind)
        if section and kind.check then
            kind.check(section)
        end
    end
    return setmetatable({ sections = sections, entries = {}, state = {}, log = log.get("am.loggers") }, Trackers)
end

--- Ids and places of the trackers' runs, for a checkpoint.
function Trackers:state_dict()
    local state = {}
    for name, kept in pairs(self.state) do
        state[name] = kept
    end
    for _, entry in ipairs(self.entries) do
        state[entry.name] = call(self, entry, "state_dict") or state[entry.name]
    end
    return state
end

--- Before open().
function Trackers:load_state_dict(state)
    self.state = state
end

--- Open what the sections ask for; `run` as above. A server that does not answer is a warning.
function Trackers:open(run)
    run.name = run.name or default_name(run)
    run.log = self.log
    self.clock, self.remote_every = run.clock or edge.C.am_clock, run.remote_every or 1
    for _, kind in ipairs(kinds) do
        local section, kept = section_of(self.sections, kind), self.state[kind.name]
        if section then
            local entry = { name = kind.name, remote = kind.remote, failures = 0, tracker = {} }
            self.entries[#self.entries + 1] = entry
            local ok, tracker = pcall(kind.open, section, run, type(kept) == "table" and kept or nil)
            if ok then
                entry.tracker = tracker
            elseif err.is(tracker) and tracker.code == "interrupted" then
                error(tracker, 0)
            else
                failed(self, entry, tracker)
            end
        end
    end
    for _, custom in ipairs(run.custom or {}) do
        if type(custom.tracker) ~= "table" then
            err.raise("usage", "trackers: %s gave a %s, not a table with the methods of a tracker", custom.name,
                      type(custom.tracker))
        end
        self.entries[#self.entries + 1] = { name = custom.name, tracker = custom.tracker, failures = 0 }
    end
    return self
end

--- new() and open() in one.
function M.open(sections, run)
    return M.new(sections):open(run)
end

--- A step: a record as training.jsonl has it.
function Trackers:train(record)
    for _, entry in ipairs(self.entries) do
        if not entry.remote or record.step % self.remote_every == 0 then
            call(self, entry, "train", record)
        end
    end
    all(self, "poll")
end

--- A validation: its name ("default", or that of validation_dataset_<name>) and a record as
--- validation.jsonl has it.
function Trackers:validation(name, record)
    all(self, "validation", name, record)
    all(self, "poll")
end

--- Further numbers of a step that train() was called with: an array of { name, number }.
function Trackers:scalars(step, list)
    for _, entry in ipairs(self.entries) do
        if not entry.remote or step % self.remote_every == 0 then
            call(self, entry, "scalars", step, list)
        end
    end
end

--- What the model says to a prompt at a step: before the first step, and later. more: nil, or { truth = what it
--- should say, images = the prompt's pictures as data: URIs }.
function Trackers:sample(step, prompt, text, more)
    all(self, "sample", step, prompt, text, more)
end

--- A file that belongs to the run, for trackers that keep files.
function Trackers:artifact(path)
    all(self, "artifact", path)
end

--- Before a checkpoint is saved: what it will be resumed with is written and survives.
function Trackers:flush()
    all(self, "flush")
end

--- The end: "finished", "failed" or "killed" (asked to end before its last step), and why.
function Trackers:finish(status, message)
    if self.is_finished then
        return
    end
    self.is_finished = true
    for _, entry in ipairs(self.entries) do
        entry.paused_until = nil -- a last chance
        call(self, entry, "finish", status, message and secrets.redact(tostring(message)))
    end
end

return M
