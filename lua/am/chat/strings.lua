-- Python's str methods on Lua strings of UTF-8: a registry of definitions (see signature.lua) whose
-- subject is a Lua string. Nothing here knows of Markup; methods.lua adapts results for it.

local printing = require "am.chat.printing"
local signature = require "am.chat.signature"
local unicode = require "am.utils.unicode"
local values = require "am.chat.values"

local M = { methods = {} }

local characters = values.characters

local function define(names, spec, fn)
    signature.define(M.methods, names, spec, fn)
end

-- A str argument as a Lua string; nil or None give `default`.
local function text_argument(rt, v, default)
    if v == nil or v == values.None then return default end
    local s = values.text(v)
    if not s then
        rt:check_defined(v)
        rt:fail("expected a str argument, got %s", values.kind(v))
    end
    return s
end
M.text_argument = text_argument

local function int_argument(rt, v, default)
    if v == nil or v == values.None then return default end
    local n, is_float = values.number(v)
    if not n or is_float then
        rt:check_defined(v)
        rt:fail("expected an integer argument, got %s", values.kind(v))
    end
    return n
end
M.int_argument = int_argument

--- str.strip and its halves; `chars` nil means whitespace. `rt` pays for `chars`.
function M.strip(s, chars, left, right, rt)
    if not chars then
        local first = left and unicode.skip_space(s, 1) or 1
        local last = right and unicode.skip_space_back(s, #s) or #s
        return s:sub(first, last)
    end
    local set = {}
    for _, c in ipairs(characters(rt, chars)) do set[c] = true end
    local first, last = 1, #s
    while left and first <= last do
        local c, stop = s:match("^(.[\128-\191]*)()", first)
        if not set[c] then break end
        first = stop
    end
    while right and last >= first do
        local start = last
        while start > first and s:byte(start) >= 128 and s:byte(start) < 192 do start = start - 1 end
        if not set[s:sub(start, last)] then break end
        last = start - 1
    end
    rt:charge((#s - last + first) / 4)
    return s:sub(first, last)
end

define("strip", "chars", function(rt, s, chars) return M.strip(s, text_argument(rt, chars), true, true, rt) end)
define("lstrip", "chars", function(rt, s, chars) return M.strip(s, text_argument(rt, chars), true, false, rt) end)
define("rstrip", "chars", function(rt, s, chars) return M.strip(s, text_argument(rt, chars), false, true, rt) end)

-- A change of case, which takes longer where not all is ASCII.
local function define_case(name, fn)
    M[name] = function(rt, s)
        rt:charge(#s / (s:find("[\128-\255]") and 4 or 16))
        return fn(s)
    end
    define(name, "", M[name])
end
define_case("upper", unicode.upper)
define_case("lower", unicode.lower)
define_case("capitalize", unicode.capitalize)
define_case("casefold", function(s) return (unicode.lower(s):gsub("ß", "ss")) end)

define("swapcase", "", function(rt, s)
    local list = characters(rt, s)
    for i, c in ipairs(list) do
        list[i] = unicode.is_upper(c) and unicode.lower(c) or unicode.upper(c)
    end
    return table.concat(list)
end)

define("title", "", function(rt, s)
    local list, in_word = characters(rt, s), false
    for i, c in ipairs(list) do
        local cased = unicode.is_upper(c) or unicode.is_lower(c)
        if cased then list[i] = in_word and unicode.lower(c) or unicode.capitalize(c) end
        in_word = cased
    end
    return table.concat(list)
end)

-- splitting -----------------------------------------------------------------------------------------

local PIECE = 3 -- what a piece costs, in steps

local function split_space(rt, s, limit)
    rt:charge(#s / 4)
    local out, pos = values.list(), unicode.skip_space(s, 1)
    while pos <= #s do
        if limit and #out == limit then
            out[#out + 1] = s:sub(pos)
            return out
        end
        local stop = pos
        while stop <= #s and not unicode.space_at(s, stop) do stop = stop + 1 end
        out[#out + 1] = s:sub(pos, stop - 1)
        pos = unicode.skip_space(s, stop)
    end
    return out
end

local function rsplit_space(rt, s, limit)
    rt:charge(#s / 4)
    local reversed, last = {}, unicode.skip_space_back(s, #s)
    while last > 0 do
        if #reversed == limit then
            reversed[#reversed + 1] = s:sub(1, last)
            break
        end
        local first = last
        while first > 0 and unicode.skip_space_back(s, first) == first do first = first - 1 end
        reversed[#reversed + 1] = s:sub(first + 1, last)
        last = unicode.skip_space_back(s, first)
    end
    return reversed
end

local function reverse(list)
    local out = values.list()
    for i = #list, 1, -1 do out[#out + 1] = list[i] end
    return out
end

-- Byte position of the last occurrence of `part`.
local function find_back(s, part)
    local hit = s:reverse():find(part:reverse(), 1, true)
    return hit and #s - hit - #part + 2
end

define("split", "sep maxsplit", function(rt, s, sep, maxsplit)
    sep = text_argument(rt, sep)
    local limit = int_argument(rt, maxsplit, -1)
    if limit < 0 then limit = nil end
    if not sep then return split_space(rt, s, limit) end
    if sep == "" then rt:fail("empty separator") end
    rt:search(s, sep)
    local out, pos = values.list(), 1
    while not limit or #out < limit do
        local start = s:find(sep, pos, true)
        if not start then break end
        rt:charge(PIECE)
        out[#out + 1] = s:sub(pos, start - 1)
        pos = start + #sep
    end
    out[#out + 1] = s:sub(pos)
    return out
end)

define("rsplit", "sep maxsplit", function(rt, s, sep, maxsplit)
    sep = text_argument(rt, sep)
    local limit = int_argument(rt, maxsplit, -1)
    if limit < 0 then limit = math.huge end
    if not sep then return reverse(rsplit_space(rt, s, limit)) end
    if sep == "" then rt:fail("empty separator") end
    rt:search(s, sep)
    local reversed, last = {}, #s
    local backwards, back_sep = s:reverse(), sep:reverse()
    while #reversed < limit do
        local hit = backwards:find(back_sep, #s - last + 1, true)
        if not hit then break end
        rt:charge(PIECE)
        reversed[#reversed + 1] = s:sub(#s - hit + 2, last)
        last = #s - hit - #sep + 1
    end
    reversed[#reversed + 1] = s:sub(1, last)
    return reverse(reversed)
end)

local line_breaks = { ["\194\133"] = true, ["\226\128\168"] = true, ["\226\128\169"] = true }

-- The first and the last byte of the line break at or after `pos`.
local function next_break(s, pos)
    while true do
        local hit = s:find("[\n-\r\28-\30\194\226]", pos)
        if not hit then return nil end
        local byte = s:byte(hit)
        if byte < 128 then return hit, s:sub(hit, hit + 1) == "\r\n" and hit + 1 or hit end
        local last = byte == 194 and hit + 1 or hit + 2
        if line_breaks[s:sub(hit, last)] then return hit, last end
        pos = hit + 1
    end
end

--- str.splitlines as a values.list.
function M.splitlines(rt, s, keepends)
    rt:charge(#s / 16)
    local out, pos = values.list(), 1
    local first, last = next_break(s, pos)
    while first do
        out[#out + 1] = s:sub(pos, keepends and last or first - 1)
        rt:charge(PIECE)
        pos = last + 1
        first, last = next_break(s, pos)
    end
    if pos <= #s then out[#out + 1] = s:sub(pos) end
    return out
end
define("splitlines", "keepends", function(rt, s, keepends)
    return M.splitlines(rt, s, keepends ~= nil and values.truthy(keepends))
end)

define("partition", "sep!", function(rt, s, sep)
    sep = text_argument(rt, sep)
    if sep == "" then rt:fail("empty separator") end
    rt:search(s, sep)
    local start = s:find(sep, 1, true)
    if not start then return values.tuple { s, "", "" } end
    return values.tuple { s:sub(1, start - 1), sep, s:sub(start + #sep) }
end)

define("rpartition", "sep!", function(rt, s, sep)
    sep = text_argument(rt, sep)
    if sep == "" then rt:fail("empty separator") end
    rt:search(s, sep)
    local start = find_back(s, sep)
    if not start then return values.tuple { "", "", s } end
    return values.tuple { s:sub(1, start - 1), sep, s:sub(start + #sep) }
end)

-- searching -----------------------------------------------------------------------------------------

-- The part of s between code points start and stop (Python's slice rules), and its offset.
local function window(rt, s, start, stop)
    start, stop = int_argument(rt, start), int_argument(rt, stop)
    if not start and not stop then return s, 0 end
    local list = characters(rt, s)
    local function bound(i, default)
        if not i then return default end
        return i < 0 and math.max(i + #list, 0) or i
    end
    local first = bound(start, 0)
    if first > #list then return nil end
    return table.concat(list, "", first + 1, math.max(math.min(bound(stop, #list), #list), first)), first
end

-- The code-point index of `part`, or nil.
local function find(rt, s, part, start, stop, backwards)
    part = text_argument(rt, part)
    local piece, offset = window(rt, s, start, stop)
    if not piece then return nil end
    rt:search(piece, part)
    local hit
    if backwards then hit = find_back(piece, part) else hit = piece:find(part, 1, true) end
    return hit and offset + values.string_length(piece:sub(1, hit - 1))
end

define("find", "sub! start stop", function(rt, s, ...)
    local part, start, stop = ...
    return find(rt, s, part, start, stop) or -1
end)
define("rfind", "sub! start stop", function(rt, s, part, start, stop)
    return find(rt, s, part, start, stop, true) or -1
end)
define("index", "sub! start stop", function(rt, s, part, start, stop)
    return find(rt, s, part, start, stop) or rt:fail("substring not found")
end)
define("rindex", "sub! start stop", function(rt, s, part, start, stop)
    return find(rt, s, part, start, stop, true) or rt:fail("substring not found")
end)

-- startswith and endswith take one string or a tuple of them.
local function any_affix(rt, s, affixes, matches)
    if values.kind(affixes) ~= "tuple" then return matches(s, text_argument(rt, affixes, nil) or
        rt:fail("startswith and endswith need a str or a tuple of str, not NoneType")) end
    for _, affix in ipairs(affixes) do
        if matches(s, text_argument(rt, affix, "")) then return true end
    end
    return false
end

define("startswith", "prefix! start stop", function(rt, s, prefix, start, stop)
    local piece = window(rt, s, start, stop)
    return piece ~= nil and any_affix(rt, piece, prefix, function(t, p) return t:sub(1, #p) == p end)
end)
define("endswith", "suffix! start stop", function(rt, s, suffix, start, stop)
    local piece = window(rt, s, start, stop)
    return piece ~= nil and any_affix(rt, piece, suffix, function(t, p) return p == "" or t:sub(-#p) == p end)
end)

local function count_of(s, part)
    if part == "" then return values.string_length(s) + 1 end
    local count, pos = 0, 1
    while true do
        local start = s:find(part, pos, true)
        if not start then return count end
        count, pos = count + 1, start + #part
    end
end

define("count", "sub! start stop", function(rt, s, part, start, stop)
    local piece = window(rt, s, start, stop)
    if not piece then return 0 end
    part = text_argument(rt, part)
    rt:search(piece, part)
    return count_of(piece, part)
end)

define("removeprefix", "prefix!", function(rt, s, prefix)
    prefix = text_argument(rt, prefix)
    return s:sub(1, #prefix) == prefix and s:sub(#prefix + 1) or s
end)
define("removesuffix", "suffix!", function(rt, s, suffix)
    suffix = text_argument(rt, suffix)
    if suffix ~= "" and s:sub(-#suffix) == suffix then return s:sub(1, #s - #suffix) end
    return s
end)

-- building ------------------------------------------------------------------------------------------

--- str.replace; `limit` nil or negative replaces all.
function M.replace(rt, s, old, new, limit)
    if limit and limit < 0 then limit = nil end
    rt:search(s, old)
    local count = math.min(count_of(s, old), limit or math.huge)
    rt:charge(count)
    rt:allocate(#s + count * math.max(#new - #old, 0))
    if count == 0 then return s end
    local out = {}
    if old == "" then
        local list = characters(rt, s)
        for i = 1, #list + 1 do
            if i <= count then out[#out + 1] = new end
            out[#out + 1] = list[i]
        end
        return table.concat(out)
    end
    local pos = 1
    for _ = 1, count do
        local start = s:find(old, pos, true)
        out[#out + 1] = s:sub(pos, start - 1)
        out[#out + 1] = new
        pos = start + #old
    end
    out[#out + 1] = s:sub(pos)
    return table.concat(out)
end
define("replace", "old! new! count", function(rt, s, old, new, count)
    return M.replace(rt, s, text_argument(rt, old), text_argument(rt, new), int_argument(rt, count))
end)

--- Joins an array of Lua strings.
function M.join(rt, separator, parts)
    local size = #separator * math.max(#parts - 1, 0)
    for _, part in ipairs(parts) do size = size + #part end
    rt:allocate(size)
    return table.concat(parts, separator)
end
define("join", "iterable!", function(rt, s, iterable)
    local parts = {}
    for i, item in ipairs(values.iterate(rt, iterable)) do
        parts[i] = values.text(item)
            or rt:fail("sequence item %d: expected str instance, %s found", i - 1, values.kind(item))
    end
    return M.join(rt, s, parts)
end)

local function padded(rt, s, width, fill, left_share)
    width, fill = int_argument(rt, width), text_argument(rt, fill, " ")
    if values.string_length(fill) ~= 1 then rt:fail("the fill character must be exactly one character long") end
    local missing = width - values.string_length(s)
    if missing <= 0 then return s end
    rt:allocate(missing * #fill + #s)
    local left = left_share(missing, width)
    return fill:rep(left) .. s .. fill:rep(missing - left)
end

--- str.center.
function M.center(rt, s, width, fill)
    return padded(rt, s, width, fill, function(missing, total)
        return math.floor(missing / 2) + (missing % 2 == 1 and total % 2 == 1 and 1 or 0)
    end)
end
define("center", "width! fill", M.center)
define("ljust", "width! fill", function(rt, s, width, fill)
    return padded(rt, s, width, fill, function() return 0 end)
end)
define("rjust", "width! fill", function(rt, s, width, fill)
    return padded(rt, s, width, fill, function(missing) return missing end)
end)
define("zfill", "width!", function(rt, s, width)
    local sign, rest = s:match("^([%+%-]?)(.*)$")
    local missing = int_argument(rt, width) - values.string_length(s)
    if missing <= 0 then return s end
    rt:allocate(missing + #s)
    return sign .. ("0"):rep(missing) .. rest
end)

define("expandtabs", "tabsize", function(rt, s, tabsize)
    local size, column, out = int_argument(rt, tabsize, 8), 0, {}
    if size > 1000 then rt:fail("a tab size of %d is too large", size) end
    rt:allocate(#s * math.max(size, 1))
    for i, c in ipairs(characters(rt, s)) do
        if c == "\t" then
            local blanks = size > 0 and size - column % size or 0
            out[i], column = (" "):rep(blanks), column + blanks
        else
            out[i], column = c, (c == "\n" or c == "\r") and 0 or column + 1
        end
    end
    return table.concat(out)
end)

define("format", "...", function(rt, s, args, kwargs)
    return printing.format(rt, s, args, kwargs)
end)

-- asking --------------------------------------------------------------------------------------------

local function all_characters(name, accepts)
    define(name, "", function(rt, s)
        if s == "" then return false end
        for _, c in ipairs(characters(rt, s)) do
            if not accepts(c) then return false end
        end
        return true
    end)
end

all_characters("isspace", unicode.is_space)
all_characters("isdigit isdecimal isnumeric", unicode.is_digit)
all_characters("isalpha", unicode.is_alpha)
all_characters("isalnum", function(c) return unicode.is_alpha(c) or unicode.is_digit(c) end)
define("isascii", "", function(_, s) return not s:find("[\128-\255]") end)
define("isidentifier", "", function(_, s) return s:find("^[%a_\128-\255][%w_\128-\255]*$") ~= nil end)
define("isprintable", "", function(rt, s)
    for _, c in ipairs(characters(rt, s)) do
        if not unicode.is_printable(c) then return false end
    end
    return true
end)

--- str.isupper and str.islower: some cased character, none of the other case.
function M.is_cased(rt, s, wanted)
    local found = false
    for _, c in ipairs(characters(rt, s)) do
        local upper, lower = unicode.is_upper(c), unicode.is_lower(c)
        if (wanted == "upper" and lower) or (wanted == "lower" and upper) then return false end
        found = found or upper or lower
    end
    return found
end
define("isupper", "", function(rt, s) return M.is_cased(rt, s, "upper") end)
define("islower", "", function(rt, s) return M.is_cased(rt, s, "lower") end)

define("istitle", "", function(rt, s)
    local found, in_word = false, false
    for _, c in ipairs(characters(rt, s)) do
        local upper, lower = unicode.is_upper(c), unicode.is_lower(c)
        if (upper and in_word) or (lower and not in_word) then return false end
        in_word = upper or lower
        found = found or in_word
    end
    return found
end)

function M.percent_encode(rt, s, keep)
    rt:charge(#s / 2)
    return (s:gsub("[^%w%-%._~" .. keep .. "]", function(c) return ("%%%02X"):format(c:byte()) end))
end

-- Python's int(s, base), or nil.
function M.parse_int(s, base)
    local sign, digits = M.strip(s, nil, true, true):lower():match("^([%+%-]?)([%w_]+)$")
    if not digits or digits:find("^_") or digits:find("__") or digits:find("_$") then return nil end
    digits = digits:gsub("_", "")
    local prefix = ({ ["0x"] = 16, ["0o"] = 8, ["0b"] = 2 })[digits:sub(1, 2)]
    if prefix and (base == prefix or base == 0) then digits, base = digits:sub(3), prefix end
    local n = tonumber(digits, base == 0 and 10 or base)
    return n and (sign == "-" and -n or n)
end

return M
