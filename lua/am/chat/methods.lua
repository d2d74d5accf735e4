-- Attributes of values: the methods of str, list, tuple and dict that a template may call, and the
-- names the sandbox refuses. The str methods themselves are in strings.lua.

local signature = require "am.chat.signature"
local strings = require "am.chat.strings"
local values = require "am.chat.values"

local M = {}

local lists, dicts = {}, {}

signature.define(lists, "index", "value! start stop", function(rt, list, value, start, stop)
    local first = strings.int_argument(rt, start, 0)
    local last = strings.int_argument(rt, stop, #list)
    if first < 0 then first = math.max(first + #list, 0) end
    if last < 0 then last = last + #list end
    for i = first + 1, math.min(last, #list) do
        if values.equals(rt, list[i], value) then return i - 1 end
    end
    rt:fail("the value is not in the list")
end)

signature.define(lists, "count", "value!", function(rt, list, value)
    local count = 0
    for _, item in ipairs(list) do
        if values.equals(rt, item, value) then count = count + 1 end
    end
    return count
end)

local function copy_list(rt, list)
    rt:charge(#list)
    local copy = values.list()
    for i, item in ipairs(list) do copy[i] = item end
    return copy
end
signature.define(lists, "copy", "", copy_list)

--- The (key, value) tuples of a dict as an array.
function M.dict_items(rt, d)
    local items = values.list()
    rt:charge(#d.keys)
    values.dict_each(rt, d, function(key, value) items[#items + 1] = values.tuple { key, value } end)
    return items
end

signature.define(dicts, "items", "", function(rt, d) return values.view(M.dict_items(rt, d), "dict_items") end)
signature.define(dicts, "keys", "", function(rt, d) return values.view(copy_list(rt, d.keys), "dict_keys") end)
signature.define(dicts, "values", "", function(rt, d)
    local items = values.list()
    rt:charge(#d.keys)
    values.dict_each(rt, d, function(_, value) items[#items + 1] = value end)
    return values.view(items, "dict_values")
end)
signature.define(dicts, "get", "key! default", function(rt, d, key, default)
    local value = values.dict_get(rt, d, key)
    if value ~= nil then return value end
    return default == nil and values.None or default
end)
signature.define(dicts, "copy", "", function(rt, d)
    rt:charge(#d.keys)
    return values.dict_copy(d)
end)

local function set(words)
    local names = {}
    for name in words:gmatch("%S+") do names[name] = true end
    return names
end

-- Methods that would change a value; the immutable sandbox hands out an undefined in their place.
local mutating = {
    list = set "append clear pop reverse insert sort extend remove",
    dict = set "clear pop popitem setdefault update",
}

local html = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ["'"] = "&#39;", ['"'] = "&#34;" }

--- HTML-escapes a Lua string.
function M.escape(rt, s)
    rt:allocate(#s)
    return (s:gsub("[&<>'\"]", html))
end

local function escaped(rt, v)
    if type(v) == "string" then return M.escape(rt, v) end
    return v
end

local function as_markup(v)
    if type(v) == "string" then return values.markup(v) end
    if values.is_sequence(v) then
        for i, item in ipairs(v) do v[i] = as_markup(item) end
    end
    return v
end

-- A str method called on Markup: what it inserts is escaped, what it returns is Markup again.
local function call_on_markup(rt, name, def, markup, args, kwargs)
    local changed = args
    if name == "replace" and args[2] ~= nil then
        changed = { args[1], escaped(rt, args[2]), args[3] }
    elseif name == "join" or name == "format" then
        changed = {}
        local inserted = args
        if name == "join" and args[1] ~= nil then inserted = values.iterate(rt, args[1]) end
        for i, v in ipairs(inserted) do changed[i] = escaped(rt, v) end
        if name == "join" then changed = { values.list(changed) } end
    end
    return as_markup(signature.invoke(rt, name, def, markup.text, changed, kwargs))
end

--- The method `name` of `v` bound to it, an undefined where the sandbox forbids it, or nil.
function M.bound(rt, v, name)
    local kind = values.kind(v)
    if name:sub(1, 2) == "__" then
        return values.undefined(name, v, ("access to attribute '%s' of '%s' object is unsafe."):format(name, kind))
    end
    if mutating[kind] and mutating[kind][name] then
        return values.undefined(name, v, ("access to attribute '%s' of '%s' object is unsafe."):format(name, kind))
    end
    local registry = (kind == "str" or kind == "Markup") and strings.methods or kind == "list" and lists
        or kind == "dict" and dicts or (kind == "tuple" or kind == "range") and name ~= "copy" and lists or nil
    local def = registry and registry[name]
    if not def then return nil end
    return values.func(name, function(_, args, kwargs)
        local s = values.text(v)
        if s then rt:allocate(#s) end
        if kind == "range" then return signature.invoke(rt, name, def, v.items, args, kwargs) end
        if kind == "Markup" then return call_on_markup(rt, name, def, v, args, kwargs) end
        return signature.invoke(rt, name, def, v, args, kwargs)
    end)
end

return M
