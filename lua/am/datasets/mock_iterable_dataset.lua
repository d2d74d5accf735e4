-- MockIterableDataset: rows of random ids, all of one length, for benchmarks. A row depends on its number and
-- the seed alone, so unlike the original's it is read in any order, and resumed.

local philox = require("am.datasets.philox")
local utils = require("am.datasets.utils")

local M = {}

--- What the `dataset` section may hold for this dataset.
M.fields = {
    vocab_size = { type = "integer", min = 1, max = 2 ^ 31, default = 1024, doc = "ids are below this" },
    seq_len = { type = "integer", min = 2, max = 2 ^ 24, default = 1024, doc = "tokens in a row" },
    num_samples = { type = "integer", min = 1, max = 2 ^ 31 - 1, default = 1000000, doc = "rows, or batches of them" },
    batch_size = { type = "integer", min = 1, max = 65536, default = 1, doc = "rows in one of num_samples" },
    seed = { type = "integer", min = 0, default = 0, doc = "same seed, same rows" },
}

local STREAMS = 0x4d4f434b49540000ULL

local Dataset = {}
Dataset.__index = Dataset

--- A dataset of num_samples x batch_size rows; opts: the keys of `fields`. The last token of a row has no
--- label.
function M.MockIterableDataset(opts)
    local self = setmetatable({}, Dataset)
    for key, field in pairs(M.fields) do
        self[key] = opts[key] == nil and field.default or opts[key]
    end
    return self
end

function Dataset:len()
    return math.min(self.num_samples * self.batch_size, 2 ^ 31 - 1)
end

function Dataset:length()
    return self.seq_len
end

function Dataset:get(i)
    local draw, row = philox.sequence(self.seed, STREAMS + i), { input_ids = {}, labels = {} }
    for k = 1, self.seq_len do
        local id = math.floor(draw() * self.vocab_size / 4294967296)
        row.input_ids[k], row.labels[k] = id, utils.IGNORE
        if k > 1 then
            row.labels[k - 1] = id
        end
    end
    return row
end

--- What a configuration may name with `_target_`.
M.targets = { {
    name = "am.datasets.MockIterableDataset",
    aliases = {
        "nemo_automodel.components.datasets.llm.mock_iterable_dataset.MockIterableDataset",
        "nemo_automodel.components.datasets.llm.mock_iterable_dataset.MockIterableDatasetConfig",
    },
    doc = "rows of random ids, for benchmarks",
    fields = M.fields,
    build = M.MockIterableDataset,
} }

return M
