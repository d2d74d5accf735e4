-- Text to rows: where the answer begins in the tokens, with or without a chat template.
-- Holds no files. The tokenizer is handed in: encode(text, { add_special_tokens = }) and
-- apply_chat_template(messages, opts), both giving arrays of ids, and the fields eos_token_id and
-- chat_template.
--
-- Boundary rule without a template. Prompt and answer are tokenized together, as one text, since
-- that is what the model meets when it goes on from the prompt; the first learnt token is the first one
-- that the prompt's own tokens do not begin with. A token that reaches over the boundary is learnt.
--
-- Boundary rule with a template. A template with {% generation %} blocks says itself what the
-- assistant writes. Otherwise the conversation is tokenized with the last assistant turn, and again up
-- to it with the generation prompt; what comes after the tokens they share is learnt: the answer
-- and the marker that ends the turn, but not the role header. Text is never searched for.

local err = require("am.core.error")
local utils = require("am.datasets.utils")

local M = {}

-- Keep the first `limit` ids, when there is a limit.
local function truncate(ids, limit)
    if limit then
        for i = #ids, limit + 1, -1 do
            ids[i] = nil
        end
    end
    return ids
end

--- A row from a prompt and its answer, joined as they are. opts:
---   answer_only_loss_mask   learn the answer only (default true)
---   add_eos                 end with the tokenizer's end-of-sequence token, unless encode has put it
---                           there (default true: without it the model does not learn to stop)
---   limit                   tokens to keep, counted before shifting
function M.prompt_answer(tokenizer, prompt, answer, opts)
    local ids = tokenizer:encode(prompt .. answer, { add_special_tokens = true })
    local first_label = 1
    if opts.answer_only_loss_mask ~= false then
        first_label = utils.common_prefix(tokenizer:encode(prompt, { add_special_tokens = true }), ids) + 1
    end
    if opts.add_eos ~= false then
        if not tokenizer.eos_token_id then
            err.raise("usage", "add_eos: the tokenizer has no end-of-sequence token; set add_eos: false")
        elseif ids[#ids] ~= tokenizer.eos_token_id then
            ids[#ids + 1] = tokenizer.eos_token_id
        end
    end
    return utils.shift(truncate(ids, opts.limit), first_label)
end

local function has_generation_blocks(template)
    return type(template) == "string" and template:find("{%%[-+]?%s*generation%s*[-+]?%%}") ~= nil
end

--- A row from a conversation that ends with an assistant's message. opts: answer_only_loss_mask,
--- limit, as above. `name` is what an error calls the row.
function M.chat(tokenizer, messages, opts, name)
    if opts.answer_only_loss_mask == false then
        return utils.shift(truncate(tokenizer:apply_chat_template(messages, { tokenize = true }), opts.limit), 1)
    end
    if has_generation_blocks(tokenizer.chat_template) then
        local out = tokenizer:apply_chat_template(messages, {
            tokenize = true, return_dict = true, return_assistant_tokens_mask = true,
        })
        return utils.shift(truncate(out.input_ids, opts.limit), 1, out.assistant_masks)
    end
    local before = {}
    for i = 1, #messages - 1 do
        before[i] = messages[i]
    end
    local ids = tokenizer:apply_chat_template(messages, { tokenize = true })
    local bare = tokenizer:apply_chat_template(before, { tokenize = true })
    local prompt = tokenizer:apply_chat_template(before, { tokenize = true, add_generation_prompt = true })
    local first_label = utils.common_prefix(prompt, ids) + 1
    if first_label < utils.common_prefix(bare, prompt) then -- one token may reach over the boundary
        err.raise("data", "%s: the chat template writes the turns before the answer differently when the answer "
            .. "follows, so it cannot be told where the answer begins; use a template with {%% generation %%} blocks, "
            .. "or use_hf_chat_template: false", name)
    end
    return utils.shift(truncate(ids, opts.limit), first_label)
end

return M
