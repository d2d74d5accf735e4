-- Tasks with answers to choose from: the likeliest counts as the model's. acc goes by the likelihood of an
-- answer, acc_norm by that divided by the answer's characters, as in lm-eval.

local err = require("am.core.error")
local json = require("am.utils.json")
local unicode = require("am.utils.unicode")
local likelihood = require("am.evaluation.likelihood")
local source = require("am.evaluation.source")

local M = {}

local function characters(text)
    return select(2, text:gsub("[^\128-\191]", ""))
end

-- Index of the greatest value, the first of equals.
local function argmax(values)
    local best = 1
    for i = 2, #values do
        if values[i] > values[best] then
            best = i
        end
    end
    return best
end

-- Run on questions { query, choices, gold (from 1) }.
local function run(questions, model, tokenizer, limit)
    local requests = {}
    for _, q in ipairs(questions) do
        for _, choice in ipairs(q.choices) do
            requests[#requests + 1] = { context = q.query, continuation = " " .. choice }
        end
    end
    local scores, at = likelihood.score(model, tokenizer, requests, limit), 0
    local right, right_norm = {}, {}
    for i, q in ipairs(questions) do
        local sums, norms = {}, {}
        for k, choice in ipairs(q.choices) do
            sums[k] = scores[at + k].sum
            norms[k] = sums[k] / characters(choice)
        end
        at = at + #q.choices
        right[i] = argmax(sums) == q.gold and 1 or 0
        right_norm[i] = argmax(norms) == q.gold and 1 or 0
    end
    return { acc = source.mean(right), acc_stderr = source.stderr(right), acc_norm = source.mean(right_norm),
             acc_norm_stderr = source.stderr(right_norm), rows = #questions }
end

-- ---- HellaSwag --------------------------------------------------------------------------------

-- Marks of WikiHow's articles go, as in lm-eval.
local function clean(text)
    text = text:gsub("^%s+", ""):gsub("%s+$", "")
    return (text:gsub(" %[title%]", ". "):gsub("%[.-%]", ""):gsub("  ", " "))
end

--- The question { query, choices, gold (from 1) } of a row of HellaSwag.
function M.hellaswag_question(row, name)
    local gold = tonumber(row.label)
    local endings = row.endings
    if type(endings) ~= "table" or not json.is_array(endings) or #endings < 2 then
        err.raise("data", '%s: "endings" must be an array of texts', name)
    elseif not gold or not endings[gold + 1] then
        err.raise("data", '%s: "label" is %s, not the number of an ending (a test split has none)', name,
                  tostring(row.label))
    end
    local choices = {}
    for i, ending in ipairs(endings) do
        choices[i] = clean(source.text(ending, name, "endings"))
        if choices[i] == "" then
            err.raise("data", "%s: ending %d is empty", name, i - 1)
        end
    end
    local context = source.text(row.ctx_a, name, "ctx_a") .. " "
        .. unicode.capitalize(source.text(row.ctx_b, name, "ctx_b"))
    return { query = clean(source.text(row.activity_label, name, "activity_label") .. ": " .. context),
             choices = choices, gold = gold + 1 }
end

-- ---- any other --------------------------------------------------------------------------------

-- The choice that an answer names: its number (from 0), its letter, or its text.
local function gold_of(answer, choices, name)
    for i, choice in ipairs(choices) do
        if answer == choice then
            return i
        end
    end
    local number = tonumber(answer)
    local letter = type(answer) == "string" and answer:match("^%(?([A-Za-z])%)?$")
    local gold = number and number + 1 or letter and letter:upper():byte() - 64
    return gold and choices[gold] and gold
        or err.raise("data", "%s: the answer %s is none of the %d choices: give its number (from 0), its letter or "
                     .. "its text", name, json.encode(answer), #choices)
end

local function mapped_question(mapping)
    return function(row, name)
        local choices, texts = row[mapping.choices], {}
        if type(choices) == "table" and choices.text then -- { text = […], label = […] }, as ARC has them
            choices = choices.text
        end
        if type(choices) ~= "table" or not json.is_array(choices) or #choices < 2 then
            err.raise("data", '%s: column "%s" must be an array of at least two texts', name, mapping.choices)
        end
        for i, choice in ipairs(choices) do
            texts[i] = source.text(choice, name, mapping.choices)
            if texts[i] == "" then
                err.raise("data", "%s: choice %d is empty", name, i - 1)
            end
        end
        return { query = source.text(row[mapping.question], name, mapping.question), choices = texts,
                 gold = gold_of(row[mapping.answer], texts, name) }
    end
end

-- ---- targets ----------------------------------------------------------------------------------

local function task(kind, opts, question_of)
    return source.task(kind, opts, function(rows, model, tokenizer, limit)
        local questions = {}
        for i = 1, rows.count do
            questions[i] = question_of(rows:get(i), rows:name(i))
        end
        return run(questions, model, tokenizer, limit)
    end)
end

--- What a configuration may name with `_target_`.
M.targets = {
    {
        name = "am.evaluation.HellaSwag",
        doc = "which of four endings follows: acc and acc_norm as lm-eval counts them",
        fields = source.fields {},
        build = function(args) return task("hellaswag", args, M.hellaswag_question) end,
    },
    {
        name = "am.evaluation.MultipleChoice",
        doc = "questions with answers to choose from: acc and acc_norm",
        fields = source.fields {
            column_mapping = { required = true, doc = "the file's columns", fields = {
                question = { type = "string", required = true, doc = "column with the whole prompt" },
                choices = { type = "string", required = true, doc = "column with an array of answers" },
                answer = { type = "string", required = true, doc = "column with the right one's number (from 0), "
                               .. "letter or text" },
            } },
        },
        build = function(args) return task("multiple_choice", args, mapped_question(args.column_mapping)) end,
    },
}

return M
