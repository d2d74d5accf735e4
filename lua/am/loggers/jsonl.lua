-- training.jsonl and validation.jsonl: one JSON object a line, an object a step.
-- Holds no metrics of its own.
--
--   local log = jsonl.open("checkpoints/training.jsonl", { keys = jsonl.TRAINING, resume_step = sched.step })
--   log:write{ step = 3, epoch = 0, loss = 1.25, … }     log:close()
--
-- Each line is valid JSON: NaN and infinities, which JSON does not have, are written as null. A line is
-- one write, handed to the system before write() returns: a killed process loses at most the line it
-- was writing, and opening drops such a torn line. With resume_step, lines of that step and later are
-- dropped, so that a resumed run's file reads like that of an unbroken one.

local err = require("am.core.error")
local json = require("am.utils.json")
local path = require("am.utils.path")
local posix = require("am.utils.posix")

local M = {}

--- Keys of a line in training.jsonl; those in `floats` print as floats even when whole.
M.TRAINING = {
    "step", "epoch", "timestamp", "loss", "grad_norm", "lr", "mem", "tps", "tps_per_gpu", "mfu",
    "num_tokens_per_step", "num_label_tokens",
}
--- Keys of a line in validation.jsonl.
M.VALIDATION = { "step", "epoch", "timestamp", "val_loss", "lr", "num_label_tokens", "mem" }
--- Keys of a line in samples.jsonl.
M.SAMPLES = { "step", "timestamp", "prompt", "text" }

local floats = {
    loss = true, grad_norm = true, lr = true, mem = true, tps = true, tps_per_gpu = true, mfu = true, val_loss = true,
}

--- UTC now, as "2026-01-31T12:00:00.000Z"; `time` (seconds since 1970) for tests.
function M.timestamp(time)
    local ms = math.floor((time or posix.time()) * 1000 + 0.5)
    return os.date("!%Y-%m-%dT%H:%M:%S", math.floor(ms / 1000)) .. string.format(".%03dZ", ms % 1000)
end

-- The lines of `text` to keep: those that are complete, are JSON objects and, with resume_step, are of
-- an earlier step.
local function kept_lines(text, resume_step)
    local kept = {}
    for line in text:gmatch("([^\n]*)\n") do
        local record = json.decode(line, { nan = true })
        local step = type(record) == "table" and record.step
        if type(step) == "number" and not (resume_step and step >= resume_step) then
            kept[#kept + 1] = line .. "\n"
        end
    end
    return table.concat(kept)
end

local Writer = {}
Writer.__index = Writer

--- Open a file for adding lines, making it and its folder when absent. opts: keys (their order; missing
--- ones are written as null), resume_step.
function M.open(name, opts)
    opts = opts or {}
    path.mkdir_p(path.dirname(name))
    if path.is_file(name) then
        local text, msg = path.read_file(name)
        if not text then
            err.raise("io", "cannot read %s", msg)
        end
        local kept = kept_lines(text, opts.resume_step)
        if kept ~= text then
            path.write_file(name, kept)
        end
    end
    local file, msg = posix.open(name, "append")
    if not file then
        err.raise("io", "cannot write %s", msg)
    end
    return setmetatable({ name = name, file = file, keys = opts.keys or { "step", "epoch", "timestamp" } }, Writer)
end

function Writer:check(ok, msg)
    if not ok then
        err.raise("io", "cannot write %s: %s", self.name, msg)
    end
end

--- Add a line. `timestamp` is set when absent; keys beyond the known ones follow them, sorted.
function Writer:write(record)
    local line = {}
    for key, value in pairs(record) do
        line[key] = floats[key] and type(value) == "number" and json.float(value) or value
    end
    line.timestamp = record.timestamp or M.timestamp()
    for _, key in ipairs(self.keys) do
        if line[key] == nil then
            line[key] = json.null
        end
    end
    self:check(posix.write(self.file, json.encode(line, { keys = self.keys, nan = "null" }) .. "\n"))
end

--- Make what was written survive a power cut; for checkpoints.
function Writer:sync()
    self:check(posix.fsync(self.file))
end

function Writer:close()
    self:check(posix.close(self.file))
end

return M
