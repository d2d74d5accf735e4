-- A tiny random checkpoint of every family against transformers: logits, loss, gradients, three steps of
-- AdamW, greedy tokens, classifiers, files. And what amlua promises by itself: a row has the same bits
-- alone, in a padded batch and in a pack. Goldens: golden.py.

local am = require("am")
local compare = require("tests.support.compare")
local edge = require("am.core.ffi")
local ffi = require("ffi")
local helper = require("tests.recipe.helper")
local json = require("am.utils.json")
local path = require("am.utils.path")
local checks = require("tests.parity.models.checks")
local run = require("tests.parity.models.run")
local tiny = require("tests.support.tiny")

local ROOT = "tests/parity/models/golden"

local LOGITS = checks.LOGITS
local cases = path.list_dir(ROOT)
table.sort(cases)

local function load_golden(case)
    return am.load_safetensors(path.join(ROOT, case, "golden.safetensors"))
end

-- A model of a case, or nil with the reason when its architecture is not there.
local function open(case, opts)
    local ok, model = pcall(am.AutoModelForCausalLM.from_pretrained, path.join(ROOT, case), opts)
    if not ok then
        if tostring(model):find("is not supported; supported are", 1, true) then
            return nil, tostring(model):match("architecture (%S+) is not supported") .. " is not there"
        end
        error(model, 0)
    end
    return model
end

local function check_logits(model, golden)
    local inputs = run.inputs(golden)
    inputs.labels = nil
    local out = am.no_grad(model.forward, model, inputs)
    compare.within("logits", out.logits, golden.logits, LOGITS, nil, checks.attended(golden))
end

local function check_training(case, opts)
    local golden, model = load_golden(case), open(case, opts)
    checks.check_training(model, golden, run.inputs(golden),
                          am.load_safetensors(path.join(ROOT, case, "model.safetensors")))
    model:close()
end

local function check_greedy(case)
    local golden, model = load_golden(case), open(case)
    local want = golden.greedy:totable()
    local prompt = { unpack(want, 1, #want - 12) }
    assert.same(want, run.greedy(model, prompt, #want, true))
    assert.same(want, run.greedy(model, prompt, #want, false))
    model:close()
end

-- ---- the same bits in any company -----------------------------------------------------------------

-- The bits of `count` rows of logits from place `start` in row `row` of a batch.
local function bits(logits, row, start, count)
    local buffer, width = logits:to_buffer(), logits:size(2)
    return ffi.string(buffer + (row * logits:size(1) + start) * width, count * width * 4)
end

local function check_company(case)
    local golden, model = load_golden(case), open(case)
    local ids, positions = golden.input_ids:totable(), golden.position_ids:totable()
    local mask = golden.attention_mask:totable()
    local function logits(args)
        return am.no_grad(model.forward, model, args).logits:to("float32")
    end
    local batch = logits { input_ids = golden.input_ids, attention_mask = golden.attention_mask,
                           position_ids = golden.position_ids }
    local packed, alone = { {}, {} }, {}
    for row = 1, #ids do
        local length = 0
        for i, on in ipairs(mask[row]) do
            length = length + on
            if on == 1 then
                table.insert(packed[1], ids[row][i])
                table.insert(packed[2], positions[row][i])
            end
        end
        alone[row] = { length = length, logits = logits { input_ids = { { unpack(ids[row], 1, length) } },
                                                          position_ids = { { unpack(positions[row], 1, length) } } } }
    end
    local pack, start = logits { input_ids = { packed[1] }, position_ids = { packed[2] } }, 0
    for row, one in ipairs(alone) do
        local want = bits(one.logits, 0, 0, one.length)
        compare.check(bits(batch, row - 1, 0, one.length) == want, "row %d has other bits in a padded batch", row)
        compare.check(bits(pack, 0, start, one.length) == want, "row %d has other bits in a pack", row)
        start = start + one.length
    end
    model:close()
end

-- ---- files ------------------------------------------------------------------------------------------

-- Fields that say the same in several ways, in one: the hub's older files and transformers 5 spell
-- rotary embeddings, dtype and the number of experts differently.
local function canonical(c)
    local out = {}
    for key, value in pairs(c) do
        if value ~= json.null and key:sub(1, 1) ~= "_" then
            out[key] = value
        end
    end
    local function take(key)
        local value = out[key]
        out[key] = nil
        return value
    end
    out.dtype = take("torch_dtype") or out.dtype
    out.num_experts = take("num_local_experts") or out.num_experts
    local rope, scaling, theta = take("rope_parameters"), take("rope_scaling"), take("rope_theta")
    theta = take("rotary_emb_base") or theta
    local share, lesser = take("rotary_pct") or take("partial_rotary_factor"), take("rope_local_base_freq")
    local function one(kind, base, partial)
        local r = {}
        for key, value in pairs(kind or {}) do
            r[key == "type" and "rope_type" or key] = value
        end
        r.rope_theta, r.rope_type = r.rope_theta or base, r.rope_type or "default"
        r.partial_rotary_factor = r.partial_rotary_factor or partial
        return r
    end
    if rope and rope.full_attention then
        out.rope = { full_attention = one(rope.full_attention), sliding_attention = one(rope.sliding_attention) }
    elseif lesser then
        out.rope = { full_attention = one(scaling, theta), sliding_attention = one(nil, lesser) }
    else
        out.rope = one(rope or scaling, theta, share)
    end
    out.rope.original_max_position_embeddings = out.rope.original_max_position_embeddings
        or c.original_max_position_embeddings
    out.transformers_version = nil
    return out
end

local function plain(value) -- without what JSON readers hang on tables
    if type(value) ~= "table" then
        return value
    end
    local out = {}
    for key, v in pairs(value) do
        out[key] = v ~= json.null and plain(v) or nil
    end
    return out
end

local function read_json(file)
    return json.decode(assert(path.read_file(file, 1e6)))
end

local function check_files(case)
    local dir, model = path.join(ROOT, case), open(case)
    local out = helper.folder()
    model:save_pretrained(out)
    local have, want = helper.tensors(out .. "/model.safetensors"), helper.tensors(dir .. "/model.safetensors")
    checks.check_names("saved", have, want)
    for name, text in pairs(want) do
        compare.check(have[name] == text, "%s is saved with other numbers", name)
    end
    local fields, original = canonical(read_json(out .. "/config.json")), canonical(read_json(dir .. "/config.json"))
    for key, value in pairs(original) do
        assert.same({ [key] = plain(value) }, { [key] = plain(fields[key]) })
    end
    checks.check_floats(out .. "/config.json", dir .. "/config.json")
    assert.same(read_json(dir .. "/generation_config.json"), read_json(out .. "/generation_config.json"))

    local golden = load_golden(case)
    local again = am.AutoModelForCausalLM.from_pretrained(out)
    local inputs = run.inputs(golden)
    local function logits(m) return tiny.bits(am.no_grad(m.forward, m, inputs).logits) end
    assert.is_true(logits(again) == logits(model), "what was saved computes other logits")
    again:close()

    -- the same configuration as older files on the hub spell it
    helper.write(out .. "/config.json", assert(path.read_file(dir .. "/hub.json", 1e6)))
    local older = am.AutoModelForCausalLM.from_pretrained(out)
    assert.is_true(logits(older) == logits(model), "hub.json computes other logits")
    older:close()
    model:close()
end

local function check_classifier(case)
    local golden = load_golden(case)
    local model = am.AutoModelForSequenceClassification.from_pretrained(path.join(ROOT, case), { num_labels = 3 })
    model.score.weight:copy_(golden["score.weight"])
    local out = am.no_grad(model.forward, model, {
        input_ids = golden.input_ids, attention_mask = golden.attention_mask, position_ids = golden.position_ids,
    })
    compare.within("classes", out.logits, golden.classes, LOGITS)
    model:close()
end

edge.check(edge.C.am_threads_set(1)) -- there is nothing to share

for _, case in ipairs(cases) do
    describe("a tiny " .. case, function()
        teardown(helper.cleanup)

        local missing -- why the family is not there; nil before it was looked for
        local function test(what, check, ...)
            local args = { case, ... }
            it(what, function()
                if missing == nil then
                    local model, why = open(case)
                    missing = why or false
                    if model then
                        model:close()
                    end
                end
                if missing then
                    return pending(missing)
                end
                am.scope(check, unpack(args))
            end)
        end

        test("computes, learns and steps as transformers", check_training)
        test("does so with eager attention", check_training, { attn_implementation = "eager", torch_dtype = "float32" })
        for _, device in ipairs { "ref", "fence" } do
            test("does so on " .. device, check_training, { device = device })
        end
        for _, attention in ipairs { "sdpa", "flash_attention_2" } do
            test("has the same logits with " .. attention, function()
                local model = open(case, { attn_implementation = attention })
                check_logits(model, load_golden(case))
                model:close()
            end)
        end
        test("goes on as transformers does, with a cache and without", check_greedy)
        test("gives a row the same bits alone, padded and packed", check_company)
        test("is written as it was read, and read as older files spell it", check_files)
        if load_golden(case).classes then
            test("classifies as transformers does", check_classifier)
        end
    end)
end
