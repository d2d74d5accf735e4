-- A tokenizer as the key-values that llama.cpp reads it from: tokens and their kinds, merges or scores, the name of
-- the way text is cut (`tokenizer.ggml.pre`), special tokens, chat templates. Names and choices are those of
-- llama.cpp's converter; which pipelines of tokenizer.json they stand for is in CUTS. Reading them back is the
-- engine's work (tokenizer_gguf.c).

local err = require("am.core.error")
local json = require("am.utils.json")
local strings = require("am.utils.strings")

local M = {}

local NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

-- ---------------------------------------------------------------- how text is cut

local CL100K = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|%s| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
    .. "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
local function cased(ending, digits)
    local upper, lower = "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]", "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
    return "[^\\r\\n\\p{L}\\p{N}]?" .. upper .. "*" .. lower .. "+" .. ending .. "|[^\\r\\n\\p{L}\\p{N}]?" .. upper
        .. "+" .. lower .. "*" .. ending .. "|" .. digits .. "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+"
        .. "|\\s+(?!\\S)|\\s+"
end

-- Pre-tokenizers in a short form (see shape_of) -> tokenizer.ggml.pre; for models with ignore_merges the second.
local CUTS = {
    ["ByteLevel*"] = { "gpt-2" },
    ["Digits1 ByteLevel*"] = { "smollm" },
    ["Split:" .. CL100K:format("\\p{N}{1,3}") .. " ByteLevel"] = { "dbrx", "llama-bpe" },
    ["Split:" .. CL100K:format("\\p{N}") .. " ByteLevel"] = { "qwen2" },
    ["Split:" .. cased("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", "\\p{N}{1,3}") .. " ByteLevel"] = { "gpt-4o" },
    ["Split:" .. cased("", "\\p{N}") .. " ByteLevel"] = { "tekken", "tekken" },
    ["Punctuation ByteLevel* Digits Split:[0-9][0-9][0-9]"] = { "falcon" },
}

local function shape_of(part)
    local kind = part.type
    if kind == "Sequence" then
        local list = {}
        for i, inner in ipairs(json.is_array(part.pretokenizers) and part.pretokenizers or {}) do
            list[i] = shape_of(inner)
        end
        return table.concat(list, " ")
    elseif kind == "ByteLevel" then
        return (part.add_prefix_space and "Space " or "") .. (part.use_regex == false and "ByteLevel" or "ByteLevel*")
    elseif kind == "Digits" then
        return part.individual_digits and "Digits1" or "Digits"
    elseif kind == "Split" then
        local pattern = type(part.pattern) == "table" and (part.pattern.Regex or part.pattern.String) or ""
        return "Split:" .. pattern
    end
    return tostring(kind)
end

local function cut_name(root)
    local part = type(root.pre_tokenizer) == "table" and root.pre_tokenizer or { type = "none" }
    local names = CUTS[shape_of(part)]
    local name = names and (root.model.ignore_merges == true and names[2] or names[1])
    return name or err.raise("unsupported", "llama.cpp has no name for the tokenizer's pre-tokenizer (%s), so GGUF "
                             .. "cannot hold it", shape_of(part))
end

-- ---------------------------------------------------------------- tokens

-- Added tokens that act as control tokens though they are not marked so.
local function looks_special(text)
    return text == "<pad>" or text == "<mask>" or text == "<2mass>" or text == "[@BOS@]"
        or text:find("^<|.*|>$") or text:find("^<｜.*｜>$") or text:find("^<unused.*>$")
end

-- texts[id], kinds[id] (from 0) and how many; the vocabulary of the model, then added tokens.
local function tokens_of(root, spm)
    local texts, kinds, count = {}, {}, 0
    for text, id in pairs(root.model.vocab or {}) do
        texts[id] = text
        kinds[id] = spm and (text == root.model.unk_token and UNKNOWN or text:find("^<0x%x%x>$") and BYTE) or NORMAL
        count = math.max(count, id + 1)
    end
    for _, added in ipairs(root.added_tokens or {}) do
        local id, text = added.id, added.content
        local special = added.special or looks_special(text)
        if not (spm and kinds[id] == UNKNOWN) then
            kinds[id] = special and CONTROL or USER_DEFINED
        end
        texts[id] = special and text or text:gsub("▁", " ")
        count = math.max(count, id + 1)
    end
    return texts, kinds, count
end

-- Two parts with a space between; a space inside a part as byte-level vocabularies write it.
local function merge_text(merge)
    if type(merge) == "string" then
        return merge
    end
    return (merge[1]:gsub(" ", "Ġ")) .. " " .. (merge[2]:gsub(" ", "Ġ"))
end

-- SentencePiece's merging joins the pair that makes the token with the highest score: the rank of the first merge
-- that makes it, negated. Tokens that no merge makes come last.
local function scores_of(root, texts, count)
    local scores = {}
    for rank, merge in ipairs(root.model.merges or {}) do
        local a, b = merge[1], merge[2]
        if type(merge) == "string" then
            a, b = merge:match("^(.-) (.+)$")
        end
        local made = (a or "") .. (b or "")
        scores[made] = scores[made] or -rank
    end
    local list, last = {}, -#(root.model.merges or {}) - 1
    for id = 0, count - 1 do
        list[id + 1] = scores[texts[id]] or last
    end
    return list
end

-- Whether text gets a space before its first word, in SentencePiece's way.
local function has_prefix(root)
    local function any(part, list)
        if type(part) ~= "table" or part == json.null then
            return false
        end
        for _, inner in ipairs(part[list] or {}) do
            if any(inner, list) then
                return true
            end
        end
        return part.type == "Prepend"
            or part.type == "Metaspace" and part.prepend_scheme ~= "never" and part.add_prefix_space ~= false
    end
    return any(root.normalizer, "normalizers") or any(root.pre_tokenizer, "pretokenizers")
end

-- ---------------------------------------------------------------- the whole

local SPECIAL = { { "unk_token", "unknown_token_id" }, { "sep_token", "seperator_token_id" },
                  { "pad_token", "padding_token_id" }, { "cls_token", "cls_token_id" },
                  { "mask_token", "mask_token_id" } }

local function put_templates(put, templates)
    if not templates then
        return
    end
    local names = {}
    for _, name in ipairs(strings.sorted_keys(templates)) do
        if name == "default" then
            put("tokenizer.chat_template", "string", templates.default)
        else
            names[#names + 1] = name
            put("tokenizer.chat_template." .. name:gsub("[^%w_]", "_"), "string", templates[name])
        end
    end
    if #names > 0 then
        put("tokenizer.chat_templates", "string", names)
    end
end

-- What encode puts before and behind a text: ids, or nil.
local function around(tokenizer)
    local with, plain = tokenizer:encode("a"), tokenizer:encode("a", { add_special_tokens = false })
    local before = with[1] ~= plain[1] and with[1] or nil
    local behind = with[#with] ~= plain[#plain] and with[#with] or nil
    if #with ~= #plain + (before and 1 or 0) + (behind and 1 or 0) then
        err.raise("unsupported", "the tokenizer puts more than one token around a text, which GGUF cannot say")
    end
    return before, behind
end

-- The token that stands at one end, and the special one of that end, which must be the same.
local function end_token(which, put, id)
    if put and id and put ~= id then
        err.raise("unsupported", "the tokenizer puts token %d around a text, but its %s is %d: GGUF has one for both",
                  put, which, id)
    end
    return id or put
end

--- A list of { key, type, value } for a GGUF file of a model with `rows` embeddings. Raises
--- "unsupported" for one that llama.cpp has no name for, "format" for one of more tokens than rows.
---@param tokenizer am.Tokenizer
function M.metadata(tokenizer, rows)
    local root = assert(json.decode(tokenizer.engine:json()))
    local list, kind = {}, root.model.type
    local function put(key, type_name, value)
        if value ~= nil then
            list[#list + 1] = { key, type_name, value }
        end
    end
    if kind ~= "BPE" then
        err.raise("unsupported", "a tokenizer of type %s cannot be written to GGUF, BPE alone can", tostring(kind))
    end
    local spm = root.model.byte_fallback == true
    local texts, kinds, count = tokens_of(root, spm)
    if count > rows then
        err.raise("format", "the tokenizer has %d tokens, but the model embeddings of %d", count, rows)
    end
    local tokens, types = {}, {}
    for id = 0, rows - 1 do
        tokens[id + 1] = texts[id] or ("[PAD%d]"):format(id)
        types[id + 1] = kinds[id] or UNUSED
    end
    put("tokenizer.ggml.model", "string", spm and "llama" or "gpt2")
    put("tokenizer.ggml.pre", "string", spm and "default" or cut_name(root))
    put("tokenizer.ggml.tokens", "string", tokens)
    if spm then
        put("tokenizer.ggml.scores", "f32", scores_of(root, texts, rows))
    end
    put("tokenizer.ggml.token_type", "i32", types)
    if not spm then
        local merges = {}
        for i, merge in ipairs(root.model.merges or {}) do
            merges[i] = merge_text(merge)
        end
        put("tokenizer.ggml.merges", "string", merges)
    end
    local before, behind = around(tokenizer)
    put("tokenizer.ggml.bos_token_id", "u32", end_token("bos_token", before, tokenizer.bos_token_id))
    put("tokenizer.ggml.eos_token_id", "u32", end_token("eos_token", behind, tokenizer.eos_token_id))
    for _, pair in ipairs(SPECIAL) do
        put("tokenizer.ggml." .. pair[2], "u32", tokenizer[pair[1] .. "_id"])
    end
    put("tokenizer.ggml.add_bos_token", "bool", before ~= nil)
    put("tokenizer.ggml.add_eos_token", "bool", behind ~= nil)
    if spm then
        put("tokenizer.ggml.add_space_prefix", "bool", has_prefix(root))
    end
    put_templates(put, tokenizer.description.templates)
    return list
end

return M
