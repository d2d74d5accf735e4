-- File names by pattern: `*` any run of characters, `?` one, `[a-z]` and `[!a-z]` one of a set, none of
-- them a slash; `**` as a whole part of the path any folders, or none. Names that begin with a dot match
-- only a part that does. Holds no meaning of what is found.

local err = require("am.core.error")
local path = require("am.utils.path")

local M = {}

local MAX_DEPTH, MAX_NAMES = 16, 1000000

--- True for a text that is a pattern rather than a name.
function M.is_pattern(text)
    return text:find("[*?[]") ~= nil
end

-- One part of a pattern as a Lua pattern.
local function lua_pattern(part)
    local out, at = {}, 1
    while at <= #part do
        local c = part:sub(at, at)
        local negated, set, stop = part:match("^%[(!?)(%]?[^%]]*)%]()", at)
        if c == "*" then
            out[#out + 1] = ".*"
        elseif c == "?" then
            out[#out + 1] = "."
        elseif set and set ~= "" then
            out[#out + 1] = "[" .. (negated == "!" and "^" or "") .. set:gsub("[%%%]^]", "%%%0") .. "]"
            at = stop - 1
        else
            out[#out + 1] = c:gsub("%p", "%%%0")
        end
        at = at + 1
    end
    return "^" .. table.concat(out) .. "$"
end

local function names_in(folder) -- "": the current one
    folder = folder == "" and "." or folder
    return path.is_dir(folder) and path.list_dir(folder) or {}
end

local function add(found, name)
    if #found == MAX_NAMES then
        err.raise("usage", "more than %d files match", MAX_NAMES)
    end
    found[#found + 1] = name
end

local match

-- Below `folder`, the parts from number k on; `depth` folders were passed over by "**".
local function match_any_folders(folder, parts, k, depth, found)
    match(folder, parts, k + 1, found)
    if depth == MAX_DEPTH then
        return
    end
    for _, name in ipairs(names_in(folder)) do
        local inner = path.join(folder, name)
        if name:sub(1, 1) ~= "." and path.is_dir(inner) and not path.is_link(inner) then
            match_any_folders(inner, parts, k, depth + 1, found)
        end
    end
end

function match(folder, parts, k, found)
    local part, last = parts[k], k == #parts
    if part == "**" then
        return match_any_folders(folder, last and { "**", "*" } or parts, last and 1 or k, 0, found)
    end
    local names = { part }
    if M.is_pattern(part) then
        names = {}
        local pattern, hidden = lua_pattern(part), part:sub(1, 1) == "."
        for _, name in ipairs(names_in(folder)) do
            if name:find(pattern) and (hidden or name:sub(1, 1) ~= ".") then
                names[#names + 1] = name
            end
        end
    end
    for _, name in ipairs(names) do
        local inner = folder == "" and name or path.join(folder, name)
        if not last then
            match(inner, parts, k + 1, found)
        elseif path.is_file(inner) then
            add(found, inner)
        end
    end
end

--- The files that a pattern matches, sorted; an empty list where there are none.
function M.files(pattern)
    local parts, found = {}, {}
    for part in pattern:gmatch("[^/]+") do
        parts[#parts + 1] = part
    end
    if #parts > 0 then
        match(path.is_absolute(pattern) and "/" or "", parts, 1, found)
    end
    table.sort(found)
    local unique = {}
    for _, name in ipairs(found) do -- two "**" may find one in two ways
        if name ~= unique[#unique] then
            unique[#unique + 1] = name
        end
    end
    return unique
end

--- All files in a folder and those below it, sorted; hidden ones are left out.
function M.files_below(folder)
    local found = {}
    match_any_folders(folder, { "**", "*" }, 1, 0, found)
    table.sort(found)
    return found
end

return M
