-- Tokenizers as the key-values of a GGUF file: read back, they give the same ids; and what cannot be written.

local files = require("tests.support.files")
local io_core = require("am.core.io")
local json = require("am.utils.json")
local path = require("am.utils.path")
local tiny = require("tests.support.tiny")
local AutoTokenizer = require("am.tokenizers").AutoTokenizer

local GOLDEN = "tests/parity/golden/tokenizers/"

-- GGUF's key-values as JSON for the engine's writer.
local function metadata_json(values)
    local object, order = {}, {}
    for _, item in ipairs(values) do
        order[#order + 1] = item[1]
        object[item[1]] = { [item[2]] = type(item[3]) == "table" and json.array(item[3]) or item[3] }
    end
    return json.encode(json.object(object, order), { ascii = false })
end

local function by_key(values)
    local out = {}
    for _, item in ipairs(values) do
        out[item[1]] = item[3]
    end
    return out
end

-- fn(tokenizer) of a folder with this tokenizer.json and tokenizer_config.json (tables).
local function with_tokenizer(root, config, fn)
    files.with_folder(function(dir)
        path.write_file(path.join(dir, "tokenizer.json"), json.encode(root))
        path.write_file(path.join(dir, "tokenizer_config.json"), json.encode(json.object(config)))
        fn(AutoTokenizer.from_pretrained(dir))
    end)
end

local function golden(name)
    return json.decode(assert(path.read_file(GOLDEN .. name .. "/tokenizer.json")), { ordered = true })
end

local function added(id, content, special)
    return { id = id, content = content, special = special, lstrip = false, rstrip = false, normalized = false,
             single_word = false }
end

-- SentencePiece's BPE as Llama 2's tokenizer.json has it.
local function sentencepiece(changes)
    local vocab = { ["<unk>"] = 0, ["<s>"] = 1, ["</s>"] = 2, ["<0x0A>"] = 3, ["▁"] = 4, a = 5, b = 6, ["▁a"] = 7,
                    ab = 8, ["▁ab"] = 9 }
    local root = {
        version = "1.0", truncation = json.null, padding = json.null,
        added_tokens = json.array {
            added(0, "<unk>", true),
            added(1, "<s>", true),
            added(2, "</s>", true),
            added(10, "▁▁", false),
        },
        normalizer = { type = "Sequence", normalizers = json.array {
            { type = "Prepend", prepend = "▁" }, { type = "Replace", pattern = { String = " " }, content = "▁" } } },
        pre_tokenizer = json.null, post_processor = json.null, decoder = json.null,
        model = { type = "BPE", dropout = json.null, unk_token = "<unk>", continuing_subword_prefix = json.null,
                  end_of_word_suffix = json.null, fuse_unk = true, byte_fallback = true, vocab = vocab,
                  merges = json.array { "▁ a", "a b", "▁a b", "▁ ab" } },
    }
    for key, value in pairs(changes or {}) do
        root[key] = value
    end
    return root
end

describe("a tokenizer's GGUF metadata", function()
    for _, name in ipairs { "smollm2", "llama3", "qwen2" } do
        it("says what tokenizer.json says: " .. name, function()
            files.with_folder(function(dir)
                local root, file = golden(name), path.join(dir, "x.gguf")
                for i = #root.added_tokens, 1, -1 do
                    local token = root.added_tokens[i]
                    if not token.special then
                        table.remove(root.added_tokens, i)
                    end
                    -- flags that GGUF does not have
                    token.lstrip, token.rstrip, token.single_word, token.normalized = false, false, false, false
                end
                path.write_file(path.join(dir, "tokenizer.json"), json.encode(root))
                local tok = AutoTokenizer.from_pretrained(dir)
                local values = tok:gguf_metadata(tok.vocab_size + 2)
                table.insert(values, 1, { "general.architecture", "string", "llama" })
                local writer = io_core.gguf_writer(file, metadata_json(values), {})
                writer:commit()
                writer:close()
                local back = AutoTokenizer.from_pretrained(file)
                assert.equal(tok.vocab_size + 2, back.vocab_size)
                assert.same(tok.chat_template, back.chat_template)
                local cases = json.decode(assert(path.read_file(GOLDEN .. name .. ".json"))).encode
                assert.is_true(#cases > 20)
                for _, case in ipairs(cases) do
                    assert.same(tok:encode(case.text), back:encode(case.text))
                end
            end)
        end)
    end

    it("has kinds of tokens, and padding up to the model's rows", function()
        local tok = AutoTokenizer.from_pretrained(GOLDEN .. "smollm2")
        local meta = by_key(tok:gguf_metadata(tok.vocab_size + 1))
        assert.equal("gpt2", meta["tokenizer.ggml.model"])
        assert.equal("smollm", meta["tokenizer.ggml.pre"])
        local tokens, kinds = meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.token_type"]
        assert.same({ "[PAD" .. tok.vocab_size .. "]", 5 }, { tokens[#tokens], kinds[#kinds] })
        for id = 0, tok.vocab_size - 1 do
            assert.equal(tok.engine:is_special(id) and 3 or 1, kinds[id + 1])
        end
        tiny.raised("format", { "embeddings of 5" }, tok.gguf_metadata, tok, 5)
    end)

    it("says what encode puts around a text", function()
        local tok = AutoTokenizer.from_pretrained(GOLDEN .. "llama3")
        assert.is_true(by_key(tok:gguf_metadata(tok.vocab_size))["tokenizer.ggml.add_bos_token"])
        tok = AutoTokenizer.from_pretrained(GOLDEN .. "smollm2")
        local meta = by_key(tok:gguf_metadata(tok.vocab_size))
        assert.same({ false, false }, { meta["tokenizer.ggml.add_bos_token"], meta["tokenizer.ggml.add_eos_token"] })
    end)

    it("is SentencePiece's where bytes fall back: scores by the rank of merges", function()
        with_tokenizer(sentencepiece(), { unk_token = "<unk>", bos_token = "<s>", chat_template = json.array {
            { name = "default", template = "d" }, { name = "tool_use", template = "t" } } }, function(tok)
            local meta = by_key(tok:gguf_metadata(11))
            assert.equal("llama", meta["tokenizer.ggml.model"])
            assert.same({ 2, 3, 3, 6, 1, 1, 1, 1, 1, 1, 4 }, meta["tokenizer.ggml.token_type"])
            assert.same({ -5, -5, -5, -5, -5, -5, -5, -1, -2, -3, -5 }, meta["tokenizer.ggml.scores"])
            assert.equal("  ", meta["tokenizer.ggml.tokens"][11])
            assert.same({ 1, 0 }, { meta["tokenizer.ggml.bos_token_id"], meta["tokenizer.ggml.unknown_token_id"] })
            assert.is_true(meta["tokenizer.ggml.add_space_prefix"])
            assert.equal("d", meta["tokenizer.chat_template"])
            assert.equal("t", meta["tokenizer.chat_template.tool_use"])
            assert.same({ "tool_use" }, meta["tokenizer.chat_templates"])
        end)
        local bare = { type = "Replace", pattern = { String = " " }, content = "▁" }
        with_tokenizer(sentencepiece { normalizer = bare }, {},
            function(tok) assert.is_false(by_key(tok:gguf_metadata(11))["tokenizer.ggml.add_space_prefix"]) end)
    end)

    it("refuses what llama.cpp has no name for", function()
        local root = golden("llama3")
        root.pre_tokenizer.pretokenizers[1].pattern.Regex = "a+"
        with_tokenizer(root, {}, function(tok)
            tiny.raised("unsupported", { "Split:a+ ByteLevel" }, tok.gguf_metadata, tok, 1e6)
        end)
        with_tokenizer(golden("gpt2"), {}, function(tok) -- a space before each text
            tiny.raised("unsupported", { "Space ByteLevel" }, tok.gguf_metadata, tok, 1e6)
        end)
        root = golden("smollm2")
        root.model = { type = "WordLevel", vocab = { a = 0 }, unk_token = "a" }
        root.added_tokens = json.array {}
        files.with_folder(function(dir)
            path.write_file(path.join(dir, "tokenizer.json"), json.encode(root))
            local known, tok = pcall(AutoTokenizer.from_pretrained, dir)
            if known then
                tiny.raised("unsupported", { "WordLevel" }, tok.gguf_metadata, tok, 1)
            end
        end)
    end)
end)
