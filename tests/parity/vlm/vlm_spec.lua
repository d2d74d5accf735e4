-- A tiny random checkpoint of every vision-language model against transformers: features of pictures, logits, loss,
-- gradients, three steps of AdamW, greedy tokens, files; rows with two pictures, one and none. And what amlua promises
-- by itself: a row has the same bits alone, in a padded batch and in a pack; its gradients are parts of the batch's.
-- Goldens: golden.py; tolerances: tests/parity/models/checks.lua.

local am = require("am")
local checks = require("tests.parity.models.checks")
local compare = require("tests.support.compare")
local edge = require("am.core.ffi")
local helper = require("tests.recipe.helper")
local json = require("am.utils.json")
local path = require("am.utils.path")
local run = require("tests.parity.vlm.vlm_run")
local tiny = require("tests.support.tiny")

local ROOT = "tests/parity/vlm/golden"
local LOGITS = checks.LOGITS
-- Of gradients that are added up row by row, where the batch's are summed at once.
local ACCUMULATED = 1e-5

local function load_golden(case)
    return am.load_safetensors(path.join(ROOT, case, "golden.safetensors"))
end

local function open(case, opts)
    return am.AutoModelForImageTextToText.from_pretrained(path.join(ROOT, case), opts)
end

local function check_features(case, opts)
    local golden, model = load_golden(case), open(case, opts)
    local have = am.no_grad(model.get_image_features, model, run.inputs(golden))
    compare.within("features", have, golden.features, LOGITS)
    model:close()
end

local function check_training(case, opts)
    local golden, model = run.renamed(load_golden(case)), open(case, opts)
    checks.check_training(model, golden, run.inputs(golden),
                          run.renamed(am.load_safetensors(path.join(ROOT, case, "model.safetensors"))))
    model:close()
end

local function check_greedy(case)
    local golden, model = load_golden(case), open(case)
    local want = golden.greedy:totable()
    for _, use_cache in ipairs { true, false } do
        assert.same(want, run.greedy(model, golden, #want, use_cache))
    end
    model:close()
end

-- ---- the same numbers in any company --------------------------------------------------------------

local function check_company(case)
    local golden, model = load_golden(case), open(case)
    local other = run.other_in_company(model, golden)
    compare.check(not other, "%s", other)
    model:close()
end

local function gradients(model)
    local out = {}
    for name, t in model:named_parameters() do
        out[name] = t.grad and t.grad:clone()
        t.grad = nil
    end
    return out
end

local function check_accumulation(case)
    local golden, model = load_golden(case), open(case)
    local rows, pack = run.rows(golden, model)
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

-- ---- files ------------------------------------------------------------------------------------------

local function read_json(file)
    return json.decode(assert(path.read_file(file, 1e6)))
end

local function check_files(case)
    local dir, model, golden = path.join(ROOT, case), open(case), load_golden(case)
    local function logits(m) return tiny.bits(am.no_grad(m.forward, m, run.inputs(golden)).logits) end
    local out = helper.folder()
    model:save_pretrained(out)
    local have = helper.tensors(out .. "/model.safetensors")
    local want = run.renamed(helper.tensors(dir .. "/model.safetensors"))
    checks.check_names("saved", have, want)
    for name, text in pairs(want) do
        compare.check(have[name] == text, "%s is saved with other numbers", name)
    end
    local config, was = read_json(out .. "/config.json"), read_json(dir .. "/config.json")
    config.dtype, config.torch_dtype = config.torch_dtype, nil
    config.transformers_version, config._pad_token_id = was.transformers_version, was._pad_token_id
    assert.same(was, config)
    checks.check_floats(out .. "/config.json", dir .. "/config.json")
    local again = am.AutoModelForImageTextToText.from_pretrained(out)
    assert.is_true(logits(again) == logits(model), "what was saved computes other logits")
    again:close()
    -- the modules' own names, which transformers 5 has, are read as well
    local named = {}
    for name, t in model:named_parameters() do
        named[#named + 1] = { name, t }
    end
    am.save_safetensors(out .. "/model.safetensors", named)
    again = am.AutoModelForImageTextToText.from_pretrained(out)
    assert.is_true(logits(again) == logits(model), "the modules' own names are read otherwise")
    again:close()
    model:close()
end

edge.check(edge.C.am_threads_set(1)) -- there is nothing to share

local cases = path.list_dir(ROOT)
table.sort(cases)
for _, case in ipairs(cases) do
    describe("a tiny " .. case .. " with pictures", function()
        teardown(helper.cleanup)

        local function test(what, check, ...)
            local args = { case, ... }
            it(what, function() am.scope(check, unpack(args)) end)
        end

        test("makes features as transformers", check_features)
        test("computes, learns and steps as transformers", check_training)
        test("does so with eager attention", check_training, { attn_implementation = "eager" })
        test("does so with activation checkpointing", check_training, { activation_checkpointing = true })
        for _, device in ipairs { "ref", "fence" } do
            test("does so on " .. device, check_training, { device = device })
        end
        test("goes on as transformers does, with a cache and without", check_greedy)
        test("gives a row the same bits alone, padded and packed", check_company)
        test("gives rows one by one, and in a pack, the gradients of the batch", check_accumulation)
        test("is written as it was read", check_files)
    end)
end
