-- Runs the statement nodes of the syntax tree: one function for each kind of node, with the loops and
-- macros that templates define.

local Runtime = require "am.chat.runtime"
local values = require "am.chat.values"

local inner_scope = Runtime.inner_scope

local statements = {}

--- Runs statements; returns "break" or "continue" when one of these ended them.
function Runtime:run(nodes, scope)
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
    local v = self:eval(node.value, scope)
    self:assign(node.target, v, scope)
    -- `for i in range(n)` and in it `set message = messages[i]`
    if self.counting and self.messages[v] then self:write_as(self.messages[v]) end
end

function Runtime:filter_text(filter, text, scope)
    self.filtered_text = text
    return self:eval(filter, scope)
end

function statements.set_block(self, node, scope)
    local v, signal = self:capture(node.body, inner_scope(scope))
    if signal then return signal end
    if node.filter then v = self:filter_text(node.filter, v, scope) end
    self:assign(node.target, v, scope)
end

function statements.filter_block(self, node, scope)
    local text, signal = self:capture(node.body, inner_scope(scope))
    if signal then return signal end
    self:emit(self:str(self:filter_text(node.filter, text, scope)))
end

statements["with"] = function(self, node, scope)
    local body_scope = inner_scope(scope)
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
function Runtime:loop_items(node, iterable, scope)
    local items = values.iterate(self, iterable)
    if not node.test then return items end
    local kept = {}
    for _, item in ipairs(items) do
        local test_scope = inner_scope(scope)
        self:assign(node.target, item, test_scope)
        if values.truthy(self:eval(node.test, test_scope)) then kept[#kept + 1] = item end
    end
    return kept
end

function Runtime:loop(node, iterable, scope, depth0)
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
    local messages, counting, writer = self.messages, self.counting, self.writer
    for i = 1, #items do
        loop.index0 = i - 1
        if messages then
            self.counting = type(items[i]) == "number"
            self:write_as(messages[items[i]] or writer)
        end
        local body_scope = inner_scope(scope)
        body_scope.vars.loop = loop
        self:assign(node.target, items[i], body_scope)
        local signal = self:run(node.body, body_scope)
        if signal == "break" then break end
        completed = completed or not signal
    end
    if messages then
        self.counting = counting
        self:write_as(writer)
    end
    -- as in Jinja, `else` also runs when break or continue cut every round short
    if not completed and node.otherwise then return self:run(node.otherwise, inner_scope(scope)) end
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
    local scope = inner_scope(macro.scope)
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
    return (rt:capture(macro.body, scope))
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
    kwargs = values.dict_copy(kwargs)
    values.dict_set(self, kwargs, "caller", make_macro(node, nil, scope))
    self.line = node.line
    self:emit(self:str(self:call(callee, args, kwargs)))
end

-- The span is counted from the start of the finished output, as transformers does.
function statements.generation(self, node, scope)
    local start = self.root.size
    local text = self:capture(node.body, inner_scope(scope))
    self.spans[#self.spans + 1] = { start + 1, start + #text }
    self:emit(text)
end
