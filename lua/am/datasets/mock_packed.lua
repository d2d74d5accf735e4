-- Blocks of random sentences, packed, for benchmarks and tests: no files, no tokenizer. The ids are the
-- original's for the same seed (Python's random numbers).
--
-- Sentences follow one another, each ended by id 1. As in the original, a block is kept when its sentences
-- fill it exactly; what does not is thrown away. Each sentence is a sample: positions restart, and its last
-- token has no label. (The original's labels are a copy of the ids, not shifted.)

local err = require("am.core.error")
local mt19937 = require("am.datasets.mt19937")
local utils = require("am.datasets.utils")

local M = {}

--- What the `dataset` section may hold for this dataset.
M.fields = {
    num_blocks = { type = "integer", min = 1, max = 2 ^ 24, default = 10, doc = "rows" },
    block_size = { type = "integer", min = 2, max = 2 ^ 24, default = 128, doc = "tokens in a row" },
    mean_len = { type = "number", default = 20, doc = "mean tokens in a sentence, before its end" },
    std_len = { type = "number", min = 0, default = 6, doc = "their standard deviation" },
    vocab_size = { type = "integer", min = 3, default = 100, doc = "ids are below this" },
    max_sentence_len = { type = "integer", min = 1, default = 64, doc = "most tokens before the end" },
    seed = { type = "integer", min = 0, max = 2 ^ 32 - 1, default = 0, doc = "same seed, same rows" },
    tokenizer = { type = "any", no_effect = "ids are random" },
}

local EOS, FIRST_WORD = 1, 2
local TRIES = 100000 -- blocks in a row that sentences do not fill

-- Toward zero, as Python's int().
local function truncate(x)
    return x < 0 and math.ceil(x) or math.floor(x)
end

local function sentence(self, generator)
    local length = math.max(1, math.min(self.max_sentence_len, truncate(generator:gauss(self.mean_len, self.std_len))))
    local ids = {}
    for k = 1, length do
        ids[k] = FIRST_WORD + math.floor(generator:random() * (self.vocab_size - FIRST_WORD))
    end
    ids[length + 1] = EOS
    return ids
end

local Dataset = {}
Dataset.__index = Dataset

-- The next block that is filled exactly. `carried` holds the sentences that began the one before.
local function next_block(self, generator)
    for _ = 1, TRIES do
        local block = self.carried
        self.carried = {}
        local ids = sentence(self, generator)
        while #block + #ids <= self.block_size do
            for _, id in ipairs(ids) do
                block[#block + 1] = id
            end
            ids = sentence(self, generator)
        end
        self.carried = ids
        if #block == self.block_size then
            return block
        end
    end
    err.raise("data", "mock_packed: no sentences of about %g tokens fill a block of %d; change block_size or mean_len",
        self.mean_len, self.block_size)
end

--- A dataset of num_blocks packed rows; opts: the keys of `fields`.
function M.build_packed_dataset(opts)
    local self = setmetatable({ blocks = {}, carried = {} }, Dataset)
    for key, field in pairs(M.fields) do
        if field.default then
            self[key] = opts[key] == nil and field.default or opts[key]
        end
    end
    local generator = mt19937.python(self.seed)
    for b = 1, self.num_blocks do
        self.blocks[b] = next_block(self, generator)
    end
    return self
end

function Dataset:len()
    return self.num_blocks
end

function Dataset:length()
    return self.block_size
end

--- Row i: { input_ids, labels, position_ids, seq_lens }.
function Dataset:get(i)
    local row = { input_ids = {}, labels = {}, position_ids = {}, seq_lens = {} }
    local position = 0
    for k, id in ipairs(self.blocks[i]) do
        row.input_ids[k], row.position_ids[k] = id, position
        row.labels[k] = id == EOS and utils.IGNORE or self.blocks[i][k + 1] or utils.IGNORE
        position = position + 1
        if id == EOS then
            row.seq_lens[#row.seq_lens + 1], position = position, 0
        end
    end
    return row
end

--- What a configuration may name with `_target_`.
M.targets = { {
    name = "am.datasets.build_packed_dataset",
    aliases = {
        "nemo_automodel.components.datasets.llm.mock_packed.build_packed_dataset",
        "nemo_automodel.components.datasets.llm.mock_packed.MockPackedDatasetConfig",
    },
    doc = "packed rows of random sentences",
    fields = M.fields,
    build = M.build_packed_dataset,
} }

return M
