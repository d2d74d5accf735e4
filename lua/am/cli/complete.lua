-- What Tab offers at the prompt: names of globals, fields of tables, methods of objects and tensors.
-- Follows plain dotted names only and reads tables raw, through __index tables: completing runs no
-- code but amlua's own loading of am.models, am.nn, ….
--
--   complete("am.ops.mat") -> "mul", nil            text to insert
--   complete("am.o") -> "", "ops  optim"            names to choose from, in columns

local ffi = require("ffi")
local tensor = require("am.core.tensor")

local M = {}

local WIDTH = 80
local INDENT = "\t"

local keywords, keyword = {}, {}
for word in ([[and break do else elseif end false for function goto if in local nil not or repeat return then true
    until while]]):gmatch("%S+") do
    keywords[#keywords + 1], keyword[word] = word, true
end

-- What fields of x are looked up in after x itself: a table, or nil.
local function parent(x)
    local meta = debug.getmetatable(x)
    local index = type(meta) == "table" and rawget(meta, "__index")
    return type(index) == "table" and index or nil
end

-- The table in which a value's fields are found: its own, a string's or a tensor's methods.
local function fields_of(x)
    if type(x) == "table" then
        return x
    elseif tensor.is(x) then
        return tensor.methods
    end
    return type(x) ~= "cdata" and parent(x) or nil
end

local am = require("am")

-- Fields of `am` that are loaded when they are first used.
local function lazy_of(x)
    return x == am and debug.getmetatable(am).lazy or nil
end

local function field(x, key)
    local t = fields_of(x)
    for _ = 1, 20 do
        if t == nil then
            return nil
        end
        local value = rawget(t, key)
        if value == nil and lazy_of(t) and lazy_of(t)[key] then
            value = am[key]
        end
        if value ~= nil then
            return value
        end
        t = parent(t)
    end
end

-- The value of a dotted name ("" is the globals), or nil.
local function resolve(name, globals)
    local x = globals
    for key in name:gmatch("[^.]+") do
        x = field(x, key)
    end
    return x
end

local function callable(v)
    local meta = debug.getmetatable(v)
    return type(v) == "function" or (type(meta) == "table" and rawget(meta, "__call") ~= nil)
        or (type(v) == "cdata" and tostring(ffi.typeof(v)):find("(", 1, true) ~= nil)
end

-- All names that can stand behind x and the separator and begin with `prefix`, sorted; `words` too.
local function candidates(x, separator, prefix, words)
    local seen, names = {}, {}
    local function offer(name, value)
        if type(name) == "string" and not seen[name] and name:sub(1, #prefix) == prefix
            and name:find("^[%a_][%w_]*$") and (words or not keyword[name]) and (separator ~= ":" or callable(value))
            and (name:sub(1, 1) ~= "_" or prefix ~= "") then
            seen[name] = true
            names[#names + 1] = name
        end
    end
    local t = fields_of(x)
    for _ = 1, 20 do
        if t == nil then
            break
        end
        for name, value in next, t do
            offer(name, value)
        end
        for name in next, lazy_of(t) or {} do
            offer(name)
        end
        t = parent(t)
    end
    if separator == "." and tensor.is(x) then
        for name in next, tensor.fields do
            offer(name)
        end
    end
    for _, word in ipairs(words or {}) do
        offer(word)
    end
    table.sort(names)
    return names
end

local function common_prefix(names)
    local first, last = names[1], names[#names] -- of sorted names these differ most
    local n = 0
    while n < #first and first:byte(n + 1) == last:byte(n + 1) do
        n = n + 1
    end
    return first:sub(1, n)
end

local function columns(names)
    local width = 0
    for _, name in ipairs(names) do
        width = math.max(width, #name + 2)
    end
    local per_line, lines = math.max(1, math.floor(WIDTH / width)), {}
    for i = 1, #names, per_line do
        local line = {}
        for j = i, math.min(i + per_line - 1, #names) do
            line[#line + 1] = names[j] .. string.rep(" ", width - #names[j])
        end
        lines[#lines + 1] = (table.concat(line):gsub(" +$", ""))
    end
    return table.concat(lines, "\n")
end

--- What Tab does behind `text`, the line up to the cursor: text to insert, names to show (or nil).
--- globals: those of what is typed, by default Lua's.
function M.complete(text, globals)
    globals = globals or _G
    if not text:find("%S") then
        return INDENT
    end
    local word = text:match("[%w_.:]*$"):gsub("^.*%.%.", "") -- behind a concatenation
    local name, separator, prefix = word:match("^(.-)([.:]?)([%w_]*)$")
    if name:find(":", 1, true) or name:find("^%d") or (name == "" and separator ~= "")
        or (separator == "" and prefix == "") then
        return ""
    end
    local x = resolve(name, globals)
    if x == nil or (name ~= "" and x == globals and name ~= "_G") then
        return ""
    end
    local names = candidates(x, separator, prefix, name == "" and keywords or nil)
    if #names == 0 then
        return ""
    end
    local insert = common_prefix(names):sub(#prefix + 1)
    return insert, #names > 1 and insert == "" and columns(names) or nil
end

return M
