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

--- Refuse a command line without a configuration.
function M.check(args, script)
    if not args.config then
        err.raise("usage", "a configuration is needed: amlua %s config.yaml", script)
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

-- Commands that NeMo Automodel's program has, and the recipe of each domain.
local commands = {
    finetune = { llm = "llm_finetune", vlm = "vlm_finetune" }, pretrain = { llm = "llm_pretrain" },
    kd = { llm = "llm_kd" }, benchmark = { llm = "benchmark" },
}

--- Whether words begin as `finetune llm` does.
function M.is_command(words)
    return commands[words[1]] ~= nil and (words[2] == "llm" or words[2] == "vlm")
end

-- The recipe that the key `recipe` names, or nil where there is none; an error names what is wrong with it.
local function named_recipe(cfg)
    local value = cfg:get("recipe")
    if value == nil then
        return nil
    end
    local found, named, why = names.recipe(value)
    if why then
        err.raise("unsupported", "%s: recipe: %s is not there yet: %s", cfg:where("recipe"), named, why)
    elseif not found then
        err.raise("usage", "%s: recipe: %s is none that is known%s; it is one of %s", cfg:where("recipe"),
                  named or "a section without _target_", named and names.like_recipe(named) or "",
                  table.concat(names.recipes(), ", "))
    end
    return found
end

--- The script for words that name none: `finetune llm -c config.yaml …`, or a configuration whose key `recipe`, in
--- the file or on the command line, names one. Returns the script and the recipe's words.
function M.resolve(words)
    local command, domain
    if M.is_command(words) then
        command, domain = words[1], words[2]
        words = { unpack(words, 3) }
    end
    local asked = command and commands[command][domain]
    if command and not asked then
        err.raise("unsupported", "%s %s is not there yet; there is: amlua %s llm", command, domain, command)
    end
    local args = args_parser.parse(words)
    local found = args.config and named_recipe(config.load(args.config, { overrides = args.overrides }))
    -- the original's recipe of fine-tuning is that of pretraining, too
    if asked and found and found ~= asked and not (asked == "llm_pretrain" and found == "llm_finetune") then
        err.raise("usage", "%s: its key `recipe` names recipes/%s.lua, and %s %s is recipes/%s.lua; run amlua %s to "
                  .. "follow the file", args.config, found, command, domain, asked, args.config)
    elseif not (asked or found) then
        err.raise("usage", "%s: it has no key `recipe`; say which recipe: amlua recipes/llm_finetune.lua %s",
                  args.config, args.config)
    end
    return "recipes/" .. (asked or found) .. ".lua", words
end

--- Give each of the ranks that may run on the same CPUs its share of them, unless somebody has said how many threads.
function M.divide_threads(ranks, said)
    if not said and (os.getenv("OMP_NUM_THREADS") or "") == "" then
        local cli, edge = require("am.cli"), require("am.core.ffi")
        cli.set_threads(tostring(math.max(1, math.floor(edge.C.am_threads() / ranks))))
    end
end

return M
