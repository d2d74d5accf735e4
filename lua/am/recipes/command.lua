-- What a recipe answers on the command line without training: --help, --print-config, --dry-run.
-- Holds no descriptions (describe.lua) and no estimates (preflight.lua).

local args_parser = require("am.cli.args")
local config = require("am.config")
local describe = require("am.recipes.describe")
local err = require("am.core.error")
local names = require("am.recipes.names")
local strings = require("am.utils.strings")
local targets = require("am.recipes.targets")

local M = {}

local function options_text()
    local lines = {}
    for _, name in ipairs(strings.sorted_keys(args_parser.options)) do
        local option = args_parser.options[name]
        lines[#lines + 1] = string.format("  %-24s %s", (option.short and "-" .. option.short .. ", " or "") .. "--"
            .. name .. (option.topic and " [NAME]" or option.flag and "" or " VALUE"), option.doc)
    end
    return table.concat(lines, "\n")
end

--- Print what a recipe is and which sections it has; with a topic (a section or target) its keys.
function M.help(class, script, topic)
    local fields, registry = class.schema(), targets.registry()
    if type(topic) == "string" then
        io.write(describe.details(fields, registry, topic))
        return 0
    end
    io.write(string.format([[
usage: amlua %s config.yaml [--section.key value | --section.key=value | --flag] …

%s

Options:
%s

Sections of the configuration (--help SECTION for its keys, --help TARGET for those of a target):
]], script, class.doc or "", options_text()), describe.overview(fields, registry))
    return 0
end

--- Refuse words that cannot be: no configuration, more processes than there are.
function M.check(args, script)
    local processes = args.options["nproc-per-node"]
    if not args.config then
        err.raise("usage", "a configuration is needed: amlua %s config.yaml", script)
    elseif processes and not tonumber(processes) then
        err.raise("usage", "--nproc-per-node needs a number, not \"%s\"", processes)
    elseif processes and tonumber(processes) ~= 1 then
        err.raise("unsupported", "--nproc-per-node %s: a run has one process, which uses all CPUs (--threads); "
                  .. "leave it out", processes)
    end
end

--- Print what was asked of a recipe object whose configuration is valid. Returns the exit status.
function M.show(recipe, options)
    local cfg = recipe.cfg
    if options["print-config"] == "defaults" then
        cfg = describe.with_defaults(cfg, recipe:schema(), recipe.ctx.registry)
    end
    if options["print-config"] then
        io.write(config.print(cfg))
    end
    if options["dry-run"] then
        return require("am.recipes.preflight").run(recipe)
    end
    return 0
end

--- The recipe's file for a configuration given alone (`amlua config.yaml`), by its key `recipe`.
function M.script_of(file)
    local cfg = config.load(file)
    local found, named, not_yet = names.recipe(cfg:get("recipe"))
    if not_yet then
        err.raise("unsupported", "%s: recipe: %s is not there yet: %s", cfg:where("recipe"), named, not_yet)
    elseif not found then
        err.raise("usage", "%s: %s; say which recipe: amlua recipes/llm_finetune.lua %s", file, named
                  and "recipe: " .. named .. " is none that is known" or "it has no key `recipe`", file)
    end
    return "recipes/" .. found .. ".lua"
end

--- Give each of the ranks on this host its share of the cores, unless somebody has said how many threads.
function M.divide_threads(ranks, said)
    if not said and (os.getenv("OMP_NUM_THREADS") or "") == "" then
        local cli, edge = require("am.cli"), require("am.core.ffi")
        cli.set_threads(tostring(math.max(1, math.floor(edge.C.am_threads() / ranks))))
    end
end

return M
