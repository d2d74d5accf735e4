-- A recipe's configuration in words, from its schema and the registry: what `--help` prints and what
-- docs/config_reference.md holds. Nothing here is written by hand but the order of sections and which
-- targets belong to which.

local err = require("am.core.error")
local number = require("am.utils.number")
local strings = require("am.utils.strings")

local M = {}

-- What a reader looks for first; the others follow in alphabetical order.
local first = { "model", "peft", "dataset", "packed_sequence", "dataloader", "validation_dataset",
                "validation_dataloader", "tokenizer", "optimizer", "lr_scheduler", "loss_fn", "clip_grad_norm",
                "step_scheduler", "checkpoint", "seed", "rng", "freeze_config" }

-- Targets that a section without a fixed one chooses among, by name.
local among = {
    model = { "am.AutoModelFor*" }, teacher_model = { "am.AutoModelFor*" }, optimizer = { "am.optim.*" },
    loss_fn = { "am.loss.*" }, dataset = { "am.datasets.*" }, ["validation_dataset"] = { "am.datasets.*" },
    metrics = { "am.metrics.*" }, hooks = { "am.hooks.*" }, distributed = { "am.distributed.*" },
}
local elsewhere = { ["am.optim.OptimizerParamScheduler"] = true, ["am.loss.KDLoss"] = true,
                    ["am.datasets.default_collater"] = true, ["am.datasets.StatefulDataLoader"] = true }

-- ---- words ----------------------------------------------------------------------------------

local function as_table(spec)
    return type(spec) == "string" and { type = spec } or spec
end

local words = { table = "section", object = "section with _target_", ["function"] = "name of a function",
                any = "anything" }

local function type_text(spec)
    if spec.target then
        return "section with _target_"
    end
    local names = {}
    for name in (spec.type or (spec.fields and "table" or "any")):gmatch("[^|]+") do
        names[#names + 1] = words[name] or name
    end
    local text = table.concat(names, " or ")
    local items = spec.items and as_table(spec.items)
    return items and items.type and text .. " of " .. type_text(items) or text
end

local function value_text(value)
    if type(value) == "table" then
        local items = {}
        for i, item in ipairs(value) do
            items[i] = value_text(item)
        end
        return "[" .. table.concat(items, ", ") .. "]"
    elseif type(value) == "number" then
        return number.text(value)
    end
    return tostring(value)
end

local function values_text(list)
    local names = {}
    for i, value in ipairs(list) do
        names[i] = value_text(value)
    end
    return table.concat(names, ", ")
end

--- Type, bounds and allowed values of a key: "number, more than 0".
function M.type_of(spec)
    spec = as_table(spec)
    local parts = { spec.enum and "one of " .. values_text(spec.enum) or type_text(spec) }
    for _, bound in ipairs { { "min", "at least " }, { "max", "at most " }, { "above", "more than " },
                             { "below", "less than " } } do
        if spec[bound[1]] then
            parts[#parts + 1] = bound[2] .. number.text(spec[bound[1]])
        end
    end
    return table.concat(parts, ", ")
end

--- What a key has when it is absent: "required", a value, or "".
function M.default_of(spec)
    spec = as_table(spec)
    if spec.required then
        return "required"
    end
    return spec.default ~= nil and value_text(spec.default) or ""
end

--- What a key means, or why it changes nothing, or what is not there yet.
function M.meaning_of(spec)
    spec = as_table(spec)
    local parts = { spec.doc }
    if spec.no_effect then
        parts[#parts + 1] = "no effect: " .. spec.no_effect
    end
    if spec.not_yet then
        parts[#parts + 1] = (spec.now and "other than " .. values_text(spec.now) .. " " or "") .. "not there yet: "
            .. spec.not_yet
    end
    return table.concat(parts, "; ")
end

-- ---- sections -------------------------------------------------------------------------------

local function targets_of(section, spec, registry)
    local list = {}
    if spec.default_target then
        local entry = registry:lookup(spec.default_target)
        list[1] = entry
    end
    for _, entry in ipairs(registry.entries) do
        for _, pattern in ipairs(among[section] or {}) do
            if strings.wildcard(pattern, entry.name) and not elsewhere[entry.name] and entry ~= list[1] then
                list[#list + 1] = entry
            end
        end
    end
    table.sort(list, function(a, b) return a.name < b.name end)
    return list
end

--- The sections of a schema in the order of reading, as an array of { name, spec, targets }.
function M.sections(fields, registry)
    local rank, list = {}, {}
    for i, name in ipairs(first) do
        rank[name] = i
    end
    for name, spec in pairs(fields) do
        spec = as_table(spec)
        list[#list + 1] = { name = name, spec = spec, targets = spec.target and targets_of(name, spec, registry)
                                or among[name] and targets_of(name, spec, registry) or {} }
    end
    table.sort(list, function(a, b)
        local i, j = rank[a.name] or math.huge, rank[b.name] or math.huge
        if i ~= j then
            return i < j
        end
        return a.name < b.name
    end)
    return list
end

--- True for a section that is read and changes nothing, or is not there yet.
function M.is_idle(spec)
    return spec.no_effect ~= nil or spec.not_yet ~= nil
end

-- ---- as text --------------------------------------------------------------------------------

local function wrap(text, indent, width)
    local lines, line = {}, ""
    for word in text:gmatch("%S+") do
        if #line + #word + 1 > width and line ~= "" then
            lines[#lines + 1], line = line, word
        else
            line = line == "" and word or line .. " " .. word
        end
    end
    lines[#lines + 1] = line
    return table.concat(lines, "\n" .. (" "):rep(indent))
end

local function add_keys(out, fields, indent)
    local pad = (" "):rep(indent)
    for _, key in ipairs(strings.sorted_keys(fields)) do
        local spec = as_table(fields[key])
        local default = M.default_of(spec)
        out[#out + 1] = string.format("%s%s: %s%s", pad, key, M.type_of(spec), default ~= ""
            and (default == "required" and ", required" or "; default " .. default) or "")
        local meaning = M.meaning_of(spec)
        if meaning ~= "" then
            out[#out + 1] = pad .. "    " .. wrap(meaning, indent + 4, 96 - indent)
        end
        if spec.fields then
            add_keys(out, spec.fields, indent + 4)
        end
    end
end

--- One line a section: what `--help` prints.
function M.overview(fields, registry)
    local out, idle = {}, {}
    for _, section in ipairs(M.sections(fields, registry)) do
        if M.is_idle(section.spec) then
            idle[#idle + 1] = section.name
        else
            out[#out + 1] = string.format("  %-24s %s%s", section.name, section.spec.doc or "",
                                          section.spec.required and " (required)" or "")
        end
    end
    out[#out + 1] = "Read for the sake of other programs, or not there yet:"
    out[#out + 1] = "  " .. wrap(table.concat(idle, ", "), 2, 96)
    return table.concat(out, "\n") .. "\n"
end

--- One section with its targets and keys: what `--help SECTION` prints. `name` may also be a target, or
--- section.key. Raises "usage" for a name that is none.
function M.details(fields, registry, name)
    local out, wanted = {}, name:match("^[^.]+")
    for _, section in ipairs(M.sections(fields, registry)) do
        if section.name == name or (section.name == wanted and not registry:lookup(name)) then
            local spec = section.spec
            out[#out + 1] = string.format("%s: %s%s", section.name, M.type_of(spec), M.default_of(spec) ~= ""
                and "; " .. M.default_of(spec) or "")
            out[#out + 1] = "    " .. wrap(M.meaning_of(spec), 4, 96)
            add_keys(out, spec.fields or {}, 2)
            for _, entry in ipairs(section.targets) do
                out[#out + 1] = string.format("\n  _target_: %s%s", entry.name, entry.name == spec.default_target
                    and " (when none is named)" or "")
                out[#out + 1] = "    " .. wrap(entry.doc or "", 4, 96)
                add_keys(out, entry.fields, 4)
            end
            return table.concat(out, "\n") .. "\n"
        end
    end
    local entry = registry:lookup(name)
    if entry then
        out[1] = string.format("%s: %s", entry.name, entry.doc or "")
        for _, alias in ipairs(entry.aliases or {}) do
            out[#out + 1] = "    also " .. alias
        end
        add_keys(out, entry.fields, 2)
        return table.concat(out, "\n") .. "\n"
    end
    local names = strings.sorted_keys(fields)
    for _, known in ipairs(registry:names()) do
        names[#names + 1] = known
    end
    err.raise("usage", "--help %s: there is no such section or target%s", name, strings.did_you_mean(name, names))
end

-- ---- defaults -------------------------------------------------------------------------------

-- Keys that `passed_over` has stay absent.
local function fill(node, fields, passed_over)
    for _, key in ipairs(strings.sorted_keys(fields)) do
        local spec = as_table(fields[key])
        local child = node.children[key]
        if not child and spec.default ~= nil and not (M.is_idle(spec) or passed_over[key]) then
            node:set(key, spec.default)
        elseif child and child.kind == "map" and spec.fields and not child.children._target_ then
            fill(child, spec.fields, {})
        end
    end
end

-- Sections that are in force when they are absent; of most others, being there says that something is wanted.
local in_force = { "checkpoint", "step_scheduler" }

--- A copy of a configuration in which absent keys have their defaults, where these are fixed values. Absent
--- sections stay absent but those that are in force all the same.
function M.with_defaults(cfg, fields, registry)
    local out = cfg:copy()
    for _, name in ipairs(in_force) do
        if fields[name] and not out:child(name) then
            out:set(name, {})
        end
    end
    for _, name in ipairs(strings.sorted_keys(fields)) do
        local spec, node = as_table(fields[name]), out:child(name)
        if not node and spec.default ~= nil and not M.is_idle(spec) then
            out:set(name, spec.default)
        elseif node and node.kind == "map" then
            local named = node:get("_target_") or spec.default_target
            local entry = type(named) == "string" and registry:lookup(named)
            fill(node, spec.fields or {}, {})
            fill(node, entry and entry.fields or {}, spec.fields or {})
        end
    end
    return out
end

return M
