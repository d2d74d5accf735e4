-- Checks of what callers hand to the functions of am.core: tensors, whole numbers, lists of them, options.
-- Each gives back what it was given; what does not fit is an error object that names function and argument.

local ffi = require("ffi")
require("am.core.ffi") -- declares am_tensor
local err = require("am.core.error")

local M = {}

--- ' (did you mean "X"?)' for the nearest of names, or "". am/init.lua hands in that of am.utils.strings,
--- which lies above the core.
function M.did_you_mean() return "" end

local INT_MAX = 2 ^ 31 - 1
local tensor_type = ffi.typeof("am_tensor *")

local function shown(value)
    return type(value) == "string" and string.format("%q", value) or type(value) == "table" and "a table"
        or type(value) == "function" and "a function" or tostring(value)
end

--- A tensor.
function M.tensor(what, value)
    if value == nil then
        err.raise("argument", "%s: a tensor is missing", what)
    elseif not ffi.istype(tensor_type, value) then
        err.raise("argument", "%s: a tensor is needed, not %s", what, shown(value))
    end
    return value
end

--- A number, or default where there is none.
function M.number(what, name, value, default)
    if value == nil then
        value = default
    end
    if type(value) ~= "number" then
        err.raise("argument", "%s: %s is %s, not a number", what, name, shown(value))
    end
    return value
end

--- A whole number, or default where there is none.
function M.whole(what, name, value, default)
    if value == nil then
        value = default
    end
    local number = type(value) == "cdata" and tonumber(value) or value -- an int64_t
    if type(number) ~= "number" or number % 1 ~= 0 then
        err.raise("argument", "%s: %s is %s, not a whole number", what, name, shown(value))
    end
    return number
end

--- A whole number that fits a C int.
function M.int(what, name, value, default)
    local number = M.whole(what, name, value, default)
    if number < -INT_MAX or number > INT_MAX then
        err.raise("argument", "%s: %s is %.0f, which is out of range", what, name, number)
    end
    return number
end

--- A table of whole numbers without holes and other keys.
function M.list(what, name, list)
    if type(list) ~= "table" then
        err.raise("argument", "%s: %s is a table of whole numbers, such as {2, 3}, not %s", what, name, shown(list))
    end
    M.dense(what .. ": " .. name, list)
    for i = 1, #list do
        M.whole(what, name, list[i])
    end
    return list
end

--- A table whose keys are 1 to its length.
function M.dense(what, list)
    local n = 0
    for key in pairs(list) do
        if type(key) ~= "number" then
            err.raise("argument", "%s has a key %s among its values", what, shown(key))
        end
        n = n + 1
    end
    if n ~= #list then
        err.raise("argument", "%s has a hole (nil) in it", what)
    end
    return list
end

-- {name -> true} of a list of names, made once.
local known_names = setmetatable({}, { __mode = "k", __index = function(sets, names)
    local set = {}
    for _, name in ipairs(names) do
        set[name] = true
    end
    sets[names] = set
    return set
end })

--- Options, all of whose names are in `names`; an empty table for nil.
function M.options(what, opts, names)
    if opts == nil then
        return {}
    elseif type(opts) ~= "table" then
        err.raise("argument", "%s: options are a table such as {%s = ...}, not %s", what, names[1], shown(opts))
    end
    local known = known_names[names]
    for key in pairs(opts) do
        if not known[key] then
            err.raise("argument", "%s: there is no option %s%s; there are %s", what, tostring(key),
                      M.did_you_mean(tostring(key), names), table.concat(names, ", "))
        end
    end
    return opts
end

--- Something to call.
function M.callable(what, fn)
    local meta = type(fn) == "table" and debug.getmetatable(fn)
    if type(fn) ~= "function" and not (meta and meta.__call) then
        err.raise("argument", "%s: a function is needed, not %s", what, shown(fn))
    end
    return fn
end

return M
