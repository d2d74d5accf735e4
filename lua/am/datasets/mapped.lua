-- Rows of files, each made into a token row by a function of the dataset's: what the text datasets share.
-- Holds no meaning of columns. The function gets a row of the file and what messages call it; it returns a
-- token row, or nil and why the row is left out, and raises "data" naming the row for one that is wrong.

local digest = require("am.utils.digest")
local log = require("am.utils.log").get("am.datasets")
local file_rows = require("am.datasets.file_rows")
local formatting = require("am.datasets.formatting")
local token_rows = require("am.datasets.token_rows")
local utils = require("am.datasets.utils")

local M = {}

--- Fields that such datasets share beside their own.
M.fields = {
    tokenizer = { target = true, default_target = "am.AutoTokenizer.from_pretrained", required = true,
                  doc = "the model's, unless a section here says otherwise" },
    cache_dir = token_rows.cache_dir,
}

local MappedRows = {}
MappedRows.__index = MappedRows

function MappedRows:len() return self.count end
function MappedRows:name(i) return self.source:name(i) end
function MappedRows:place(i) return self.source:place(i) end

function MappedRows:row(i)
    local ok, raw = pcall(self.source.get, self.source, i)
    if not ok then
        if self.skip_unreadable and raw.code == "data" then
            return nil, "not a JSON object"
        end
        error(raw, 0)
    end
    return self.map(raw, self.source:name(i))
end

-- What rows depend on beside the content of the files; nil when the tokenizer can't say it.
local function dependencies(name, fields, opts)
    local tokenizer = opts.tokenizer
    if not tokenizer.content then
        log:warning("dataset.cache_dir: this tokenizer has no content(), so its rows can't be kept")
        return nil
    end
    local content = tokenizer:content()
    local on = { dataset = name, tokenizer = digest.text(content), eos_token_id = tokenizer.eos_token_id,
                 pad_token_id = tokenizer.pad_token_id }
    for key in pairs(fields) do -- the files and the template are there by content
        if key ~= "path_or_dataset_id" and key ~= "tokenizer" and key ~= "cache_dir" and key ~= "chat_template" then
            on[key] = opts[key]
        end
    end
    if content:find("strftime_now", 1, true) then
        on.date = os.date("%Y-%m-%d")
    end
    return on
end

--- A row padded on the right to `length` with the tokenizer's padding; as it is where length is nil. `last` is
--- the sample's last id, which shifting left out of input_ids: as in NeMo Automodel it comes first in the
--- padding, where it fits with another behind it.
function M.padded(row, length, tokenizer, last)
    if not length then
        return row
    end
    local n = #row.input_ids
    utils.pad(row, length, formatting.pad_id(tokenizer))
    if n + 1 < length then
        row.input_ids[n + 1] = last
    end
    return row
end

--- A dataset of token rows (see token_rows.open). spec:
---   dataset, fields   the dataset's name and fields, for the keys of the cache
---   opts              what it was made with: tokenizer, cache_dir, …
---   path              files or a name of the hub; split, name, revision: which of its parts, "train[:100]"
---                     a part of these
---   limit             rows to use, from the first
---   arrange           function(source) -> source: before the split's part is taken
---   parse             how JSON is parsed, see am.utils.json.decode
---   columns           of files that name them, only these are read (nil: all)
---   texts             columns of CSV files that are text whatever they hold
---   skip_unreadable   leave out rows that are no JSON objects, rather than raise
---   map               the function of a row
function M.open(spec)
    local opts = spec.opts
    local files = file_rows.files(spec.path, { split = spec.split, name = spec.name, revision = spec.revision })
    local depends_on = opts.cache_dir and dependencies(spec.dataset, spec.fields, opts)
    return token_rows.open {
        files = files, cache_dir = depends_on and opts.cache_dir, depends_on = depends_on,
        open = function()
            local source = file_rows.open(files, { columns = spec.columns, texts = spec.texts, json = spec.parse })
            source = utils.split(spec.arrange and spec.arrange(source) or source, spec.split)
            return setmetatable({ source = source, map = spec.map, skip_unreadable = spec.skip_unreadable,
                                  count = math.min(source:len(), spec.limit or math.huge) }, MappedRows)
        end,
    }
end

return M
