-- What all tasks share: the fields that name their rows, reading texts of a row, and means. Opens no file:
-- whoever runs a task hands in its rows.

local err = require("am.core.error")
local json = require("am.utils.json")

local M = {}

local common = {
    name = { type = "string", doc = "what the results call it; the task's kind by default" },
    path_or_dataset = { type = "string|list", required = true, doc = "data file, a list of them, or a hub name" },
    split = { type = "string", doc = "as in a dataset section: \"validation\", \"validation[:100]\"" },
    num_samples_limit = { type = "integer", min = 1, doc = "rows to use, from the first" },
}

--- The fields of a task: the common ones and its own.
function M.fields(own)
    local out = {}
    for _, set in ipairs { common, own } do
        for key, spec in pairs(set) do
            out[key] = spec
        end
    end
    return out
end

--- A task: { name, path_or_dataset, split, run(self, source, model, tokenizer, limit) -> { metric = number } }.
--- source: rows as am.datasets.file_rows opens them. run(rows, model, tokenizer, limit): rows has count,
--- get(i), name(i). texts: columns that are text in CSV files, too.
function M.task(kind, opts, run, texts)
    return {
        name = opts.name or kind, path_or_dataset = opts.path_or_dataset, split = opts.split, texts = texts,
        run = function(_, source, model, tokenizer, limit)
            local rows = { count = math.min(source:len(), opts.num_samples_limit or math.huge) }
            function rows.get(_, i) return source:get(i) end
            function rows.name(_, i) return source:name(i) end
            return run(rows, model, tokenizer, limit)
        end,
    }
end

--- A text of a row, or an error that names the row.
function M.text(value, name, column)
    if type(value) ~= "string" then
        err.raise("data", '%s: column "%s" holds %s, not text', name, column,
                  value == nil and "nothing" or value == json.null and "null" or "a " .. type(value))
    end
    return value
end

function M.mean(values)
    local sum = 0
    for _, value in ipairs(values) do
        sum = sum + value
    end
    return sum / math.max(#values, 1)
end

--- Standard error of the mean; 0 for a single value.
function M.stderr(values)
    local mean, sum = M.mean(values), 0
    for _, value in ipairs(values) do
        sum = sum + (value - mean) ^ 2
    end
    return #values > 1 and math.sqrt(sum / (#values - 1) / #values) or 0
end

return M
