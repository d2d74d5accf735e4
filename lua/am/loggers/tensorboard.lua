-- The tracker for TensorBoard: which numbers of a run go into its event files, under which names.
-- Holds no file format; event_file.lua has it.
--
--   tensorboard: { log_dir: runs/a }        then: tensorboard --logdir runs
--
-- train/loss, train/grad_norm, … of every step; val/val_loss, for a set of its own name val_<name>/val_loss;
-- the configuration and samples as texts. Steps are those of training.jsonl.

local event_file = require("am.loggers.event_file")
local metrics = require("am.loggers.metrics")
local path = require("am.utils.path")

local M = {}

--- Keys of the section.
M.fields = {
    enabled = { type = "boolean", default = true, doc = "write TensorBoard event files" },
    log_dir = { type = "string", doc = "where; absent: tensorboard in the folder of the checkpoints" },
}

local TEXT_LIMIT = 65536

local Tracker = {}
Tracker.__index = Tracker

-- A Markdown block of code that nothing in the text ends.
local function block(text)
    return "    " .. metrics.text(text, TEXT_LIMIT):gsub("\n", "\n    ")
end

--- See init.lua for `run`.
function M.open(section, run)
    local file = event_file.open {
        log_dir = section.log_dir or path.join(run.dir, "tensorboard"),
        first_step = run.start_step,
        time = run.time,
    }
    local self = setmetatable({ file = file, prompts = {}, prompt_count = 0 }, Tracker)
    if run.config_text then
        file:text(run.start_step or 0, "config", block(run.config_text))
    end
    return self
end

local function tagged(prefix, record)
    local list = metrics.numbers(record)
    for _, item in ipairs(list) do
        item[1] = prefix .. "/" .. item[1]
    end
    return list
end

function Tracker:train(record)
    self.file:scalars(record.step, tagged("train", record))
end

function Tracker:validation(name, record)
    self.file:scalars(record.step, tagged(metrics.prefix(name), record))
end

function Tracker:scalars(step, list)
    local tags = {}
    for i, item in ipairs(list) do
        tags[i] = { "train/" .. item[1], item[2] }
    end
    self.file:scalars(step, tags)
end

function Tracker:sample(step, prompt, text)
    if not self.prompts[prompt] then
        self.prompt_count = self.prompt_count + 1
        self.prompts[prompt] = "samples/" .. self.prompt_count
    end
    self.file:text(step, self.prompts[prompt], block(prompt) .. "\n\n---\n\n" .. block(text))
end

function Tracker:flush()
    self.file:flush()
end

function Tracker:finish()
    self.file:close()
end

return M
