-- JSON as Python writes and reads it: encode() gives json.dumps' text for the `tojson` filter, decode()
-- gives values that keep the order of keys and tell 1 from 1.0 and [] from {} (cjson does none of that).

local err = require "am.core.error"
local printing = require "am.chat.printing"
local unicode = require "am.utils.unicode"
local values = require "am.chat.values"

local M = {}

local MAX_NESTING = 100

local escapes = {
    ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t", ["\b"] = "\\b", ["\f"] = "\\f",
}

local function escape_wide(c)
    local cp = unicode.decode(c)
    if cp < 0x10000 then return ("\\u%04x"):format(cp) end
    cp = cp - 0x10000
    return ("\\u%04x\\u%04x"):format(0xD800 + math.floor(cp / 1024), 0xDC00 + cp % 1024)
end

local function quote(s, ensure_ascii)
    s = s:gsub('[%z\1-\31"\\]', function(c) return escapes[c] or ("\\u%04x"):format(c:byte()) end)
    if ensure_ascii then s = s:gsub("[\194-\244][\128-\191]+", escape_wide) end
    return '"' .. s .. '"'
end

local function scalar(v)
    if v == values.None then return "null" end
    if type(v) == "boolean" then return v and "true" or "false" end
    if type(v) == "number" then return printing.int_text(v) end
    if values.kind(v) == "float" then
        local text = printing.float_text(v.value)
        return ({ nan = "NaN", inf = "Infinity", ["-inf"] = "-Infinity" })[text] or text
    end
end

local Writer = {}
Writer.__index = Writer

function Writer:put(s)
    self.size = self.size + #s
    if self.size > self.rt.limits.output then self.rt:allocate(self.size) end
    self.out[#self.out + 1] = s
end

function Writer:newline(depth)
    if self.indent then self:put("\n" .. self.indent:rep(depth)) end
end

function Writer:key(key)
    local s = values.text(key) or scalar(key)
    if not s then
        self.rt:fail("JSON keys must be str, int, float, bool or None, not %s", values.kind(key))
    end
    return quote(s, self.ensure_ascii)
end

function Writer:dict(v, depth)
    local keys = v.keys
    if #keys == 0 then return self:put("{}") end
    if self.sort_keys then keys = self.rt:sorted(keys, function(key) return key end) end
    self:put("{")
    for i, key in ipairs(keys) do
        if i > 1 then self:put(self.item_separator) end
        self:newline(depth)
        self:put(self:key(key) .. self.key_separator)
        self:value(values.dict_get(self.rt, v, key), depth)
    end
    self:newline(depth - 1)
    self:put("}")
end

function Writer:list(v, depth)
    if #v == 0 then return self:put("[]") end
    self:put("[")
    for i, item in ipairs(v) do
        if i > 1 then self:put(self.item_separator) end
        self:newline(depth)
        self:value(item, depth)
    end
    self:newline(depth - 1)
    self:put("]")
end

function Writer:value(v, depth)
    local s = values.text(v)
    self.rt:charge(2 + (s and math.floor(#s / 16) or 0))
    s = s and quote(s, self.ensure_ascii) or scalar(v)
    if s then return self:put(s) end
    if depth >= MAX_NESTING then self.rt:fail("a value is nested too deeply for JSON") end
    if values.kind(v) == "dict" then
        self:dict(v, depth + 1)
    elseif values.is_sequence(v) then
        self:list(v, depth + 1)
    else
        self.rt:fail("Object of type %s is not JSON serializable", values.kind(v))
    end
end

--- json.dumps(v). opts: ensure_ascii, indent (string of one level), item_separator, key_separator,
--- sort_keys.
function M.encode(rt, v, opts)
    local writer = setmetatable({
        rt = rt, out = {}, size = 0, ensure_ascii = opts.ensure_ascii, indent = opts.indent, sort_keys = opts.sort_keys,
        item_separator = opts.item_separator or (opts.indent and "," or ", "),
        key_separator = opts.key_separator or ": ",
    }, Writer)
    writer:value(v, 0)
    return table.concat(writer.out)
end

-- reading -----------------------------------------------------------------------------------------

local Reader = {}
Reader.__index = Reader

function Reader:fail(message)
    err.raise("data", "JSON, byte %d: %s", self.pos, message)
end

function Reader:skip()
    self.pos = self.text:match("^[ \t\r\n]*()", self.pos)
end

local plain_escapes = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t", ['"'] = '"', ["\\"] = "\\", ["/"] = "/" }

function Reader:unicode_escape(pos)
    local cp = tonumber(self.text:match("^%x%x%x%x", pos) or self:fail("malformed \\u escape"), 16)
    if cp >= 0xD800 and cp < 0xDC00 then
        local low = tonumber(self.text:match("^\\u(%x%x%x%x)", pos + 4) or "0", 16)
        if low >= 0xDC00 and low < 0xE000 then
            return unicode.encode(0x10000 + (cp - 0xD800) * 1024 + low - 0xDC00), pos + 10
        end
    end
    return unicode.encode(cp), pos + 4
end

function Reader:string()
    local out, pos = {}, self.pos + 1
    while true do
        local hit = self.text:find('[%z\1-\31"\\]', pos) or self:fail("unterminated string")
        out[#out + 1] = self.text:sub(pos, hit - 1)
        local c = self.text:sub(hit, hit)
        if c == '"' then
            self.pos = hit + 1
            return table.concat(out)
        elseif c ~= "\\" then
            self:fail("control character in a string")
        end
        local e = self.text:sub(hit + 1, hit + 1)
        if e == "u" then
            out[#out + 1], pos = self:unicode_escape(hit + 2)
        else
            out[#out + 1] = plain_escapes[e] or self:fail("unknown escape \\" .. e)
            pos = hit + 2
        end
    end
end

function Reader:number()
    local digits, fraction, exponent, stop = self.text:match("^(%-?%d+)(%.?%d*)([eE]?[%+%-]?%d*)()", self.pos)
    local x = digits and tonumber(digits .. fraction .. exponent)
    if not x or fraction == "." or digits:find("^%-?0%d") then self:fail("malformed value") end
    self.pos = stop
    if fraction == "" and exponent == "" and math.abs(x) < 2 ^ 63 then return x end
    return values.float(x)
end

-- Parts of an object or array: calls part() between separators until `close`.
function Reader:sequence(close, part)
    self.pos = self.pos + 1
    self:skip()
    if self.text:sub(self.pos, self.pos) == close then
        self.pos = self.pos + 1
        return
    end
    while true do
        part()
        self:skip()
        local c = self.text:sub(self.pos, self.pos)
        self.pos = self.pos + 1
        if c == close then return end
        if c ~= "," then self:fail("expected ',' or '" .. close .. "'") end
        self:skip()
    end
end

function Reader:object(depth)
    local d = values.dict()
    self:sequence("}", function()
        if self.text:sub(self.pos, self.pos) ~= '"' then self:fail("expected a key in quotes") end
        local key = self:string()
        self:skip()
        if self.text:sub(self.pos, self.pos) ~= ":" then self:fail("expected ':'") end
        self.pos = self.pos + 1
        values.dict_set(nil, d, key, self:value(depth))
    end)
    return d
end

function Reader:array(depth)
    local list = values.list()
    self:sequence("]", function() list[#list + 1] = self:value(depth) end)
    return list
end

local words = { ["true"] = true, ["false"] = false, null = values.None }

function Reader:value(depth)
    if depth > MAX_NESTING then self:fail("nested more than " .. MAX_NESTING .. " levels deep") end
    self:skip()
    local c = self.text:sub(self.pos, self.pos)
    if c == "{" then return self:object(depth + 1) end
    if c == "[" then return self:array(depth + 1) end
    if c == '"' then return self:string() end
    local word = self.text:match("^%a+", self.pos)
    if word and words[word] ~= nil then
        self.pos = self.pos + #word
        return words[word]
    end
    return self:number()
end

--- The value of a JSON text. Raises "data" naming the byte where it is malformed.
function M.decode(text)
    local reader = setmetatable({ text = text, pos = 1 }, Reader)
    local v = reader:value(0)
    reader:skip()
    if reader.pos <= #text then reader:fail("unexpected text after the value") end
    return v
end

return M
