-- Operators on values: arithmetic, slicing, subscripts and attributes, with Python's types and errors.

local methods = require "am.chat.methods"
local printing = require "am.chat.printing"
local values = require "am.chat.values"

local M = {}

local kind, number, text = values.kind, values.number, values.text

-- A number back as int or float.
local function numeric(rt, x, is_float)
    if is_float then return values.float(x) end
    if math.abs(x) > values.MAX_INT then rt:fail("an integer grew beyond 2^53") end
    return x == 0 and 0 or x -- a double's -0 is no integer
end

local function type_error(rt, op, a, b)
    rt:check_defined(a)
    rt:check_defined(b)
    rt:fail("unsupported operand type(s) for %s: '%s' and '%s'", op, kind(a), kind(b))
end

local function nonzero(rt, y)
    if y == 0 then rt:fail("division by zero") end
    return y
end

local arithmetic = {}
arithmetic["+"] = function(_, x, y) return x + y end
arithmetic["-"] = function(_, x, y) return x - y end
arithmetic["*"] = function(_, x, y) return x * y end
arithmetic["/"] = function(rt, x, y) return x / nonzero(rt, y), true end
-- Lua's own % rounds; this one is exact, as Python's.
local function modulo(rt, x, y)
    local rest = math.fmod(x, nonzero(rt, y))
    if rest == 0 then return y < 0 and -0.0 or 0 end
    return (rest < 0) ~= (y < 0) and rest + y or rest
end
arithmetic["%"] = modulo
arithmetic["//"] = function(rt, x, y)
    local rest = math.fmod(x, nonzero(rt, y))
    local quotient = (x - rest) / y
    if rest ~= 0 and (rest < 0) ~= (y < 0) then quotient = quotient - 1 end
    local whole = math.floor(quotient)
    if quotient - whole > 0.5 then whole = whole + 1 end
    return whole == 0 and 0 * (x / y) or whole
end
arithmetic["**"] = function(rt, x, y)
    if x == 0 and y < 0 then rt:fail("0 cannot be raised to a negative power") end
    if x < 0 and y ~= math.floor(y) then rt:fail("a power that is a complex number") end
    return x ^ y, y < 0
end

local function concatenate(rt, a, b)
    rt:allocate(#a + #b)
    return a .. b
end

local function add_text(rt, a, b)
    local s, t = text(a), text(b)
    if kind(a) == "Markup" or kind(b) == "Markup" then
        if kind(a) == "str" then s = methods.escape(rt, s) end
        if kind(b) == "str" then t = methods.escape(rt, t) end
        return values.markup(concatenate(rt, s, t))
    end
    return concatenate(rt, s, t)
end

local function add_lists(rt, a, b)
    rt:charge(#a + #b)
    local out = setmetatable({}, getmetatable(a))
    for i, item in ipairs(a) do out[i] = item end
    for _, item in ipairs(b) do out[#out + 1] = item end
    return out
end

local function is_int(v)
    local n, is_float = number(v)
    return n ~= nil and not is_float
end

-- str, list or tuple repeated `count` times.
local function multiply(rt, v, count)
    count = math.max(count, 0)
    local s = text(v)
    if s then
        rt:allocate(#s * count)
        local out = s:rep(count)
        return kind(v) == "Markup" and values.markup(out) or out
    end
    rt:charge(#v * count)
    local out = setmetatable({}, getmetatable(v))
    for _ = 1, #v > 0 and count or 0 do
        for _, item in ipairs(v) do out[#out + 1] = item end
    end
    return out
end

local function percent(rt, template, operand)
    local args, mapping = { operand }, nil
    if kind(operand) == "tuple" then args = operand end
    -- a subscriptable operand counts as a mapping, which need not be used up
    local k = kind(operand)
    if k == "dict" or k == "list" or k == "range" or k == "Undefined" then mapping = operand end
    return printing.percent(rt, template, args, mapping)
end

--- a op b for the binary arithmetic operators.
function M.binary(rt, op, a, b)
    local x, x_float = number(a)
    local y, y_float = number(b)
    if x and y then
        local result, always_float = arithmetic[op](rt, x, y)
        return numeric(rt, result, always_float or x_float or y_float)
    end
    if op == "+" then
        if text(a) and text(b) then return add_text(rt, a, b) end
        if values.is_sequence(a) and kind(a) == kind(b) then return add_lists(rt, a, b) end
        if text(a) then
            rt:check_defined(b)
            rt:fail('can only concatenate str (not "%s") to str', kind(b))
        end
    elseif op == "*" then
        if is_int(b) and (text(a) or values.is_sequence(a)) then return multiply(rt, a, y) end
        if is_int(a) and (text(b) or values.is_sequence(b)) then return multiply(rt, b, x) end
    elseif op == "%" and text(a) then
        local out = percent(rt, text(a), b)
        return kind(a) == "Markup" and values.markup(out) or out
    end
    type_error(rt, op, a, b)
end

--- -v or +v.
function M.unary(rt, op, v)
    local x, is_float = number(v)
    if not x then
        rt:check_defined(v)
        rt:fail("bad operand type for unary %s: '%s'", op, kind(v))
    end
    if op == "-" then x = -x end
    return numeric(rt, x, is_float)
end

-- subscripts ----------------------------------------------------------------------------------------

-- A slice bound as Python clamps it: 0-based positions into `count` items.
local function slice_bounds(rt, count, start, stop, step)
    local function int(v, name)
        if v == nil or v == values.None then return nil end
        if not is_int(v) then
            rt:check_defined(v)
            rt:fail("slice %s must be an integer or None", name)
        end
        return (number(v))
    end
    start, stop, step = int(start, "start"), int(stop, "stop"), int(step, "step") or 1
    if step == 0 then rt:fail("slice step cannot be zero") end
    local low, high = 0, count
    if step < 0 then low, high = -1, count - 1 end
    local function clamp(i, default)
        if not i then return default end
        if i < 0 then i = i + count end
        return math.max(low, math.min(high, i))
    end
    if step > 0 then return clamp(start, 0), clamp(stop, count), step end
    return clamp(start, count - 1), clamp(stop, -1), step
end

--- v[start:stop:step]; bounds are values or nil.
function M.slice(rt, v, start, stop, step)
    local s = text(v)
    local is_range = kind(v) == "range"
    if s and not s:find("[\128-\255]") and (step == nil or step == values.None) then
        local first, last = slice_bounds(rt, #s, start, stop)
        rt:allocate(#s)
        s = s:sub(first + 1, last)
        return kind(v) == "Markup" and values.markup(s) or s
    end
    local items = s and values.characters(rt, s) or is_range and v.items or v
    if not s and not is_range and not values.is_sequence(v) then
        rt:check_defined(v)
        rt:fail("'%s' object is not subscriptable by a slice", kind(v))
    end
    rt:charge(#items)
    local first, last, stride = slice_bounds(rt, #items, start, stop, step)
    if is_range then return values.range(v.start + first * v.step, v.start + last * v.step, v.step * stride) end
    local out, n = {}, 0
    for i = first, last + (stride > 0 and -1 or 1), stride do
        n = n + 1
        out[n] = items[i + 1]
    end
    if s then
        s = table.concat(out)
        return kind(v) == "Markup" and values.markup(s) or s
    end
    return kind(v) == "tuple" and values.tuple(out) or values.list(out)
end

local function character(rt, s, index)
    if s:find("[\128-\255]") then
        local list = values.characters(rt, s)
        return list[index < 0 and index + #list + 1 or index + 1]
    end
    if index < 0 then index = index + #s end
    if index < 0 or index >= #s then return nil end
    return s:sub(index + 1, index + 1)
end

-- The item at an index or key, or nil where Python would raise a TypeError or LookupError.
local function item(rt, v, index)
    local k = kind(v)
    if k == "dict" then
        local ik = kind(index)
        if ik == "list" or ik == "dict" then return nil end
        return values.dict_get(rt, v, index)
    end
    if not is_int(index) then return nil end
    local i = number(index)
    if k == "str" then return character(rt, v, i) end
    if k == "Markup" then
        local c = character(rt, v.text, i)
        return c and values.markup(c)
    end
    local items = (k == "list" or k == "tuple") and v or k == "range" and v.items
    if items then return items[i < 0 and i + #items + 1 or i + 1] end
end

-- An attribute proper (a method or a field), or nil.
local function attribute(rt, v, name)
    if type(v) == "table" and v.attribute then
        local found = v:attribute(rt, name)
        if found ~= nil then return found end
    end
    return methods.bound(rt, v, name)
end

--- v[index] as Jinja's environment does it: the item, else an attribute of that name, else undefined.
function M.getitem(rt, v, index)
    rt:check_defined(v)
    local found = item(rt, v, index)
    if found == nil and text(index) then found = attribute(rt, v, text(index)) end
    if found ~= nil then return found end
    return values.undefined(index, v)
end

--- v.name as Jinja's environment does it: the attribute, else the item of that key, else undefined.
function M.getattr(rt, v, name)
    rt:check_defined(v)
    local found = attribute(rt, v, name)
    if found == nil then found = item(rt, v, name) end
    if found ~= nil then return found end
    return values.undefined(name, v)
end

--- The attribute only, as the `attr` filter wants it.
function M.attribute_only(rt, v, name)
    rt:check_defined(v)
    local found = attribute(rt, v, name)
    if found ~= nil then return found end
    return values.undefined(name, v)
end

return M
