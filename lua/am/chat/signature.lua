-- Python-like parameters for the interpreter's own filters, tests, methods and functions: named,
-- optional and required, bound from positional and keyword arguments with Python's complaints.
--
-- Arguments travel as `args`, an array of values, and `kwargs`, a values.dict with string keys.

local M = {}

--- Adds a definition to `registry` under each of the space-separated `names`. `spec` lists the
--- parameters after the subject, "!" marking the required ones ("old! new! count"); fn(rt, subject, …)
--- gets them in order, nil where absent. With spec "..." it is fn(rt, subject, args, kwargs).
function M.define(registry, names, spec, fn)
    local def = { fn = fn, variadic = spec == "...", parameters = {} }
    if not def.variadic then
        for name, mark in spec:gmatch("([%w_]+)(!?)") do
            def.parameters[#def.parameters + 1] = { name = name, required = mark == "!" }
        end
    end
    for name in names:gmatch("%S+") do
        registry[name] = def
    end
end

--- Calls a definition. `name` is for messages.
function M.invoke(rt, name, def, subject, args, kwargs)
    if def.variadic then return def.fn(rt, subject, args, kwargs) end
    local parameters = def.parameters
    local count = #parameters
    if #args > count then rt:fail("%s() takes at most %d arguments, got %d", name, count, #args) end
    local bound, used = {}, 0
    for i, parameter in ipairs(parameters) do
        local value = args[i]
        local named = kwargs.map[parameter.name]
        if named ~= nil then
            if value ~= nil then rt:fail("%s() got two values for the argument '%s'", name, parameter.name) end
            value, used = named, used + 1
        end
        if value == nil and parameter.required then
            rt:fail("%s() is missing the argument '%s'", name, parameter.name)
        end
        bound[i] = value
    end
    if used < #kwargs.keys then
        for _, key in ipairs(kwargs.keys) do
            local known = false
            for _, parameter in ipairs(parameters) do known = known or parameter.name == key end
            if not known then rt:fail("%s() got an unexpected keyword argument '%s'", name, tostring(key)) end
        end
    end
    return def.fn(rt, subject, unpack(bound, 1, count))
end

return M
