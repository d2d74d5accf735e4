-- Rows of token ids from files: {"input_ids": […], "labels": […]}.
-- Holds no tokenizer.
--
-- `labels` are taken as shifted (labels[i] follows input_ids[i]), as every dataset here emits them.
-- With labels_shifted: false they are transformers' (labels[i] belongs to input_ids[i]) and are
-- shifted here, which makes the row one token shorter. Without `labels` every token is learnt.
-- A row may have attention_mask (1s with 0s at either end), position_ids, and loss_mask, whose 0s are labels that
-- are not learnt.

local err = require("am.core.error")
local json = require("am.utils.json")
local file_rows = require("am.datasets.file_rows")
local token_rows = require("am.datasets.token_rows")
local utils = require("am.datasets.utils")

local M = {}

--- What the `dataset` section may hold for this dataset.
M.fields = {
    path_or_dataset_id = { type = "string|list", required = true, doc = file_rows.doc },
    labels_shifted = { type = "boolean", default = true, doc = "labels[i] follows input_ids[i]" },
    vocab_size = { type = "integer", min = 1, doc = "refuse ids from here on" },
    limit_dataset_samples = { type = "integer", min = 1, doc = "rows to use, from the first" },
    cache_dir = token_rows.cache_dir,
}

local TokenRows = {}
TokenRows.__index = TokenRows

function TokenRows:len()
    return self.count
end

function TokenRows:name(i)
    return self.source:name(i)
end

function TokenRows:place(i)
    return self.source:place(i)
end

-- The array of whole numbers under `key`, every one in 0..limit-1 or equal to `also`.
local function int_array(self, raw, key, i, limit, also)
    local values = raw[key]
    if type(values) ~= "table" or values == json.null or not json.is_array(values) then
        err.raise("data", '%s: "%s" must be an array of whole numbers', self:name(i), key)
    end
    for k = 1, #values do
        local x = values[k]
        if type(x) ~= "number" or x % 1 ~= 0 or ((x < 0 or x >= limit) and x ~= also) then
            err.raise("data", '%s: "%s" holds %s at position %d, not a number from 0 to %.0f', self:name(i), key,
                tostring(x), k - 1, limit - 1)
        end
    end
    return values
end

local function drop_last(values)
    values[#values] = nil
    return values
end

function TokenRows:row(i)
    local raw = self.source:get(i)
    local row = { input_ids = int_array(self, raw, "input_ids", i, self.vocab_size) }
    local n = #row.input_ids
    row.labels = raw.labels ~= nil and int_array(self, raw, "labels", i, self.vocab_size, utils.IGNORE)
    row.attention_mask = raw.attention_mask ~= nil and int_array(self, raw, "attention_mask", i, 2) or nil
    row.position_ids = raw.position_ids ~= nil and int_array(self, raw, "position_ids", i, 2 ^ 31) or nil
    row.loss_mask = raw.loss_mask ~= nil and int_array(self, raw, "loss_mask", i, 2) or nil
    for _, key in ipairs { "labels", "attention_mask", "position_ids", "loss_mask" } do
        if row[key] and #row[key] ~= n then
            err.raise("data", '%s: "%s" has %d entries, "input_ids" %d', self:name(i), key, #row[key], n)
        end
    end
    local has_labels = row.labels
    if row.loss_mask and not has_labels then
        row.labels = {}
        for k = 1, n do
            row.labels[k] = row.input_ids[k]
        end
    end
    utils.fold_loss_mask(row)
    if has_labels and self.labels_shifted then
        return row
    end
    local shifted = utils.shift(row.input_ids, 1)
    for k = 1, n - 1 do
        local label = row.labels and row.labels[k + 1] or shifted.labels[k]
        local is_padding = row.attention_mask and row.attention_mask[k + 1] == 0
        shifted.labels[k] = is_padding and utils.IGNORE or label
    end
    shifted.attention_mask = row.attention_mask and drop_last(row.attention_mask)
    shifted.position_ids = row.position_ids and drop_last(row.position_ids)
    return shifted
end

--- A dataset of the rows that have a label to learn; opts: the keys of `fields`. Reads everything once.
function M.PretokenizedDataset(opts)
    local files = file_rows.files(opts.path_or_dataset_id)
    local labels_shifted, vocab_size = opts.labels_shifted ~= false, opts.vocab_size or 2 ^ 31
    return token_rows.open {
        files = files, cache_dir = opts.cache_dir,
        depends_on = { dataset = "PretokenizedDataset", labels_shifted = labels_shifted, vocab_size = vocab_size,
                       limit_dataset_samples = opts.limit_dataset_samples },
        open = function()
            local source = file_rows.open(files)
            return setmetatable({
                source = source, labels_shifted = labels_shifted, vocab_size = vocab_size,
                count = math.min(source:len(), opts.limit_dataset_samples or math.huge),
            }, TokenRows)
        end,
    }
end

--- What a configuration may name with `_target_`.
M.targets = { {
    name = "am.datasets.PretokenizedDataset",
    doc = "rows of input_ids and labels from files",
    fields = M.fields,
    build = M.PretokenizedDataset,
} }

return M
