-- A tiny random checkpoint of every vision-language model against transformers: features of pictures, logits, loss,
-- gradients, three steps of AdamW, greedy tokens, files; rows with two pictures, one and none. And what amlua promises
-- by itself: a row has the same bits alone, in a padded batch and in a pack; its gradients are parts of the batch's.
-- Goldens: golden.py; tolerances: tests/parity/models/checks.lua.

local am = require("am")
local checks = require("tests.parity.models.checks")
local compare = require("tests.support.compare")
local helper = require("tests.recipe.helper")
local run = require("tests.parity.models.run")
local rows_of = require("tests.parity.models.rows").of

local LOGITS = checks.LOGITS
-- Of gradients that are added up row by row, where the batch's are summed at once.
local ACCUMULATED = 1e-5

local cases = checks.of("tests/parity/vlm/golden", am.AutoModelForImageTextToText)

local function gradients(model)
    local out = {}
    for name, t in model:named_parameters() do
        out[name] = t.grad and t.grad:clone()
        t.grad = nil
    end
    return out
end

local function check_accumulation(case)
    local golden, model = cases.golden(case), cases.open(case)
    local rows, pack = rows_of(golden, model)
    local function count(labels)
        local n = 0
        for k = 2, #labels[1] do
            n = n + (labels[1][k] ~= -100 and 1 or 0)
        end
        return n
    end
    model:forward(run.inputs(golden)).loss:backward()
    local want, total, loss = gradients(model), count(pack.labels), 0
    for _, row in ipairs(rows) do
        local part = model:forward(row).loss * (count(row.labels) / total)
        loss = loss + part:item()
        part:backward()
    end
    local accumulated = gradients(model)
    compare.near("loss", loss, golden.losses:totable()[1], LOGITS * loss)
    model:forward(pack).loss:backward()
    local packed, top = gradients(model), 0
    for _, t in pairs(want) do
        top = math.max(top, compare.difference(t, t).largest)
    end
    for name, t in pairs(want) do
        compare.within("accumulated gradient of " .. name, accumulated[name], t, ACCUMULATED, top)
        compare.within("packed gradient of " .. name, packed[name], t, ACCUMULATED, top)
    end
    model:close()
end

local function check_files(case)
    local model = cases.open(case)
    local out, config, was = cases.saved(case, model)
    config.transformers_version, config._pad_token_id = was.transformers_version, was._pad_token_id
    assert.same(was, config)
    cases.check_own_names(case, model, out)
    model:close()
end

for _, case in ipairs(cases.names) do
    describe("a tiny " .. case .. " with pictures", function()
        teardown(helper.cleanup)

        local test = cases.tests(it, case)
        test("makes features as transformers", cases.features)
        cases.test_training(test, cases.training)
        test("goes on as transformers does, with a cache and without", cases.greedy)
        test("gives a row the same bits alone, padded and packed", cases.company)
        test("gives rows one by one, and in a pack, the gradients of the batch", check_accumulation)
        test("is written as it was read", check_files)
    end)
end
