-- am.loggers.tensorboard and what it is made of: sums, messages, event files.
local crc = require("am.loggers.crc")
local event_file = require("am.loggers.event_file")
local helpers = require("tests.lua.loggers.helpers")
local path = require("am.utils.path")
local pb = require("am.loggers.protobuf")
local posix = require("am.utils.posix")
local tensorboard = require("am.loggers.tensorboard")

describe("sums", function()
    it("are those of RFC 3720 and of zlib", function()
        assert.equal(0xe3069283, crc.crc32c("123456789"))
        assert.equal(0xcbf43926, crc.crc32("123456789"))
        assert.equal(0x8a9136aa, crc.crc32c(("\0"):rep(32)))
        assert.equal(0, crc.crc32c(""))
        assert.equal(0xa282ead8, crc.masked(0))
    end)
end)

describe("messages", function()
    it("have the bytes of the encoding's own examples", function()
        assert.equal("089601", helpers.hex(pb.int(1, 150)))
        assert.equal("120774657374696e67", helpers.hex(pb.bytes(2, "testing")))
        assert.equal("1a03089601", helpers.hex(pb.message(3, pb.int(1, 150))))
        assert.equal("08feffffffffffffffff01", helpers.hex(pb.int(1, -2)))
        assert.equal("08808080808008", helpers.hex(pb.int(1, 2 ^ 38)))
        assert.equal("9a0600", helpers.hex(pb.bytes(99, "")))
        assert.equal("0d0000c03f", helpers.hex(pb.float(1, 1.5)))
        assert.equal("09000000000000f83f", helpers.hex(pb.double(1, 1.5)))
    end)

    it("leave out what is nil", function()
        assert.equal("", pb.int(1) .. pb.bytes(2) .. pb.double(3) .. pb.float(4))
        assert.equal("0800", helpers.hex(pb.int(1, false)))
    end)
end)

local dir, remove
before_each(function() dir, remove = helpers.folder() end)
after_each(function() remove() end)

-- The events of every file of the folder, in the order of their names, as tables.
local function events()
    local out = {}
    for _, name in ipairs(path.names(dir)) do
        for _, record in ipairs(helpers.tfrecords(helpers.read(path.join(dir, name)))) do
            out[#out + 1] = helpers.message(record)
        end
    end
    return out
end

local function values(event)
    local out = {}
    for _, value in ipairs(helpers.message(event[5][1])[1]) do
        local v = helpers.message(value)
        out[v[1][1]] = v[2] and v[2][1] or helpers.message(v[8][1])[8][1]
    end
    return out
end

local function tracker(run)
    run.dir, run.time = dir, function() return 1700000000.25 end
    return tensorboard.open({ log_dir = dir }, run)
end

describe("an event file", function()
    it("begins with its version and says what happened at each step", function()
        local t = tracker { config_text = "a: 1\nb: 2" }
        t:train { step = 0, epoch = 0, timestamp = "x", loss = 1.5, grad_norm = 0 / 0, lr = math.huge }
        t:validation("default", { step = 0, epoch = 0, val_loss = 0.25 })
        t:validation("squad", { step = 300, val_loss = 0.5 })
        t:finish("finished")
        local e = events()
        assert.equal(6, #e)
        assert.same({ { 1700000000.25 }, nil, { "brain.Event:2" } }, e[1])
        assert.same({ { 1 } }, helpers.message(table.remove(e, 2)[7][1])) -- START
        assert.same({ config = "    a: 1\n    b: 2" }, values(e[2]))
        local first = values(e[3])
        assert.equal(1.5, first["train/loss"])
        assert.equal(math.huge, first["train/lr"])
        assert.is_true(first["train/grad_norm"] ~= first["train/grad_norm"])
        assert.is_nil(first["train/step"])
        assert.same({ ["val/epoch"] = 0, ["val/val_loss"] = 0.25 }, values(e[4]))
        assert.same({ ["val_squad/val_loss"] = 0.5 }, values(e[5]))
        assert.same({ 300 }, e[5][2])
    end)

    it("is named as TensorBoard finds it, a file for each writer", function()
        for _ = 1, 2 do
            tracker {}:train { step = 0, loss = 1 }
        end
        local names = path.names(dir)
        assert.equal(2, #names)
        assert.truthy(names[1]:find("^events%.out%.tfevents%.1700000000%..+%." .. posix.getpid() .. "%.%d+$"))
    end)

    it("of a resumed run hides what is gone over again", function()
        local t = tracker { resumed_from = "epoch_0_step_6", start_step = 7 }
        t:train { step = 7, loss = 1 }
        local e = events()
        assert.same({ 7 }, e[2][2])
        assert.same({ { 1 } }, helpers.message(e[2][7][1]))
        assert.same({ 7 }, e[3][2])
    end)

    it("is whole after every record, whenever the run ends", function()
        local t = tracker {}
        for step = 0, 3 do
            t:train { step = step, loss = step }
            assert.equal(step + 3, #events())
        end
    end)

    it("is left for another one when a write fails", function()
        local file = event_file.open { log_dir = dir }
        file:scalars(0, { { "a", 1 } })
        posix.close(file.file)
        file.file = assert(posix.open("/dev/full", "append"))
        local ok, e = pcall(file.scalars, file, 1, { { "a", 2 } })
        assert.is_false(ok)
        assert.truthy(tostring(e):find("No space left", 1, true))
        file:scalars(2, { { "a", 3 } })
        file:close()
        assert.equal(2, #path.names(dir))
        local e2 = events()
        assert.equal(5, #e2)
        assert.same({ a = 3 }, values(e2[5]))
    end)

    it("has samples, one tag for each prompt, without bytes that are no text", function()
        local t = tracker {}
        t:sample(0, "What?", "a\nb\255")
        t:sample(5, "What?", "c")
        t:sample(5, "Who?", "d")
        local e = events()
        assert.same({ ["samples/1"] = "    What?\n\n---\n\n    a\n    b\239\191\189" }, values(e[3]))
        assert.same({ ["samples/1"] = "    What?\n\n---\n\n    c" }, values(e[4]))
        assert.same({ ["samples/2"] = "    Who?\n\n---\n\n    d" }, values(e[5]))
    end)
end)
