-- The text side of a processor: markers of images become the tokens that images stand for, and what the assistant
-- wrote is followed through that into token masks. No tokenizer and no templates here.

local err = require("am.core.error")

local M = {}

--- How often `marker` is in a text.
function M.count(text, marker)
    local n, at = 0, 1
    while true do
        local first, last = text:find(marker, at, true)
        if not first then
            return n
        end
        n, at = n + 1, last + 1
    end
end

-- Where a byte of the old text is in the new one; `moved` is { { first, last, new_first, new_last }, … } of the
-- markers, in order. A byte inside a marker becomes its expansion's first or last.
local function map(moved, byte, is_end)
    local low, high = 1, #moved -- the first marker that does not end before the byte
    while low <= high do
        local middle = math.floor((low + high) / 2)
        if moved[middle][2] < byte then low = middle + 1 else high = middle - 1 end
    end
    local marker, before = moved[low], moved[low - 1]
    if marker and marker[1] <= byte then
        return is_end and marker[4] or marker[3]
    end
    return byte + (before and before[4] - before[2] or 0)
end

local function map_spans(moved, spans)
    local out = {}
    for i, span in ipairs(spans) do
        local first = map(moved, span[1], false)
        out[i] = { first, span[2] < span[1] and first - 1 or map(moved, span[2], true) }
    end
    return out
end

--- The text with the i-th marker replaced by plans[i].expansion, and the spans ({ first, last } bytes, or nil)
--- moved along. Raises "data" where there are more markers than plans, or the reverse.
function M.expand(text, marker, plans, spans)
    local found = M.count(text, marker)
    if found ~= #plans then
        err.raise("data", "%d image%s given, but the text has %d \"%s\"%s", #plans, #plans == 1 and " is" or "s are",
            found, marker, found == 0 and "; say in the message where the image belongs"
                or found > #plans and ", each of which is the place of an image" or "")
    elseif found == 0 then
        return text, spans
    end
    local pieces, moved, at, grown = {}, {}, 1, 0
    for i, plan in ipairs(plans) do
        local first, last = text:find(marker, at, true)
        pieces[2 * i - 1], pieces[2 * i] = text:sub(at, first - 1), plan.expansion
        local new_first = first + grown
        grown = grown + #plan.expansion - #marker
        moved[i] = { first, last, new_first, last + grown }
        at = last + 1
    end
    pieces[#pieces + 1] = text:sub(at)
    return table.concat(pieces), spans and map_spans(moved, spans)
end

--- 1 for every token that has a byte in one of the spans, as transformers' processors mark them; `ranges` are the
--- tokens' { first, last } bytes.
function M.mask(ranges, spans)
    local mask, token = {}, 1
    for i = 1, #ranges do
        mask[i] = 0
    end
    for _, span in ipairs(spans) do -- in the order of the text, as the tokens are
        local first, last = span[1], span[2]
        while token > 1 and ranges[token - 1][2] >= first do token = token - 1 end
        while token <= #ranges and ranges[token][2] < first do token = token + 1 end
        local i = token
        while i <= #ranges and ranges[i][1] <= last do
            if ranges[i][2] >= first and ranges[i][2] >= ranges[i][1] then
                mask[i] = 1
            end
            i = i + 1
        end
    end
    return mask
end

return M
