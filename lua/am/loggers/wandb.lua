-- The tracker for Weights & Biases. Every run writes W&B's run folder, which `wandb sync FOLDER` sends; online
-- (the default) the history also goes to the server while the run goes on.
-- Holds the run, its folder and its rows; the file's format is wandb_store.lua's, the messages are
-- wandb_records.lua's, the server is wandb_api.lua's and the waiting outbox.lua's.
--
--   wandb: { project: qa, name: first, mode: offline }
--
-- A row is all that is logged at a step: the training record under its own names, val_loss, and for a
-- validation set with a name of its own val_<name>/val_loss and the rest. It is written when the next step
-- comes, or before a checkpoint. A resumed run goes on in its folder, cut back to what the checkpoint saw,
-- under the same id. Steps that the server has already are not sent again (they are the same numbers); those
-- that a killed process could not send any more are, from training.jsonl.

local history = require("am.loggers.history")
local json = require("am.utils.json")
local metrics = require("am.loggers.metrics")
local outbox = require("am.loggers.outbox")
local path = require("am.utils.path")
local posix = require("am.utils.posix")
local records = require("am.loggers.wandb_records")
local secrets = require("am.loggers.secrets")
local strings = require("am.utils.strings")
local wandb_api = require("am.loggers.wandb_api")
local wandb_store = require("am.loggers.wandb_store")

local M = {}

local PRODUCER = "0.16.0" -- the version of the wandb package whose records these are
local TEXT_LIMIT = 4096
local FIRST_SECONDS = 10 -- before the first step
local LAST_SECONDS = { finished = 20, failed = 20, killed = 5 } -- after the last one; what asks to end may not wait

--- Keys of the section: those of wandb.init.
M.fields = {
    enabled = { type = "boolean", default = true, doc = "log to W&B" },
    enable = { type = "boolean", default = true, doc = "the same" },
    project = { type = "string", default = "automodel", doc = "the project" },
    entity = { type = "string", doc = "team or user; absent: the key's own" },
    name = { type = "string", default = "", doc = "of the run; absent: after the model" },
    group = { type = "string", doc = "runs that belong together" },
    job_type = { type = "string", doc = "what kind of run it is" },
    tags = { type = "list", items = { type = "string" }, doc = "labels" },
    notes = { type = "string", doc = "text that is shown with the run" },
    id = { type = "string", doc = "of the run; absent: a new one, or that of the checkpoint" },
    resume = { type = "string|boolean", enum = { true, false, "allow", "auto", "must", "never" },
               doc = "whether an id that the server knows is gone on with, needed, or refused" },
    mode = { type = "string", enum = { "online", "offline", "disabled" },
             doc = "absent: WANDB_MODE, else online" },
    dir = { type = "string", doc = "holds the folder wandb; absent: WANDB_DIR, else the folder of the checkpoints" },
    save_dir = { type = "string", doc = "the same" },
}
for key in ([[config config_exclude_keys config_include_keys reinit settings anonymous force sync_tensorboard
    tensorboard monitor_gym save_code allow_val_change magic fork_from resume_from]]):gmatch("%S+") do
    M.fields[key] = { type = "any", no_effect = "it concerns Python programs" }
end

local function mode_of(section)
    local mode = section.mode or os.getenv("WANDB_MODE") or "online"
    return mode == "dryrun" and "offline" or mode
end

local function environment(section, key, variable)
    local value = section[key]
    if value == nil or value == "" then
        value = os.getenv(variable)
    end
    return value ~= "" and value or nil
end

-- Eight letters and digits that no other run has.
local function new_id()
    local file = posix.open("/dev/urandom", "read")
    local bytes = file and posix.read(file, 8) or ""
    local alphabet, out = "abcdefghijklmnopqrstuvwxyz0123456789", {}
    for i = 1, 8 do
        local n = (bytes:byte(i) or math.random(0, 255)) % #alphabet + 1
        out[i] = alphabet:sub(n, n)
    end
    return table.concat(out)
end

local function split_tags(text)
    local tags = {}
    for tag in (text or ""):gmatch("[^,]+") do
        tags[#tags + 1] = strings.trim(tag)
    end
    return #tags > 0 and tags or nil
end

local Tracker = {}
Tracker.__index = Tracker

-- ---- the run's folder -----------------------------------------------------------------------

-- W&B's config.yaml: JSON is YAML.
local function config_yaml(config)
    local lines = {}
    for _, key in ipairs(strings.sorted_keys(config or {})) do
        lines[#lines + 1] = json.encode(tostring(key)) .. ":\n    value: " .. records.json(config[key]) .. "\n"
    end
    return table.concat(lines)
end

local function write_file(self, name, text)
    path.write_file(path.join(self.folder, "files", name), text)
end

local function write_summary(self)
    local summary = json.object {}
    for key, value in pairs(self.summary) do
        summary[key] = value
    end
    write_file(self, "wandb-summary.json", json.encode(summary, { sort_keys = true, nan = "null" }))
end

local function add_record(self, build, ...)
    self.record_num = self.record_num + 1
    self.store:write(build(self.record_num, ...))
end

-- The folder of the run's first process, when its file is as long as the checkpoint says.
local function reopen_folder(self, state)
    local name = type(state.folder) == "string" and path.join(self.root, path.basename(state.folder))
    local file = name and path.join(name, "run-" .. self.run.id .. ".wandb")
    if not file or type(state.size) ~= "number" or not path.is_file(file) then
        return false
    end
    self.store = wandb_store.open(file, { size = state.size })
    if not self.store.resumed then
        return false
    end
    self.folder, self.record_num = name, tonumber(state.records) or 0
    self.summary = type(state.summary) == "table" and state.summary or {}
    self.run.start_time = tonumber(state.start_time) or self.run.start_time
    posix.unlink(file .. ".synced") -- it has more to send now
    return true
end

local function new_folder(self)
    local prefix = self.mode == "offline" and "offline-run-" or "run-"
    self.folder = path.join(self.root, prefix .. os.date("%Y%m%d_%H%M%S", self.time()) .. "-" .. self.run.id)
    path.mkdir_p(path.join(self.folder, "files"))
    path.mkdir_p(path.join(self.folder, "logs"))
    self.store = wandb_store.open(path.join(self.folder, "run-" .. self.run.id .. ".wandb"))
    add_record(self, records.header, PRODUCER)
    add_record(self, records.run, self.run)
    write_file(self, "config.yaml", config_yaml(self.run.config))
    write_file(self, "wandb-metadata.json", json.encode({
        os = "Linux", host = self.run.host, program = "amlua", startedAt = os.date("!%Y-%m-%dT%H:%M:%SZ", self.time()),
    }, { sort_keys = true }))
    add_record(self, records.files, { "config.yaml", "wandb-metadata.json", "wandb-summary.json" })
    local linked, e = pcall(path.symlink_swap, self.folder, path.join(self.root, "latest-run"))
    if not linked then
        self.log:debug("wandb: %s", tostring(e)) -- a convenience only
    end
end

-- ---- the server -----------------------------------------------------------------------------

-- A row as the server gets it.
local function row_text(values)
    local parts = {}
    for i, key in ipairs(strings.sorted_keys(values)) do
        parts[i] = json.encode(key) .. ":" .. records.json(values[key])
    end
    return "{" .. table.concat(parts, ",") .. "}"
end

-- What a training record and the validations at its step are in a row.
local function row_values(self, record, validations)
    local values = { step = record.step, _step = record.step }
    for _, list in ipairs { metrics.numbers(record), validations or {} } do
        for _, item in ipairs(list) do
            values[item[1]] = item[2]
        end
    end
    values._timestamp = history.seconds(record.timestamp) or self.time()
    values._runtime = math.max(values._timestamp - self.run.start_time, 0)
    return values
end

-- Queue what an earlier process logged and the server does not have.
local function catch_up(self)
    local waiting, at_step = self.box.items, {}
    self.box.items = {} -- in front of what this process has logged by now
    history.validations(self.dir, function(name, r)
        at_step[r.step] = at_step[r.step] or {}
        for _, item in ipairs(metrics.validation(name, r)) do
            table.insert(at_step[r.step], item)
        end
    end)
    history.train(self.dir, (self.last_step or -1) + 1, self.start_step - 1, function(r)
        if r.step % self.remote_every == 0 then
            self.box:add { step = r.step, text = row_text(row_values(self, r, at_step[r.step])) }
        end
    end)
    for _, item in ipairs(waiting) do
        self.box:add(item)
    end
end

-- Find out what the server has of the run, then make the run there, or go on with it.
local function connect(self)
    local resume = self.resume
    if not self.known then
        local known, msg, permanent = false, nil, nil
        if self.is_resumed or resume then
            known, msg, permanent = self.api:status(self.run)
        end
        if known == nil then
            return nil, msg, permanent
        elseif known and resume == "never" then
            return nil, string.format("the server has a run %s, and wandb.resume is never", self.run.id), true
        elseif not known and resume == "must" then
            return nil, string.format("the server has no run %s, and wandb.resume is must", self.run.id), true
        end
        self.known = known or { lines = 0 }
        self.offset, self.last_step = self.known.lines, self.known.last_step
        if self.is_resumed then
            catch_up(self)
        end
    end
    local where, msg, permanent = self.api:upsert(self.run)
    if not where then
        return nil, msg, permanent
    end
    self.where = where
    self.log:info("W&B run: %s", secrets.redact(wandb_api.run_url(self.api.base_url, where)))
    return true
end

local function send(self, items)
    local lines = {}
    for _, row in ipairs(items) do
        if not self.last_step or row.step > self.last_step or row.is_late then
            lines[#lines + 1] = row.text
        end
    end
    local ok, msg, permanent = self.api:stream(self.where, { history = lines, offset = self.offset,
                                                             summary = records.json(self.summary) })
    if ok then
        self.offset = self.offset + #lines
    end
    return ok, msg, permanent
end

local function go_online(self, run)
    local base_url = wandb_api.address()
    local key = wandb_api.key(base_url)
    if not key then
        self.log:warning("wandb: no key for %s, so the run is only written to %s; send it with `wandb sync %s`. Set "
                         .. "WANDB_API_KEY or use `wandb login` to have it sent at once, or mode: offline",
                         secrets.redact(base_url), self.folder, self.folder)
        return
    end
    self.box = outbox.new {
        clock = run.clock,
        connect = function() return connect(self) end,
        send = function(items) return send(self, items) end,
    }
    self.api = wandb_api.new { http = run.http or require("am.utils.http"), base_url = base_url, key = key,
                               budget = function() return self.box:budget() end }
    self:poll(FIRST_SECONDS)
end

-- ---- the tracker ----------------------------------------------------------------------------

--- See init.lua for `run`. state: what state_dict() gave.
function M.open(section, run, state)
    local mode = mode_of(section)
    if mode == "disabled" then
        return {}
    end
    state = run.resumed_from and state or {}
    local id = environment(section, "id", "WANDB_RUN_ID")
    local kept = type(state.id) == "string" and state.id:find("^[%w_-]+$") and state.id or nil
    local dir = section.dir or environment(section, "save_dir", "WANDB_DIR") or run.dir
    local time = run.time or posix.time
    local self = setmetatable({
        mode = mode, log = run.log, time = time, root = path.join(dir, "wandb"), record_num = 0, summary = {},
        dir = run.dir, start_step = run.start_step or 0, remote_every = run.remote_every or 1,
        resume = section.resume or os.getenv("WANDB_RESUME"), is_resumed = kept ~= nil and (id == nil or id == kept),
        run = {
            id = (id or kept or new_id()):gsub("[^%w_-]", "-"),
            project = environment(section, "project", "WANDB_PROJECT") or M.fields.project.default,
            entity = environment(section, "entity", "WANDB_ENTITY"),
            name = environment(section, "name", "WANDB_NAME") or run.name,
            group = environment(section, "group", "WANDB_RUN_GROUP"),
            job_type = environment(section, "job_type", "WANDB_JOB_TYPE"),
            notes = environment(section, "notes", "WANDB_NOTES"),
            tags = section.tags or split_tags(os.getenv("WANDB_TAGS")),
            config = run.config, host = posix.hostname(), start_time = time(),
        },
    }, Tracker)
    if not (self.is_resumed and reopen_folder(self, state)) then
        self.run.resumed = self.is_resumed
        new_folder(self)
    end
    if mode == "online" then
        go_online(self, run)
    else
        self.log:info("W&B run: %s; send it with `wandb sync %s`", self.folder, self.folder)
    end
    return self
end

-- Write the row that is open, and queue it for the server.
local function commit(self)
    local row = self.row
    if not row then
        return
    end
    self.row = nil
    local list = {}
    row.values._step = row.step
    row.values._timestamp = self.time()
    row.values._runtime = math.max(self.time() - self.run.start_time, 0)
    for i, key in ipairs(strings.sorted_keys(row.values)) do
        list[i] = { key, row.values[key] }
        self.summary[key] = row.values[key]
    end
    local is_late = self.committed_step and row.step <= self.committed_step -- a validation that was due
    self.committed_step = row.step
    if self.box then
        self.box:add { step = row.step, text = row_text(row.values), is_late = is_late }
    end
    add_record(self, records.history, row.step, list)
end

--- Numbers, or texts, of a step: an array of { key, value }.
function Tracker:scalars(step, list)
    if self.row and self.row.step ~= step then
        commit(self)
    end
    self.row = self.row or { step = step, values = {} }
    for _, item in ipairs(list) do
        self.row.values[item[1]] = item[2]
    end
end

function Tracker:train(record)
    local list = metrics.numbers(record)
    list[#list + 1] = { "step", record.step } -- NeMo Automodel logs it, too
    self:scalars(record.step, list)
end

function Tracker:validation(name, record)
    self:scalars(record.step, metrics.validation(name, record))
end

--- A sample is text in the row of its step.
function Tracker:sample(step, prompt, text)
    self:scalars(step, { { "sample/" .. metrics.text(prompt, 80):gsub("[%c/]", " "), metrics.text(text, TEXT_LIMIT) } })
end

function Tracker:poll(seconds)
    local ok, msg = nil, nil
    if self.box then
        ok, msg = self.box:poll(seconds)
    end
    if msg and not self.warned then
        self.warned = true
        self.log:warning("wandb: %s; %s. All of it is in %s, which `wandb sync` sends", secrets.redact(msg),
                         self.box.dead and "nothing more is sent" or "rows wait and it is tried again now and then",
                         self.folder)
    elseif ok and self.warned then
        self.warned = false
        self.log:info("wandb: %s answers again", secrets.redact(self.api.base_url))
    end
end

function Tracker:flush()
    commit(self)
    write_summary(self)
    self.store:flush()
end

-- Send what waits and say that the run is over.
local function finish_online(self, exit_code, seconds)
    local left, msg = self.box:drain(seconds)
    if left > 0 or not self.where or self.box.dropped > 0 then
        self.log:warning("wandb: %d rows were not sent%s; `wandb sync %s` sends all", left + self.box.dropped,
                         msg and ": " .. secrets.redact(msg) or "", self.folder)
    end
    if self.where and not self.box.dead then
        self.box.stop_at = self.box.clock() + outbox.BUDGET
        self.api:stream(self.where, { summary = records.json(self.summary), complete = true, exit_code = exit_code })
    end
end

function Tracker:finish(status)
    local exit_code = status == "finished" and 0 or status == "killed" and 255 or 1
    commit(self)
    add_record(self, records.summary, self.summary)
    add_record(self, records.exit, exit_code, math.max(self.time() - self.run.start_time, 0))
    add_record(self, records.footer)
    write_summary(self)
    self.store:close()
    if self.box then
        finish_online(self, exit_code, LAST_SECONDS[status] or 5)
    end
end

--- Where the run is, and how much of its file this step has seen.
function Tracker:state_dict()
    commit(self)
    return { id = self.run.id, folder = path.basename(self.folder), size = self.store.size,
             records = self.record_num, start_time = self.run.start_time, summary = self.summary }
end

return M
