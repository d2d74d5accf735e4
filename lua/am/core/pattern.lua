-- Regular expressions over short names, as configurations give them. Text for a tokenizer is split by
-- the engine itself.

local ffi = require("ffi")
local edge = require("am.core.ffi")

local C, check = edge.C, edge.check
local M = {}

local found = ffi.new("int[1]")

--- A function (text) -> is the regular expression found in it, as Python's re.search says. Raises a "format"
--- error for what is no regular expression or is longer than 4096 bytes, and the function one for a search
--- that takes more steps than a sane one does, or a text that is no UTF-8.
---@param expression string in PCRE2's syntax, which is nearly Python's
function M.searcher(expression)
    local box = edge.box("am_pattern")
    check(C.am_pattern_new(box, expression, #expression))
    local pattern = ffi.gc(box[0], C.am_pattern_release)
    return function(text)
        check(C.am_pattern_search(pattern, text, #text, found))
        return found[0] ~= 0
    end
end

--- The same from a text's first byte on, as Python's re.match.
function M.matcher(expression)
    M.searcher(expression) -- alone first: what is wrong with it is said of the user's own text
    return M.searcher("\\A(?:" .. expression .. ")")
end

return M
