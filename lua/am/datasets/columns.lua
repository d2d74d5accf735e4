-- Questions and answers from the columns of a row: fields and the making of token rows, which
-- column_mapped.lua and column_mapped_stream.lua share. Holds no files and no tokenizer; see formatting.lua
-- and conversation.lua for what is learnt.
--
-- column_mapping names, for `answer` and for `question` or `context` or both, the column in the file.
-- Without a chat template the text is "{context} {question} {answer}"; with one, context is the
-- system's message, question the user's, answer the assistant's, as NeMo Automodel has it: where there is no
-- context the system's message is empty, and so is the user's without a question. With
-- empty_messages: false there is no system's message without a context, and a context without a question
-- takes the question's place. A row whose answer is empty, null, or cut off is skipped and counted.

local err = require("am.core.error")
local json = require("am.utils.json")
local log = require("am.utils.log").get("am.datasets")
local strings = require("am.utils.strings")
local conversation = require("am.datasets.conversation")
local file_rows = require("am.datasets.file_rows")
local formatting = require("am.datasets.formatting")
local mapped = require("am.datasets.mapped")

local M = {}

--- What the `dataset` section may hold for both datasets.
M.fields = formatting.fields(mapped.fields, formatting.length_fields, formatting.answer_fields, {
    path_or_dataset_id = { type = "string|list", required = true, doc = file_rows.doc },
    column_mapping = {
        required = true, doc = "the file's columns",
        fields = {
            answer = { type = "string", required = true, doc = "column with the text to learn" },
            question = { type = "string", doc = "column with the prompt" },
            context = { type = "string", doc = "column with what comes before it" },
        },
    },
    split = { type = "string", default = "train", null = true,
              doc = "of a hub name; \"train[:100]\" or \"train[10%:20%]\" is a part of the rows, of files too" },
    name = { type = "string", doc = "configuration of a hub name" },
    answer_only_loss_mask = { type = "boolean", default = true, doc = "learn the answers only" },
    mask_generation_prompt = conversation.mask_generation_prompt,
    use_hf_chat_template = { type = "boolean", default = false, doc = "format with the chat template" },
    chat_template = { type = "string", doc = "a template or its file, instead of the tokenizer's" },
    empty_messages = { type = "boolean", default = true,
                       doc = "with a template: a system's message also without a context, as NeMo Automodel has it" },
    start_of_turn_token = { type = "string", no_effect = "the template says where a turn begins" },
    limit_dataset_samples = { type = "integer", min = 1, doc = "rows to use, from the first" },
})

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

--- The columns that a mapping reads.
function M.names(mapping)
    local list = {}
    for _, dest in ipairs(columns) do
        list[#list + 1] = mapping[dest]
    end
    return list
end

local function column(mapping, row, dest, name)
    local key = mapping[dest]
    if not key then
        return nil
    end
    local value = row[key]
    if value == json.null then
        return nil
    elseif value == nil then
        err.raise("data", '%s: no column "%s"%s (dataset.column_mapping.%s); it has %s', name, key,
            strings.did_you_mean(key, strings.sorted_keys(row)), dest, table.concat(strings.sorted_keys(row), ", "))
    elseif type(value) ~= "string" then
        err.raise("data", '%s: column "%s" holds a %s, not text%s', name, key, type(value),
            type(value) == "table" and "" or "; make it text in the file, in JSON with quotes around it")
    end
    return value
end

local function messages_of(context, question, answer, empty_messages)
    local messages = json.array {}
    if not empty_messages and not question then
        context, question = nil, context
    end
    if context or empty_messages then
        messages[1] = { role = "system", content = context or "" }
    end
    messages[#messages + 1] = { role = "user", content = question or "" }
    messages[#messages + 1] = { role = "assistant", content = answer }
    return messages
end

--- The function that makes a token row of a file's row (see mapped.lua); opts: the keys of `fields`.
--- Raises "usage" for options that don't go together.
function M.mapper(opts)
    local mapping, tokenizer = opts.column_mapping, opts.tokenizer
    check_mapping(mapping)
    formatting.check_tokenizer(tokenizer)
    local limit, pad_to = formatting.length_options(opts)
    local use_chat, empty_messages = opts.use_hf_chat_template, opts.empty_messages ~= false
    if use_chat then
        formatting.set_chat_template(tokenizer, opts.chat_template)
        conversation.check_template(tokenizer, "dataset.use_hf_chat_template")
    elseif opts.chat_template then
        log:warning("dataset.chat_template is not used without dataset.use_hf_chat_template: true")
    end
    local format = { answer_only_loss_mask = opts.answer_only_loss_mask, add_eos = opts.add_eos, limit = limit,
                     answer_boundary = opts.answer_boundary, mask_generation_prompt = opts.mask_generation_prompt }
    return function(raw, name)
        local answer = column(mapping, raw, "answer", name)
        local question, context = column(mapping, raw, "question", name), column(mapping, raw, "context", name)
        if not answer or not answer:find("%S") then -- before EOS or the template would make labels of their own
            return nil, "empty answer"
        elseif not question and not context then
            err.raise("data", "%s: question and context are both null", name)
        end
        local row, last
        if use_chat then
            local messages = messages_of(context, question, answer, empty_messages)
            row, last = conversation.row(tokenizer, messages, format, name)
        else
            local prompt = (context and context .. " " or "") .. (question and question .. " " or "")
            row, last = formatting.prompt_answer(tokenizer, prompt, answer, format)
        end
        return mapped.padded(row, pad_to, tokenizer, last)
    end
end

return M
