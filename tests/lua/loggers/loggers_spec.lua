-- am.loggers: what reaches which tracker, and that none of them can harm a run.
local err = require("am.core.error")
local helpers = require("tests.lua.loggers.helpers")
local json = require("am.utils.json")
local log = require("am.utils.log")
local loggers = require("am.loggers")
local path = require("am.utils.path")

local dir, remove, clock, printed, before
local off = { report = { enabled = false } }

before_each(function()
    dir, remove = helpers.folder()
    clock, printed = helpers.clock(0), {}
    before = log.redirect { write = function(_, ...) printed[#printed + 1] = table.concat { ... } end }
end)
after_each(function()
    log.redirect(before)
    remove()
end)

local function warnings()
    local n = 0
    for _, line in ipairs(printed) do
        n = n + (line:find("WARNING", 1, true) and 1 or 0)
    end
    return n
end

local function open(sections, run)
    run = run or {}
    run.dir, run.clock = dir, clock
    return loggers.open(sections, run)
end

-- A tracker that writes down its calls.
local function recorder(calls)
    return setmetatable({}, { __index = function(_, method)
        return function(_, ...)
            calls[#calls + 1] = { method, ... }
        end
    end })
end

describe("trackers", function()
    it("get everything, in order", function()
        local calls = {}
        local t = open(off, { custom = { { name = "mine", tracker = recorder(calls) } } })
        t:sample(0, "p", "q")
        t:train { step = 0, loss = 1 }
        t:scalars(0, { { "x-time", 1 } })
        t:validation("squad", { step = 0, val_loss = 2 })
        t:artifact("f")
        t:flush()
        t:finish("failed", "why")
        t:finish("finished")
        assert.same({ { "sample", 0, "p", "q" }, { "train", { step = 0, loss = 1 } }, { "poll" },
                      { "scalars", 0, { { "x-time", 1 } } }, { "validation", "squad", { step = 0, val_loss = 2 } },
                      { "poll" }, { "artifact", "f" }, { "flush" }, { "finish", "failed", "why" } }, calls)
    end)

    it("are those of the sections, and the report", function()
        local t = open { tensorboard = { log_dir = path.join(dir, "tb") }, wandb = { enable = false } }
        t:train { step = 0, loss = 1 }
        t:finish("finished")
        assert.same({ "report.html", "tb" }, path.names(dir))
        assert.equal(1, #path.names(path.join(dir, "tb")))
    end)

    it("have methods as they like", function()
        local t = open(off, { custom = { { name = "mine", tracker = {} } } })
        t:train { step = 0 }
        t:finish("finished")
        assert.equal(0, #printed)
    end)

    it("on a server get every n-th step only", function()
        local http = helpers.http(function(r)
            return 200, r.url:find("get%-by%-name") and { experiment = { experiment_id = "1" } }
                or r.url:find("runs/create") and { run = { info = { run_id = "a" } } } or {}
        end)
        local t = open({ mlflow = { tracking_uri = "http://x" }, report = off.report },
                       { http = http, remote_every = 3 })
        for step = 0, 7 do
            t:train { step = step, loss = step }
            t:scalars(step, { { "forward-time", step } })
        end
        t:finish("finished")
        local steps = {}
        for _, r in ipairs(http.requests) do
            for _, m in ipairs(r.json and r.json.metrics or {}) do
                steps[#steps + 1] = m.key == "loss" and m.step or nil
            end
        end
        assert.same({ 0, 3, 6 }, steps)
    end)

    it("name a run after its model", function()
        local function name(model)
            local run = { model_name = model }
            open(off, run)
            return run.name
        end
        assert.equal("HuggingFaceTB_SmolLM2", name("HuggingFaceTB/SmolLM2"))
        assert.equal("b_c", name("/a/b/c/"))
        assert.equal("x", name("x"))
        assert.equal("run", name(nil))
    end)
end)

describe("the example of a tracker of one's own", function()
    it("writes a line for each step", function()
        local file = path.join(dir, "losses.csv")
        local mine = dofile("examples/custom/tracker.lua").csv { file = file }
        local t = open(off, { custom = { { name = "tracker.lua:csv", tracker = mine } } })
        t:train { step = 0, loss = 1.5 }
        t:train { step = 1, loss = 0.25 }
        t:flush()
        assert.equal("0,1.500000\n1,0.250000\n", helpers.read(file))
        t:finish("finished")
        assert.equal(0, #printed)
    end)
end)

describe("a tracker that fails", function()
    it("is warned about once and tried again later, longer each time", function()
        local times = {}
        local mine = { train = function() times[#times + 1] = clock.now error("no space") end }
        local t = open(off, { custom = { { name = "mine", tracker = mine } } })
        for second = 0, 200 do
            clock:set(second)
            t:train { step = second }
        end
        assert.same({ 0, 10, 30, 70, 150 }, times)
        assert.equal(1, warnings())
        assert.truthy(printed[1]:find("mine: .*no space; the run goes on without it"))
    end)

    it("does not keep others from their work", function()
        local calls = {}
        local t = open(off, { custom = { { name = "bad", tracker = { train = function() error({}) end } },
                                         { name = "good", tracker = recorder(calls) } } })
        t:train { step = 0 }
        assert.equal("train", calls[1][1])
    end)

    it("at its opening is none", function()
        path.write_file(path.join(dir, "file"), "")
        local t = open { tensorboard = { log_dir = path.join(dir, "file", "x") }, report = off.report }
        t:train { step = 0, loss = 1 }
        t:finish("finished")
        assert.equal(1, warnings())
        assert.truthy(printed[1]:find("tensorboard: cannot make folder", 1, true))
    end)

    it("passes an interruption on", function()
        local mine = { poll = function() err.raise("interrupted", "Ctrl-C") end }
        local t = open(off, { custom = { { name = "mine", tracker = mine } } })
        local ok, e = pcall(t.train, t, { step = 0 })
        assert.is_false(ok)
        assert.equal("interrupted", e.code)
    end)

    it("shows no password of an address", function()
        local mine = { train = function() error("no answer from http://me:no@hunter22@host/") end }
        open(off, { custom = { { name = "mine", tracker = mine } } }):train { step = 0 }
        assert.falsy(printed[1]:find("hunter22", 1, true))
    end)
end)

describe("mistakes in a section", function()
    it("are found before anything is opened", function()
        local ok, e = pcall(loggers.new, { mlflow = { tracking_uri = "file:./mlruns" } })
        assert.is_false(ok)
        assert.equal("usage", e.code)
        loggers.new { mlflow = { tracking_uri = "file:./mlruns", enabled = false } }
    end)

    it("are found when a tracker of one's own is none", function()
        local ok, e = pcall(open, off, { custom = { { name = "x.lua:f", tracker = 3 } } })
        assert.is_false(ok)
        assert.truthy(e.msg:find("trackers: x.lua:f gave a number", 1, true))
    end)
end)

describe("a checkpoint", function()
    it("keeps what a resumed run goes on with", function()
        local sections = { wandb = { mode = "offline" } }
        local t = open(sections, { model_name = "m" })
        t:sample(0, "p", "before")
        t:train { step = 0, loss = 1 }
        t:flush()
        local state = json.decode(json.encode(t:state_dict()))
        local resumed = loggers.new(sections)
        resumed:load_state_dict(state)
        assert.same(state, resumed:state_dict())
        resumed:open { dir = dir, clock = clock, resumed_from = "x", start_step = 1 }
        resumed:sample(1, "p", "after")
        resumed:train { step = 1, loss = 1 }
        resumed:finish("finished")
        assert.equal(state.wandb.id, resumed:state_dict().wandb.id)
        assert.equal("before", resumed:state_dict().report.samples[1].first.text)
        assert.equal("after", resumed:state_dict().report.samples[1].last.text)
        assert.same({ "latest-run", state.wandb.folder }, path.names(path.join(dir, "wandb")))
    end)

    it("may hold anything", function()
        for _, state in ipairs { {}, { wandb = 3, report = { samples = 3 } }, { wandb = { id = 3, size = "x" } },
                                 { report = { samples = { 1, { prompt = 2 }, { prompt = "x", first = {} } } } },
                                 { wandb = { id = "ok", folder = "nowhere", size = -1 }, mlflow = json.null } } do
            local t = loggers.new { wandb = { mode = "offline" } }
            t:load_state_dict(state)
            t:open { dir = dir, clock = clock, resumed_from = "x", start_step = 1 }
            t:train { step = 1, loss = 1 }
            t:finish("finished")
        end
        assert.equal(0, warnings())
    end)
end)
