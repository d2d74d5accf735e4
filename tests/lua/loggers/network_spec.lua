-- Trackers and a server on loopback, by the HTTP client that runs use: what arrives, and what a server that
-- hangs, lies or is not there costs a step.
local ffi = require("ffi")
local edge = require("am.core.ffi")
local helpers = require("tests.lua.loggers.helpers")
local http_server = require("tests.support.http_server")
local json = require("am.utils.json")
local log = require("am.utils.log")
local loggers = require("am.loggers")
local outbox = require("am.loggers.outbox")

ffi.cdef [[
int setenv(const char *name, const char *value, int overwrite);
int unsetenv(const char *name);
]]
for _, name in ipairs { "http_proxy", "all_proxy", "ALL_PROXY" } do -- loopback is reached directly
    ffi.C.setenv(name, "", 1)
end

local KEY = ("0123456789"):rep(4)
local server, dir, remove, printed, before
local saved = {}

before_each(function()
    dir, remove = helpers.folder()
    printed = {}
    before = log.redirect { write = function(_, ...) printed[#printed + 1] = table.concat { ... } end }
    for _, key in ipairs { "EVERY", "BUDGET" } do
        saved[key] = outbox[key]
    end
    outbox.EVERY, outbox.BUDGET = 0.01, 0.2
end)
after_each(function()
    for key, value in pairs(saved) do
        outbox[key] = value
    end
    ffi.C.unsetenv("WANDB_BASE_URL")
    ffi.C.unsetenv("WANDB_API_KEY")
    log.redirect(before)
    server:stop()
    remove()
end)

local function mlflow_answer(request)
    local body = {}
    if request.path:find("get%-by%-name") then
        body = { experiment = { experiment_id = "1" } }
    elseif request.path:find("runs/create") then
        body = { run = { info = { run_id = "a1" } } }
    end
    return { headers = { ["Content-Type"] = "application/json" }, body = json.encode(body) }
end

local function open(sections)
    sections.report = { enabled = false }
    return loggers.open(sections, { dir = dir, config = { seed = 1 }, start_step = 0 })
end

-- Seconds that a step's call took at most, over n steps.
local function slowest(trackers, n)
    local most = 0
    for step = 0, n - 1 do
        local started = edge.C.am_clock()
        trackers:train { step = step, loss = step }
        most = math.max(most, edge.C.am_clock() - started)
    end
    return most
end

-- The same until something is said for the second time, half a minute at most.
local function slowest_until_said(trackers)
    local most, step, stop = 0, 0, edge.C.am_clock() + 30
    while #printed < 2 and edge.C.am_clock() < stop do
        local started = edge.C.am_clock()
        trackers:train { step = step, loss = step }
        most, step = math.max(most, edge.C.am_clock() - started), step + 1
    end
    return most
end

describe("a server on loopback", function()
    it("gets a run of MLflow's", function()
        server = http_server.start(mlflow_answer)
        local t = open { mlflow = { tracking_uri = server.url } }
        t:train { step = 0, loss = 1.5 }
        t:finish("finished")
        local seen = {}
        for i, request in ipairs(server:requests()) do
            seen[i] = request.method .. " " .. request.path:match("mlflow/([^?]*)")
        end
        assert.same({ "GET experiments/get-by-name", "POST runs/create", "POST runs/log-batch", "POST runs/log-batch",
                      "POST runs/update" }, seen)
        assert.equal(1.5, json.decode(server:requests()[4].body).metrics[1].value)
    end)

    it("gets a run of W&B's, and the key in its header alone", function()
        server = http_server.start(function(request)
            local asked = request.path == "/graphql" and json.decode(request.body).variables
            return { body = json.encode(asked and { data = { upsertBucket = { bucket = {
                name = asked.name, project = { name = asked.project, entity = { name = "me" } } } } } } or {}) }
        end)
        ffi.C.setenv("WANDB_BASE_URL", server.url, 1)
        ffi.C.setenv("WANDB_API_KEY", KEY, 1)
        local t = open { wandb = { mode = "online", project = "p" } }
        t:train { step = 0, loss = 1.5 }
        t:finish("finished")
        local last
        for _, request in ipairs(server:requests()) do
            assert.truthy(request.headers.authorization:find("^Basic %w+=*$"))
            assert.falsy((request.path .. request.body):find(KEY, 1, true))
            last = json.decode(request.body)
        end
        assert.is_true(last.complete)
        assert.falsy(table.concat(printed):find(KEY, 1, true))
    end)

    it("that hangs costs a step no more than its budget", function()
        server = http_server.start(function(request)
            local answer = mlflow_answer(request)
            answer.delay = request.path:find("log%-batch") and request.count > 0 and 30 or nil
            return answer
        end)
        local t = open { mlflow = { tracking_uri = server.url } }
        assert.truthy(slowest_until_said(t) < 10) -- not the 30 seconds that the server takes
        assert.equal(2, #printed) -- where the run is, and one warning
        assert.truthy(printed[2]:find("WARNING.*mlflow: no answer: http://127%.0%.0%.1"), printed[2])
    end)

    it("that is not there, or no MLflow server, costs a step nothing", function()
        server = http_server.start(function() return { status = 200, body = "<html>hello</html>" } end)
        local t = open { mlflow = { tracking_uri = server.url } }
        assert.truthy(slowest(t, 100) < 5)
        assert.truthy(printed[1]:find("does not answer as an MLflow server does; nothing more is sent", 1, true))
        server:stop()
        t = open { mlflow = { tracking_uri = server.url } }
        assert.truthy(slowest(t, 100) < 5)
        assert.equal(2, #printed)
    end)
end)
