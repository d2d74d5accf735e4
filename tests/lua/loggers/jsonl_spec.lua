-- am.loggers.jsonl: exact lines, what is dropped on opening, numbers JSON lacks.
local jsonl = require("am.loggers.jsonl")
local json = require("am.utils.json")
local posix = require("am.utils.posix")
local path = require("am.utils.path")

local record = {
    step = 3, epoch = 0, timestamp = "2026-01-31T12:00:00.000Z", loss = 1.2345, grad_norm = 2, lr = 1.9e-06,
    mem = 0.5, tps = 1234.5, tps_per_gpu = 1234.5, num_tokens_per_step = 512, num_label_tokens = 200,
}

describe("am.loggers.jsonl", function()
    local dir

    before_each(function()
        dir = os.tmpname()
        os.remove(dir)
    end)

    after_each(function()
        path.remove_tree(dir)
    end)

    local function lines(name)
        local out = {}
        for line in assert(path.read_file(name)):gmatch("[^\n]*\n") do
            out[#out + 1] = line
        end
        return out
    end

    it("writes the keys in order, missing ones as null, floats as floats", function()
        local name = path.join(dir, "deep/training.jsonl")
        local log = jsonl.open(name, { keys = jsonl.TRAINING })
        log:write(record)
        assert.equal('{"step": 3, "epoch": 0, "timestamp": "2026-01-31T12:00:00.000Z", "loss": 1.2345, '
            .. '"grad_norm": 2.0, "lr": 1.9e-06, "mem": 0.5, "tps": 1234.5, "tps_per_gpu": 1234.5, "mfu": null, '
            .. '"num_tokens_per_step": 512, "num_label_tokens": 200}\n', lines(name)[1]) -- before close
        log:write { step = 4, epoch = 0, loss = 0 / 0, grad_norm = math.huge, lr = 0, extra = { 1, 2 } }
        local second = assert(json.decode(lines(name)[2]))
        assert.equal(json.null, second.loss)
        assert.equal(json.null, second.grad_norm)
        assert.matches("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d%d%dZ$", second.timestamp)
        assert.matches('"lr": 0.0,.*"num_label_tokens": null, "extra": %[1, 2%]}\n$', lines(name)[2])
        log:close()
    end)

    it("goes on behind what is there, without a torn line", function()
        local name = path.join(dir, "x.jsonl")
        path.mkdir_p(dir)
        for _, torn in ipairs { "", '{"step": 1, "lo', '{"step": 1}', "\0\0\0\0" } do
            path.write_file(name, '{"step": 0, "loss": NaN}\n' .. torn)
            local log = jsonl.open(name)
            log:write { step = 1, epoch = 0, timestamp = "t" }
            log:close()
            assert.same({ '{"step": 0, "loss": NaN}\n', '{"step": 1, "epoch": 0, "timestamp": "t"}\n' }, lines(name))
        end
    end)

    it("drops lines from the resumed step on, byte for byte keeping the rest", function()
        local name = path.join(dir, "x.jsonl")
        for resume_step = 0, 5 do
            path.remove_tree(dir)
            local log = jsonl.open(name)
            for step = 0, 3 do
                log:write { step = step, epoch = 0, timestamp = "t", loss = step / 3 }
            end
            log:close()
            local before = lines(name)
            jsonl.open(name, { resume_step = resume_step }):close()
            assert.same({ unpack(before, 1, math.min(resume_step, 4)) }, lines(name))
        end
    end)

    it("loses no finished line to kill -9", function()
        local name = path.join(dir, "x.jsonl")
        local script = string.format([[luajit -e '
            local log = require("am.loggers.jsonl").open("%s")
            for step = 0, 99 do log:write { step = step, epoch = 0, text = ("x"):rep(2000) } end
            os.execute("kill -9 " .. require("am.utils.posix").getpid())' 2>/dev/null]], name)
        os.execute(script)
        local found = lines(name)
        assert.equal(100, #found)
        assert.equal(99, json.decode(found[100]).step)
    end)

    it("says so when it cannot write", function()
        path.mkdir_p(dir)
        local ok, e = pcall(jsonl.open, dir)
        assert.is_false(ok)
        assert.equal("io", e.code)
        ok, e = pcall(function()
            local log = jsonl.open(path.join(dir, "x.jsonl"))
            log:close()
            log.file = posix.open("/dev/full", "append")
            log:write { step = 1 }
        end)
        assert.is_false(ok)
        assert.equal("io", e.code)
        assert.matches("x.jsonl: .*No space", e.msg)
    end)

    it("prints times in UTC with milliseconds", function()
        assert.equal("1970-01-01T00:00:00.000Z", jsonl.timestamp(0))
        assert.equal("2001-09-09T01:46:41.000Z", jsonl.timestamp(1000000000.9996))
    end)
end)
