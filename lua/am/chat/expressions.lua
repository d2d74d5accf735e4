-- Evaluates the expression nodes of the syntax tree: one function for each kind of node.

local Runtime = require "am.chat.runtime"
local operators = require "am.chat.operators"
local values = require "am.chat.values"

local expressions = {}

--- The value of an expression node in a scope.
function Runtime:eval(node, scope)
    self:enter()
    self:charge(1)
    self.line = node.line
    local v = expressions[node.kind](self, node, scope)
    self:leave()
    return v
end

function expressions.const(_, node) return node.value end
function expressions.name(self, node, scope) return self:lookup(scope, node.name) end

function expressions.list(self, node, scope)
    local list = values.list()
    for i, item in ipairs(node.items) do list[i] = self:eval(item, scope) end
    return list
end

function expressions.tuple(self, node, scope)
    local tuple = values.tuple()
    for i, item in ipairs(node.items) do tuple[i] = self:eval(item, scope) end
    return tuple
end

function expressions.dict(self, node, scope)
    local d = values.dict()
    for _, pair in ipairs(node.items) do
        local key = self:eval(pair.key, scope)
        values.dict_set(self, d, key, self:eval(pair.value, scope))
    end
    return d
end

function expressions.getattr(self, node, scope)
    local object = self:eval(node.object, scope)
    self.line = node.line
    return operators.getattr(self, object, node.name)
end

function expressions.getitem(self, node, scope)
    local object = self:eval(node.object, scope)
    local index = node.index
    if index.kind == "slice" then
        local start = index.start and self:eval(index.start, scope)
        local stop = index.stop and self:eval(index.stop, scope)
        local step = index.step and self:eval(index.step, scope)
        return operators.slice(self, object, start, stop, step)
    end
    index = self:eval(index, scope)
    self.line = node.line
    return operators.getitem(self, object, index)
end

function expressions.slice(self)
    self:fail("a slice is only possible alone in a subscript")
end

local no_kwargs = values.dict()

--- Evaluates call arguments to an array and a dict, which must not be changed.
function Runtime:arguments(arguments, scope)
    local args, kwargs = {}, no_kwargs
    if arguments.kwargs[1] or arguments.starstar then kwargs = values.dict() end
    for i, arg in ipairs(arguments.args) do args[i] = self:eval(arg, scope) end
    for _, pair in ipairs(arguments.kwargs) do
        values.dict_set(self, kwargs, pair.name, self:eval(pair.value, scope))
    end
    if arguments.star then
        for _, v in ipairs(values.iterate(self, self:eval(arguments.star, scope))) do args[#args + 1] = v end
    end
    if arguments.starstar then
        local mapping = self:eval(arguments.starstar, scope)
        if values.kind(mapping) ~= "dict" then self:fail("the argument after ** must be a mapping") end
        values.dict_each(self, mapping, function(key, v)
            if type(key) ~= "string" then self:fail("keywords must be strings") end
            if kwargs.map[key] ~= nil then self:fail("got two values for the keyword argument '%s'", key) end
            values.dict_set(self, kwargs, key, v)
        end)
    end
    return args, kwargs
end

function expressions.call(self, node, scope)
    local callee = self:eval(node.callee, scope)
    local args, kwargs = self:arguments(node.arguments, scope)
    self.line = node.line
    return self:call(callee, args, kwargs)
end

function expressions.filter(self, node, scope)
    -- inside filter and set blocks the innermost operand is the block's text
    local v = self.filtered_text
    if node.operand then
        v = self:eval(node.operand, scope)
    else
        self.filtered_text = nil
    end
    local args, kwargs = self:arguments(node.arguments, scope)
    self.line = node.line
    return self:apply_filter(node.name, v, args, kwargs)
end

function expressions.test(self, node, scope)
    local v = self:eval(node.operand, scope)
    local args, kwargs = self:arguments(node.arguments, scope)
    self.line = node.line
    return self:apply_test(node.name, v, args, kwargs)
end

expressions["not"] = function(self, node, scope)
    return not values.truthy(self:eval(node.operand, scope))
end

expressions["and"] = function(self, node, scope)
    local left = self:eval(node.left, scope)
    if not values.truthy(left) then return left end
    return self:eval(node.right, scope)
end

expressions["or"] = function(self, node, scope)
    local left = self:eval(node.left, scope)
    if values.truthy(left) then return left end
    return self:eval(node.right, scope)
end

function expressions.conditional(self, node, scope)
    if values.truthy(self:eval(node.test, scope)) then return self:eval(node.yes, scope) end
    if node.no then return self:eval(node.no, scope) end
    return values.undefined(nil, nil, "the inline if-expression evaluated to false and no else section was defined")
end

function expressions.binary(self, node, scope)
    local left = self:eval(node.left, scope)
    local right = self:eval(node.right, scope)
    self.line = node.line
    return operators.binary(self, node.op, left, right)
end

function expressions.neg(self, node, scope) return operators.unary(self, "-", self:eval(node.operand, scope)) end
function expressions.pos(self, node, scope) return operators.unary(self, "+", self:eval(node.operand, scope)) end

function expressions.concat(self, node, scope)
    local parts, size = {}, 0
    for i, part in ipairs(node.parts) do
        parts[i] = self:str(self:eval(part, scope))
        size = size + #parts[i]
    end
    self:allocate(size)
    return table.concat(parts)
end

local compare = {}
compare["=="] = function(self, a, b) return values.equals(self, a, b) end
compare["!="] = function(self, a, b) return not values.equals(self, a, b) end
compare["<"] = function(self, a, b) return values.less(self, a, b, "<") end
compare[">"] = function(self, a, b) return values.less(self, b, a, ">") end
compare["<="] = function(self, a, b) return values.less(self, a, b, "<=") or values.equals(self, a, b) end
compare[">="] = function(self, a, b) return values.less(self, b, a, ">=") or values.equals(self, a, b) end
compare["in"] = function(self, a, b) return values.contains(self, b, a) end
compare["not in"] = function(self, a, b) return not values.contains(self, b, a) end

function expressions.compare(self, node, scope)
    local left = self:eval(node.first, scope)
    for _, step in ipairs(node.rest) do
        local right = self:eval(step.operand, scope)
        self.line = node.line
        if not compare[step.op](self, left, right) then return false end
        left = right
    end
    return true
end
