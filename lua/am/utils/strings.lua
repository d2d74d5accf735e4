-- Small text helpers: splitting, wildcards, and the name someone probably meant.
--
--   strings.split(s, sep)        pieces between plain `sep`
--   strings.trim(s)              without white space at both ends
--   strings.starts_with(s, p)  strings.ends_with(s, p)
--   strings.wildcard(pattern, s) whole-string match where * stands for any run of characters
--   strings.distance(a, b)       edits between the two, swaps included, over bytes
--   strings.nearest(name, names) the likeliest of an array of names, or nil when none is near
--   strings.did_you_mean(name, names)  ' (did you mean "lr"?)' or ""
--   strings.redact_urls(text)    without the users and passwords of URLs
--   strings.sorted_keys(t)       keys of a table, sorted

local M = {}

function M.split(s, sep)
    local out, at = {}, 1
    while true do
        local first, last = s:find(sep, at, true)
        out[#out + 1] = s:sub(at, first and first - 1)
        if not first then
            return out
        end
        at = last + 1
    end
end

function M.trim(s)
    return s:find("^%s*$") and "" or s:match("^%s*(.*%S)")
end

function M.starts_with(s, prefix)
    return s:sub(1, #prefix) == prefix
end

function M.ends_with(s, suffix)
    return suffix == "" or s:sub(-#suffix) == suffix
end

--- True when all of `s` matches `pattern`; `*` is any run, everything else is itself. Each run is
--- matched as early as possible, so the cost is at most the product of the two lengths.
function M.wildcard(pattern, s)
    local parts = M.split(pattern, "*")
    if #parts == 1 then
        return pattern == s
    end
    local first, last = parts[1], parts[#parts]
    if #s < #first + #last or not M.starts_with(s, first) or not M.ends_with(s, last) then
        return false
    end
    local at, stop = #first + 1, #s - #last
    for i = 2, #parts - 1 do
        if parts[i] ~= "" then
            local _, found = s:find(parts[i], at, true)
            if not found or found > stop then
                return false
            end
            at = found + 1
        end
    end
    return true
end

--- Fewest insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`.
function M.distance(a, b)
    local before, row = {}, {}
    for j = 0, #b do
        row[j] = j
    end
    for i = 1, #a do
        local current = { [0] = i }
        local byte = a:byte(i)
        for j = 1, #b do
            local cost = byte == b:byte(j) and 0 or 1
            local best = math.min(row[j - 1] + cost, row[j] + 1, current[j - 1] + 1)
            if i > 1 and j > 1 and byte == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
                best = math.min(best, before[j - 2] + 1)
            end
            current[j] = best
        end
        before, row = row, current
    end
    return row[#b]
end

--- The name in `names` that differs least from `name`, ignoring case, when it is near enough: about
--- a third of its letters changed, or one contains the other's four letters and more. Ties go to the
--- first in alphabetical order.
function M.nearest(name, names)
    local wanted = name:lower()
    if #wanted > 200 then
        return nil
    end
    local best, best_score
    for _, candidate in ipairs(names) do
        local lower = candidate:lower()
        local score = M.distance(wanted, lower)
        local limit = math.max(1, math.floor(math.max(#wanted, #lower) / 3))
        if score > limit then
            local short, long = wanted, lower
            if #short > #long then
                short, long = long, short
            end
            score = #short >= 4 and long:find(short, 1, true) and limit + 1 or nil
        end
        if score and (not best or score < best_score or (score == best_score and candidate < best)) then
            best, best_score = candidate, score
        end
    end
    return best
end

--- ' (did you mean "X"?)' for the nearest of `names`, or "".
function M.did_you_mean(name, names)
    local near = M.nearest(name, names)
    return near and string.format(' (did you mean "%s"?)', near) or ""
end

-- Bytes that follow a lead byte, and the least and greatest first of them (Unicode 15, table 3-7).
local function sequence(lead)
    if lead >= 0xc2 and lead <= 0xdf then
        return 1, 0x80, 0xbf
    elseif lead >= 0xe0 and lead <= 0xef then
        return 2, lead == 0xe0 and 0xa0 or 0x80, lead == 0xed and 0x9f or 0xbf
    elseif lead >= 0xf0 and lead <= 0xf4 then
        return 3, lead == 0xf0 and 0x90 or 0x80, lead == 0xf4 and 0x8f or 0xbf
    end
    return nil
end

--- Where a text stops being UTF-8: the byte's number from 1; nil when all of it is.
function M.utf8_error(s)
    local i, byte = s:find("[\128-\255]"), string.byte
    while i and i <= #s do
        local lead = byte(s, i)
        if lead >= 0x80 then
            local more, least, most = sequence(lead)
            for k = 1, more or 0 do
                local b = byte(s, i + k)
                if not b or b < least or b > most then
                    return i
                end
                least, most = 0x80, 0xbf
            end
            if not more then
                return i
            end
            i = i + more
        end
        i = i + 1
    end
    return nil
end

--- `text` with the user and the password of each URL replaced by "<redacted>". A user alone may be a token, and
--- what stands before the last "@" may be a password that holds one.
function M.redact_urls(text)
    return (text:gsub("(%a[%w+.-]*://)[^/%s]*@", "%1<redacted>@"))
end

function M.sorted_keys(t)
    local keys = {}
    for key in pairs(t) do
        keys[#keys + 1] = key
    end
    table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
    return keys
end

return M
