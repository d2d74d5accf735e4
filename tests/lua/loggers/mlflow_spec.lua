-- am.loggers.mlflow: what is asked of a server, and what happens when it does not answer. The real one is
-- asked by tests/parity/trackers_check.sh.
local helpers = require("tests.lua.loggers.helpers")
local json = require("am.utils.json")
local mlflow = require("am.loggers.mlflow")
local params = require("am.loggers.mlflow_params")
local path = require("am.utils.path")

local dir, remove, clock, log, server, http
local URI = "http://127.0.0.1:5000"

-- A server that has one experiment, "known", and keeps what it is told.
local function new_server()
    local s = { batches = {}, updates = {}, files = {}, known = {} }
    function s.answer(r)
        local call = r.url:match("/api/2%.0/mlflow/([%a-/]+)") or "artifact"
        if s.down then
            return nil, "Connection refused"
        elseif call == "experiments/get-by-name" and r.url:find("experiment_name=known", 1, true) then
            return 200, { experiment = { experiment_id = "7" } }
        elseif call == "experiments/get-by-name" then
            return 404, { error_code = "RESOURCE_DOES_NOT_EXIST", message = "no such experiment" }
        elseif call == "experiments/create" then
            s.created = r.json
            return 200, { experiment_id = "8" }
        elseif call == "runs/create" then
            s.run = r.json
            return 200, { run = { info = { run_id = "abc123", experiment_id = "7",
                                           artifact_uri = "mlflow-artifacts:/7/abc123/artifacts" } } }
        elseif call == "runs/get" then
            local run = s.known[r.url:match("run_id=(.*)$")]
            if not run then
                return 404, { error_code = "RESOURCE_DOES_NOT_EXIST", message = "no such run" }
            end
            return 200, { run = run }
        elseif call == "runs/update" then
            s.updates[#s.updates + 1] = r.json
            return 200, { run_info = {} }
        elseif call == "runs/log-batch" then
            s.batches[#s.batches + 1] = r.json
            return s.status or 200, {}
        elseif r.method == "PUT" then
            s.files[r.url:match("/artifacts/(.*)$")] = r.body
            return 200, {}
        end
        return 404, "not found"
    end
    return s
end

before_each(function()
    dir, remove = helpers.folder()
    clock, log, server = helpers.clock(0), helpers.log(), new_server()
    http = helpers.http(function(r) return server.answer(r) end)
end)
after_each(function() remove() end)

local function open(section, run, state)
    section = section or {}
    section.tracking_uri = section.tracking_uri or URI .. "/"
    local r = { name = "a run", dir = dir, http = http, clock = clock, log = log, time = function() return 1000.5 end,
                config = { model = { a = 1 }, seed = 42 }, config_text = "model: {a: 1}\n", start_step = 0 }
    for key, value in pairs(run or {}) do
        r[key] = value
    end
    return mlflow.open(section, r, state)
end

local function metrics_of(batches)
    local out = {}
    for _, batch in ipairs(batches) do
        for _, m in ipairs(batch.metrics or {}) do
            out[#out + 1] = string.format("%s %s %d", m.key, tostring(m.value), m.step)
        end
    end
    return out
end

describe("a configuration as parameters", function()
    local config = { model = { text_config = { output_hidden_states = true }, name = "x" }, seed = 42,
                     optimizer = { betas = json.array { 0.9, 0.95 }, eps = 1e-8, ["q*"] = json.null } }
    it("is flattened one level deep, with Python's texts", function()
        assert.same({
            { "model.name", "x" }, { "model.text_config", "{'output_hidden_states': True}" },
            { "optimizer.betas", "[0.9, 0.95]" }, { "optimizer.eps", "1e-08" }, { "optimizer.q_", "None" },
            { "seed", "42" },
        }, params.flatten(config, 1))
    end)

    it("is flattened not at all, or all the way", function()
        assert.same({ { "a", "{'b': {'c': 1}, 'd': 'x'}" } },
                    params.flatten({ a = { d = "x", b = { c = 1 } } }, 0))
        assert.same({ "model.text_config.output_hidden_states", "True" }, params.flatten(config, nil)[2])
    end)

    it("quotes text as repr does", function()
        assert.equal([=[["it's", 'say "hi"', 'it\'s "x"', 'a\nb\\\x01']]=],
                     params.text(json.array { "it's", 'say "hi"', "it's \"x\"", "a\nb\\\1" }))
    end)

    it("does not follow a table for ever", function()
        local loop = {}
        loop.a = loop
        assert.equal(1, #params.flatten(loop, nil))
    end)
end)

describe("an address", function()
    it("must be a server's", function()
        for _, uri in ipairs { "file:./mlruns", "sqlite:///mlflow.db", "./mlruns", "databricks", "http://" } do
            local ok, e = pcall(mlflow.check, { tracking_uri = uri })
            assert.is_false(ok)
            assert.equal("usage", e.code)
            assert.truthy(e.msg:find("mlflow server", 1, true), e.msg)
        end
        mlflow.check { tracking_uri = "https://host:1/path" }
    end)

    it("shows no password", function()
        local _, e = pcall(mlflow.check, { tracking_uri = "postgresql://me:pass@host/db" })
        assert.falsy(e.msg:find("pass@", 1, true))
    end)
end)

describe("a run", function()
    it("is made in its experiment, with parameters, tags and the configuration", function()
        open { experiment_name = "known", run_name = "first", tags = { team = "a", n = 3 }, description = "why" }
        assert.is_nil(server.created)
        assert.equal("7", server.run.experiment_id)
        assert.equal("first", server.run.run_name)
        assert.equal(1000500, server.run.start_time)
        local tags = {}
        for _, tag in ipairs(server.run.tags) do
            tags[tag.key] = tag.value
        end
        assert.equal("a", tags.team)
        assert.equal("3", tags.n)
        assert.equal("why", tags["mlflow.note.content"])
        assert.same({ { key = "model.a", value = "1" }, { key = "seed", value = "42" } }, server.batches[1].params)
        assert.equal("model: {a: 1}\n", server.files["7/abc123/artifacts/config.yaml"])
        assert.equal("abc123", helpers.read(path.join(dir, "mlflow_run_id")))
        assert.truthy(log.text():find("info MLflow run: " .. URI .. "/#/experiments/7/runs/abc123", 1, true))
    end)

    it("makes an experiment that is not there", function()
        open { experiment_name = "a & b", artifact_location = "s3://x" }
        assert.truthy(http.requests[1].url:find("experiment_name=a%%20%%26%%20b$"))
        assert.same({ name = "a & b", artifact_location = "s3://x" }, server.created)
        assert.equal("8", server.run.experiment_id)
    end)

    it("gets metrics in batches, and its end", function()
        local t = open { experiment_name = "known" }
        t:train { step = 0, epoch = 0, timestamp = "x", loss = 1.5, lr = 0 / 0 }
        t:validation("default", { step = 0, epoch = 0, val_loss = 2, lr = 1, mem = 3, num_label_tokens = 5 })
        t:validation("squad", { step = 0, val_loss = math.huge })
        t:poll()
        assert.equal(1, #server.batches) -- the parameters alone: too early
        clock:set(6)
        t:poll()
        assert.same({ "epoch 0 0", "loss 1.5 0", "lr NaN 0", "step 0 0", "val_loss 2 0",
                      "val_squad/val_loss Infinity 0" }, metrics_of(server.batches))
        assert.equal(1000500, server.batches[2].metrics[1].timestamp)
        t:train { step = 1, loss = 1 }
        t:finish("killed")
        assert.same({ "loss 1 1", "step 1 1" }, metrics_of { server.batches[3] })
        assert.same({ { run_id = "abc123", status = "KILLED", end_time = 1000500 } }, server.updates)
    end)

    it("gets at most a thousand metrics in a request", function()
        local t = open { experiment_name = "known" }
        for step = 0, 299 do
            t:train { step = step, a = 1, b = 2, c = 3 }
        end
        t:finish("finished")
        local sizes = {}
        for i = 2, #server.batches do
            sizes[#sizes + 1] = #server.batches[i].metrics
        end
        assert.same({ 1000, 200 }, sizes)
    end)
end)

describe("a resumed run", function()
    local state = { run_id = "old1" }
    before_each(function()
        server.known.old1 = {
            info = { run_id = "old1", experiment_id = "7" },
            data = { metrics = { { key = "loss", step = 5, value = 1 }, { key = "lr", step = "5" } } },
        }
    end)

    it("goes on without sending a step twice", function()
        local t = open({ experiment_name = "known" }, { resumed_from = "epoch_0_step_3", start_step = 4 }, state)
        for step = 4, 7 do
            t:train { step = step, loss = step }
        end
        t:validation("default", { step = 5, val_loss = 9 })
        t:finish("finished")
        assert.is_nil(server.run)
        assert.same({ "step 4 4", "step 5 5", "loss 6 6", "step 6 6", "loss 7 7", "step 7 7", "val_loss 9 5" },
                    metrics_of(server.batches))
        assert.equal("RUNNING", server.updates[1].status)
        assert.equal("FINISHED", server.updates[2].status)
        assert.same({ run_id = "old1" }, t:state_dict())
    end)

    it("adds what was not sent before it was killed", function()
        path.write_file(path.join(dir, "training.jsonl"), '{"step": 5, "loss": 5.0}\n{"step": 6, '
                        .. '"timestamp": "2023-11-14T22:13:20.250Z", "loss": 6.0}\n{"step": 7, "loss": 7.0}\n')
        path.write_file(path.join(dir, "validation_squad.jsonl"), '{"step": 6, "val_loss": 1.5}\n')
        local t = open({ experiment_name = "known" }, { resumed_from = "x", start_step = 7 }, state)
        t:train { step = 7, loss = 70 }
        t:finish("finished")
        assert.same({ "loss 6 6", "step 6 6", "val_squad/val_loss 1.5 6", "loss 70 7", "step 7 7" },
                    metrics_of(server.batches))
        assert.equal(1700000000250, server.batches[1].metrics[1].timestamp)
    end)

    it("is found by the file beside the checkpoints", function()
        path.write_file(path.join(dir, "mlflow_run_id"), "old1\n")
        open({ experiment_name = "known" }, { resumed_from = "x", start_step = 4 })
        assert.is_nil(server.run)
    end)

    it("begins anew when that is wanted, when nothing is resumed, and when the server has lost it", function()
        path.write_file(path.join(dir, "mlflow_run_id"), "old1")
        open { experiment_name = "known" }
        assert.truthy(server.run)
        server.run = nil
        open({ experiment_name = "known", resume = false }, { resumed_from = "x" }, state)
        assert.truthy(server.run)
        server.run, server.known.old1 = nil, nil
        local t = open({ experiment_name = "known" }, { resumed_from = "x" }, state)
        assert.truthy(server.run)
        assert.truthy(log.text():find("has no run old1 any more", 1, true))
        assert.same({ run_id = "abc123" }, t:state_dict())
    end)

    it("takes no id that could be another address", function()
        open({ experiment_name = "known" }, { resumed_from = "x" }, { run_id = "../../x" })
        assert.truthy(server.run)
    end)
end)

describe("a server that fails", function()
    it("is warned about once, tried again, and gets everything later", function()
        server.down = true
        local t = open { experiment_name = "known" }
        for step = 0, 9 do
            t:train { step = step, loss = step }
            clock:set(clock.now + 3)
            t:poll()
        end
        local _, warnings = log.text():gsub("warning", "")
        assert.equal(1, warnings)
        assert.truthy(log.text():find("warning mlflow: no answer: Connection refused", 1, true))
        server.down = false
        clock:set(500)
        t:poll()
        assert.equal(20, #metrics_of(server.batches))
        assert.truthy(log.text():find("answers again", 1, true))
    end)

    it("is left alone when it refuses for good, and what is missing is said at the end", function()
        local t = open { experiment_name = "known" }
        server.status = 400
        t:train { step = 0, loss = 1 }
        clock:set(10)
        t:poll()
        local asked = #http.requests
        clock:set(1000)
        t:train { step = 1, loss = 1 }
        t:poll()
        assert.equal(asked, #http.requests)
        t:finish("finished")
        assert.truthy(log.text():find("warning mlflow: 2 records were not sent", 1, true))
    end)

    it("may answer anything", function()
        for _, answer in ipairs { "", "<html>", "[]", "null", '{"experiment": 3}', ("["):rep(1000),
                                  '{"experiment":{"experiment_id":"1"}}' } do
            http = helpers.http(function() return 200, answer end)
            local t = open {}
            t:train { step = 0, loss = 1 }
            t:finish("failed")
            assert.truthy(log.text():find("does not answer as an MLflow server does", 1, true))
            log = helpers.log()
        end
    end)

    it("is no failure when somebody interrupts", function()
        local t = open { experiment_name = "known" }
        t:train { step = 0, loss = 1 }
        http.request = function() return nil, "interrupted", "interrupted" end
        clock:set(10)
        t:poll()
        assert.falsy(log.text():find("warning", 1, true))
    end)

    it("hears a time-out with each request", function()
        open { experiment_name = "known" }
        for _, r in ipairs(http.requests) do
            assert.truthy(r.timeout > 0 and r.timeout <= 10)
        end
    end)
end)
