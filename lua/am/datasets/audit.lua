-- A look at the data before the first step: what a sample looks like and which of its tokens are learnt, and
-- what is often wrong with training data. Looks at a bounded number of rows; trains nothing and changes nothing.
--
--   local report = audit.run(dataset, tokenizer, { rows = 200 })
--   for _, line in ipairs(report:lines()) do print(line) end
--
-- A report has
--   rows           rows of the dataset, nil for a stream
--   looked_at      rows that were looked at
--   tokens, label_tokens, label_share   of these: input tokens without padding, those that are learnt, 0 to 1
--   truncated, dropped, dropped_names   of the whole dataset, where it counts them (stats())
--   double_bos, missing_end             of the rows looked at
--   classes        for classification, how many rows each class has
--   sample         { name, pieces }: pieces of text in order, { text =, trained = }
--   warnings       array of texts, each saying what to change

local err = require("am.core.error")
local utils = require("am.datasets.utils")

local M = {}

local ROWS, SAMPLE_TOKENS, SAMPLE_BYTES = 200, 512, 4000
local ENDING = 3 -- learnt tokens at the end of a sample among which one must end the turn; a template adds "\n"
local LOW_SHARE = 0.01
local MANY = 8 -- times of a token in a row that are shown as one

local Report = {}
Report.__index = Report

-- ---------------------------------------------------------------- one row

-- The tokens of a row without its padding, and which of them are learnt. The last label, which is in no
-- input, comes last.
local function tokens_of(row)
    local ids, trained, n = {}, {}, #row.input_ids
    local mask = row.attention_mask
    while n > 0 and mask and mask[n] == 0 do
        n = n - 1
    end
    for i = 1, n do
        ids[i], trained[i] = row.input_ids[i], i > 1 and row.labels[i - 1] ~= utils.IGNORE
    end
    if n > 0 and row.labels[n] ~= utils.IGNORE then
        ids[n + 1], trained[n + 1] = row.labels[n], true
    end
    return ids, trained, n
end

local function is_class_row(row)
    return #row.labels == 1 and #row.input_ids ~= 1
end

-- Whether a token ends what somebody says: the end of sequence, or any other special token.
local function ends_turn(tokenizer, id)
    if id == tokenizer.eos_token_id then
        return true
    end
    local engine = tokenizer.engine
    return engine ~= nil and engine.is_special ~= nil and engine:is_special(id)
end

-- Whether the last learnt tokens of a sample have one that ends the turn.
local function learns_end(tokenizer, ids, trained)
    local last = #ids
    while last > 0 and not trained[last] do
        last = last - 1
    end
    for i = last, math.max(1, last - ENDING + 1), -1 do
        if not trained[i] then
            break
        elseif ends_turn(tokenizer, ids[i]) then
            return true
        end
    end
    return false
end

-- ---------------------------------------------------------------- the sample

-- Text that may go to a terminal: control characters but line ends are shown as such.
local function printable(text)
    return (text:gsub("[%z\1-\9\11-\31\127]", function(c) return string.format("\\x%02x", c:byte()) end))
end

local function decode(tokenizer, ids)
    if tokenizer and tokenizer.decode then
        return printable(tokenizer:decode(ids))
    end
    return table.concat(ids, " ") .. " "
end

-- ids in which a token that comes again and again and is not learnt, as an image's, stands once, with how often.
local function without_repeats(ids, trained)
    local out, first = {}, 1
    while first <= #ids do
        local last = first
        while ids[last + 1] == ids[first] and trained[last + 1] == trained[first] do
            last = last + 1
        end
        local times = last - first + 1
        local many = times >= MANY and not trained[first]
        for _ = 1, many and 1 or times do
            out[#out + 1] = { id = ids[first], trained = trained[first], times = many and times or 1 }
        end
        first = last + 1
    end
    return out
end

local function sample_of(name, tokenizer, ids, trained)
    local tokens, pieces, first, bytes, shown = without_repeats(ids, trained), {}, 1, 0, 0
    local stop = math.min(#tokens, SAMPLE_TOKENS)
    while first <= stop and bytes < SAMPLE_BYTES do
        local run, head = {}, tokens[first]
        repeat
            run[#run + 1], shown = tokens[first].id, shown + tokens[first].times
            first = first + 1
            local token = tokens[first]
        until first > stop or token.trained ~= head.trained or token.times > 1 or head.times > 1
        local text = decode(tokenizer, run) .. (head.times > 1 and string.format(" (x%d)", head.times) or "")
        bytes = bytes + #text
        pieces[#pieces + 1] = { text = text, trained = head.trained }
    end
    return { name = name, pieces = pieces, left_out = #ids - shown }
end

-- ---------------------------------------------------------------- the rows

-- An iterator of up to `count` rows and their names, spread over a dataset that knows how many there are.
local function rows_of(dataset, count)
    if dataset.is_iterable then
        local iterator, i = dataset:iter { once = true }, 0
        return function()
            i = i + 1
            local row = i <= count and iterator:next()
            if row then
                return row, row.name or "row " .. i
            end
        end
    end
    local n, i = dataset:len(), 0
    count = math.min(count, n)
    return function()
        if i < count then
            local at = 1 + math.floor(i * n / count)
            i = i + 1
            return dataset:get(at), utils.row_name(dataset, at)
        end
    end
end

local function look_at_class(report, tokenizer, row, name)
    local class = row.labels[1]
    report.classes = report.classes or {}
    report.classes[class] = (report.classes[class] or 0) + 1
    report.tokens, report.label_tokens = report.tokens + #row.input_ids, report.label_tokens + 1
    if not report.sample then
        local none = {}
        for i = 1, #row.input_ids do
            none[i] = false
        end
        report.sample = sample_of(string.format("%s, class %d", name, class), tokenizer, row.input_ids, none)
    end
end

local function look_at(report, tokenizer, row, name, opts)
    report.looked_at = report.looked_at + 1
    if is_class_row(row) then
        return look_at_class(report, tokenizer, row, name)
    end
    local ids, trained, n = tokens_of(row)
    local labels = utils.count_labels(row.labels)
    report.tokens, report.label_tokens = report.tokens + n, report.label_tokens + labels
    if labels == 0 then
        report.without_label = report.without_label + 1
        return
    end
    report.sample = report.sample or sample_of(name, tokenizer, ids, trained)
    local bos = tokenizer and tokenizer.bos_token_id
    if bos and bos ~= tokenizer.eos_token_id and ids[1] == bos and ids[2] == bos then
        report.double_bos = report.double_bos + 1
    end
    if tokenizer and opts.check_end ~= false and not row.seq_lens and not learns_end(tokenizer, ids, trained) then
        report.missing_end = report.missing_end + 1
    end
    local same, shifted = true, true -- do labels stand at their own tokens, or at the ones before?
    for i = 1, n do
        local label = row.labels[i]
        same = same and (label == utils.IGNORE or label == row.input_ids[i])
        shifted = shifted and (label == utils.IGNORE or i == n or label == row.input_ids[i + 1])
    end
    if same and not shifted then
        report.unshifted = report.unshifted + 1
    end
end

-- ---------------------------------------------------------------- findings

local function percent(part, whole)
    return whole > 0 and 100 * part / whole or 0
end

local function warn(report, fmt, ...)
    report.warnings[#report.warnings + 1] = string.format(fmt, ...)
end

local function add_warnings(report)
    local n = report.looked_at
    if report.double_bos > 0 then
        warn(report, "%d of %d rows begin with two beginning-of-sequence tokens: the text or the chat template has "
            .. "one, and the tokenizer adds another", report.double_bos, n)
    end
    if report.missing_end > 0 then
        warn(report, "%d of %d rows learn no token that ends the answer, so the model does not learn to stop there: "
            .. "set add_eos: true, use a chat template, or cut less (seq_length)", report.missing_end, n)
    end
    if report.unshifted > 0 then
        warn(report, "%d of %d rows have labels that equal their own input ids: labels[i] must be the token after "
            .. "input_ids[i] (labels_shifted: false shifts them)", report.unshifted, n)
    end
    if report.without_label > 0 then
        warn(report, "%d of %d rows have nothing to learn", report.without_label, n)
    end
    if not report.classes and report.label_share < LOW_SHARE then
        warn(report, "only %.2f %% of the tokens are learnt: most of the work is spent on prompts",
            100 * report.label_share)
    end
    local whole = report.rows or n
    if report.truncated and report.truncated > 0 then
        warn(report, "%d of %d rows are cut off (%.1f %%): their ends are not learnt; a longer seq_length keeps them",
            report.truncated, whole, percent(report.truncated, whole))
    end
    if report.dropped and report.dropped > 0 then
        warn(report, "%d rows are left out: %s%s", report.dropped, table.concat(report.dropped_names, ", "),
            report.dropped > #report.dropped_names and ", …" or "")
    end
end

--- A report on a dataset (see utils.lua; a stream is read from its beginning by an iterator of its own).
--- tokenizer: for the text of the sample and special tokens, or nil. opts: rows (200) to look at at most, spread
--- over the dataset; check_end: false where rows have no turns to end, as in pretraining. Raises "data" when
--- nothing is learnt in the rows that were looked at.
function M.run(dataset, tokenizer, opts)
    opts = opts or {}
    local report = setmetatable({ looked_at = 0, tokens = 0, label_tokens = 0, double_bos = 0, missing_end = 0,
                                  unshifted = 0, without_label = 0, warnings = {} }, Report)
    for row, name in rows_of(dataset, opts.rows or ROWS) do
        look_at(report, tokenizer, row, name, opts)
    end
    report.rows = not dataset.is_iterable and dataset:len() or nil
    report.label_share = report.tokens > 0 and report.label_tokens / report.tokens or 0
    if type(dataset.stats) == "function" then
        local stats = dataset:stats()
        report.truncated, report.dropped, report.dropped_names = stats.truncated, stats.skipped, stats.skipped_names
    end
    if report.label_tokens == 0 then
        err.raise("data", report.looked_at == 0 and "the dataset has no rows"
            or "nothing would be trained: none of the %d rows that were looked at has a label to learn. Are prompts "
            .. "cut off before the answer (seq_length), or are answers empty?", report.looked_at)
    end
    add_warnings(report)
    return report
end

-- ---------------------------------------------------------------- as text

local function sample_lines(sample, color)
    local open, close = "⟦", "⟧"
    if color then
        open, close = "\27[32m", "\27[0m"
    end
    local text = {}
    for i, piece in ipairs(sample.pieces) do
        if piece.trained and color then -- a colour would end with its line
            text[i] = open .. piece.text:gsub("\n", close .. "\n" .. open) .. close
        else
            text[i] = piece.trained and open .. piece.text .. close or piece.text
        end
    end
    local out = {}
    for line in (table.concat(text) .. "\n"):gmatch("(.-)\n") do
        out[#out + 1] = "  | " .. line
    end
    if sample.left_out > 0 then
        out[#out + 1] = string.format("  | … and %d tokens more", sample.left_out)
    end
    return out
end

local function class_text(classes)
    local names, parts = {}, {}
    for class in pairs(classes) do
        names[#names + 1] = class
    end
    table.sort(names)
    for i, class in ipairs(names) do
        parts[i] = string.format("class %d: %d", class, classes[class])
    end
    return table.concat(parts, ", ")
end

--- The report as an array of lines. opts.color: learnt tokens in colour rather than between ⟦ and ⟧. Text
--- of the data has no control characters left.
function Report:lines(opts)
    local color = opts and opts.color
    local out = {}
    local function add(fmt, ...)
        out[#out + 1] = string.format(fmt, ...)
    end
    local of = self.rows and string.format("%d of %d rows", self.looked_at, self.rows)
        or string.format("%d rows of a stream", self.looked_at)
    if self.classes then
        add("data audit: %s, %d tokens; %s", of, self.tokens, class_text(self.classes))
    else
        add("data audit: %s, %d tokens, %d of them learnt (%.1f %%)", of, self.tokens, self.label_tokens,
            100 * self.label_share)
    end
    for _, warning in ipairs(self.warnings) do
        add("warning: %s", printable(warning))
    end
    if self.sample then
        add("%s%s:", printable(self.sample.name), self.classes and "" or
            (color and ", what is learnt in colour" or ", what is learnt between ⟦ and ⟧"))
        for _, line in ipairs(sample_lines(self.sample, color)) do
            out[#out + 1] = line
        end
    end
    return out
end

return M
