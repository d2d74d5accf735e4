-- Likelihoods, questions and scores, against lm-eval and SQuAD's script (make_goldens.py) and plain formulas.
local am = require("am")
local evaluation = require("am.evaluation")
local helper = require("tests.recipe.helper")
local json = require("am.utils.json")
local likelihood = require("am.evaluation.likelihood")
local multiple_choice = require("am.evaluation.multiple_choice")

local goldens = json.decode(helper.read("tests/lua/evaluation/goldens.json"))

-- Rows as a file would give them.
local function source_of(rows)
    return {
        len = function() return #rows end,
        get = function(_, i) return rows[i] end,
        name = function(_, i) return "rows.jsonl row " .. i end,
    }
end

local function target(name)
    for _, entry in ipairs(evaluation.targets) do
        if entry.name == "am.evaluation." .. name then
            return entry
        end
    end
end

describe("evaluation", function()
    local dir, model, tok
    setup(function()
        dir = helper.text_model()
        model, tok = am.AutoModelForCausalLM.from_pretrained(dir), am.AutoTokenizer.from_pretrained(dir)
    end)
    teardown(helper.cleanup)

    it("tokenises context and continuation as lm-eval does", function()
        for _, pair in ipairs(goldens.pairs) do
            local ids, count = likelihood.encode(tok, pair)
            local whole = {}
            for _, set in ipairs { pair.before, pair.after } do
                for _, id in ipairs(set) do
                    whole[#whole + 1] = id
                end
            end
            assert.same(whole, ids)
            assert.equal(#pair.after, count)
        end
    end)

    it("sums what the model's logits say, whatever else is in the batch", function()
        local requests = {
            { context = "A pot of water", continuation = " boils over" }, { context = "", continuation = "A pot" },
            { context = "Who", continuation = " is there, in the very long dark corridor of the house?" },
        }
        local together = evaluation.score(model, tok, requests, 256)
        for i, request in ipairs(requests) do
            local ids, count = likelihood.encode(tok, request)
            local logits = model:forward({ input_ids = { ids } }).logits:totable()[1]
            local sum, greedy = 0, true
            for t = #ids - count + 1, #ids do
                local z, best, total = logits[t - 1], 1, 0
                for v = 1, #z do
                    total, best = total + math.exp(z[v]), z[v] > z[best] and v or best
                end
                sum, greedy = sum + z[ids[t] + 1] - math.log(total), greedy and best == ids[t] + 1
            end
            assert.near(sum, together[i].sum, 1e-4)
            assert.equal(count, together[i].tokens)
            assert.equal(greedy, together[i].greedy)
            assert.equal(together[i].sum, evaluation.score(model, tok, { request }, 256)[1].sum)
        end
    end)

    it("looks at the end of a text that is too long", function()
        local long = { context = ("water "):rep(50) .. "is", continuation = " wet" }
        local ids, count = likelihood.encode(tok, long)
        local short = { unpack(ids, #ids - 16) } -- 16 inputs and what follows the last
        local logits = model:forward({ input_ids = { { unpack(short, 1, 16) } } }).logits:totable()[1]
        local sum = 0
        for t = #short - count + 1, #short do
            local total = 0
            for _, z in ipairs(logits[t - 1]) do
                total = total + math.exp(z)
            end
            sum = sum + logits[t - 1][short[t] + 1] - math.log(total)
        end
        assert.near(sum, evaluation.score(model, tok, { long }, 16)[1].sum, 1e-4)
    end)

    it("makes lm-eval's questions of HellaSwag's rows", function()
        for i, row in ipairs(goldens.rows) do
            local question = multiple_choice.hellaswag_question(row, "row " .. i)
            local expected = goldens.questions[i]
            assert.equal(expected.query, question.query)
            assert.same({ unpack(expected.choices) }, question.choices)
            assert.equal(expected.gold, question.gold - 1)
        end
    end)

    it("counts the likeliest answer, and the likeliest for its length", function()
        local task = target("HellaSwag").build { path_or_dataset = "rows.jsonl" }
        local result = task:run(source_of(goldens.rows), model, tok, 256)
        local right, right_norm = 0, 0
        for _, q in ipairs(goldens.questions) do
            local best, best_norm, at, at_norm = -math.huge, -math.huge, nil, nil
            for k, choice in ipairs(q.choices) do
                local request = { context = q.query, continuation = " " .. choice }
                local sum = evaluation.score(model, tok, { request }, 256)[1].sum
                local norm = sum / #choice:gsub("[\128-\191]", "")
                if sum > best then best, at = sum, k end
                if norm > best_norm then best_norm, at_norm = norm, k end
            end
            right, right_norm = right + (at == q.gold + 1 and 1 or 0), right_norm + (at_norm == q.gold + 1 and 1 or 0)
        end
        assert.near(right / 3, result.acc, 1e-12)
        assert.near(right_norm / 3, result.acc_norm, 1e-12)
        assert.equal(3, result.rows)
    end)

    it("reads answers by number, letter and text", function()
        local rows = {}
        for i, answer in ipairs { 1, "1", "B", "(b)", "two" } do
            rows[i] = { q = "Which?", c = json.array { "one", "two" }, a = answer }
        end
        rows[6] = { q = "Which?", c = { text = json.array { "one", "two" }, label = json.array { "A", "B" } }, a = "B" }
        local function run(list)
            return target("MultipleChoice").build({
                path_or_dataset = "x", column_mapping = { question = "q", choices = "c", answer = "a" },
            }):run(source_of(list), model, tok, 256)
        end
        local acc = run(rows).acc
        assert.is_true(acc == 0 or acc == 1) -- all six are one question with one right answer
        assert.equal(1 - acc, run { { q = "Which?", c = rows[1].c, a = 0 } }.acc)
        for text, row in pairs {
            ['rows.jsonl row 1: the answer "three" is none of the 2 choices'] = { q = "?", c = rows[1].c, a = "three" },
            ['rows.jsonl row 1: column "c" must be an array of at least two texts'] = { q = "?", c = "one", a = 0 },
            ['rows.jsonl row 1: column "q" holds nothing, not text'] = { c = rows[1].c, a = 0 },
            ["rows.jsonl row 1: choice 1 is empty"] = { q = "?", c = json.array { "a", "" }, a = 0 },
        } do
            local ok, e = pcall(run, { row })
            assert.is_false(ok)
            assert.is_truthy(tostring(e):find(text, 1, true), tostring(e))
        end
    end)

    it("scores answers as SQuAD's script does", function()
        for _, case in ipairs(goldens.answers) do
            assert.near(case.f1, evaluation.f1(case.prediction, case.truth), 1e-12, case.prediction)
            assert.equal(case.exact_match, evaluation.exact_match(case.prediction, case.truth), case.prediction)
        end
    end)

    it("takes the best of several right answers", function()
        local ids = tok:encode("It is there Where is it? ")
        local out = model:generate(ids, { max_new_tokens = 4 })
        local said = tok:decode({ unpack(out, #ids + 1) }, { skip_special_tokens = true })
        local result = target("QuestionAnswering").build({
            path_or_dataset = "x", max_new_tokens = 4,
            column_mapping = { question = "q", context = "c", answer = "answers" },
        }):run(source_of { { q = "Where is it?", c = "It is there",
                            answers = { text = json.array { "nowhere", said } } } }, model, tok, 256)
        assert.equal(1, result.exact_match)
        assert.equal(#said:gsub("[%s%p]", "") > 0 and 1 or 0, result.f1)
    end)
end)
