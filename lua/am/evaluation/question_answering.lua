-- Questions that the model answers in its own words: exact match and F1 over words, as SQuAD's official
-- script (evaluate-v1.1.py) counts them; of several right answers the best counts.

local autograd = require("am.core.autograd")
local err = require("am.core.error")
local json = require("am.utils.json")
local unicode = require("am.utils.unicode")
local source = require("am.evaluation.source")

local M = {}

--- Lower case, without ASCII punctuation, articles and superfluous white space.
function M.normalise(text)
    text = unicode.lower(text):gsub("%p", "")
    local words = {}
    for word in text:gmatch("%S+") do
        if word ~= "a" and word ~= "an" and word ~= "the" then
            words[#words + 1] = word
        end
    end
    return words
end

--- F1 over the words that two answers share.
function M.f1(prediction, truth)
    local a, b = M.normalise(prediction), M.normalise(truth)
    local left, shared = {}, 0
    for _, word in ipairs(b) do
        left[word] = (left[word] or 0) + 1
    end
    for _, word in ipairs(a) do
        if (left[word] or 0) > 0 then
            left[word], shared = left[word] - 1, shared + 1
        end
    end
    return shared == 0 and 0 or 2 * shared / (#a + #b)
end

--- 1 when two answers are the same but for case, punctuation, articles and white space, else 0.
function M.exact_match(prediction, truth)
    return table.concat(M.normalise(prediction), " ") == table.concat(M.normalise(truth), " ") and 1 or 0
end

-- The right answers of a row: a text, an array of texts, or SQuAD's { text = […] }.
local function truths_of(value, name, column)
    if type(value) == "string" then
        return { value }
    end
    if type(value) == "table" and value ~= json.null and value.text then
        value = value.text
    end
    if type(value) ~= "table" or value == json.null or #value == 0 then
        err.raise("data", '%s: column "%s" has no answer', name, column)
    end
    local out = {}
    for i, text in ipairs(value) do
        out[i] = source.text(text, name, column)
    end
    return out
end

local function prompt_ids(tokenizer, question, context, chat)
    if not chat then
        return tokenizer:encode((context and context .. " " or "") .. question .. " ")
    end
    local messages = { { role = "user", content = question } }
    if context then
        table.insert(messages, 1, { role = "system", content = context })
    end
    return tokenizer:apply_chat_template(messages, { tokenize = true, add_generation_prompt = true })
end

local function answer(model, tokenizer, ids, room)
    local out, own = autograd.no_grad(model.generate, model, ids, { max_new_tokens = room }), {}
    for i = #ids + 1, #out do
        own[#own + 1] = out[i]
    end
    return tokenizer:decode(own, { skip_special_tokens = true })
end

local function run(rows, opts, model, tokenizer, limit)
    local mapping, chat = opts.column_mapping, opts.use_hf_chat_template
    if chat and not tokenizer.chat_template then
        err.raise("usage", "evaluation: use_hf_chat_template: this tokenizer has no chat template")
    end
    local matches, scores = {}, {}
    model:eval()
    for i = 1, rows.count do
        local row, name = rows:get(i), rows:name(i)
        local question = source.text(row[mapping.question], name, mapping.question)
        local context = mapping.context and source.text(row[mapping.context], name, mapping.context)
        local ids = prompt_ids(tokenizer, question, context, chat)
        if #ids >= limit then
            err.raise("data", "%s: the prompt has %d tokens, and the model %d positions", name, #ids, limit)
        end
        local given = answer(model, tokenizer, ids, math.min(opts.max_new_tokens, limit - #ids))
        local match, score = 0, 0
        for _, truth in ipairs(truths_of(row[mapping.answer], name, mapping.answer)) do
            match, score = math.max(match, M.exact_match(given, truth)), math.max(score, M.f1(given, truth))
        end
        matches[i], scores[i] = match, score
    end
    return { exact_match = source.mean(matches), exact_match_stderr = source.stderr(matches),
             f1 = source.mean(scores), f1_stderr = source.stderr(scores), rows = rows.count }
end

--- What a configuration may name with `_target_`.
M.targets = { {
    name = "am.evaluation.QuestionAnswering",
    doc = "questions answered in the model's words: exact_match and f1 as SQuAD counts them",
    fields = source.fields {
        column_mapping = { required = true, doc = "the file's columns", fields = {
            question = { type = "string", required = true, doc = "column with the question" },
            context = { type = "string", doc = "column with what it is about" },
            answer = { type = "string", required = true, doc = "column with the answer, an array of them, or SQuAD's "
                           .. "answers" },
        } },
        use_hf_chat_template = { type = "boolean", default = false, doc = "ask with the chat template" },
        max_new_tokens = { type = "integer", min = 1, default = 32, doc = "at most so many in an answer" },
    },
    build = function(args)
        local mapping = args.column_mapping
        return source.task("question_answering", args, function(rows, model, tokenizer, limit)
            return run(rows, args, model, tokenizer, limit)
        end, { mapping.question, mapping.answer, mapping.context })
    end,
} }

return M
