-- am.loggers.progress: the line on a terminal, and the lines without one.
local helpers = require("tests.lua.loggers.helpers")
local log = require("am.utils.log")
local path = require("am.utils.path")
local progress = require("am.loggers.progress")
local terminal = require("tests.support.terminal")

local function record(step, changes)
    local r = { step = step, epoch = 0, loss = 1.23456, grad_norm = 1, lr = 1e-5, mem = 2.314, tps = 5320.6,
                tps_per_gpu = 5320.6, num_label_tokens = 9 }
    for key, value in pairs(changes or {}) do
        r[key] = value
    end
    return r
end

describe("a duration", function()
    it("is read at a glance", function()
        assert.same({ "0:00:00", "0:01:00", "2:46:39", "1d 00:00:00", "11d 13:46:40", "?", "0:00:00" }, {
            progress.duration(0.4), progress.duration(59.6), progress.duration(9999), progress.duration(86400),
            progress.duration(1e6), progress.duration(0 / 0), progress.duration(-3) })
    end)
end)

describe("the line", function()
    local clock
    local function bar(opts)
        clock = helpers.clock(0)
        return progress.open { stream = io.tmpfile(), clock = clock, log = helpers.log(),
                               total_steps = opts and opts.total_steps }
    end

    it("has all that is known", function()
        local b = bar { total_steps = 1000 }
        assert.equal("step 1/1000 | loss 1.2346 | 5321 tokens/s | 2.31 GiB", b:line(record(0), 200))
        for step = 0, 10 do
            clock:set(step * 2)
            b:train(record(step))
        end
        assert.equal("step 11/1000 | loss nan | 5321 tokens/s | 43.1 % of peak | 2.31 GiB | 0:32:58 left",
                     b:line(record(10, { mfu = 43.12, loss = 0 / 0 }), 200))
        assert.equal("step 4 | loss inf | 5321 tokens/s | 2.31 GiB", bar():line(record(3, { loss = 1 / 0 }), 200))
    end)

    it("leaves out what does not fit", function()
        local b = bar { total_steps = 1000 }
        b.seconds_per_step = 1
        local full = record(9, { mfu = 43.12 })
        assert.equal("step 10/1000 | loss 1.2346 | 5321 tokens/s | 2.31 GiB | 0:16:30 left", b:line(full, 79))
        assert.equal("step 10/1000 | loss 1.2346 | 5321 tokens/s | 0:16:30 left", b:line(full, 60))
        assert.equal("step 10/1000 | loss 1.2346 | 0:16:30 left", b:line(full, 45))
        assert.equal("step 10/1000", b:line(full, 20))
        assert.equal("step 10/", b:line(full, 8))
    end)

    it("is a plain one for each step where there is no terminal", function()
        local b = bar { total_steps = 3 }
        b:train(record(0))
        b:train(record(1))
        b:finish()
        assert.same({ "info step 0 | epoch 0 | loss 1.2346 | grad_norm 1.0000 | lr 1.00e-05 | mem 2.31 GiB | "
                      .. "tps 5320.60(5320.60/gpu) | num_label_tokens 9",
                      "info step 1 | epoch 0 | loss 1.2346 | grad_norm 1.0000 | lr 1.00e-05 | mem 2.31 GiB | "
                      .. "tps 5320.60(5320.60/gpu) | num_label_tokens 9" }, b.log.lines)
    end)
end)

describe("a terminal", function()
    if not terminal.available() then
        pending("no pseudo-terminal")
        return
    end
    local script, t
    before_each(function()
        script = os.tmpname()
        path.write_file(script, [[
            local log = require("am.utils.log")
            local bar = require("am.loggers.progress").open { total_steps = 3, clock = os.clock }
            local r = { step = 0, epoch = 0, loss = 1.5, grad_norm = 1, lr = 1, mem = 2, tps = 10, tps_per_gpu = 10,
                        num_label_tokens = 1 }
            bar:train(r)
            log.get("x"):warning("a message")
            r.step = 2
            bar:train(r)
            bar:finish()
            log.get("x"):info("the end")
        ]])
    end)
    after_each(function()
        os.remove(script)
        t:kill()
    end)

    local function output(variables)
        t = terminal.start({ "luajit", script }, variables)
        assert.equal(0, t:status())
        return (t.all:gsub("%d+%-%d+%-%d+ %d+:%d+:%d+", "NOW"))
    end

    it("has one line, redrawn, below the messages", function()
        assert.equal("\r\27[Kstep 1/3 | loss 1.5000 | 10 tokens/s | 2.00 GiB"
                     .. "\r\27[KNOW | WARNING | x | a message\r\n"
                     .. "\r\27[Kstep 1/3 | loss 1.5000 | 10 tokens/s | 2.00 GiB"
                     .. "\r\27[Kstep 3/3 | loss 1.5000 | 10 tokens/s | 2.00 GiB | 0:00:00 left"
                     .. "\r\27[Kstep 3/3 | loss 1.5000 | 10 tokens/s | 2.00 GiB | 0:00:00 left\r\n"
                     .. "NOW | INFO | x | the end\r\n", output { NO_COLOR = "1", TERM = "xterm" })
    end)

    it("has colours unless NO_COLOR is set", function()
        assert.truthy(output({ TERM = "xterm", NO_COLOR = "" }):find("\r\27[K\27[1mstep 1/3\27[0m | loss", 1, true))
    end)

    it("that can't redraw gets plain lines", function()
        local text = output { TERM = "dumb", NO_COLOR = "1" }
        assert.truthy(text:find("INFO | am.recipe | step 0 | epoch 0 | loss 1.5000", 1, true))
        assert.falsy(text:find("\27", 1, true))
    end)
end)

describe("the log", function()
    it("goes elsewhere and back", function()
        local lines = {}
        local before = log.redirect { write = function(_, ...) lines[#lines + 1] = table.concat { ... } end }
        log.get("x"):warning("here")
        log.redirect(before)
        assert.equal(1, #lines)
        assert.truthy(lines[1]:find("here", 1, true))
        assert.equal(before, log.redirect())
    end)
end)
