-- Tiny random models of images and text against transformers: pictures' features, logits, loss, gradients, three steps
-- of AdamW, greedy tokens, files; rows with two pictures, one and none in one batch. And what amlua promises by itself:
-- a row has the same bits alone, in a padded batch and in a pack. Goldens: vlm_golden.py; tolerances:
-- tests/parity/models/checks.lua.

local am = require("am")
local checks = require("tests.parity.models.checks")
local helper = require("tests.recipe.helper")
local run = require("tests.parity.models.run")

local CASES = { "llava", "llava_dinov2", "llava_layers", "llava_siglip", "paligemma", "paligemma2" }

local cases = checks.of("tests/parity/vision/golden", am.AutoModelForImageTextToText)

local function check_greedy(case)
    local golden, model = cases.golden(case), cases.open(case)
    local want = golden.greedy:totable()
    local prompt, types = #want - 8, {}
    for i = 1, #want do
        types[i] = i <= prompt and 0 or 1
    end
    local function inputs(ids)
        return { input_ids = am.tensor({ ids }, { dtype = "int64" }),
                 pixel_values = golden.pixel_values:narrow(0, 0, 1),
                 token_type_ids = golden.token_type_ids and { { unpack(types, 1, #ids) } } }
    end
    local ids = { unpack(want, 1, prompt) }
    while #ids < #want do -- each token anew, from the whole row
        local args = inputs(ids)
        args.logits_to_keep = 1
        ids[#ids + 1] = am.no_grad(model.forward, model, args).logits:argmax(-1):item()
    end
    assert.same(want, ids)
    for _, use_cache in ipairs { true, false } do
        assert.same(want, run.greedy(model, inputs { unpack(want, 1, prompt) }, #want, use_cache))
    end
    model:close()
end

local function check_files(case)
    local model = cases.open(case)
    local out, saved, original = cases.saved(case, model)
    original.hidden_size, original.vocab_size = nil, nil -- of PaliGemma, which nobody reads
    for key, value in pairs(original) do
        assert.same({ [key] = value }, { [key] = saved[key] })
    end
    cases.check_own_names(case, model, out)
    model:close()
end

local function check_mistakes(case)
    local golden, model = cases.golden(case), cases.open(case)
    local function fails(changes, pattern)
        local inputs = run.inputs(golden)
        for key, value in pairs(changes) do
            inputs[key] = value or nil
        end
        local ok, e = pcall(model.forward, model, inputs)
        assert.is_false(ok)
        assert.matches(pattern, tostring(e))
    end
    fails({ pixel_values = golden.pixel_values:narrow(0, 0, 2) }, "input_ids have %d+ image tokens .* but the pictures "
          .. "have %d+ features")
    fails({ pixel_values = false }, "but the pictures have 0 features")
    if golden.token_type_ids then
        local types = golden.token_type_ids:totable()
        types[1][#types[1]] = 0
        fails({ token_type_ids = types }, "token_type_ids of row 0 begin with the prefix %(0%), but it goes on at")
        fails({ token_type_ids = { { 0, 1 } } }, "token_type_ids must be %[3, %d+%]")
    end
    model:close()
end

for _, case in ipairs(CASES) do
    describe("a tiny " .. case, function()
        teardown(helper.cleanup)

        local test = cases.tests(it, case)
        test("has transformers' features of pictures", cases.features)
        cases.test_training(test, cases.training)
        test("goes on as transformers does, with a cache and without", check_greedy)
        test("gives a row the same bits alone, padded and packed", cases.company)
        test("is written as it was read", check_files)
        test("says what does not fit", check_mistakes)
    end)
end
