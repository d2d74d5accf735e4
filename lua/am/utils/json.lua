-- JSON, exact both ways: numbers print as Python's repr does (1e-05, shortest that round-trips).
-- Holds no schema. The engine has its own C parser for tokenizer.json and safetensors headers.
--
--   json.decode(text, opts) -> value | nil, message   opts: max_depth (200), ordered, exact_numbers,
--                                                     nan (accept NaN/Infinity/-Infinity)
--   json.encode(value, opts) -> text                  opts: indent (spaces; nil: one line), sort_keys,
--                                                     keys (key order of the outermost object),
--                                                     nan ("error" default, "null", "bare"),
--                                                     separators ("python" default: ", " and ": ";
--                                                     "compact"), ascii (true: \uXXXX beyond ASCII)
--   json.null                                         null; the one null value of all of amlua's Lua
--   json.array(t) / json.object(t)                    mark t (needed for an empty table only)
--   json.is_array(t)                                  marked, or non-empty with t[1]
--   json.float(x)                                     a number that prints as a float: 1.0, not 1
--
-- Decoded arrays are marked, so `[]` and `{}` stay apart. With `ordered`, objects remember the order
-- of their keys and encode keeps it (keys added later follow, sorted). Without an order, keys are
-- sorted. Integers beyond 2^53 lose digits unless `exact_numbers`, which returns them, and floats
-- with an integral value (10000.0), as json.float-like boxes { value = number } that print as read.

local err = require("am.core.error")
local number = require("am.utils.number")

local M = {}

local Null = {}
Null.__index = Null
Null.__tostring = function() return "null" end
M.null = setmetatable({}, Null)

local Array = { __name = "json.array" }
local Object = { __name = "json.object" } -- an object that was marked or remembers its key order
local Number = { __name = "json.number" }
Number.__index = Number
Number.__tostring = function(n) return n.text end

local key_orders = setmetatable({}, { __mode = "k" }) -- object -> array of its keys as read

-- ---------------------------------------------------------------- numbers

--- A number that prints as a float even when whole; `.value` is the Lua number.
function M.float(x)
    if x ~= x or x == math.huge or x == -math.huge then
        return x
    end
    return setmetatable({ value = x, text = number.float_text(x) }, Number)
end

-- ---------------------------------------------------------------- arrays and objects

--- Mark `t` (default: a new table) as an array.
function M.array(t)
    return setmetatable(t or {}, Array)
end

--- Mark `t` as an object; with `keys`, remember that order for encode.
function M.object(t, keys)
    t = setmetatable(t or {}, Object)
    key_orders[t] = keys
    return t
end

--- True for a table that encodes as an array: marked, or unmarked with an element 1.
function M.is_array(t)
    if type(t) ~= "table" then
        return false
    end
    local mt = getmetatable(t)
    if mt == Array or mt == Object then
        return mt == Array
    end
    return t[1] ~= nil
end

--- Keys of an object in the order it remembers, others after them, sorted.
function M.keys(t)
    local out, seen = {}, {}
    for _, key in ipairs(key_orders[t] or {}) do
        if t[key] ~= nil and not seen[key] then
            seen[key] = true
            out[#out + 1] = key
        end
    end
    local rest = {}
    for key in pairs(t) do
        if not seen[key] then
            rest[#rest + 1] = key
        end
    end
    table.sort(rest, function(a, b) return tostring(a) < tostring(b) end)
    for _, key in ipairs(rest) do
        out[#out + 1] = key
    end
    return out
end

-- ---------------------------------------------------------------- encode

local short_escapes = {
    ['"'] = '\\"', ["\\"] = "\\\\", ["\b"] = "\\b", ["\f"] = "\\f",
    ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t",
}

local function escape_control(c)
    return short_escapes[c] or string.format("\\u%04x", c:byte())
end

local function utf8_code(s)
    local a, b, c, d = s:byte(1, 4)
    if #s == 2 then
        return (a - 0xc0) * 64 + b - 0x80
    elseif #s == 3 then
        return ((a - 0xe0) * 64 + b - 0x80) * 64 + c - 0x80
    end
    return (((a - 0xf0) * 64 + b - 0x80) * 64 + c - 0x80) * 64 + d - 0x80
end

local function escape_unicode(s)
    local code = utf8_code(s)
    if code < 0x10000 then
        return string.format("\\u%04x", code)
    end
    code = code - 0x10000
    return string.format("\\u%04x\\u%04x", 0xd800 + math.floor(code / 1024), 0xdc00 + code % 1024)
end

local function encode_string(s, ascii)
    s = s:gsub('[%z\1-\31"\\\127]', function(c)
        return c == "\127" and "\127" or escape_control(c)
    end)
    if ascii then
        s = s:gsub("[\194-\244][\128-\191]+", escape_unicode)
    end
    return '"' .. s .. '"'
end

local function encode_number(x, policy)
    if x ~= x or x == math.huge or x == -math.huge then
        if policy == "null" then
            return "null"
        elseif policy == "bare" then
            return x ~= x and "NaN" or x > 0 and "Infinity" or "-Infinity"
        end
        err.raise("data", "JSON has no %s: pass nan = \"null\" or \"bare\" to write it", number.text(x))
    end
    return number.text(x)
end

local encode_value

local function encode_list(out, open, close, count, indent, level, item)
    if count == 0 then
        out[#out + 1] = open .. close
        return
    end
    out[#out + 1] = open
    for i = 1, count do
        if i > 1 then
            out[#out + 1] = indent and "," or out.comma
        end
        if indent then
            out[#out + 1] = "\n" .. (" "):rep(indent * (level + 1))
        end
        item(i)
    end
    if indent then
        out[#out + 1] = "\n" .. (" "):rep(indent * level)
    end
    out[#out + 1] = close
end

function encode_value(out, v, opts, level, keys)
    local kind = type(v)
    if kind == "string" then
        out[#out + 1] = encode_string(v, opts.ascii)
    elseif kind == "number" then
        out[#out + 1] = encode_number(v, opts.nan)
    elseif kind == "boolean" then
        out[#out + 1] = tostring(v)
    elseif v == nil or v == M.null then
        out[#out + 1] = "null"
    elseif getmetatable(v) == Number then
        out[#out + 1] = v.text
    elseif kind ~= "table" then
        err.raise("data", "a %s cannot be written as JSON", kind)
    elseif level >= (opts.max_depth or 200) then
        err.raise("data", "tables nested more than %d deep cannot be written as JSON (a cycle?)", level)
    elseif M.is_array(v) then
        encode_list(out, "[", "]", #v, opts.indent, level, function(i)
            encode_value(out, v[i], opts, level + 1)
        end)
    else
        if not keys then
            keys = M.keys(v)
            if opts.sort_keys then
                table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
            end
        end
        encode_list(out, "{", "}", #keys, opts.indent, level, function(i)
            local key = keys[i]
            if type(key) == "number" then
                key = number.text(key)
            elseif type(key) ~= "string" then
                err.raise("data", "a %s cannot be a key in JSON", type(key))
            end
            out[#out + 1] = encode_string(key, opts.ascii) .. (opts.indent and ": " or out.colon)
            encode_value(out, v[keys[i]], opts, level + 1)
        end)
    end
end

--- A value as JSON text; options at the head of this file. Raises "data" for what JSON cannot hold.
function M.encode(value, opts)
    opts = opts or {}
    local compact = opts.separators == "compact"
    local out = { comma = compact and "," or ", ", colon = compact and ":" or ": " }
    local keys
    if opts.keys then
        keys = {}
        for _, key in ipairs(opts.keys) do
            if value[key] ~= nil then
                keys[#keys + 1] = key
            end
        end
        local listed = {}
        for _, key in ipairs(keys) do
            listed[key] = true
        end
        for _, key in ipairs(M.keys(value)) do
            if not listed[key] then
                keys[#keys + 1] = key
            end
        end
    end
    encode_value(out, value, opts, 0, keys)
    return table.concat(out)
end

-- ---------------------------------------------------------------- decode

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

local unescapes = {
    ['"'] = '"', ["\\"] = "\\", ["/"] = "/", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t",
}

-- Raised as a plain table inside decode only; decode turns it into nil, message.
local function syntax(p, at, what)
    error({ json_at = at or p.at, json_what = what }, 0)
end

local function decode_escaped(p, start, stop)
    local text, at, out = p.text, start, {}
    while at <= stop do
        local slash = text:find("\\", at, true)
        if not slash or slash > stop then
            out[#out + 1] = text:sub(at, stop)
            break
        end
        out[#out + 1] = text:sub(at, slash - 1)
        local c = text:sub(slash + 1, slash + 1)
        if c == "u" then
            local hex = text:match("^%x%x%x%x", slash + 2)
            if not hex then
                syntax(p, slash, "\\u needs four hexadecimal digits")
            end
            local code = tonumber(hex, 16)
            at = slash + 6
            if code >= 0xd800 and code < 0xdc00 then
                local low = text:match("^\\u([dD][c-fC-F]%x%x)", at)
                if not low then
                    syntax(p, slash, "half of a surrogate pair")
                end
                code = 0x10000 + (code - 0xd800) * 1024 + tonumber(low, 16) - 0xdc00
                at = at + 6
            elseif code >= 0xdc00 and code < 0xe000 then
                syntax(p, slash, "half of a surrogate pair")
            end
            out[#out + 1] = utf8_char(code)
        else
            local plain = unescapes[c]
            if not plain then
                syntax(p, slash, "unknown escape \\" .. c)
            end
            out[#out + 1] = plain
            at = slash + 2
        end
    end
    return table.concat(out)
end

-- p.at is on the opening quote; leaves it behind the closing one.
local function decode_string(p)
    local text = p.text
    local start = p.at + 1
    local at, escaped = start, false
    while true do
        local stop = text:find('["\\%z\1-\31]', at)
        if not stop then
            syntax(p, p.at, "string without an end")
        end
        local c = text:byte(stop)
        if c == 34 then
            p.at = stop + 1
            if escaped then
                return decode_escaped(p, start, stop - 1)
            end
            return text:sub(start, stop - 1)
        elseif c ~= 92 then
            syntax(p, stop, "control character in a string")
        end
        escaped = true
        at = stop + 2
    end
end

local function decode_number(p)
    local text, at = p.text, p.at
    local stop = select(2, text:find("^-?%d+", at))
    if not stop or text:find("^-?0%d", at) then
        syntax(p, at, "not a value")
    end
    local whole_stop = stop
    stop = select(2, text:find("^%.%d+", stop + 1)) or stop
    stop = select(2, text:find("^[eE][-+]?%d+", stop + 1)) or stop
    if text:find("^[%w_.]", stop + 1) then
        syntax(p, at, "damaged number")
    end
    p.at = stop + 1
    local literal = text:sub(at, stop)
    local value = tonumber(literal)
    if p.exact and ((stop ~= whole_stop and value % 1 == 0) or math.abs(value) > 2 ^ 53) then
        return setmetatable({ value = value, text = literal }, Number)
    end
    return value
end

local words = { { "true", true }, { "false", false }, { "null", M.null } }
local nan_words = { { "NaN", 0 / 0 }, { "Infinity", math.huge }, { "-Infinity", -math.huge } }

local function decode_word(p, list)
    for _, word in ipairs(list) do
        local name = word[1]
        if p.text:sub(p.at, p.at + #name - 1) == name and not p.text:find("^[%w_]", p.at + #name) then
            p.at = p.at + #name
            return true, word[2]
        end
    end
    return false
end

local function skip_space(p)
    local at = p.text:find("[^ \t\r\n]", p.at)
    p.at = at or #p.text + 1
    return at and p.text:byte(at)
end

local decode_value

local function decode_array(p, depth)
    local out, n = setmetatable({}, Array), 0
    p.at = p.at + 1
    if skip_space(p) == 93 then
        p.at = p.at + 1
        return out
    end
    while true do
        n = n + 1
        out[n] = decode_value(p, depth)
        local c = skip_space(p)
        p.at = p.at + 1
        if c == 93 then
            return out
        elseif c ~= 44 then
            syntax(p, p.at - 1, "expected , or ] in an array")
        end
    end
end

local function decode_object(p, depth)
    local out, keys = {}, p.ordered and {}
    p.at = p.at + 1
    if skip_space(p) == 125 then
        p.at = p.at + 1
        return setmetatable(out, Object)
    end
    while true do
        if skip_space(p) ~= 34 then
            syntax(p, nil, "expected a key in quotes")
        end
        local key = decode_string(p)
        if skip_space(p) ~= 58 then
            syntax(p, nil, "expected : after a key")
        end
        p.at = p.at + 1
        if keys and out[key] == nil then
            keys[#keys + 1] = key
        end
        out[key] = decode_value(p, depth)
        local c = skip_space(p)
        p.at = p.at + 1
        if c == 125 then
            return keys and M.object(out, keys) or out
        elseif c ~= 44 then
            syntax(p, p.at - 1, "expected , or } in an object")
        end
    end
end

function decode_value(p, depth)
    local c = skip_space(p)
    if c == 34 then
        return decode_string(p)
    elseif c == 123 or c == 91 then
        if depth >= p.max_depth then
            syntax(p, nil, string.format("nested more than %d deep", p.max_depth))
        end
        return (c == 123 and decode_object or decode_array)(p, depth + 1)
    elseif c == nil then
        syntax(p, nil, "unexpected end")
    end
    local found, value = decode_word(p, words)
    if not found and p.nan then
        found, value = decode_word(p, nan_words)
    end
    if found then
        return value
    end
    return decode_number(p)
end

local function position(text, at)
    local line, line_start = 1, 1
    for newline in text:gmatch("()\n") do
        if newline >= at then
            break
        end
        line, line_start = line + 1, newline + 1
    end
    return line, at - line_start + 1
end

--- The value of JSON text, or nil and a message with line and column. Strict: no comments, no
--- trailing commas, no NaN unless `opts.nan`. Of two equal keys the last counts, as in Python.
function M.decode(text, opts)
    opts = opts or {}
    local p = {
        text = text, at = text:sub(1, 3) == "\239\187\191" and 4 or 1, max_depth = opts.max_depth or 200,
        ordered = opts.ordered, exact = opts.exact_numbers, nan = opts.nan,
    }
    local ok, value = pcall(function()
        local v = decode_value(p, 0)
        if skip_space(p) then
            syntax(p, nil, "text after the end of the value")
        end
        return v
    end)
    if ok then
        return value
    elseif type(value) ~= "table" or not value.json_what then
        error(value, 0)
    end
    local line, column = position(text, value.json_at)
    return nil, string.format("not JSON at line %d, column %d: %s", line, column, value.json_what)
end

return M
