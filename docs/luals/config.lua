---@meta am.config
-- Written by docs/api.lua; do not edit. For workspace.library of a Lua language server.
-- luacheck: ignore

---@class am.config
local am_config = {}

--- A configuration node of plain Lua tables; `label` says in messages where it came from.
---@return am.config.Node
function am_config.from_table(t, label) end

--- Apply overrides, an array of { path = "a.b", value = text or nil for true }, in order.
function am_config.apply_overrides(node, overrides) end

--- Read YAML text. opts: name (in messages), overrides, getenv (for tests; default os.getenv).
---@return am.config.Node
function am_config.parse(text, opts) end

--- Read a YAML file, in the long form or the short one; opts as for parse. Raises "usage" naming file,
--- line and what to do.
---@return am.config.Node
function am_config.load(file, opts) end

--- Build what a section describes. `ctx` is { registry, roots, allow_user_code, … } and is handed to
--- every build function; `overrides` are arguments given by the program, which win over the file's.
--- opts: default_target (a name, for a section without _target_), ignore (array of keys that are not
--- the target's). Everything is checked before anything is built; raises "usage".
function am_config.instantiate(node, ctx, overrides, opts) end

--- The function that a leaf names (`collate_fn: a.b`), or that a section with _target_ describes.
function am_config.callable(node, ctx) end

--- True for nodes.
function am_config.is_node(v) end

--- YAML text of a map node. Secrets are redacted unless `opts.redact` is false.
function am_config.print(node, opts) end

--- An empty registry.
---@return am.config.Registry
function am_config.new_registry() end

--- Raise one "usage" error for an array of problems, if there are any, or an "unsupported" one for
--- what is only not there yet.
function am_config.raise(problems) end

--- The value of a leaf as its spec wants it: a number or boolean under a "string" spec is its text.
function am_config.leaf_value(node, spec) end

--- Check a whole configuration: `schema` is a spec with `fields` (the sections) and `ignore`, an
--- array of sections to pass over (default: ci and recipe). Raises one "usage" error with all that
--- is wrong. Nothing is built, and user code runs only where ctx allows it. ctx.without_effect becomes
--- an array that names the keys whose spec says no_effect.
function am_config.validate(node, schema, ctx) end

--- True when text under `key` (the last part of a path) should not be shown.
function am_config.is_secret_key(key) end

--- Translate the short form's keys in a configuration, in place; without any nothing changes. Raises "usage".
function am_config.expand_short_form(root) end

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
local am_config_Node = {}

--- Put `child` at `key` (text in a map, position from 1 in a list), replacing what is there.
function am_config_Node:attach(key, child) end

--- A deep copy without a parent.
function am_config_Node:copy() end

--- The node at a dotted path, or nil. A key that itself holds dots is found when it is the rest of
--- the path.
function am_config_Node:child(path) end

--- The value at `path`, or `default` when there is none; null is a value and reads as nil.
function am_config_Node:get(path, default) end

--- True when there is something at `path`, null included.
function am_config_Node:has(path) end

--- Keys of a map, in order.
function am_config_Node:keys() end

--- Iterate over key and value (as get gives it) of a map, in order; null values read as nil.
function am_config_Node:pairs() end

--- Plain Lua data: maps without their null keys, lists marked by json.array with null in place.
--- With `keep_null`, null keys of maps are json.null too. Maps remember their key order for JSON.
function am_config_Node:to_table(keep_null) end

--- Set a dotted path to a Lua value, table or node. `origin` (optional) says where it came from.
function am_config_Node:set(path, value, origin) end

--- Remove what a dotted path names, if it is there and in a map.
function am_config_Node:unset(path) end

--- "a.b.0" from the root; "" for the root.
function am_config_Node:path() end

--- Where the value came from: "file.yaml:12", "command line (--a.b)". For a path that is not there,
--- the nearest part that is.
function am_config_Node:where(path) end

---@class am.config.Registry
local am_config_Registry = {}

--- Add a target; a name that is taken is a defect of the caller.
function am_config_Registry:define(entry) end

--- Add an array of targets.
function am_config_Registry:define_all(entries) end

--- Give a target further names; one that is taken is left as it is.
function am_config_Registry:alias(name, aliases) end

--- Say of names (an array; `*` stands for any letters) that they are known and not there yet, and why.
--- A target that is defined under such a name is there all the same.
function am_config_Registry:define_later(names, reason) end

--- Why a name is not there yet, or nil.
function am_config_Registry:why_later(name) end

--- The target of a name or alias, or nil.
function am_config_Registry:lookup(name) end

--- Every name and alias, sorted.
function am_config_Registry:names() end

--- Up to three names like `name`: nearest as a whole, then by its last part alone, which is what
--- people remember of a dotted name.
function am_config_Registry:suggest(name) end

return am_config
