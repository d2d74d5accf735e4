-- A tracker of one's own: the loss of every step as a line of a CSV file.
--   trackers:
--     - _target_: tracker.lua:csv
--       file: losses.csv

local M = {}

-- What the section may hold, so that a mistyped key is found before anything is loaded.
M.fields = {
    csv = {
        file = { type = "string", required = true, doc = "where the lines go" },
    },
}

local Csv = {}
Csv.__index = Csv

--- Called with the section's keys. Of the methods that a tracker may have (lua/am/loggers/init.lua), this one
--- needs three; an error in one is a warning, and the run goes on.
function M.csv(args)
    local file, message = io.open(args.file, "a")
    if not file then
        error(message)
    end
    return setmetatable({ file = file }, Csv)
end

--- A step: the record that training.jsonl gets.
function Csv:train(record)
    assert(self.file:write(string.format("%d,%.6f\n", record.step, record.loss)))
end

--- Before a checkpoint.
function Csv:flush()
    assert(self.file:flush())
end

--- The end: "finished", "failed" or "killed".
function Csv:finish()
    self.file:close()
end

return M
