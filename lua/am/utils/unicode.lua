-- Code points, case and whitespace for Python's str methods. Case covers Latin, Greek, Cyrillic,
-- Armenian and full-width letters without context rules (a final sigma is not special); "is a letter"
-- beyond ASCII means "not known punctuation, symbol or space". Case tables are built on first need.

local bit = require "bit"

local M = {}

--- UTF-8 of a code point.
function M.encode(cp)
    if cp < 0x80 then return string.char(cp) end
    if cp < 0x800 then return string.char(0xC0 + bit.rshift(cp, 6), 0x80 + bit.band(cp, 63)) end
    if cp < 0x10000 then
        return string.char(0xE0 + bit.rshift(cp, 12), 0x80 + bit.band(bit.rshift(cp, 6), 63), 0x80 + bit.band(cp, 63))
    end
    return string.char(0xF0 + bit.rshift(cp, 18), 0x80 + bit.band(bit.rshift(cp, 12), 63),
        0x80 + bit.band(bit.rshift(cp, 6), 63), 0x80 + bit.band(cp, 63))
end

--- The code point of one character (a string as values.characters gives it); a damaged sequence gives
--- its first byte.
function M.decode(c)
    local a, b, d, e = c:byte(1, 4)
    if a >= 0xF0 and e then return (a - 0xF0) * 262144 + (b - 128) * 4096 + (d - 128) * 64 + e - 128 end
    if a >= 0xE0 and d then return (a - 0xE0) * 4096 + (b - 128) * 64 + d - 128 end
    if a >= 0xC2 and b then return (a - 0xC0) * 64 + b - 128 end
    return a
end

-- whitespace as str.isspace() sees it
local space = {}
for _, range in ipairs { { 9, 13 }, { 28, 32 }, { 0x85, 0x85 }, { 0xA0, 0xA0 }, { 0x1680, 0x1680 },
    { 0x2000, 0x200A }, { 0x2028, 0x2029 }, { 0x202F, 0x202F }, { 0x205F, 0x205F }, { 0x3000, 0x3000 } } do
    for cp = range[1], range[2] do space[M.encode(cp)] = true end
end

function M.is_space(c) return space[c] or false end

--- The byte length of the whitespace character that starts at byte `i`, or nil.
function M.space_at(s, i)
    local b = s:byte(i)
    if not b then return nil end
    if b < 0x80 then return ((b >= 9 and b <= 13) or (b >= 28 and b <= 32)) and 1 or nil end
    if space[s:sub(i, i + 1)] then return 2 end
    if space[s:sub(i, i + 2)] then return 3 end
end

--- The first byte at or after `i` that is not whitespace (#s + 1 at the end).
function M.skip_space(s, i)
    local width = M.space_at(s, i)
    while width do
        i = i + width
        width = M.space_at(s, i)
    end
    return i
end

--- The last byte at or before `j` that is not part of trailing whitespace (0 when all is).
function M.skip_space_back(s, j)
    while j > 0 do
        local b = s:byte(j)
        if b < 0x80 then
            if not ((b >= 9 and b <= 13) or (b >= 28 and b <= 32)) then return j end
            j = j - 1
        elseif space[s:sub(j - 1, j)] then
            j = j - 2
        elseif space[s:sub(j - 2, j)] then
            j = j - 3
        else
            return j
        end
    end
    return 0
end

local to_upper, to_lower

local function pair(upper, lower)
    to_upper[M.encode(lower)], to_lower[M.encode(upper)] = M.encode(upper), M.encode(lower)
end

-- first…last are upper-case letters at a fixed distance from their lower-case ones
local function shifted(first, last, distance)
    for cp = first, last do pair(cp, cp + distance) end
end

-- upper and lower alternate, starting with an upper-case letter at `first`
local function alternating(first, last)
    for cp = first, last, 2 do pair(cp, cp + 1) end
end

local function build_case_tables()
    to_upper, to_lower = {}, {}
    shifted(0x41, 0x5A, 32)
    shifted(0xC0, 0xD6, 32)
    shifted(0xD8, 0xDE, 32)
    alternating(0x100, 0x12E)
    alternating(0x132, 0x136)
    alternating(0x139, 0x147)
    alternating(0x14A, 0x176)
    pair(0x178, 0xFF)
    alternating(0x179, 0x17D)
    pair(0x386, 0x3AC)
    shifted(0x388, 0x38A, 37)
    pair(0x38C, 0x3CC)
    shifted(0x38E, 0x38F, 63)
    shifted(0x391, 0x3A1, 32)
    shifted(0x3A3, 0x3AB, 32)
    shifted(0x400, 0x40F, 80)
    shifted(0x410, 0x42F, 32)
    alternating(0x460, 0x480)
    alternating(0x48A, 0x4BE)
    pair(0x4C0, 0x4CF)
    alternating(0x4C1, 0x4CD)
    alternating(0x4D0, 0x52E)
    shifted(0x531, 0x556, 48)
    alternating(0x1E00, 0x1E94)
    alternating(0x1EA0, 0x1EFE)
    shifted(0xFF21, 0xFF3A, 32)
    to_upper["ß"], to_upper["ς"], to_upper["ı"], to_upper["ſ"], to_upper["µ"] = "SS", "Σ", "I", "S", "Μ"
    to_lower["İ"], to_lower["ẞ"] = "i\204\135", "ß"
end

local function map(s, which)
    if not to_upper then build_case_tables() end
    return (s:gsub("[^\128-\191][\128-\191]*", which == "upper" and to_upper or to_lower))
end

function M.upper(s)
    if s:find("[\128-\255]") then return map(s, "upper") end
    return s:upper()
end

function M.lower(s)
    if s:find("[\128-\255]") then return map(s, "lower") end
    return s:lower()
end

--- str.capitalize: the first character in upper case, all others in lower.
function M.capitalize(s)
    local first, rest = s:match("^([^\128-\191][\128-\191]*)(.*)$")
    if not first then return s end
    return (first == "ß" and "Ss" or M.upper(first)) .. M.lower(rest)
end

function M.is_upper(c) return M.lower(c) ~= c end
function M.is_lower(c) return M.upper(c) ~= c end
function M.is_digit(c) return c:find("^%d$") ~= nil end

-- ranges beyond ASCII that hold no letters
local not_letters = {
    { 0x80, 0xA9 }, { 0xAB, 0xB4 }, { 0xB6, 0xB9 }, { 0xBB, 0xBF }, { 0xD7, 0xD7 }, { 0xF7, 0xF7 }, { 0x300, 0x36F },
    { 0x1680, 0x1680 }, { 0x2000, 0x2070 }, { 0x2074, 0x207E }, { 0x2080, 0x208E }, { 0x20A0, 0x2101 },
    { 0x2150, 0x2BFF }, { 0x3000, 0x3004 }, { 0x3007, 0x3030 }, { 0xD800, 0xF8FF }, { 0xFE00, 0xFE6F },
    { 0xFEFF, 0xFF20 }, { 0xFF3B, 0xFF40 }, { 0xFF5B, 0xFF65 }, { 0xFFE0, 0xFFFF }, { 0x1F000, 0x1FBFF },
}

function M.is_alpha(c)
    if #c == 1 then return c:find("^%a$") ~= nil end
    local cp = M.decode(c)
    for _, range in ipairs(not_letters) do
        if cp >= range[1] and cp <= range[2] then return false end
    end
    return true
end

-- ranges that Python's repr() escapes: controls, odd spaces, formatting marks, surrogates, private use
local unprintable = {
    { 0x80, 0xA0 }, { 0xAD, 0xAD }, { 0x600, 0x605 }, { 0x61C, 0x61C }, { 0x1680, 0x1680 }, { 0x180E, 0x180E },
    { 0x2000, 0x200F }, { 0x2028, 0x202F }, { 0x205F, 0x206F }, { 0x3000, 0x3000 }, { 0xD800, 0xF8FF },
    { 0xFEFF, 0xFEFF }, { 0xFFF0, 0xFFFB }, { 0xFFFE, 0xFFFF }, { 0xE0000, 0xE00FF }, { 0xF0000, 0x10FFFF },
}

function M.is_printable(c)
    local cp = M.decode(c)
    if cp < 0x80 then return cp >= 32 and cp ~= 127 end
    for _, range in ipairs(unprintable) do
        if cp >= range[1] and cp <= range[2] then return false end
    end
    return true
end

return M
