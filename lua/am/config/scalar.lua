-- What a scalar of a configuration means: YAML 1.1 as PyYAML's safe_load types it, and then, for
-- every string, Python literals ("1e-5", "[1, 2]", "None"), as NeMo Automodel's loader does.
-- Holds no parsing of documents; that is yaml.lua's.
--
-- Both functions return a parsed value as literal.lua does: { value, float } | { list } | { map }.
-- Dates stay text, and so do integers beyond 2^53, which a Lua number cannot hold exactly.

local literal = require("am.config.literal")

local M = {}

local MAX_WHOLE = 2 ^ 53 - 1
local MAX_LITERAL = 1000 -- longer strings are text without looking

local yaml_words = {}
for _, word in ipairs { "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON" } do
    yaml_words[word] = { value = true }
end
for _, word in ipairs { "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF" } do
    yaml_words[word] = { value = false }
end
for _, word in ipairs { "", "~", "null", "Null", "NULL" } do
    yaml_words[word] = {}
end

-- ---------------------------------------------------------------- YAML 1.1 numbers

local function sexagesimal(text)
    local value = 0
    for part in text:gmatch("[^:]+") do
        value = value * 60 + tonumber(part)
    end
    return value
end

-- `1:30:00`: a part, then parts below sixty.
local function is_sexagesimal(text, first)
    local rest = text:match("^" .. first .. "(:.*)$")
    if not rest then
        return false
    end
    for part in rest:gmatch(":([^:]*)") do
        if not part:find("^[0-5]?%d$") then
            return false
        end
    end
    return true
end

local function digits_value(digits, base)
    local value = 0
    for i = 1, #digits do
        value = value * base + tonumber(digits:sub(i, i), base)
    end
    return digits ~= "" and value or nil
end

-- text without sign -> value, or nil
local function yaml_integer(text)
    local plain = text:gsub("_", "")
    if text:find("^0b[01_]+$") then
        return digits_value(plain:sub(3), 2)
    elseif text:find("^0x[%x_]+$") then
        return digits_value(plain:sub(3), 16)
    elseif text:find("^0[0-7_]+$") then
        return digits_value(plain, 8)
    elseif text == "0" or text:find("^[1-9][%d_]*$") then
        return tonumber(plain)
    elseif is_sexagesimal(text, "[1-9][%d_]*") then
        return sexagesimal(plain)
    end
    return nil
end

local function yaml_float(text, signed)
    local lower = text:lower()
    if lower == ".inf" and (text == ".inf" or text == ".Inf" or text == ".INF") then
        return math.huge
    elseif not signed and (text == ".nan" or text == ".NaN" or text == ".NAN") then
        return 0 / 0
    end
    local plain = text:gsub("_", "")
    local mantissa = text:match("^(.*)[eE][-+]%d+$") or text
    if mantissa:find("^%d[%d_]*%.[%d_]*$") or (not signed and mantissa:find("^%.%d[%d_]*$")) then
        return tonumber(plain)
    end
    local head, fraction = text:match("^(.-)%.([%d_]*)$")
    if head and is_sexagesimal(head, "%d[%d_]*") then
        return sexagesimal((head:gsub("_", ""))) + (tonumber("0." .. fraction:gsub("_", "")) or 0)
    end
    return nil
end

--- The number that YAML 1.1 sees in a plain scalar: value, is_float; nil for none.
local function yaml_number(text)
    local sign, rest = text:match("^([-+]?)(.*)$")
    local factor = sign == "-" and -1 or 1
    local value = yaml_integer(rest)
    if value then
        if value > MAX_WHOLE then
            return nil
        end
        return value == 0 and 0 or factor * value, false
    end
    value = yaml_float(rest, sign ~= "")
    if value then
        return factor * value, true
    end
    return nil
end

-- ---------------------------------------------------------------- entry points

local words = {
    none = {}, None = {}, ["true"] = { value = true }, True = { value = true },
    ["false"] = { value = false }, False = { value = false },
}

--- What a string means: none/None, true/True, false/False, any Python literal, else itself.
function M.translate(text)
    if words[text] then
        return words[text]
    elseif #text > MAX_LITERAL then
        return { value = text }
    end
    return literal.parse(text) or { value = text }
end

--- What YAML alone makes of a plain scalar: { value, float }, or nil when it is a string.
function M.resolve_plain(text)
    if yaml_words[text] then
        return yaml_words[text]
    end
    local value, is_float = yaml_number(text)
    if value ~= nil then
        return { value = value, float = is_float or nil }
    end
    return nil
end

local tagged = {
    bool = function(text)
        local word = yaml_words[text]
        return word and word.value ~= nil and word
    end,
    null = function() return {} end,
    int = function(text)
        local value, is_float = yaml_number(text)
        return value and not is_float and { value = value }
    end,
    float = function(text)
        local value = yaml_number(text)
        return value and { value = value, float = true }
    end,
}

--- What a scalar with an explicit core tag means ("int" for `!!int`), or nil when it does not fit.
--- The tag "str" gives nil for the caller to treat the text as a string.
function M.resolve_tagged(tag, text)
    local resolve = tagged[tag]
    return resolve and resolve(text) or nil
end

return M
