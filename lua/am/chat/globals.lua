-- The functions every chat template can call: Jinja's range, dict, namespace, cycler and joiner, and
-- transformers' raise_exception and strftime_now.

local err = require "am.core.error"
local values = require "am.chat.values"
local strings = require "am.chat.strings"

local M = {}

local MAX_RANGE = 100000
local MAX_TIME_FORMAT = 1000

local function define(name, fn)
    M[name] = values.func(name, fn)
end

define("range", function(rt, args)
    if #args < 1 or #args > 3 then rt:fail("range expected 1 to 3 arguments, got %d", #args) end
    local numbers = {}
    for i, v in ipairs(args) do
        if v == values.None then rt:fail("'NoneType' object cannot be interpreted as an integer") end
        numbers[i] = strings.int_argument(rt, v)
    end
    local start, stop, step = numbers[1], numbers[2], numbers[3] or 1
    if #args == 1 then start, stop = 0, numbers[1] end
    if step == 0 then rt:fail("range() arg 3 must not be zero") end
    local count = math.max(0, math.ceil((stop - start) / step))
    if count > MAX_RANGE then rt:fail("range too big: the sandbox allows at most %d items", MAX_RANGE) end
    rt:charge(count)
    return values.range(start, stop, step)
end)

-- dict(mapping_or_pairs, name=value, …)
local function make_dict(rt, args, kwargs)
    if #args > 1 then rt:fail("dict expected at most 1 argument, got %d", #args) end
    local d = values.dict()
    local source = args[1]
    if source ~= nil and values.kind(source) == "dict" then
        d = values.dict_copy(source)
    elseif source ~= nil then
        for _, pair in ipairs(values.iterate(rt, source)) do
            local items = values.iterate(rt, pair)
            if #items ~= 2 then rt:fail("dict needs pairs of key and value") end
            values.dict_set(rt, d, items[1], items[2])
        end
    end
    values.dict_each(rt, kwargs, function(key, v) values.dict_set(rt, d, key, v) end)
    rt:charge(#d.keys)
    return d
end

define("dict", make_dict)

define("namespace", function(rt, args, kwargs)
    local namespace = setmetatable({ attrs = values.dict() }, values.Namespace)
    values.dict_each(rt, make_dict(rt, args, kwargs), function(name, v)
        if type(name) == "string" then
            namespace:set(rt, name, v)
        else
            values.dict_set(rt, namespace.attrs, name, v)
        end
    end)
    return namespace
end)

define("raise_exception", function(rt, args)
    err.raise("data", "chat template, line %d: %s", rt.line, args[1] == nil and "" or rt:str(args[1]))
end)

define("strftime_now", function(rt, args)
    local format = strings.text_argument(rt, args[1] or values.None) or rt:fail("strftime_now needs a format")
    if #format > MAX_TIME_FORMAT then rt:fail("the time format is too long") end
    -- the leading space keeps os.date's own "!" and "*t" out of reach
    return os.date(" " .. format, rt.now):sub(2)
end)

define("joiner", function(rt, args)
    local separator, used = args[1] == nil and ", " or rt:str(args[1]), false
    return values.func("joiner", function()
        if used then return separator end
        used = true
        return ""
    end)
end)

local Cycler = { kind = "Cycler" }
Cycler.__index = Cycler

function Cycler:attribute(_, name)
    if name == "current" then return self.items[self.position + 1] end
    if name == "reset" then
        return values.func("reset", function()
            self.position = 0
            return values.None
        end)
    end
    if name == "next" then
        return values.func("next", function()
            local item = self.items[self.position + 1]
            self.position = (self.position + 1) % #self.items
            return item
        end)
    end
end

define("cycler", function(rt, args)
    if #args == 0 then rt:fail("at least one item has to be provided") end
    return setmetatable({ items = args, position = 0 }, Cycler)
end)

return M
