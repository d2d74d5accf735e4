-- The expressions of the template grammar, with the precedences and quirks of jinja2 3.1's parser, and
-- the token handling that parser.lua's statements share. Evaluates nothing.
--
-- Nodes are {kind = …, line = …, fields…} with the kinds const, name, nsref, list, tuple, dict, getattr,
-- getitem, slice, call, filter, test, not, neg, pos, binary, and, or, compare, concat, conditional.

local err = require "am.core.error"
local values = require "am.chat.values"

-- nesting of expressions and statements; bounds the Lua stack of this parser and of the evaluator
local MAX_DEPTH = 150

---@class am.chat.Parser
local Parser = {}
Parser.__index = Parser

--- A parser at the first of the lexer's tokens.
function Parser.new(tokens)
    return setmetatable({ tokens = tokens, pos = 1, token = tokens[1], depth = 0, loops = 0 }, Parser)
end

-- tokens ------------------------------------------------------------------------------------------

function Parser:fail(message, line)
    err.raise("format", "chat template, line %d: %s", line or self.token.line, message)
end

local function describe(token)
    if token.type == "name" or token.type == "string" then return token.value end
    local words = {
        block_end = "end of statement block", variable_end = "end of print statement", eof = "end of template",
    }
    return words[token.type] or token.type
end

function Parser:next()
    local token = self.token
    self.pos = self.pos + 1
    self.token = self.tokens[self.pos] or token
    return token
end

function Parser:look()
    return self.tokens[self.pos + 1] or self.token
end

function Parser:is(type) return self.token.type == type end

function Parser:is_name(word)
    return self.token.type == "name" and self.token.value == word
end

function Parser:skip_if(type)
    if self.token.type == type then return self:next() end
end

function Parser:skip_name(word)
    if self:is_name(word) then return self:next() end
end

function Parser:expect(type)
    if self.token.type ~= type then
        self:fail(("expected '%s', got '%s'"):format(type, describe(self.token)))
    end
    return self:next()
end

function Parser:expect_name(word)
    if not self:is_name(word) then self:fail(("expected '%s', got '%s'"):format(word, describe(self.token))) end
    return self:next()
end

-- Runs a parsing method one level deeper.
function Parser:nested(method, ...)
    self.depth = self.depth + 1
    if self.depth > MAX_DEPTH then self:fail("nested more than " .. MAX_DEPTH .. " levels deep") end
    local node = method(self, ...)
    self.depth = self.depth - 1
    return node
end

-- expressions -------------------------------------------------------------------------------------

function Parser:expression()
    return self:nested(self.conditional)
end

function Parser:conditional()
    local node = self:logic_or()
    while self:is_name("if") do
        local line = self:next().line
        local test = self:logic_or()
        local otherwise = self:skip_name("else") and self:nested(self.conditional) or nil
        node = { kind = "conditional", line = line, test = test, yes = node, no = otherwise }
    end
    return node
end

function Parser:logic_or()
    local node = self:logic_and()
    while self:is_name("or") do
        local line = self:next().line
        node = { kind = "or", line = line, left = node, right = self:logic_and() }
    end
    return node
end

function Parser:logic_and()
    local node = self:logic_not()
    while self:is_name("and") do
        local line = self:next().line
        node = { kind = "and", line = line, left = node, right = self:logic_not() }
    end
    return node
end

function Parser:logic_not()
    if self:is_name("not") then
        local line = self:next().line
        return { kind = "not", line = line, operand = self:nested(self.logic_not) }
    end
    return self:comparison()
end

local comparisons = { ["=="] = true, ["!="] = true, ["<"] = true, ["<="] = true, [">"] = true, [">="] = true }

function Parser:comparison()
    local line = self.token.line
    local first, rest = self:sum(), {}
    while true do
        local op
        if comparisons[self.token.type] then
            op = self:next().type
        elseif self:skip_name("in") then
            op = "in"
        elseif self:is_name("not") and self:look().type == "name" and self:look().value == "in" then
            self:next()
            self:next()
            op = "not in"
        else
            break
        end
        rest[#rest + 1] = { op = op, operand = self:sum() }
    end
    if #rest == 0 then return first end
    return { kind = "compare", line = line, first = first, rest = rest }
end

-- A left-associative chain of binary operators.
function Parser:chain(operators, operand)
    local node = operand(self)
    while operators[self.token.type] do
        local token = self:next()
        node = { kind = "binary", line = token.line, op = token.type, left = node, right = operand(self) }
    end
    return node
end

function Parser:sum()
    return self:chain({ ["+"] = true, ["-"] = true }, self.concatenation)
end

function Parser:concatenation()
    local line = self.token.line
    local parts = { self:product() }
    while self:skip_if("~") do parts[#parts + 1] = self:product() end
    if #parts == 1 then return parts[1] end
    return { kind = "concat", line = line, parts = parts }
end

function Parser:product()
    return self:chain({ ["*"] = true, ["/"] = true, ["//"] = true, ["%"] = true }, self.power)
end

function Parser:power()
    return self:chain({ ["**"] = true }, self.unary)
end

function Parser:unary(without_filter)
    local token = self.token
    local node
    if token.type == "-" or token.type == "+" then
        self:next()
        local operand = self:nested(self.unary, true)
        node = { kind = token.type == "-" and "neg" or "pos", line = token.line, operand = operand }
    else
        node = self:primary()
    end
    node = self:postfix(node)
    return without_filter and node or self:filters_and_tests(node)
end

Parser.constants = {
    ["true"] = true, True = true, ["false"] = false, False = false, none = values.None, None = values.None,
}

function Parser:primary(with_nsref)
    local token = self.token
    local line = token.line
    if token.type == "name" then
        self:next()
        local constant = self.constants[token.value]
        if constant ~= nil then return { kind = "const", line = line, value = constant } end
        if with_nsref and self:skip_if(".") then
            return { kind = "nsref", line = line, name = token.value, attribute = self:expect("name").value }
        end
        return { kind = "name", line = line, name = token.value }
    elseif token.type == "string" then
        local parts = {}
        while self:is("string") do parts[#parts + 1] = self:next().value end
        return { kind = "const", line = line, value = table.concat(parts) }
    elseif token.type == "integer" then
        return { kind = "const", line = line, value = self:next().value }
    elseif token.type == "float" then
        return { kind = "const", line = line, value = values.float(self:next().value) }
    elseif self:skip_if("(") then
        local node = self:tuple { parentheses = true }
        self:expect(")")
        return node
    elseif self:skip_if("[") then
        return { kind = "list", line = line, items = self:items("]", self.expression) }
    elseif self:skip_if("{") then
        return { kind = "dict", line = line, items = self:items("}", self.pair) }
    end
    self:fail(("unexpected '%s'"):format(describe(token)))
end

-- Comma-separated parts up to the closing mark, which is consumed; a trailing comma is allowed.
function Parser:items(close, part)
    local items = {}
    while not self:is(close) do
        if #items > 0 then
            self:expect(",")
            if self:is(close) then break end
        end
        items[#items + 1] = part(self)
    end
    self:expect(close)
    return items
end

function Parser:pair()
    local key = self:expression()
    self:expect(":")
    return { key = key, value = self:expression() }
end

-- One expression, or a tuple where commas follow. opts: `targets` (only names and literals, as in
-- assignments), `without_conditional`, `parentheses` (an empty tuple is fine), `stop` (a word that ends it).
function Parser:tuple(opts)
    local line, items, is_tuple = self.token.line, {}, false
    while true do
        if #items > 0 then self:expect(",") end
        local token = self.token
        if token.type == "variable_end" or token.type == "block_end" or token.type == ")"
            or (opts.stop and self:is_name(opts.stop)) then
            break
        end
        if opts.targets then
            items[#items + 1] = self:nested(self.primary, opts.nsref)
        elseif opts.without_conditional then
            items[#items + 1] = self:nested(self.logic_or)
        else
            items[#items + 1] = self:expression()
        end
        if not self:is(",") then break end
        is_tuple = true
    end
    if not is_tuple then
        if items[1] then return items[1] end
        if not opts.parentheses then
            self:fail(("expected an expression, got '%s'"):format(describe(self.token)))
        end
    end
    return { kind = "tuple", line = line, items = items }
end

function Parser:postfix(node)
    while true do
        if self:is(".") or self:is("[") then
            node = self:subscript(node)
        elseif self:is("(") then
            node = self:call(node)
        else
            return node
        end
    end
end

function Parser:filters_and_tests(node)
    while true do
        if self:skip_if("|") then
            node = self:filter(node)
        elseif self:is_name("is") then
            node = self:test(node)
        elseif self:is("(") then
            node = self:call(node)
        else
            return node
        end
    end
end

function Parser:subscript(object)
    local token = self:next()
    if token.type == "." then
        local attribute = self:next()
        if attribute.type == "name" then
            return { kind = "getattr", line = token.line, object = object, name = attribute.value }
        elseif attribute.type ~= "integer" then
            self:fail("expected name or number after '.'", attribute.line)
        end
        local index = { kind = "const", line = token.line, value = attribute.value }
        return { kind = "getitem", line = token.line, object = object, index = index }
    end
    local parts, line = {}, token.line
    while not self:is("]") do
        if #parts > 0 then self:expect(",") end
        parts[#parts + 1] = self:subscript_part()
    end
    self:expect("]")
    local index = #parts == 1 and parts[1] or { kind = "tuple", line = line, items = parts }
    return { kind = "getitem", line = line, object = object, index = index }
end

function Parser:subscript_part()
    local line, start, stop, step = self.token.line, nil, nil, nil
    local function absent() return self:is(":") or self:is("]") or self:is(",") end
    if not self:is(":") then
        start = self:expression()
        if not self:is(":") then return start end
    end
    self:expect(":")
    if not absent() then stop = self:expression() end
    if self:skip_if(":") and not absent() then step = self:expression() end
    return { kind = "slice", line = line, start = start, stop = stop, step = step }
end

-- Arguments in parentheses: {args, kwargs = {{name, value}…}, star, starstar}.
function Parser:arguments()
    local line = self:expect("(").line
    local result = { args = {}, kwargs = {} }
    local first = true
    local function ensure(valid)
        if not valid then self:fail("invalid syntax in call arguments", line) end
    end
    while not self:is(")") do
        if not first then
            self:expect(",")
            if self:is(")") then break end
        end
        first = false
        if self:skip_if("*") then
            ensure(not result.star and not result.starstar)
            result.star = self:expression()
        elseif self:skip_if("**") then
            ensure(not result.starstar)
            result.starstar = self:expression()
        elseif self:is("name") and self:look().type == "=" then
            ensure(not result.starstar)
            local name = self:next().value
            self:next()
            for _, other in ipairs(result.kwargs) do
                if other.name == name then self:fail("keyword argument repeated: " .. name) end
            end
            result.kwargs[#result.kwargs + 1] = { name = name, value = self:expression() }
        else
            ensure(not result.star and not result.starstar and #result.kwargs == 0)
            result.args[#result.args + 1] = self:expression()
        end
    end
    self:expect(")")
    return result
end

function Parser:call(callee)
    local line = self.token.line
    return { kind = "call", line = line, callee = callee, arguments = self:arguments() }
end

function Parser:dotted_name()
    local name = self:expect("name").value
    while self:skip_if(".") do name = name .. "." .. self:expect("name").value end
    return name
end

-- After "|" (or the word "filter"): one filter applied to `operand` (nil inside filter blocks).
function Parser:filter(operand)
    local line = self.token.line
    local name = self:dotted_name()
    local arguments = self:is("(") and self:arguments() or { args = {}, kwargs = {} }
    return { kind = "filter", line = line, name = name, operand = operand, arguments = arguments }
end

local argument_starts = {
    name = true, string = true, integer = true, float = true, ["("] = true, ["["] = true, ["{"] = true,
}

function Parser:test(operand)
    local line = self:next().line
    local negated = self:skip_name("not")
    local name = self:dotted_name()
    local arguments = { args = {}, kwargs = {} }
    if self:is("(") then
        arguments = self:arguments()
    elseif argument_starts[self.token.type]
        and not (self:is_name("else") or self:is_name("or") or self:is_name("and")) then
        if self:is_name("is") then self:fail("tests with 'is' cannot be chained") end
        arguments.args[1] = self:postfix(self:nested(self.primary))
    end
    local node = { kind = "test", line = line, name = name, operand = operand, arguments = arguments }
    return negated and { kind = "not", line = line, operand = node } or node
end

return Parser
