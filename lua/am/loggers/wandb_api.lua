-- W&B's server, by its HTTP interface: the GraphQL mutation that makes a run, and the file stream that its
-- history is sent to.
-- Holds no queue (outbox.lua), no file, and no HTTP (am.utils.http).
--
--   local api = wandb_api.new { http = …, base_url = …, key = …, budget = fn }
--   api:upsert(run) -> { entity, project, name, lines, last_step } | nil, message, permanent
--   api:stream(where, { history = {…}, offset = 12, summary = "{…}", complete = true, exit_code = 0 })

local json = require("am.utils.json")
local path = require("am.utils.path")
local secrets = require("am.loggers.secrets")
local strings = require("am.utils.strings")

local M = {}

local MAX_ANSWER, MAX_DEPTH = 2 ^ 20, 32
local DEFAULT_URL = "https://api.wandb.ai"

local UPSERT = [[mutation UpsertBucket($name: String, $project: String, $entity: String, $groupName: String,
  $displayName: String, $notes: String, $config: JSONString, $host: String, $jobType: String, $tags: [String!]) {
  upsertBucket(input: {name: $name, modelName: $project, entityName: $entity, groupName: $groupName,
    displayName: $displayName, notes: $notes, config: $config, host: $host, jobType: $jobType, tags: $tags}) {
    bucket { id name displayName project { name entity { name } } historyLineCount }
    inserted
  }
}]]

local STATUS = [[query RunResumeStatus($project: String, $entity: String, $name: String!) {
  model(name: $project, entityName: $entity) {
    bucket(name: $name, missingOk: true) { name historyLineCount historyTail summaryMetrics }
  }
}]]

--- The server's address, from WANDB_BASE_URL or W&B's own, and the key for it: WANDB_API_KEY, or what
--- `wandb login` has written to ~/.netrc ($NETRC); nil without one.
function M.address()
    local base = (os.getenv("WANDB_BASE_URL") or ""):gsub("/+$", "")
    return base ~= "" and base or DEFAULT_URL
end

-- The password of a machine in a netrc file.
local function netrc_password(host)
    local home = os.getenv("HOME")
    local name = os.getenv("NETRC") or home and path.join(home, ".netrc")
    local text = name and path.read_file(name, 65536)
    local machine
    local words = {}
    for word in (text or ""):gmatch("%S+") do
        words[#words + 1] = word
    end
    for i, word in ipairs(words) do
        if word == "machine" or word == "default" then
            machine = word == "machine" and words[i + 1] or nil
        elseif word == "password" and machine == host then
            return words[i + 1]
        end
    end
    return nil
end

function M.key(base_url)
    local key = os.getenv("WANDB_API_KEY")
    key = key and strings.trim(key) or ""
    if key == "" then
        key = netrc_password(base_url:match("^https?://([^/:]+)") or "") or ""
    end
    return key ~= "" and secrets.hide(key) or nil
end

--- Where a run is looked at in a browser.
function M.run_url(base_url, where)
    local app = base_url:gsub("^https://api%.wandb%.ai$", "https://wandb.ai")
    return string.format("%s/%s/%s/runs/%s", app, where.entity, where.project, where.id)
end

local Api = {}
Api.__index = Api

--- opts: http (am.utils.http), base_url, key, budget (a function: seconds that a request may take).
function M.new(opts)
    return setmetatable({ http = opts.http, base_url = opts.base_url, key = opts.key, budget = opts.budget }, Api)
end

-- The answer as a table, or nil, message, permanent.
local function post(self, where, body)
    local seconds = math.max(self.budget(), 0.1)
    local answer, msg, kind = self.http.request {
        url = self.base_url .. where, method = "POST", timeout = seconds, connect_timeout = seconds,
        follow = "same_host", max_bytes = MAX_ANSWER,
        headers = { ["Content-Type"] = "application/json", Authorization = secrets.basic("api", self.key) },
        body = json.encode(body, { separators = "compact" }),
    }
    if not answer then
        return nil, kind ~= "interrupted" and "no answer: " .. tostring(msg) or nil, kind == "library"
    elseif answer.status < 200 or answer.status >= 300 then
        local permanent = answer.status >= 400 and answer.status < 500 and answer.status ~= 408 and answer.status ~= 429
        local hint = (answer.status == 401 or answer.status == 403) and "; check WANDB_API_KEY" or ""
        return nil, string.format("%s answered %d%s", self.base_url, answer.status, hint), permanent
    end
    local decoded = json.decode(answer.body or "", { max_depth = MAX_DEPTH })
    return type(decoded) == "table" and decoded ~= json.null and decoded or {}
end

-- t.a.b.c where each step is a table; nil for anything else, null included.
local function at(t, ...)
    for _, key in ipairs { ... } do
        t = type(t) == "table" and t[key] or nil
    end
    return t ~= json.null and t or nil
end

local function text_at(...)
    local value = at(...)
    return type(value) == "string" and value or nil
end

local function query(self, text, variables)
    local answer, msg, permanent = post(self, "/graphql", { query = text, variables = variables })
    local why = answer and text_at(answer, "errors", 1, "message")
    if why then
        return nil, string.format("%s refuses: %s", self.base_url, why:sub(1, 300)), true
    end
    return answer, msg, permanent
end

--- The mutation's config: each value in an object of its own, as W&B keeps them.
function M.config_text(config)
    local out = json.object {}
    for key, value in pairs(config or {}) do
        out[tostring(key)] = { value = value }
    end
    return json.encode(out, { sort_keys = true, separators = "compact", nan = "null" })
end

--- Make the run, or find it. run: id, project, entity, name, group, job_type, notes, tags, config, host.
--- Returns { entity, project, id, inserted }: what the server made of the names.
function Api:upsert(run)
    local answer, msg, permanent = query(self, UPSERT, {
        name = run.id, project = run.project, entity = run.entity, groupName = run.group, displayName = run.name,
        notes = run.notes, config = M.config_text(run.config), host = run.host, jobType = run.job_type,
        tags = run.tags and json.array(run.tags),
    })
    if not answer then
        return nil, msg, permanent
    end
    local bucket = at(answer, "data", "upsertBucket", "bucket")
    local where = { id = text_at(bucket, "name"), project = text_at(bucket, "project", "name"),
                    entity = text_at(bucket, "project", "entity", "name"),
                    inserted = at(answer, "data", "upsertBucket", "inserted") }
    for _, key in ipairs { "id", "project", "entity" } do
        if not where[key] or not where[key]:find("^[%w_. -]+$") then
            return nil, self.base_url .. " does not answer as a W&B server does", true
        end
    end
    return where
end

local function step_of(text)
    local row = text and json.decode(text, { max_depth = MAX_DEPTH })
    return tonumber(at(row, "_step"))
end

--- What the server has of a run: { lines, last_step }, or false when it has no such run.
function Api:status(run)
    local answer, msg, permanent = query(self, STATUS, { name = run.id, project = run.project, entity = run.entity })
    if not answer then
        return nil, msg, permanent
    end
    local bucket = at(answer, "data", "model", "bucket")
    if type(bucket) ~= "table" then
        return false
    end
    local tail = text_at(bucket, "historyTail")
    local rows = tail and json.decode(tail, { max_depth = MAX_DEPTH })
    local last = type(rows) == "table" and rows[#rows] or nil
    return { lines = tonumber(at(bucket, "historyLineCount")) or 0,
             last_step = step_of(type(last) == "string" and last or nil) or step_of(text_at(bucket, "summaryMetrics")) }
end

local function escaped(text)
    return (text:gsub("[^%w_.~-]", function(c) return string.format("%%%02X", c:byte()) end))
end

--- Send lines of history (an array of JSON texts, the first of them line `offset` of the run), a summary,
--- and at the end that it is complete. Returns true, or nil, message, permanent.
function Api:stream(where, part)
    local files = {}
    if part.history and #part.history > 0 then
        files["wandb-history.jsonl"] = { offset = part.offset, content = json.array(part.history) }
    end
    if part.summary then
        files["wandb-summary.json"] = { offset = 0, content = json.array { part.summary } }
    end
    local answer, msg, permanent = post(self, string.format("/files/%s/%s/%s/file_stream", escaped(where.entity),
                                                            escaped(where.project), escaped(where.id)),
                                        { files = next(files) and files or nil, complete = part.complete,
                                          exitcode = part.exit_code })
    return answer and true, msg, permanent
end

return M
