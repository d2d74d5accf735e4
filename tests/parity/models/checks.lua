-- Checks of a tiny checkpoint against its golden that more than one spec makes: of training (names, gradients,
-- parameters after three steps of AdamW), greedy tokens, files. Not here: what is run (run.lua, rows.lua).

local am = require("am")
local devices = require("tests.support.devices")
local assert = require("luassert")
local compare = require("tests.support.compare")
local edge = require("am.core.ffi")
local helper = require("tests.recipe.helper")
local json = require("am.utils.json")
local path = require("am.utils.path")
local rows = require("tests.parity.models.rows")
local run = require("tests.parity.models.run")
local tiny = require("tests.support.tiny")

local M = {}

--- f32 rounds at 6e-8; a few hundred roundings in another order than transformers' give some 1e-6 of the largest logit,
--- and a mistake of any kind far more than 1e-5.
M.LOGITS = 1e-5
-- Gradients go through twice as many sums. Tensors whose gradient is next to nothing (a shift of all
-- keys changes no softmax) hold the rounding of the others, hence the floor: a part of the largest gradient.
local GRADIENT, FLOOR = 1e-4, 1e-3
-- AdamW divides a gradient by its own size, so an error of 1e-4 in a gradient moves a parameter by 1e-4 of lr at most.
-- Where a gradient is small beside what its error is measured by (below NOISE of it), rounding is more of it, and
-- where it is nothing but rounding its sign is chance: a parameter may move by lr a step either way, in torch too, and
-- nothing more is asked. (A gradient of 0 in all three steps, as of tokens that are not there, is certain: the weight
-- decays, and nothing else; what the loss does not see at all stays as it is.)
local STEP, NOISE = 1e-4, 1e-3
-- The parameters that such gradients move may be no more than this part of all.
local MOST_NOISE = 0.07

local function largest(t)
    return compare.difference(t, t).largest
end

--- Tensors of a golden whose names begin with a prefix, by the rest of the name.
function M.part(golden, prefix)
    local out = {}
    for name, t in pairs(golden) do
        if name:sub(1, #prefix) == prefix then
            out[name:sub(#prefix + 1)] = t
        end
    end
    return out
end

function M.check_names(what, have, want)
    for name in pairs(want) do
        compare.check(have[name], "%s: no %s", what, name)
    end
    for name in pairs(have) do
        compare.check(want[name], "%s: %s is no tensor of transformers' checkpoint", what, name)
    end
end

-- {name -> what a gradient's error is measured by}
local function scales(gradients)
    local out, top = {}, 0
    for name, t in pairs(gradients) do
        out[name] = largest(t)
        top = math.max(top, out[name])
    end
    for name, value in pairs(out) do
        out[name] = math.max(value, FLOOR * top)
    end
    return out
end

function M.check_gradients(model, golden)
    local want = M.part(golden, "grad.")
    local have = run.saved(model, "gradients")
    local scale = scales(want)
    for name, t in pairs(want) do
        if not have[name] and largest(t) == 0 then -- the loss does not see it
            want[name] = nil
        end
    end
    M.check_names("gradients", have, want)
    for name, t in pairs(want) do
        compare.within("gradient of " .. name, have[name], t, GRADIENT, scale[name])
    end
end

--- initial: {name = tensor} of the parameters before the first step.
function M.check_steps(model, golden, initial)
    local decay = (1 - run.LR * run.WEIGHT_DECAY) ^ run.STEPS
    local want, gradients, have = M.part(golden, "step."), M.part(golden, "grad."), run.saved(model)
    M.check_names("parameters", have, want)
    local scale, total, noise = scales(gradients), 0, 0
    for name, t in pairs(want) do
        local g, n = gradients[name]:to_buffer()
        local before, after = initial[name]:to_buffer(), t:to_buffer()
        local most = largest(gradients[name])
        local rounding = most > 0 and most < NOISE * scale[name] -- all of it, where it is 0 by chance, too
        local function certain(i)
            return math.abs(g[i]) >= NOISE * scale[name] or g[i] == 0 and not rounding
                and (after[i] == before[i] or math.abs(after[i] - before[i] * decay) <= 1e-6 * math.abs(before[i]))
        end
        local count = 0
        for i = 0, n - 1 do
            count = count + (certain(i) and 1 or 0)
        end
        total, noise = total + n, noise + n - count
        if count > 0 then
            compare.within(name .. " after three steps", have[name], t, STEP, largest(t), certain)
        end
        compare.check(compare.difference(have[name], t).worst <= 2.1 * run.STEPS * run.LR,
                      "%s moved further than three steps can", name)
    end
    compare.check(noise <= MOST_NOISE * total, "%d of %d gradients are next to nothing", noise, total)
end

--- Which logits count: those of padding mean nothing.
function M.attended(golden)
    local mask, vocab = golden.attention_mask:to_buffer(), golden.logits:size(2)
    return function(i) return mask[math.floor(i / vocab)] ~= 0 end
end

--- Train a model for three steps on a golden's batch: logits, losses, gradients and parameters. inputs: of forward;
--- initial: see check_steps.
function M.check_training(model, golden, inputs, initial)
    local found = run.train(model, inputs, function(out)
        compare.within("logits", out.logits, golden.logits, M.LOGITS, nil, M.attended(golden))
        M.check_gradients(model, golden)
    end)
    for step, loss in ipairs(golden.losses:totable()) do
        compare.near("loss of step " .. step, found[step], loss, M.LOGITS * loss)
    end
    M.check_steps(model, golden, initial)
end

-- Fields that transformers wrote with a decimal point; it takes some of them in no other way. Rates of dropping and
-- multipliers it takes in both.
local function floats_of(text)
    local out = {}
    for key, value in text:gmatch('"([%w_]+)": ([%d.e+-]+)') do
        out[key] = value:find("[.e]") and not key:find("drop")
            and not key:find("multiplier") and key ~= "logits_scaling" or nil
    end
    return out
end

--- Fails unless the fields that one config.json has as floats are floats in the other.
function M.check_floats(have, want)
    local floats = floats_of(path.read_file(have, 1e6))
    for key in pairs(floats_of(path.read_file(want, 1e6):gsub('"rope_parameters": %b{}', ""))) do
        compare.check(floats[key], "config.json has %s as no float", key)
    end
end

-- ---- all the cases of a folder ----------------------------------------------------------------------

function M.read_json(file)
    return json.decode(assert(path.read_file(file, 1e6)))
end

--- The checks of the tiny checkpoints in a folder, most of them functions of a case's name. auto: the class that opens
--- a model. From here on one thread works: there is nothing to share.
function M.of(root, auto)
    edge.check(edge.C.am_threads_set(1))
    local T = { names = path.list_dir(root) }
    table.sort(T.names)

    function T.golden(case)
        return am.load_safetensors(path.join(root, case, "golden.safetensors"))
    end

    function T.initial(case)
        return am.load_safetensors(path.join(root, case, "model.safetensors"))
    end

    function T.open(case, opts)
        return auto.from_pretrained(path.join(root, case), opts)
    end

    --- Of pictures; they are inputs of the logits, so no worse.
    function T.features(case)
        local golden, model = T.golden(case), T.open(case)
        local have = am.no_grad(model.get_image_features, model, run.inputs(golden))
        compare.within("features", have, golden.features, M.LOGITS)
        model:close()
    end

    function T.training(case, opts)
        local golden, model = run.renamed(T.golden(case)), T.open(case, opts)
        M.check_training(model, golden, run.inputs(golden), run.renamed(T.initial(case)))
        model:close()
    end

    function T.greedy(case)
        local golden, model = T.golden(case), T.open(case)
        local want, prompt = golden.greedy:totable(), run.inputs(golden, "prompt.")
        for _, use_cache in ipairs { true, false } do
            assert.same(want, run.greedy(model, prompt, #want, use_cache))
        end
        model:close()
    end

    function T.company(case)
        local golden, model = T.golden(case), T.open(case)
        local other = rows.other_in_company(model, golden)
        compare.check(not other, "%s", other)
        model:close()
    end

    -- The bits of what a model computes of a case's golden.
    local function computed(case, model)
        local golden = T.golden(case)
        local inputs = golden.pixels and { pixel_values = golden.pixels } or run.inputs(golden)
        local out = am.no_grad(model.forward, model, inputs)
        return tiny.bits(out.logits or out.last_hidden_state)
    end

    --- Fails unless the model in a folder computes what a case's model does.
    function T.check_same(case, model, folder, what)
        local again = auto.from_pretrained(folder)
        compare.check(computed(case, again) == computed(case, model), "%s otherwise", what)
        again:close()
    end

    --- Saves a case's model to a new folder: the checkpoint's tensors, which compute the same, and floats where it has
    --- them. Returns the folder, the fields of its config.json and those of the checkpoint's.
    function T.saved(case, model)
        local dir, out = path.join(root, case), helper.folder()
        model:save_pretrained(out)
        local have = helper.tensors(out .. "/model.safetensors")
        local want = run.renamed(helper.tensors(dir .. "/model.safetensors"))
        M.check_names("saved", have, want)
        for name, text in pairs(want) do
            compare.check(have[name] == text, "%s is saved with other numbers", name)
        end
        M.check_floats(out .. "/config.json", dir .. "/config.json")
        T.check_same(case, model, out, "what was saved computes")
        local config = M.read_json(out .. "/config.json")
        config.dtype, config.torch_dtype = config.torch_dtype, nil
        return out, config, M.read_json(dir .. "/config.json")
    end

    --- Fails unless a case's model is read again from the folder in which it was saved under the names that its modules
    --- have, which transformers writes too.
    function T.check_own_names(case, model, folder)
        local named = {}
        for name, t in model:named_parameters() do
            named[#named + 1] = { name, t }
        end
        am.save_safetensors(folder .. "/model.safetensors", named)
        T.check_same(case, model, folder, "the modules' own names are read")
    end

    --- What makes tests of a case: test(what, check, ...) is check(case, ...). it: busted's.
    function T.tests(it, case)
        return function(what, check, ...)
            local args = { case, ... }
            it(what, function() am.scope(check, unpack(args)) end)
        end
    end

    --- Tests that training is as transformers', whatever else is done to save memory or time.
    function T.test_training(test, check)
        test("computes, learns and steps as transformers", check)
        test("does so with eager attention", check, { attn_implementation = "eager" })
        test("does so with layers computed again in backward", check, { activation_checkpointing = true })
        for _, device in ipairs(devices.others) do
            test("does so on " .. device, check, { device = device })
        end
    end

    return T
end

return M
