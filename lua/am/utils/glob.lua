-- Names of files by a pattern, as Python's glob.glob finds them. Holds no reading of files.
--
-- * stands for any run of characters, ? for one, [abc], [a-c] and [!abc] for one of (not of) them; none of
-- them for a slash, nor for a dot that a name begins with.

local path = require("am.utils.path")

local M = {}

--- True when a name has something in it that stands for other characters.
function M.has_magic(name)
    return name:find("[*?[]") ~= nil
end

-- A class such as [!a-c] from `at` on as a Lua pattern, and where it ends; nil when it is not closed.
local function class(part, at)
    local negated = part:sub(at + 1, at + 1) == "!"
    local first = at + (negated and 2 or 1)
    local close = part:find("]", first + 1, true)
    if not close then
        return nil
    end
    local body = part:sub(first, close - 1):gsub("[%%%]%[^]", "%%%0")
    return "[" .. (negated and "^" or "") .. body .. "]", close
end

local function lua_pattern(part)
    local out, at = { "^" }, 1
    while at <= #part do
        local c = part:sub(at, at)
        local set, close
        if c == "[" then
            set, close = class(part, at)
        end
        out[#out + 1] = set or (c == "*" and ".*") or (c == "?" and ".") or c:gsub("%W", "%%%0")
        at = (close or at) + 1
    end
    out[#out + 1] = "$"
    return table.concat(out)
end

--- Sorted names of all that is there and matches; empty when nothing does.
function M.files(pattern)
    local found = { pattern:sub(1, 1) == "/" and "/" or "" }
    for part in pattern:gmatch("[^/]+") do
        local there = {}
        local wanted = M.has_magic(part) and lua_pattern(part)
        for _, dir in ipairs(found) do
            for _, name in ipairs(wanted and path.list_dir(dir == "" and "." or dir) or { part }) do
                local hidden = name:sub(1, 1) == "." and part:sub(1, 1) ~= "."
                if not wanted or (not hidden and name:find(wanted)) then
                    local full = path.join(dir, name)
                    if path.exists(full) then
                        there[#there + 1] = full
                    end
                end
            end
        end
        found = there
    end
    table.sort(found)
    return pattern ~= "" and found or {}
end

return M
