-- Conversations to rows with the tokenizer's chat template: which tokens the assistant wrote. Holds no
-- files; without a template see formatting.lua. The tokenizer is handed in: apply_chat_template(messages,
-- opts) and the fields chat_template and eos_token_id.
--
-- A template with {% generation %} blocks says itself what the assistant writes. Otherwise a turn is what
-- the conversation up to it lacks: both are rendered, and the second must begin with the first. That takes
-- in the header of the turn ("<|im_start|>assistant\n"); mask_generation_prompt leaves out what the template
-- writes there when it is asked for a prompt, which the model never has to write. Text is never searched
-- for. The rules are those of nemo_automodel/components/datasets/llm/formatting_utils.py. Where a template
-- writes a turn differently when more follows (Qwen3 leaves earlier reasoning out), which those rules refuse,
-- am.chat tells what each message's round of the template's loop wrote.

local err = require("am.core.error")
local json = require("am.utils.json")
local log = require("am.utils.log").get("am.datasets")
local formatting = require("am.datasets.formatting")
local utils = require("am.datasets.utils")

local M = {}

--- The field of datasets with chat templates.
M.mask_generation_prompt = { type = "boolean", default = false,
                             doc = "do not learn what the template writes before the assistant's first token" }

local warned = {}

local function warn_once(fmt, ...)
    if not warned[fmt] then
        warned[fmt] = true
        log:warning(fmt .. " (said once)", ...)
    end
end

-- The source of the template that a conversation is rendered with.
local function template_text(tokenizer, tools)
    local template = tokenizer.chat_template
    return type(template) == "table" and tokenizer:get_chat_template(nil, tools) or template or ""
end

--- Raise "usage" when the tokenizer has no chat template; `who` needs it.
function M.check_template(tokenizer, who)
    if not tokenizer.chat_template then
        err.raise("usage", "%s: this tokenizer has no chat template; give one, or take a model that has one (an "
            .. "-Instruct or -Chat variant)", who)
    end
end

local function has_generation_blocks(template)
    return template:find("{%%[-+]?%s*generation%s*[-+]?%%}") ~= nil
end

-- ---------------------------------------------------------------- rendering

-- A conversation and what it is rendered with; prefixes that were rendered are kept.
local Chat = {}
Chat.__index = Chat

local function first_messages(messages, count)
    local out = {}
    for i = 1, count do
        out[i] = messages[i]
    end
    return json.array(out)
end

function Chat:render(messages, variables)
    local opts = { tokenize = true, tools = self.tools }
    for name, value in pairs(variables or {}) do
        opts[name] = value
    end
    local ok, ids = pcall(self.tokenizer.apply_chat_template, self.tokenizer, messages, opts)
    return ok and ids or error(err.is(ids) and err.new(ids.code, self.name .. ": " .. ids.msg) or ids, 0)
end

-- The first `count` messages alone.
function Chat:prefix(count)
    if count == #self.messages then
        return self.ids
    end
    self.prefixes[count] = self.prefixes[count] or self:render(first_messages(self.messages, count))
    return self.prefixes[count]
end

-- Whether ids begin as the whole conversation does, as far as it is kept. Where `ending` is given, the last
-- of them may be that token, which other messages replace.
function Chat:begins_with(ids, ending)
    local n = #ids
    if not self.limit and n > #self.ids then
        return false
    end
    local stop = math.min(n, self.limit or n)
    local same = 0
    while same < stop and ids[same + 1] == self.ids[same + 1] do
        same = same + 1
    end
    return same == stop or (ending and n > 1 and stop == n and same == n - 1 and ids[n] == ending)
end

-- ---------------------------------------------------------------- masks: 1 for each token that counts

local function zeros(n)
    local mask = {}
    for i = 1, n do
        mask[i] = 0
    end
    return mask
end

local function mark(mask, first, last)
    for i = first, math.min(last, #mask) do
        mask[i] = 1
    end
end

-- How many tokens the first `count` messages take; nil when they are written differently when more follows.
function Chat:boundary(count)
    local ids = self:prefix(count)
    return self:begins_with(ids, self.tokenizer.eos_token_id) and #ids or nil
end

-- What the assistant's turns take, by the turns before them; nil when these do not tell.
function Chat:mask_by_prefixes()
    local mask = zeros(#self.ids)
    for i, message in ipairs(self.messages) do
        if message.role == "assistant" then
            local before, after = self:boundary(i - 1), self:boundary(i)
            if not before or not after then
                return nil
            end
            mark(mask, before + 1, after)
        end
    end
    return mask
end

-- The same as the template itself tells it, with or without the headers; nil when it does not.
function Chat:mask_by_template(with_header)
    local ok, out = pcall(self.render, self, self.messages,
        { return_dict = true, return_assistant_tokens_mask = with_header and "turns" or true })
    return ok and out.assistant_masks or nil
end

-- What the assistant's turns take, and whether the headers are already left out as `without_header` asks.
function Chat:assistant_mask(without_header)
    local found = false
    for _, message in ipairs(self.messages) do
        found = found or message.role == "assistant"
    end
    if not found then
        err.raise("data", "%s: the conversation has no message of the assistant, so nothing is learnt", self.name)
    end
    -- some templates raise when the conversation ends before its question
    local ok, mask = pcall(self.mask_by_prefixes, self)
    if ok and mask then
        return mask, false
    end
    local told = self:mask_by_template(not without_header)
    if told then
        return told, without_header
    elseif not ok then
        error(mask, 0)
    end
    err.raise("data", "%s: the chat template writes the turns before an answer differently when more follows, so "
        .. "it cannot be told where the answer begins; use a template with {%% generation %%} blocks, or none",
        self.name)
end

-- How many of the tokens that follow `base` the prompt of the assistant's turn writes: all that it appends,
-- or none when it changes what was there, or the turn does not begin with all of it.
local function appended(self, base, prompt)
    if utils.common_prefix(base, prompt) < #base or #prompt > #self.ids then
        return 0
    end
    return utils.common_prefix(prompt, self.ids) == #prompt and #prompt - #base or 0
end

-- The first and the last token that the template supplies in message i; nil when that cannot be told.
function Chat:prompt_span(i, modes)
    local base = self:prefix(i - 1)
    if utils.common_prefix(base, self.ids) < #base then
        return nil
    end
    local most = 0
    for _, mode in ipairs(modes) do
        local prompt = self:render(first_messages(self.messages, i - 1),
            { add_generation_prompt = true, enable_thinking = mode.enable_thinking })
        most = math.max(most, appended(self, base, prompt))
    end
    return #base + 1, #base + most
end

-- What the template writes before the assistant's first token, in each turn.
function Chat:prompt_mask(template)
    local mask = zeros(#self.ids)
    local modes = { {} }
    if template:find("enable_thinking", 1, true) then
        modes = { { enable_thinking = true }, { enable_thinking = false } }
    end
    for i, message in ipairs(self.messages) do
        if message.role == "assistant" then
            local ok, first, last = pcall(self.prompt_span, self, i, modes)
            if not ok and i > 1 then -- some templates cannot render no messages at all
                error(first, 0)
            elseif ok and first then
                mark(mask, first, last)
            else
                warn_once("%s: the tokens that the template supplies in message %d cannot be told, and are learnt",
                    self.name, i)
            end
        end
    end
    return mask
end

local function has_reasoning(message)
    local reasoning = message.role == "assistant" and message.reasoning_content
    return type(reasoning) == "string" and reasoning ~= ""
end

local function without_reasoning(messages, i)
    local out = first_messages(messages, #messages)
    local copy = json.object({}, json.keys(messages[i]))
    for key, value in pairs(messages[i]) do
        copy[key] = value
    end
    copy.reasoning_content = ""
    out[i] = copy
    return out
end

-- What reasoning_content takes: what is not there when it is empty.
function Chat:reasoning_mask()
    local mask, ids = zeros(#self.ids), self.ids
    for i, message in ipairs(self.messages) do
        if has_reasoning(message) then
            local bare = self:render(without_reasoning(self.messages, i))
            local first, after = utils.common_prefix(ids, bare), 0
            while after < math.min(#ids, #bare) - first and ids[#ids - after] == bare[#bare - after] do
                after = after + 1
            end
            if #ids - after <= first then
                warn_once("%s: the chat template does not write the reasoning_content of message %d apart from the "
                    .. "rest, so nothing of it is left out", self.name, i)
            end
            mark(mask, first + 1, #ids - after)
        end
    end
    return mask
end

local function subtract(mask, other)
    for i = 1, #mask do
        mask[i] = other[i] == 1 and 0 or mask[i]
    end
end

local function any_reasoning(messages)
    for _, message in ipairs(messages) do
        if has_reasoning(message) then
            return true
        end
    end
    return false
end

--- How many tokens a conversation takes. `name` is what an error calls it.
function M.length(tokenizer, messages, tools, name)
    return #setmetatable({ tokenizer = tokenizer, tools = tools, name = name }, Chat):render(messages)
end

--- A row from a conversation. opts:
---   answer_only_loss_mask    learn the assistant's turns only (default true)
---   last_turn_only           of these the last one only
---   mask_generation_prompt   not what the template writes before the assistant's first token
---   mask_reasoning_content   not the reasoning_content of messages
---   tools                    for the template
---   limit                    tokens to keep, counted before shifting; a row that was cut has `truncated`
--- `name` is what an error calls the row. The last id, which is in no input, is returned second. Raises
--- "data" where nobody can tell what the assistant wrote.
function M.row(tokenizer, messages, opts, name)
    local template = template_text(tokenizer, opts.tools)
    local self = setmetatable({ tokenizer = tokenizer, messages = messages, tools = opts.tools, limit = opts.limit,
                                name = name, prefixes = {} }, Chat)
    local mask, bare
    if has_generation_blocks(template) and opts.answer_only_loss_mask ~= false then
        local out = self:render(messages, { return_dict = true, return_assistant_tokens_mask = true })
        self.ids, mask = out.input_ids, out.assistant_masks
    else
        self.ids = self:render(messages)
        mask = zeros(#self.ids)
        if opts.answer_only_loss_mask == false then
            mark(mask, 1, #mask)
        else
            mask, bare = self:assistant_mask(opts.mask_generation_prompt)
        end
    end
    if opts.last_turn_only then
        utils.keep_last_run(mask, 0)
    end
    if opts.mask_generation_prompt and not bare then
        subtract(mask, self:prompt_mask(template))
    end
    local reasoning = any_reasoning(messages)
    if reasoning and not template:find("reasoning_content", 1, true) then
        warn_once("%s: the conversation has reasoning_content, which the chat template does not mention", name)
    end
    if opts.mask_reasoning_content and reasoning then
        subtract(mask, self:reasoning_mask())
    end
    local cut = formatting.truncate(self.ids, opts.limit)
    local row = utils.shift(self.ids, 1, mask)
    row.truncated = cut or nil
    return row, self.ids[#self.ids]
end

return M
