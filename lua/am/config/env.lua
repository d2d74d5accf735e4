-- Environment variables in a configuration's text: ${VAR}, ${VAR,default}, $VAR, ${oc.env:VAR},
-- ${oc.env:VAR,default}. `$$` before a name or brace is a dollar sign. Names may hold dots.
-- Holds no printing; the text as written stays in node.template, so that print.lua shows it instead
-- of what the environment held.

local err = require("am.core.error")
local nodes = require("am.config.node")
local scalar = require("am.config.scalar")

local M = {}

local NAME = "[%a_][%w_.]*"

-- { name, default, length } of the reference that starts with the dollar at `at`, or nil.
local function reference(text, at)
    local body = text:match("^%${([^{}]*)}", at)
    if not body then
        local name = text:match("^%$(" .. NAME .. ")", at)
        name = name and name:match("^(.-)%.*$") -- a sentence may end behind a name
        return name and { name = name, length = #name + 1 }
    end
    local name, default = body:match("^([^,]*),(.*)$")
    name = (name or body):match("^%s*(.-)%s*$")
    name = name:match("^oc%.env:%s*(.*)$") or name
    if not name:find("^" .. NAME .. "$") then
        return nil -- ${…} of some other language: text
    end
    return { name = name, default = default and default:match("^%s*(.-)%s*$"), length = #body + 3 }
end

--- Substitute every reference. `getenv(name)` gives text or nil. Returns the text, or nil and the
--- reference that has neither value nor default, as written.
function M.substitute(text, getenv)
    local out, at = {}, 1
    while true do
        local dollar = text:find("$", at, true)
        if not dollar then
            out[#out + 1] = text:sub(at)
            return table.concat(out)
        end
        out[#out + 1] = text:sub(at, dollar - 1)
        local ref = reference(text, dollar)
        if ref then
            local value = getenv(ref.name) or ref.default
            if not value then
                return nil, text:sub(dollar, dollar + ref.length - 1), ref.name
            end
            out[#out + 1] = value
            at = dollar + ref.length
        elseif text:sub(dollar + 1, dollar + 1) == "$" and reference(text, dollar + 1) then
            out[#out + 1] = "$"
            local escaped = reference(text, dollar + 1)
            out[#out + 1] = text:sub(dollar + 2, dollar + escaped.length)
            at = dollar + 1 + escaped.length
        else
            out[#out + 1] = "$"
            at = dollar + 1
        end
    end
end

--- Text that substitute turns back into `text` whatever the environment holds.
function M.escape(text)
    local out, at = {}, 1
    while true do
        local dollar = text:find("$", at, true)
        if not dollar then
            out[#out + 1] = text:sub(at)
            return table.concat(out)
        end
        out[#out + 1] = text:sub(at, dollar)
        if reference(text, dollar) then
            out[#out + 1] = "$"
        end
        at = dollar + 1
    end
end

--- Substitute in every leaf that holds a template, and type the result as any other string.
function M.resolve(node, getenv)
    if node.kind ~= "leaf" then
        for _, key in ipairs(node.order or node.children) do
            M.resolve(node.order and node.children[key] or key, getenv)
        end
        return
    elseif not node.template then
        return
    end
    local text, ref, name = M.substitute(node.template, getenv)
    if not text then
        err.raise("usage", "%s: %s: environment variable %s is not set (required by '%s'); set it, or write "
            .. "${%s,default}, or $$ for a dollar sign", node:where(), node:path(), name, ref, name)
    end
    local resolved = nodes.from_parsed(scalar.translate(text), node.origin)
    resolved.template, resolved.text = text ~= node.template and node.template or nil, text
    node.parent:attach(node.key, resolved)
end

return M
