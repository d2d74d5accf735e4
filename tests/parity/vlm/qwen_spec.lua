-- Tiny checkpoints of Qwen2-VL and Qwen2.5-VL against transformers: features of pictures, positions, logits, loss,
-- gradients, three steps of AdamW, greedy tokens, files. And what amlua promises by itself: a row has the same bits
-- alone, in a padded batch and in a pack. Goldens: qwen_golden.py.

local am = require("am")
local checks = require("tests.parity.models.checks")
local compare = require("tests.support.compare")
local edge = require("am.core.ffi")
local ffi = require("ffi")
local grids = require("am.models.vision.grids")
local helper = require("tests.recipe.helper")
local path = require("am.utils.path")
local run = require("tests.parity.models.run")
local tiny = require("tests.support.tiny")

local ROOT = "tests/parity/vlm/qwen"

-- f32 rounds at 6e-8; a few hundred roundings in another order than transformers' give some 1e-6 of the largest number,
-- and a mistake of any kind far more than 1e-5.
local LOGITS = 1e-5

local cases = path.list_dir(ROOT)
table.sort(cases)

local function load_golden(case)
    return am.load_safetensors(path.join(ROOT, case, "golden.safetensors"))
end

local function open(case, opts)
    return am.AutoModelForImageTextToText.from_pretrained(path.join(ROOT, case), opts)
end

local function inputs_of(golden)
    return { input_ids = golden.input_ids, attention_mask = golden.attention_mask, labels = golden.labels,
             pixel_values = golden.pixel_values, image_grid_thw = golden.image_grid_thw }
end

local function attended(golden)
    local mask, vocab = golden.attention_mask:to_buffer(), golden.logits:size(2)
    return function(i) return mask[math.floor(i / vocab)] ~= 0 end
end

local function check_features(case, opts)
    local golden, model = load_golden(case), open(case, opts)
    local out = am.no_grad(model.model.visual.forward, model.model.visual, golden.pixel_values, golden.image_grid_thw)
    compare.within("features", out.pooler_output, golden.features, LOGITS)
    compare.within("last_hidden_state", out.last_hidden_state, golden.last_hidden_state, LOGITS)
    local same = am.no_grad(model.get_image_features, model, inputs_of(golden))
    compare.same("get_image_features", same, out.pooler_output)
    model:close()
end

local function check_training(case, opts)
    local golden, model = load_golden(case), open(case, opts)
    local losses = golden.losses:totable()
    local found = run.train(model, inputs_of(golden), function(out)
        compare.within("logits", out.logits, golden.logits, LOGITS, nil, attended(golden))
        checks.check_gradients(model, golden)
    end)
    for step, loss in ipairs(losses) do
        compare.near("loss of step " .. step, found[step], loss, LOGITS * loss)
    end
    checks.check_steps(model, golden, path.join(ROOT, case))
    model:close()
end

-- Logits of a row alone and its continuation, greedily.
local function check_greedy(case)
    local golden, model = load_golden(case), open(case)
    local want, prompt = golden.greedy:totable(), golden["prompt.input_ids"]:totable()[1]
    for _, use_cache in ipairs { true, false } do
        local ids = model:generate(prompt, {
            max_new_tokens = #want - #prompt, eos_token_id = false, use_cache = use_cache,
            inputs = { pixel_values = golden["prompt.pixel_values"],
                       image_grid_thw = golden["prompt.image_grid_thw"] },
        })
        assert.same(want, ids)
    end
    model:close()
end

-- ---- the same bits in any company -----------------------------------------------------------------

-- The rows of a golden without padding: {ids, pixel_values, image_grid_thw}; the latter two nil of text alone.
local function rows_of(golden, model)
    local ids, mask = golden.input_ids:totable(), golden.attention_mask:totable()
    local list, token = golden.image_grid_thw:totable(), model.config.image_token_id
    local rows, picture, patch = {}, 0, 0
    for i, row in ipairs(ids) do
        local kept, tokens = {}, 0
        for k, id in ipairs(row) do
            if mask[i][k] == 1 then
                kept[#kept + 1] = id
                tokens = tokens + (id == token and 1 or 0)
            end
        end
        local first, patches = picture, 0
        while tokens > 0 do
            picture = picture + 1
            tokens = tokens - grids.tokens(list[picture], model.model.visual.merge)
            patches = patches + list[picture][1] * list[picture][2] * list[picture][3]
        end
        rows[i] = { ids = kept, pixel_values = patches > 0 and golden.pixel_values:narrow(0, patch, patches) or nil,
                    image_grid_thw = patches > 0 and golden.image_grid_thw:narrow(0, first, picture - first) or nil }
        patch = patch + patches
    end
    return rows
end

-- The bits of `count` rows of logits from place `start` in row `row` of a batch.
local function bits(logits, row, start, count)
    local buffer, width = logits:to_buffer(), logits:size(2)
    return ffi.string(buffer + (row * logits:size(1) + start) * width, count * width * 4)
end

local function check_company(case)
    local golden, model = load_golden(case), open(case)
    local function logits(args)
        return am.no_grad(model.forward, model, args).logits
    end
    local inputs = inputs_of(golden)
    inputs.labels = nil
    local batch = logits(inputs)
    local mask = golden.attention_mask:totable()
    local pack = { {}, {} }
    local rows = rows_of(golden, model)
    for _, row in ipairs(rows) do
        for k, id in ipairs(row.ids) do
            table.insert(pack[1], id)
            table.insert(pack[2], k - 1)
        end
    end
    local packed = logits { input_ids = { pack[1] }, position_ids = { pack[2] }, pixel_values = golden.pixel_values,
                            image_grid_thw = golden.image_grid_thw }
    local start = 0
    for i, row in ipairs(rows) do
        local alone = logits { input_ids = { row.ids }, pixel_values = row.pixel_values,
                               image_grid_thw = row.image_grid_thw }
        local first = 0
        while mask[i][first + 1] == 0 do
            first = first + 1
        end
        local want = bits(alone, 0, 0, #row.ids)
        compare.check(bits(batch, i - 1, first, #row.ids) == want, "row %d has other bits in a padded batch", i)
        compare.check(bits(packed, 0, start, #row.ids) == want, "row %d has other bits in a pack", i)
        start = start + #row.ids
    end
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
    local inputs = inputs_of(golden)
    inputs.labels = nil
    backward(inputs)
    local want = {}
    for name, t in pairs(run.saved(model, "gradients")) do
        want[name] = t:clone()
    end
    for _, t in model:named_parameters() do
        t.grad = nil
    end
    for _, row in ipairs(rows_of(golden, model)) do
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
    local inputs = inputs_of(golden)
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
        test("goes on as transformers does, with a cache and without", check_greedy)
        test("gives a row the same bits alone, padded and packed", check_company)
        test("accumulates what a batch has", check_accumulation)
        test("is written as it was read, and read as other files spell it", check_files)
    end)
end
