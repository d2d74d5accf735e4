-- ColumnMappedTextInstructionDataset: questions and answers from the columns of files.
-- Holds no tokenizer; see formatting.lua for what is learnt.
--
-- column_mapping names, for `answer` and for `question` or `context` or both, the column in the file.
-- Without a chat template the text is "{context} {question} {answer}"; with one, context is the
-- system's message (left out when there is none), question the user's, answer the assistant's. With
-- a context and no question, context takes question's place.
-- Answers are stripped. A row whose answer is empty, or cut off, is skipped and counted; see stats().

local err = require("am.core.error")
local json = require("am.utils.json")
local log = require("am.utils.log").get("am.datasets")
local strings = require("am.utils.strings")
local formatting = require("am.datasets.formatting")
local file_rows = require("am.datasets.file_rows")
local token_rows = require("am.datasets.token_rows")
local utils = require("am.datasets.utils")

local M = {}

--- What the `dataset` section may hold for this dataset.
M.fields = {
    path_or_dataset_id = { type = "string|list", required = true, doc = file_rows.doc },
    column_mapping = {
        required = true, doc = "the file's columns",
        fields = {
            answer = { type = "string", required = true, doc = "column with the text to learn" },
            question = { type = "string", doc = "column with the prompt" },
            context = { type = "string", doc = "column with what comes before it" },
        },
    },
    tokenizer = { target = true, default_target = "am.AutoTokenizer.from_pretrained", required = true,
                  doc = "the model's, unless a section here says otherwise" },
    split = { type = "string", doc = "\"train[:100]\" or \"train[10%:20%]\": a part of the rows" },
    answer_only_loss_mask = { type = "boolean", default = true, doc = "learn the answers only" },
    add_eos = { type = "boolean", default = true, doc = "end with the end-of-sequence token (no template)" },
    use_hf_chat_template = { type = "boolean", default = false, doc = "format with the chat template" },
    seq_length = { type = "integer", min = 1, doc = "tokens kept (truncation) and padded to (padding)" },
    padding = { type = "string|boolean", default = "do_not_pad", doc = "do_not_pad, longest or max_length" },
    truncation = { type = "string|boolean", default = "do_not_truncate", doc = "or true, or longest_first" },
    limit_dataset_samples = { type = "integer", min = 1, doc = "rows to use, from the first" },
    cache_dir = token_rows.cache_dir,
}

local columns = { "answer", "context", "question" }

local function check_mapping(mapping)
    if type(mapping) ~= "table" then
        err.raise("usage", "dataset.column_mapping must map question, answer and context to columns")
    end
    for _, dest in ipairs(strings.sorted_keys(mapping)) do
        if dest ~= "answer" and dest ~= "context" and dest ~= "question" then
            err.raise("usage", "dataset.column_mapping.%s: the names are question, answer and context%s; the file's "
                .. "column is the value", tostring(dest), strings.did_you_mean(tostring(dest), columns))
        elseif type(mapping[dest]) ~= "string" then
            err.raise("usage", "dataset.column_mapping.%s must name a column", dest)
        end
    end
    if not mapping.answer then
        err.raise("usage", "dataset.column_mapping.answer is missing: the column with the text to learn")
    elseif not mapping.question and not mapping.context then
        err.raise("usage", "dataset.column_mapping.question is missing: the column with the prompt")
    end
end

-- Tokens to keep, or nil; and whether to pad to seq_length.
local function length_options(opts)
    local truncation, padding = opts.truncation, opts.padding
    local cut = truncation == true or truncation == "longest_first"
    if not cut and truncation and truncation ~= "do_not_truncate" then
        err.raise("usage", "dataset.truncation %s: write do_not_truncate, true or longest_first", tostring(truncation))
    end
    local pad = padding == "max_length"
    if not pad and padding and padding ~= true and padding ~= "do_not_pad" and padding ~= "longest" then
        err.raise("usage", "dataset.padding %s: write do_not_pad, longest or max_length", tostring(padding))
    end
    local length = opts.seq_length
    if (cut or pad) and not length then
        err.raise("usage", "dataset.seq_length is needed for dataset.%s", cut and "truncation" or "padding")
    elseif length and (type(length) ~= "number" or length % 1 ~= 0 or length < 1) then
        err.raise("usage", "dataset.seq_length must be a whole number of at least 1")
    end
    return cut and length or nil, pad and length or nil
end

local function column(self, row, dest, i)
    local name = self.mapping[dest]
    if not name then
        return nil
    end
    local value = row[name]
    if value == json.null and dest ~= "answer" then
        return nil
    elseif value == nil then
        err.raise("data", '%s: no column "%s"%s (dataset.column_mapping.%s); it has %s', self.source:name(i), name,
            strings.did_you_mean(name, strings.sorted_keys(row)), dest,
            table.concat(strings.sorted_keys(row), ", "))
    elseif type(value) ~= "string" then
        err.raise("data", '%s: column "%s" holds %s, not text', self.source:name(i), name,
            value == json.null and "null" or "a " .. type(value))
    end
    return value
end

-- The columns that are read.
local function chosen(mapping)
    local list = {}
    for _, dest in ipairs(columns) do
        list[#list + 1] = mapping[dest]
    end
    return list
end

-- Rows of the files as token rows: the source that token_rows.open reads.
local TextRows = {}
TextRows.__index = TextRows

function TextRows:len()
    return self.count
end

function TextRows:name(i)
    return self.source:name(i)
end

function TextRows:place(i)
    return self.source:place(i)
end

function TextRows:row(i)
    local raw = self.source:get(i)
    local answer = strings.trim(column(self, raw, "answer", i))
    local question, context = column(self, raw, "question", i), column(self, raw, "context", i)
    if not question then
        question, context = context, nil
    end
    if not question then
        err.raise("data", "%s: question and context are both null", self:name(i))
    elseif answer == "" then -- before EOS or the template would make labels of their own
        return nil, "empty answer"
    end
    local row
    if self.use_chat then
        local messages = { { role = "user", content = question }, { role = "assistant", content = answer } }
        if context then
            table.insert(messages, 1, { role = "system", content = context })
        end
        row = formatting.chat(self.tokenizer, messages, self.format, self:name(i))
    else
        local prompt = (context and context .. " " or "") .. question .. " "
        row = formatting.prompt_answer(self.tokenizer, prompt, answer, self.format)
    end
    if self.pad_to then
        local pad = self.tokenizer.pad_token_id or self.tokenizer.eos_token_id or 0
        utils.pad(row, self.pad_to, pad)
    end
    return row
end

-- What token rows depend on beside the content of the files; nil when the tokenizer can't say it.
local function dependencies(opts)
    local tokenizer = opts.tokenizer
    if not tokenizer.content then
        log:warning("dataset.cache_dir: this tokenizer has no content(), so its rows can't be kept")
        return nil
    end
    local on = { dataset = "ColumnMappedTextInstructionDataset", tokenizer = token_rows.digest(tokenizer:content()),
                 eos_token_id = tokenizer.eos_token_id, pad_token_id = tokenizer.pad_token_id }
    for key in pairs(M.fields) do
        if key ~= "path_or_dataset_id" and key ~= "tokenizer" and key ~= "cache_dir" then
            on[key] = opts[key]
        end
    end
    if opts.use_hf_chat_template and tokenizer:content():find("strftime_now", 1, true) then
        on.date = os.date("%Y-%m-%d")
    end
    return on
end

--- A dataset of token rows. opts: the keys of `fields` and `tokenizer`. Reads and tokenizes everything
--- once: "data" for the first row that is not JSON or lacks a column, or when no row has a label.
function M.ColumnMappedTextInstructionDataset(opts)
    check_mapping(opts.column_mapping)
    if type(opts.tokenizer) ~= "table" or not opts.tokenizer.encode then
        err.raise("usage", "dataset.tokenizer: expected a tokenizer, got a %s without :encode", type(opts.tokenizer))
    end
    local keep, pad_to = length_options(opts)
    local use_chat = opts.use_hf_chat_template or false
    if use_chat and not opts.tokenizer.chat_template then
        err.raise("usage", "dataset.use_hf_chat_template: this tokenizer has no chat template; set it to false, or "
            .. "take a model that has one (an -Instruct or -Chat variant)")
    end
    local files = file_rows.files(opts.path_or_dataset_id, { split = opts.split })
    local depends_on = opts.cache_dir and dependencies(opts)
    return token_rows.open {
        files = files, cache_dir = depends_on and opts.cache_dir, depends_on = depends_on,
        open = function()
            local source = utils.split(file_rows.open(files, { columns = chosen(opts.column_mapping) }), opts.split)
            return setmetatable({
                source = source, mapping = opts.column_mapping, tokenizer = opts.tokenizer,
                use_chat = use_chat, pad_to = pad_to,
                format = { answer_only_loss_mask = opts.answer_only_loss_mask, add_eos = opts.add_eos, limit = keep },
                count = math.min(source:len(), opts.limit_dataset_samples or math.huge),
            }, TextRows)
        end,
    }
end

--- What a configuration may name with `_target_`.
M.targets = { {
    name = "am.datasets.ColumnMappedTextInstructionDataset",
    aliases = {
        "nemo_automodel.components.datasets.llm.column_mapped_text_instruction_dataset."
            .. "ColumnMappedTextInstructionDataset",
    },
    doc = "questions and answers from columns of files",
    fields = M.fields,
    build = M.ColumnMappedTextInstructionDataset,
} }

return M
