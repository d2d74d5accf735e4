-- Tiny checkpoints of Qwen2-VL and Qwen2.5-VL against transformers: features of pictures, positions, logits, loss,
-- gradients, three steps of AdamW, greedy tokens, files. And what amlua promises by itself: a row has the same bits
-- alone, in a padded batch and in a pack. Goldens: qwen_golden.py;
-- tolerances: tests/parity/models/checks.lua.

local am = require("am")
local checks = require("tests.parity.models.checks")
local compare = require("tests.support.compare")
local edge = require("am.core.ffi")
local grid_positions = require("am.models.grid_positions")
local grids = require("am.models.vision.grids")
local helper = require("tests.recipe.helper")
local path = require("am.utils.path")
local qwen = require("tests.parity.vlm.qwen_run")
local run = require("tests.parity.models.run")
local tiny = require("tests.support.tiny")

local ROOT = "tests/parity/vlm/qwen"

local cases = path.list_dir(ROOT)
table.sort(cases)

local function load_golden(case)
    return am.load_safetensors(path.join(ROOT, case, "golden.safetensors"))
end

local function open(case, opts)
    return am.AutoModelForImageTextToText.from_pretrained(path.join(ROOT, case), opts)
end

local function check_features(case, opts)
    local golden, model = load_golden(case), open(case, opts)
    local out = am.no_grad(model.model.visual.forward, model.model.visual, golden.pixel_values, golden.image_grid_thw)
    compare.within("features", out.pooler_output, golden.features, checks.LOGITS)
    compare.within("last_hidden_state", out.last_hidden_state, golden.last_hidden_state, checks.LOGITS)
    local same = am.no_grad(model.get_image_features, model, qwen.inputs(golden))
    compare.same("get_image_features", same, out.pooler_output)
    model:close()
end

local function check_training(case, opts)
    local model = open(case, opts)
    local golden = load_golden(case)
    checks.check_training(model, golden, qwen.inputs(golden),
                          am.load_safetensors(path.join(ROOT, case, "model.safetensors")))
    model:close()
end

local function check_greedy(case)
    local golden, model = load_golden(case), open(case)
    local want = golden.greedy:totable()
    assert.same(want, qwen.greedy(model, golden, #want, true))
    assert.same(want, qwen.greedy(model, golden, #want, false))
    model:close()
end

-- Positions of get_rope_index, from the samples that attention_mask leaves of each row.
local function check_positions(case)
    local golden, model = load_golden(case), open(case)
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

local function check_company(case)
    local model = open(case)
    assert.is_nil(qwen.other_in_company(model, load_golden(case)))
    model:close()
end

-- The gradients of a batch are the sum of those of its rows.
local function check_accumulation(case)
    local golden, model = load_golden(case), open(case)
    local weights = am.randn({ golden.logits:size(2) })
    local function backward(args)
        local out = model:forward(args)
        local mask = args.attention_mask
        local sums = (out.logits * weights):sum(-1)
        return ((mask and sums * mask:to("float32") or sums):sum()):backward()
    end
    local inputs = qwen.inputs(golden)
    inputs.labels = nil
    backward(inputs)
    local want = {}
    for name, t in pairs(run.saved(model, "gradients")) do
        want[name] = t:clone()
    end
    for _, t in model:named_parameters() do
        t.grad = nil
    end
    for _, row in ipairs(qwen.rows(golden, model)) do
        backward { input_ids = { row.ids }, pixel_values = row.pixel_values, image_grid_thw = row.image_grid_thw }
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

-- ---- files ------------------------------------------------------------------------------------------

local function check_files(case)
    local dir, model = path.join(ROOT, case), open(case)
    local golden, out = load_golden(case), helper.folder()
    model:save_pretrained(out)
    local have, want = helper.tensors(out .. "/model.safetensors"), helper.tensors(dir .. "/model.safetensors")
    checks.check_names("saved", have, want)
    for name, text in pairs(want) do
        compare.check(have[name] == text, "%s is saved with other numbers", name)
    end
    local inputs = qwen.inputs(golden)
    local function logits(m) return tiny.bits(am.no_grad(m.forward, m, inputs).logits) end
    local again = am.AutoModelForImageTextToText.from_pretrained(out)
    assert.is_true(logits(again) == logits(model), "what was saved computes other logits")
    again:close()
    helper.write(out .. "/config.json", assert(path.read_file(dir .. "/hub.json", 1e6)))
    local older = am.AutoModelForImageTextToText.from_pretrained(out)
    assert.is_true(logits(older) == logits(model), "hub.json computes other logits")
    older:save_pretrained(out)
    older:close()
    older = am.AutoModelForImageTextToText.from_pretrained(out)
    assert.is_true(logits(older) == logits(model), "what was saved of hub.json computes other logits")
    older:close()
    -- the names in memory are read, too
    local tensors = {}
    for name, t in model:named_parameters() do
        tensors[name] = t
    end
    am.save_safetensors(out .. "/model.safetensors", tensors)
    older = am.AutoModelForImageTextToText.from_pretrained(out)
    assert.is_true(logits(older) == logits(model), "names in memory are read otherwise")
    older:close()
    model:close()
end

edge.check(edge.C.am_threads_set(1)) -- there is nothing to share

for _, case in ipairs(cases) do
    describe("a tiny " .. case, function()
        teardown(helper.cleanup)

        local function test(what, check, ...)
            local args = { case, ... }
            it(what, function() am.scope(check, unpack(args)) end)
        end

        test("sees as transformers", check_features)
        test("computes, learns and steps as transformers", check_training)
        test("does so with eager attention", check_training, { attn_implementation = "eager", torch_dtype = "float32" })
        test("does so computing activations again", check_training, { activation_checkpointing = true })
        for _, device in ipairs { "ref", "fence" } do
            test("does so on " .. device, check_training, { device = device })
        end
        test("has the positions of transformers", check_positions)
        test("goes on as transformers does, with a cache and without", check_greedy)
        test("gives a row the same bits alone, padded and packed", check_company)
        test("accumulates what a batch has", check_accumulation)
        test("is written as it was read, and read as other files spell it", check_files)
    end)
end
