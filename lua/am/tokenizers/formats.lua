-- Vocabularies of a directory that are no tokenizer.json: SentencePiece's tokenizer.model, tiktoken's and
-- mistral's files, vocab.json with merges.txt, vocab.txt. Chooses one and makes the engine of it.

local engine = require("am.tokenizers.engine")
local err = require("am.core.error")
local json = require("am.utils.json")
local path = require("am.utils.path")

local M = { MAX_BYTES = 256 * 1024 * 1024 }

local function read(file)
    local text, why = path.read_file(file, M.MAX_BYTES)
    return text or err.raise("io", "cannot read %s: %s", file, why)
end

-- An error of `make` with the file in front.
local function about(file, make, ...)
    local ok, result = pcall(make, ...)
    if not ok then
        error(err.is(result) and err.new(result.code, file .. ": " .. result.msg) or result, 0)
    end
    return result
end

local function flags(content, special)
    return json.object({ id = 0, content = content, single_word = false, lstrip = false, rstrip = false,
                         normalized = false, special = special })
end

-- Numbered tokens, from a first number to a last.
local function numbered(list, pattern, first, last)
    for i = first, last do
        list[#list + 1] = pattern:format(i)
    end
    return list
end

-- ---------------------------------------------------------------- tiktoken

-- What the files leave out: the encoding (how a text is cut) by the file's name, and special tokens in the order
-- of their ids, which begin behind the last rank.
local ENCODINGS = {
    qwen = { specials = numbered({ "<|endoftext|>", "<|im_start|>", "<|im_end|>" }, "<|extra_%d|>", 0, 204) },
    ["llama-bpe"] = {
        specials = numbered({ "<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>",
                              "<|reserved_special_token_1|>", "<|finetune_right_pad_id|>", "<|step_id|>",
                              "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>",
                              "<|python_tag|>" }, "<|reserved_special_token_%d|>", 2, 246),
        bos = "<|begin_of_text|>",
    },
    r50k_base = { specials = { "<|endoftext|>" } },
}

local function with_parts(text, change)
    local root = json.decode(text, { ordered = true, exact_numbers = true })
    change(root)
    return json.encode(root, { separators = "compact", ascii = false })
end

-- TemplateProcessing with these tokens ({ content, id }) before and behind.
local function template(before, after)
    local single, pair, tokens = json.array(), json.array(), json.object()
    local function put(list, token, kind)
        if token then
            list[#list + 1] = json.object { SpecialToken = json.object { id = token[1], type_id = kind } }
            tokens[token[1]] = json.object { id = token[1], ids = json.array { token[2] },
                                             tokens = json.array { token[1] } }
        end
    end
    local function sequence(list, name, kind)
        put(list, before, kind)
        list[#list + 1] = json.object { Sequence = json.object { id = name, type_id = kind } }
        put(list, after, kind)
    end
    sequence(single, "A", 0)
    sequence(pair, "A", 0)
    sequence(pair, "B", 1)
    return json.object { type = "TemplateProcessing", single = single, pair = pair, special_tokens = tokens }
end

local function tiktoken(text, name, config)
    local made = engine.engine_from_tiktoken(text, name)
    local encoding = ENCODINGS[name]
    if not encoding or config.added_tokens_decoder then
        return made
    end
    local size = made:size()
    return engine.engine_from_json(with_parts(made:json(), function(root)
        for i, content in ipairs(encoding.specials) do
            local token = flags(content, true)
            token.id = size + i - 1
            root.added_tokens[i] = token
            if content == encoding.bos then
                root.post_processor = template({ content, token.id })
            end
        end
    end))
end

-- The encoding that a file's name says; Llama 3's cut is that of most files without a telling one.
local function encoding_of(name)
    name = name:gsub("%.tiktoken$", "")
    for _, known in ipairs { "qwen", "cl100k_base", "o200k_base", "p50k_base", "r50k_base" } do
        if name == known then
            return known
        end
    end
    return "llama-bpe"
end

-- ---------------------------------------------------------------- vocab.json and merges.txt, vocab.txt

local QWEN2 = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}"
    .. "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

local function lines_of(text)
    local list = {}
    for line in (text .. "\n"):gmatch("(.-)\r?\n") do
        list[#list + 1] = line
    end
    while list[#list] == "" do
        list[#list] = nil
    end
    return list
end

local function byte_level(prefix, use_regex)
    return json.object { type = "ByteLevel", add_prefix_space = prefix, trim_offsets = true, use_regex = use_regex }
end

-- The pipeline of the slow tokenizer that tokenizer_config.json names: GPT-2's, Qwen2's or RoBERTa's.
local function from_vocab_and_merges(dir, config)
    local merges = json.array()
    for i, line in ipairs(lines_of(read(path.join(dir, "merges.txt")))) do
        if line ~= "" and not (i == 1 and line:find("^#version")) then
            merges[#merges + 1] = line
        end
    end
    local class = tostring(config.tokenizer_class or "")
    local prefix = config.add_prefix_space == true
    local root = {
        version = "1.0", added_tokens = json.array(), decoder = byte_level(true, true),
        pre_tokenizer = byte_level(prefix, true), post_processor = byte_level(prefix, true),
    }
    if class:find("Qwen2") then
        root.normalizer = json.object { type = "NFC" }
        root.pre_tokenizer = json.object { type = "Sequence", pretokenizers = json.array {
            json.object { type = "Split", pattern = json.object { Regex = QWEN2 }, behavior = "Isolated",
                          invert = false },
            byte_level(false, false) } }
    end
    local head = json.encode(json.object(root), { separators = "compact", ascii = false })
    return head:sub(1, -2) .. ',"model":{"type":"BPE","fuse_unk":false,"byte_fallback":false,"merges":'
        .. json.encode(merges, { separators = "compact", ascii = false }) .. ',"vocab":'
        .. read(path.join(dir, "vocab.json")) .. "}}"
end

local function from_vocab_txt(dir, config)
    local vocab, tokens, ids = json.object(), lines_of(read(path.join(dir, "vocab.txt"))), {}
    for i, token in ipairs(tokens) do
        if ids[token] then
            err.raise("format", "%s: line %d repeats line %d, '%s'", path.join(dir, "vocab.txt"), i, ids[token] + 1,
                token)
        end
        ids[token], vocab[token] = i - 1, i - 1
    end
    local function text_of(key)
        local value = config[key]
        return type(value) == "table" and value.content or type(value) == "string" and value
            or "[" .. key:match("^[^_]+"):upper() .. "]"
    end
    local function named(key)
        local text = text_of(key)
        return ids[text] and { text, ids[text] }
            or err.raise("format", "%s lacks the token '%s'", path.join(dir, "vocab.txt"), text)
    end
    local lower = config.do_lower_case
    local unk = named("unk_token")
    local added = json.array()
    for _, key in ipairs { "pad_token", "unk_token", "cls_token", "sep_token", "mask_token" } do
        local text = text_of(key)
        if ids[text] then
            added[#added + 1] = flags(text, true)
            added[#added].id = ids[text]
        end
    end
    return json.encode(json.object {
        version = "1.0", added_tokens = added,
        normalizer = json.object {
            type = "BertNormalizer", clean_text = true, handle_chinese_chars = config.tokenize_chinese_chars ~= false,
            strip_accents = config.strip_accents == nil and json.null or config.strip_accents,
            lowercase = lower == nil or lower == true },
        pre_tokenizer = json.object { type = "BertPreTokenizer" },
        post_processor = template(named("cls_token"), named("sep_token")),
        decoder = json.object { type = "WordPiece", prefix = "##", cleanup = true },
        model = json.object { type = "WordPiece", unk_token = unk[1], continuing_subword_prefix = "##",
                              max_input_chars_per_word = 100, vocab = vocab },
    }, { separators = "compact", ascii = false })
end

-- ---------------------------------------------------------------- choosing

-- What add_bos_token and add_eos_token of tokenizer_config.json say, where they say something.
local function go_around(made, config, special)
    if type(config.add_bos_token) ~= "boolean" and type(config.add_eos_token) ~= "boolean" then
        return made
    end
    local function token(flag, name)
        local text = config[flag] == true and special[name]
        local id = text and made:id(text)
        return id and { text, id }
    end
    local bos, eos = token("add_bos_token", "bos_token"), token("add_eos_token", "eos_token")
    return engine.engine_from_json(with_parts(made:json(), function(root)
        root.post_processor = (bos or eos) and template(bos, eos) or json.null
    end))
end

--- The engine of a directory without tokenizer.json, and the file it came from; nil where there is none.
--- `description`: what files.lua read there.
function M.engine_of(dir, description)
    local config, special = description.config, description.special
    local function there(name)
        local file = path.join(dir, name)
        return path.is_file(file) and file
    end
    local file = there("tokenizer.model")
    if file then
        local text = read(file)
        if text:find("^[%w+/=]+ %d+\r?\n") then
            return about(file, tiktoken, text, encoding_of("tokenizer.model"), config), file
        end
        return go_around(about(file, engine.engine_from_sentencepiece, text), config, special), file
    end
    file = there("tekken.json")
    if file then
        return about(file, engine.engine_from_tekken, read(file)), file
    end
    for _, name in ipairs(path.list_dir(dir)) do
        if name:find("%.tiktoken$") then
            file = path.join(dir, name)
            return about(file, tiktoken, read(file), encoding_of(name), config), file
        end
    end
    if there("vocab.json") and there("merges.txt") then
        file = path.join(dir, "vocab.json")
        return about(file, engine.engine_from_json, from_vocab_and_merges(dir, config)), file
    end
    file = there("vocab.txt")
    if file then
        return about(file, engine.engine_from_json, from_vocab_txt(dir, config)), file
    end
end

return M
