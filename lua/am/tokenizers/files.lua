-- The files beside tokenizer.json: tokenizer_config.json, special_tokens_map.json, chat_template.jinja,
-- chat_templates/*.jinja. Reads them into one description, and writes it the way the hub has them.
--
-- A description:
--   config     tokenizer_config.json as read, its keys in order
--   map        special_tokens_map.json as read, or nil
--   special    { bos_token = "<s>", … } names of special tokens to their text
--   templates  { default = source, NAME = source } chat templates; nil when there is none
--
-- As transformers does with a tokenizer.json: add_bos_token and add_eos_token of tokenizer_config.json
-- are not applied (the post-processor in tokenizer.json says what goes around a text), neither is
-- clean_up_tokenization_spaces (it would damage the text of a BPE tokenizer).

local err = require("am.core.error")
local json = require("am.utils.json")
local path = require("am.utils.path")

local M = {}

local MAX_CONFIG = 16 * 1024 * 1024
local NAMES = { "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token" }
local FLAGS = { "lstrip", "normalized", "rstrip", "single_word", "special" }

-- ---------------------------------------------------------------- reading

local function read_json(file)
    if not path.exists(file) then
        return nil
    end
    local text, why = path.read_file(file, MAX_CONFIG)
    if not text then
        err.raise("io", "cannot read %s: %s", file, why)
    end
    local value
    value, why = json.decode(text, { ordered = true, exact_numbers = true })
    if value == nil then
        err.raise("format", "%s is %s", file, why)
    elseif type(value) ~= "table" or value == json.null or json.is_array(value) then
        err.raise("format", "%s holds no JSON object", file)
    end
    return value
end

-- The text of a special token: a string, or a table with `content`; nil for null.
local function token_text(value, where)
    if value == nil or value == json.null then
        return nil
    elseif type(value) == "table" and type(value.content) == "string" then
        return value.content
    elseif type(value) ~= "string" then
        err.raise("format", "%s is neither a string nor an object with a string \"content\"", where)
    end
    return value
end

local function read_templates(dir, config, where)
    local templates, value = {}, config.chat_template
    if type(value) == "string" then
        templates.default = value
    elseif value ~= nil and value ~= json.null then
        if not json.is_array(value) then
            err.raise("format", "%s: chat_template is neither a string nor a list of named templates", where)
        end
        for i, item in ipairs(value) do
            if type(item) ~= "table" or type(item.name) ~= "string" or type(item.template) ~= "string" then
                err.raise("format", "%s: chat_template[%d] is no object with name and template", where, i)
            end
            templates[item.name] = item.template
        end
    end
    local function from_file(name, file)
        local text, why = path.read_file(file, MAX_CONFIG)
        if not text then
            err.raise("io", "cannot read %s: %s", file, why)
        end
        templates[name] = text
    end
    -- Template files go before what tokenizer_config.json has.
    local single, folder = path.join(dir, "chat_template.jinja"), path.join(dir, "chat_templates")
    local names = path.is_dir(folder) and path.list_dir(folder) or {}
    if path.is_file(single) or #names > 0 then
        templates = {}
    end
    if path.is_file(single) then
        from_file("default", single)
    end
    for _, name in ipairs(names) do
        if name:match("%.jinja$") then
            from_file(name:gsub("%.jinja$", ""), path.join(folder, name))
        end
    end
    return next(templates) and templates
end

--- The description of a directory.
function M.read(dir)
    local where = path.join(dir, "tokenizer_config.json")
    local config = read_json(where) or json.object()
    local map_where = path.join(dir, "special_tokens_map.json")
    local map = read_json(map_where)
    local special = {}
    for _, name in ipairs(NAMES) do
        special[name] = token_text(config[name], where .. ": " .. name)
        if config[name] == nil and map then
            special[name] = token_text(map[name], map_where .. ": " .. name)
        end
    end
    return { config = config, map = map, special = special, where = where,
             templates = read_templates(dir, config, where) }
end

--- The description of a GGUF file, from its metadata (JSON text) and the loaded engine.
function M.from_gguf(metadata, engine)
    local meta, why = json.decode(metadata)
    if not meta then
        err.raise("format", "metadata is %s", why)
    end
    local special = {}
    for name, key in pairs { bos_token = "bos_token_id", eos_token = "eos_token_id",
                             unk_token = "unknown_token_id", pad_token = "padding_token_id" } do
        local id = meta["tokenizer.ggml." .. key]
        if id ~= nil then
            special[name] = type(id) == "number" and engine:token(id)
            if not special[name] then
                err.raise("format", "tokenizer.ggml.%s names no token", key)
            end
        end
    end
    local added = json.object()
    for id = 0, engine:size() - 1 do
        if engine:is_special(id) then
            added[tostring(id)] = json.object({ content = engine:token(id), lstrip = false, normalized = false,
                                                rstrip = false, single_word = false, special = true })
        end
    end
    local length = meta[tostring(meta["general.architecture"]) .. ".context_length"]
    local config = json.object({ added_tokens_decoder = added, clean_up_tokenization_spaces = false,
                                 model_max_length = type(length) == "number" and length or nil,
                                 tokenizer_class = "PreTrainedTokenizerFast" })
    for name, text in pairs(special) do
        config[name] = text
    end
    local template = meta["tokenizer.chat_template"]
    return { config = config, special = special,
             templates = type(template) == "string" and { default = template } or nil }
end

-- ---------------------------------------------------------------- tokens only the configuration has

local function entry(content, value)
    local token = { content = content }
    for _, flag in ipairs(FLAGS) do
        token[flag] = type(value) == "table" and value[flag] == true
    end
    return token
end

-- Tokens the configuration names, in the order transformers adds them: added_tokens_decoder by id,
-- then the named special tokens, then the additional ones.
local function configured_tokens(description)
    local out, config, where = {}, description.config, description.where
    local decoder = config.added_tokens_decoder
    if type(decoder) == "table" and not json.is_array(decoder) then
        local ids = {}
        for id in pairs(decoder) do
            if not tonumber(id) then
                err.raise("format", "%s: added_tokens_decoder has the key \"%s\", which is no id", where, tostring(id))
            end
            ids[#ids + 1] = id
        end
        table.sort(ids, function(a, b) return tonumber(a) < tonumber(b) end)
        for _, id in ipairs(ids) do
            local at = where .. ": added_tokens_decoder." .. id
            out[#out + 1] = entry(token_text(decoder[id], at), decoder[id])
        end
    end
    for _, name in ipairs(NAMES) do
        local text = description.special[name]
        if text then
            local token = entry(text, config[name] or description.map and description.map[name])
            token.special = true
            out[#out + 1] = token
        end
    end
    for _, name in ipairs { "additional_special_tokens", "extra_special_tokens" } do
        local list = config[name] or description.map and description.map[name]
        for i, value in ipairs(json.is_array(list) and list or {}) do
            local token = entry(token_text(value, ("%s: %s[%d]"):format(where, name, i)), value)
            token.special = true
            out[#out + 1] = token
        end
    end
    return out
end

--- Tokens of the configuration that the engine does not have, or does not have as special.
function M.missing_tokens(description, engine)
    local out, seen = {}, {}
    for _, token in ipairs(configured_tokens(description)) do
        local id = engine:id(token.content)
        if token.content and not seen[token.content]
            and (not id or token.special and not engine:is_special(id)) then
            seen[token.content] = true
            out[#out + 1] = token
        end
    end
    return out
end

--- tokenizer.json text with these added tokens too. Slow, and seldom needed.
function M.with_tokens(text, tokens, where)
    local root, why = json.decode(text, { ordered = true, exact_numbers = true })
    if not root then
        err.raise("format", "%s is %s", where, why)
    end
    local list = json.is_array(root.added_tokens) and root.added_tokens or json.array()
    root.added_tokens = list
    for _, token in ipairs(tokens) do
        local there
        for _, old in ipairs(list) do
            if old.content == token.content then
                there = old
            end
        end
        if there then
            there.special = token.special or there.special
        else
            token.id = 0 -- the engine gives the next free one, as Hugging Face tokenizers does
            list[#list + 1] = token
        end
    end
    return json.encode(root, { separators = "compact", ascii = false })
end

-- ---------------------------------------------------------------- writing

-- Chat templates as tokenizer_config.json has them: one source, or a list of named ones.
local function template_value(templates)
    if type(templates) ~= "table" then
        return templates
    end
    local names = {}
    for name in pairs(templates) do
        names[#names + 1] = name
    end
    if #names == 1 and names[1] == "default" then
        return templates.default
    end
    table.sort(names)
    local list = json.array()
    for i, name in ipairs(names) do
        list[i] = json.object({ name = name, template = templates[name] }, { "name", "template" })
    end
    return list
end

local function write_json(file, value)
    path.write_file(file, json.encode(value, { indent = 2, ascii = false }) .. "\n")
end

--- Write tokenizer.json, tokenizer_config.json and special_tokens_map.json; chat templates (the source of one, sources
--- by name, or nil) go into the configuration, where every version of transformers reads them.
function M.write(dir, description, tokenizer_json, templates)
    path.mkdir_p(dir)
    local config = json.object({}, json.keys(description.config))
    for key, value in pairs(description.config) do
        config[key] = value
    end
    config.chat_template = template_value(templates)
    if config.tokenizer_class == nil or config.tokenizer_class == "TokenizersBackend" then
        config.tokenizer_class = "PreTrainedTokenizerFast" -- the name that older versions know too
    end
    local map = description.map
    if not map then
        map = json.object()
        for name, text in pairs(description.special) do
            map[name] = text
        end
    end
    path.write_file(path.join(dir, "tokenizer.json"), tokenizer_json)
    write_json(path.join(dir, "tokenizer_config.json"), config)
    write_json(path.join(dir, "special_tokens_map.json"), map)
end

return M
