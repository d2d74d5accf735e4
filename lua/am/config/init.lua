-- Configurations: YAML files in NeMo Automodel's vocabulary, overrides, checks and building.
-- This file is the component's whole interface; what each part does is in its own file:
--   yaml.lua text to nodes · scalar.lua, literal.lua what a scalar means · node.lua ConfigNode ·
--   env.lua ${VAR} · short_form.lua model.name and the like · secrets.lua, print.lua nodes to text ·
--   registry.lua, resolve.lua names to targets · schema.lua checks · instantiate.lua sections to objects
--
--   local config = require("am.config")
--   local cfg = config.load("run.yaml", { overrides = args.overrides })
--   cfg:get("optimizer.lr", 1e-3)                           reading: node.lua
--   local registry = config.new_registry()                  filling: registry.lua
--   local ctx = { registry = registry, roots = { recipe_folder }, allow_user_code = false }
--   config.validate(cfg, { fields = { optimizer = { target = true, required = true }, … } }, ctx)
--   local optimizer = config.instantiate(cfg:child("optimizer"), ctx, { params = … })
--   path.write_file("config.yaml", config.print(cfg))

local env = require("am.config.env")
local err = require("am.core.error")
local instantiate = require("am.config.instantiate")
local json = require("am.utils.json")
local nodes = require("am.config.node")
local path = require("am.utils.path")
local printer = require("am.config.print")
local registry = require("am.config.registry")
local scalar = require("am.config.scalar")
local schema = require("am.config.schema")
local secrets = require("am.config.secrets")
local short_form = require("am.config.short_form")
local yaml = require("am.config.yaml")

local M = {}

--- Null inside lists and free tables (keys that are null read as nil).
M.null = json.null

M.is_node = nodes.is_node
M.is_secret_key = secrets.is_secret_key
M.new_registry = registry.new
M.validate = schema.validate
M.raise = schema.raise
M.leaf_value = schema.leaf_value
M.instantiate = instantiate.instantiate
M.callable = instantiate.callable
M.print = printer.print
M.expand_short_form = short_form.expand

--- A configuration node of plain Lua tables; `label` says in messages where it came from.
function M.from_table(t, label)
    return nodes.from_value(t, label and { label = label })
end

-- Text from the command line is a string as any in the file: environment, then Python literals. null is
-- null, as it is where it stands in the file without quotes.
local function override_node(override)
    local origin = { label = string.format("command line (--%s)", override.path) }
    if override.value == nil then
        return nodes.leaf(true, origin)
    end
    local node
    if override.value:find("$", 1, true) then
        node = nodes.leaf(override.value, origin)
        node.template = override.value
    else
        node = nodes.from_parsed(override.value == "null" and {} or scalar.translate(override.value), origin)
    end
    node.text = override.value
    return node
end

--- Apply overrides, an array of { path = "a.b", value = text or nil for true }, in order.
function M.apply_overrides(node, overrides)
    for _, override in ipairs(overrides) do
        local child = override_node(override)
        local placed = node:set(override.path, nil, child.origin)
        placed.parent:attach(placed.key, child)
    end
    return node
end

--- Read YAML text. opts: name (in messages), overrides, getenv (for tests; default os.getenv).
function M.parse(text, opts)
    opts = opts or {}
    local node = yaml.parse(text, opts.name or "configuration")
    M.apply_overrides(node, opts.overrides or {})
    env.resolve(node, opts.getenv or os.getenv)
    return node
end

--- Read a YAML file, in the long form or the short one; opts as for parse. Raises "usage" naming file,
--- line and what to do.
function M.load(file, opts)
    opts = opts or {}
    if path.is_dir(file) then
        err.raise("usage", "%s is a folder; give a YAML file", file)
    end
    local text, msg = path.read_file(file, yaml.MAX_BYTES)
    if not text then
        err.raise("usage", "cannot read the configuration: %s", msg)
    end
    local node = M.parse(text, { name = file, overrides = opts.overrides, getenv = opts.getenv })
    return short_form.expand(node)
end

return M
