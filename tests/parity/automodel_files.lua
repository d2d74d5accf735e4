-- NeMo Automodel's example files, for automodel_examples.lua and automodel_train.lua: their names in a checkout, and
-- whether a file is understood. Trains nothing.

local config = require("am.config")
local err = require("am.core.error")
local names = require("am.recipes.names")
local path = require("am.utils.path")
local targets = require("am.recipes.targets")

local M = {}

--- The folder of examples of a checkout, or that folder itself.
function M.root(checkout)
    return path.is_dir(checkout .. "/examples") and checkout .. "/examples" or checkout
end

--- The configurations of language and vision-language models under a folder, as sorted relative names.
function M.list(root)
    local list = {}
    local pipe = assert(io.popen("cd '" .. root .. "' && find llm_* vlm_* -name '*.yaml' -o -name '*.yml' | sort"))
    for line in pipe:lines() do
        list[#list + 1] = line
    end
    pipe:close()
    return list
end

--- Judge a file: "resolved" (every section, key and target passes validation by the schema of its recipe) with the
--- configuration and the recipe's name, or "unsupported" (valid, and something in it is named as not there yet) or
--- "failed" with the message. An environment variable that is not set counts as its own name.
function M.judge(file)
    local cfg, recipe
    local ok, e = pcall(function()
        cfg = config.load(file, { getenv = function(name) return os.getenv(name) or name end })
        local named
        recipe, named = names.recipe(cfg:get("recipe"))
        if not recipe then
            err.raise("unsupported", "%s: recipe: %s is not there yet", cfg:where("recipe"), named or "none")
        end
        local schema = { fields = require("recipes." .. recipe).schema() }
        config.validate(cfg, schema, { registry = targets.registry() })
    end)
    if ok then
        return "resolved", cfg, recipe
    elseif not err.is(e) then
        error(e, 0)
    end
    return e.code == "unsupported" and "unsupported" or "failed", e.msg
end

return M
