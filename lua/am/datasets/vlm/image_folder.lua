-- ImageFolder: a folder of images with a file that says what is to be learnt of each: captions.jsonl, or
-- metadata.jsonl, metadata.csv or metadata.parquet, as Hugging Face's datasets call it. A row has
--   file_name     the image, seen from the folder; or file_names, a list
--   text, or caption   the answer
--   prompt        the question, where it is not the section's
--   conversation  instead of the three: see conversations.lua

local err = require("am.core.error")
local json = require("am.utils.json")
local path = require("am.utils.path")
local conversation = require("am.datasets.vlm.conversation")
local conversations = require("am.datasets.vlm.conversations")
local rows = require("am.datasets.vlm.rows")

local M = {}

local NAMES = { "captions.jsonl", "metadata.jsonl", "metadata.csv", "metadata.parquet" }

--- What the `dataset` section may hold for this dataset.
M.fields = rows.file_fields(nil, {
    captions = { type = "string", doc = "name of the file in the folder (captions.jsonl, metadata.jsonl, …)" },
    prompt = { type = "string", default = "Describe this image.", doc = "what the user says beside the image" },
})

-- The folder of the split, where there is one of its name, and the file in it.
local function captions_of(opts)
    local folder, split = opts.path_or_dataset, (opts.split or ""):match("^[%w_]+")
    if type(folder) ~= "string" or not path.is_dir(folder) then
        err.raise("data", "%s: no such folder", tostring(folder))
    end
    local inner = split and path.join(folder, split)
    folder = inner and path.is_dir(inner) and inner or folder
    for _, name in ipairs(opts.captions and { opts.captions } or NAMES) do
        local file = path.join(folder, name)
        if path.is_file(file) then
            return file
        end
    end
    err.raise("data", "%s: a folder of images needs %s in it, with a file_name and a text for each", folder,
        opts.captions or table.concat(NAMES, " or "))
end

local function has(value)
    return value ~= nil and value ~= json.null
end

local function convert(prompt)
    return function(raw, where, name)
        local images = conversations.beside(raw, { "file_names", "file_name" })
        local list = raw.conversation or raw.messages or raw.conversations
        if has(list) then
            where.images = images
            return conversation.read(list, where, name)
        end
        local answer = has(raw.text) and "text" or "caption"
        local question = has(raw.prompt) and rows.text(raw, "prompt", name) or prompt
        if #images == 0 then
            err.raise("data", "%s: no file_name", name)
        elseif not has(raw[answer]) then
            err.raise("data", "%s: neither text, caption nor conversation", name)
        end
        return conversation.question(images, question, rows.text(raw, answer, name), where, name)
    end
end

--- A dataset of a folder of images. opts: the keys of `fields`.
function M.ImageFolder(opts)
    local inner = {}
    for key, value in pairs(opts) do
        inner[key] = value
    end
    inner.path_or_dataset = captions_of(opts)
    return rows.open(inner, { texts = { "file_name", "text", "caption", "prompt" },
                              convert = convert(opts.prompt or "Describe this image.") })
end

--- What a configuration may name with `_target_`.
M.targets = { {
    name = "am.datasets.vlm.ImageFolder",
    doc = "a folder of images with captions.jsonl",
    fields = M.fields,
    build = M.ImageFolder,
} }

return M
