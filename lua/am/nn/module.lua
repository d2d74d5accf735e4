-- Modules: a table of parameters and children plus `forward`. Names follow Hugging Face, so that
-- `model.layers.0.self_attn.q_proj.weight` is both a path through the tree and a key of a
-- checkpoint. Holds no layers; see linear.lua for the smallest one.

local err = require("am.core.error")

local Module = {}
Module.__index = Module

--- A class of modules: local Linear = Module.class("Linear"); instances by Linear.new(...). What it does not
--- define comes from `parent`, Module itself by default.
function Module.class(name, parent)
    local class = setmetatable({ class_name = name }, { __index = parent or Module })
    class.__index = class
    return class
end

--- An instance of a class, to be filled by its constructor.
function Module.init(class)
    return setmetatable({ _parameters = {}, _children = {}, training = false }, class)
end

--- Declare a parameter: its shape and how to initialise it ("normal", "ones", "zeros", a number that
--- initializer_range is multiplied by for a narrower or wider "normal", {std = number} for one that does not depend on
--- it, {fill = number}). The tensor itself comes as weights are loaded or made.
function Module:declare(name, shape, init)
    self._parameters[#self._parameters + 1] = { name = name, shape = shape, init = init or "normal" }
end

--- Initialise a declared parameter otherwise; returns the module.
function Module:initialized(name, init)
    for _, slot in ipairs(self._parameters) do
        slot.init = slot.name == name and init or slot.init
    end
    return self
end

--- Add a child under a name ("q_proj", or "0" in lists).
function Module:add(name, child)
    self._children[#self._children + 1] = { name = name, module = child }
    self[name] = child
    return child
end

--- Put another module in place of a child.
function Module:replace(name, child)
    for _, c in ipairs(self._children) do
        if c.name == name then
            c.module = child
            self[name] = child
            child:train(self.training)
            return
        end
    end
    err.raise("argument", "%s has no child \"%s\"", self.class_name, name)
end

--- Iterator over (path, module), parents before children, in declaration order.
function Module:named_modules(prefix)
    local list = {}
    local function walk(module, path)
        list[#list + 1] = { path, module }
        for _, c in ipairs(module._children) do
            walk(c.module, path == "" and c.name or path .. "." .. c.name)
        end
    end
    walk(self, prefix or "")
    local i = 0
    return function()
        i = i + 1
        if list[i] then
            return list[i][1], list[i][2]
        end
    end
end

--- Iterator over (name, module, slot) of all declared parameters; slot has name, shape, init.
function Module:parameter_slots()
    local list = {}
    for path, module in self:named_modules() do
        for _, slot in ipairs(module._parameters) do
            list[#list + 1] = { path == "" and slot.name or path .. "." .. slot.name, module, slot }
        end
    end
    local i = 0
    return function()
        i = i + 1
        if list[i] then
            return unpack(list[i])
        end
    end
end

--- Iterator over (Hugging Face name, tensor). A tensor shared by two names comes once, under the
--- first, as in PyTorch.
function Module:named_parameters()
    local next_slot = self:parameter_slots()
    return function()
        local name, module, slot
        repeat
            name, module, slot = next_slot()
        until not name or (module[slot.name] and not slot.shared)
        return name, name and module[slot.name]
    end
end

--- Make a parameter the same tensor as one that another module owns.
function Module:share(name, t)
    for _, slot in ipairs(self._parameters) do
        if slot.name == name then
            slot.shared = true
        end
    end
    self[name] = t
end

--- The module at a dotted path.
function Module:get(path)
    local m = self
    for part in path:gmatch("[^.]+") do
        m = type(m) == "table" and rawget(m, part) or nil
    end
    return m
end

--- Set training mode here and below (dropout is on in it).
function Module:train(on)
    for _, module in self:named_modules() do
        module.training = on ~= false
    end
    return self
end

--- The same as train(false).
function Module:eval()
    return self:train(false)
end

--- The tree of modules as text, one a line.
function Module:repr()
    local lines = {}
    local function walk(module, name, indent)
        local head = indent .. (name and "(" .. name .. "): " or "") .. module.class_name
        if module.extra_repr then
            head = head .. "(" .. module:extra_repr() .. ")"
        end
        lines[#lines + 1] = head
        for _, c in ipairs(module._children) do
            walk(c.module, c.name, indent .. "  ")
        end
    end
    walk(self, nil, "")
    return table.concat(lines, "\n")
end

return Module
