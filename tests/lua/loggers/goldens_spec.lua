-- Messages that trackers write have the bytes that the packages tensorboard and wandb give them
-- (make_goldens.py).
local event_file = require("am.loggers.event_file")
local helpers = require("tests.lua.loggers.helpers")
local json = require("am.utils.json")
local path = require("am.utils.path")
local records = require("am.loggers.wandb_records")

local goldens = json.decode(helpers.read("tests/lua/loggers/goldens.json"))

describe("an event file", function()
    it("is what tensorboard writes", function()
        local dir, remove = helpers.folder()
        local file = event_file.open { log_dir = dir, first_step = 7, time = function() return 1700000000.25 end }
        file:scalars(300, { { "train/loss", 1.25 }, { "train/lr", 1e-5 } })
        file:text(1, "samples/1", "größer")
        file:close()
        local text = helpers.read(path.join(dir, path.names(dir)[1]))
        remove()
        assert.equal(table.concat(goldens.events), helpers.hex(text))
    end)
end)

describe("records of W&B", function()
    it("are what wandb makes of them", function()
        local made = {
            records.header(1, "0.16.0"),
            records.run(2, { id = "abcd1234", entity = "me", project = "p", group = "g", job_type = "train",
                             name = "first", notes = "why", host = "node1", resumed = true, tags = { "a", "b" },
                             config = { lr = 1e-5, model = { a = 1 } }, start_time = 1700000000.25 }),
            records.history(300, 200, { { "_step", 200 }, { "loss", 0 / 0 } }),
            records.summary(301, { loss = 1.5 }),
            records.files(3, { "config.yaml" }),
            records.exit(302, 255, 12.75),
        }
        for i, record in ipairs(made) do
            assert.equal(goldens.records[i], helpers.hex(record))
        end
        assert.equal(#goldens.records, #made)
    end)
end)
