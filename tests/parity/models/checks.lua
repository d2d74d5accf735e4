-- How what amlua computes is compared with a golden of golden.py's kind, and how closely. models_spec.lua and
-- vlm_spec.lua use it.

local compare = require("tests.support.compare")
local run = require("tests.parity.models.run")

local M = {}

-- f32 rounds at 6e-8; a few hundred roundings in another order than transformers' give some 1e-6 of
-- the largest logit, and a mistake of any kind far more than 1e-5.
M.LOGITS = 1e-5
-- Gradients go through twice as many sums. Tensors whose gradient is next to nothing (a shift of all
-- keys changes no softmax) hold the rounding of the others, hence the floor: a part of the largest gradient.
local GRADIENT, FLOOR = 1e-4, 1e-3
-- AdamW divides a gradient by its own size, so an error of 1e-4 in a gradient moves a parameter by 1e-4 of lr at most.
-- Where a gradient is small beside what its error is measured by (below NOISE of it), rounding is more of it, and
-- where it is nothing but rounding its sign is chance: a parameter may move by lr a step either way, in torch too, and
-- nothing more is asked. (A gradient of 0 in all three steps, as of tokens that are not there, is certain: the weight
-- decays, and nothing else.)
local STEP, NOISE = 1e-4, 1e-3
-- The parameters that such gradients move may be no more than this part of all.
local MOST_NOISE = 0.07

local function largest(t)
    return compare.difference(t, t).largest
end

--- Tensors of a golden whose names begin with a prefix, by the rest of the name.
--- rename (optional): a function of the name.
function M.part(golden, prefix, rename)
    local out = {}
    for name, t in pairs(golden) do
        if name:sub(1, #prefix) == prefix then
            name = name:sub(#prefix + 1)
            out[rename and rename(name) or name] = t
        end
    end
    return out
end

--- Fails unless both tables have the same keys.
function M.names(what, have, want)
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

--- Compare gradients {name -> tensor} with a golden's grad.NAME, whose names `rename` changes.
function M.gradients(golden, have, rename)
    local want = M.part(golden, "grad.", rename)
    M.names("gradients", have, want)
    local scale = scales(want)
    for name, t in pairs(want) do
        compare.within("gradient of " .. name, have[name], t, GRADIENT, scale[name])
    end
end

--- Compare parameters {name -> tensor} after three steps with step.NAME; initial: those before the first, under the
--- golden's names.
function M.steps(golden, have, initial, rename)
    initial = M.part(initial, "", rename)
    local decay = (1 - run.LR * run.WEIGHT_DECAY) ^ run.STEPS
    local want, gradients = M.part(golden, "step.", rename), M.part(golden, "grad.", rename)
    M.names("parameters", have, want)
    local scale, total, noise = scales(gradients), 0, 0
    for name, t in pairs(want) do
        local g, n = gradients[name]:to_buffer()
        local before, after = initial[name]:to_buffer(), t:to_buffer()
        local function certain(i)
            return math.abs(g[i]) >= NOISE * scale[name]
                or g[i] == 0 and math.abs(after[i] - before[i] * decay) <= 1e-6 * math.abs(before[i])
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

--- Train a model for three steps on a golden's batch and compare logits, losses, gradients and parameters. inputs:
--- of forward; initial, rename: see steps.
function M.training(model, golden, inputs, initial, rename)
    local found = run.train(model, inputs, function(out)
        compare.within("logits", out.logits, golden.logits, M.LOGITS, nil, M.attended(golden))
        M.gradients(golden, run.saved(model, "gradients"), rename)
    end)
    for step, loss in ipairs(golden.losses:totable()) do
        compare.near("loss of step " .. step, found[step], loss, M.LOGITS * loss)
    end
    M.steps(golden, run.saved(model), initial, rename)
end

return M
