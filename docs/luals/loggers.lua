---@meta am.loggers
-- Written by docs/api.lua; do not edit. For workspace.library of a Lua language server.
-- luacheck: ignore

---@class am.loggers
local am_loggers = {}

--- Trackers that are not open yet. Raises a "usage" error for what a section can't mean (a tracking_uri
--- that no server has, …): a recipe calls this before it loads anything.
---@return am.Trackers
function am_loggers.new(sections) end

--- new() and open() in one.
---@return am.Trackers
function am_loggers.open(sections, run) end

---@class am.Trackers
local am_Trackers = {}

--- Ids and places of the trackers' runs, for a checkpoint.
function am_Trackers:state_dict() end

--- Before open().
function am_Trackers:load_state_dict(state) end

--- Open what the sections ask for; `run` as above. A server that does not answer is a warning.
function am_Trackers:open(run) end

--- A step: a record as training.jsonl has it.
function am_Trackers:train(record) end

--- A validation: its name ("default", or that of validation_dataset_<name>) and a record as
--- validation.jsonl has it.
function am_Trackers:validation(name, record) end

--- Further numbers of a step that train() was called with: an array of { name, number }.
function am_Trackers:scalars(step, list) end

--- What the model says to a prompt at a step: before the first step, and later. more: nil, or { truth = what it
--- should say, images = the prompt's pictures as data: URIs }.
function am_Trackers:sample(step, prompt, text, more) end

--- A file that belongs to the run, for trackers that keep files.
function am_Trackers:artifact(path) end

--- Before a checkpoint is saved: what it will be resumed with is written and survives.
function am_Trackers:flush() end

--- The end: "finished", "failed" or "killed" (asked to end before its last step), and why.
function am_Trackers:finish(status, message) end

return am_loggers
