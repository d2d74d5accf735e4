-- Writes docs/config_reference.md from the recipes' schemas and the targets that components declare.
-- usage (from the project's root): amlua docs/config_reference.lua [FILE]
-- FILE: docs/config_reference.md; "-" prints

local describe = require("am.recipes.describe")
local path = require("am.utils.path")
local strings = require("am.utils.strings")
local targets = require("am.recipes.targets")

local INTRODUCTION = [[
# Configuration reference

Written by `docs/config_reference.lua` from what recipes and components declare; do not edit.

Every section of a configuration, every target that it may name, and their keys. ]]
    .. "`amlua recipes/llm_finetune.lua --help SECTION` prints the same. How values are typed and targets found is in "
    .. "[configuration.md](configuration.md)."

local function cell(text)
    return (text:gsub("|", "\\|"):gsub("%*", "\\*"):gsub("_(%w+)_", "\\_%1\\_"))
end

local function add_rows(out, fields, prefix)
    for _, key in ipairs(strings.sorted_keys(fields)) do
        local spec = type(fields[key]) == "string" and { type = fields[key] } or fields[key]
        out[#out + 1] = string.format("| `%s%s` | %s | %s | %s |", prefix, key, cell(describe.type_of(spec)),
                                      cell(describe.default_of(spec)), cell(describe.meaning_of(spec)))
        if spec.fields then
            add_rows(out, spec.fields, prefix .. key .. ".")
        end
    end
end

local function rows_of(fields)
    local out = {}
    add_rows(out, fields, "")
    return #out > 0 and "| key | type | default | meaning |\n|---|---|---|---|\n" .. table.concat(out, "\n")
        or "No keys of its own."
end

-- Targets with the same keys stand together.
local function grouped(entries)
    local groups, by_rows = {}, {}
    for _, entry in ipairs(entries) do
        local rows = rows_of(entry.fields)
        if not by_rows[rows] then
            by_rows[rows] = { rows = rows, entries = {} }
            groups[#groups + 1] = by_rows[rows]
        end
        table.insert(by_rows[rows].entries, entry)
    end
    return groups
end

local function add_targets(out, section)
    for _, group in ipairs(grouped(section.targets)) do
        for _, entry in ipairs(group.entries) do
            local aliases = {}
            for i, alias in ipairs(entry.aliases or {}) do
                aliases[i] = "`" .. alias .. "`"
            end
            out[#out + 1] = string.format("\n`%s`%s: %s%s.", entry.name,
                entry.name == section.spec.default_target and " (when none is named)" or "", entry.doc or "",
                #aliases > 0 and ". Also " .. table.concat(aliases, ", ") or "")
        end
        out[#out + 1] = "\n" .. group.rows
        if group.entries[1].open then
            out[#out + 1] = "\nFurther keys are handed on."
        end
    end
end

local function add_section(out, section)
    local spec = section.spec
    out[#out + 1] = string.format("\n### `%s`\n", section.name)
    local default = describe.default_of(spec)
    out[#out + 1] = string.format("%s%s. %s.", describe.type_of(spec):gsub("^%l", string.upper), default == ""
        and "" or default == "required" and ", required" or ", default " .. default,
        describe.meaning_of(spec):gsub("^%l", string.upper))
    if spec.fields then
        out[#out + 1] = "\n" .. rows_of(spec.fields)
    end
    add_targets(out, section)
end

-- The recipes that take a configuration, the one that others extend first.
local function recipes()
    local list = { "llm_finetune" }
    for _, file in ipairs(path.list_dir("recipes")) do
        local name = file:match("^(.*)%.lua$")
        local source = name and assert(path.read_file("recipes/" .. file))
        if name and name ~= list[1] and source:find(":extend(", 1, true) then
            list[#list + 1] = name
        end
    end
    table.sort(list, function(a, b) return a ~= b and (a == "llm_finetune" or (b ~= "llm_finetune" and a < b)) end)
    return list
end

local function page()
    local registry, out, seen, shown = targets.registry(), { INTRODUCTION }, {}, {}
    for _, name in ipairs(recipes()) do
        local recipe = require("recipes." .. name)
        local own, idle = {}, {}
        for _, section in ipairs(describe.sections(recipe.schema(), registry)) do
            for _, entry in ipairs(section.targets) do
                shown[entry] = true
            end
            local is_idle = describe.is_idle(section.spec)
            local keys = is_idle and "idle" or rows_of(section.spec.fields or {})
            if seen[section.name] ~= keys then
                table.insert(is_idle and idle or own, section)
                seen[section.name] = seen[section.name] or keys
            end
        end
        if #own + #idle > 0 then
            out[#out + 1] = string.format("\n## `recipes/%s.lua`\n\n%s%s", name, recipe.doc or "",
                name == "llm_finetune" and "" or " All of llm_finetune's sections, of which these have other keys, "
                    .. "or are new:")
        end
        for _, section in ipairs(own) do
            add_section(out, section)
        end
        if #idle > 0 then
            out[#out + 1] = "\n### Sections for other programs, or not there yet\n\n| section | why |\n|---|---|"
            for _, section in ipairs(idle) do
                out[#out + 1] = string.format("| `%s` | %s |", section.name, cell(describe.meaning_of(section.spec)))
            end
        end
    end
    local rest = { name = "", spec = {}, targets = {} }
    for _, entry in ipairs(registry.entries) do
        if not shown[entry] then
            table.insert(rest.targets, entry)
        end
    end
    table.sort(rest.targets, function(a, b) return a.name < b.name end)
    out[#out + 1] = "\n## Other targets\n\nFor keys inside sections, such as `collate_fn` and `config`."
    add_targets(out, rest)
    return table.concat(out, "\n") .. "\n"
end

local target = arg and arg[0] and arg[0]:find("docs/config_reference.lua", 1, true)
    and (arg[1] or "docs/config_reference.md")
if not target then
    return page -- required by a test
elseif target == "-" then
    io.write(page())
else
    path.write_file(target, page())
end
