-- Turns template source into tokens, with Jinja's whitespace rules as transformers sets them:
-- trim_blocks (the newline after a block or comment tag goes), lstrip_blocks (blanks before one on its
-- own line go), one trailing newline of the source dropped. Knows nothing of grammar.
--
-- A token is {type, value, line}. Types: "data", "block_begin", "block_end", "variable_begin",
-- "variable_end", "name", "string", "integer", "float", "eof"; an operator's type is its own text.

local err = require "am.core.error"
local unicode = require "am.utils.unicode"

local M = {}

local MAX_SOURCE = 4 * 1024 * 1024

local Lexer = {}
Lexer.__index = Lexer

function Lexer:fail(message)
    err.raise("format", "chat template, line %d: %s", self.line, message)
end

function Lexer:add(type, value)
    self.tokens[#self.tokens + 1] = { type = type, value = value, line = self.line }
end

-- Moves to byte `pos`, counting the lines passed.
function Lexer:advance(pos)
    local _, newlines = self.source:sub(self.pos, pos - 1):gsub("\n", "")
    self.line, self.pos = self.line + newlines, pos
end

-- Text before a tag: `sign` is the tag's own - or +, `strippable` false for {{ }}.
function Lexer:add_data(text, sign, strippable)
    if sign == "-" then
        text = text:sub(1, unicode.skip_space_back(text, #text))
    elseif sign ~= "+" and strippable then
        local back = text:reverse():find("\n", 1, true)
        local line_start = back and #text - back + 2 or 1
        if (line_start > 1 or self.line_starting) and unicode.skip_space(text, line_start) > #text then
            text = text:sub(1, line_start - 1)
        end
    end
    if text ~= "" then self:add("data", text) end
end

-- Consumes what follows a tag's closing mark: after "-" all whitespace, else one newline where trimmed.
function Lexer:close_tag(pos, sign, trims)
    if sign == "-" then
        pos = unicode.skip_space(self.source, pos)
    elseif sign ~= "+" and trims and self.source:sub(pos, pos) == "\n" then
        pos = pos + 1
    end
    self:advance(pos)
    self.line_starting = self.source:sub(pos - 1, pos - 1) == "\n"
end

function Lexer:comment(pos)
    local stop = self.source:find("#}", pos, true)
    if not stop then
        if pos > #self.source then return self:advance(pos) end -- Jinja lets a final "{#" pass
        self:fail("missing end of comment tag")
    end
    local sign = stop > pos and self.source:sub(stop - 1, stop - 1):match("[%-%+]") or ""
    self:close_tag(stop + 2, sign, true)
end

-- {% raw %} … {% endraw %}: everything between is data. `pos` follows the opening tag.
function Lexer:raw(pos, sign)
    self:close_tag(pos, sign, false)
    local from = self.pos
    local start, stop, open_sign, close_sign = self.source:find("{%%([%-%+]?)%s*endraw%s*([%-%+]?)%%}", from)
    if not start then self:fail("missing end of raw block") end
    self:add_data(self.source:sub(from, start - 1), open_sign, true)
    self:close_tag(stop + 1, close_sign, true)
end

local simple_escapes = {
    n = "\n", t = "\t", r = "\r", a = "\a", b = "\b", f = "\f", v = "\v", ["\\"] = "\\", ["'"] = "'",
    ['"'] = '"', ["\n"] = "",
}
local hex_escapes = { x = 2, u = 4, U = 8 }

function Lexer:unescape(body)
    if not body:find("\\", 1, true) then return body end
    local out, pos = {}, 1
    while true do
        local slash = body:find("\\", pos, true)
        if not slash then break end
        out[#out + 1] = body:sub(pos, slash - 1)
        local c = body:sub(slash + 1, slash + 1)
        local octal = body:match("^[0-7][0-7]?[0-7]?", slash + 1)
        if simple_escapes[c] then
            out[#out + 1] = simple_escapes[c]
            pos = slash + 2
        elseif octal then
            out[#out + 1] = unicode.encode(tonumber(octal, 8))
            pos = slash + 1 + #octal
        elseif hex_escapes[c] then
            local digits = body:sub(slash + 2, slash + 1 + hex_escapes[c])
            local cp = digits:find("^%x+$") and #digits == hex_escapes[c] and tonumber(digits, 16)
            if not cp or cp > 0x10FFFF then self:fail("malformed \\" .. c .. " escape in a string") end
            out[#out + 1] = unicode.encode(cp)
            pos = slash + 2 + #digits
        elseif c == "N" then
            self:fail("\\N escapes are not supported; write the character itself")
        else
            out[#out + 1] = "\\" .. c
            pos = slash + 2
        end
    end
    out[#out + 1] = body:sub(pos)
    return table.concat(out)
end

function Lexer:string_literal(quote)
    local pos = self.pos + 1
    while true do
        local hit = self.source:find("[\\" .. quote .. "]", pos)
        if not hit then self:fail("unterminated string") end
        if self.source:sub(hit, hit) == quote then
            self:add("string", self:unescape(self.source:sub(self.pos + 1, hit - 1)))
            return self:advance(hit + 1)
        end
        pos = hit + 2
    end
end

local function digits_at(source, pos)
    return source:match("^%d[%d_]*", pos)
end

-- Numbers: integers in four bases with underscores, floats with point and exponent.
function Lexer:number_literal()
    local source, pos = self.source, self.pos
    local prefix, body = source:match("^0([xXbBoO])([%x_]+)", pos)
    if prefix then
        local base = ({ x = 16, b = 2, o = 8 })[prefix:lower()]
        local value = tonumber((body:gsub("_", "")), base)
        if not value or value > 2 ^ 53 then self:fail("bad number 0" .. prefix .. body) end
        self:add("integer", value)
        return self:advance(pos + 2 + #body)
    end
    local whole = digits_at(source, pos)
    local stop = pos + #whole
    -- in `items.0.5` the number after a dot is a subscript, never a float
    local after_dot = source:sub(pos - 1, pos - 1) == "."
    local fraction = not after_dot and source:match("^%.%d[%d_]*", stop) or ""
    local exponent = not after_dot and source:match("^[eE][%+%-]?%d[%d_]*", stop + #fraction) or ""
    local literal = whole .. fraction .. exponent
    local value = tonumber((literal:gsub("_", "")), 10) or tonumber((literal:gsub("_", "")))
    if fraction == "" and exponent == "" and literal:find("^0") then
        literal = literal:match("^0[0_]*")
        value = 0
    end
    if fraction ~= "" or exponent ~= "" then
        self:add("float", value)
    else
        if value > 2 ^ 53 then self:fail("the integer " .. whole .. " is too large") end
        self:add("integer", value)
    end
    self:advance(pos + #literal)
end

local two_char_operators = { ["//"] = true, ["**"] = true, ["=="] = true, ["!="] = true, [">="] = true, ["<="] = true }
local closing = { ["("] = ")", ["["] = "]", ["{"] = "}" }

function Lexer:operator()
    local op = self.source:sub(self.pos, self.pos + 1)
    if not two_char_operators[op] then op = op:sub(1, 1) end
    if not (#op == 2 or op:find("^[%+%-/%*%%~%[%]%(%){}<>=%.:|,;]$")) then
        self:fail("unexpected character '" .. op .. "'")
    end
    local open = self.open
    if closing[op] then
        open[#open + 1] = closing[op]
    elseif op == ")" or op == "]" or op == "}" then
        if #open == 0 then self:fail("unexpected '" .. op .. "'") end
        if open[#open] ~= op then self:fail("unexpected '" .. op .. "', expected '" .. open[#open] .. "'") end
        open[#open] = nil
    end
    self:add(op, op)
    self:advance(self.pos + #op)
end

-- The inside of {% %} or {{ }}, up to and including its closing mark.
function Lexer:tag(type)
    local source = self.source
    local close = type == "block" and "%%}" or "}}"
    self:add(type .. "_begin")
    self.open = {}
    while true do
        self:advance(unicode.skip_space(source, self.pos))
        local sign = source:match("^([%-%+]?)" .. close, self.pos)
        if sign == "+" and type == "variable" then sign = nil end
        if sign and #self.open == 0 then
            self:add(type .. "_end")
            return self:close_tag(self.pos + #sign + 2, sign, type == "block")
        end
        local c = source:sub(self.pos, self.pos)
        if c == "" then
            self:fail("unexpected end of template inside a tag")
        elseif c == "'" or c == '"' then
            self:string_literal(c)
        elseif c:find("%d") then
            self:number_literal()
        elseif c:find("[%a_\128-\255]") then
            local name = source:match("^[%w_\128-\255]+", self.pos)
            self:add("name", name)
            self:advance(self.pos + #name)
        else
            self:operator()
        end
    end
end

function Lexer:run()
    local source = self.source
    while true do
        local start = source:find("{[{%%#]", self.pos)
        if not start then break end
        local mark = source:sub(start + 1, start + 1)
        local sign = source:match("^[%-%+]", start + 2) or ""
        local _, raw_stop, raw_sign = source:find("^{%%[%-%+]?%s*raw%s*(%-?)%%}", start)
        self:add_data(source:sub(self.pos, start - 1), sign, mark ~= "{")
        self:advance(start)
        local inside = start + 2 + #sign
        if raw_stop then
            self:raw(raw_stop + 1, raw_sign)
        elseif mark == "#" then
            self:comment(inside)
        else
            self:advance(inside)
            self:tag(mark == "{" and "variable" or "block")
        end
    end
    self:add_data(source:sub(self.pos), "", false)
    self:advance(#source + 1)
    self:add("eof")
    return self.tokens
end

--- The tokens of a template. Raises "format" naming the line.
function M.tokenize(source)
    if #source > MAX_SOURCE then
        err.raise("format", "the chat template has %d bytes; the limit is %d", #source, MAX_SOURCE)
    end
    source = source:gsub("\r\n?", "\n"):gsub("\n$", "")
    return setmetatable({ source = source, pos = 1, line = 1, line_starting = true, tokens = {} }, Lexer):run()
end

return M
