-- am.loggers.wandb: the run's folder, its file, and what is told to a server. The package wandb itself reads
-- and sends such a folder in tests/parity/trackers_check.sh.
local helpers = require("tests.lua.loggers.helpers")
local json = require("am.utils.json")
local path = require("am.utils.path")
local posix = require("am.utils.posix")
local secrets = require("am.loggers.secrets")
local wandb = require("am.loggers.wandb")
local wandb_api = require("am.loggers.wandb_api")
local wandb_store = require("am.loggers.wandb_store")

local dir, remove, clock, log, server, http
local KEY = ("k"):rep(40)

-- A server that keeps lines of history by their place.
local function new_server()
    local s = { lines = {}, streams = {} }
    function s.answer(r)
        if s.down then
            return nil, "Connection refused"
        elseif s.status then
            return s.status, "{}"
        elseif r.url:find("/graphql$") and r.json.query:find("RunResumeStatus", 1, true) then
            local bucket = #s.lines > 0 and { name = "x", historyLineCount = #s.lines, summaryMetrics = "{}",
                                              historyTail = json.encode { s.lines[#s.lines] } } or json.null
            return 200, { data = { model = { bucket = bucket } } }
        elseif r.url:find("/graphql$") then
            s.run = r.json.variables
            return 200, { data = { upsertBucket = { inserted = true, bucket = {
                name = s.run.name, project = { name = s.run.project, entity = { name = s.run.entity or "me" } } } } } }
        end
        s.streams[#s.streams + 1] = r.json
        local history = r.json.files and r.json.files["wandb-history.jsonl"]
        for i, line in ipairs(history and history.content or {}) do
            assert.equal(#s.lines, history.offset + i - 1)
            s.lines[#s.lines + 1] = line
        end
        return 200, {}
    end
    return s
end

-- What the environment says, for one test.
local environment = {}
local getenv = os.getenv
before_each(function()
    environment = { HOME = "/nowhere" }
    os.getenv = function(name) -- luacheck: ignore 122
        return environment[name]
    end
    dir, remove = helpers.folder()
    clock, log, server = helpers.clock(0), helpers.log(), new_server()
    http = helpers.http(function(r) return server.answer(r) end)
end)
after_each(function()
    os.getenv = getenv -- luacheck: ignore 122
    remove()
end)

local function open(section, run, state)
    local r = { name = "a run", dir = dir, http = http, clock = clock, log = log, start_step = 0,
                time = function() return 1700000000 end, config = { model = { a = 1 }, seed = 42 } }
    for key, value in pairs(run or {}) do
        r[key] = value
    end
    return wandb.open(section, r, state)
end

local function folder()
    local names = {}
    for _, name in ipairs(path.names(path.join(dir, "wandb"))) do
        if name:find("run%-%d") then -- not the link latest-run
            names[#names + 1] = path.join(dir, "wandb", name)
        end
    end
    assert.equal(1, #names)
    return names[1]
end

local kinds = { [2] = "history", [3] = "summary", [6] = "files", [17] = "run", [18] = "exit", [21] = "header",
                [22] = "footer" }

-- The records of the run's file: kind, and the message.
local function records()
    local out = {}
    local dir_of_run = folder()
    local id = dir_of_run:match("%-(%w+)$")
    for i, text in ipairs(helpers.wandb_records(helpers.read(path.join(dir_of_run, "run-" .. id .. ".wandb")))) do
        local message = helpers.message(text)
        assert.same({ i }, message[1])
        for field, kind in pairs(kinds) do
            if message[field] then
                out[i] = { kind = kind, helpers.message(message[field][1]) }
            end
        end
    end
    return out
end

-- The rows: "step: key=value key=value", without times.
local function rows()
    local out = {}
    for _, r in ipairs(records()) do
        if r.kind == "history" then
            local items = {}
            for _, text in ipairs(r[1][1]) do
                local item = helpers.message(text)
                if not item[1][1]:find("^_[tr]") then
                    items[#items + 1] = item[1][1] .. "=" .. item[16][1]
                end
            end
            table.sort(items)
            out[#out + 1] = helpers.message(r[1][2][1])[1][1] .. ": " .. table.concat(items, " ")
        end
    end
    return out
end

describe("W&B's log", function()
    it("is cut into blocks, whatever the sizes", function()
        local file = path.join(dir, "x.wandb")
        local store = wandb_store.open(file)
        local written = {}
        for i, size in ipairs { 0, 1, 32747, 0, 5, 32760 - 20, 100000, 32768 * 2, 3, 65000, 1 } do
            written[i] = string.char(64 + i):rep(size)
            store:write(written[i])
        end
        store:close()
        assert.same(written, helpers.wandb_records(helpers.read(file)))
        assert.equal(store.size, path.size(file))
    end)

    it("pads where no head of a piece fits", function()
        for left = 0, 8 do
            local size = 3 * 32768 - left
            local text = wandb_store.frame("ab", size)
            assert.equal((left < 7 and left or 0) + (left >= 7 and left < 9 and 7 or 0) + 7 + 2, #text)
        end
    end)

    it("goes on behind what a checkpoint saw", function()
        local file = path.join(dir, "x.wandb")
        local store = wandb_store.open(file)
        store:write("a")
        local size = store.size
        store:write("b")
        store:close()
        store = wandb_store.open(file, { size = size })
        assert.is_true(store.resumed)
        store:write("c")
        store:close()
        assert.same({ "a", "c" }, helpers.wandb_records(helpers.read(file)))
        assert.is_false(wandb_store.open(file, { size = 10000 }).resumed)
    end)

    it("is whole again after a write that failed", function()
        local file = path.join(dir, "x.wandb")
        local store = wandb_store.open(file)
        store:write("a")
        posix.write(store.file, "torn") -- what a full disk leaves
        posix.close(store.file)
        store.file = posix.open("/dev/full", "append")
        assert.is_false((pcall(store.write, store, "b")))
        store:write("c")
        assert.same({ "a", "c" }, helpers.wandb_records(helpers.read(file)))
    end)
end)

describe("an offline run", function()
    it("has its folder, its configuration and its rows", function()
        local t = open { mode = "offline", project = "p", tags = { "x" } }
        t:sample(0, "What?", "a")
        t:train { step = 0, epoch = 0, timestamp = "x", loss = 1.5, lr = 0 / 0 }
        t:validation("default", { step = 0, val_loss = 2, lr = 9, num_label_tokens = 7 })
        t:validation("squad", { step = 0, val_loss = 3, num_label_tokens = 8 })
        t:train { step = 1, loss = 1 }
        t:finish("killed")
        local of = {}
        for i, r in ipairs(records()) do
            of[i] = r.kind
        end
        assert.same({ "header", "run", "files", "history", "history", "summary", "exit", "footer" }, of)
        local run = records()[2][1]
        assert.equal("p", run[3][1])
        assert.equal("a run", run[8][1])
        assert.same({ "x" }, run[10])
        assert.same({
            '0: _step=0 epoch=0 loss=1.5 lr="NaN" sample/What?="a" step=0 val_loss=2 '
                .. 'val_squad/num_label_tokens=8 val_squad/val_loss=3',
            "1: _step=1 loss=1 step=1",
        }, rows())
        assert.same({ 255 }, records()[7][1][1])
        assert.truthy(folder():find("/offline%-run%-20231114_%d+%-%w%w%w%w%w%w%w%w$"))
        assert.equal('"model":\n    value: {"a":1}\n"seed":\n    value: 42\n',
                     helpers.read(path.join(folder(), "files", "config.yaml")))
        local summary = json.decode(helpers.read(path.join(folder(), "files", "wandb-summary.json")))
        assert.equal(1, summary.loss)
        assert.equal(2, summary.val_loss)
        assert.equal(json.null, summary.lr)
        assert.equal(0, #http.requests)
        assert.truthy(log.text():find("wandb sync " .. folder(), 1, true))
    end)

    it("is gone on with where the checkpoint was", function()
        local t = open { mode = "offline" }
        for step = 0, 2 do
            t:train { step = step, loss = step }
        end
        t:flush()
        local state = json.decode(json.encode(t:state_dict()))
        t:train { step = 3, loss = 3 }
        t:train { step = 4, loss = 4 } -- killed here
        path.write_file(path.join(folder(), "run-" .. state.id .. ".wandb.synced"), "")
        t = open({ mode = "offline" }, { resumed_from = "x", start_step = 3 }, state)
        for step = 3, 5 do
            t:train { step = step, loss = step }
        end
        t:finish("finished")
        assert.same({ "0: _step=0 loss=0 step=0", "1: _step=1 loss=1 step=1", "2: _step=2 loss=2 step=2",
                      "3: _step=3 loss=3 step=3", "4: _step=4 loss=4 step=4", "5: _step=5 loss=5 step=5" }, rows())
        assert.is_false(path.exists(path.join(folder(), "run-" .. state.id .. ".wandb.synced")))
    end)

    it("begins a folder of its own when the first one is gone, under the same id", function()
        local state = { id = "abcd1234", folder = "../../etc", size = 99 }
        open({ mode = "offline" }, { resumed_from = "x" }, state):finish("finished")
        assert.truthy(folder():find("%-abcd1234$"))
        assert.same({ 1 }, records()[2][1][18])
    end)

    it("takes its settings from the environment, the section first", function()
        environment.WANDB_MODE, environment.WANDB_PROJECT, environment.WANDB_NAME = "offline", "env", "env"
        environment.WANDB_TAGS, environment.WANDB_RUN_ID = "a, b", "fixed"
        open({ name = "own" }):finish("finished")
        local run = records()[2][1]
        assert.same({ "fixed", "env", "own", "a", "b" }, { run[1][1], run[3][1], run[8][1], run[10][1], run[10][2] })
    end)

    it("is nothing at all when disabled", function()
        assert.same({}, open { mode = "disabled" })
        assert.is_false(path.exists(path.join(dir, "wandb")))
    end)
end)

describe("an online run", function()
    before_each(function()
        environment.WANDB_API_KEY, environment.WANDB_BASE_URL = KEY, "http://127.0.0.1:1/"
    end)

    it("is told to the server as well", function()
        local t = open { project = "p q", entity = "team" }
        assert.same({ model = { value = { a = 1 } }, seed = { value = 42 } }, json.decode(server.run.config))
        assert.equal("a run", server.run.displayName)
        for step = 0, 2 do
            t:train { step = step, loss = step }
        end
        clock:set(6)
        t:poll()
        assert.equal(2, #server.lines) -- the row of step 2 is still open
        assert.same({ _step = 1, _timestamp = 1700000000, _runtime = 0, loss = 1, step = 1 },
                    json.decode(server.lines[2]))
        t:finish("failed")
        assert.equal(3, #server.lines)
        local last = server.streams[#server.streams]
        assert.is_true(last.complete)
        assert.equal(1, last.exitcode)
        assert.equal(2, json.decode(last.files["wandb-summary.json"].content[1]).loss)
        assert.truthy(http.requests[2].url:find("^http://127%.0%.0%.1:1/files/team/p%%20q/%w+/file_stream$"))
        assert.equal(secrets.basic("api", KEY), http.requests[1].headers.Authorization)
        assert.equal(3, #rows())
        assert.truthy(log.text():find("W&B run: http://127.0.0.1:1/team/p q/runs/", 1, true))
    end)

    it("that resumes sends no step twice", function()
        local t = open {}
        for step = 0, 4 do
            t:train { step = step, loss = step }
            if step == 2 then
                server.state = json.decode(json.encode(t:state_dict()))
            end
        end
        clock:set(6)
        t:poll() -- the server has steps 0 to 3; killed here
        assert.equal(4, #server.lines)
        t = open({}, { resumed_from = "x", start_step = 3 }, server.state)
        for step = 3, 5 do
            t:train { step = step, loss = step }
        end
        t:finish("finished")
        local steps = {}
        for i, line in ipairs(server.lines) do
            steps[i] = json.decode(line)._step
        end
        assert.same({ 0, 1, 2, 3, 4, 5 }, steps)
        assert.equal(6, #rows())
    end)

    it("that resumes adds what was not sent before it was killed", function()
        local t = open {}
        server.down = true
        t:train { step = 0, loss = 0 }
        t:train { step = 1, loss = 1 }
        local state = t:state_dict()
        path.write_file(path.join(dir, "training.jsonl"), '{"step": 0, "loss": 0.0}\n{"step": 1, '
                        .. '"timestamp": "2023-11-14T22:13:21.000Z", "loss": 1.0, "mfu": null}\n{"step": 2, "l')
        path.write_file(path.join(dir, "validation.jsonl"), '{"step": 1, "val_loss": 1.5, "lr": 1.0}\n')
        server.down = false
        t = open({}, { resumed_from = "x", start_step = 2 }, state)
        t:train { step = 2, loss = 2 }
        t:finish("finished")
        assert.equal(3, #server.lines)
        assert.same({ _step = 1, step = 1, loss = 1, val_loss = 1.5, _timestamp = 1700000001, _runtime = 1 },
                    json.decode(server.lines[2]))
        assert.equal(3, #rows())
    end)

    it("keeps what a server that is gone does not take", function()
        server.down = true
        local t = open {}
        for step = 0, 9 do
            t:train { step = step, loss = step }
            clock:set(clock.now + 4)
            t:poll()
        end
        local _, warnings = log.text():gsub("warning", "")
        assert.equal(1, warnings)
        assert.truthy(log.text():find("no answer: Connection refused", 1, true))
        server.down = false
        clock:set(1000)
        t:poll()
        t:finish("finished")
        assert.equal(10, #server.lines)
    end)

    it("says what a wrong key is, and shows no key", function()
        server.status = 401
        local t = open {}
        t:train { step = 0, loss = 1 }
        t:finish("finished")
        assert.truthy(log.text():find("answered 401; check WANDB_API_KEY; nothing more is sent", 1, true))
        assert.truthy(log.text():find("wandb sync " .. folder(), 1, true))
        assert.falsy(log.text():find(KEY, 1, true))
        assert.equal(1, #http.requests)
        assert.equal(1, #rows())
    end)

    it("minds what resume says of an id", function()
        server.lines = { '{"_step": 3}' }
        open { id = "mine", resume = "never" }
        assert.truthy(log.text():find("has a run mine, and wandb.resume is never", 1, true))
        server.lines = {}
        open { id = "mine", resume = "must" }
        assert.truthy(log.text():find("has no run mine, and wandb.resume is must", 1, true))
    end)

    it("is written alone when there is no key", function()
        environment.WANDB_API_KEY = nil
        local t = open {}
        t:train { step = 0, loss = 1 }
        t:finish("finished")
        assert.equal(0, #http.requests)
        assert.truthy(log.text():find("warning wandb: no key for http://127.0.0.1:1", 1, true))
        assert.equal(1, #rows())
    end)

    it("shows no password of WANDB_BASE_URL", function()
        environment.WANDB_API_KEY, environment.WANDB_BASE_URL = nil, "http://me:hunter22@127.0.0.1:1"
        open({}):finish("finished")
        assert.truthy(log.text():find("wandb: no key for http://<redacted>@127.0.0.1:1", 1, true))
        assert.falsy(log.text():find("hunter22", 1, true))
    end)

    it("finds a key where wandb login puts it", function()
        local netrc = path.join(dir, "netrc")
        path.write_file(netrc, "machine a login user password no\nmachine 127.0.0.1\n login user\n password "
                        .. KEY .. "\n")
        environment.WANDB_API_KEY, environment.NETRC = nil, netrc
        assert.equal(KEY, wandb_api.key("http://127.0.0.1:1"))
        assert.is_nil(wandb_api.key("https://api.wandb.ai"))
    end)

    it("may be answered anything", function()
        for _, answer in ipairs { "", "<html>", "[]", "null", ("["):rep(1000), '{"errors":[{"message":"no"}]}',
                                  '{"data":{"upsertBucket":{"bucket":{"name":"../x"}}}}', '{"data":[1]}' } do
            http = helpers.http(function() return 200, answer end)
            local t = open {}
            t:train { step = 0, loss = 1 }
            t:finish("failed")
            assert.truthy(log.text():find("does not answer as a W&B server does", 1, true)
                          or log.text():find("refuses: no", 1, true), answer)
            log = helpers.log()
        end
    end)
end)
