-- Tiny random vision towers against transformers: states, pooled output, gradients, three steps of AdamW, files. And
-- what amlua promises by itself: a picture has the same bits in any batch, only the layers asked for run, and a frozen
-- tower keeps nothing. Goldens: towers_golden.py.

local am = require("am")
local checks = require("tests.parity.models.checks")
local compare = require("tests.support.compare")
local helper = require("tests.recipe.helper")
local run = require("tests.parity.models.run")
local tiny = require("tests.support.tiny")

-- As logits of text models (tests/parity/models/models_spec.lua): roundings in another order give some 1e-6.
local STATES = 1e-5

local CASES = { "clip", "dinov2", "dinov2_swiglu", "siglip" }

local cases = checks.of("tests/parity/vision/golden", am.AutoModel)

-- {name in the golden = tensor} of both sizes of pictures, as towers_golden.py's outputs().
local function outputs(model, golden)
    local first = model:forward { pixel_values = golden.pixels, output_hidden_states = true }
    local other = model:forward { pixel_values = golden.other, output_hidden_states = true,
                                  interpolate_pos_encoding = true }
    local out = { last = first.last_hidden_state, pooled = first.pooler_output,
                  ["other.hidden.1"] = other.hidden_states[2], ["other.last"] = other.last_hidden_state,
                  ["other.pooled"] = other.pooler_output }
    for i, states in ipairs(first.hidden_states) do
        out["hidden." .. i - 1] = states
    end
    if golden.masked then
        out["masked.last"] = model:forward { pixel_values = golden.pixels, bool_masked_pos = golden.masked }
            .last_hidden_state
    end
    return out
end

local function check_outputs(case, opts)
    local golden, model = cases.golden(case), cases.open(case, opts)
    local have = am.no_grad(outputs, model, golden)
    for name, t in pairs(have) do
        compare.within(name, t, golden[name], STATES)
    end
    for name in pairs(golden) do
        compare.check(have[name] or not name:find("^hidden"), "no %s", name)
    end
    model:close()
end

-- What trains: a model whose forward gives the golden's loss.
local function trained(model, golden)
    local weights = checks.part(golden, "w.")
    return setmetatable({
        forward = function()
            local loss
            local out = outputs(model, golden)
            for _, name in ipairs { "hidden.1", "last", "pooled", "other.hidden.1", "other.last", "other.pooled",
                                    "masked.last" } do
                local part = weights[name] and (out[name] * weights[name]:to { device = model:device() }):sum()
                loss = loss and part and loss + part or loss or part
            end
            return { loss = loss }
        end,
    }, { __index = model })
end

local function check_training(case, opts)
    local golden, model = cases.golden(case), cases.open(case, opts)
    local losses = golden.losses:totable()
    local found = run.train(trained(model, golden), {}, function() checks.check_gradients(model, golden) end)
    for step, loss in ipairs(losses) do -- a sum of numbers that cancel one another
        compare.near("loss of step " .. step, found[step], loss, 1e-5 * 10)
    end
    checks.check_steps(model, golden, cases.initial(case))
    model:close()
end

local function check_files(case)
    local model = cases.open(case)
    local out, saved, original = cases.saved(case, model)
    for key, value in pairs(original) do
        assert.same({ [key] = value }, { [key] = saved[key] })
    end
    cases.check_own_names(case, model, out)
    model:close()
end

local function check_company(case)
    local golden, model = cases.golden(case), cases.open(case)
    local function states(pixels)
        return am.no_grad(model.forward, model, { pixel_values = pixels }).last_hidden_state
    end
    local both = states(golden.pixels)
    for i = 0, 1 do
        compare.check(tiny.bits(both:narrow(0, i, 1)) == tiny.bits(states(golden.pixels:narrow(0, i, 1))),
                      "picture %d has other bits alone", i)
    end
    model:close()
end

local function check_layers(case)
    local golden, model = cases.golden(case), cases.open(case)
    local count = model.config.num_hidden_layers
    local function states(layers)
        return am.no_grad(model.forward, model, { pixel_values = golden.pixels, layers = layers })
    end
    local ran, last = 0, model:get("encoder." .. model.encoder.list .. "." .. count - 1)
    local forward = last.forward
    last.forward = function(...)
        ran = ran + 1
        return forward(...)
    end
    local out = states { -2, 0 }
    assert.equal(2, #out.hidden_states)
    assert.is_nil(out.last_hidden_state)
    compare.within("hidden state -2", out.hidden_states[1], golden["hidden." .. count - 1], STATES)
    compare.within("hidden state 0", out.hidden_states[2], golden["hidden.0"], STATES)
    assert.equal(0, ran)
    compare.within("hidden state -1", states({ -1 }).hidden_states[1], golden["hidden." .. count], STATES)
    assert.equal(1, ran)
    local ok, e = pcall(states, { count + 1 })
    assert.is_false(ok)
    assert.matches("no hidden state " .. count + 1 .. " of a tower with " .. count .. " layers", tostring(e))
    model:close()
end

-- Storages that a forward pass leaves beside its result, and their bytes.
local function kept(model, pixels)
    return am.scope(function()
        collectgarbage()
        local before = am.memory()
        local states = model:forward({ pixel_values = pixels, layers = { -1 } }).hidden_states[1]
        local after = am.memory()
        return after.live_storages - before.live_storages - 1, after.live_bytes - before.live_bytes - states:nbytes()
    end)
end

local function check_frozen(case)
    local golden, model = cases.golden(case), cases.open(case)
    local _, bytes = kept(model, golden.pixels)
    compare.check(bytes > 10 * golden.last:nbytes(), "%d bytes for backward", bytes)
    for _, t in model:named_parameters() do
        t.requires_grad = false
    end
    assert.equal(0, (kept(model, golden.pixels)))
    model:close()
end

for _, case in ipairs(CASES) do
    describe("a tiny " .. case, function()
        teardown(helper.cleanup)

        local test = cases.tests(it, case)
        test("has transformers' states", check_outputs)
        cases.test_training(test, check_training)
        test("gives a picture the same bits in any batch", check_company)
        test("runs no layer beyond those asked for", check_layers)
        test("keeps nothing when it is frozen", check_frozen)
        test("is written as it was read, and read as transformers names it", check_files)
    end)
end
