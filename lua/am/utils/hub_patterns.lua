-- Patterns for the files of a data set, and the names that data files have by default, both as the Python
-- package datasets has them (datasets/data_files.py). Holds no files; hub_dataset.lua applies them.
--
--   * and ? match within one part of a path, [a-z] and [!a-z] one byte, ** any number of parts. Hidden files
--   and folders (.x), and folders named __x, match only where the pattern names them.

local err = require("am.core.error")
local strings = require("am.utils.strings")

local M = {}

-- ---------------------------------------------------------------- one part of a path

-- "[…]" at `at`: a set of bytes, and where it ends; nil when it is no set but a bracket.
local function read_set(part, at)
    local from = at + 1
    local negated = part:sub(from, from) == "!"
    from = negated and from + 1 or from
    local stop = part:find("]", from + 1, true)
    if not stop then
        return nil
    end
    local set, i = {}, from
    while i < stop do
        local low, high = part:byte(i), part:byte(i)
        if part:sub(i + 1, i + 1) == "-" and i + 2 < stop then
            high, i = part:byte(i + 2), i + 2
        end
        for b = low, high do
            set[b] = true
        end
        i = i + 1
    end
    return function(b) return (set[b] or false) ~= negated end, stop
end

-- A part as a list of bytes, functions of a byte, and "*".
local function compile_part(part)
    local out, i = {}, 1
    while i <= #part do
        local c = part:sub(i, i)
        local set, stop
        if c == "[" then
            set, stop = read_set(part, i)
        end
        if set then
            out[#out + 1], i = set, stop
        elseif c == "?" then
            out[#out + 1] = function() return true end
        else
            out[#out + 1] = c == "*" and "*" or part:byte(i)
        end
        i = i + 1
    end
    return out
end

-- Do `items` match from the first to the last, "*" standing for any run? `same(wanted, item)` compares two.
-- Each run is as short as possible, so the cost is at most the product of the two lengths.
local function match_run(wanted, star, count, same)
    local w, i, star_at, retry = 1, 1, nil, nil
    while i <= count do
        if wanted[w] == star then
            star_at, retry, w = w, i, w + 1
        elseif wanted[w] ~= nil and same(wanted[w], i) then
            w, i = w + 1, i + 1
        elseif star_at then
            retry = retry + 1
            w, i = star_at + 1, retry
        else
            return false
        end
    end
    while wanted[w] == star do
        w = w + 1
    end
    return wanted[w] == nil
end

local function match_part(wanted, part)
    return match_run(wanted, "*", #part, function(one, i)
        local b = part:byte(i)
        return type(one) == "function" and one(b) or one == b
    end)
end

-- ---------------------------------------------------------------- paths

local function count_special(parts, last, prefix)
    local n = 0
    for i = 1, last do
        if parts[i]:sub(1, #prefix) == prefix and parts[i]:find("[^.]") then
            n = n + 1
        end
    end
    return n
end

--- True for a pattern that stands for more than the file of its own name.
function M.has_magic(pattern)
    return pattern:find("[*?[]") ~= nil
end

--- A function that is true for the paths that `pattern` matches. Raises "format" for "**" within a part.
function M.matcher(pattern)
    local parts = strings.split(pattern:gsub("^%./", ""), "/")
    local wanted = {}
    for i, part in ipairs(parts) do
        if part ~= "**" and part:find("**", 1, true) then
            err.raise("format", '"%s": ** can only stand for whole folders, as in data/**/*.jsonl', pattern)
        end
        wanted[i] = part == "**" and "**" or compile_part(part)
    end
    if wanted[#wanted] == "**" then -- what lies below a folder, not the folder itself
        wanted[#wanted + 1] = compile_part("*")
    end
    local hidden, special = count_special(parts, #parts, "."), count_special(parts, #parts - 1, "__")
    return function(path)
        local names = strings.split(path, "/")
        local function same(one, i)
            return match_part(one, names[i])
        end
        return match_run(wanted, "**", #names, same)
            and count_special(names, #names, ".") == hidden and count_special(names, #names - 1, "__") == special
    end
end

-- ---------------------------------------------------------------- default names

local NUMBER = "[0-9][0-9][0-9][0-9][0-9]"
local SHARDED = "data/%s-" .. NUMBER .. "-of-" .. NUMBER .. "*.*"
local SPLITS = { "train", "validation", "test" }
local KEYWORDS = {
    train = { "train", "training" },
    validation = { "validation", "valid", "dev", "val" },
    test = { "test", "testing", "eval", "evaluation" },
}
local FOLDERS = { "**/{}/**", "**/{}[-._ 0-9]*/**", "**/*[-._ 0-9]{}/**", "**/*[-._ 0-9]{}[-._ 0-9]*/**" }
local NAMES = { "**/{}[-._ 0-9]*", "**/*[-._ 0-9]{}[-._ 0-9]*" }

-- { { split, patterns } } of the splits that have files under names of one kind.
local function by_keyword(templates, find)
    local out = {}
    for _, split in ipairs(SPLITS) do
        local patterns, any = {}, false
        for _, keyword in ipairs(KEYWORDS[split]) do
            for _, template in ipairs(templates) do
                patterns[#patterns + 1] = (template:gsub("{}", keyword))
                any = any or #find(patterns[#patterns]) > 0
            end
        end
        if any then
            out[#out + 1] = { split = split, patterns = patterns }
        end
    end
    return #out > 0 and out or nil
end

local function sharded(find)
    local splits, out = {}, {}
    for _, file in ipairs(find(SHARDED:format("*"))) do
        local split = file:match("([^/]*)%-%d%d%d%d%d%-of%-%d%d%d%d%d[^/]*$")
        if not split:find("^[%w_.\128-\255]+$") then
            err.raise("format", 'the split "%s" of %s has a name that is not allowed: letters, digits, _ and . are',
                      split, file)
        end
        splits[split] = true
    end
    for _, split in ipairs(SPLITS) do
        out[#out + 1] = splits[split] and split or nil
        splits[split] = nil
    end
    for _, split in ipairs(strings.sorted_keys(splits)) do
        out[#out + 1] = split
    end
    for i, split in ipairs(out) do
        out[i] = { split = split, patterns = { SHARDED:format(split) } }
    end
    return #out > 0 and out or nil
end

--- The splits that files have by their names and folders: { { split, patterns }, … }. find(pattern) gives
--- the files that match. Without any sign of a split all files are "train".
function M.default_splits(find)
    return sharded(find) or by_keyword(FOLDERS, find) or by_keyword(NAMES, find)
        or { { split = "train", patterns = { "**" } } }
end

return M
