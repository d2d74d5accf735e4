-- HellaSwag: a beginning (ctx), of whose four endings the right one (endings, label) is learnt. Beginning and
-- ending are tokenized apart and joined, as NeMo Automodel does: the last token stays in input_ids, with
-- nothing to learn behind it. All rows have one length, that of the longest, up to a multiple of 8, unless
-- pad_to_max_length is false, which computes the same with less.

local err = require("am.core.error")
local json = require("am.utils.json")
local formatting = require("am.datasets.formatting")
local mapped = require("am.datasets.mapped")
local utils = require("am.datasets.utils")

local M = {}

local MULTIPLE = 8

--- What the `dataset` section may hold for this dataset.
M.fields = formatting.fields(mapped.fields, {
    path_or_dataset = { type = "string|list", required = true, doc = "a hub name, a file, or a list of files" },
    split = { type = "string", default = "train", doc = "\"train\", \"validation\", \"train[:1000]\", …" },
    num_samples_limit = { type = "integer", min = 1, doc = "rows to use, from the first" },
    pad_to_max_length = { type = "boolean", default = true, doc = "all rows as long as the longest" },
    trust_remote_code = { type = "boolean", default = true, no_effect = "no code of a data set is run" },
})

local special_names = { "bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id", "pad_token_id", "unk_token_id",
                        "mask_token_id" }

-- Ids that a tokenizer may put around a text, as a set.
local function special_ids(tokenizer)
    local set = {}
    for _, name in ipairs(special_names) do
        if tokenizer[name] then
            set[tokenizer[name]] = true
        end
    end
    return set
end

local function ending_of(raw, name)
    local endings, label = raw.endings, tonumber(raw.label)
    if type(endings) ~= "table" or endings == json.null or type(raw.ctx) ~= "string" then
        err.raise("data", "%s: HellaSwag has columns ctx, endings and label; this row has not", name)
    end
    local ending = label and endings[label + 1]
    if type(ending) ~= "string" then
        err.raise("data", "%s: label is %s, which names none of the %d endings%s", name, json.encode(raw.label),
            #endings, raw.label == "" and " (the test split has no labels)" or "")
    end
    return ending
end

local function map_of(tokenizer)
    local special = special_ids(tokenizer)
    return function(raw, name)
        local ending = ending_of(raw, name)
        local context = tokenizer:encode(raw.ctx, { add_special_tokens = true })
        local target = tokenizer:encode(ending, { add_special_tokens = true })
        if special[context[#context]] then
            context[#context] = nil
        end
        local first = special[target[1]] and 2 or 1
        if #context == 0 or first > #target then
            return nil, "no beginning or no ending"
        end
        local row = { input_ids = context, labels = {} }
        for i = 1, #context - 1 do
            row.labels[i] = utils.IGNORE
        end
        for i = first, #target do
            row.labels[#row.labels + 1] = target[i]
            context[#context + 1] = target[i]
        end
        row.labels[#context] = utils.IGNORE
        return row
    end
end

-- The rows of a dataset, all of one length.
local Padded = {}
Padded.__index = Padded

function Padded:len() return self.rows:len() end
function Padded:name(i) return self.rows:name(i) end
function Padded:stats() return self.rows:stats() end
function Padded:sample(i) return self.rows:sample(i) end
function Padded:length() return self.size end
function Padded:get(i) return utils.pad(self.rows:get(i), self.size, self.pad_id) end

--- A dataset of token rows. opts: the keys of `fields`. Reads and tokenizes everything once: "data" for the
--- first row that has no such columns.
function M.HellaSwag(opts)
    formatting.check_tokenizer(opts.tokenizer)
    local rows = mapped.open {
        dataset = "HellaSwag", fields = M.fields, opts = opts, path = opts.path_or_dataset, split = opts.split,
        limit = opts.num_samples_limit, map = map_of(opts.tokenizer),
    }
    if opts.pad_to_max_length == false then
        return rows
    end
    local size = math.ceil(rows:stats().longest.length / MULTIPLE) * MULTIPLE
    return setmetatable({ rows = rows, size = size, pad_id = opts.tokenizer.pad_token_id or 0 }, Padded)
end

--- What a configuration may name with `_target_`.
M.targets = { {
    name = "am.datasets.HellaSwag",
    aliases = { "nemo_automodel.components.datasets.llm.hellaswag.HellaSwag",
                "nemo_automodel.components.datasets.llm.HellaSwag", "nemo_automodel.datasets.llm.hellaswag.HellaSwag" },
    doc = "HellaSwag: beginnings and their right endings",
    fields = M.fields,
    build = M.HellaSwag,
} }

return M
