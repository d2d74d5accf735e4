-- Kubernetes manifests as text: ordered maps, lists and scalars to YAML in which nothing can be taken for something
-- else. Holds no manifest.

local json = require("am.utils.json")

local M = {}

local Map = {}

--- A map with its keys in order: map { { key, value }, … }; a nil value leaves the key out.
function M.map(pairs_of)
    local out = setmetatable({}, Map)
    for _, pair in ipairs(pairs_of) do
        if pair[2] ~= nil then
            out[#out + 1] = pair
        end
    end
    return out
end

-- Words that some reader of YAML takes for something else than text.
local words = { ["true"] = true, ["false"] = true, null = true, yes = true, no = true, on = true, off = true, y = true,
                n = true }

local function scalar(value)
    if type(value) == "number" then
        return string.format("%d", value)
    elseif type(value) == "boolean" then
        return tostring(value)
    elseif value:find("^[%a/][%w_./-]*$") and not words[value:lower()] then
        return value
    end
    return json.encode(value)
end

local write

-- A value behind `lead`, on the same line or on the next ones.
local function entry(out, lead, value, indent)
    if type(value) ~= "table" then
        if type(value) == "string" and value:find("^[^%s].*\n$") and not value:find("[%z\1-\8\11-\31\127]") then
            out[#out + 1] = lead .. " |\n" .. value:gsub("([^\n]+)", (" "):rep(indent) .. "%1")
        else
            out[#out + 1] = lead .. " " .. scalar(value) .. "\n"
        end
    elseif #value == 0 then
        out[#out + 1] = lead .. (getmetatable(value) == Map and " {}\n" or " []\n")
    else
        out[#out + 1] = lead .. "\n"
        write(out, value, indent)
    end
end

function write(out, value, indent)
    local pad = (" "):rep(indent)
    for _, item in ipairs(value) do
        if getmetatable(value) == Map then
            entry(out, pad .. scalar(item[1]) .. ":", item[2], indent + 2)
        elseif type(item) == "table" and #item > 0 then -- a dash in place of the first line's indent
            local inner = {}
            write(inner, item, indent + 2)
            inner[1] = pad .. "- " .. inner[1]:sub(indent + 3)
            out[#out + 1] = table.concat(inner)
        else
            entry(out, pad .. "-", item, indent + 2)
        end
    end
end

--- The text of several documents.
function M.text(documents)
    local out = {}
    for i, document in ipairs(documents) do
        out[#out + 1] = i > 1 and "---\n" or nil
        write(out, document, 0)
    end
    return table.concat(out)
end

return M
