-- Random sentences for benchmarks and tests: no files, no tokenizer.

local err = require("am.core.error")
local philox = require("am.datasets.philox")
local utils = require("am.datasets.utils")

local M = {}

--- What the `dataset` section may hold for this dataset.
M.fields = {
    num_sentences = { type = "integer", min = 1, default = 10, doc = "rows" },
    mean_len = { type = "number", default = 20, doc = "mean tokens in a sentence, before its end" },
    std_len = { type = "number", min = 0, default = 6, doc = "their standard deviation" },
    vocab_size = { type = "integer", min = 3, default = 100, doc = "ids are below this" },
    max_sentence_len = { type = "integer", min = 1, default = 64, doc = "most tokens before the end" },
    seed = { type = "integer", min = 0, default = 0, doc = "same seed, same rows" },
    tokenizer = { type = "any", no_effect = "ids are random" },
}

local EOS = 1 -- 0 is padding, words begin at 2

local MOCK_STREAMS = 0x4d4f434b00000000ULL

-- Two words to one number of a standard normal (Box-Muller).
local function normal(a, b)
    return math.sqrt(-2 * math.log((a + 1) / 4294967296)) * math.cos(2 * math.pi * b / 4294967296)
end

local Dataset = {}
Dataset.__index = Dataset

local function check_number(key, field, value)
    if type(value) ~= "number" or value ~= value then
        err.raise("usage", "dataset.%s must be a number, not %s", key, tostring(value))
    elseif field.type == "integer" and value % 1 ~= 0 then
        err.raise("usage", "dataset.%s must be a whole number, not %s", key, tostring(value))
    elseif field.min and value < field.min then
        err.raise("usage", "dataset.%s must be at least %d, not %s", key, field.min, tostring(value))
    end
    return value
end

--- A dataset of random sentences, each closed by id 1; opts: the keys of `fields`. Row i depends on
--- i and the seed alone. Labels are shifted and all of them learnt.
function M.build_unpacked_dataset(opts)
    local self = setmetatable({}, Dataset)
    for key, field in pairs(M.fields) do
        if field.default then
            self[key] = check_number(key, field, opts[key] == nil and field.default or opts[key])
        end
    end
    return self
end

function Dataset:len()
    return self.num_sentences
end

function Dataset:get(i)
    local draw = philox.sequence(self.seed, MOCK_STREAMS + i)
    local length = math.floor(self.mean_len + self.std_len * normal(draw(), draw()))
    length = math.max(1, math.min(self.max_sentence_len, length))
    local ids = {}
    for k = 1, length do
        ids[k] = 2 + math.floor(draw() * (self.vocab_size - 2) / 4294967296)
    end
    ids[length + 1] = EOS
    return utils.shift(ids, 1)
end

--- What a configuration may name with `_target_`.
M.targets = { {
    name = "am.datasets.build_unpacked_dataset",
    aliases = {
        "nemo_automodel.components.datasets.llm.mock.build_unpacked_dataset",
        "nemo_automodel.components.datasets.llm.mock.MockUnpackedDatasetConfig",
    },
    doc = "random sentences",
    fields = M.fields,
    build = M.build_unpacked_dataset,
} }

return M
