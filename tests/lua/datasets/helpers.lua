-- What the dataset specs share: a tokenizer with tokens that reach over word boundaries, temporary
-- files, datasets of given rows, and a check of errors.
local path = require("am.utils.path")

local M = {}

local Tokenizer = {}
Tokenizer.__index = Tokenizer

--- Tokens are words with the space before them, as GPT-2's are; a space that no word follows is a
--- token of its own. Ids count up from 10 as words are met.
function M.tokenizer(fields)
    local self = setmetatable({ ids = {}, words = {}, next_id = 10, eos_token_id = 1, pad_token_id = 0 }, Tokenizer)
    for key, value in pairs(fields or {}) do
        self[key] = value
    end
    return self
end

function Tokenizer:id(word)
    if not self.ids[word] then
        self.ids[word], self.words[self.next_id] = self.next_id, word
        self.next_id = self.next_id + 1
    end
    return self.ids[word]
end

function Tokenizer:encode(text, opts)
    local out = {}
    if opts.add_special_tokens and self.bos_token_id then
        out[1] = self.bos_token_id
    end
    local at = 1
    while at <= #text do
        local word = text:match("^<|[^>]*|>", at) or text:match("^ ?[^ <]+", at) or text:sub(at, at)
        out[#out + 1] = self:id(word)
        at = at + #word
    end
    if opts.add_special_tokens and self.adds_eos then
        out[#out + 1] = self.eos_token_id
    end
    return out
end

--- The text of ids; 1 is "</s>", IGNORE is "_".
function Tokenizer:text(ids)
    local out = {}
    for i, id in ipairs(ids) do
        out[i] = id == 1 and "</s>" or id == -100 and "_" or id == self.bos_token_id and "<s>" or self.words[id]
    end
    return table.concat(out, "|")
end

-- Renders as ChatML does. A template of "rewrites" drops the marks of earlier turns when one follows.
function Tokenizer:apply_chat_template(messages, opts)
    local parts, mask_text = {}, {}
    for i, message in ipairs(messages) do
        local mark = self.chat_template == "rewrites" and i < #messages and "<|old|>" or "<|start|>"
        parts[#parts + 1] = mark .. message.role .. "<|sep|>" .. message.content .. "<|end|>"
        mask_text[#parts] = message.role == "assistant" and message.content .. "<|end|>" or ""
    end
    if opts.add_generation_prompt then
        parts[#parts + 1] = "<|start|>assistant<|sep|>"
    end
    local ids = self:encode(table.concat(parts), {})
    if not opts.return_assistant_tokens_mask then
        return ids
    elseif self.tells_no_turns then
        error("the template does not tell its turns")
    end
    local masks = {}
    for i, part in ipairs(parts) do
        local n, learnt = #self:encode(part, {}), #self:encode(mask_text[i], {})
        for k = 1, n do
            masks[#masks + 1] = k > n - learnt and 1 or 0
        end
    end
    return { input_ids = ids, assistant_masks = masks }
end

--- A dataset of the given rows; a number stands for a row of that length, all of it learnt.
function M.dataset(rows)
    local self = { rows = rows }
    function self.len() return #rows end
    function self.get(_, i)
        local row = rows[i]
        if type(row) ~= "number" then
            return row
        end
        local out = { input_ids = {}, labels = {} }
        for k = 1, row do
            out.input_ids[k], out.labels[k] = 100 * i + k, 100 * i + k + 1
        end
        return out
    end
    return self
end

--- A temporary file with that text; remove it yourself.
function M.file(text, extension)
    local name = os.tmpname()
    os.remove(name)
    name = name .. "." .. (extension or "jsonl")
    local file = assert(io.open(name, "wb"))
    file:write(text)
    file:close()
    return name
end

--- The name of a folder that is there in every test, empty, and goes away. before_each, after_each: busted's.
function M.folder(before_each, after_each)
    local name = os.tmpname()
    os.remove(name)
    before_each(function() path.mkdir_p(name) end)
    after_each(function() path.remove_tree(name) end)
    return name
end

--- Asserts that fn(...) raises an error object of `code` whose message matches `pattern`.
function M.fails(code, pattern, fn, ...)
    local ok, e = pcall(fn, ...)
    assert(not ok, "no error was raised")
    assert(type(e) == "table" and e.code == code, "expected a " .. code .. " error: " .. tostring(e))
    assert(e.msg:find(pattern), "message does not match " .. pattern .. ": " .. e.msg)
end

--- An int32 array as a Lua array.
function M.list(array, n, first)
    local out = {}
    for i = 1, n do
        out[i] = array[(first or 0) + i - 1]
    end
    return out
end

return M
