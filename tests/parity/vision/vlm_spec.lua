-- Tiny random models of images and text against transformers: pictures' features, logits, loss, gradients, three steps
-- of AdamW, greedy tokens, files; rows with two pictures, one and none in one batch. And what amlua promises by itself:
-- a row has the same bits alone, in a padded batch and in a pack. Goldens: vlm_golden.py.

local am = require("am")
local checks = require("tests.parity.models.checks")
local compare = require("tests.support.compare")
local edge = require("am.core.ffi")
local ffi = require("ffi")
local helper = require("tests.recipe.helper")
local json = require("am.utils.json")
local path = require("am.utils.path")
local run = require("tests.parity.models.run")
local tiny = require("tests.support.tiny")

local ROOT = "tests/parity/vision/golden"

-- As those of text models (tests/parity/models/models_spec.lua); pictures' features are logits' inputs, so no worse.
local LOGITS = checks.LOGITS

local CASES = { "llava", "llava_dinov2", "llava_layers", "llava_siglip", "paligemma", "paligemma2" }

local function load_golden(case)
    return am.load_safetensors(path.join(ROOT, case, "golden.safetensors"))
end

local function open(case, opts)
    return am.AutoModelForImageTextToText.from_pretrained(path.join(ROOT, case), opts)
end

local function inputs_of(golden)
    local inputs = run.inputs(golden)
    inputs.pixel_values, inputs.token_type_ids = golden.pixel_values, golden.token_type_ids
    return inputs
end

-- transformers writes a tower's names of its own, the hub's files have those that amlua writes.
local function renamed(golden)
    local out = {}
    for name, t in pairs(golden) do
        local kind, rest = name:match("^(%l+%.)vision_tower%.(.*)$")
        if kind and not rest:find("^encoder%.layer%.") and golden[kind .. "vision_tower.post_layernorm.weight"] then
            out[kind .. "vision_tower.vision_model." .. rest] = t
        else
            out[name] = t
        end
    end
    return out
end

local function check_features(case)
    local golden, model = load_golden(case), open(case)
    local features = am.no_grad(model.get_image_features, model, { pixel_values = golden.pixel_values })
    compare.within("features", features, golden.features, LOGITS)
    model:close()
end

local function check_training(case, opts)
    local golden, model = renamed(load_golden(case)), open(case, opts)
    local stored = {}
    for name, t in pairs(am.load_safetensors(path.join(ROOT, case, "model.safetensors"))) do
        stored["x." .. name] = t
    end
    checks.check_training(model, golden, inputs_of(golden), checks.part(renamed(stored), "x."))
    model:close()
end

local function check_greedy(case)
    local golden, model = load_golden(case), open(case)
    local want = golden.greedy:totable()
    local prompt, types = { unpack(want, 1, #want - 8) }, {}
    for i = 1, #want do
        types[i] = i <= #prompt and 0 or 1
    end
    local pixels = golden.pixel_values:narrow(0, 0, 1)
    local function inputs(n)
        return { pixel_values = pixels, token_type_ids = golden.token_type_ids and { { unpack(types, 1, n) } } }
    end
    local ids = { unpack(prompt) }
    while #ids < #want do -- each token anew, from the whole row
        local args = inputs(#ids)
        args.input_ids, args.logits_to_keep = { ids }, 1
        local logits = am.no_grad(model.forward, model, args).logits
        ids[#ids + 1] = logits:argmax(-1):item()
    end
    assert.same(want, ids)
    for _, use_cache in ipairs { true, false } do
        assert.same(want, model:generate(prompt, { max_new_tokens = 8, eos_token_id = false, use_cache = use_cache,
                                                   inputs = inputs(#prompt) }))
    end
    model:close()
end

-- ---- the same bits in any company -----------------------------------------------------------------

-- The bits of `count` rows of logits from place `start` in row `row` of a batch.
local function bits(logits, row, start, count)
    local buffer, width = logits:to_buffer(), logits:size(2)
    return ffi.string(buffer + (row * logits:size(1) + start) * width, count * width * 4)
end

local PICTURES = { { 0, 2 }, { 2, 1 }, { 0, 0 } } -- first and count of each row's

local function check_company(case)
    local golden, model = load_golden(case), open(case)
    local ids, mask = golden.input_ids:totable(), golden.attention_mask:totable()
    local types = golden.token_type_ids and golden.token_type_ids:totable()
    local function logits(args)
        return am.no_grad(model.forward, model, args).logits
    end
    local positions, alone, packed = {}, {}, { ids = {}, positions = {}, types = {} }
    for row = 1, #ids do
        local length = 0
        positions[row] = {}
        for i, on in ipairs(mask[row]) do
            positions[row][i] = i - 1
            length = length + on
        end
        for i = 1, length do
            table.insert(packed.ids, ids[row][i])
            table.insert(packed.positions, i - 1)
            table.insert(packed.types, types and types[row][i])
        end
        local first, count = unpack(PICTURES[row])
        alone[row] = { length = length, logits = logits {
            input_ids = { { unpack(ids[row], 1, length) } }, position_ids = { { unpack(positions[row], 1, length) } },
            token_type_ids = types and { { unpack(types[row], 1, length) } },
            pixel_values = count > 0 and golden.pixel_values:narrow(0, first, count) or nil,
        } }
    end
    local batch = logits { input_ids = golden.input_ids, attention_mask = golden.attention_mask,
                           position_ids = positions, token_type_ids = golden.token_type_ids,
                           pixel_values = golden.pixel_values }
    local pack, start = logits { input_ids = { packed.ids }, position_ids = { packed.positions },
                                 token_type_ids = types and { packed.types }, pixel_values = golden.pixel_values }, 0
    for row, one in ipairs(alone) do
        local want = bits(one.logits, 0, 0, one.length)
        compare.check(bits(batch, row - 1, 0, one.length) == want, "row %d has other bits in a padded batch", row)
        compare.check(bits(pack, 0, start, one.length) == want, "row %d has other bits in a pack", row)
        start = start + one.length
    end
    model:close()
end

-- ---- files ------------------------------------------------------------------------------------------

local function read_json(file)
    return json.decode(assert(path.read_file(file, 1e6)))
end

local function check_files(case)
    local dir, model = path.join(ROOT, case), open(case)
    local out = helper.folder()
    model:save_pretrained(out)
    local want = {}
    for name, text in pairs(helper.tensors(dir .. "/model.safetensors")) do
        want["x." .. name] = text
    end
    local have = helper.tensors(out .. "/model.safetensors")
    want = checks.part(renamed(want), "x.")
    checks.check_names("saved", have, want)
    for name, text in pairs(want) do
        compare.check(have[name] == text, "%s is saved with other numbers", name)
    end
    local saved, original = read_json(out .. "/config.json"), read_json(dir .. "/config.json")
    saved.dtype, saved.torch_dtype = saved.torch_dtype, nil
    original.hidden_size, original.vocab_size = nil, nil -- of PaliGemma, which nobody reads
    for key, value in pairs(original) do
        assert.same({ [key] = value }, { [key] = saved[key] })
    end
    checks.check_floats(out .. "/config.json", dir .. "/config.json")
    local golden = load_golden(case)
    local inputs = inputs_of(golden)
    inputs.labels = nil
    local function logits(m) return tiny.bits(am.no_grad(m.forward, m, inputs).logits) end
    local before = logits(model)
    local again = am.AutoModelForImageTextToText.from_pretrained(out)
    assert.is_true(logits(again) == before, "what was saved computes other logits")
    again:close()
    -- names as the model has them, as transformers 5 has its modules
    local named = {}
    for name, t in model:named_parameters() do
        named[#named + 1] = { name, t }
    end
    am.save_safetensors(out .. "/model.safetensors", named)
    again = am.AutoModelForImageTextToText.from_pretrained(out)
    assert.is_true(logits(again) == before, "the modules' own names are read otherwise")
    again:close()
    model:close()
end

-- ---- mistakes ---------------------------------------------------------------------------------------

local function check_mistakes(case)
    local golden, model = load_golden(case), open(case)
    local function fails(changes, pattern)
        local inputs = inputs_of(golden)
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

edge.check(edge.C.am_threads_set(1)) -- there is nothing to share

for _, case in ipairs(CASES) do
    describe("a tiny " .. case, function()
        teardown(helper.cleanup)

        local function test(what, check, ...)
            local args = { case, ... }
            it(what, function() am.scope(check, unpack(args)) end)
        end

        test("has transformers' features of pictures", check_features)
        test("computes, learns and steps as transformers", check_training)
        test("does so with eager attention", check_training, { attn_implementation = "eager" })
        test("does so with layers computed again in backward", check_training, { activation_checkpointing = true })
        for _, device in ipairs { "ref", "fence" } do
            test("does so on " .. device, check_training, { device = device })
        end
        test("goes on as transformers does, with a cache and without", check_greedy)
        test("gives a row the same bits alone, padded and packed", check_company)
        test("is written as it was read", check_files)
        test("says what does not fit", check_mistakes)
    end)
end
