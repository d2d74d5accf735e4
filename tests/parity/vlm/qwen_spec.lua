-- Tiny checkpoints of Qwen2-VL and Qwen2.5-VL against transformers: features of pictures, positions, logits, loss,
-- gradients, three steps of AdamW, greedy tokens, files. And what amlua promises by itself: a row has the same bits
-- alone, in a padded batch and in a pack. Goldens: qwen_golden.py;
-- tolerances: tests/parity/models/checks.lua.

local am = require("am")
local checks = require("tests.parity.models.checks")
local compare = require("tests.support.compare")
local grid_positions = require("am.models.grid_positions")
local grids = require("am.models.vision.grids")
local helper = require("tests.recipe.helper")
local path = require("am.utils.path")
local rows_of = require("tests.parity.models.rows").of
local run = require("tests.parity.models.run")

local ROOT = "tests/parity/vlm/qwen"

local cases = checks.of(ROOT, am.AutoModelForImageTextToText)

local function check_features(case)
    local golden, model = cases.golden(case), cases.open(case)
    local out = am.no_grad(model.model.visual.forward, model.model.visual, golden.pixel_values, golden.image_grid_thw)
    compare.within("features", out.pooler_output, golden.features, checks.LOGITS)
    compare.within("last_hidden_state", out.last_hidden_state, golden.last_hidden_state, checks.LOGITS)
    local same = am.no_grad(model.get_image_features, model, run.inputs(golden))
    compare.same("get_image_features", same, out.pooler_output)
    model:close()
end

-- Positions of get_rope_index, from the samples that attention_mask leaves of each row.
local function check_positions(case)
    local golden, model = cases.golden(case), cases.open(case)
    local b, t = golden.input_ids:size(0), golden.input_ids:size(1)
    local mask, bounds = golden.attention_mask:totable(), {}
    for i, row in ipairs(mask) do
        local first, count = nil, 0
        for k, on in ipairs(row) do
            first, count = on == 1 and (first or k - 1) or first, count + on
        end
        bounds[i] = {}
        for k, on in ipairs(row) do
            bounds[i][k] = on == 1 and { first, first + count } or { 0, 0 }
        end
    end
    local merge = model.model.visual.merge
    local rows, deltas = grid_positions.rows(golden.input_ids:to("int32"):to_buffer(), b, t,
        am.tensor(bounds, { dtype = "int32" }):to_buffer(), grids.list(golden.image_grid_thw, merge), merge,
        model.config.image_token_id)
    local want = golden.rope_index:to("int32"):to_buffer()
    for i = 0, 3 * b * t - 1 do
        compare.check(rows[i] == want[i], "position %d is %d, not %d", i, rows[i], want[i])
    end
    assert.same(golden.rope_deltas:reshape(-1):totable(), deltas)
    model:close()
end

-- The gradients of a batch are the sum of those of its rows.
local function check_accumulation(case)
    local golden, model = cases.golden(case), cases.open(case)
    local weights = am.randn({ golden.logits:size(2) })
    local function backward(args)
        local out = model:forward(args)
        local mask = args.attention_mask
        local sums = (out.logits * weights):sum(-1)
        return ((mask and sums * mask:to("float32") or sums):sum()):backward()
    end
    local inputs = run.inputs(golden)
    inputs.labels = nil
    backward(inputs)
    local want = {}
    for name, t in pairs(run.saved(model, "gradients")) do
        want[name] = t:clone()
    end
    for _, t in model:named_parameters() do
        t.grad = nil
    end
    for _, row in ipairs((rows_of(golden, model))) do
        backward(row)
    end
    local top = 0
    for _, t in pairs(want) do
        top = math.max(top, compare.difference(t, t).largest)
    end
    for name, t in pairs(run.saved(model, "gradients")) do
        compare.within("gradient of " .. name, t, want[name], 1e-6, top)
    end
    model:close()
end

local function check_files(case)
    local model = cases.open(case)
    local out = cases.saved(case, model)
    helper.write(out .. "/config.json", assert(path.read_file(path.join(ROOT, case, "hub.json"), 1e6)))
    cases.check_same(case, model, out, "hub.json computes")
    local older = am.AutoModelForImageTextToText.from_pretrained(out)
    older:save_pretrained(out)
    older:close()
    cases.check_same(case, model, out, "what was saved of hub.json computes")
    cases.check_own_names(case, model, out)
    model:close()
end

for _, case in ipairs(cases.names) do
    describe("a tiny " .. case, function()
        teardown(helper.cleanup)

        local test = cases.tests(it, case)
        test("sees as transformers", check_features)
        cases.test_training(test, cases.training)
        test("has the positions of transformers", check_positions)
        test("goes on as transformers does, with a cache and without", cases.greedy)
        test("gives a row the same bits alone, padded and packed", cases.company)
        test("accumulates what a batch has", check_accumulation)
        test("is written as it was read, and read as other files spell it", check_files)
    end)
end
