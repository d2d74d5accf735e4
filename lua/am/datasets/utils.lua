-- Labels: shifting, masking, counting. Holds no files and no batches.
--
-- A row is { input_ids = {…}, labels = {…} }, Lua arrays of equal length. Labels are already shifted:
-- labels[i] is the token that follows input_ids[i], or IGNORE where there is nothing to learn. Optional:
-- attention_mask (0 marks padding), position_ids, seq_lens, the lengths of the samples in a pack, and
-- truncated, true when the sample was longer.
--
-- A dataset is an object with len() and get(i), i from 1 to len(), that returns a row. The ones here
-- also have stats(), see `new_stats`, and most have name(i), see `row_name`, and length(i), the tokens of
-- a row. has_order: its order is the one to train in, and the loader leaves it.
--
-- A dataset that can only be read in order has is_iterable = true and no len(): iter() returns an iterator
-- with next() -> row, or nil at the end; state_dict(), a table that JSON can hold; and load_state_dict(state),
-- after which next() goes on from there. iter{ once = true } must come to an end. A row may have a `name`.

local err = require("am.core.error")

local M = {}

--- The label that losses skip.
M.IGNORE = -100

--- A batch (collate.lua) from which nothing is learnt: for a rank that has no row of its own where others have one.
function M.make_idle(batch)
    local labels = batch.last_tokens and batch.B or batch.B * batch.T
    for i = 0, labels - 1 do
        batch.labels[i] = M.IGNORE
    end
    batch.num_label_tokens, batch.num_tokens, batch.is_idle = 0, 0, true
    return batch
end

--- Shift a token sequence into a row: input_ids without the last id, labels without the first.
--- Token i of `ids` is learnt when i >= first_label and, with `mask`, mask[i] is 1 (or true).
function M.shift(ids, first_label, mask)
    local n = #ids - 1
    local input_ids, labels = {}, {}
    for i = 1, n do
        input_ids[i] = ids[i]
        local learnt = i + 1 >= first_label
        if learnt and mask then
            learnt = mask[i + 1] == 1 or mask[i + 1] == true
        end
        labels[i] = learnt and ids[i + 1] or M.IGNORE
    end
    return { input_ids = input_ids, labels = labels }
end

--- Pad a row to `length` with pad_token_id (labels IGNORE), noting it in attention_mask.
function M.pad(row, length, pad_token_id)
    local n = #row.input_ids
    local mask = {}
    for i = 1, n do
        mask[i] = 1
    end
    for i = n + 1, length do
        row.input_ids[i], row.labels[i], mask[i] = pad_token_id, M.IGNORE, 0
    end
    row.attention_mask = mask
    return row
end

--- Keep the last run of entries that are not `nothing` (IGNORE in labels, 0 in a mask); others become it.
function M.keep_last_run(values, nothing)
    local last = #values
    while last > 0 and values[last] == nothing do
        last = last - 1
    end
    while last > 0 and values[last] ~= nothing do
        last = last - 1
    end
    for i = 1, last do
        values[i] = nothing
    end
end

--- What messages call row i of a dataset: what its name(i) says, if it has one, or "row i".
function M.row_name(dataset, i)
    return type(dataset.name) == "function" and dataset:name(i) or "row " .. i
end

--- Tokens of row i of a dataset: what its length(i) says, if it has one, or what is in the row.
function M.row_length(dataset, i)
    return type(dataset.length) == "function" and dataset:length(i) or #dataset:get(i).input_ids
end

--- Have labels be IGNORE where the row's loss_mask is 0, as NeMo Automodel's rows of 2025 say it. The mask goes.
function M.fold_loss_mask(row)
    local mask = row.loss_mask
    if mask == nil then
        return
    elseif type(mask) ~= "table" or #mask ~= #row.labels then
        err.raise("data", "loss_mask has %s entries, labels %d", type(mask) == "table" and #mask or "no",
            #row.labels)
    end
    for k = 1, #mask do
        if mask[k] == 0 then
            row.labels[k] = M.IGNORE
        end
    end
    row.loss_mask = nil
end

--- How many labels of an array are learnt.
function M.count_labels(labels)
    local count = 0
    for i = 1, #labels do
        if labels[i] ~= M.IGNORE then
            count = count + 1
        end
    end
    return count
end

--- Length of the longest common prefix of two arrays.
function M.common_prefix(a, b)
    local n = 0
    while n < #a and n < #b and a[n + 1] == b[n + 1] do
        n = n + 1
    end
    return n
end

--- Counts over a dataset, filled by `add_counts` and `skip`:
---   rows           rows that can be trained on
---   tokens         input tokens in them, padding not counted
---   label_tokens   tokens that are learnt
---   skipped        rows left out; skipped_names: the first ten of them, with the reason
---   truncated      of the rows, those that were cut
---   longest        { length, name }: the longest sample and the row it is in, for a recipe to compare
---                  with what the model allows
function M.new_stats()
    return { rows = 0, tokens = 0, label_tokens = 0, truncated = 0, skipped = 0, skipped_names = {},
             longest = { length = 0 } }
end

--- Count a row of `tokens` tokens, `labels` of them learnt, whose longest sample has `longest`; `name` is
--- what messages call it ("train.jsonl row 7"). False, and counted as skipped, when none is learnt.
function M.add_counts(stats, tokens, labels, longest, name)
    if labels == 0 then
        M.skip(stats, name, "no label left")
        return false
    end
    stats.rows = stats.rows + 1
    stats.tokens = stats.tokens + tokens
    stats.label_tokens = stats.label_tokens + labels
    if longest > stats.longest.length then
        stats.longest = { length = longest, name = name }
    end
    return true
end

--- Count a row that is left out, and say why.
function M.skip(stats, name, reason)
    stats.skipped = stats.skipped + 1
    if #stats.skipped_names < 10 then
        stats.skipped_names[#stats.skipped_names + 1] = string.format("%s (%s)", name, reason)
    end
end

--- The share of tokens that are learnt, 0 to 1; 0 for no tokens.
function M.label_share(stats)
    return stats.tokens > 0 and stats.label_tokens / stats.tokens or 0
end

--- One line about a dataset: "120 rows, 5310 tokens, 1180 of them learnt (22.2 %); 2 skipped: …".
function M.describe(stats)
    local text = string.format("%d rows, %d tokens, %d of them learnt (%.1f %%)", stats.rows, stats.tokens,
        stats.label_tokens, 100 * M.label_share(stats))
    if (stats.truncated or 0) > 0 then
        text = text .. string.format("; %d cut off", stats.truncated)
    end
    if stats.skipped > 0 then
        local names = table.concat(stats.skipped_names, ", ")
        if stats.skipped > #stats.skipped_names then
            names = names .. ", …"
        end
        text = text .. string.format("; %d skipped: %s", stats.skipped, names)
    end
    return text
end

-- "10", "-5" or "20%" of n rows as a number of rows from the first; default where nothing is written.
local function border(text, n, default)
    local number, percent = text:match("^(%-?%d+)(%%?)$")
    if text == "" then
        return default
    elseif not number then
        return nil
    end
    local at = tonumber(number)
    at = percent == "%" and math.floor(n * at / 100 + 0.5) or at
    return math.max(0, math.min(n, at < 0 and n + at or at))
end

local Slice = {}
Slice.__index = Slice

function Slice:len() return self.count end
function Slice:get(i) return self.source:get(self.first + i) end
function Slice:name(i) return self.source:name(self.first + i) end
function Slice:place(i) return self.source:place(self.first + i) end

--- The rows of a source that a split such as "train[10:50]" or "train[:20%]" names; files have one split,
--- whatever it is called. Raises "usage" for a split that is none, or has no rows.
function M.split(source, split)
    local from, to = (split or ""):match("^[%w_]+%[([^:%]]*):([^:%]]*)%]$")
    if not from then
        return not (split or ""):find("[^%w_]") and source
            or err.raise("usage", "dataset.split: \"%s\" is no split; write a name, or a part of it as in "
                         .. "\"train[:100]\" or \"train[10%%:20%%]\"", split)
    end
    local n = source:len()
    local first, last = border(from, n, 0), border(to, n, n)
    if not first or not last or first >= last then
        err.raise("usage", "dataset.split: \"%s\" has none of the %d rows", split, n)
    end
    return setmetatable({ source = source, first = first, count = last - first }, Slice)
end

return M
