-- Conversations in any of the forms that conversation.lua reads: of NeMo Automodel ("conversation"), transformers
-- and TRL ("messages" beside "images"), LLaVA ("conversations" of from and value beside "image"). Images stand in
-- the parts, or beside the conversation in "image" or "images": a path, a URL, bytes, or a list of these.

local err = require("am.core.error")
local json = require("am.utils.json")
local conversation = require("am.datasets.vlm.conversation")
local rows = require("am.datasets.vlm.rows")

local M = {}

--- What the `dataset` section may hold for such datasets.
M.fields = rows.file_fields(nil)

local function is_null(x)
    return x == nil or x == json.null
end

-- The first of these columns that is there.
local function first_of(raw, columns)
    for _, column in ipairs(columns) do
        if not is_null(raw[column]) then
            return raw[column], column
        end
    end
end

--- The images beside a row's conversation, as a list.
function M.beside(raw, columns)
    local value = first_of(raw, columns)
    if value == nil then
        return {}
    end
    return type(value) == "table" and json.is_array(value) and value or { value }
end

-- A dataset of such rows; `how` are further options of conversation.lua.
local function open(opts, how)
    return rows.open(opts, { texts = { "conversation", "image" }, convert = function(raw, where, name)
        local list = first_of(raw, { "conversation", "messages", "conversations" })
        for _, column in ipairs { "audio", "audios", "video", "videos" } do
            local value = raw[column]
            if not is_null(value) and value ~= "" and not (type(value) == "table" and next(value) == nil) then
                err.raise("unsupported", '%s: the column "%s" is not read: there are text and images', name, column)
            end
        end
        if list == nil then
            err.raise("data", '%s: a row needs a conversation under "conversation", "messages" or "conversations"',
                name)
        end
        where.images, where.repeated, where.trimmed = M.beside(raw, { "images", "image" }), how.repeated, how.trimmed
        return conversation.read(list, where, name)
    end })
end

--- A dataset of conversations. opts: the keys of `fields`.
function M.make_conversation_dataset(opts)
    return open(opts, {})
end

--- The same where one image beside the conversation stands at each of its places.
function M.make_unimm_chat_dataset(opts)
    return open(opts, { repeated = true, trimmed = true })
end

local homes = "nemo_automodel.components.datasets.vlm.datasets."

--- What a configuration may name with `_target_`.
M.targets = {
    {
        name = "am.datasets.vlm.make_conversation_dataset",
        doc = "conversations with images, from JSON, JSONL or Parquet",
        fields = M.fields,
        build = M.make_conversation_dataset,
    },
    {
        name = "am.datasets.vlm.make_llava_onevision_dataset",
        aliases = { homes .. "make_llava_onevision_dataset", homes .. "LlavaOnevisionDatasetConfig" },
        doc = "the same, LLaVA's by default",
        fields = rows.file_fields("liuhaotian/LLaVA-Instruct-150K"),
        build = M.make_conversation_dataset,
    },
    {
        name = "am.datasets.vlm.make_tulu3_dataset",
        aliases = { homes .. "make_tulu3_dataset" },
        doc = "the same, Tulu 3's text by default",
        fields = rows.file_fields("allenai/tulu-3-sft-mixture"),
        build = M.make_conversation_dataset,
    },
    {
        name = "am.datasets.vlm.make_unimm_chat_dataset",
        aliases = { homes .. "make_unimm_chat_dataset", homes .. "UnimmChatDatasetConfig" },
        doc = "conversations about one image (UniMM-Chat)",
        fields = rows.file_fields("Yirany/UniMM-Chat"),
        build = M.make_unimm_chat_dataset,
    },
}

return M
