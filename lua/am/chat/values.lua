-- The value model of the template interpreter: how Python's values look in Lua, and the operations
-- every value has (truth, kind, length, iteration, equality, order, membership, conversion from Lua).
-- Printing lives in printing.lua, arithmetic in eval.lua, methods in methods.lua.
--
--   Python          here
--   None            values.None, a unique object
--   True, False     true, false
--   int             a Lua number (always integral)
--   float           {value = x}            metatable Float, so that 1.0 and 1 stay apart
--   str             a Lua string of UTF-8; lengths and indices count code points
--   Markup          {text = s}             what `|safe` makes; `+` on it escapes HTML, as in Jinja
--   list, tuple     {v1, v2, …}            metatables List, Tuple; never holds nil
--   dict            {keys = {…}, map = {}} insertion order in `keys`, values in `map` by hash key
--   iterators       {items = {…}, next =}  Iterator: consumed once, always true, no length; its items
--                                          are made at once, not on demand as in Python
--   views, range    {items = {…}}          View: length and iteration but no indexing (range has it)
--   namespace       {attrs = dict}         the only mutable value
--   callables       {name =, call = fn}    fn(rt, args, kwargs)
--   undefined       {name =, owner =}      Undefined
--
-- `rt` is the running interpreter (eval.lua): rt:fail(fmt, …) raises with the template's line,
-- rt:charge(n) pays for work so that no template runs for ever.

local cjson = require "cjson"
local err = require "am.core.error"
local json = require "am.utils.json"

local M = {}

local function class(kind, callable)
    local c = { kind = kind, callable = callable }
    c.__index = c
    return c
end

M.Float = class("float")
M.Markup = class("Markup")
M.List = class("list")
M.Tuple = class("tuple")
M.Dict = class("dict")
M.Iterator = class("generator")
M.View = class("dict_keys")
M.Namespace = class("Namespace")
M.Function = class("function", true)
M.Macro = class("Macro", true)
M.Loop = class("LoopContext", true)
M.Undefined = class("Undefined")
M.None = setmetatable({}, class("NoneType"))

local None, Float, Markup, List, Tuple, Dict = M.None, M.Float, M.Markup, M.List, M.Tuple, M.Dict

local own_metatables = {}
for _, mt in ipairs { Float, Markup, List, Tuple, Dict, M.Iterator, M.View, M.Namespace, M.Function,
    M.Macro, M.Loop, M.Undefined, getmetatable(None) } do
    own_metatables[mt] = true
end

-- integers are doubles here: beyond 2^53 they would silently lose digits
M.MAX_INT = 2 ^ 53
local MAX_NESTING = 100

function M.float(x) return setmetatable({ value = x }, Float) end
function M.markup(s) return setmetatable({ text = s }, Markup) end
function M.list(t) return setmetatable(t or {}, List) end
function M.tuple(t) return setmetatable(t or {}, Tuple) end
function M.iterator(items, kind) return setmetatable({ items = items, next = 1, kind = kind }, M.Iterator) end
function M.view(items, kind) return setmetatable({ items = items, kind = kind }, M.View) end
function M.range(start, stop, step)
    local items = {}
    for i = 1, math.max(0, math.ceil((stop - start) / step)) do items[i] = start + (i - 1) * step end
    local text = (step == 1 and "range(%d, %d)" or "range(%d, %d, %d)"):format(start, stop, step)
    return setmetatable({ items = items, kind = "range", start = start, step = step, text = text }, M.View)
end
function M.func(name, fn) return setmetatable({ name = name, call = fn }, M.Function) end

--- An undefined value. `name` is what was looked up, `owner` the value it was looked up in (nil for a
--- variable), `hint` a message to use instead of the composed one.
function M.undefined(name, owner, hint)
    return setmetatable({ name = name, owner = owner ~= nil and M.kind(owner) or nil, hint = hint }, M.Undefined)
end

local lua_kinds = { string = "str", number = "int", boolean = "bool" }

--- The Python type name of a value.
function M.kind(v)
    return lua_kinds[type(v)] or v.kind
end
local kind = M.kind

--- The Lua string of a str or Markup, else nil.
function M.text(v)
    if type(v) == "string" then return v end
    if type(v) == "table" and v.kind == "Markup" then return v.text end
end
local text = M.text

--- The Lua number of an int, float or bool and whether it is a float; else nil.
function M.number(v)
    local t = type(v)
    if t == "number" then return v, false end
    if t == "boolean" then return v and 1 or 0, false end
    if t == "table" and v.kind == "float" then return v.value, true end
end
local number = M.number

function M.is_undefined(v)
    return type(v) == "table" and v.kind == "Undefined"
end

function M.is_sequence(v)
    local k = kind(v)
    return k == "list" or k == "tuple"
end

--- Python's bool(v).
function M.truthy(v)
    local t = type(v)
    if t == "boolean" then return v end
    if t == "string" then return v ~= "" end
    if t == "number" then return v ~= 0 end
    local k = v.kind
    if k == "NoneType" or k == "Undefined" then return false end
    if k == "list" or k == "tuple" then return v[1] ~= nil end
    if k == "dict" then return v.keys[1] ~= nil end
    if k == "float" then return v.value ~= 0 end
    if k == "Markup" then return v.text ~= "" end
    if getmetatable(v) == M.View then return v.items[1] ~= nil end
    return true
end

-- dict -----------------------------------------------------------------------------------------

function M.dict() return setmetatable({ keys = {}, map = {} }, Dict) end

local function hash(rt, key)
    if type(key) == "string" then return key end
    local n = number(key)
    if n then return n == n and n or "\0nan" end
    local k = kind(key)
    if k == "Markup" then return key.text end
    if k == "tuple" then
        local parts = {}
        for i, item in ipairs(key) do
            local h = hash(rt, item)
            parts[i] = type(h) .. ":" .. #tostring(h) .. ":" .. tostring(h)
        end
        local joined = table.concat(parts, ",")
        rt:allocate(#joined)
        return "\0tuple " .. joined
    end
    if k == "list" or k == "dict" then rt:fail("unhashable type: '%s'", k) end
    return key
end
M.hash = hash

function M.dict_get(rt, d, key)
    return d.map[hash(rt, key)]
end

function M.dict_set(rt, d, key, value)
    local h = hash(rt, key)
    if d.map[h] == nil then d.keys[#d.keys + 1] = key end
    d.map[h] = value
end

--- Calls visit(key, value) in order.
function M.dict_each(rt, d, visit)
    for _, key in ipairs(d.keys) do visit(key, d.map[hash(rt, key)]) end
end

function M.dict_copy(d)
    local copy = M.dict()
    for i, key in ipairs(d.keys) do copy.keys[i] = key end
    for h, value in pairs(d.map) do copy.map[h] = value end
    return copy
end

-- iteration and length ----------------------------------------------------------------------------

--- The code points of a string as an array of strings; stray continuation bytes stand alone. `rt` pays.
function M.characters(rt, s)
    rt:charge(#s / 2) -- memory above all
    local out, n = {}, 0
    local start = s:match("^[\128-\191]*()")
    for i = 1, start - 1 do n = n + 1; out[n] = s:sub(i, i) end
    for c in s:gmatch("[^\128-\191][\128-\191]*") do
        n = n + 1
        out[n] = c
    end
    return out
end

--- The items of an iterable as an array that the caller must not change. An iterator is used up.
function M.iterate(rt, v)
    local s = text(v)
    if s then
        return M.characters(rt, s)
    end
    local k = kind(v)
    local items
    if k == "list" or k == "tuple" then
        items = v
    elseif k == "dict" then
        items = v.keys
    elseif k == "Undefined" then
        items = {}
    elseif getmetatable(v) == M.View then
        items = v.items
    elseif getmetatable(v) == M.Iterator then
        if v.next == 1 then
            items = v.items
        else
            items = {}
            for i = v.next, #v.items do items[#items + 1] = v.items[i] end
        end
        v.next = #v.items + 1
    else
        rt:fail("'%s' object is not iterable", k)
    end
    rt:charge(#items)
    return items
end

function M.is_iterable(v)
    local k = kind(v)
    return k == "str" or k == "Markup" or k == "list" or k == "tuple" or k == "dict" or k == "Undefined"
        or getmetatable(v) == M.View or getmetatable(v) == M.Iterator
end

local function string_length(s)
    if not s:find("[\128-\255]") then return #s end
    local _, continuation = s:gsub("[\128-\191]", "")
    return #s - continuation
end
M.string_length = string_length

--- Python's len(v), or nil where it has none.
function M.length_or_nil(v)
    local s = text(v)
    if s then return string_length(s) end
    local k = kind(v)
    if k == "list" or k == "tuple" then return #v end
    if k == "dict" then return #v.keys end
    if k == "Undefined" then return 0 end
    if k == "LoopContext" then return #v.items end
    if getmetatable(v) == M.View then return #v.items end
end

function M.length(rt, v)
    local s = text(v)
    if s then rt:charge(math.ceil(#s / 16)) end
    return M.length_or_nil(v) or rt:fail("object of type '%s' has no len()", kind(v))
end

-- comparison ---------------------------------------------------------------------------------------

local function equal_dicts(rt, a, b, depth)
    if #a.keys ~= #b.keys then return false end
    for _, key in ipairs(a.keys) do
        local h = hash(rt, key)
        local other = b.map[h]
        if other == nil or not M.equals(rt, a.map[h], other, depth) then return false end
    end
    return true
end

--- Python's a == b.
function M.equals(rt, a, b, depth)
    rt:charge(1)
    if a == b then return true end
    local x, y = number(a), number(b)
    if x or y then return x == y end
    local s, t = text(a), text(b)
    if s or t then return s == t end
    local k = kind(a)
    if k ~= kind(b) then return false end
    depth = (depth or 0) + 1
    if depth > MAX_NESTING then rt:fail("values nested too deeply to compare") end
    if k == "list" or k == "tuple" then
        if #a ~= #b then return false end
        for i, item in ipairs(a) do
            if not M.equals(rt, item, b[i], depth) then return false end
        end
        return true
    end
    if k == "dict" then return equal_dicts(rt, a, b, depth) end
    if k == "range" then return M.equals(rt, M.list(a.items), M.list(b.items), depth) end
    return k == "Undefined"
end

--- Python's a < b; `symbol` is only for the message.
function M.less(rt, a, b, symbol, depth)
    rt:charge(1)
    local x, y = number(a), number(b)
    if x and y then return x < y end
    local s, t = text(a), text(b)
    if s and t then
        rt:charge(math.min(#s, #t) / 64)
        return s < t
    end
    local k = kind(a)
    depth = (depth or 0) + 1
    if (k == "list" or k == "tuple") and k == kind(b) and depth <= MAX_NESTING then
        for i = 1, math.min(#a, #b) do
            if not M.equals(rt, a[i], b[i]) then return M.less(rt, a[i], b[i], symbol, depth) end
        end
        return #a < #b
    end
    rt:check_defined(a)
    rt:check_defined(b)
    rt:fail("'%s' not supported between instances of '%s' and '%s'", symbol or "<", k, kind(b))
end

--- Python's item in container.
function M.contains(rt, container, item)
    local s = text(container)
    if s then
        local part = text(item)
        if not part then
            rt:check_defined(item)
            rt:fail("'in <string>' requires string as left operand, not %s", kind(item))
        end
        rt:search(s, part)
        return s:find(part, 1, true) ~= nil
    end
    if kind(container) == "dict" then return M.dict_get(rt, container, item) ~= nil end
    if not M.is_iterable(container) then
        rt:fail("argument of type '%s' is not iterable", kind(container))
    end
    for _, member in ipairs(M.iterate(rt, container)) do
        if M.equals(rt, member, item) then return true end
    end
    return false
end

-- namespace -----------------------------------------------------------------------------------------

function M.Namespace.set(namespace, rt, name, v)
    if name:sub(1, 1) == "_" then
        rt:fail("a namespace cannot store the attribute '%s': it starts with an underscore", name)
    end
    M.dict_set(rt, namespace.attrs, name, v)
end

function M.Namespace.attribute(namespace, rt, name)
    return M.dict_get(rt, namespace.attrs, name)
end

-- conversion from Lua --------------------------------------------------------------------------------

local function bad_data(path, message)
    err.raise("data", "%s: %s", path, message)
end

-- True for an array, false for a map; raises when it is neither.
local function is_array(t, path)
    local count, strings = 0, 0
    for key in pairs(t) do
        count = count + 1
        if type(key) == "string" then
            strings = strings + 1
        elseif type(key) ~= "number" then
            bad_data(path, "a table key is a " .. type(key) .. "; only strings and array indices will do")
        end
    end
    if strings == count then return false end
    if strings > 0 then bad_data(path, "a table mixes array items and named fields") end
    for i = 1, count do
        if t[i] == nil then bad_data(path, "an array has a hole at " .. i .. " (use cjson.null for None)") end
    end
    return true
end

local json_array, json_object = getmetatable(json.array()), getmetatable(json.object())
local json_number = getmetatable(json.float(1))

local function from_table(t, path, depth, empty_is_list)
    local array = is_array(t, path)
    local marked = getmetatable(t)
    if array or marked == json_array or (empty_is_list and not marked and next(t) == nil) then
        local list = M.list()
        for i, item in ipairs(t) do list[i] = M.from_lua(item, path .. "[" .. i .. "]", depth) end
        return list
    end
    local d = M.dict()
    for i, key in ipairs(json.keys(t)) do d.keys[i] = key end
    for _, key in ipairs(d.keys) do d.map[key] = M.from_lua(t[key], path .. "." .. key, depth) end
    return d
end

--- Converts plain Lua data (as from cjson or am.utils.json) to a value. A table with keys 1…n is a list,
--- one with string keys a dict whose keys are taken in alphabetical order, or the order that am.utils.json
--- remembers, an empty one a dict unless `empty_is_list` or marked as an array. cjson.null and json.null
--- are None; an integral number is an int, any other a float. A value made by this module passes through.
--- Anything a template cannot use (functions, images, tensors, objects with a metatable) becomes the
--- placeholder string "<type>", so media keys stay visible.
--- Raises "data" naming `path` for tables that are neither array nor map and for nesting beyond 100.
function M.from_lua(v, path, depth, empty_is_list)
    local t = type(v)
    if t == "string" or t == "boolean" then return v end
    if t == "number" then
        if v == math.floor(v) and math.abs(v) < 2 ^ 63 then return v end
        return M.float(v)
    end
    if v == cjson.null or v == json.null then return None end
    if t ~= "table" then return "<" .. t .. ">" end
    local mt = getmetatable(v)
    if mt == json_number then return M.float(v.value) end
    if mt and mt ~= json_array and mt ~= json_object then return own_metatables[mt] and v or "<object>" end
    depth = (depth or 0) + 1
    if depth > MAX_NESTING then bad_data(path, "nested more than " .. MAX_NESTING .. " levels deep") end
    return from_table(v, path, depth, empty_is_list)
end

return M
