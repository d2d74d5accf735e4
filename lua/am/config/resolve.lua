-- From the name in `_target_` (or under a key ending in _fn) to what it names: an entry of the
-- registry, or a function of a user's own Lua file.
-- Holds the rule of what may run: registered names always; user files only under the folders in
-- `ctx.roots` (that of the recipe on the command line), without "..", unless `ctx.allow_user_code`
-- is set. A configuration never runs a file by lying beside it.
--
-- ctx: { registry = …, roots = { folder, … }?, allow_user_code = boolean? }

local err = require("am.core.error")
local path = require("am.utils.path")

local M = {}

local MAX_SOURCE = 4 * 1024 * 1024

local function fail(node, fmt, ...)
    err.raise("usage", "%s: %s: %s", node:where(), node:path(), string.format(fmt, ...))
end

-- ---------------------------------------------------------------- user files

-- Folders to look in, in order.
local function folders(node, ctx)
    local out = {}
    for _, root in ipairs(ctx.roots or {}) do
        out[#out + 1] = root
    end
    if ctx.allow_user_code then
        if node.origin.file then
            out[#out + 1] = path.dirname(node.origin.file)
        end
        out[#out + 1] = "."
    end
    return out
end

local function leaves_folder(name)
    if path.is_absolute(name) then
        return true
    end
    for part in name:gmatch("[^/]+") do
        if part == ".." then
            return true
        end
    end
    return false
end

-- The file that `name` means, or nil. Raises when it is there, or may be, but may not be run.
local function find_file(node, name, ctx)
    if leaves_folder(name) and not ctx.allow_user_code then
        fail(node, '"%s" is outside the recipe\'s folder: run it with --allow-user-code', name)
    end
    for _, folder in ipairs(folders(node, ctx)) do
        local file = path.join(folder, name)
        if path.is_file(file) then
            return file
        end
    end
    if not ctx.allow_user_code then
        for _, folder in ipairs { node.origin.file and path.dirname(node.origin.file) or ".", "." } do
            if path.is_file(path.join(folder, name)) then
                fail(node, 'code in "%s" is not run without --allow-user-code (only files in the recipe\'s own '
                    .. "folder are)", path.join(folder, name))
            end
        end
    end
    return nil
end

-- What a file returns; each file runs once per ctx.
local function load_module(node, file, ctx)
    ctx.user_modules = ctx.user_modules or {}
    local key = path.absolute(file)
    if ctx.user_modules[key] == nil then
        local source, msg = path.read_file(file, MAX_SOURCE)
        if not source then
            fail(node, "%s", msg)
        elseif source:sub(1, 1) == "\27" then
            fail(node, "%s is compiled code; targets are Lua source", file)
        end
        local chunk, syntax = loadstring(source, "@" .. file)
        if not chunk then
            fail(node, "%s", syntax)
        end
        local module = chunk()
        if type(module) ~= "table" then
            fail(node, "%s must return a table of its functions, and returns a %s", file, type(module))
        end
        ctx.user_modules[key] = module
    end
    return ctx.user_modules[key]
end

-- A function, or a table with build or call as in registry.lua, as an entry.
local function entry_of(node, file, module, name, ctx)
    local value = module
    if ("." .. name):find("._", 1, true) and not ctx.allow_user_code then
        fail(node, '"%s" is private to %s (its name begins with _): run it with --allow-user-code', name, file)
    end
    for part in name:gmatch("[^.]+") do
        value = type(value) == "table" and rawget(value, part) or nil
    end
    if type(value) == "function" then
        local fields = type(module.fields) == "table" and module.fields[name] or nil
        return { name = file .. ":" .. name, fields = fields or {}, open = not fields, build = value, call = value }
    elseif type(value) == "table" and (value.build or value.call) then
        return {
            name = file .. ":" .. name, fields = value.fields or {}, open = value.open,
            build = value.build, call = value.call,
        }
    end
    local known = {}
    for key, member in pairs(module) do
        local public = tostring(key):sub(1, 1) ~= "_"
        if public and (type(member) == "function" or type(member) == "table") then
            known[#known + 1] = tostring(key)
        end
    end
    table.sort(known)
    fail(node, '%s has no function "%s"; it has: %s', file, name, table.concat(known, ", "))
end

local function resolve_file(node, name, ctx)
    local file_name, attribute = name:match("^(.*):([%a_][%w_.]*)$")
    if not file_name then
        fail(node, 'target "%s": expected file.lua:function', name)
    elseif path.extension(file_name) == "py" then
        fail(node, '"%s" is Python; amlua runs Lua: port it to a file.lua:function', name)
    elseif path.extension(file_name) ~= "lua" then
        fail(node, 'target "%s": the file must end in .lua', name)
    end
    local file = find_file(node, file_name, ctx)
    if not file then
        fail(node, 'no file "%s"%s', file_name, ctx.roots and #ctx.roots > 0
            and " in " .. table.concat(folders(node, ctx), ", ") or "")
    end
    return entry_of(node, file, load_module(node, file, ctx), attribute, ctx)
end

-- pkg.mod.fn: the longest part that is a file under the roots, then its members.
local function resolve_dotted(node, name, ctx)
    local parts = {}
    for part in name:gmatch("[^.]+") do
        parts[#parts + 1] = part
    end
    for n = #parts - 1, 1, -1 do
        local file = find_file(node, table.concat(parts, "/", 1, n) .. ".lua", ctx)
        if file then
            return entry_of(node, file, load_module(node, file, ctx), table.concat(parts, ".", n + 1), ctx)
        end
    end
    return nil
end

-- ---------------------------------------------------------------- entry point

--- The entry (see registry.lua) that the text of `node`, a leaf, names. Raises "usage", or "unsupported"
--- for a name that the registry knows to be not there yet.
function M.resolve(node, ctx)
    local name = node.value
    if type(name) ~= "string" or name == "" then
        fail(node, "expected the dotted name of a target, or file.lua:function")
    end
    local entry = ctx.registry:lookup(name)
    local later = not entry and ctx.registry:why_later(name)
    if entry then
        return entry
    elseif later then
        err.raise("unsupported", '%s: %s: "%s" is not there yet: %s', node:where(), node:path(), name, later)
    elseif name:find(":", 1, true) then
        return resolve_file(node, name, ctx)
    elseif name:find("^[%a_][%w_]*%.[%w_.]+$") and not name:find("^am%.") then
        entry = resolve_dotted(node, name, ctx)
        if entry then
            return entry
        end
    end
    local near = ctx.registry:suggest(name)
    if #near > 0 then
        fail(node, 'unknown target "%s"; did you mean %s?', name, table.concat(near, " or "))
    end
    fail(node, 'unknown target "%s"; a Lua function of your own is named file.lua:function', name)
end

return M
