-- Options of the small tools (generate, convert, merge_lora): --name value, --name=value, --flag.
-- Recipes that take a configuration use args.lua instead.

local err = require("am.core.error")
local strings = require("am.utils.strings")

local M = {}

local function convert(spec, name, text)
    if spec.type == "number" or spec.type == "integer" then
        local n = tonumber(text)
        if not n or (spec.type == "integer" and n ~= math.floor(n)) or not (n >= (spec.min or -math.huge)
            and n <= (spec.max or math.huge)) then
            err.raise("usage", "--%s needs %s%s, not %s", name,
                      spec.type == "integer" and "a whole number" or "a number",
                      (spec.min and " of at least " .. spec.min or "")
                          .. (spec.max and " and at most " .. spec.max or ""), tostring(text))
        end
        return n
    end
    return text
end

local function help(usage, specs)
    local lines = { "usage: " .. usage, "" }
    for _, spec in ipairs(specs) do
        local name = spec.words and spec[1] or "--" .. spec[1] .. (spec.type == "flag" and "" or " VALUE")
        lines[#lines + 1] = string.format("  %-24s %s", name, spec.doc)
    end
    return table.concat(lines, "\n")
end

--- Parse words by specs: {{"name", type="string|number|integer|flag", list=, required=, default=,
--- min=, doc=}, …}; one with `words` collects the words that are no options. Dashes and underscores in
--- names are the same. Returns a table by name (dashes as underscores), or nil after printing help.
function M.parse(argv, usage, specs)
    local by_name, out, names, words = {}, {}, {}, nil
    for _, spec in ipairs(specs) do
        local key = spec[1]:gsub("-", "_")
        by_name[key], names[#names + 1] = spec, spec[1]
        out[key] = (spec.list or spec.words) and {} or spec.default
        words = words or (spec.words and out[key])
    end
    local i = 1
    while argv[i] do
        local word = argv[i]
        local name, value = word:match("^%-%-([%w_-]+)=(.*)$")
        name = name or word:match("^%-%-([%w_-]+)$")
        if name == "help" or word == "-h" then
            print(help(usage, specs))
            return nil
        end
        local key = name and name:gsub("-", "_")
        local spec = key and by_name[key]
        if words and word:sub(1, 1) ~= "-" then
            words[#words + 1] = word
        elseif not spec or spec.words then
            err.raise("usage", "unknown option %s%s\n%s", word, name and strings.did_you_mean(name, names) or "",
                      help(usage, specs))
        elseif spec.type == "flag" then
            if value and value ~= "true" and value ~= "false" then
                err.raise("usage", "--%s is true or false, not %s", name, value)
            end
            out[key] = value ~= "false"
        else
            if value == nil then
                i = i + 1
                value = argv[i]
            end
            if value == nil then
                err.raise("usage", "--%s needs a value", name)
            end
            value = convert(spec, name, value)
            if spec.list then
                table.insert(out[key], value)
            else
                out[key] = value
            end
        end
        i = i + 1
    end
    for _, spec in ipairs(specs) do
        local v = out[(spec[1]:gsub("-", "_"))]
        if spec.required and (v == nil or ((spec.list or spec.words) and #v == 0)) then
            local what = spec.words and string.format("%s needs %s: %s", usage:match("^amlua (%S+)") or "amlua",
                                                      spec[1]:upper(), spec.doc) or "--" .. spec[1] .. " is needed"
            err.raise("usage", "%s\n%s", what, help(usage, specs))
        end
    end
    return out
end

return M
