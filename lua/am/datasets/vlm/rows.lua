-- The dataset of conversations with images: rows of a source, each made into a conversation when it is asked for.
-- Holds no meaning of columns (the loaders beside it do), no processor and no pixels.
--
-- Row i is { conversation = messages, images = sources (see conversation.lua), name = what messages call it,
-- broken = what becomes of it when a picture cannot be read }.

local err = require("am.core.error")
local json = require("am.utils.json")
local path = require("am.utils.path")
local file_rows = require("am.datasets.file_rows")
local formatting = require("am.datasets.formatting")
local utils = require("am.datasets.utils")
local broken = require("am.datasets.vlm.broken")

local M = {}

--- Keys that the sections of all such datasets may hold.
M.fields = formatting.fields(broken.fields, {
    limit_dataset_samples = { type = "integer", min = 1, doc = "use so many rows, from the first" },
    max_length = { type = "integer", min = 1, doc = "tokens of a row; longer ones are left out, or cut" },
    truncate = { type = "boolean", default = false, doc = "cut what is longer than max_length, behind its images" },
    chat_template = { type = "string", doc = "a template or its file, instead of the processor's" },
    pretokenize = { type = "boolean", no_effect = "rows are tokenised before the first step" },
    inject_fake_images = { type = "boolean", no_effect = "rows without images need none" },
})

--- The same with the keys of files and further ones.
function M.file_fields(default_path, ...)
    return formatting.fields(M.fields, {
        path_or_dataset = { type = "string|list", default = default_path, required = not default_path or nil,
                            doc = file_rows.doc },
        split = { type = "string", default = "train", doc = "of a hub name or a folder; \"train[:100]\" is a part" },
        name = { type = "string", doc = "configuration of a hub name" },
        image_folder = { type = "string", doc = "where relative paths of images begin (the data file's folder)" },
    }, ...)
end

local Rows = {}
Rows.__index = Rows

--- A dataset. `source` has len(), get(i) -> messages, sources; name(i); place(i) and files, as token_rows.lua takes
--- them. opts: the keys of `fields`.
function M.new(source, opts)
    local count = math.min(source:len(), opts.limit_dataset_samples or math.huge)
    return setmetatable({ source = source, count = count, opts = opts, broken = broken.new(opts) }, Rows)
end

--- Rows have pictures, so a loader prepares batches ahead.
Rows.has_pictures = true

function Rows:len() return self.count end
function Rows:name(i) return self.source:name(i) end
function Rows:place(i) return self.source:place(i) end

--- Row i (from 1). Raises "data" naming the row for one that is no conversation.
function Rows:get(i)
    local messages, images = self.source:get(i)
    return { conversation = messages, images = images, name = self:name(i), broken = self.broken }
end

-- Rows of files, as `new` takes them.
local FileSource = {}
FileSource.__index = FileSource

function FileSource:len() return self.rows:len() end
function FileSource:name(i) return self.rows:name(i) end
function FileSource:place(i) return self.rows:place(i) end

function FileSource:get(i)
    local base = self.base
    if not base then
        local f = self.rows:place(i)
        base = path.dirname(self.files[f])
    end
    return self.convert(self.rows:get(i), { base = base }, self.rows:name(i), i)
end

--- The dataset of a file, a folder, a pattern or a hub name: opts.path_or_dataset. spec:
---   convert(raw, { base = }, name, i) -> messages, images of the i-th row of the files
---   path     where opts name none
---   texts    columns that are text in CSV files, too, whatever they hold
---   parse    how JSON is parsed
function M.open(opts, spec)
    local files = file_rows.files(opts.path_or_dataset or spec.path, { split = opts.split, name = opts.name })
    local rows = utils.split(file_rows.open(files, { texts = spec.texts, json = spec.parse }), opts.split)
    return M.new(setmetatable({ files = files, rows = rows, base = opts.image_folder, convert = spec.convert },
                              FileSource), opts)
end

--- The value of a column that must be text.
function M.text(raw, column, name)
    local value = raw[column]
    if type(value) ~= "string" then
        err.raise("data", '%s: "%s" is %s; text is expected', name, column,
            (value == nil or value == json.null) and "missing" or "no text")
    end
    return value
end

--- The value of the first of these columns that is there: an image. One of null is a broken picture.
function M.image(raw, columns, name)
    local null
    for _, column in ipairs(columns) do
        if raw[column] ~= nil and raw[column] ~= json.null then
            return raw[column]
        end
        null = null or raw[column]
    end
    return null and { path = null } or err.raise("data", "%s: no image: there is no column %s", name,
        table.concat(columns, " or "))
end

return M
