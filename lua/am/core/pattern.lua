-- Regular expressions over short names, as configurations give them. Text for a tokenizer is split by
-- the engine itself.

local ffi = require("ffi")
local edge = require("am.core.ffi")

local M = {}

local matched = ffi.new("int[1]")

--- Does a regular expression match a text from its first byte on? Raises a "format" error for what is no
--- regular expression, is longer than 4096 bytes, or takes more steps than a sane one does.
---@param pattern string PCRE2's syntax; "$" at its end makes it match up to the last byte
---@param text string
---@return boolean
function M.match(pattern, text)
    edge.check(edge.C.am_pattern_match(matched, pattern, #pattern, text, #text))
    return matched[0] ~= 0
end

return M
