-- How good answers are that answers.lua wrote.
--
--   amlua examples/vlm/score.lua stamps FILE [LEAST]     kinds that were named, words of the sentences
--   amlua examples/vlm/score.lua receipts FILE [LEAST]   fields that were read
--
-- Ends with status 1 where the share of kinds, or the F1 of fields, is below LEAST.
--
-- Stamps: an answer names the kind where its text before the first colon is the expected one. Sentences are compared
-- as bags of words, without case and punctuation: F1 of each, and their mean. Receipts: <s_key>value</s_key> is taken
-- apart into (path of keys, value), without places in lists, as Donut does; F1 over the fields of all receipts, and
-- how many receipts are right in all fields.

local json = require("am.utils.json")
local path = require("am.utils.path")

-- ---- bags: {thing = how often} ----------------------------------------------------------------

local function add(bag, thing) bag[thing] = (bag[thing] or 0) + 1 end

-- How many things are in both, in a, in b.
local function shared(a, b)
    local both, in_a, in_b = 0, 0, 0
    for thing, n in pairs(a) do
        both, in_a = both + math.min(n, b[thing] or 0), in_a + n
    end
    for _, n in pairs(b) do
        in_b = in_b + n
    end
    return both, in_a, in_b
end

local function f1(both, in_a, in_b) return in_a + in_b > 0 and 2 * both / (in_a + in_b) or 1 end

-- ---- stamps -----------------------------------------------------------------------------------

local function words(text)
    local bag = {}
    for word in text:lower():gmatch("[%w\128-\255]+") do
        add(bag, word)
    end
    return bag
end

local function parts_of(text)
    local kind, sentence = text:match("^([^:]*):(.*)$")
    return kind or "", sentence or text
end

-- Share of kinds that were named, mean F1 of the sentences' words, share of sentences with all words right.
local function stamps(answers)
    local kinds, words_right, exact = 0, 0, 0
    for _, a in ipairs(answers) do
        local kind, sentence = parts_of(a.answer)
        local true_kind, true_sentence = parts_of(a.expected)
        local score = f1(shared(words(sentence), words(true_sentence)))
        kinds, words_right = kinds + (kind == true_kind and 1 or 0), words_right + score
        exact = exact + (score == 1 and 1 or 0)
    end
    return kinds / #answers, words_right / #answers, exact / #answers
end

-- ---- receipts ---------------------------------------------------------------------------------

-- The fields of a sequence of tags as a bag of "path=value". What has no end is passed over.
local function fields_of(text, where, bag, depth)
    where, bag, depth = where or "", bag or {}, depth or 0
    local at, nested = 1, false
    while depth < 16 do
        local _, open_end, key = text:find("<s_([%w_]+)>", at)
        if not key then
            break
        end
        local close, close_end = text:find("</s_" .. key .. ">", open_end + 1, true)
        if close then
            nested = true
            for piece in (text:sub(open_end + 1, close - 1) .. "<sep/>"):gmatch("(.-)<sep/>") do
                fields_of(piece, where .. "/" .. key, bag, depth + 1)
            end
        end
        at = (close_end or open_end) + 1
    end
    local value = text:match("^%s*(.-)%s*$")
    if not nested and value ~= "" then
        add(bag, where .. "=" .. value)
    end
    return bag
end

-- F1 of the fields of all receipts, share of receipts without a mistake.
local function receipts(answers)
    local both, said, expected, exact = 0, 0, 0, 0
    for _, a in ipairs(answers) do
        local b, s, e = shared(fields_of(a.answer), fields_of(a.expected))
        both, said, expected = both + b, said + s, expected + e
        exact = exact + (b == s and b == e and 1 or 0)
    end
    return f1(both, said, expected), exact / #answers
end

-- ---- as a program -----------------------------------------------------------------------------

local what, file, least = arg[1], arg[2], tonumber(arg[3] or 0)
assert((what == "stamps" or what == "receipts") and file and least,
       "usage: amlua examples/vlm/score.lua stamps|receipts FILE [LEAST]")

local answers = {}
for line in assert(path.read_file(file)):gmatch("[^\n]+") do
    answers[#answers + 1] = assert(json.decode(line))
end
assert(#answers > 0, file .. " holds no answers")

local score, words_right, exact
if what == "stamps" then
    score, words_right, exact = stamps(answers)
    print(string.format("kind named %.1f %%, words of the sentence F1 %.3f, sentences with all words right %.1f %%, "
                        .. "of %d stamps", 100 * score, words_right, 100 * exact, #answers))
else
    score, exact = receipts(answers)
    print(string.format("fields F1 %.3f, receipts without a mistake %.1f %%, of %d receipts", score, 100 * exact,
                        #answers))
end
if score < least then
    io.stderr:write(string.format("%.3f is less than the %.3f that it should be\n", score, least))
    os.exit(1)
end
