-- ConfigNode to YAML text that loads to the same values: exact floats, strings that would be taken
-- for something else quoted as the loader needs, environment variables as they were written, secrets
-- replaced by "<redacted>". Holds no file writing.

local env = require("am.config.env")
local number = require("am.utils.number")
local scalar = require("am.config.scalar")
local secrets = require("am.config.secrets")

local M = {}

-- Any YAML 1.1 reader sees a float only with a point and a signed exponent: 1.0e-05.
local function number_text(value, is_float)
    if value ~= value then
        return ".nan"
    elseif value == math.huge or value == -math.huge then
        return value > 0 and ".inf" or "-.inf"
    end
    local text = is_float and number.float_text(value) or number.text(value)
    return (text:gsub("^(-?%d)e", "%1.0e"))
end

local escapes = { ["\n"] = "\\n", ["\t"] = "\\t", ["\r"] = "\\r", ['"'] = '\\"', ["\\"] = "\\\\" }

local function double_quoted(text)
    text = text:gsub('[%c"\\\127]', function(c)
        return escapes[c] or string.format("\\x%02x", c:byte())
    end)
    -- Characters that YAML takes for line breaks or refuses.
    text = text:gsub("\194[\128-\159]", function(c) return string.format("\\x%02x", c:byte(2)) end)
    text = text:gsub("\226\128[\168\169]", function(c) return c:byte(3) == 168 and "\\L" or "\\P" end)
    text = text:gsub("\239\187\191", "\\uFEFF")
    text = text:gsub("\239\191[\190\191]", function(c) return c:byte(3) == 190 and "\\uFFFE" or "\\uFFFF" end)
    return '"' .. text .. '"'
end

-- The text as a YAML scalar whose content is exactly `text`, before any translation.
local function yaml_string(text)
    if text:find("^%.?%.?[%a_/][%w_./*+-]*$") and not scalar.resolve_plain(text) then
        return text
    end
    return double_quoted(text)
end

-- A Python literal of the text: the loader reads "10" as a number however YAML quotes it.
local function python_quoted(text)
    return "'" .. text:gsub("[%c'\\\127]", function(c)
        return c == "'" and "\\'" or c == "\\" and "\\\\" or string.format("\\x%02x", c:byte())
    end) .. "'"
end

local function string_text(text)
    if scalar.translate(text).value ~= text then
        text = python_quoted(text)
    end
    return yaml_string(env.escape(text))
end

local function leaf_text(node, redact)
    if node.template then
        return yaml_string(redact and secrets.shown(node) or node.template)
    end
    local value = node.value
    if redact then
        value = secrets.shown(node)
    end
    if value == nil then
        return "null"
    elseif type(value) == "number" then
        return number_text(value, node.float)
    elseif type(value) == "boolean" then
        return tostring(value)
    end
    return string_text(value)
end

local function key_text(key)
    if key:find("^[%a_][%w_./-]*$") then
        return key
    end
    return double_quoted(key)
end

local function all_leaves(node)
    for _, child in ipairs(node.children) do
        if child.kind ~= "leaf" then
            return false
        end
    end
    return true
end

-- Plain scalars end at , [ ] { } inside a flow list.
local function flow_list(node, redact)
    local items = {}
    for i, child in ipairs(node.children) do
        items[i] = leaf_text(child, redact)
    end
    return "[" .. table.concat(items, ", ") .. "]"
end

-- The value on the key's own line, or nil when it needs lines of its own.
local function inline_text(node, redact)
    if node.kind == "leaf" or node.template then
        return leaf_text(node, redact)
    elseif node.kind == "map" then
        return #node.order == 0 and "{}" or nil
    end
    return all_leaves(node) and flow_list(node, redact) or nil
end

-- `lead` opens the first line: the indent, or what is left of a list's dash.
local function write_block(out, node, indent, lead, redact)
    local pad = (" "):rep(indent)
    if node.kind == "map" then
        for _, key in ipairs(node.order) do
            local child = node.children[key]
            local text = inline_text(child, redact)
            out[#out + 1] = lead .. key_text(key) .. ":" .. (text and " " .. text or "") .. "\n"
            if not text then
                write_block(out, child, indent + 2, pad .. "  ", redact)
            end
            lead = pad
        end
        return
    end
    for _, child in ipairs(node.children) do
        local text = inline_text(child, redact)
        if text then
            out[#out + 1] = lead .. "- " .. text .. "\n"
        else
            write_block(out, child, indent + 2, lead .. "- ", redact)
        end
        lead = pad
    end
end

--- YAML text of a map node. Secrets are redacted unless `opts.redact` is false.
function M.print(node, opts)
    local redact = not (opts and opts.redact == false)
    local out = {}
    if #node.order == 0 then
        return "{}\n"
    end
    write_block(out, node, 0, "", redact)
    return table.concat(out)
end

return M
