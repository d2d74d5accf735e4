-- Checks of a tiny checkpoint's training against its golden, which more than one spec makes: names, gradients,
-- parameters after three steps of AdamW (run.lua). Not here: what is run.

local compare = require("tests.support.compare")
local path = require("am.utils.path")
local run = require("tests.parity.models.run")

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

return M
