-- Python literals in text: what ast.literal_eval would make of a configuration's strings.
-- Holds the reader only; which strings are given to it is scalar.lua's business. It never evaluates
-- anything: numbers, strings, None, True, False, lists, tuples and dicts are all it knows. Bytes,
-- sets, complex numbers, `...` and strings with a NUL are not values of a configuration and count as
-- plain text.
--
-- parse(text) returns one of these, or nil when the text is no such literal:
--   { value = v, float = true? }                 number, string, boolean, or nil for None
--   { list = { parsed, … } }                     list or tuple
--   { map = { { key, parsed }, … } }             dict in order; keys as text

local number = require("am.utils.number")

local M = {}

local MAX_DEPTH = 64
local MAX_WHOLE = 2 ^ 53 - 1 -- beyond it a Lua number cannot hold every integer: such text stays text

local fail = {} -- raised inside parse, never seen outside

local function refuse()
    error(fail, 0)
end

-- ---------------------------------------------------------------- numbers

local function from_digits(digits, base)
    digits = digits:gsub("_", "")
    local value = 0
    for i = 1, #digits do
        value = value * base + tonumber(digits:sub(i, i), base)
        if value > MAX_WHOLE then
            return nil
        end
    end
    return value
end

-- Digits with single underscores between them.
local function digit_part(text, at, class)
    local stop = select(2, text:find("^" .. class .. "+", at))
    while stop do
        local more = select(2, text:find("^_" .. class .. "+", stop + 1))
        if not more then
            break
        end
        stop = more
    end
    return stop
end

local radix = { x = { 16, "%x" }, o = { 8, "[0-7]" }, b = { 2, "[01]" } }

--- The unsigned Python number at `at`: value, is_float, position behind it; nil when there is none or
--- a Lua number cannot hold it.
function M.number_at(text, at)
    local kind = radix[(text:match("^0([xXoObB])", at) or ""):lower()]
    if kind then
        local start = text:sub(at + 2, at + 2) == "_" and at + 3 or at + 2
        local stop = digit_part(text, start, kind[2])
        local value = stop and from_digits(text:sub(start, stop), kind[1])
        return value, false, stop and stop + 1
    end
    local whole = digit_part(text, at, "%d")
    local stop, is_float = whole, false
    if text:sub((stop or at - 1) + 1, (stop or at - 1) + 1) == "." then
        local point = (stop or at - 1) + 1
        local fraction = digit_part(text, point + 1, "%d")
        if not stop and not fraction then
            return nil
        end
        stop, is_float = fraction or point, true
    end
    if not stop then
        return nil
    end
    local exponent = select(2, text:find("^[eE][-+]?", stop + 1))
    local exponent_stop = exponent and digit_part(text, exponent + 1, "%d")
    if exponent_stop then
        stop, is_float = exponent_stop, true
    end
    local literal = text:sub(at, stop)
    if is_float then
        return tonumber((literal:gsub("_", ""))), true, stop + 1
    elseif literal:find("^0") and literal:find("[1-9]") then
        return nil -- Python refuses 017
    end
    return from_digits(literal, 10), false, stop + 1
end

-- ---------------------------------------------------------------- strings

local escapes = {
    ["\\"] = "\\", ["'"] = "'", ['"'] = '"', a = "\a", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t", v = "\v",
    ["\n"] = "",
}
local hex_escapes = { x = 2, u = 4, U = 8 }

local function utf8_char(code)
    if code < 0x80 then
        return string.char(code)
    elseif code < 0x800 then
        return string.char(0xc0 + math.floor(code / 64), 0x80 + code % 64)
    elseif code < 0x10000 then
        return string.char(0xe0 + math.floor(code / 4096), 0x80 + math.floor(code / 64) % 64, 0x80 + code % 64)
    end
    return string.char(0xf0 + math.floor(code / 262144), 0x80 + math.floor(code / 4096) % 64,
        0x80 + math.floor(code / 64) % 64, 0x80 + code % 64)
end

-- What an escape's code stands for. NUL and halves of surrogate pairs are no text.
local function code_text(code)
    if not code or code == 0 or code > 0x10ffff or (code >= 0xd800 and code < 0xe000) then
        refuse()
    end
    return utf8_char(code)
end

-- The escape whose backslash is at `at`: its text and the position behind it.
local function read_escape(text, at)
    local c = text:sub(at + 1, at + 1)
    if escapes[c] then
        return escapes[c], at + 2
    end
    local octal = text:match("^[0-7][0-7]?[0-7]?", at + 1)
    if octal then
        return code_text(tonumber(octal, 8)), at + 1 + #octal
    end
    local digits = hex_escapes[c]
    if digits then
        local hex = text:match("^" .. ("%x"):rep(digits), at + 2)
        local code = hex and tonumber(hex, 16)
        return code_text(code), at + 2 + digits
    elseif c == "N" or c == "" then
        refuse()
    end
    return "\\", at + 1 -- an unknown escape keeps its backslash
end

-- p.at is on the opening quote.
local function read_string(p, raw)
    local text = p.text
    local quote = text:match("^'''", p.at) or text:match('^"""', p.at) or text:sub(p.at, p.at)
    local at, out = p.at + #quote, {}
    while true do
        local c = text:sub(at, at)
        if text:sub(at, at + #quote - 1) == quote then
            p.at = at + #quote
            return table.concat(out)
        elseif c == "" or (c == "\n" and #quote == 1) then
            refuse()
        elseif c == "\\" and raw then
            out[#out + 1] = text:sub(at, at + 1)
            at = at + 2
        elseif c == "\\" then
            out[#out + 1], at = read_escape(text, at)
        else
            local stop = text:find("[\\'\"\n]", at + 1) or #text + 1
            out[#out + 1] = text:sub(at, stop - 1)
            at = stop
        end
    end
end

-- ---------------------------------------------------------------- values

-- Inside brackets newlines are white space, outside they end the expression.
local function skip_space(p)
    local class = p.depth > 0 and "^[ \t\f\n]+" or "^[ \t\f]+"
    while true do
        p.at = (select(2, p.text:find(class, p.at)) or p.at - 1) + 1
        local comment = select(2, p.text:find("^#[^\n]*", p.at))
        if not comment then
            return p.text:sub(p.at, p.at)
        end
        p.at = comment + 1
    end
end

local names = { True = { value = true }, False = { value = false }, None = {} }

local read_value

-- Values up to the closing bracket, and whether a comma was among them. p.at is behind the opening.
local function read_items(p, close)
    local items, comma = {}, false
    while skip_space(p) ~= close do
        items[#items + 1] = read_value(p)
        local c = skip_space(p)
        if c == "," then
            comma = true
            p.at = p.at + 1
        elseif c ~= close then
            refuse()
        end
    end
    return items, comma
end

-- JSON-like text of a dict's key: configurations know keys as text only.
local function key_text(key)
    if key.list or key.map then
        refuse() -- unhashable, or a tuple, which no configuration key is
    elseif key.value == nil then
        return "None"
    elseif type(key.value) == "boolean" then
        return key.value and "True" or "False"
    elseif type(key.value) == "number" then
        return key.float and number.float_text(key.value) or number.text(key.value)
    end
    return key.value
end

local function read_dict(p)
    local entries, position = {}, {}
    while skip_space(p) ~= "}" do
        local key = key_text(read_value(p))
        if skip_space(p) ~= ":" then
            refuse()
        end
        p.at = p.at + 1
        local entry = { key, read_value(p) }
        local c = skip_space(p)
        if c == "," then
            p.at = p.at + 1
        elseif c ~= "}" then
            refuse()
        end
        if not position[key] then
            position[key] = #entries + 1
        end
        entries[position[key]] = entry -- of two equal keys the last counts
    end
    return { map = entries }
end

local function read_bracketed(p, open)
    p.at = p.at + 1
    p.depth = p.depth + 1
    if p.depth > MAX_DEPTH then
        refuse()
    end
    local out
    if open == "[" then
        out = { list = (read_items(p, "]")) }
    elseif open == "{" then
        out = read_dict(p)
    else
        local items, comma = read_items(p, ")")
        out = (#items == 1 and not comma) and items[1] or { list = items }
    end
    p.at = p.at + 1
    p.depth = p.depth - 1
    return out
end

-- Python joins neighbouring strings.
local function read_strings(p)
    local parts = {}
    while true do
        local prefix = p.text:match("^([rRuU]?)['\"]", p.at)
        if not prefix then
            return { value = table.concat(parts) }
        end
        p.at = p.at + #prefix
        parts[#parts + 1] = read_string(p, prefix:lower() == "r")
        skip_space(p)
    end
end

function read_value(p)
    local c = skip_space(p)
    if c == "[" or c == "{" or c == "(" then
        return read_bracketed(p, c)
    elseif p.text:find("^[rRuU]?['\"]", p.at) then
        return read_strings(p)
    end
    local sign = c == "-" and -1 or 1
    if c == "-" or c == "+" then
        p.at = p.at + 1
        if skip_space(p) == "(" then -- -(1) is a signed number too, and nobody writes it
            refuse()
        end
    else
        local word = p.text:match("^%a+", p.at)
        if names[word] and not p.text:find("^[%w_\128-\255]", p.at + #word) then
            p.at = p.at + #word
            return names[word]
        end
    end
    local value, is_float, stop = M.number_at(p.text, p.at)
    if not value or p.text:find("^[%w_.\128-\255]", stop) then
        refuse()
    end
    p.at = stop
    if not is_float and value == 0 then
        sign = 1 -- there is no integer -0
    end
    return { value = sign * value, float = is_float or nil }
end

local function read_all(p)
    p.at = #p.text:match("^[ \t]*") + 1
    local lines = p.at
    while true do -- blank and comment lines may come first; behind them nothing may be indented
        local stop = select(2, p.text:find("^[ \t\f]*\n", p.at))
            or select(2, p.text:find("^[ \t\f]*#[^\n]*\n", p.at))
        if not stop then
            break
        end
        p.at = stop + 1
    end
    if p.at > lines and p.text:find("^[ \t]", p.at) then
        refuse()
    end
    local out = read_value(p)
    if skip_space(p) == "," then -- a tuple needs no parentheses
        local items = { out }
        while skip_space(p) == "," do
            p.at = p.at + 1
            local c = skip_space(p)
            if c == "" or c == "\n" then
                break
            end
            items[#items + 1] = read_value(p)
        end
        out = { list = items }
    end
    skip_space(p)
    while p.text:sub(p.at, p.at) == "\n" do
        p.at = p.at + 1
        skip_space(p)
    end
    if p.at <= #p.text or p.text:find("\n[ \t]+$") then
        refuse()
    end
    return out
end

--- The literal that is the whole of `text`, or nil.
function M.parse(text)
    if text:find("%z") then
        return nil
    end
    local p = { text = text:gsub("\r\n?", "\n"), at = 1, depth = 0 }
    local ok, out = pcall(read_all, p)
    if ok then
        return out
    elseif out ~= fail then
        error(out, 0)
    end
    return nil
end

return M
