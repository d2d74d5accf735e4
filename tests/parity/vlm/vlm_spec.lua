-- A tiny random checkpoint of every vision-language model against transformers: features of pictures, logits, loss,
-- gradients, three steps of AdamW, greedy tokens, files; rows with two pictures, one and none. And what amlua promises
-- by itself: a row has the same bits alone, in a padded batch and in a pack; its gradients are parts of the batch's.
-- Goldens: golden.py; tolerances: tests/parity/models/checks.lua.

local am = require("am")
local checks = require("tests.parity.models.checks")
local compare = require("tests.support.compare")
local edge = require("am.core.ffi")
local ffi = require("ffi")
local helper = require("tests.recipe.helper")
local json = require("am.utils.json")
local path = require("am.utils.path")
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

-- Arguments of forward among a golden's tensors, those whose names begin with a prefix.
local INPUTS = { "input_ids", "attention_mask", "token_type_ids", "labels", "pixel_values", "pixel_attention_mask" }

local function inputs_of(golden, prefix)
    local out = {}
    for _, name in ipairs(INPUTS) do
        out[name] = golden[(prefix or "") .. name]
    end
    return out
end

-- {name -> tensor} as files of the hub call them, which is how they are written here; transformers saves others.
local function renamed(tensors)
    local out = {}
    for name, t in pairs(tensors) do
        out[name:gsub("^vision_tower%.", "vision_tower.vision_model.")
                :gsub("^(%l+)%.vision_tower%.", "%1.vision_tower.vision_model.")] = t
    end
    return out
end

local function check_features(case, opts)
    local golden, model = load_golden(case), open(case, opts)
    local have = am.no_grad(model.get_image_features, model, inputs_of(golden))
    compare.within("features", have, golden.features, LOGITS)
    model:close()
end

local function check_training(case, opts)
    local golden, model = renamed(load_golden(case)), open(case, opts)
    checks.check_training(model, golden, inputs_of(golden),
                          renamed(am.load_safetensors(path.join(ROOT, case, "model.safetensors"))))
    model:close()
end

local function check_greedy(case)
    local golden, model = load_golden(case), open(case)
    local want, inputs = golden.greedy:totable(), inputs_of(golden, "prompt.")
    local prompt = inputs.input_ids:totable()[1]
    inputs.input_ids = nil
    for _, use_cache in ipairs { true, false } do
        inputs.attention_mask = nil
        assert.same(want, model:generate(prompt, { max_new_tokens = #want - #prompt, eos_token_id = false,
                                                   use_cache = use_cache, inputs = inputs }))
    end
    model:close()
end

-- ---- the same numbers in any company --------------------------------------------------------------

-- The rows of a golden's batch, each as arguments of forward without padding, and one pack of them all.
local function rows_of(golden, model)
    local ids, mask, labels = golden.input_ids:totable(), golden.attention_mask:totable(), golden.labels:totable()
    local nested = golden.pixel_values:dim() == 5
    local total = 0
    for _, row in ipairs(ids) do
        for _, id in ipairs(row) do
            total = total + (id == model.model.image_token and 1 or 0)
        end
    end
    local each, at = total / 3, 0 -- three pictures of as many tokens
    local rows, pack = {}, { input_ids = { {} }, position_ids = { {} }, labels = { {} } }
    local pictures, masks = {}, {}
    for i, row in ipairs(ids) do
        local one, length, tokens = { input_ids = { {} }, labels = { {} } }, 0, 0
        for k, on in ipairs(mask[i]) do
            if on == 1 then
                length = length + 1
                tokens = tokens + (row[k] == model.model.image_token and 1 or 0)
                one.input_ids[1][length], one.labels[1][length] = row[k], labels[i][k]
                table.insert(pack.input_ids[1], row[k])
                table.insert(pack.position_ids[1], length - 1)
                table.insert(pack.labels[1], length == 1 and -100 or labels[i][k])
            end
        end
        local n = tokens / each
        if n > 0 then
            one.pixel_values = nested and golden.pixel_values:narrow(0, i - 1, 1):narrow(1, 0, n)
                or golden.pixel_values:narrow(0, at, n)
            one.pixel_attention_mask = nested and golden.pixel_attention_mask:narrow(0, i - 1, 1):narrow(1, 0, n) or nil
            table.insert(pictures, one.pixel_values)
            table.insert(masks, one.pixel_attention_mask)
        end
        rows[i], one.length, at = one, length, at + n
    end
    pack.pixel_values = am.cat(pictures, nested and 1 or 0)
    pack.pixel_attention_mask = nested and am.cat(masks, 1) or nil
    for _, args in ipairs { pack, unpack(rows) } do
        if golden.token_type_ids then
            args.token_type_ids = { {} }
            for k, id in ipairs(args.input_ids[1]) do
                args.token_type_ids[1][k] = id == model.model.image_token and 1 or 0
            end
        end
    end
    return rows, pack
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
    local rows, pack = rows_of(golden, model)
    local batch, packed, start = logits(inputs_of(golden)), logits(pack), 0
    for i, row in ipairs(rows) do
        local want = bits(logits(row), 0, 0, row.length)
        compare.check(bits(batch, i - 1, 0, row.length) == want, "row %d has other bits in a padded batch", i)
        compare.check(bits(packed, 0, start, row.length) == want, "row %d has other bits in a pack", i)
        start = start + row.length
    end
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
    local rows, pack = rows_of(golden, model)
    local function count(labels)
        local n = 0
        for k = 2, #labels[1] do
            n = n + (labels[1][k] ~= -100 and 1 or 0)
        end
        return n
    end
    model:forward(inputs_of(golden)).loss:backward()
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
    local function logits(m) return tiny.bits(am.no_grad(m.forward, m, inputs_of(golden)).logits) end
    local out = helper.folder()
    model:save_pretrained(out)
    local have, want = helper.tensors(out .. "/model.safetensors"), renamed(helper.tensors(dir .. "/model.safetensors"))
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
