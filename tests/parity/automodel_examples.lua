-- Which of NeMo Automodel's example configurations are understood. Reads a checkout of it, trains nothing and
-- needs no model: a file is
--   resolved      every section, key and target passes validation by the schema of its recipe
--   unsupported   valid, and something in it is named as not there yet
--   failed        anything else
-- Files of the families below resolve, or are in automodel_examples.tsv with the reason why not.
-- usage: amlua tests/parity/automodel_examples.lua CHECKOUT [-v]

local config = require("am.config")
local err = require("am.core.error")
local names = require("am.recipes.names")
local path = require("am.utils.path")
local strings = require("am.utils.strings")
local targets = require("am.recipes.targets")

local families = { "llm_pretrain/*", "llm_kd/*", "llm_seq_cls/*" }
for family in ("llama3_1 llama3_2 llama3_3 qwen gemma mistral phi granite olmo starcoder falcon"):gmatch("%S+") do
    families[#families + 1] = "llm_finetune/" .. family .. "/*"
end

local function yaml_files(root)
    local list = {}
    local pipe = assert(io.popen("cd '" .. root .. "' && find llm_* vlm_* -name '*.yaml' -o -name '*.yml' | sort"))
    for line in pipe:lines() do
        list[#list + 1] = line
    end
    pipe:close()
    return list
end

local function must_resolve(name)
    for _, family in ipairs(families) do
        if strings.wildcard(family, name) then
            return true
        end
    end
    return false
end

-- "resolved", "unsupported" or "failed", and the message.
local function judge(file)
    local ok, e = pcall(function()
        local cfg = config.load(file, { getenv = function(name) return os.getenv(name) or name end })
        local recipe, named = names.recipe(cfg:get("recipe"))
        if not recipe or not path.is_file("recipes/" .. recipe .. ".lua") then
            err.raise("unsupported", "%s: recipe: %s is not there yet", cfg:where("recipe"), named or "none")
        end
        local schema = { fields = require("recipes." .. recipe).schema() }
        config.validate(cfg, schema, { registry = targets.registry() })
    end)
    if ok then
        return "resolved"
    elseif not err.is(e) then
        error(e, 0)
    end
    return e.code == "unsupported" and "unsupported" or "failed", e.msg
end

-- Files that are known not to resolve: name -> reason.
local function known_exceptions()
    local known = {}
    for line in assert(path.read_file("tests/parity/automodel_examples.tsv")):gmatch("[^\n]+") do
        local name, reason = line:match("^([^#\t]+)\t(.+)$")
        if name then
            known[name] = reason
        end
    end
    return known
end

local root = assert(arg[1], "usage: amlua tests/parity/automodel_examples.lua CHECKOUT [-v]")
root = path.is_dir(root .. "/examples") and root .. "/examples" or root
local known, verbose = known_exceptions(), arg[2] == "-v"
local count, problems = { resolved = 0, unsupported = 0, failed = 0 }, {}
for _, name in ipairs(yaml_files(root)) do
    local verdict, msg = judge(path.join(root, name))
    count[verdict] = count[verdict] + 1
    msg = msg and msg:gsub(root:gsub("%p", "%%%0") .. "/", "")
    print(verdict .. " " .. name)
    if msg and (verbose or verdict == "failed") then
        print("  " .. msg:gsub("\n", "\n  "))
    end
    if verdict == "failed" then
        problems[#problems + 1] = name .. " fails"
    elseif verdict == "unsupported" and must_resolve(name) and not known[name] then
        problems[#problems + 1] = name .. " does not resolve, and has no reason in automodel_examples.tsv"
    elseif verdict == "resolved" and known[name] then
        problems[#problems + 1] = name .. " resolves: take it out of automodel_examples.tsv"
    end
    known[name] = nil
end
for name in pairs(known) do
    problems[#problems + 1] = name .. " of automodel_examples.tsv is no file"
end
print(string.format("%d resolved, %d named as unsupported, %d failed", count.resolved, count.unsupported, count.failed))
for _, problem in ipairs(problems) do
    print("problem: " .. problem)
end
return #problems == 0 and 0 or 1
