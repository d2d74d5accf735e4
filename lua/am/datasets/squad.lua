-- make_squad_dataset: questions about a text, in SQuAD's columns (question, context, answers.text), of which
-- the first answer is learnt. With a chat template, where the tokenizer has one, user and assistant say
-- what otherwise is one text: "Context: … Question: … Answer: …". A row without an answer is skipped.

local err = require("am.core.error")
local json = require("am.utils.json")
local log = require("am.utils.log").get("am.datasets")
local strings = require("am.utils.strings")
local conversation = require("am.datasets.conversation")
local formatting = require("am.datasets.formatting")
local mapped = require("am.datasets.mapped")

local M = {}

--- What the `dataset` section may hold for this dataset.
M.fields = formatting.fields(mapped.fields, formatting.length_fields, formatting.answer_fields, {
    dataset_name = { type = "string|list", default = "squad", doc = "a hub name, a file, or a list of files" },
    split = { type = "string", default = "train", doc = "\"train\", \"validation\", \"train[:1000]\", …" },
    limit_dataset_samples = { type = "integer", min = 1, doc = "rows to use, unless split has a part" },
    chat_template = { type = "string", doc = "a template or its file, instead of the tokenizer's" },
    mask_generation_prompt = conversation.mask_generation_prompt,
    start_of_turn_token = { type = "string", no_effect = "the template says where a turn begins" },
    fp8 = { type = "boolean", default = false, no_effect = "NeMo Automodel doesn't use it either" },
})

local function text_of(raw, key, name)
    local value = raw[key]
    if type(value) ~= "string" then
        err.raise("data", '%s: column "%s" holds %s, not text; SQuAD has question, context and answers', name, key,
            (value == nil or value == json.null) and "nothing" or "a " .. type(value))
    end
    return value
end

-- The first answer, stripped; nil where there is none.
local function answer_of(raw, name)
    local answers = raw.answers
    local texts = type(answers) == "table" and answers.text
    if type(texts) ~= "table" or texts == json.null or (texts[1] ~= nil and type(texts[1]) ~= "string") then
        err.raise("data", '%s: answers.text is no list of texts; SQuAD has question, context and answers', name)
    end
    return texts[1] and strings.trim(texts[1])
end

--- The limit on rows that limit_dataset_samples stands for where split has no part of its own.
function M.limit_of(opts)
    if opts.limit_dataset_samples and (opts.split or ""):find("[", 1, true) then
        log:warning("dataset.limit_dataset_samples is not used: dataset.split \"%s\" names a part already", opts.split)
        return nil
    end
    return opts.limit_dataset_samples
end

--- A dataset of token rows. opts: the keys of `fields`. Reads and tokenizes everything once: "data" for the
--- first row that has no such columns, or when no row has a label.
function M.make_squad_dataset(opts)
    local tokenizer = opts.tokenizer
    formatting.check_tokenizer(tokenizer)
    formatting.set_chat_template(tokenizer, opts.chat_template)
    local limit, pad_to = formatting.length_options(opts)
    local format = { limit = limit, add_eos = opts.add_eos, answer_boundary = opts.answer_boundary,
                     mask_generation_prompt = opts.mask_generation_prompt }
    return mapped.open {
        dataset = "make_squad_dataset", fields = M.fields, opts = opts, path = opts.dataset_name or "squad",
        split = opts.split, limit = M.limit_of(opts),
        map = function(raw, name)
            local answer = answer_of(raw, name)
            if not answer or answer == "" then
                return nil, "no answer"
            end
            local prompt = string.format("Context: %s Question: %s Answer: ", text_of(raw, "context", name),
                text_of(raw, "question", name))
            local row, last
            if tokenizer.chat_template then
                row, last = conversation.row(tokenizer, json.array { { role = "user", content = prompt },
                                                               { role = "assistant", content = answer } }, format, name)
            else
                row, last = formatting.prompt_answer(tokenizer, prompt, answer, format)
            end
            return mapped.padded(row, pad_to, tokenizer, last)
        end,
    }
end

--- What a configuration may name with `_target_`.
M.targets = { {
    name = "am.datasets.make_squad_dataset",
    aliases = {
        "nemo_automodel.components.datasets.llm.squad.make_squad_dataset",
        "nemo_automodel.components.datasets.llm.make_squad_dataset",
        "nemo_automodel.datasets.llm.squad.make_squad_dataset",
    },
    doc = "SQuAD: questions about a text",
    fields = M.fields,
    build = M.make_squad_dataset,
} }

return M
