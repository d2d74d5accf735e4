-- A tiny random checkpoint of every family against transformers: logits, loss, gradients, three steps of
-- AdamW, greedy tokens, classifiers, files. And what amlua promises by itself: a row has the same bits
-- alone, in a padded batch and in a pack. Goldens: golden.py.

local am = require("am")
local devices = require("tests.support.devices")
local compare = require("tests.support.compare")
local helper = require("tests.recipe.helper")
local json = require("am.utils.json")
local path = require("am.utils.path")
local checks = require("tests.parity.models.checks")
local run = require("tests.parity.models.run")

local ROOT = "tests/parity/models/golden"

local LOGITS = checks.LOGITS

local cases = checks.of(ROOT, am.AutoModelForCausalLM)

local function check_logits(model, golden)
    local inputs = run.inputs(golden)
    inputs.labels = nil
    local out = am.no_grad(model.forward, model, inputs)
    compare.within("logits", out.logits, golden.logits, LOGITS, nil, checks.attended(golden))
end

local function check_greedy(case)
    local golden, model = cases.golden(case), cases.open(case)
    local want = golden.greedy:totable()
    local prompt = { input_ids = golden.greedy:narrow(0, 0, #want - 12):reshape(1, -1) }
    for _, use_cache in ipairs { true, false } do
        assert.same(want, run.greedy(model, prompt, #want, use_cache))
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

local function check_files(case)
    local dir, model = path.join(ROOT, case), cases.open(case)
    local out, config, was = cases.saved(case, model)
    local fields, original = canonical(config), canonical(was)
    for key, value in pairs(original) do
        assert.same({ [key] = plain(value) }, { [key] = plain(fields[key]) })
    end
    assert.same(checks.read_json(dir .. "/generation_config.json"), checks.read_json(out .. "/generation_config.json"))

    -- the same configuration as older files on the hub spell it
    helper.write(out .. "/config.json", assert(path.read_file(dir .. "/hub.json", 1e6)))
    cases.check_same(case, model, out, "hub.json computes")
    model:close()
end

local function check_classifier(case)
    local golden = cases.golden(case)
    local model = am.AutoModelForSequenceClassification.from_pretrained(path.join(ROOT, case), { num_labels = 3 })
    model.score.weight:copy_(golden["score.weight"])
    local out = am.no_grad(model.forward, model, {
        input_ids = golden.input_ids, attention_mask = golden.attention_mask, position_ids = golden.position_ids,
    })
    compare.within("classes", out.logits, golden.classes, LOGITS)
    model:close()
end

for _, case in ipairs(cases.names) do
    describe("a tiny " .. case, function()
        teardown(helper.cleanup)

        local test = cases.tests(it, case)
        test("computes, learns and steps as transformers", cases.training)
        test("does so with eager attention", cases.training,
             { attn_implementation = "eager", torch_dtype = "float32" })
        for _, device in ipairs(devices.others) do
            test("does so on " .. device, cases.training, { device = device })
        end
        for _, attention in ipairs { "sdpa", "flash_attention_2" } do
            test("has the same logits with " .. attention, function()
                local model = cases.open(case, { attn_implementation = attention })
                check_logits(model, cases.golden(case))
                model:close()
            end)
        end
        test("goes on as transformers does, with a cache and without", check_greedy)
        test("gives a row the same bits alone, padded and packed", cases.company)
        test("is written as it was read, and read as older files spell it", check_files)
        if cases.golden(case).classes then
            test("classifies as transformers does", check_classifier)
        end
    end)
end
