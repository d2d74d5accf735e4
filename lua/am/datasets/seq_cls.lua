-- GLUE_MRPC: pairs of sentences (sentence1, sentence2) and whether they say the same (label 1 or 0), for
-- classification of sequences. A row is { input_ids, attention_mask, labels }, labels holding the class alone:
-- what makes a batch of such rows must not shift or pad it. Holds no model.

local err = require("am.core.error")
local formatting = require("am.datasets.formatting")
local mapped = require("am.datasets.mapped")
local utils = require("am.datasets.utils")

local M = {}

local LONGEST = 1024 -- tokens, where neither max_length nor the tokenizer has a limit

--- What the `dataset` section may hold for this dataset.
M.fields = formatting.fields(mapped.fields, {
    path_or_dataset = { type = "string|list", default = "glue", doc = "a hub name, a file, or a list of files" },
    split = { type = "string", default = "train", doc = "\"train\", \"validation\", \"train[:100]\", …" },
    num_samples_limit = { type = "integer", min = 1, doc = "rows to use, from the first" },
    max_length = { type = "integer", min = 1, default = 256, null = true,
                   doc = "tokens kept of both sentences; null: what the tokenizer says" },
    trust_remote_code = { type = "boolean", default = true, no_effect = "no code of a data set is run" },
})

-- How many ids to keep of a and of b, so that they are `limit` together: the longer one loses first
-- (longest_first of Hugging Face's tokenizers).
local function shares(a, b, limit)
    if a + b <= limit then
        return a, b
    end
    local short = math.min(a, b)
    local long = short > limit and short or math.max(short, limit - short)
    if short + long > limit then
        short = math.floor(limit / 2)
        long = short + limit % 2
    end
    if a > b then
        return long, short
    end
    return short, long
end

--- Ids of two texts, each with what the tokenizer puts around one, in at most `limit` together. For tokenizers
--- that put something else around a pair, as BERT's do, this is not what transformers gives.
function M.encode_pair(tokenizer, first, second, limit)
    local a = tokenizer:encode(first, { add_special_tokens = true })
    local b = tokenizer:encode(second, { add_special_tokens = true })
    local cut = limit and #a + #b > limit or false
    if cut then
        local bare_a = #tokenizer:encode(first, { add_special_tokens = false })
        local bare_b = #tokenizer:encode(second, { add_special_tokens = false })
        local added = #a - bare_a + #b - bare_b
        local keep_a, keep_b = shares(bare_a, bare_b, math.max(0, limit - added))
        a = formatting.encode(tokenizer, first, keep_a + #a - bare_a)
        b = formatting.encode(tokenizer, second, keep_b + #b - bare_b)
    end
    for _, id in ipairs(b) do
        a[#a + 1] = id
    end
    return a, cut
end

local function sentence(raw, key, name)
    local value = raw[key]
    if type(value) ~= "string" then
        err.raise("data", "%s: %s is no text; MRPC has sentence1, sentence2 and label", name, key)
    end
    return value
end

-- ---------------------------------------------------------------- the dataset

-- In the file of token rows the class stands at a row's last token, with nothing to learn before.
local ClassRows = {}
ClassRows.__index = ClassRows

function ClassRows:len() return self.rows:len() end
function ClassRows:name(i) return self.rows:name(i) end
function ClassRows:length(i) return self.rows:length(i) end
function ClassRows:stats() return self.rows:stats() end

function ClassRows:get(i)
    local row, mask = self.rows:get(i), {}
    for k = 1, #row.input_ids do
        mask[k] = 1
    end
    return { input_ids = row.input_ids, attention_mask = mask, labels = { row.labels[#row.labels] } }
end

--- A dataset of rows with a class. opts: the keys of `fields`. Reads and tokenizes everything once: "data" for
--- the first row that has no such columns.
function M.GLUE_MRPC(opts)
    local tokenizer = opts.tokenizer
    formatting.check_tokenizer(tokenizer)
    local limit = opts.max_length
    if not limit then
        local most = tokenizer.model_max_length
        limit = most and most <= 8 * LONGEST and most or LONGEST
    end
    local rows = mapped.open {
        dataset = "GLUE_MRPC", fields = M.fields, opts = opts, path = opts.path_or_dataset or "glue",
        split = opts.split, name = (opts.path_or_dataset or "glue") == "glue" and "mrpc" or nil,
        limit = opts.num_samples_limit, texts = { "sentence1", "sentence2" },
        map = function(raw, name)
            local class = raw.label
            if type(class) ~= "number" or class % 1 ~= 0 or class < 0 or class > 2 ^ 30 then
                err.raise("data", "%s: label is %s, not a class counted from 0%s", name,
                    type(class) == "string" and 'the text "' .. class .. '"' or tostring(class),
                    class == -1 and " (the test split has no labels)"
                        or tonumber(class) and type(class) == "string" and "; write it without quotes" or "")
            end
            local first, second = sentence(raw, "sentence1", name), sentence(raw, "sentence2", name)
            local ids, cut = M.encode_pair(tokenizer, first, second, limit)
            if #ids == 0 then
                return nil, "no tokens"
            end
            local labels = {}
            for k = 1, #ids do
                labels[k] = k == #ids and class or utils.IGNORE
            end
            return { input_ids = ids, labels = labels, truncated = cut or nil }
        end,
    }
    return setmetatable({ rows = rows }, ClassRows)
end

--- What a configuration may name with `_target_`.
M.targets = { {
    name = "am.datasets.GLUE_MRPC",
    aliases = { "nemo_automodel.components.datasets.llm.seq_cls.GLUE_MRPC" },
    doc = "GLUE MRPC: do two sentences say the same",
    fields = M.fields,
    build = M.GLUE_MRPC,
} }

return M
