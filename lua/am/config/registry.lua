-- The closed list of targets that a configuration may name.
-- Holds no targets: recipes fill it with what the components declare.
--
--   local registry = require("am.config").new_registry()
--   registry:define {
--       name = "am.optim.AdamW",
--       aliases = { "torch.optim.AdamW" },
--       doc = "AdamW with decoupled weight decay",
--       fields = { lr = { type = "number", default = 1e-3, above = 0, doc = "learning rate" }, … },
--       build = function(args, ctx) return … end,
--   }
--   registry:define_all(optim.targets)      an array of such tables, from a component
--
-- A target has one of:
--   build(args, ctx)        makes an object from its fields; what `_target_` in a section means
--   call(…, args)           is itself called later: `collate_fn: name` hands over a function of `…`
--                           that adds `args` (the section's other keys, defaults filled in) at the end
-- `open = true` accepts keys beyond `fields`. Field specs are described in schema.lua.
--
--   registry:define_later({ "some.package.*" }, "what it is and what to take instead")
--
-- names what other programs have and this one has not yet: resolving such a name says so.

local err = require("am.core.error")
local strings = require("am.utils.strings")

local M = {}

local Registry = {}
Registry.__index = Registry

--- An empty registry.
function M.new()
    return setmetatable({ by_name = {}, entries = {}, later = {} }, Registry)
end

--- Add a target; a name that is taken is a defect of the caller.
function Registry:define(entry)
    if type(entry.name) ~= "string" or not (entry.build or entry.call) or (entry.build and entry.call) then
        err.raise("internal", "target %s needs a name and one of build and call", tostring(entry.name))
    end
    entry.fields = entry.fields or {}
    local names = { entry.name }
    for _, alias in ipairs(entry.aliases or {}) do
        names[#names + 1] = alias
    end
    for _, name in ipairs(names) do
        if self.by_name[name] then
            err.raise("internal", "target %s is defined twice", name)
        end
        self.by_name[name] = entry
    end
    self.entries[#self.entries + 1] = entry
    return entry
end

--- Add an array of targets.
function Registry:define_all(entries)
    for _, entry in ipairs(entries) do
        self:define(entry)
    end
end

--- Give a target further names; one that is taken is left as it is.
function Registry:alias(name, aliases)
    local entry = self.by_name[name] or err.raise("internal", "there is no target %s to give other names", name)
    for _, alias in ipairs(aliases) do
        self.by_name[alias] = self.by_name[alias] or entry
    end
end

--- Say of names (an array; `*` stands for any letters) that they are known and not there yet, and why.
--- A target that is defined under such a name is there all the same.
function Registry:define_later(names, reason)
    for _, name in ipairs(names) do
        self.later[#self.later + 1] = { name = name, reason = reason }
    end
end

-- True when a name differs from that of a target by no more than a slip of the hand.
local function is_slip(registry, name)
    local near = #name <= 200 and strings.nearest(name, registry:names())
    return near ~= nil and near ~= false and strings.distance(name, near) <= 2
end

--- Why a name is not there yet, or nil.
function Registry:why_later(name)
    for _, later in ipairs(self.later) do
        if later.name == name then
            return later.reason
        elseif strings.wildcard(later.name, name) then
            return not is_slip(self, name) and later.reason or nil
        end
    end
    return nil
end

--- The target of a name or alias, or nil.
function Registry:lookup(name)
    return self.by_name[name]
end

--- Every name and alias, sorted.
function Registry:names()
    return strings.sorted_keys(self.by_name)
end

--- Up to three names like `name`: nearest as a whole, then by its last part alone, which is what
--- people remember of a dotted name.
function Registry:suggest(name)
    local names, out, seen = self:names(), {}, {}
    local function add(candidate)
        if candidate and not seen[candidate] and #out < 3 then
            seen[candidate] = true
            out[#out + 1] = candidate
        end
    end
    local last = name:match("([^.:]*)$")
    local lasts, owner = {}, {}
    for _, candidate in ipairs(names) do
        local part = candidate:match("([^.]*)$")
        if not owner[part] then
            lasts[#lasts + 1] = part
            owner[part] = candidate
        end
        if part == last then
            add(candidate)
        end
    end
    add(strings.nearest(name, names))
    local near = strings.nearest(last, lasts)
    add(near and owner[near])
    return out
end

return M
