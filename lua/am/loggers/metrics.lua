-- What trackers take from a record: its numbers, and their names.
-- Holds no tracker.
--
--   metrics.numbers(record) -> { { "epoch", 0 }, { "loss", 1.25 }, … }   sorted by name
--   metrics.prefix("default") -> "val"     metrics.prefix("squad") -> "val_squad"

local strings = require("am.utils.strings")

local M = {}

--- The numbers of a record but its step, sorted by name; NaN and infinities are numbers.
function M.numbers(record)
    local list = {}
    for _, key in ipairs(strings.sorted_keys(record)) do
        if key ~= "step" and type(record[key]) == "number" then
            list[#list + 1] = { key, record[key] }
        end
    end
    return list
end

--- How a validation set is called in front of its metrics.
function M.prefix(name)
    return name == "default" and "val" or "val_" .. name
end

-- What a step's record says already; a validation at the same step must not draw over it.
local of_training = { epoch = true, lr = true, mem = true, num_label_tokens = true }

--- The numbers of a validation where all metrics share one list of names: val_loss for the default set,
--- val_<name>/val_loss, val_<name>/num_label_tokens, … for others.
function M.validation(name, record)
    local list = {}
    for _, item in ipairs(M.numbers(record)) do
        if name ~= "default" then
            list[#list + 1] = { M.prefix(name) .. "/" .. item[1], item[2] }
        elseif not of_training[item[1]] then
            list[#list + 1] = item
        end
    end
    return list
end

--- Text for a tracker: UTF-8 of at most `limit` bytes, cut between characters, bad bytes replaced.
function M.text(text, limit)
    local parts, rest = {}, text
    if #rest > limit then
        local stop = limit
        while stop > 0 and rest:byte(stop + 1) >= 0x80 and rest:byte(stop + 1) < 0xc0 do
            stop = stop - 1
        end
        rest = rest:sub(1, stop) .. " …"
    end
    while true do
        local at = strings.utf8_error(rest)
        if not at then
            parts[#parts + 1] = rest
            return table.concat(parts)
        end
        parts[#parts + 1] = rest:sub(1, at - 1) .. "\239\191\189"
        rest = rest:sub(at + 1)
    end
end

return M
