-- The tracker for an MLflow server, by its REST interface (2.0): experiment, run, parameters, metrics, tags,
-- files, and how the run ended.
-- Holds no queue (outbox.lua) and no HTTP (am.utils.http).
--
--   mlflow: { tracking_uri: "http://127.0.0.1:5000", experiment_name: qa, run_name: first }
--
-- The environment may say MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME and MLFLOW_RUN_ID, and for a server that
-- asks who one is MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN.
-- Metrics are called as in training.jsonl; those of a validation set with a name of its own begin with
-- val_<name>/. A resumed run goes on in the run that its checkpoint names, or else the file mlflow_run_id
-- beside the checkpoints, leaves out the steps that the server has already (they are the same numbers), and
-- adds those that a killed process could not send any more, from training.jsonl.

local err = require("am.core.error")
local history = require("am.loggers.history")
local json = require("am.utils.json")
local metrics = require("am.loggers.metrics")
local outbox = require("am.loggers.outbox")
local params = require("am.loggers.mlflow_params")
local path = require("am.utils.path")
local posix = require("am.utils.posix")
local secrets = require("am.loggers.secrets")
local strings = require("am.utils.strings")

local M = {}

--- Keys of the section, as NeMo Automodel names them.
M.fields = {
    enabled = { type = "boolean", default = true, doc = "log to an MLflow server" },
    tracking_uri = { type = "string", doc = "the server's address; absent: MLFLOW_TRACKING_URI" },
    experiment_name = { type = "string", default = "automodel-experiment", doc = "made when it is not there" },
    run_name = { type = "string", default = "", doc = "absent: after the model" },
    artifact_location = { type = "string", doc = "where a new experiment keeps its files" },
    tags = { type = "table", open = true, doc = "tags of the run" },
    resume = { type = "boolean", default = true, doc = "a resumed run goes on in its MLflow run" },
    description = { type = "string", doc = "text that is shown above the run" },
    flatten_depth = { type = "integer", min = 0, null = true, default = 1,
                      doc = "levels of the configuration that become parameters; null: all" },
}

local API = "/api/2.0/mlflow/"
local ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts/"
local MAX_METRICS, MAX_PARAMS, MAX_TAG = 1000, 100, 5000 -- of one request; bytes of a tag
local FIRST_SECONDS = 10                                 -- before the first step
local LAST_SECONDS = { finished = 20, failed = 20, killed = 5 } -- after the last one; what asks to end may not wait
local MAX_ANSWER, MAX_ANSWER_DEPTH = 2 ^ 20, 32
local SIDECAR = "mlflow_run_id"
local statuses = { finished = "FINISHED", failed = "FAILED", killed = "KILLED" }

local function tracking_uri(section)
    local uri = section.tracking_uri or os.getenv("MLFLOW_TRACKING_URI")
    return uri ~= "" and uri or nil
end

--- Raise an error for an address that is no server's.
function M.check(section)
    local uri = tracking_uri(section)
    local example = "start one with `mlflow server --host 127.0.0.1 --port 5000` and write "
        .. "tracking_uri: http://127.0.0.1:5000"
    if not uri then
        err.raise("usage", "mlflow: no tracking_uri and no MLFLOW_TRACKING_URI; metrics go to an MLflow server: %s",
                  example)
    elseif not uri:find("^https?://[^/]") then
        err.raise("usage", "mlflow.tracking_uri: %s is not the address of a server; metrics go there by HTTP, not into "
                  .. "its files or database: %s", secrets.redact(uri), example)
    end
end

local Tracker = {}
Tracker.__index = Tracker

-- ---- requests -------------------------------------------------------------------------------

local function authorization()
    local user, password = os.getenv("MLFLOW_TRACKING_USERNAME"), os.getenv("MLFLOW_TRACKING_PASSWORD")
    local token = os.getenv("MLFLOW_TRACKING_TOKEN")
    if user and password then
        return secrets.basic(user, password)
    end
    return token and "Bearer " .. secrets.hide(token) or nil
end

-- The answer as a table, or nil, message, permanent, error code. What a client did wrong stays wrong; a
-- server that is busy or gone may come back.
local function request(self, method, where, body, headers)
    headers = headers or { ["Content-Type"] = "application/json" }
    headers.Authorization = self.authorization
    local seconds = math.max(self.box:budget(), 0.1)
    local answer, msg, kind = self.http.request {
        url = self.uri .. where, method = method, headers = headers, timeout = seconds, connect_timeout = seconds,
        follow = "same_host", max_bytes = MAX_ANSWER,
        body = type(body) == "table" and json.encode(body, { separators = "compact" }) or body,
    }
    if not answer then
        return nil, kind ~= "interrupted" and "no answer: " .. tostring(msg) or nil, kind == "library"
    end
    local decoded = json.decode(answer.body or "", { max_depth = MAX_ANSWER_DEPTH })
    decoded = type(decoded) == "table" and decoded ~= json.null and decoded or {}
    if answer.status >= 200 and answer.status < 300 then
        return decoded
    end
    local permanent = answer.status >= 400 and answer.status < 500 and answer.status ~= 408 and answer.status ~= 429
    local why = type(decoded.message) == "string" and decoded.message:sub(1, 300) or "no reason given"
    local hint = (answer.status == 401 or answer.status == 403)
        and "; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN" or ""
    return nil, string.format("%s answered %d to %s: %s%s", self.uri, answer.status, where:match("^[^?]*"), why, hint),
        permanent, decoded.error_code
end

-- t.a.b.c of an answer when it is text.
local function text_at(t, ...)
    for _, key in ipairs { ... } do
        t = type(t) == "table" and t[key] or nil
    end
    return type(t) == "string" and t or nil
end

local function escaped(text)
    return (text:gsub("[^%w_.~-]", function(c) return string.format("%%%02X", c:byte()) end))
end

-- ---- connecting -----------------------------------------------------------------------------

local function find_experiment(self)
    local answer, msg, permanent, code = request(self, "GET", API .. "experiments/get-by-name?experiment_name="
                                                 .. escaped(self.experiment_name))
    if not answer and code == "RESOURCE_DOES_NOT_EXIST" then
        answer, msg, permanent = request(self, "POST", API .. "experiments/create", {
            name = self.experiment_name, artifact_location = self.section.artifact_location,
        })
    end
    if not answer then
        return nil, msg, permanent
    end
    self.experiment_id = text_at(answer, "experiment", "experiment_id") or text_at(answer, "experiment_id")
    if not self.experiment_id then
        return nil, self.uri .. " does not answer as an MLflow server does", true
    end
    return true
end

local function run_tags(self)
    local tags = { ["mlflow.user"] = os.getenv("USER") or "unknown", ["mlflow.source.name"] = "amlua",
                   ["mlflow.source.type"] = "LOCAL", ["mlflow.note.content"] = self.section.description }
    for key, value in pairs(self.section.tags or {}) do
        tags[tostring(key)] = params.text(value)
    end
    local list = {}
    for _, key in ipairs(strings.sorted_keys(tags)) do
        list[#list + 1] = { key = key, value = metrics.text(tags[key], MAX_TAG) }
    end
    return json.array(list)
end

local function took_run(self, answer)
    self.run_id = text_at(answer, "run", "info", "run_id")
    self.artifact_uri = text_at(answer, "run", "info", "artifact_uri")
    if not self.run_id or not self.run_id:find("^[%w_-]+$") then
        return nil, self.uri .. " does not answer as an MLflow server does", true
    end
    if self.dir then
        path.mkdir_p(self.dir)
        path.write_file(path.join(self.dir, SIDECAR), self.run_id)
    end
    self.log:info("MLflow run: %s/#/experiments/%s/runs/%s", secrets.redact(self.uri), self.experiment_id, self.run_id)
    return true
end

local function create_run(self)
    local answer, msg, permanent = request(self, "POST", API .. "runs/create", {
        experiment_id = self.experiment_id, start_time = math.floor(self.time() * 1000), run_name = self.run_name,
        tags = run_tags(self),
    })
    if not answer then
        return nil, msg, permanent
    end
    return took_run(self, answer)
end

-- The last step that each metric has on the server, for the ones that a run going on must not send again.
local function last_steps(answer)
    local steps, data = {}, type(answer.run) == "table" and answer.run.data
    for _, metric in ipairs(type(data) == "table" and type(data.metrics) == "table" and data.metrics or {}) do
        if type(metric) == "table" and type(metric.key) == "string" then
            steps[metric.key] = tonumber(metric.step) or 0
        end
    end
    return steps
end

-- Queue what an earlier process logged and the server does not have.
local function catch_up(self)
    local box, waiting = self.box, self.box.items
    box.items = {} -- in front of what this process has logged by now
    local last = self.sent_steps.loss or -1
    history.train(self.dir, last + 1, self.start_step - 1, function(r)
        if r.step % self.remote_every == 0 then
            self:train(r)
        end
    end)
    history.validations(self.dir, function(name, r)
        if r.step < self.start_step then
            self:validation(name, r)
        end
    end)
    for _, item in ipairs(waiting) do
        box:add(item)
    end
end

-- Go on in an earlier run; without one on the server, begin a new one.
local function resume_run(self)
    local answer, msg, permanent, code = request(self, "GET", API .. "runs/get?run_id=" .. escaped(self.resume_id))
    if not answer and code == "RESOURCE_DOES_NOT_EXIST" then
        self.log:warning("%s has no run %s any more: a new one is begun", secrets.redact(self.uri), self.resume_id)
        self.resume_id = nil
        return create_run(self)
    elseif not answer then
        return nil, msg, permanent
    end
    self.sent_steps = last_steps(answer)
    self.experiment_id = text_at(answer, "run", "info", "experiment_id") or self.experiment_id
    local ok
    ok, msg, permanent = request(self, "POST", API .. "runs/update", { run_id = self.resume_id, status = "RUNNING" })
    if not ok then
        return nil, msg, permanent
    end
    catch_up(self)
    return took_run(self, answer)
end

-- Files go by the server when it offers to keep them; otherwise they would need the store's own client.
local function upload(self, name, text)
    local root = (self.artifact_uri or ""):match("^mlflow%-artifacts:/+(.*)$")
    if not root then
        return true
    end
    return request(self, "PUT", ARTIFACTS .. root:gsub("^[^/]*:%d+/", "") .. "/" .. escaped(name), text,
                   { ["Content-Type"] = "application/octet-stream" })
end

local function log_config(self)
    if not self.resume_id and self.config then
        local list = params.flatten(self.config, self.depth)
        for first = self.params_sent + 1, #list, MAX_PARAMS do
            local chunk = {}
            for i = first, math.min(first + MAX_PARAMS - 1, #list) do
                chunk[#chunk + 1] = { key = list[i][1], value = list[i][2] }
            end
            local ok, msg, permanent = request(self, "POST", API .. "runs/log-batch",
                                               { run_id = self.run_id, params = json.array(chunk) })
            if not ok then
                return nil, msg, permanent
            end
            self.params_sent = self.params_sent + #chunk
        end
    end
    local name = self.resume_id and os.date("!config.resumed-%Y%m%dT%H%M%SZ.yaml", self.time()) or "config.yaml"
    return upload(self, name, self.config_text or "")
end

-- Each part once; what a failure interrupted goes on where it was.
local function connect(self)
    for _, step in ipairs { { "experiment_id", find_experiment },
                            { "run_id", self.resume_id and resume_run or create_run },
                            { "config_logged", log_config } } do
        if not self[step[1]] then
            local ok, msg, permanent = step[2](self)
            if not ok then
                return nil, msg, permanent
            end
            self[step[1]] = self[step[1]] or true
        end
    end
    return true
end

-- ---- sending --------------------------------------------------------------------------------

-- A number as MLflow reads it from JSON, which has no NaN.
local function value_of(x)
    if x ~= x then
        return "NaN"
    elseif x == math.huge or x == -math.huge then
        return x > 0 and "Infinity" or "-Infinity"
    end
    return x
end

local function send(self, items)
    local list = {}
    for _, item in ipairs(items) do
        for _, number in ipairs(item.numbers) do
            local sent = self.sent_steps[number[1]]
            if not sent or item.step > sent then
                list[#list + 1] = { key = number[1], value = value_of(number[2]), timestamp = item.timestamp,
                                    step = item.step }
            end
        end
    end
    for first = 1, #list, MAX_METRICS do
        local chunk = {}
        for i = first, math.min(first + MAX_METRICS - 1, #list) do
            chunk[#chunk + 1] = list[i]
        end
        local ok, msg, permanent = request(self, "POST", API .. "runs/log-batch",
                                           { run_id = self.run_id, metrics = json.array(chunk) })
        if not ok then
            return nil, msg, permanent
        end
        for _, metric in ipairs(chunk) do -- should the next chunk fail, these are not sent again
            self.sent_steps[metric.key] = math.max(self.sent_steps[metric.key] or metric.step, metric.step)
        end
    end
    return true
end

-- ---- the tracker ----------------------------------------------------------------------------

-- The run to go on in: what the environment, the checkpoint or the file beside the checkpoints names.
local function earlier_run(section, run, state)
    local id = os.getenv("MLFLOW_RUN_ID")
    if not id and run.resumed_from and section.resume ~= false then
        local text = path.is_file(path.join(run.dir, SIDECAR)) and path.read_file(path.join(run.dir, SIDECAR), 256)
        id = state and type(state.run_id) == "string" and state.run_id or text and strings.trim(text)
    end
    return id and id:find("^[%w_-]+$") and id or nil
end

--- See init.lua for `run`.
function M.open(section, run, state)
    local self = setmetatable({
        section = section, uri = tracking_uri(section):gsub("/+$", ""), authorization = authorization(),
        http = run.http or require("am.utils.http"), log = run.log, time = run.time or posix.time, dir = run.dir,
        start_step = run.start_step or 0, remote_every = run.remote_every or 1,
        experiment_name = section.experiment_name or os.getenv("MLFLOW_EXPERIMENT_NAME")
            or M.fields.experiment_name.default,
        run_name = section.run_name and section.run_name ~= "" and section.run_name or run.name,
        config = run.config, config_text = run.config_text,
        depth = section.flatten_depth == nil and 1 or section.flatten_depth,
        resume_id = earlier_run(section, run, state), sent_steps = {}, params_sent = 0,
    }, Tracker)
    if self.depth == json.null then
        self.depth = nil
    end
    self.box = outbox.new {
        clock = run.clock,
        connect = function() return connect(self) end,
        send = function(items) return send(self, items) end,
    }
    self:poll(FIRST_SECONDS)
    return self
end

--- Numbers of a step: an array of { name, number }; timestamp: a record's, now by default.
function Tracker:scalars(step, list, timestamp)
    local numbers = {}
    for i, item in ipairs(list) do
        numbers[i] = { params.name(item[1]), item[2] }
    end
    local seconds = history.seconds(timestamp) or self.time()
    self.box:add { step = step, timestamp = math.floor(seconds * 1000), numbers = numbers }
end

function Tracker:train(record)
    local numbers = metrics.numbers(record)
    numbers[#numbers + 1] = { "step", record.step } -- NeMo Automodel sends it as a metric, too
    self:scalars(record.step, numbers, record.timestamp)
end

function Tracker:validation(name, record)
    self:scalars(record.step, metrics.validation(name, record), record.timestamp)
end

function Tracker:poll(seconds)
    local ok, msg = self.box:poll(seconds)
    if msg and not self.warned then
        self.warned = true
        self.log:warning("mlflow: %s; %s", secrets.redact(msg), self.box.dead and "nothing more is sent there"
                         or "records wait and it is tried again now and then")
    elseif ok and self.warned then
        self.warned = false
        self.log:info("mlflow: %s answers again", secrets.redact(self.uri))
    end
end

--- A file for the run's artifacts, at most 8 MB.
function Tracker:artifact(name)
    if self.run_id then
        local text, msg = path.read_file(name, 8 * 2 ^ 20)
        if not text then
            err.raise("io", "cannot read %s", msg)
        end
        self.box.stop_at = self.box.clock() + outbox.BUDGET
        upload(self, path.basename(name), text)
    end
end

function Tracker:finish(status)
    local left, msg = self.box:drain(LAST_SECONDS[status] or 5)
    if left > 0 or not self.run_id then
        self.log:warning("mlflow: %d records were not sent%s; training.jsonl has them", left,
                         msg and ": " .. secrets.redact(msg) or "")
    elseif self.box.dropped > 0 then
        self.log:warning("mlflow: %d records were left out while the server was away", self.box.dropped)
    end
    if self.run_id and not self.box.dead then
        self.box.stop_at = self.box.clock() + outbox.BUDGET
        request(self, "POST", API .. "runs/update", { run_id = self.run_id, status = statuses[status] or "FAILED",
                                                      end_time = math.floor(self.time() * 1000) })
    end
end

function Tracker:state_dict()
    return { run_id = self.run_id or self.resume_id }
end

return M
