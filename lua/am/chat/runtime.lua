-- The state of one rendering and what every part of the interpreter asks of it: limits and errors,
-- output, scopes, calls of callables, filters and tests. expressions.lua and statements.lua add eval()
-- and run() to this class.

local err = require "am.core.error"
local operators = require "am.chat.operators"
local printing = require "am.chat.printing"
local signature = require "am.chat.signature"
local values = require "am.chat.values"

-- Nesting of evaluation. The Lua stack was seen to overflow at 4800 and not at 2400.
local MAX_DEPTH = 600

---@class am.chat.Runtime
local Runtime = {}
Runtime.__index = Runtime

--- A rendering about to start. `env` has filters, tests, globals (registries), limits {steps, output},
--- now (for strftime_now), and to know which message wrote what, messages: {message = index}.
function Runtime.new(env)
    local root = { size = 0 }
    return setmetatable({
        filters = env.filters, tests = env.tests, globals = env.globals, limits = env.limits, now = env.now,
        steps = 0, depth = 0, line = 1, out = root, root = root, spans = {},
        messages = env.messages, regions = {}, region_start = 0,
    }, Runtime)
end

-- limits and errors ---------------------------------------------------------------------------------

--- Raises a "format" error at the current line of the template.
function Runtime:fail(message, ...)
    if select("#", ...) > 0 then message = message:format(...) end
    err.raise("format", "chat template, line %d: %s", self.line, message)
end

--- Pays for `n` units of work.
function Runtime:charge(n)
    self.steps = self.steps + n
    if self.steps > self.limits.steps then
        self:fail("the template did more than %d steps", self.limits.steps)
    end
end

--- Pays for a string of `n` bytes before it is made.
function Runtime:allocate(n)
    if n > self.limits.output then
        self:fail("a text would grow to more than %d bytes", self.limits.output)
    end
    self:charge(n / 64)
end

--- Pays for looking for `part` in `s`, which takes their product where both repeat themselves.
function Runtime:search(s, part)
    self:charge(#s / 16 + #s * #part / 512)
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
function Runtime:check_defined(v)
    if type(v) == "table" and v.kind == "Undefined" then self:fail("%s", undefined_message(v)) end
end

function Runtime:enter()
    self.depth = self.depth + 1
    if self.depth > MAX_DEPTH then self:fail("calls, blocks or expressions are nested too deeply") end
end

function Runtime:leave()
    self.depth = self.depth - 1
end

-- services for filters and methods --------------------------------------------------------------------

function Runtime:str(v) return printing.str(self, v) end
function Runtime:getattr(v, name) return operators.getattr(self, v, name) end
function Runtime:getitem(v, index) return operators.getitem(self, v, index) end

--- Calls a callable value.
function Runtime:call(callee, args, kwargs)
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

function Runtime:apply_filter(name, v, args, kwargs)
    local def = self.filters[name] or self:fail("no filter named '%s'", name)
    return signature.invoke(self, name, def, v, args, kwargs)
end

function Runtime:apply_test(name, v, args, kwargs)
    local def = self.tests[name] or self:fail("no test named '%s'", name)
    return signature.invoke(self, name, def, v, args, kwargs)
end

--- A stable sort of an array into a new list by key(item).
function Runtime:sorted(items, key, reverse)
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

function Runtime:emit(s)
    local out = self.out
    out.size = out.size + #s
    if out.size > self.limits.output then
        self:fail("the output grew beyond %d bytes", self.limits.output)
    end
    self:charge(1 + #s / 64)
    out[#out + 1] = s
end

-- Runs statements in `scope` with their output caught in a string. A break or continue that ends them is
-- returned second.
function Runtime:capture(nodes, scope)
    local outer = self.out
    self.out = { size = 0 }
    local signal = self:run(nodes, scope)
    local text = table.concat(self.out)
    self.out = outer
    return text, signal
end

-- which message wrote what -----------------------------------------------------------------------------

--- From here on, what is written is message `index`'s (nil: nobody's). Returns whose it was.
function Runtime:write_as(index)
    local here, before = self.root.size, self.writer
    if index == before then return before end
    if before and here > self.region_start then
        self.regions[#self.regions + 1] = { message = before, first = self.region_start + 1, last = here }
    end
    self.writer, self.region_start = index, here
    return before
end

-- scopes ----------------------------------------------------------------------------------------------

--- A scope inside another; a scope is {vars = {name = value}, parent = scope}.
function Runtime.inner_scope(scope)
    return { vars = {}, parent = scope }
end

function Runtime:lookup(scope, name)
    while scope do
        local v = scope.vars[name]
        if v ~= nil then return v end
        scope = scope.parent
    end
    local v = self.globals[name]
    if v ~= nil then return v end
    return values.undefined(name)
end

function Runtime:assign(target, v, scope)
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

return Runtime
