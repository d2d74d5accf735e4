-- Checks a configuration against declared fields and says everything that is wrong with it at once,
-- each with file, line, key and the nearest name.
-- Holds no defaults filling and no building; instantiate.lua does both.
--
-- A spec is a type name or a table:
--   type      "string" "number" "integer" "boolean" "list" "table" "function" "object" "any", or
--             several as "integer|string"; "function" is the name of a target, "object" a section
--             with _target_
--   default   value when the key is absent        required  the key must be there
--   null      null is allowed though there is a default (it is whenever there is none)
--   min max   inclusive bounds                    above below  exclusive ones
--   enum      array of allowed values             items     spec of a list's items
--   fields    specs of a table's keys; a key with * stands for all that match it
--   open      accept keys beyond `fields`         doc       one line for help
--   no_effect why the key, which other programs know, changes nothing here; what lies under one of any
--             type is not looked into
--   not_yet   what the key asks for, which is not there yet; `now` is an array of the values that are.
--             A section is left alone when its key `switch` is false, or absent with `switch_off` (unless
--             it names a _target_, as in the days when there was no such key)
--   target    the section has a _target_, whose own fields apply, and `fields` beside them
--   default_target  the target of a section that names none
--   of        pattern of the names of the built-in targets that can stand there; code of one's own always can
--   given     array of the target's keys that the program hands over when they are absent
-- For a string, a number or boolean is taken as it was written (`name: 007`).

local err = require("am.core.error")
local number = require("am.utils.number")
local registry = require("am.config.registry")
local resolve = require("am.config.resolve")
local secrets = require("am.config.secrets")
local strings = require("am.utils.strings")

local M = {}

local MAX_PROBLEMS = 20 -- shown; more are counted

local function add(problems, node, fmt, ...)
    local path = node:path()
    problems[#problems + 1] = string.format("%s: %s%s", node:where(), path ~= "" and path .. ": " or "",
        string.format(fmt, ...))
end

-- What is valid and not there yet is kept apart: it is no mistake of the configuration's author.
local function add_not_yet(problems, text)
    problems.not_yet = problems.not_yet or {}
    table.insert(problems.not_yet, text)
end

--- Raise one "usage" error for an array of problems, if there are any, or an "unsupported" one for
--- what is only not there yet.
function M.raise(problems)
    local not_yet = problems.not_yet or {}
    if #problems + #not_yet == 0 then
        return
    end
    local all = {}
    for _, list in ipairs { problems, not_yet } do
        for _, text in ipairs(list) do
            all[#all + 1] = text
        end
    end
    local shown = {}
    for i = 1, math.min(#all, MAX_PROBLEMS) do
        shown[i] = all[i]
    end
    if #all > MAX_PROBLEMS then
        shown[#shown + 1] = string.format("… and %d more", #all - MAX_PROBLEMS)
    end
    error(err.new(#problems > 0 and "usage" or "unsupported", table.concat(shown, "\n")), 0)
end

local function spec_of(spec)
    if type(spec) == "string" then
        return { type = spec }
    end
    return spec
end

-- Types of a spec as a set. Whatever declares fields or a target is a table.
local function types_of(spec)
    local types = {}
    for name in (spec.type or ((spec.fields or spec.target) and "table" or "any")):gmatch("[^|]+") do
        types[name] = true
    end
    return types
end

-- ---------------------------------------------------------------- wording

local articles = { integer = "an integer", object = "a section with _target_", table = "a section of keys",
    list = "a list", ["function"] = "the name of a function" }

local function expected(spec)
    local names = {}
    for name in (spec.type or "table"):gmatch("[^|]+") do
        names[#names + 1] = articles[name] or "a " .. name
    end
    return table.concat(names, " or ")
end

local function got(node)
    if node.kind == "map" then
        return "a section"
    elseif node.kind == "list" then
        return "a list"
    elseif node.value == nil then
        return "null"
    end
    local shown = secrets.shown(node)
    if type(shown) == "string" then
        return string.format('the string "%s"', #shown > 80 and shown:sub(1, 77) .. "…" or shown)
    elseif type(shown) == "number" then
        return "the number " .. number.text(shown)
    end
    return tostring(shown)
end

-- ---------------------------------------------------------------- leaves

--- The value of a leaf as its spec wants it: a number or boolean under a "string" spec is its text.
function M.leaf_value(node, spec)
    spec = spec_of(spec)
    local value = node.value
    if spec and (type(value) == "number" or type(value) == "boolean") then
        local types = types_of(spec)
        local as_is = types.any or types[type(value)] or (types.integer and type(value) == "number")
        if types.string and not as_is then
            return node.text or (type(value) == "number" and number.text(value) or tostring(value))
        end
    end
    return value
end

local function fits(value, types)
    local kind = type(value)
    return types.any or types[kind] or (kind == "number" and types.integer and value % 1 == 0 and value - value == 0)
end

local function bound_problem(value, spec)
    if value ~= value and (spec.min or spec.max or spec.above or spec.below) then
        return "a number"
    elseif spec.min and value < spec.min then
        return "at least " .. number.text(spec.min)
    elseif spec.max and value > spec.max then
        return "at most " .. number.text(spec.max)
    elseif spec.above and value <= spec.above then
        return "more than " .. number.text(spec.above)
    elseif spec.below and value >= spec.below then
        return "less than " .. number.text(spec.below)
    end
    return nil
end

local function check_enum(node, spec, value, problems)
    local names = {}
    for i, allowed in ipairs(spec.enum) do
        if allowed == value then
            return
        end
        names[i] = tostring(allowed)
    end
    add(problems, node, "got %s%s; expected one of %s", got(node),
        type(value) == "string" and strings.did_you_mean(value, names) or "", table.concat(names, ", "))
end

local function check_leaf(node, spec, ctx, problems)
    local types = types_of(spec)
    local value = M.leaf_value(node, spec)
    if value == nil then
        if spec.required or not (spec.null or spec.default == nil or types.any) then
            add(problems, node, "expected %s, got null", expected(spec))
        end
        return
    elseif types["function"] and type(value) == "string" and not types.string then
        M.check_name(node, ctx, problems)
        return
    elseif not fits(value, types) then
        add(problems, node, "expected %s, got %s", expected(spec), got(node))
        return
    end
    local bound = type(value) == "number" and bound_problem(value, spec)
    if bound then
        add(problems, node, "must be %s, and is %s", bound, number.text(value))
    elseif spec.enum then
        check_enum(node, spec, value, problems)
    end
end

-- ---------------------------------------------------------------- sections

--- The spec that `fields` has for a key: its own, or that of a wildcard, or nil.
function M.field(fields, key)
    local spec = fields[key]
    if spec == nil then
        for _, pattern in ipairs(strings.sorted_keys(fields)) do
            if pattern:find("*", 1, true) and strings.wildcard(pattern, key) then
                spec = fields[pattern]
                break
            end
        end
    end
    return spec ~= nil and spec_of(spec) or nil
end

--- The entry that a leaf names, or nil with the problem noted.
function M.check_name(node, ctx, problems)
    local ok, entry = pcall(resolve.resolve, node, ctx)
    if ok then
        return entry
    elseif not err.is(entry) then
        error(entry, 0)
    elseif entry.code == "unsupported" then
        add_not_yet(problems, entry.msg)
    else
        problems[#problems + 1] = entry.msg
    end
    return nil
end

local function unknown_key(node, key, fields, problems)
    local names = strings.sorted_keys(fields)
    local hint = strings.did_you_mean(key, names)
    if hint == "" and #names > 0 then
        hint = "; known here: " .. table.concat(names, ", ")
    end
    add(problems, node, "unknown %s%s", node.parent and node.parent.parent and "key" or "section or key", hint)
end

local check_node

-- Keys of `node` against `fields`. opts.given holds keys that the program hands over whatever the node
-- has, opts.optional those that need not be there.
local function check_keys(node, fields, ctx, problems, opts)
    for _, key in ipairs(node.order) do
        local child = node.children[key]
        local spec = M.field(fields, key)
        local passed_over = (key == "_target_" and opts.target) or (opts.ignore and opts.ignore[key])
            or (opts.given and opts.given[key] ~= nil)
        if not passed_over and not spec and not opts.open then
            unknown_key(child, key, fields, problems)
        elseif not passed_over then
            check_node(child, spec or { type = "any" }, ctx, problems)
            if spec and spec.no_effect and (child.kind ~= "leaf" or child.value) then -- null and false ask for nothing
                ctx.without_effect = ctx.without_effect or {}
                table.insert(ctx.without_effect, string.format("%s (%s)", child:path(), spec.no_effect))
            end
        end
    end
    for _, key in ipairs(strings.sorted_keys(fields)) do
        local spec = spec_of(fields[key])
        local handed_over = (opts.given and opts.given[key] ~= nil) or (opts.optional and opts.optional[key])
        if spec.required and not node.children[key] and not handed_over then
            add(problems, node, '"%s" is missing%s', key, spec.doc and " (" .. spec.doc .. ")" or "")
        end
    end
end

-- Note a built-in target that builds something else than what belongs there.
local function check_kind(node, entry, spec, ctx, problems)
    if not (entry and spec and spec.of) or not entry.name:find("^am%.") or entry.name:find(spec.of) then
        return
    end
    local names = {}
    for _, known in ipairs(ctx.registry.entries) do
        names[#names + 1] = known.name:find(spec.of) and known.name or nil
    end
    table.sort(names)
    add(problems, node, "%s cannot stand here; %s can", entry.name, table.concat(names, ", "))
end

--- Check a section with `_target_` (or a default one). opts: spec (the section's own), given, ignore.
--- Returns the entry, or nil with the problem noted.
function M.check_target(node, ctx, problems, opts)
    opts = opts or {}
    local spec = opts.spec or {}
    local named = node.children._target_
    local entry
    if named then
        entry = M.check_name(named, ctx, problems)
        check_kind(named, entry, spec, ctx, problems)
    elseif spec.default_target then
        entry = ctx.registry:lookup(spec.default_target)
    else
        add(problems, node, "a _target_ is missing: the name of what this section configures")
    end
    if not entry then
        return nil
    end
    local fields = entry.fields
    if spec.fields then
        fields = {}
        for _, source in ipairs { entry.fields, spec.fields } do
            for key, field in pairs(source) do
                fields[key] = field
            end
        end
    end
    local optional = {}
    for _, key in ipairs(spec.given or {}) do
        optional[key] = true
    end
    check_keys(node, fields, ctx, problems, { target = true, open = entry.open or spec.open, given = opts.given,
                                              optional = optional, ignore = opts.ignore })
    return entry
end

local function check_map(node, spec, ctx, problems)
    local types = types_of(spec)
    if spec.target then
        M.check_target(node, ctx, problems, { spec = spec })
    elseif node.children._target_ and (types.object or types.any or types["function"]) then
        M.check_target(node, ctx, problems)
    elseif not (types.table or types.any) then
        add(problems, node, "expected %s, got a section%s", expected(spec),
            types.object and " without _target_" or "")
    elseif spec.fields then
        check_keys(node, spec.fields, ctx, problems, { open = spec.open, ignore = spec.ignore })
    else
        check_keys(node, {}, ctx, problems, { open = true })
    end
end

-- True when a value asks for what is not there yet, with that noted.
local function is_not_yet(node, spec, problems)
    local value = node.kind == "leaf" and M.leaf_value(node, spec)
    if not spec.not_yet or value == nil then
        return false
    end
    for _, allowed in ipairs(spec.now or {}) do
        if value == allowed then
            return false
        end
    end
    add_not_yet(problems, string.format("%s: %s%s: not there yet: %s", node:where(), node:path(),
                                        node.kind == "leaf" and " is " .. tostring(secrets.shown(node)) or "",
                                        spec.not_yet))
    return true
end

-- A section for something that is switched off says nothing, whatever else is in it.
local function is_switched_off(node, spec)
    local switch = spec.switch and node.kind == "map" and node.children[spec.switch]
    if switch then
        return switch.value == false
    end
    return spec.switch ~= nil and spec.switch_off == true and node.kind == "map" and not node.children._target_
end

--- Whether a leaf names a function by its key (`collate_fn`), where the spec doesn't say that it is a plain word.
function M.names_function(node, spec)
    return type(node.key) == "string" and strings.ends_with(node.key, "_fn") and type(node.value) == "string"
        and not (type(spec) == "table" and spec.type == "string")
end

function check_node(node, spec, ctx, problems)
    if (spec.no_effect and types_of(spec).any) or is_switched_off(node, spec) then
        return
    elseif node.kind ~= "leaf" and is_not_yet(node, spec, problems) then
        return
    elseif M.names_function(node, spec) then
        check_kind(node, M.check_name(node, ctx, problems), spec_of(spec), ctx, problems)
    elseif node.kind == "leaf" then
        local before = #problems
        check_leaf(node, spec, ctx, problems)
        if #problems == before then
            is_not_yet(node, spec, problems)
        end
    elseif node.kind == "map" then
        check_map(node, spec, ctx, problems)
    else
        local types = types_of(spec)
        if not (types.list or types.any) then
            add(problems, node, "expected %s, got a list", expected(spec))
            return
        end
        for _, child in ipairs(node.children) do
            check_node(child, spec_of(spec.items) or { type = "any" }, ctx, problems)
        end
    end
end

--- Check a whole configuration: `schema` is a spec with `fields` (the sections) and `ignore`, an
--- array of sections to pass over (default: ci and recipe). Raises one "usage" error with all that
--- is wrong. Nothing is built, and user code runs only where ctx allows it. ctx.without_effect becomes
--- an array that names the keys whose spec says no_effect.
function M.validate(node, schema, ctx)
    ctx = ctx or { registry = registry.new() }
    local ignore = {}
    for _, key in ipairs(schema.ignore or { "ci", "recipe" }) do
        ignore[key] = true
    end
    local problems = {}
    check_keys(node, schema.fields, ctx, problems, { open = schema.open, ignore = ignore })
    M.raise(problems)
end

return M
