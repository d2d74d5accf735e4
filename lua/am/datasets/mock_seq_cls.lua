-- MockSequenceClassificationDataset: random ids with a random class, for tests and benchmarks; no files, no
-- tokenizer. Rows are those of NeMo Automodel for the same options, since Python's random numbers are drawn
-- in its order; they look as seq_cls.lua says.

local bit = require("bit")
local err = require("am.core.error")
local mt19937 = require("am.datasets.mt19937")

local M = {}

--- What the `dataset` section may hold for this dataset.
M.fields = {
    num_samples = { type = "integer", min = 1, default = 64, doc = "rows" },
    num_labels = { type = "integer", min = 1, default = 2, doc = "classes" },
    vocab_size = { type = "integer", min = 3, default = 256, doc = "ids are from 2 up to below this" },
    max_seq_len = { type = "integer", min = 4, default = 32, doc = "most tokens of a row; the least are 4" },
    seed = { type = "integer", min = 0, max = 4294967295, default = 0, doc = "same seed, same rows" },
    tokenizer = { type = "any", no_effect = "ids are random" },
}

local LEAST, FIRST_WORD = 4, 2

-- random.randint(low, high): as many bits as high - low + 1 has, drawn until they fit.
local function randint(generator, low, high)
    local n, width = high - low + 1, 0
    while 2 ^ width <= n do
        width = width + 1
    end
    local value
    repeat
        value = bit.rshift(generator:bits(), 32 - width)
    until value >= 0 and value < n
    return low + value
end

local Dataset = {}
Dataset.__index = Dataset

function Dataset:len()
    return #self.rows
end

function Dataset:get(i)
    local row, mask = self.rows[i], {}
    for k = 1, #row.input_ids do
        mask[k] = 1
    end
    return { input_ids = { unpack(row.input_ids) }, attention_mask = mask, labels = { row.class } }
end

function Dataset:length(i)
    return #self.rows[i].input_ids
end

--- A dataset of random rows; opts: the keys of `fields`.
function M.MockSequenceClassificationDataset(opts)
    local o = {}
    for key, field in pairs(M.fields) do
        if field.default then
            local value = opts[key] == nil and field.default or opts[key]
            if type(value) ~= "number" or value % 1 ~= 0 or value < field.min or value > (field.max or 2 ^ 30) then
                err.raise("usage", "dataset.%s must be a whole number of at least %d, not %s", key, field.min,
                    tostring(value))
            end
            o[key] = value
        end
    end
    local generator, rows = mt19937.python(o.seed), {}
    for i = 1, o.num_samples do
        local ids = {}
        for k = 1, randint(generator, LEAST, o.max_seq_len) do
            ids[k] = randint(generator, FIRST_WORD, o.vocab_size - 1)
        end
        rows[i] = { input_ids = ids, class = randint(generator, 0, o.num_labels - 1) }
    end
    return setmetatable({ rows = rows }, Dataset)
end

--- What a configuration may name with `_target_`.
M.targets = { {
    name = "am.datasets.MockSequenceClassificationDataset",
    aliases = { "nemo_automodel.components.datasets.llm.mock_seq_cls.MockSequenceClassificationDataset" },
    doc = "random ids with a random class",
    fields = M.fields,
    build = M.MockSequenceClassificationDataset,
} }

return M
