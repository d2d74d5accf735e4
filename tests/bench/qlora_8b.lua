-- How much memory one step of QLoRA takes on a model in the shapes of Llama-3-8B, one row of 2048 tokens: at most 8 GB.
--
--   amlua tests/bench/qlora_8b.lua tests/bench/qlora_8b.yaml
--
-- Weights are random; they are made and packed one after another, so the model in bfloat16 is never there. Prints what
-- the process had resident at most when the model was there and after the step; fails above the limit. Half an hour
-- on two busy cores; --model.config.num_hidden_layers 2 takes two minutes.

local am = require("am")
local benchmark = require("recipes.benchmark")
local err = require("am.core.error")
local path = require("am.utils.path")

local LIMIT = 8e9

local Recipe = benchmark:extend("benchmark")

local function most_resident()
    return tonumber(path.read_file("/proc/self/status"):match("VmHWM:%s*(%d+) kB")) * 1024
end

local function say(what)
    local memory = am.memory("cpu")
    io.write(("%-9s %.2f GB resident at most, %.2f GB of tensors now, %.2f GB at most\n"):format(what,
        most_resident() / 1e9, tonumber(memory.live_bytes) / 1e9, tonumber(memory.peak_bytes) / 1e9))
    io.flush()
end

function Recipe.step_count() return 1 end

function Recipe:train()
    say("loaded")
    local metrics = self:step()
    say("a step")
    io.write(("loss %.4f, %.0f s\n"):format(metrics.loss, metrics.seconds))
    if most_resident() > LIMIT then
        err.raise("state", "more than %.0f GB", LIMIT / 1e9)
    end
end

return Recipe
