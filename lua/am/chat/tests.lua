-- Jinja's built-in tests (`x is …`): a registry of definitions (signature.lua) called as
-- fn(rt, value, …) and returning a boolean.

local operators = require "am.chat.operators"
local signature = require "am.chat.signature"
local strings = require "am.chat.strings"
local values = require "am.chat.values"

local M = {}

local kind = values.kind

local function define(names, spec, fn)
    signature.define(M, names, spec, fn)
end

define("defined", "", function(_, v) return not values.is_undefined(v) end)
define("undefined", "", function(_, v) return values.is_undefined(v) end)
define("none", "", function(_, v) return v == values.None end)
define("boolean", "", function(_, v) return type(v) == "boolean" end)
define("true", "", function(_, v) return v == true end)
define("false", "", function(_, v) return v == false end)
define("integer", "", function(_, v) return type(v) == "number" end)
define("float", "", function(_, v) return kind(v) == "float" end)
define("number", "", function(_, v) return values.number(v) ~= nil end)
define("string", "", function(_, v) return values.text(v) ~= nil end)
define("mapping", "", function(_, v) return kind(v) == "dict" end)
define("iterable", "", function(_, v) return values.is_iterable(v) or kind(v) == "LoopContext" end)
define("escaped", "", function(_, v) return kind(v) == "Markup" end)
define("callable", "", function(_, v)
    return type(v) == "table" and (v.callable or values.is_undefined(v)) or false
end)

local sequences = { str = true, Markup = true, list = true, tuple = true, dict = true, range = true, Undefined = true }
define("sequence", "", function(_, v) return sequences[kind(v)] or false end)

define("lower", "", function(rt, v) return strings.is_cased(rt, rt:str(v), "lower") end)
define("upper", "", function(rt, v) return strings.is_cased(rt, rt:str(v), "upper") end)

local function modulo(rt, v, by)
    local x, y = values.number(v), values.number(by)
    if not x or not y then
        rt:check_defined(v)
        rt:fail("the test needs a number, not %s", kind(x and by or v))
    end
    return (values.number(operators.binary(rt, "%", v, by)))
end

define("odd", "", function(rt, v) return modulo(rt, v, 2) == 1 end)
define("even", "", function(rt, v) return modulo(rt, v, 2) == 0 end)
define("divisibleby", "num!", function(rt, v, num) return modulo(rt, v, num) == 0 end)

define("== eq equalto", "other!", function(rt, v, other) return values.equals(rt, v, other) end)
define("!= ne", "other!", function(rt, v, other) return not values.equals(rt, v, other) end)
define("< lt lessthan", "other!", function(rt, v, other) return values.less(rt, v, other, "<") end)
define("> gt greaterthan", "other!", function(rt, v, other) return values.less(rt, other, v, ">") end)
define("<= le", "other!", function(rt, v, other)
    return values.less(rt, v, other, "<=") or values.equals(rt, v, other)
end)
define(">= ge", "other!", function(rt, v, other)
    return values.less(rt, other, v, ">=") or values.equals(rt, v, other)
end)
define("in", "seq!", function(rt, v, seq) return values.contains(rt, seq, v) end)

-- Python's `is`; equal numbers and strings of one type count as the same object.
define("sameas", "other!", function(_, v, other)
    return v == other or (kind(v) == "float" and kind(other) == "float" and v.value == other.value)
end)

define("filter", "", function(rt, v) return rt.filters[values.hash(rt, v)] ~= nil end)
define("test", "", function(rt, v) return rt.tests[values.hash(rt, v)] ~= nil end)

return M
