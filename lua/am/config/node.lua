-- ConfigNode: a tree of ordered maps, lists and leaves in which every value remembers where it came
-- from. Holds no file reading (yaml.lua), no printing (print.lua) and no checks (schema.lua).
--
--   node:get("a.b.0", default)   leaf -> value, map -> node, list -> Lua array (nodes for its maps)
--   node:has(path)               true when the key is there, null included
--   node:set(path, value)        makes maps on the way; a list or leaf in the way is replaced by one
--   node:unset(path)
--   node:child(path)             the node itself, whatever its kind, or nil
--   node:keys()  node:pairs()    keys in order; iterator of key and get(key)
--   node:to_table()              plain Lua tables
--   node:where(path)  node:path()   "file.yaml:12" or "command line (--a.b)"; "a.b" from the root
--   node:copy()
--
-- Null: get returns nil (and not the default: the key is there), has returns true, to_table leaves
-- the key out; inside lists null keeps its place as config.null (am.utils.json.null).
-- List indices in paths start at 0, as in Python.

local err = require("am.core.error")
local json = require("am.utils.json")
local strings = require("am.utils.strings")

local M = {}

---@class am.config.Node
---@field kind "map"|"list"|"leaf"
---@field order string[]? keys of a map, in order
---@field children table? key or position (from 1) -> Node
---@field value any of a leaf; nil is null
---@field float boolean? the number was written as a float
---@field text string? the scalar as written, when the leaf came from text
---@field template string? text with environment variables in it, kept for printing
---@field origin { file: string?, line: integer?, label: string?, via: string? } via: the key it was written as
---@field parent am.config.Node?
---@field key string|integer|nil
local Node = {}
Node.__index = Node

local PROGRAM = { label = "set by the program" }

local function new(kind, origin)
    return setmetatable({ kind = kind, origin = origin or PROGRAM }, Node)
end

--- An empty map.
function M.map(origin)
    local node = new("map", origin)
    node.order, node.children = {}, {}
    return node
end

--- An empty list.
function M.list(origin)
    local node = new("list", origin)
    node.children = {}
    return node
end

--- A leaf; `value` nil is null.
function M.leaf(value, origin)
    local node = new("leaf", origin)
    node.value = value
    return node
end

--- True for nodes.
function M.is_node(v)
    return getmetatable(v) == Node
end

--- Put `child` at `key` (text in a map, position from 1 in a list), replacing what is there.
function Node:attach(key, child)
    if self.kind == "map" and not self.children[key] then
        self.order[#self.order + 1] = key
    end
    child.parent, child.key = self, key
    self.children[key] = child
end

--- Node of a plain Lua value. A table with element 1, or marked by json.array, becomes a list; other
--- tables become maps with sorted keys.
function M.from_value(value, origin, depth)
    depth = depth or 0
    if M.is_node(value) then
        return value:copy()
    elseif value == nil or value == json.null then
        return M.leaf(nil, origin)
    elseif type(value) == "string" or type(value) == "number" or type(value) == "boolean" then
        return M.leaf(value, origin)
    elseif type(value) ~= "table" or depth > 100 then
        err.raise("internal", "a %s cannot be part of a configuration", type(value))
    elseif json.is_array(value) then
        local node = M.list(origin)
        for i = 1, #value do
            node:attach(i, M.from_value(value[i], origin, depth + 1))
        end
        return node
    end
    local node = M.map(origin)
    for _, key in ipairs(json.keys(value)) do
        node:attach(tostring(key), M.from_value(value[key], origin, depth + 1))
    end
    return node
end

--- Node of what literal.lua or scalar.lua read.
function M.from_parsed(parsed, origin)
    if parsed.list then
        local node = M.list(origin)
        for i, item in ipairs(parsed.list) do
            node:attach(i, M.from_parsed(item, origin))
        end
        return node
    elseif parsed.map then
        local node = M.map(origin)
        for _, entry in ipairs(parsed.map) do
            node:attach(entry[1], M.from_parsed(entry[2], origin))
        end
        return node
    end
    local node = M.leaf(parsed.value, origin)
    node.float = parsed.float
    return node
end

--- A deep copy without a parent.
function Node:copy()
    local out = new(self.kind, self.origin)
    out.value, out.float, out.text, out.template = self.value, self.float, self.text, self.template
    if self.kind == "map" then
        out.order, out.children = {}, {}
        for _, key in ipairs(self.order) do
            out:attach(key, self.children[key]:copy())
        end
    elseif self.kind == "list" then
        out.children = {}
        for i, child in ipairs(self.children) do
            out:attach(i, child:copy())
        end
    end
    return out
end

-- ---------------------------------------------------------------- reading

-- The child that one step of a path names.
local function step(node, key)
    if node.kind == "map" then
        return node.children[key]
    elseif node.kind == "list" and key:find("^%d+$") then
        return node.children[tonumber(key) + 1]
    end
    return nil
end

--- The node at a dotted path, or nil. A key that itself holds dots is found when it is the rest of
--- the path.
function Node:child(path)
    local node, rest = self, path
    while node do
        if node.kind == "map" and node.children[rest] then
            return node.children[rest]
        end
        local key, more = rest:match("^([^.]*)%.(.*)$")
        if not key then
            return step(node, rest)
        end
        node, rest = step(node, key), more
    end
    return nil
end

local function value_of(node)
    if node.kind == "leaf" then
        return node.value
    elseif node.kind == "map" then
        return node
    end
    local out = json.array()
    for i, child in ipairs(node.children) do
        local value = value_of(child)
        out[i] = value == nil and json.null or value
    end
    return out
end

--- The value at `path`, or `default` when there is none; null is a value and reads as nil.
function Node:get(path, default)
    local node = self:child(path)
    if not node then
        return default
    end
    return value_of(node)
end

--- True when there is something at `path`, null included.
function Node:has(path)
    return self:child(path) ~= nil
end

--- Keys of a map, in order.
function Node:keys()
    local out = {}
    for i, key in ipairs(self.order or {}) do
        out[i] = key
    end
    return out
end

--- Iterate over key and value (as get gives it) of a map, in order; null values read as nil.
function Node:pairs()
    local keys, i = self:keys(), 0
    return function()
        i = i + 1
        if keys[i] then
            return keys[i], value_of(self.children[keys[i]])
        end
    end
end

--- Plain Lua data: maps without their null keys, lists marked by json.array with null in place.
--- With `keep_null`, null keys of maps are json.null too. Maps remember their key order for JSON.
function Node:to_table(keep_null)
    if self.kind == "leaf" then
        return self.value
    elseif self.kind == "list" then
        local out = json.array()
        for i, child in ipairs(self.children) do
            local value = child:to_table(keep_null)
            out[i] = value == nil and json.null or value
        end
        return out
    end
    local out = {}
    for _, key in ipairs(self.order) do
        local value = self.children[key]:to_table(keep_null)
        if value == nil and keep_null then
            value = json.null
        end
        out[key] = value
    end
    return json.object(out, self:keys())
end

-- ---------------------------------------------------------------- writing

-- What was read from a template no longer equals it once a part is changed.
local function forget_template(node)
    while node do
        node.template, node.text = nil, nil
        node = node.parent
    end
end

--- Set a dotted path to a Lua value, table or node. `origin` (optional) says where it came from.
function Node:set(path, value, origin)
    local keys = strings.split(path, ".")
    local node = self
    for i = 1, #keys - 1 do
        local child = step(node, keys[i])
        if not child or child.kind ~= "map" then
            child = M.map(origin)
            node:attach(keys[i], child)
        end
        node = child
    end
    local child = M.from_value(value, origin)
    node:attach(keys[#keys], child)
    forget_template(node)
    return child
end

--- Remove what a dotted path names, if it is there and in a map.
function Node:unset(path)
    local child = self:child(path)
    local parent = child and child.parent
    if not parent or parent.kind ~= "map" then
        return
    end
    parent.children[child.key] = nil
    for i, key in ipairs(parent.order) do
        if key == child.key then
            table.remove(parent.order, i)
            break
        end
    end
    child.parent, child.key = nil, nil
    forget_template(parent)
end

-- ---------------------------------------------------------------- places

--- "a.b.0" from the root; "" for the root.
function Node:path()
    local parts, node = {}, self
    while node.parent do
        local key = node.key
        table.insert(parts, 1, node.parent.kind == "list" and tostring(key - 1) or key)
        node = node.parent
    end
    return table.concat(parts, ".")
end

--- Where the value came from: "file.yaml:12", "command line (--a.b)". For a path that is not there,
--- the nearest part that is.
function Node:where(path)
    local node = self
    if path and path ~= "" then
        local rest = path
        node = self:child(rest)
        while not node and rest:find(".", 1, true) do
            rest = rest:match("^(.*)%.[^.]*$")
            node = self:child(rest)
        end
        node = node or self
    end
    local origin = node.origin
    local place = origin.line and string.format("%s:%d", origin.file, origin.line) or origin.label or origin.file
    return origin.via and string.format("%s (%s)", place, origin.via) or place
end

return M
