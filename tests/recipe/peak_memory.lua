-- For preflight_spec.lua and vlm_spec.lua: what memory.expected and bytes_beside say of a configuration's run, and what
-- the process had resident at most in three steps of it.
-- usage: amlua tests/recipe/peak_memory.lua config.yaml [recipe]   prints: said measured

local memory = require("am.recipes.memory")
local path = require("am.utils.path")
local skeleton = require("am.recipes.skeleton")
local training = require("am.training")

local recipe = require("recipes." .. (arg[2] or "llm_finetune")).new(arg[1])
local sizes = training.batch_sizes(recipe:section("step_scheduler"))
local length = recipe.cfg:get("dataset.mean_len")
if length then
    recipe.model, recipe.teacher = skeleton.of(recipe), skeleton.teacher(recipe)
else -- what pictures take is known from the rows
    recipe:setup()
    length = recipe.loader.dataset:stats().longest.length
end
local tokens = sizes.local_batch_size * length
local averages, other = recipe:bytes_beside(tokens)
local said = memory.expected(recipe.model, recipe:optimizer_options(), tokens).total + averages + other
if not recipe.is_set_up then
    recipe:setup()
end
for _ = 1, 3 do
    recipe:step()
end
recipe.hooks:call("before_validation", recipe)
local resident = path.read_file("/proc/self/status"):match("VmHWM:%s*(%d+) kB")
print(string.format("%.0f %.0f", said, tonumber(resident) * 1024))
