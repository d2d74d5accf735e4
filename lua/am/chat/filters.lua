-- Jinja's built-in filters, with transformers' own `tojson`: a registry of definitions (signature.lua)
-- called as fn(rt, value, …). Filters that only make HTML (xmlattr, urlize, striptags) and those whose
-- result is not reproducible (random) or merely for debugging (pprint, wordwrap) are left out.

local json = require "am.chat.json"
local methods = require "am.chat.methods"
local operators = require "am.chat.operators"
local printing = require "am.chat.printing"
local signature = require "am.chat.signature"
local strings = require "am.chat.strings"
local unicode = require "am.utils.unicode"
local values = require "am.chat.values"

local M = {}

local kind, text, truthy = values.kind, values.text, values.truthy

local function define(names, spec, fn)
    signature.define(M, names, spec, fn)
end

-- An optional bool argument.
local function flag(v)
    return v ~= nil and truthy(v)
end

-- An optional argument where None means absent.
local function given(v)
    if v ~= values.None then return v end
end

local function integer(rt, v, default)
    return strings.int_argument(rt, v, default)
end

-- text ----------------------------------------------------------------------------------------------

-- A filter that is a str method on the printed value; Markup stays Markup.
local function define_text(names, spec, fn)
    define(names, spec, function(rt, v, ...)
        local s = rt:str(v)
        rt:allocate(#s)
        s = fn(rt, s, ...)
        return kind(v) == "Markup" and values.markup(s) or s
    end)
end

define_text("upper", "", strings.upper)
define_text("lower", "", strings.lower)
define_text("capitalize", "", strings.capitalize)
define_text("string", "", function(_, s) return s end)
define_text("center", "width", function(rt, s, width) return strings.center(rt, s, width or 80) end)
define_text("trim", "chars", function(rt, s, chars)
    return strings.strip(s, strings.text_argument(rt, chars), true, true, rt)
end)

define_text("title", "", function(rt, s)
    local list, in_word = values.characters(rt, s), false
    for i, c in ipairs(list) do
        if unicode.is_space(c) or c:find("^[%-%({%[<]$") then
            in_word = false
        else
            list[i] = in_word and unicode.lower(c) or unicode.upper(c)
            in_word = true
        end
    end
    return table.concat(list)
end)

define("replace", "old! new! count", function(rt, v, old, new, count)
    return strings.replace(rt, rt:str(v), rt:str(old), rt:str(new), integer(rt, count))
end)

define("indent", "width first blank", function(rt, v, width, first, blank)
    local s = text(v)
    if not s then
        rt:check_defined(v)
        rt:fail("indent needs a str, not %s", kind(v))
    end
    local margin = text(width)
    if not margin then
        local count = integer(rt, width, 4)
        rt:allocate(count)
        margin = (" "):rep(count)
    end
    local lines = strings.splitlines(rt, s .. "\n")
    local size = #s
    for i, line in ipairs(lines) do
        if (i > 1 or flag(first)) and (flag(blank) or line ~= "" or i == 1) then lines[i] = margin .. line end
        size = size + #margin
        rt:allocate(size)
    end
    local out = table.concat(lines, "\n")
    return kind(v) == "Markup" and values.markup(out) or out
end)

define("truncate", "length killwords end leeway", function(rt, v, length, killwords, ending, leeway)
    local limit, mark = integer(rt, length, 255), strings.text_argument(rt, ending, "...")
    local mark_length = values.string_length(mark)
    if limit < mark_length then rt:fail("truncate: the length must be at least %d", mark_length) end
    if values.length(rt, v) <= limit + integer(rt, leeway, 5) then return v end
    local s = text(v) or rt:fail("truncate needs a str, not %s", kind(v))
    local kept = table.concat(values.characters(rt, s), "", 1, limit - mark_length)
    if not flag(killwords) then kept = kept:match("^(.*) ") or kept end
    return kept .. mark
end)

define("wordcount", "", function(rt, v)
    local count, in_word = 0, false
    for _, c in ipairs(values.iterate(rt, rt:str(v))) do
        local word_character = c == "_" or unicode.is_digit(c) or unicode.is_alpha(c)
        if word_character and not in_word then count = count + 1 end
        in_word = word_character
    end
    return count
end)

define("format", "...", function(rt, v, args, kwargs)
    if #args > 0 and #kwargs.keys > 0 then
        rt:fail("format cannot take positional and keyword arguments at the same time")
    end
    return printing.percent(rt, rt:str(v), args, #kwargs.keys > 0 and kwargs or nil)
end)

define("escape e", "", function(rt, v)
    if kind(v) == "Markup" then return v end
    return values.markup(methods.escape(rt, rt:str(v)))
end)
define("forceescape", "", function(rt, v) return values.markup(methods.escape(rt, rt:str(v))) end)
define("safe", "", function(rt, v) return values.markup(rt:str(v)) end)

define("urlencode", "", function(rt, v)
    local pairs_of = v
    if kind(v) == "dict" then
        pairs_of = methods.dict_items(rt, v)
    elseif text(v) or not values.is_iterable(v) then
        return strings.percent_encode(rt, rt:str(v), "/")
    end
    local parts = {}
    for i, pair in ipairs(values.iterate(rt, pairs_of)) do
        local items = values.iterate(rt, pair)
        if #items ~= 2 then rt:fail("urlencode needs pairs of key and value") end
        local encode = strings.percent_encode
        parts[i] = (encode(rt, rt:str(items[1]), " ") .. "=" .. encode(rt, rt:str(items[2]), " ")):gsub(" ", "+")
    end
    return table.concat(parts, "&")
end)

define("tojson", "ensure_ascii indent separators sort_keys",
    function(rt, v, ensure_ascii, indent, separators, sort_keys)
        local opts = { ensure_ascii = flag(ensure_ascii), sort_keys = flag(sort_keys) }
        indent = given(indent)
        if indent ~= nil then
            local count = values.number(indent)
            if count and count > 1000 then rt:fail("a JSON indent of %d is too large", count) end
            opts.indent = count and (" "):rep(count) or rt:str(indent)
        end
        if given(separators) then
            local two = values.iterate(rt, separators)
            opts.item_separator, opts.key_separator = rt:str(two[1] or ""), rt:str(two[2] or "")
        end
        return json.encode(rt, v, opts)
    end)

-- numbers -------------------------------------------------------------------------------------------

define("abs", "", function(rt, v)
    local x, is_float = values.number(v)
    if not x then
        rt:check_defined(v)
        rt:fail("bad operand type for abs(): '%s'", kind(v))
    end
    return is_float and values.float(math.abs(x)) or math.abs(x)
end)

-- Python's float(s), or nil.
local function parse_float(s)
    s = strings.strip(s, nil, true, true):gsub("(%d)_(%d)", "%1%2"):lower()
    local word = s:match("^[%+%-]?(%a+)$")
    if word == "inf" or word == "infinity" then return s:sub(1, 1) == "-" and -math.huge or math.huge end
    if word == "nan" then return 0 / 0 end
    if s:find("^[%+%-]?%d+%.?%d*e?[%+%-]?%d*$") or s:find("^[%+%-]?%.%d+e?[%+%-]?%d*$") then
        return tonumber((s:gsub("^%+", "")))
    end
end

define("float", "default", function(rt, v, default)
    rt:check_defined(v)
    local x = values.number(v) or text(v) and parse_float(text(v))
    if x then return values.float(x) end
    return default == nil and values.float(0) or default
end)

define("int", "default base", function(rt, v, default, base)
    base = integer(rt, base, 10)
    rt:check_defined(v)
    local n = text(v) and base <= 36 and (base == 0 or base >= 2) and strings.parse_int(text(v), base)
    if not n then
        local x = values.number(v) or text(v) and parse_float(text(v))
        if x and x == x and math.abs(x) ~= math.huge then n = x < 0 and math.ceil(x) or math.floor(x) end
    end
    if not n then return default == nil and 0 or default end
    if math.abs(n) > values.MAX_INT then rt:fail("the integer is larger than 2^53") end
    return n == 0 and 0 or n
end)

define("round", "precision method", function(rt, v, precision, method)
    local x, is_float = values.number(v)
    if not x then
        rt:check_defined(v)
        rt:fail("round needs a number, not %s", kind(v))
    end
    local digits, how = integer(rt, precision, 0), method == nil and "common" or method
    if math.abs(digits) > 50 then rt:fail("round: a precision of %d is too large", digits) end
    local scale = 10 ^ digits
    if how == "ceil" or how == "floor" then return values.float((math[how](x * scale) + 0) / scale) end
    if how ~= "common" then rt:fail("round: the method must be common, ceil or floor") end
    if digits >= 0 then
        if not is_float then return x end
        return values.float(tonumber(printing.fixed(x, digits)))
    end
    x = tonumber(printing.fixed(x * scale, 0)) / scale
    if is_float then return values.float(x) end
    return x == 0 and 0 or x
end)

define("filesizeformat", "binary", function(rt, v, binary)
    local bytes = values.number(v) or parse_float(rt:str(v)) or rt:fail("filesizeformat needs a number")
    local base = flag(binary) and 1024 or 1000
    if bytes == 1 then return "1 Byte" end
    if bytes < base then return ("%d Bytes"):format(bytes) end
    local names = flag(binary) and { "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB" }
        or { "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB" }
    local index = 1
    while index < #names and bytes >= base ^ (index + 1) do index = index + 1 end
    return ("%.1f %s"):format(bytes / base ^ index, names[index])
end)

-- items ---------------------------------------------------------------------------------------------

define("length count", "", values.length)
define("default d", "default_value boolean", function(_, v, default, boolean)
    if values.is_undefined(v) or (flag(boolean) and not truthy(v)) then
        if default == nil then return "" end
        return default
    end
    return v
end)

define("attr", "name!", function(rt, v, name) return operators.attribute_only(rt, v, rt:str(name)) end)

define("first", "", function(rt, v)
    if getmetatable(v) == values.Iterator then
        local item = v.items[v.next]
        if item ~= nil then
            v.next = v.next + 1
            return item
        end
    else
        local item = values.iterate(rt, v)[1]
        if item ~= nil then return item end
    end
    return values.undefined(nil, nil, "no first item, the sequence was empty")
end)

define("last", "", function(rt, v)
    if getmetatable(v) == values.Iterator then rt:fail("'%s' object is not reversible", kind(v)) end
    local items = values.iterate(rt, v)
    if #items > 0 then return items[#items] end
    return values.undefined(nil, nil, "no last item, the sequence was empty")
end)

local function copied(rt, v)
    local out = values.list()
    for i, item in ipairs(values.iterate(rt, v)) do out[i] = item end
    return out
end

define("list", "", copied)

define("reverse", "", function(rt, v)
    local items, out = values.iterate(rt, v), values.list()
    for i = #items, 1, -1 do out[#out + 1] = items[i] end
    if text(v) then
        local s = table.concat(out)
        return kind(v) == "Markup" and values.markup(s) or s
    end
    if getmetatable(v) == values.Iterator then return out end
    return values.iterator(out, kind(v) .. "_reverseiterator")
end)

define("items", "", function(rt, v)
    if values.is_undefined(v) then return values.iterator({}) end
    if kind(v) ~= "dict" then rt:fail("can only get item pairs from a mapping, not %s", kind(v)) end
    return values.iterator(methods.dict_items(rt, v))
end)

-- A function that digs out "a.b.0" (or item n, or the item itself when `attribute` is nil).
local function getter(rt, attribute, default, fold_case)
    local path = {}
    attribute, default = given(attribute), given(default)
    if text(attribute) then
        for part in (text(attribute) .. "."):gmatch("([^%.]*)%.") do
            path[#path + 1] = part:find("^%d+$") and tonumber(part) or part
        end
    elseif attribute ~= nil then
        path[1] = attribute
    end
    return function(item)
        for _, part in ipairs(path) do
            item = rt:getitem(item, part)
            if default ~= nil and values.is_undefined(item) then item = default end
        end
        if fold_case and text(item) then return unicode.lower(text(item)) end
        return item
    end
end

define("join", "d attribute", function(rt, v, separator, attribute)
    local get, parts = getter(rt, attribute), {}
    for i, item in ipairs(values.iterate(rt, v)) do parts[i] = rt:str(get(item)) end
    return strings.join(rt, separator == nil and "" or rt:str(separator), parts)
end)

define("sum", "attribute start", function(rt, v, attribute, start)
    local get, total = getter(rt, attribute), start == nil and 0 or start
    for _, item in ipairs(values.iterate(rt, v)) do total = operators.binary(rt, "+", total, get(item)) end
    return total
end)

define("sort", "reverse case_sensitive attribute", function(rt, v, reverse, case_sensitive, attribute)
    local getters = {}
    attribute = given(attribute)
    if text(attribute) then
        for part in text(attribute):gmatch("[^,]+") do
            getters[#getters + 1] = getter(rt, part, nil, not flag(case_sensitive))
        end
    else
        getters[1] = getter(rt, attribute, nil, not flag(case_sensitive))
    end
    return rt:sorted(values.iterate(rt, v), function(item)
        local key = values.list()
        for i, get in ipairs(getters) do key[i] = get(item) end
        return key
    end, flag(reverse))
end)

define("dictsort", "case_sensitive by reverse", function(rt, v, case_sensitive, by, reverse)
    if kind(v) ~= "dict" then
        rt:check_defined(v)
        rt:fail("dictsort needs a mapping, not %s", kind(v))
    end
    local position = ({ key = 1, value = 2 })[by == nil and "key" or by]
    if not position then rt:fail('dictsort: `by` must be "key" or "value"') end
    local fold = getter(rt, nil, nil, not flag(case_sensitive))
    return rt:sorted(methods.dict_items(rt, v), function(item) return fold(item[position]) end, flag(reverse))
end)

define("unique", "case_sensitive attribute", function(rt, v, case_sensitive, attribute)
    local get, seen, out = getter(rt, attribute, nil, not flag(case_sensitive)), {}, {}
    for _, item in ipairs(values.iterate(rt, v)) do
        local key = values.hash(rt, get(item))
        if not seen[key] then
            seen[key] = true
            out[#out + 1] = item
        end
    end
    return values.iterator(out)
end)

local function extreme(rt, v, case_sensitive, attribute, better)
    local get, best, best_key = getter(rt, attribute, nil, not flag(case_sensitive)), nil, nil
    for _, item in ipairs(values.iterate(rt, v)) do
        local key = get(item)
        if best == nil or better(key, best_key) then best, best_key = item, key end
    end
    if best ~= nil then return best end
    return values.undefined(nil, nil, "no aggregated item, the sequence was empty")
end

define("min", "case_sensitive attribute", function(rt, v, case_sensitive, attribute)
    return extreme(rt, v, case_sensitive, attribute, function(a, b) return values.less(rt, a, b) end)
end)
define("max", "case_sensitive attribute", function(rt, v, case_sensitive, attribute)
    return extreme(rt, v, case_sensitive, attribute, function(a, b) return values.less(rt, b, a, ">") end)
end)

local group_fields = { grouper = 1, list = 2 }
local function group_attribute(group, _, name)
    return group_fields[name] and group[group_fields[name]]
end

define("groupby", "attribute! default case_sensitive", function(rt, v, attribute, default, case_sensitive)
    local key_of = getter(rt, attribute, default, not flag(case_sensitive))
    local shown_key = getter(rt, attribute, default)
    local groups, last_key = values.list(), nil
    for _, item in ipairs(rt:sorted(values.iterate(rt, v), key_of)) do
        local key = key_of(item)
        if last_key == nil or not values.equals(rt, key, last_key) then
            local group = values.tuple { shown_key(item), values.list() }
            group.attribute = group_attribute
            groups[#groups + 1] = group
        end
        last_key = key
        table.insert(groups[#groups][2], item)
    end
    return groups
end)

define("batch", "linecount! fill_with", function(rt, v, linecount, fill)
    local size, out = integer(rt, linecount), {}
    fill = given(fill)
    for _, item in ipairs(values.iterate(rt, v)) do
        if #out == 0 or #out[#out] == size then out[#out + 1] = values.list() end
        table.insert(out[#out], item)
    end
    if fill ~= nil and #out > 0 then
        rt:charge(math.max(size - #out[#out], 0))
        while #out[#out] < size do table.insert(out[#out], fill) end
    end
    return values.iterator(out)
end)

define("slice", "slices! fill_with", function(rt, v, slices, fill)
    local items, count, out = values.iterate(rt, v), integer(rt, slices), {}
    fill = given(fill)
    if count == 0 then rt:fail("division by zero") end
    rt:charge(math.max(count, 0))
    local base, extra, pos = math.floor(#items / count), #items % count, 1
    for number = 1, count do
        local part = values.list()
        for _ = 1, base + (number <= extra and 1 or 0) do
            part[#part + 1], pos = items[pos], pos + 1
        end
        if fill ~= nil and number > extra then part[#part + 1] = fill end
        out[number] = part
    end
    return values.iterator(out)
end)

-- map, select and their kin ---------------------------------------------------------------------------

local function rest_of(args, from)
    local out = {}
    for i = from, #args do out[#out + 1] = args[i] end
    return out
end

define("map", "...", function(rt, v, args, kwargs)
    local apply
    if #args == 0 and kwargs.map.attribute ~= nil then
        for _, key in ipairs(kwargs.keys) do
            if key ~= "attribute" and key ~= "default" then rt:fail("map: unexpected keyword argument '%s'", key) end
        end
        apply = getter(rt, kwargs.map.attribute, kwargs.map.default)
    else
        if args[1] == nil then rt:fail("map requires a filter argument") end
        local name, rest = rt:str(args[1]), rest_of(args, 2)
        apply = function(item) return rt:apply_filter(name, item, rest, kwargs) end
    end
    local out = {}
    for i, item in ipairs(truthy(v) and values.iterate(rt, v) or {}) do out[i] = apply(item) end
    return values.iterator(out)
end)

local function define_selection(name, wanted, by_attribute)
    define(name, "...", function(rt, v, args, kwargs)
        local get, from = nil, 1
        if by_attribute then
            if args[1] == nil then rt:fail("%s: missing parameter for the attribute name", name) end
            get, from = getter(rt, args[1]), 2
        end
        local test, rest = args[from], rest_of(args, from + 1)
        local out = {}
        for _, item in ipairs(truthy(v) and values.iterate(rt, v) or {}) do
            local subject = item
            if get then subject = get(item) end
            local passed
            if test ~= nil then
                passed = truthy(rt:apply_test(rt:str(test), subject, rest, kwargs))
            else
                passed = truthy(subject)
            end
            if passed == wanted then out[#out + 1] = item end
        end
        return values.iterator(out)
    end)
end

define_selection("select", true, false)
define_selection("reject", false, false)
define_selection("selectattr", true, true)
define_selection("rejectattr", false, true)

return M
