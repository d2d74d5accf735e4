-- A tokenizer object: encode, decode, look-ups, chat templates, saving. Names and behaviour follow
-- transformers. Reading files is init.lua's and files.lua's.

local edge = require("am.core.ffi")
local err = require("am.core.error")
local files = require("am.tokenizers.files")
local json = require("am.utils.json")

local C = edge.C
local M = {}

-- ---------------------------------------------------------------- the tokenizer

---@class am.Tokenizer
---@field bos_token string? and eos_token, unk_token, pad_token, sep_token, cls_token, mask_token
---@field bos_token_id integer? and the others' ids
---@field chat_template string|table|nil the source, or sources by name
---@field add_bos_token boolean whether tokenizer_config.json says so; encode does what tokenizer.json says
---@field model_max_length number? of tokenizer_config.json
---@field padding_side string "left" or "right": of tokenizer_config.json, else of tokenizer.json
---@field truncation_side string the same
---@field limits table what tokenizer.json says about truncation and padding
---@field vocab_size integer highest id + 1, added tokens included
local Tokenizer = {}
Tokenizer.__index = Tokenizer

--- From an engine and a description (files.lua). opts.chat: the template engine.
function M.new(engine, description, opts)
    local self = setmetatable({ engine = engine, description = description, chat = opts.chat }, Tokenizer)
    self.vocab_size = engine:size()
    for name, text in pairs(description.special) do
        self[name] = text
        self[name .. "_id"] = engine:id(text)
    end
    local config = description.config or {}
    self.add_bos_token = config.add_bos_token == true
    self.model_max_length = type(config.model_max_length) == "number" and config.model_max_length or nil
    local limits = engine:limits()
    self.truncation_side = config.truncation_side or limits.truncation_side
    self.padding_side = config.padding_side or limits.padding_side
    self.limits = limits
    local templates = description.templates
    if templates then
        self.chat_template = next(templates) == "default" and next(templates, "default") == nil
            and templates.default or templates
    end
    return self
end

--- Number of tokens, added ones included.
function Tokenizer:len()
    return self.vocab_size
end

local function check_text(text)
    if type(text) ~= "string" then
        err.raise("usage", "encode: the text is a %s, not a string", type(text))
    end
end

-- How many ids truncation leaves at most; nil: all. As in transformers, `true` means max_length, where it is not
-- given what the files say, and where they say nothing all.
local function longest(self, opts)
    local wanted = opts.truncation
    if wanted == nil or wanted == false then
        return nil
    elseif wanted ~= true then
        err.raise("usage", "encode: truncation is true or false, not %s", tostring(wanted))
    end
    local n = opts.max_length or self.limits.max_length or self.model_max_length
    if n == nil then
        return nil
    elseif type(n) ~= "number" or n < 0 or n % 1 ~= 0 then
        err.raise("usage", "encode: max_length is %s, not a number of tokens", tostring(n))
    end
    return n
end

-- Ids cut to n, so that what goes around the text stays: `around` of them, `before` at the beginning.
local function truncate(self, ids, n, before, around)
    if #ids <= n then
        return ids
    elseif n < around then
        err.raise("usage", "encode: max_length is %d, and %d special tokens go around a text", n, around)
    end
    local out, gone = {}, #ids - n
    local from = self.truncation_side == "left" and before or #ids - (around - before) - gone
    for i = 1, #ids do
        if i <= from or i > from + gone then
            out[#out + 1] = ids[i]
        end
    end
    return out
end

-- How many ids go before a text, and around it in all.
local function around(self)
    if not self.ends then
        local text = self.engine:encode("a", false)
        local whole = self.engine:encode("a", true)
        local before = 0
        while before < #whole - #text and whole[before + 1] ~= text[1] do
            before = before + 1
        end
        self.ends = { before, #whole - #text }
    end
    return self.ends[1], self.ends[2]
end

local function truncated(self, ids, opts)
    local n = opts and longest(self, opts)
    if not n then
        return ids
    elseif opts.add_special_tokens == false then
        return truncate(self, ids, n, 0, 0)
    end
    return truncate(self, ids, n, around(self))
end

--- Ids of a text, as an array. opts.add_special_tokens (default true): put around it what the
--- tokenizer's post-processor says. opts.return_offsets: a second array of { first, last } with
--- text:sub(first, last) being what each id came from (empty for added ids). opts.truncation: true cuts the
--- ids to opts.max_length (default: that of tokenizer.json's truncation, else model_max_length) at
--- truncation_side, what goes around the text staying; not together with return_offsets.
function Tokenizer:encode(text, opts)
    check_text(text)
    local offsets = opts and opts.return_offsets
    local ids = self.engine:encode(text, not opts or opts.add_special_tokens ~= false, offsets)
    if not offsets then
        return truncated(self, ids, opts)
    elseif opts.truncation then
        err.raise("unsupported", "encode: truncation together with return_offsets is not supported")
    end
    local starts, ends = self.engine:offsets()
    local ranges = {}
    for i = 1, #ids do
        ranges[i] = { starts[i] + 1, ends[i] }
    end
    return ids, ranges
end

-- Length to pad to: "max_length", or true and "longest"; what tokenizer.json says counts for true.
local function padded_length(self, rows, opts)
    local n, padding = 0, opts.padding
    if padding == "max_length" then
        n = opts.max_length or self.model_max_length
            or err.raise("usage", "encode_batch: padding \"max_length\" needs max_length")
    elseif padding == true or padding == "longest" then
        n = padding == true and self.limits.pad_length or 0
    else
        err.raise("usage", "encode_batch: padding is true, \"longest\" or \"max_length\", not %s", tostring(padding))
    end
    for _, ids in ipairs(rows) do
        n = math.max(n, #ids)
    end
    local multiple = opts.pad_to_multiple_of or self.limits.pad_to_multiple_of or 1
    return math.ceil(n / multiple) * multiple
end

-- Rows of one length, and which ids are a text's.
local function pad(self, rows, opts)
    local id = self.pad_token_id or self.limits.padding and self.limits.pad_id
        or err.raise("usage", "encode_batch: this tokenizer has no pad_token to pad with")
    local length, masks = padded_length(self, rows, opts), {}
    for r, ids in ipairs(rows) do
        local missing, row, mask = length - #ids, {}, {}
        local first = self.padding_side == "left" and missing or 0
        for i = 1, length do
            local own = ids[i - first]
            row[i], mask[i] = own or id, own and 1 or 0
        end
        rows[r], masks[r] = row, mask
    end
    return masks
end

--- Ids of an array of texts, encoded on all threads, the same as one by one: an array of arrays. opts: those of
--- encode but return_offsets, and
---   padding              true or "longest": to the longest row; "max_length": to opts.max_length
---   pad_to_multiple_of   the length rounded up
--- With padding a second array of arrays is the attention mask.
function Tokenizer:encode_batch(texts, opts)
    opts = opts or {}
    if type(texts) ~= "table" then
        err.raise("usage", "encode_batch: needs an array of texts, got a %s", type(texts))
    end
    for i = 1, #texts do
        if type(texts[i]) ~= "string" then
            err.raise("usage", "encode_batch: texts[%d] is a %s, not a string", i, type(texts[i]))
        end
    end
    local rows = self.engine:encode_batch(texts, opts.add_special_tokens ~= false)
    for i = 1, #rows do
        rows[i] = truncated(self, rows[i], opts)
    end
    if not opts.padding then
        return rows
    end
    return rows, pad(self, rows, opts)
end

--- Text of ids (an array, or one id). Ids beyond the vocabulary, which a model with a longer table of embeddings may
--- say, give none, as in transformers. opts.skip_special_tokens (default false); opts.errors: "replace"
--- (default; bytes that are not UTF-8 become U+FFFD, as in transformers) or "keep" (the bytes themselves,
--- for joining pieces).
function Tokenizer:decode(ids, opts)
    opts = opts or {}
    if type(ids) == "number" then
        ids = { ids }
    elseif type(ids) ~= "table" then
        err.raise("usage", "decode: needs an array of ids, got a %s", type(ids))
    elseif opts.errors ~= nil and opts.errors ~= "replace" and opts.errors ~= "keep" then
        err.raise("usage", "decode: errors is \"replace\" or \"keep\", not %s", tostring(opts.errors))
    end
    return self.engine:decode(ids, (opts.skip_special_tokens and C.AM_DECODE_SKIP_SPECIAL or 0)
        + (opts.errors == "keep" and C.AM_DECODE_RAW or 0))
end

--- Id of a token, or ids of an array of tokens. An unknown token gives unk_token_id, or raises "data"
--- where there is none.
function Tokenizer:convert_tokens_to_ids(tokens)
    if type(tokens) == "table" then
        local ids = {}
        for i, token in ipairs(tokens) do
            ids[i] = self:convert_tokens_to_ids(token)
        end
        return ids
    end
    return self.engine:id(tokens) or self.unk_token_id
        or err.raise("data", "\"%s\" is not in the vocabulary, and there is no unk_token", tostring(tokens))
end

--- Token of an id, or tokens of an array of ids, as the vocabulary spells them.
function Tokenizer:convert_ids_to_tokens(ids)
    if type(ids) == "table" then
        local tokens = {}
        for i, id in ipairs(ids) do
            tokens[i] = self:convert_ids_to_tokens(id)
        end
        return tokens
    end
    return type(ids) == "number" and self.engine:token(ids)
        or err.raise("data", "%s is no token id in 0..%d", tostring(ids), self.vocab_size - 1)
end

--- Text of a token that tokenizer_config.json names ("image_token", "boi_token", …, by itself or under
--- extra_special_tokens), nil where it names none.
function Tokenizer:named_token(name)
    local config = self.description.config or {}
    local extra = config.extra_special_tokens
    for _, from in ipairs { config, type(extra) == "table" and not json.is_array(extra) and extra or {} } do
        local value = from[name]
        local text = type(value) == "table" and value.content or value
        if type(text) == "string" then
            return text
        end
    end
    return nil
end

--- All that ids depend on, as text: the tokenizer, its special tokens and chat templates. For the keys of
--- caches.
function Tokenizer:content()
    return json.encode({ special = self.description.special, templates = self.description.templates or {},
                         chat_template = self.chat_template or {} }, { sort_keys = true }) .. self.engine:json()
end

--- Write tokenizer.json, tokenizer_config.json and special_tokens_map.json into a directory.
function Tokenizer:save_pretrained(dir)
    files.write(dir, self.description, self.engine:json(), self.chat_template)
end

--- What a GGUF file says of this tokenizer: a list of { key, type, value } for a model with `rows` embeddings
--- (tokens that the tokenizer lacks are padding). Raises "unsupported" for one that llama.cpp cannot have.
function Tokenizer:gguf_metadata(rows)
    return require("am.tokenizers.gguf").metadata(self, rows)
end

-- ---------------------------------------------------------------- chat templates

--- The source of the template to use: `wanted` (source or name), else the one for tools when there
--- are tools, else the default.
function Tokenizer:get_chat_template(wanted, tools)
    local own = self.chat_template
    if type(own) ~= "table" then
        return wanted or own or err.raise("usage",
            "this tokenizer has no chat template; pass one as chat_template, or use plain text")
    elseif wanted then
        return own[wanted] or wanted
    end
    local names = {}
    for name in pairs(own) do
        names[#names + 1] = name
    end
    table.sort(names)
    return tools and own.tool_use or own.default or err.raise("usage",
        "this tokenizer has several chat templates and no default; name one as chat_template (%s)",
        table.concat(names, ", "))
end

-- Null fields of a message (content or tool_calls of some APIs) are left out, as transformers does.
local function without_nulls(messages, none)
    local out = {}
    if messages[1] == nil then
        return messages -- empty, or not an array, which the template engine will say
    end
    for i, message in ipairs(messages) do
        out[i] = message
        if type(message) == "table" then
            for _, value in pairs(message) do
                if value == json.null or value == none then
                    out[i] = nil
                end
            end
        end
        if out[i] == nil then
            local keys, copy = {}, {}
            for _, key in ipairs(json.keys(message)) do
                if message[key] ~= json.null and message[key] ~= none then
                    keys[#keys + 1], copy[key] = key, message[key]
                end
            end
            out[i] = json.object(copy, keys)
        end
    end
    return out
end

-- Which tokens lie in the spans { first, last } of the text, as transformers marks them: from the token
-- with a span's first byte to the first token with its last byte.
local function span_mask(count, starts, ends, spans)
    local mask = {}
    for i = 1, count do
        mask[i] = 0
    end
    local function token_at(byte)
        for i = 1, count do
            if byte >= starts[i] and byte < ends[i] then
                return i
            end
        end
    end
    for _, span in ipairs(spans) do
        local first = token_at(span[1] - 1)
        if not first then
            break
        end
        local last = token_at(span[2] - 1)
        for i = first, last and last > 1 and last or count do
            mask[i] = 1
        end
    end
    return mask
end

local OWN_OPTIONS = {
    chat_template = true, tokenize = true, return_dict = true, return_assistant_tokens_mask = true,
}
local NOT_DONE = { "padding", "truncation", "max_length", "return_tensors" }

-- Check options that exclude one another.
local function check_options(opts)
    for _, name in ipairs(NOT_DONE) do
        if opts[name] then
            err.raise("unsupported", "apply_chat_template: %s is not supported", name)
        end
    end
    local masked = opts.return_assistant_tokens_mask
    if masked and not (opts.return_dict and opts.tokenize ~= false) then
        err.raise("usage", "return_assistant_tokens_mask needs return_dict and tokenize")
    end
    if opts.continue_final_message and (masked or opts.add_generation_prompt) then
        err.raise("usage", "continue_final_message goes with neither add_generation_prompt nor "
            .. "return_assistant_tokens_mask")
    end
end

-- The text, and with `masked` the spans { first, last } that the assistant wrote.
local function render(template, vars, masked)
    if not masked then
        return template:render(vars), nil
    end
    local text, turns = template:turns(vars)
    if not turns then
        err.raise("unsupported", "return_assistant_tokens_mask: the chat template has no {%% generation %%} blocks and "
            .. "writes its text elsewhere than in a loop over the messages, so it does not tell what the assistant "
            .. "wrote")
    end
    local spans = {}
    for _, turn in ipairs(turns) do
        local first = masked == "turns" and turn[1] or turn.answer
        if template.has_generation or first <= turn[2] then
            spans[#spans + 1] = { first, turn[2] }
        end
    end
    return text, spans
end

--- A conversation as text, with the options of apply_chat_template that shape it. With
--- return_assistant_tokens_mask also the spans that the assistant wrote, an array of { first, last } bytes (for
--- callers that change the text before it is encoded; an empty span has last = first - 1).
function Tokenizer:chat_text(messages, opts)
    if not self.chat then
        err.raise("usage", "apply_chat_template: no template engine was given; "
            .. "load the tokenizer with from_pretrained(name, { chat = require \"am.chat\" })")
    elseif type(messages) ~= "table" then
        err.raise("usage", "apply_chat_template: needs an array of messages, got a %s", type(messages))
    end
    check_options(opts)
    local source = self:get_chat_template(opts.chat_template, opts.tools)
    if self.compiled_source ~= source then
        self.compiled, self.compiled_source = self.chat.compile(source), source
    end
    local vars = {}
    for name, text in pairs(self.description.special) do
        vars[name] = text
    end
    for name, value in pairs(opts) do
        if not OWN_OPTIONS[name] then
            vars[name] = value
        end
    end
    vars.messages = without_nulls(messages, self.chat.None)
    return render(self.compiled, vars, opts.return_assistant_tokens_mask)
end

--- A conversation as ids, or as text. `messages`: { { role = "user", content = "…" }, … }. opts:
---   tokenize (default true)          ids; false: the text
---   add_generation_prompt            end with the header of an assistant's turn
---   tools, documents                 for templates that use them
---   chat_template                    another template: its source, or its name among several
---   return_dict                      { input_ids, attention_mask } instead of the array of ids
---   return_assistant_tokens_mask     with return_dict: assistant_masks too, 1 for what the assistant wrote:
---                                    the template's {% generation %} blocks; where it has none, the
---                                    assistant's turns without the header that a prompt supplies, with it
---                                    when the option is "turns" (transformers gives zeros there)
---   continue_final_message           true, or a field of the last message: end where that one ends
--- Any other option becomes a variable of the template. Special tokens are not added: the template
--- writes them.
function Tokenizer:apply_chat_template(messages, opts)
    opts = opts or {}
    local text, spans = self:chat_text(messages, opts)
    if opts.tokenize == false then
        return text
    end
    local ids = self.engine:encode(text, false, spans ~= nil)
    if not opts.return_dict then
        return ids
    end
    local out = { input_ids = ids, attention_mask = {} }
    for i = 1, #ids do
        out.attention_mask[i] = 1
    end
    if spans then
        local starts, ends = self.engine:offsets()
        out.assistant_masks = span_mask(#ids, starts, ends, spans)
    end
    return out
end

return M
