-- Words of a user's put into texts that other programs read: shell scripts and #SBATCH lines. A value that could
-- be taken for more than itself is quoted, one that no quoting saves is refused by the name of its key.
-- Holds no launcher's own rules.

local err = require("am.core.error")

local M = {}

--- `value` as text, or an error that names `key`: nothing that a launcher is told may hold a control character,
--- since a line that ends early is two.
function M.clean(key, value)
    local text = tostring(value)
    if text:find("%c") then
        err.raise("usage", "%s holds a line break or another control character", key)
    end
    return text
end

--- A word for a POSIX shell.
function M.shell(word)
    if word:find("^[%w_@%%+=:,./-]+$") then
        return word
    end
    return "'" .. word:gsub("'", "'\\''") .. "'"
end

--- Words for a POSIX shell, on one line.
function M.command(words)
    local out = {}
    for i, word in ipairs(words) do
        out[i] = M.shell(word)
    end
    return table.concat(out, " ")
end

--- The value of an option on a #SBATCH line, whose reader has rules of its own: spaces, # and quotes count unless
--- double quotes are around them, and a backslash takes the next character as it is.
function M.sbatch(value)
    if value:find("^[%w_@%%+=:,./|\128-\255-]+$") then
        return value
    end
    return '"' .. value:gsub('["\\]', "\\%0") .. '"'
end

--- Refuse a value that does not look as `pattern` (or one of several) says; `what` it should be.
function M.match(key, value, patterns, what)
    for _, pattern in ipairs(type(patterns) == "table" and patterns or { patterns }) do
        if value:find("^" .. pattern .. "$") then
            return value
        end
    end
    err.raise("usage", '%s is "%s"; expected %s', key, value, what)
end

return M
