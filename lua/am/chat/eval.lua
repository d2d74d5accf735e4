-- Walks a template's syntax tree and writes its output: scopes, statements, expressions, macros, loops
-- and the limits that keep an untrusted template from running away. What values do is in values.lua,
-- operators.lua, methods.lua; filters, tests and global functions come in as registries.

local err = require "am.core.error"
local operators = require "am.chat.operators"
local printing = require "am.chat.printing"
local signature = require "am.chat.signature"
local values = require "am.chat.values"

local M = {}

-- One evaluation level takes about 40 slots of the Lua stack, which has 65,500.
local MAX_DEPTH = 600

local Interpreter = {}
Interpreter.__index = Interpreter

-- limits and errors ---------------------------------------------------------------------------------

--- Raises a "format" error at the current line of the template.
function Interpreter:fail(message, ...)
    if select("#", ...) > 0 then message = message:format(...) end
    err.raise("format", "chat template, line %d: %s", self.line, message)
end

--- Pays for `n` units of work.
function Interpreter:charge(n)
    self.steps = self.steps + n
    if self.steps > self.limits.steps then
        self:fail("the template did more than %d steps", self.limits.steps)
    end
end

--- Pays for a string of `n` bytes before it is made.
function Interpreter:allocate(n)
    if n > self.limits.output then
        self:fail("a text would grow to more than %d bytes", self.limits.output)
    end
    self:charge(n / 64)
end

local function undefined_message(v)
    if v.hint then return v.hint end
    local name = type(v.name) == "string" and "'" .. v.name .. "'" or nil
    if not v.owner then return (name or "a value") .. " is undefined" end
    local owner = v.owner == "NoneType" and "None" or v.owner .. " object"
    if name then return ("'%s' has no attribute %s"):format(owner, name) end
    return ("%s has no such element"):format(owner)
end

--- Raises when `v` is undefined.
function Interpreter:check_defined(v)
    if type(v) == "table" and v.kind == "Undefined" then self:fail("%s", undefined_message(v)) end
end

function Interpreter:enter()
    self.depth = self.depth + 1
    if self.depth > MAX_DEPTH then self:fail("calls and blocks are nested too deeply") end
end

function Interpreter:leave()
    self.depth = self.depth - 1
end

-- services for filters and methods --------------------------------------------------------------------

function Interpreter:str(v) return printing.str(self, v) end
function Interpreter:getattr(v, name) return operators.getattr(self, v, name) end
function Interpreter:getitem(v, index) return operators.getitem(self, v, index) end

--- Calls a callable value.
function Interpreter:call(callee, args, kwargs)
    if type(callee) ~= "table" or not callee.callable then
        self:check_defined(callee)
        self:fail("'%s' object is not callable", values.kind(callee))
    end
    self:enter()
    local line = self.line
    local result = callee.call(self, args, kwargs, callee)
    self.line = line
    self:leave()
    return result
end

function Interpreter:apply_filter(name, v, args, kwargs)
    local def = self.filters[name] or self:fail("no filter named '%s'", name)
    return signature.invoke(self, name, def, v, args, kwargs)
end

function Interpreter:apply_test(name, v, args, kwargs)
    local def = self.tests[name] or self:fail("no test named '%s'", name)
    return signature.invoke(self, name, def, v, args, kwargs)
end

--- A stable sort of an array into a new list by key(item).
function Interpreter:sorted(items, key, reverse)
    local keyed = {}
    for i, item in ipairs(items) do keyed[i] = { item = item, key = key(item) } end
    local function out_of_order(a, b) -- false for equal items, which keep their order
        if reverse then return values.less(self, a.key, b.key) end
        return values.less(self, b.key, a.key)
    end
    local width, count = 1, #keyed
    while width < count do
        local merged = {}
        for low = 1, count, 2 * width do
            local i, j = low, low + width
            local middle, high = math.min(low + width, count + 1), math.min(low + 2 * width, count + 1)
            while i < middle or j < high do
                if j >= high or (i < middle and not out_of_order(keyed[i], keyed[j])) then
                    merged[#merged + 1], i = keyed[i], i + 1
                else
                    merged[#merged + 1], j = keyed[j], j + 1
                end
            end
        end
        keyed, width = merged, width * 2
    end
    local out = values.list()
    for i, entry in ipairs(keyed) do out[i] = entry.item end
    return out
end

-- output --------------------------------------------------------------------------------------------

function Interpreter:emit(s)
    local out = self.out
    out.size = out.size + #s
    if out.size > self.limits.output then
        self:fail("the output grew beyond %d bytes", self.limits.output)
    end
    self:charge(1 + #s / 64)
    out[#out + 1] = s
end

-- Runs statements in `scope` with their output caught in a string.
function Interpreter:capture(nodes, scope)
    local outer = self.out
    self.out = { size = 0 }
    self:run(nodes, scope)
    local text = table.concat(self.out)
    self.out = outer
    return text
end

-- scopes ----------------------------------------------------------------------------------------------

local function inner(scope)
    return { vars = {}, parent = scope }
end

function Interpreter:lookup(scope, name)
    while scope do
        local v = scope.vars[name]
        if v ~= nil then return v end
        scope = scope.parent
    end
    local v = self.globals[name]
    if v ~= nil then return v end
    return values.undefined(name)
end

function Interpreter:assign(target, v, scope)
    if target.kind == "name" then
        scope.vars[target.name] = v
    elseif target.kind == "tuple" then
        local items = values.iterate(self, v)
        if #items ~= #target.items then
            self:fail("cannot unpack %d values into %d names", #items, #target.items)
        end
        for i, part in ipairs(target.items) do self:assign(part, items[i], scope) end
    else
        local namespace = self:lookup(scope, target.name)
        if values.kind(namespace) ~= "Namespace" then
            self:check_defined(namespace)
            self:fail("cannot assign attribute '%s': '%s' is not a namespace", target.attribute, target.name)
        end
        namespace:set(self, target.attribute, v)
    end
end

function values.Namespace.set(namespace, rt, name, v)
    if name:sub(1, 1) == "_" then
        rt:fail("a namespace cannot store the attribute '%s': it starts with an underscore", name)
    end
    values.dict_set(rt, namespace.attrs, name, v)
end

function values.Namespace.attribute(namespace, rt, name)
    return values.dict_get(rt, namespace.attrs, name)
end

-- expressions -------------------------------------------------------------------------------------------

local expressions = {}

function Interpreter:eval(node, scope)
    local depth = self.depth + 1
    self.depth = depth
    if depth > MAX_DEPTH then self:fail("an expression is nested too deeply") end
    self.line = node.line
    local steps = self.steps + 1
    self.steps = steps
    if steps > self.limits.steps then self:charge(0) end
    local v = expressions[node.kind](self, node, scope)
    self.depth = depth - 1
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

-- Evaluates call arguments to an array and a dict.
function Interpreter:arguments(arguments, scope)
    local args, kwargs = {}, values.dict()
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

-- statements --------------------------------------------------------------------------------------------

local statements = {}

-- Runs statements; returns "break" or "continue" when one of these ended them.
function Interpreter:run(nodes, scope)
    self:enter()
    for _, node in ipairs(nodes) do
        self.line = node.line
        self:charge(1)
        local signal = statements[node.kind](self, node, scope)
        if signal then
            self:leave()
            return signal
        end
    end
    self:leave()
end

function statements.data(self, node) self:emit(node.text) end

function statements.print(self, node, scope)
    self:emit(self:str(self:eval(node.value, scope)))
end

statements["if"] = function(self, node, scope)
    for _, branch in ipairs(node.branches) do
        if values.truthy(self:eval(branch.test, scope)) then return self:run(branch.body, scope) end
    end
    if node.otherwise then return self:run(node.otherwise, scope) end
end

statements["break"] = function() return "break" end
statements["continue"] = function() return "continue" end

function statements.set(self, node, scope)
    self:assign(node.target, self:eval(node.value, scope), scope)
end

function Interpreter:filter_text(filter, text, scope)
    self.filtered_text = text
    return self:eval(filter, scope)
end

function statements.set_block(self, node, scope)
    local v = self:capture(node.body, inner(scope))
    if node.filter then v = self:filter_text(node.filter, v, scope) end
    self:assign(node.target, v, scope)
end

function statements.filter_block(self, node, scope)
    local text = self:capture(node.body, inner(scope))
    self:emit(self:str(self:filter_text(node.filter, text, scope)))
end

statements["with"] = function(self, node, scope)
    local body_scope = inner(scope)
    for i, target in ipairs(node.targets) do
        self:assign(target, self:eval(node.values[i], scope), body_scope)
    end
    return self:run(node.body, body_scope)
end

-- loops -----------------------------------------------------------------------------------------------

local loop_fields = {}
function loop_fields.index0(loop) return loop.index0 end
function loop_fields.index(loop) return loop.index0 + 1 end
function loop_fields.revindex(loop) return #loop.items - loop.index0 end
function loop_fields.revindex0(loop) return #loop.items - loop.index0 - 1 end
function loop_fields.first(loop) return loop.index0 == 0 end
function loop_fields.last(loop) return loop.index0 == #loop.items - 1 end
function loop_fields.length(loop) return #loop.items end
function loop_fields.depth(loop) return loop.depth0 + 1 end
function loop_fields.depth0(loop) return loop.depth0 end
-- a neighbouring item; `false` is an item like any other
local function neighbour(offset, hint)
    return function(loop)
        local v = loop.items[loop.index0 + offset]
        if v == nil then return values.undefined(nil, nil, hint) end
        return v
    end
end
loop_fields.previtem = neighbour(0, "there is no previous item")
loop_fields.nextitem = neighbour(2, "there is no next item")

function loop_fields.cycle(loop)
    return values.func("cycle", function(rt, args)
        if #args == 0 then rt:fail("no items for cycling given") end
        return args[loop.index0 % #args + 1]
    end)
end
function loop_fields.changed(loop)
    return values.func("changed", function(rt, args)
        local seen = values.tuple(args)
        if loop.last_changed and values.equals(rt, loop.last_changed, seen) then return false end
        loop.last_changed = seen
        return true
    end)
end

function values.Loop.attribute(loop, _, name)
    local field = loop_fields[name]
    if field then return field(loop) end
end

local function call_loop(rt, args, _, loop)
    if not loop.again then
        rt:fail("the loop must have the 'recursive' marker to be called recursively")
    end
    if #args ~= 1 then rt:fail("a recursive loop takes exactly one argument") end
    return loop.again(args[1])
end

-- The items that pass the loop's `if`.
function Interpreter:loop_items(node, iterable, scope)
    local items = values.iterate(self, iterable)
    if not node.test then return items end
    local kept = {}
    for _, item in ipairs(items) do
        local test_scope = inner(scope)
        self:assign(node.target, item, test_scope)
        if values.truthy(self:eval(node.test, test_scope)) then kept[#kept + 1] = item end
    end
    return kept
end

function Interpreter:loop(node, iterable, scope, depth0)
    local items = self:loop_items(node, iterable, scope)
    local loop = setmetatable({ items = items, index0 = 0, depth0 = depth0, call = call_loop }, values.Loop)
    if node.recursive then
        loop.again = function(children)
            local outer = self.out
            self.out = { size = 0 }
            self:loop(node, children, scope, depth0 + 1)
            local text = table.concat(self.out)
            self.out = outer
            return text
        end
    end
    local completed = false
    for i = 1, #items do
        loop.index0 = i - 1
        local body_scope = inner(scope)
        body_scope.vars.loop = loop
        self:assign(node.target, items[i], body_scope)
        local signal = self:run(node.body, body_scope)
        if signal == "break" then break end
        completed = completed or not signal
    end
    -- as in Jinja, `else` also runs when break or continue cut every round short
    if not completed and node.otherwise then return self:run(node.otherwise, inner(scope)) end
end

statements["for"] = function(self, node, scope)
    return self:loop(node, self:eval(node.iterable, scope), scope, 0)
end

-- macros ----------------------------------------------------------------------------------------------

local macro_fields = {}
function macro_fields.name(macro) return macro.name or values.None end
function macro_fields.arguments(macro)
    local names = values.tuple()
    for i, parameter in ipairs(macro.parameters) do names[i] = parameter.name end
    return names
end

function values.Macro.attribute(macro, _, name)
    local field = macro_fields[name]
    if field then return field(macro) end
end

-- Whether the body of a macro mentions a name (caller, kwargs and varargs reach only those that do).
local function mentions(node, name)
    if type(node) ~= "table" or getmetatable(node) then return false end
    if node.kind == "name" and node.name == name then return true end
    for _, part in pairs(node) do
        if mentions(part, name) then return true end
    end
    return false
end

local function call_macro(rt, args, kwargs, macro)
    local scope = inner(macro.scope)
    local vars, taken, count = scope.vars, 0, #macro.parameters
    local name = macro.name or "caller"
    for i, parameter in ipairs(macro.parameters) do
        local v = args[i]
        if v == nil then
            v = kwargs.map[parameter.name]
            if v ~= nil then taken = taken + 1 end
        end
        vars[parameter.name] = v
    end
    -- defaults see the parameters before them
    for _, parameter in ipairs(macro.parameters) do
        if vars[parameter.name] == nil then
            if parameter.default then
                vars[parameter.name] = rt:eval(parameter.default, scope)
            else
                local hint = "parameter '" .. parameter.name .. "' was not provided"
                vars[parameter.name] = values.undefined(parameter.name, nil, hint)
            end
        end
    end
    if macro.takes_caller and vars.caller == nil then
        vars.caller = kwargs.map.caller
        if vars.caller == nil then
            vars.caller = values.undefined("caller", nil, "no caller defined")
        else
            taken = taken + 1
        end
    end
    if macro.takes_kwargs then
        vars.kwargs = values.dict()
        for _, key in ipairs(kwargs.keys) do
            if vars[key] == nil then values.dict_set(rt, vars.kwargs, key, kwargs.map[key]) end
        end
    elseif taken < #kwargs.keys then
        rt:fail("macro '%s' was given a keyword argument it does not take", name)
    end
    if macro.takes_varargs then
        vars.varargs = values.tuple()
        for i = count + 1, #args do vars.varargs[i - count] = args[i] end
    elseif #args > count then
        rt:fail("macro '%s' takes not more than %d argument(s)", name, count)
    end
    return rt:capture(macro.body, scope)
end

-- A macro value that closes over `scope`.
local function make_macro(node, name, scope)
    if node.takes_caller == nil then
        node.takes_caller = mentions(node.body, "caller")
        node.takes_kwargs = mentions(node.body, "kwargs")
        node.takes_varargs = mentions(node.body, "varargs")
    end
    return setmetatable({
        name = name, parameters = node.parameters, body = node.body, scope = scope, call = call_macro,
        takes_caller = node.takes_caller, takes_kwargs = node.takes_kwargs, takes_varargs = node.takes_varargs,
    }, values.Macro)
end

function statements.macro(self, node, scope)
    self:assign({ kind = "name", name = node.name }, make_macro(node, node.name, scope), scope)
end

function statements.call_block(self, node, scope)
    local callee = self:eval(node.call.callee, scope)
    local args, kwargs = self:arguments(node.call.arguments, scope)
    values.dict_set(self, kwargs, "caller", make_macro(node, nil, scope))
    self.line = node.line
    self:emit(self:str(self:call(callee, args, kwargs)))
end

-- The span is counted from the start of the finished output, as transformers does.
function statements.generation(self, node, scope)
    local start = self.root.size
    local text = self:capture(node.body, inner(scope))
    self.spans[#self.spans + 1] = { start + 1, start + #text }
    self:emit(text)
end

-- running -----------------------------------------------------------------------------------------------

--- Renders a syntax tree. `env` has filters, tests, globals (registries) and limits {steps, output};
--- `vars` maps names to values. Returns the text and the spans of generation blocks.
function M.render(tree, vars, env)
    local root = { size = 0 }
    local rt = setmetatable({
        filters = env.filters, tests = env.tests, globals = env.globals, limits = env.limits, now = env.now,
        steps = 0, depth = 0, line = 1, out = root, root = root, spans = {},
    }, Interpreter)
    local top = { vars = vars }
    rt:run(tree, inner(top))
    return table.concat(root), rt.spans
end

return M
