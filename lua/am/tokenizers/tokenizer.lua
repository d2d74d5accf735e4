-- A tokenizer object: encode, decode, look-ups, chat templates, saving. Names and behaviour follow
-- transformers. Reading files is init.lua's and files.lua's.

local ffi = require("ffi")
local edge = require("am.core.ffi")
local err = require("am.core.error")
local files = require("am.tokenizers.files")
local json = require("am.utils.json")

local C, check = edge.C, edge.check
local M = {}

-- ---------------------------------------------------------------- the engine's tokenizer

local ids_box, n_box = ffi.new("const int32_t *[1]"), ffi.new("int64_t[1]")
local offsets_box = ffi.new("const int64_t *[1]")
local text_box, bytes_box = ffi.new("const char *[1]"), ffi.new("size_t[1]")

---@class am.tokenizers.Engine the C object behind a tokenizer
local Engine = {}
Engine.__index = Engine

local function wrap(box)
    return setmetatable({ handle = ffi.gc(box[0], C.am_tokenizer_release) }, Engine)
end

--- From the text of a tokenizer.json.
function M.engine_from_json(text)
    local box = edge.box("am_tokenizer")
    edge.check_retry(C.am_tokenizer_from_json, box, text, #text)
    return wrap(box)
end

--- From an open GGUF archive (am.core.io).
function M.engine_from_gguf(archive)
    local box = edge.box("am_tokenizer")
    edge.check_retry(C.am_tokenizer_from_gguf, box, archive.handle)
    return wrap(box)
end

function Engine:size()
    return tonumber(C.am_tokenizer_size(self.handle))
end

--- Id of a token, or nil.
function Engine:id(token)
    if type(token) ~= "string" or token:find("%z") then
        return nil
    end
    local id = tonumber(C.am_tokenizer_id(self.handle, token))
    return id >= 0 and id or nil
end

--- Token of an id, or nil.
function Engine:token(id)
    if id % 1 ~= 0 or id < 0 or id >= self:size() then
        return nil
    end
    local text = C.am_tokenizer_token(self.handle, id)
    return text ~= nil and ffi.string(text) or nil
end

function Engine:is_special(id)
    return C.am_tokenizer_is_special(self.handle, id) == 1
end

function Engine:encode(text, add_special_tokens)
    check(C.am_tokenizer_encode(self.handle, text, #text, add_special_tokens and 1 or 0, ids_box, n_box))
    local list, ids = {}, ids_box[0]
    for i = 1, tonumber(n_box[0]) do
        list[i] = ids[i - 1]
    end
    return list
end

-- Ranges of the last encode: two arrays, bytes counted from 0, the end excluded.
function Engine:offsets()
    check(C.am_tokenizer_offsets(self.handle, offsets_box, n_box))
    local starts, ends, offsets = {}, {}, offsets_box[0]
    for i = 1, tonumber(n_box[0]) do
        starts[i], ends[i] = tonumber(offsets[2 * i - 2]), tonumber(offsets[2 * i - 1])
    end
    return starts, ends
end

function Engine:decode(ids, flags)
    local n, size = #ids, self:size()
    local list = ffi.new("int32_t[?]", n)
    for i = 1, n do
        local id = ids[i]
        if type(id) ~= "number" or id % 1 ~= 0 or id < 0 or id >= size then
            err.raise("data", "decode: ids[%d] is %s, not a token id in 0..%d", i, tostring(id), size - 1)
        end
        list[i - 1] = id
    end
    check(C.am_tokenizer_decode(self.handle, list, n, flags, text_box, bytes_box))
    return ffi.string(text_box[0], bytes_box[0])
end

function Engine:json()
    check(C.am_tokenizer_to_json(self.handle, text_box, bytes_box))
    return ffi.string(text_box[0], bytes_box[0])
end

-- ---------------------------------------------------------------- the tokenizer

---@class am.Tokenizer
---@field bos_token string? and eos_token, unk_token, pad_token, sep_token, cls_token, mask_token
---@field bos_token_id integer? and the others' ids
---@field chat_template string|table|nil the source, or sources by name
---@field add_bos_token boolean whether tokenizer_config.json says so; encode does what tokenizer.json says
---@field model_max_length number? of tokenizer_config.json
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

--- Ids of a text, as an array. opts.add_special_tokens (default true): put around it what the
--- tokenizer's post-processor says. opts.return_offsets: a second array of { first, last } with
--- text:sub(first, last) being what each id came from (empty for added ids).
function Tokenizer:encode(text, opts)
    check_text(text)
    local ids = self.engine:encode(text, not opts or opts.add_special_tokens ~= false)
    if not (opts and opts.return_offsets) then
        return ids
    end
    local starts, ends = self.engine:offsets()
    local ranges = {}
    for i = 1, #ids do
        ranges[i] = { starts[i] + 1, ends[i] }
    end
    return ids, ranges
end

--- Text of ids (an array, or one id). opts.skip_special_tokens (default false); opts.errors: "replace"
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

--- All that ids depend on, as text: the tokenizer, its special tokens and chat templates. For the keys of
--- caches.
function Tokenizer:content()
    return json.encode({ special = self.description.special, templates = self.description.templates or {},
                         chat_template = self.chat_template or {} }, { sort_keys = true }) .. self.engine:json()
end

--- Write tokenizer.json, tokenizer_config.json and special_tokens_map.json into a directory.
function Tokenizer:save_pretrained(dir)
    files.write(dir, self.description, self.engine:json())
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
    local text, spans = render(self.compiled, vars, opts.return_assistant_tokens_mask)
    if opts.tokenize == false then
        return text
    end
    local ids = self.engine:encode(text, false)
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
