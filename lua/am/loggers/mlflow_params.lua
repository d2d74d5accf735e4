-- A configuration as MLflow's parameters: keys joined by dots, values as Python prints them, so that runs
-- of NeMo Automodel and of amlua compare in one table.
-- Holds no request.
--
--   params.flatten({ model = { a = 1, b = { c = true } } }, 1) -> { { "model.a", "1" }, { "model.b", "{'c': True}" } }

local json = require("am.utils.json")
local number = require("am.utils.number")
local strings = require("am.utils.strings")

local M = {}

local MAX_DEPTH = 64
local MAX_VALUE = 6000 -- bytes; MLflow refuses more (before 2.15, more than 500)

local repr

local function quoted(text)
    local quote = (text:find("'", 1, true) and not text:find('"', 1, true)) and '"' or "'"
    local escaped = text:gsub("[%z\1-\31\\" .. quote .. "]", function(c)
        local names = { ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t", ["\\"] = "\\\\", [quote] = "\\" .. quote }
        return names[c] or string.format("\\x%02x", c:byte())
    end)
    return quote .. escaped .. quote
end

local function joined(value, depth)
    local parts = {}
    if json.is_array(value) then
        for i, item in ipairs(value) do
            parts[i] = repr(item, depth)
        end
        return "[" .. table.concat(parts, ", ") .. "]"
    end
    for i, key in ipairs(strings.sorted_keys(value)) do
        parts[i] = repr(key, depth) .. ": " .. repr(value[key], depth)
    end
    return "{" .. table.concat(parts, ", ") .. "}"
end

-- repr() of Python.
function repr(value, depth)
    if value == nil or value == json.null then
        return "None"
    elseif type(value) == "boolean" then
        return value and "True" or "False"
    elseif type(value) == "number" then
        return number.text(value)
    elseif type(value) == "table" then
        return depth < MAX_DEPTH and joined(value, depth + 1) or "…"
    end
    return quoted(tostring(value))
end

--- str() of Python: text as it is, all else as repr().
function M.text(value)
    return type(value) == "string" and value or repr(value, 0)
end

--- A name of a parameter or metric as MLflow takes it: letters, digits and _-. :/ only, 250 bytes.
function M.name(key)
    return (key:gsub("[^%w_%-. :/]", "_"):sub(1, 250))
end

--- An array of { key, text }, sorted by key. depth: levels of keys that become keys of their own
--- (nil: all); what is deeper is one text. Values are cut to what MLflow takes.
function M.flatten(config, depth)
    local out = {}
    local function walk(t, prefix, level)
        for key, value in pairs(t) do
            local name = prefix .. tostring(key)
            local is_dict = type(value) == "table" and value ~= json.null and not json.is_array(value)
            if is_dict and level < math.min(depth or MAX_DEPTH, MAX_DEPTH) then
                walk(value, name .. ".", level + 1)
            else
                out[#out + 1] = { M.name(name), M.text(value):sub(1, MAX_VALUE) }
            end
        end
    end
    walk(config, "", 0)
    table.sort(out, function(a, b) return a[1] < b[1] end)
    return out
end

return M
