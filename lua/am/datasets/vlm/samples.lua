-- A conversation as a token row: the processor's template and image tokens, what of it is learnt, and cutting.
-- Reads headers of pictures, decodes none. The processor is handed in; it has
--   plan(source) -> plan          from the header alone
--   render(messages, plans, opts) -> { input_ids, assistant_masks, token_type_ids?, mm_token_type_ids? }
--   tokenizer, special_ids        a set of ids that are never trained: those of images and what stands around them
--
-- Labels come of the template's own marks, shifted once: labels[i] is the token behind input_ids[i] where the
-- assistant wrote that, IGNORE elsewhere. The header of its turn is not learnt, the token that ends it is.

local err = require("am.core.error")
local utils = require("am.datasets.utils")
local broken = require("am.datasets.vlm.broken")
local conversation = require("am.datasets.vlm.conversation")
local sources = require("am.datasets.vlm.sources")

local M = {}

-- What is drawn of the template with the token that ends a turn: "\n" behind <|im_end|>. It is no answer.
local function is_blank(tokenizer, id)
    return tokenizer:decode({ id }):find("^%s*$") ~= nil
end

local function is_mark(tokenizer, id)
    return tokenizer:decode({ id }, { skip_special_tokens = true }) == ""
end

-- Of each run of 1s leave out white space behind a special token at its end.
local function trim_runs(mask, ids, tokenizer)
    for i = 1, #ids do
        if mask[i] == 1 and mask[i + 1] ~= 1 then
            local last = i
            while mask[last] == 1 and not is_mark(tokenizer, ids[last]) and is_blank(tokenizer, ids[last]) do
                last = last - 1
            end
            if last < i and mask[last] == 1 and is_mark(tokenizer, ids[last]) then
                for k = last + 1, i do
                    mask[k] = 0
                end
            end
        end
    end
end

local function labels_of(ids, mask, special)
    local labels = {}
    for i = 1, #ids do
        local id = ids[i + 1]
        labels[i] = id and mask[i + 1] == 1 and not special[id] and id or utils.IGNORE
    end
    return labels
end

local stop = broken.new {}

--- A row as the datasets here give it (rows.lua). Of a dataset of one's own it may be { conversation = … }, or the
--- conversation alone, as conversation.lua reads them; `name` is what messages call it.
function M.example(row, name)
    if row.images and row.broken then
        return row
    end
    local messages, images = conversation.read(row.conversation or row, { base = row.base, images = row.images }, name)
    return { conversation = messages, images = images, name = name, broken = stop }
end

--- The plans of an example's pictures, in order; nil and the error of the first that cannot be read. Other errors
--- are raised.
function M.plans(example, processor)
    local plans = {}
    for i, source in ipairs(example.images) do
        local ok, plan = pcall(function() return processor:plan(sources.here(source)) end)
        if not ok then
            if broken.is(plan) then
                return nil, plan
            end
            error(plan, 0)
        end
        plans[i] = plan
    end
    return plans
end

--- What a row may have beside ids and labels, a number for each token.
M.TYPES = { "token_type_ids", "mm_token_type_ids" }

--- The token row of an example (see rows.lua), and its plans:
---   { input_ids, labels, token_type_ids?, mm_token_type_ids?, plans, name, broken }
--- nil and the error of its first picture that cannot be read. Raises "data" with the row's name.
--- template: in place of the processor's chat template.
function M.row(example, processor, template)
    local plans, why = M.plans(example, processor)
    if not plans then
        return nil, why
    end
    local ok, out = pcall(processor.render, processor, example.conversation, plans,
        { tokenize = true, return_dict = true, return_assistant_tokens_mask = true, chat_template = template })
    if not ok then
        error(err.is(out) and err.new(out.code, example.name .. ": " .. out.msg) or out, 0)
    end
    local mask = out.assistant_masks
    trim_runs(mask, out.input_ids, processor.tokenizer)
    local row = { input_ids = out.input_ids, labels = labels_of(out.input_ids, mask, processor.special_ids),
                  plans = plans, name = example.name, broken = example.broken }
    for _, key in ipairs(M.TYPES) do
        row[key] = out[key]
    end
    return row
end

-- The place of the last token that belongs to a picture; 0 without pictures.
local function last_of_pictures(row, special)
    for i = #row.plans > 0 and #row.input_ids or 0, 1, -1 do
        if special[row.input_ids[i]] then
            return i
        end
    end
    return 0
end

local function shortened(values, n)
    local out = {}
    for i = 1, n do
        out[i] = values[i]
    end
    return out
end

--- Cut a row to opts.max_length tokens behind its pictures; nil and why it is left out: with opts.drop_overlong
--- it is when it is longer, and always when nothing to learn is left. Raises "data" where a picture would be cut.
function M.cut(row, opts, processor)
    local n, most = #row.input_ids, opts.max_length
    if most and n > most then
        local behind = last_of_pictures(row, processor.special_ids)
        if opts.drop_overlong then
            return nil, n .. " tokens, more than max_length"
        elseif behind > most then
            err.raise("data", "%s: its pictures take the row up to token %d, more than max_length (%d), and are never "
                .. "cut: raise max_length, have the processor make fewer tokens of a picture, or leave such rows out "
                .. "(collate_fn.drop_overlong: true, dataset.truncate: false)", row.name, behind, most)
        end
        row.input_ids, row.labels, row.truncated = shortened(row.input_ids, most), shortened(row.labels, most), true
        row.labels[most] = utils.IGNORE -- its token is cut off
        for _, key in ipairs(M.TYPES) do
            row[key] = row[key] and shortened(row[key], most)
        end
    end
    if utils.count_labels(row.labels) == 0 then
        return nil, "no label left"
    end
    return row
end

return M
