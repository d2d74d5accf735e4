-- Text to rows: where the answer begins in the tokens, cutting and padding, without a chat template.
-- With one see conversation.lua. Holds no files. The tokenizer is handed in: encode(text,
-- { add_special_tokens = }) giving an array of ids, and the fields eos_token_id, pad_token_id and add_bos_token.
--
-- Prompt and answer are tokenized together, as one text, since that is what the model meets when it goes
-- on from the prompt. Where the answer begins in these tokens, answer_boundary says:
--   count    behind as many tokens as the prompt alone has: NeMo Automodel's rule, and the default. A
--            token that reaches over the boundary makes the joint text shorter, so the answer's first token
--            is then not learnt. Byte-level BPE does that for every prompt that ends with a space. What
--            the tokenizer puts before a text is counted where tokenizer_config.json has add_bos_token.
--   prefix   at the first token that the prompt's own tokens do not begin with, so that one which reaches
--            over the boundary is learnt.

local err = require("am.core.error")
local path = require("am.utils.path")
local json = require("am.utils.json")
local utils = require("am.datasets.utils")

local M = {}

local MAX_TEMPLATE = 16 * 1048576

--- Fields of a dataset that format text: length options, and what they become, see `length_options`.
M.length_fields = {
    seq_length = { type = "integer", min = 1, doc = "tokens kept (truncation) and padded to (padding)" },
    padding = { type = "string|boolean", default = "do_not_pad", doc = "do_not_pad, longest or max_length" },
    truncation = { type = "string|boolean", default = "do_not_truncate", doc = "or true, or longest_first" },
}

--- Fields of datasets that join a prompt and an answer: options of `prompt_answer`.
M.answer_fields = {
    add_eos = { type = "boolean", default = false, doc = "end with the end-of-sequence token (no template)" },
    answer_boundary = { type = "string", enum = { "count", "prefix" }, default = "count",
                        doc = "where the answer begins without a template: behind as many tokens as the prompt has "
                            .. "alone, or at the first that the prompt alone does not begin with" },
}

--- Tables of fields as one.
function M.fields(...)
    local out = {}
    for i = 1, select("#", ...) do
        for key, field in pairs((select(i, ...))) do
            out[key] = field
        end
    end
    return out
end

--- Tokens to keep, or nil, and to pad to, or nil, of the options seq_length, truncation and padding.
--- Raises "usage" for what none of them knows.
function M.length_options(opts)
    local truncation, padding = opts.truncation, opts.padding
    local cut = truncation == true or truncation == "longest_first"
    if not cut and truncation and truncation ~= "do_not_truncate" then
        err.raise("usage", "dataset.truncation %s: write do_not_truncate, true or longest_first", tostring(truncation))
    end
    local pad = padding == "max_length"
    if not pad and padding and padding ~= true and padding ~= "do_not_pad" and padding ~= "longest" then
        err.raise("usage", "dataset.padding %s: write do_not_pad, longest or max_length", tostring(padding))
    end
    local length = opts.seq_length
    if (cut or pad) and not length then
        err.raise("usage", "dataset.seq_length is needed for dataset.%s", cut and "truncation" or "padding")
    elseif length and (type(length) ~= "number" or length % 1 ~= 0 or length < 1) then
        err.raise("usage", "dataset.seq_length must be a whole number of at least 1")
    end
    return cut and length or nil, pad and length or nil
end

--- Raise "usage" unless that is a tokenizer.
function M.check_tokenizer(tokenizer)
    if type(tokenizer) ~= "table" or not tokenizer.encode then
        err.raise("usage", "dataset.tokenizer: expected a tokenizer, got a %s without :encode", type(tokenizer))
    end
end

--- The id of padding: the tokenizer's, or that of its end of sequence, or 0.
function M.pad_id(tokenizer)
    return tokenizer.pad_token_id or tokenizer.eos_token_id or 0
end

--- Give the tokenizer the chat template that a configuration names: the template itself, or a file that
--- holds it, as it is or as JSON under "chat_template". Everything that uses the tokenizer afterwards has it,
--- what a checkpoint saves included. Raises "usage" when it is neither.
function M.set_chat_template(tokenizer, value)
    if value == nil then
        return
    end
    if not value:find("{%", 1, true) and not value:find("{{", 1, true) then
        local text, why = path.read_file(value, MAX_TEMPLATE)
        if not text then
            err.raise("usage", "dataset.chat_template: \"%s\" is neither a template nor a file that can be read (%s)",
                #value > 80 and value:sub(1, 77) .. "…" or value, why)
        end
        local object = json.decode(text)
        value = type(object) == "table" and type(object.chat_template) == "string" and object.chat_template or text
    end
    tokenizer.chat_template = value
end

--- Keep the first `limit` ids, when there is a limit; whether any was cut.
function M.truncate(ids, limit)
    local cut = limit ~= nil and #ids > limit
    for i = #ids, (cut and limit or #ids) + 1, -1 do
        ids[i] = nil
    end
    return cut
end

-- How many ids the tokenizer puts before a text, given its ids with them and without.
local function added_before(ids, bare)
    for first = 0, #ids - #bare do
        local same = true
        for k = 1, #bare do
            if ids[first + k] ~= bare[k] then
                same = false
                break
            end
        end
        if same then
            return first
        end
    end
    return 0
end

--- Ids of a text with what the tokenizer puts around it, in at most `limit`: as in transformers the text is
--- cut, and what stands around it stays. Whether it was cut is returned second.
function M.encode(tokenizer, text, limit)
    local ids = tokenizer:encode(text, { add_special_tokens = true })
    if not limit or #ids <= limit then
        return ids, false
    end
    local bare = tokenizer:encode(text, { add_special_tokens = false })
    local before, added = added_before(ids, bare), #ids - #bare
    local out, keep = {}, math.max(0, limit - added)
    for i = 1, before + keep do
        out[i] = ids[i]
    end
    for i = before + #bare + 1, #ids do
        out[#out + 1] = ids[i]
    end
    M.truncate(out, limit)
    return out, true
end

-- The number of the answer's first token, from 1.
local function first_answer_token(tokenizer, prompt, ids, boundary)
    if boundary == "prefix" then
        return utils.common_prefix(tokenizer:encode(prompt, { add_special_tokens = true }), ids) + 1
    end
    return #tokenizer:encode(prompt, { add_special_tokens = false }) + (tokenizer.add_bos_token and 1 or 0) + 1
end

--- A row from a prompt and its answer, joined as they are. opts:
---   answer_only_loss_mask   learn the answer only (default true)
---   answer_boundary         "count" (default) or "prefix": see the head of this file
---   add_eos                 end with the tokenizer's end-of-sequence token, unless encode has put it
---                           there (default false; without it the model does not learn to stop)
---   limit                   tokens to keep, counted before shifting
--- A row that was cut has `truncated`. The last id, which is in no input, is returned second.
function M.prompt_answer(tokenizer, prompt, answer, opts)
    local ids, cut = M.encode(tokenizer, prompt .. answer, opts.limit)
    local first_label = opts.answer_only_loss_mask == false and 1
        or first_answer_token(tokenizer, prompt, ids, opts.answer_boundary)
    if opts.add_eos and not cut then
        if not tokenizer.eos_token_id then
            err.raise("usage", "add_eos: the tokenizer has no end-of-sequence token; set add_eos: false")
        elseif ids[#ids] ~= tokenizer.eos_token_id then
            ids[#ids + 1] = tokenizer.eos_token_id
            cut = M.truncate(ids, opts.limit)
        end
    end
    local row = utils.shift(ids, first_label)
    row.truncated = cut or nil
    return row, ids[#ids]
end

return M
