-- W&B's records as protocol buffer messages: the part of wandb/proto/wandb_internal.proto that a run needs.
-- Holds no file and no request.
--
--   records.run { id = "abcd1234", project = "p", … }   records.history(3, { { "loss", 1.25 }, … })   …
--
-- Values travel as JSON texts. JSON has no NaN; W&B writes it as the text "NaN".

local json = require("am.utils.json")
local pb = require("am.loggers.protobuf")
local strings = require("am.utils.strings")

local M = {}

-- Fields of Record.
local HISTORY, SUMMARY, CONFIG_UPDATE, FILES, RUN, EXIT, HEADER, FOOTER = 2, 3, 1, 6, 17, 18, 21, 22
local NUM = 1

local compact = { sort_keys = true, separators = "compact" }

--- A value as W&B's JSON.
function M.json(value)
    if type(value) == "number" and value - value ~= 0 then
        return value ~= value and '"NaN"' or value > 0 and '"Infinity"' or '"-Infinity"'
    end
    return json.encode(value, compact)
end

--- Record `num` (counted from 1) with one kind of content.
local function record(num, field, ...)
    return pb.int(NUM, num) .. pb.message(field, ...)
end

-- An item with a key and a JSON value; ConfigItem, SummaryItem and HistoryItem are alike.
local function item(field, key, value)
    return pb.message(field, pb.bytes(1, key), pb.bytes(16, M.json(value)))
end

-- A number of seconds since 1970 as google.protobuf.Timestamp.
local function timestamp(field, seconds)
    local whole = math.floor(seconds)
    return pb.message(field, pb.int(1, whole), pb.int(2, math.floor((seconds - whole) * 1e9)))
end

--- The first record: who wrote the file, and the oldest reader that will do.
function M.header(num, producer)
    return record(num, HEADER, pb.message(1, pb.bytes(1, producer), pb.bytes(2, "0.9.0")))
end

--- The run: id, project, entity, name, group, job_type, notes, tags (array), config (table), host,
--- start_time, resumed; all but the first two may be nil.
function M.run(num, run)
    local config, tags = {}, {}
    for i, key in ipairs(strings.sorted_keys(run.config or {})) do
        config[i] = item(CONFIG_UPDATE, tostring(key), run.config[key])
    end
    for i, tag in ipairs(run.tags or {}) do
        tags[i] = pb.bytes(10, tag)
    end
    return record(num, RUN, pb.bytes(1, run.id), pb.bytes(2, run.entity), pb.bytes(3, run.project),
                  pb.message(4, table.concat(config)), pb.bytes(6, run.group), pb.bytes(7, run.job_type),
                  pb.bytes(8, run.name), pb.bytes(9, run.notes), table.concat(tags), pb.bytes(13, run.host),
                  timestamp(17, run.start_time), run.resumed and pb.int(18, true) or "")
end

--- A row of a step: an array of { key, value }.
function M.history(num, step, list)
    local items = {}
    for i, pair in ipairs(list) do
        items[i] = item(1, pair[1], pair[2])
    end
    return record(num, HISTORY, table.concat(items), pb.message(2, pb.int(1, step)))
end

--- The last values of all keys: a table.
function M.summary(num, values)
    local items = {}
    for i, key in ipairs(strings.sorted_keys(values)) do
        items[i] = item(1, key, values[key])
    end
    return record(num, SUMMARY, table.concat(items))
end

--- Files of the folder files/ that are sent at the end.
function M.files(num, names)
    local list = {}
    for i, name in ipairs(names) do
        list[i] = pb.message(1, pb.bytes(1, name), pb.int(2, 1))
    end
    return record(num, FILES, table.concat(list))
end

--- How the run ended, and after how many seconds.
function M.exit(num, exit_code, runtime)
    return record(num, EXIT, pb.int(1, exit_code), pb.int(2, math.floor(runtime)))
end

function M.footer(num)
    return record(num, FOOTER)
end

return M
