-- How values become text: Python's str() and repr(), float digits, "%" formatting, str.format and
-- format specifications. JSON is in json.lua.

local unicode = require "am.utils.unicode"
local values = require "am.chat.values"

local M = {}

local MAX_NESTING = 100
local MAX_WIDTH = 100000

--- The text of a double as Python prints it: the shortest digits that read back the same.
function M.float_text(x)
    if x ~= x then return "nan" end
    if x == math.huge then return "inf" end
    if x == -math.huge then return "-inf" end
    local digits
    for precision = 0, 16 do
        digits = string.format("%." .. precision .. "e", x)
        if tonumber(digits) == x then break end
    end
    local sign, lead, fraction, exponent = digits:match("^(%-?)(%d)%.?(%d*)e([%+%-]%d+)$")
    exponent = tonumber(exponent)
    local all = lead .. fraction
    if exponent < -4 or exponent >= 16 then
        local mantissa = fraction == "" and lead or lead .. "." .. fraction
        return ("%s%se%s%02d"):format(sign, mantissa, exponent < 0 and "-" or "+", math.abs(exponent))
    end
    if exponent < 0 then return sign .. "0." .. ("0"):rep(-exponent - 1) .. all end
    if #all <= exponent + 1 then return sign .. all .. ("0"):rep(exponent + 1 - #all) .. ".0" end
    return sign .. all:sub(1, exponent + 1) .. "." .. all:sub(exponent + 2)
end

--- x with `digits` decimals, an exact tie going to the even digit as in Python (LuaJIT's own "%.nf"
--- rounds ties away from zero).
function M.fixed(x, digits)
    local extra = math.min(40, 99 - digits)
    local long = ("%." .. digits + extra .. "f"):format(x)
    local keep, tail = long:sub(1, -extra - 1), long:sub(-extra)
    local last = keep:match("(%d)%.?$")
    if tail:find("^50*$") and last and tonumber(last) % 2 == 0 then return (keep:gsub("%.$", "")) end
    return ("%." .. digits .. "f"):format(x)
end

function M.int_text(n)
    return ("%.0f"):format(n)
end

local named_escapes = { ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t", ["\\"] = "\\\\" }

local function quote(s)
    local mark = (s:find("'", 1, true) and not s:find('"', 1, true)) and '"' or "'"
    local body = s:gsub("[%c\\\127]", function(c)
        return named_escapes[c] or ("\\x%02x"):format(c:byte())
    end)
    if mark == "'" then body = body:gsub("'", "\\'") end
    if body:find("[\128-\255]") then
        body = body:gsub("[\194-\244][\128-\191]+", function(c)
            if unicode.is_printable(c) then return nil end
            local cp = unicode.decode(c)
            return (cp < 256 and "\\x%02x" or cp < 65536 and "\\u%04x" or "\\U%08x"):format(cp)
        end)
    end
    return mark .. body .. mark
end

local write_repr

local function write_items(rt, out, items, depth)
    for i, item in ipairs(items) do
        if i > 1 then out[#out + 1] = ", " end
        write_repr(rt, out, item, depth)
    end
end

local writers = {}

function writers.list(rt, out, v, depth)
    out[#out + 1] = "["
    write_items(rt, out, v, depth)
    out[#out + 1] = "]"
end

function writers.tuple(rt, out, v, depth)
    out[#out + 1] = "("
    write_items(rt, out, v, depth)
    out[#out + 1] = #v == 1 and ",)" or ")"
end

function writers.dict(rt, out, v, depth)
    local first = true
    out[#out + 1] = "{"
    values.dict_each(rt, v, function(key, item)
        if not first then out[#out + 1] = ", " end
        first = false
        write_repr(rt, out, key, depth)
        out[#out + 1] = ": "
        write_repr(rt, out, item, depth)
    end)
    out[#out + 1] = "}"
end

function writers.Namespace(rt, out, v, depth)
    out[#out + 1] = "<Namespace "
    writers.dict(rt, out, v.attrs, depth)
    out[#out + 1] = ">"
end

function writers.NoneType(_, out) out[#out + 1] = "None" end
function writers.Undefined(_, out) out[#out + 1] = "Undefined" end
function writers.float(_, out, v) out[#out + 1] = M.float_text(v.value) end
function writers.Markup(_, out, v) out[#out + 1] = "Markup(" .. quote(v.text) .. ")" end
function writers.Macro(_, out, v)
    out[#out + 1] = "<Macro " .. (v.name and quote(v.name) or "anonymous") .. ">"
end
writers["function"] = function(_, out, v) out[#out + 1] = "<function " .. v.name .. ">" end
function writers.LoopContext(_, out, v)
    out[#out + 1] = ("<LoopContext %d/%d>"):format(v.index0 + 1, #v.items)
end

function write_repr(rt, out, v, depth)
    local t = type(v)
    if t == "string" then
        rt:charge(1 + math.floor(#v / 16))
        out[#out + 1] = quote(v)
    elseif t == "number" then
        out[#out + 1] = M.int_text(v)
    elseif t == "boolean" then
        out[#out + 1] = v and "True" or "False"
    else
        rt:charge(2)
        if depth >= MAX_NESTING then rt:fail("a value is nested too deeply to print") end
        local writer = writers[v.kind]
        if writer then
            writer(rt, out, v, depth + 1)
        elseif v.text then
            out[#out + 1] = v.text
        elseif getmetatable(v) == values.View then
            out[#out + 1] = v.kind .. "("
            writers.list(rt, out, v.items, depth + 1)
            out[#out + 1] = ")"
        else
            out[#out + 1] = "<" .. v.kind .. " object>"
        end
    end
end

--- Python's repr(v).
function M.repr(rt, v)
    local out = {}
    write_repr(rt, out, v, 0)
    return table.concat(out)
end

--- Python's str(v), with Undefined as the empty string.
function M.str(rt, v)
    local t = type(v)
    if t == "string" then return v end
    if t == "table" then
        if v.kind == "Markup" then return v.text end
        if v.kind == "Undefined" then return "" end
    end
    return M.repr(rt, v)
end

-- format specifications -------------------------------------------------------------------------------

local function pad(rt, s, width, fill, align)
    if width > MAX_WIDTH then rt:fail("format width %d is too large", width) end
    local missing = width - values.string_length(s)
    if missing <= 0 then return s end
    rt:allocate(missing)
    if align == "<" then return s .. fill:rep(missing) end
    if align == "^" then
        local left = math.floor(missing / 2)
        return fill:rep(left) .. s .. fill:rep(missing - left)
    end
    if align == "=" then
        local sign, rest = s:match("^([%+%- ]?)(.*)$")
        return sign .. fill:rep(missing) .. rest
    end
    return fill:rep(missing) .. s
end

-- The first `count` code points.
local function shorten(rt, s, count)
    local list = values.characters(rt, s)
    return table.concat(list, "", 1, math.min(count, #list))
end

local function group_thousands(digits, mark)
    local whole, rest = digits:match("^(%d+)(.*)$")
    if not whole then return digits end
    whole = whole:reverse():gsub("(%d%d%d)", "%1" .. mark):reverse()
    return (whole:gsub("^[,_]", "")) .. rest
end

local function in_base(n, base)
    if n == 0 then return "0" end
    local digits = {}
    while n > 0 do
        digits[#digits + 1] = ("0123456789abcdef"):sub(n % base + 1, n % base + 1)
        n = math.floor(n / base)
    end
    return table.concat(digits):reverse()
end

-- The unsigned text of |x| for a presentation type.
local function magnitude(rt, x, is_float, type, precision, alternate)
    local lower = type:lower()
    if type == "%" then return M.fixed(x * 100, precision or 6) .. "%" end
    if lower == "f" or lower == "e" then
        if x ~= x or x == math.huge then return (x ~= x and "nan" or "inf") end
        if lower == "f" then return M.fixed(x, precision or 6) end
        return ("%." .. (precision or 6) .. type):format(x)
    end
    if lower == "g" then return ("%" .. (alternate and "#" or "") .. "." .. (precision or 6) .. type):format(x) end
    if type == "" and is_float then
        if not precision then return M.float_text(x) end
        local text = ("%." .. precision .. "g"):format(x)
        return text:find("[%.en]") and text or text .. ".0"
    end
    if is_float then rt:fail("unknown format code '%s' for object of type 'float'", type) end
    if type == "" or type == "d" or type == "n" then return M.int_text(x) end
    if type == "c" then
        if x > 0x10FFFF then rt:fail("%%c arg not in range(0x110000)") end
        return unicode.encode(x)
    end
    local base = ({ b = 2, o = 8, x = 16, X = 16 })[type] or rt:fail("unknown format code '%s'", type)
    local digits = in_base(x, base)
    if type == "X" then digits = digits:upper() end
    return (alternate and "0" .. type or "") .. digits
end

--- Python's format(v, spec).
function M.format_value(rt, v, spec)
    if spec == "" then return M.str(rt, v) end
    local fill, align, rest = spec:match("^([^\128-\191][\128-\191]*)([<>=%^])(.*)$")
    if not fill then
        align, rest = spec:match("^([<>=%^]?)(.*)$")
        fill = " "
    end
    local sign, alternate, zero, width, grouping, precision, type =
        rest:match("^([%+%- ]?)(#?)(0?)(%d*)([,_]?)%.?(%d*)(.?)$")
    if not sign then rt:fail("invalid format specifier '%s'", spec) end
    if rest:find("%.$") or #precision > 2 then rt:fail("invalid precision in format specifier '%s'", spec) end
    if zero == "0" and align == "" then fill, align = "0", "=" end
    precision = tonumber(precision)
    width = tonumber(width) or 0
    local s = values.text(v)
    if s then
        if type ~= "" and type ~= "s" then rt:fail("unknown format code '%s' for '%s'", type, values.kind(v)) end
        if align == "=" and zero == "" or sign ~= "" or alternate ~= "" or grouping ~= "" then
            rt:fail("the format specifier '%s' is none for a string", spec)
        end
        if precision then s = shorten(rt, s, precision) end
        return pad(rt, s, width, fill, (align == "" or align == "=") and "<" or align)
    elseif values.number(v) == nil then
        rt:fail("unsupported format string passed to %s.__format__", values.kind(v))
    end
    local x, is_float = values.number(v)
    local text = magnitude(rt, math.abs(x), is_float, type, precision, alternate == "#")
    if grouping ~= "" then text = group_thousands(text, grouping) end
    local negative = x < 0 or 1 / x < 0 and is_float
    text = (negative and "-" or sign == "-" and "" or sign) .. text
    return pad(rt, text, width, fill, align == "" and ">" or align)
end

-- One field name of str.format ("0.name[key]") looked up.
local function field_value(rt, name, state, args, kwargs)
    local head, path = name:match("^([^%.%[]*)(.*)$")
    local v
    if head == "" or head:find("^%d+$") then
        local numbering = head == "" and "automatic" or "manual"
        if state.numbering and state.numbering ~= numbering then
            rt:fail("str.format: automatic and manual field numbers cannot be mixed")
        end
        state.numbering = numbering
        v = args[head == "" and state.auto or tonumber(head) + 1]
        state.auto = state.auto + 1
    else
        v = kwargs.map[head]
    end
    if v == nil then rt:fail("str.format: no value for the field '{%s}'", name) end
    for mark, part in path:gmatch("([%.%[])([^%.%[%]]+)%]?") do
        if mark == "." then v = rt:getattr(v, part) else v = rt:getitem(v, tonumber(part) or part) end
    end
    return v
end

--- str.format with positional and keyword arguments.
function M.format(rt, template, args, kwargs)
    local out, pos, state = {}, 1, { auto = 1 }
    while true do
        local start = template:find("[{}]", pos)
        if not start then break end
        out[#out + 1] = template:sub(pos, start - 1)
        local pair = template:sub(start, start + 1)
        if pair == "{{" or pair == "}}" then
            out[#out + 1] = pair:sub(1, 1)
            pos = start + 2
        else
            local name, conversion, spec, stop = template:match("^{([^{}!:]*)!?([rsa]?):?([^{}]*)}()", start)
            if not name then rt:fail("str.format: malformed field in the format string") end
            local v = field_value(rt, name, state, args, kwargs)
            if conversion ~= "" then v = conversion == "s" and M.str(rt, v) or M.repr(rt, v) end
            out[#out + 1] = M.format_value(rt, v, spec)
            pos = stop
        end
    end
    out[#out + 1] = template:sub(pos)
    return table.concat(out)
end

local function percent_item(rt, v, flags, width, precision, type)
    local left = flags:find("-", 1, true)
    local text
    if type == "s" or type == "r" or type == "a" then
        text = type == "s" and M.str(rt, v) or M.repr(rt, v)
        if precision then text = shorten(rt, text, precision) end
        return pad(rt, text, width, " ", left and "<" or ">")
    end
    if type == "c" and values.text(v) then
        if values.string_length(values.text(v)) ~= 1 then rt:fail("%%c requires int or char") end
        return pad(rt, values.text(v), width, " ", left and "<" or ">")
    end
    local x, is_float = values.number(v)
    if not x then
        rt:check_defined(v)
        rt:fail("%%%s format: a number is required, not %s", type, values.kind(v))
    end
    if type == "i" or type == "u" then type = "d" end
    if type:find("[dxXoc]") and is_float then
        if type ~= "d" then rt:fail("%%%s format: an integer is required, not float", type) end
        x, is_float = (x < 0 and math.ceil or math.floor)(x), false
    end
    if type == "c" and x < 0 then rt:fail("%%c arg not in range(0x110000)") end
    text = magnitude(rt, math.abs(x), is_float, type, precision, flags:find("#", 1, true))
    local sign = x < 0 and "-" or flags:find("+", 1, true) and "+" or flags:find(" ", 1, true) and " " or ""
    local zero = flags:find("0", 1, true) and not left
    return pad(rt, sign .. text, width, zero and "0" or " ", left and "<" or zero and "=" or ">")
end

--- Python's template % operand: `args` is an array of values, `mapping` a dict for %(name)s or another
--- operand that excuses unused arguments, or nil.
function M.percent(rt, template, args, mapping)
    local out, pos, used = {}, 1, 0
    local function take()
        used = used + 1
        if args[used] == nil then rt:fail("not enough arguments for format string") end
        return args[used]
    end
    while true do
        local start = template:find("%", pos, true)
        if not start then break end
        out[#out + 1] = template:sub(pos, start - 1)
        local key = template:match("^%((.-)%)", start + 1)
        local after = start + 1 + (key and #key + 2 or 0)
        local flags, width, precision, type, stop =
            template:match("^([%-%+ #0]*)(%d*%*?)(%.?%d*)[hlL]?([%%diouxXeEfFgGcrsa])()", after)
        if not type then rt:fail("incomplete or unsupported '%%' format") end
        if type == "%" then
            out[#out + 1] = "%"
        else
            if #precision > 3 then rt:fail("format precision %s is too large", precision) end
            if width == "*" then width = values.number(take()) end
            local v
            if key then
                if mapping and values.kind(mapping) == "dict" then v = values.dict_get(rt, mapping, key) end
                if v == nil then rt:fail("format requires a mapping with the key '%s'", key) end
            else
                v = take()
            end
            precision = precision ~= "" and (tonumber(precision:sub(2)) or 0) or nil
            out[#out + 1] = percent_item(rt, v, flags, tonumber(width) or 0, precision, type)
        end
        pos = stop
    end
    if used < #args and not mapping then rt:fail("not all arguments converted during string formatting") end
    out[#out + 1] = template:sub(pos)
    return table.concat(out)
end

return M
