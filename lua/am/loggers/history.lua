-- What an earlier process of a run wrote to training.jsonl and validation*.jsonl, for trackers that a resumed
-- run goes on with.
-- Holds no tracker, and writes nothing: jsonl.lua does.
--
--   history.train(dir, first, last, fn)     fn(record) for steps from first to last
--   history.validations(dir, fn)            fn(name, record); name "default" or that of the set
--   history.seconds("2026-01-31T12:00:00.250Z") -> seconds since 1970, or nil

local json = require("am.utils.json")
local path = require("am.utils.path")
local posix = require("am.utils.posix")

local M = {}

local MAX_LINE, CHUNK = 65536, 2 ^ 20

-- Records of a JSONL file; lines that are none are passed over, as is a last one that is torn.
local function each_record(name, fn)
    local file = posix.open(name, "read")
    local rest = ""
    while file do
        local text = posix.read(file, CHUNK)
        if not text or text == "" then
            break
        end
        text = rest .. text
        local from = 1
        for line, after in text:gmatch("([^\n]*)\n()") do
            local r = #line <= MAX_LINE and json.decode(line, { nan = true, max_depth = 8 })
            if type(r) == "table" and type(r.step) == "number" then
                fn(r)
            end
            from = after
        end
        rest = text:sub(from)
        if #rest > MAX_LINE then
            rest = ""
        end
    end
    if file then
        posix.close(file)
    end
end

function M.train(dir, first, last, fn)
    each_record(path.join(dir, "training.jsonl"), function(r)
        if r.step >= first and r.step <= last then
            fn(r)
        end
    end)
end

function M.validations(dir, fn)
    for _, name in ipairs(path.list_dir(dir) or {}) do
        local set = name:match("^validation_(.+)%.jsonl$") or (name == "validation.jsonl" and "default")
        if set then
            each_record(path.join(dir, name), function(r) fn(set, r) end)
        end
    end
end

-- Days from 1970-01-01 to a date of the Gregorian calendar.
local function days(year, month, day)
    if month <= 2 then -- years begin in March, so that leap days come last
        year, month = year - 1, month + 12
    end
    return 365 * year + math.floor(year / 4) - math.floor(year / 100) + math.floor(year / 400)
        + math.floor((153 * (month - 3) + 2) / 5) + day - 1 - 719468
end

--- A record's timestamp as seconds since 1970; nil for what is none.
function M.seconds(timestamp)
    if type(timestamp) ~= "string" then
        return nil
    end
    local year, month, day, hour, minute, second =
        timestamp:match("^(%d%d%d%d)%-(%d%d)%-(%d%d)T(%d%d):(%d%d):([%d.]+)Z$")
    if not tonumber(second) then
        return nil
    end
    return days(tonumber(year), tonumber(month), tonumber(day)) * 86400 + hour * 3600 + minute * 60 + second
end

return M
