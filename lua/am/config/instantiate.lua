-- From a section with `_target_` to the object it describes: check, fill in defaults, build nested
-- sections first, build. Holds no targets (registry.lua) and no rules of checking (schema.lua).

local err = require("am.core.error")
local json = require("am.utils.json")
local resolve = require("am.config.resolve")
local schema = require("am.config.schema")
local strings = require("am.utils.strings")

local M = {}

-- `call(…, args)` as a function of `…`.
local function bind(call, args)
    return function(...)
        local n = select("#", ...)
        local values = { ... }
        values[n + 1] = args
        return call(unpack(values, 1, n + 1))
    end
end

local function copy_default(value)
    if type(value) ~= "table" then
        return value
    end
    local out = setmetatable({}, getmetatable(value))
    for key, item in pairs(value) do
        out[key] = copy_default(item)
    end
    return out
end

-- Keys that are absent take their defaults; a null in the file is a choice and stays nil.
local function fill_defaults(args, fields, node)
    for key, spec in pairs(fields) do
        if type(spec) == "table" and spec.default ~= nil and args[key] == nil and not (node and node.children[key]) then
            args[key] = copy_default(spec.default)
        end
    end
end

-- What a target's bare name stands for: the function itself, or a constructor.
local function as_function(entry, ctx)
    if entry.call then
        local args = {}
        fill_defaults(args, entry.fields)
        return bind(entry.call, args)
    end
    return function(args)
        return entry.build(args or {}, ctx)
    end
end

local build_target

local function is_function_spec(spec)
    return type(spec) == "table" and spec.type == "function" or spec == "function"
end

-- The Lua value of any node; null inside lists and free tables is json.null.
local function value_of(node, spec, ctx)
    local in_fn_key = type(node.key) == "string" and strings.ends_with(node.key, "_fn")
    if node.kind == "leaf" then
        if schema.names_function(node, spec) or (type(node.value) == "string" and is_function_spec(spec)) then
            return as_function(resolve.resolve(node, ctx), ctx)
        end
        return schema.leaf_value(node, spec)
    end
    local out
    if node.kind == "list" then
        out = json.array()
        local items = type(spec) == "table" and spec.items or nil
        for i, child in ipairs(node.children) do
            local value = value_of(child, items, ctx)
            out[i] = value == nil and json.null or value
        end
        return out
    elseif node.children._target_ or (type(spec) == "table" and spec.target) then
        local default_target = type(spec) == "table" and spec.default_target
        return build_target(node, ctx, { default_target = default_target }, in_fn_key or is_function_spec(spec))
    end
    local fields = type(spec) == "table" and spec.fields or nil
    out = json.object({}, node:keys())
    for _, key in ipairs(node.order) do
        local value = value_of(node.children[key], fields and schema.field(fields, key), ctx)
        if value == nil and not fields then
            value = json.null
        end
        out[key] = value
    end
    fill_defaults(out, fields or {}, node)
    return out
end

-- Call build with the place of the section added to whatever goes wrong. An argument that a part
-- refuses is a mistake of the configuration.
local function run_build(node, entry, args, ctx)
    local ok, object = xpcall(function() return entry.build(args, ctx) end, function(e)
        return err.is(e) and e or debug.traceback(tostring(e), 2)
    end)
    if ok then
        return object
    elseif err.is(object) then
        local placed = err.within(object, string.format("%s, %s", node:path(), node:where()))
        placed.code = placed.code == "argument" and "usage" or placed.code
        error(placed, 0)
    end
    error(object, 0)
end

-- `as_fn`: the section stands where a function is wanted, so `call` is preferred to `build`.
function build_target(node, ctx, opts, as_fn)
    local named = node.children._target_
    local entry = named and resolve.resolve(named, ctx) or ctx.registry:lookup(opts.default_target)
    local args, overrides = {}, opts.overrides or {}
    for _, key in ipairs(node.order) do
        local spec = schema.field(entry.fields, key)
        local unread = spec and spec.no_effect and node.children[key].kind ~= "leaf" -- may name what is not there
        if key ~= "_target_" and overrides[key] == nil and not unread and not (opts.ignore and opts.ignore[key]) then
            args[key] = value_of(node.children[key], spec, ctx)
        end
    end
    for key, value in pairs(overrides) do
        args[key] = value
    end
    fill_defaults(args, entry.fields, node)
    if entry.call and (as_fn or not entry.build) then
        return bind(entry.call, args)
    end
    return run_build(node, entry, args, ctx)
end

--- Build what a section describes. `ctx` is { registry, roots, allow_user_code, … } and is handed to
--- every build function; `overrides` are arguments given by the program, which win over the file's.
--- opts: default_target (a name, for a section without _target_), ignore (array of keys that are not
--- the target's). Everything is checked before anything is built; raises "usage".
function M.instantiate(node, ctx, overrides, opts)
    opts = opts or {}
    if type(node) ~= "table" or node.kind ~= "map" then
        err.raise("usage", "expected a section with _target_, got %s", tostring(node))
    end
    local ignore = {}
    for _, key in ipairs(opts.ignore or {}) do
        ignore[key] = true
    end
    local problems = {}
    schema.check_target(node, ctx, problems,
        { spec = { default_target = opts.default_target }, given = overrides, ignore = ignore })
    schema.raise(problems)
    return build_target(node, ctx, { overrides = overrides, ignore = ignore, default_target = opts.default_target })
end

--- The function that a leaf names (`collate_fn: a.b`), or that a section with _target_ describes.
function M.callable(node, ctx)
    if node.kind == "map" then
        local problems = {}
        schema.check_target(node, ctx, problems)
        schema.raise(problems)
        return build_target(node, ctx, {}, true)
    end
    return as_function(resolve.resolve(node, ctx), ctx)
end

return M
