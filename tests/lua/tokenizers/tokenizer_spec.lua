-- am.tokenizers against transformers (goldens.json, made by make_goldens.py) and tokenizers (the goldens
-- of tests/parity), its files, its errors.

local AutoTokenizer = require("am.tokenizers").AutoTokenizer
local chat = require("am.chat")
local err = require("am.core.error")
local json = require("am.utils.json")
local path = require("am.utils.path")

local GOLDEN = "tests/parity/golden/tokenizers/"

local folder

local function read(file)
    return assert(path.read_file(file))
end

-- A directory with these files, and a tokenizer.json unless told otherwise.
local function directory(files, tokenizer)
    local dir = path.unique(path.join(folder, "d"))
    path.mkdir_p(path.join(dir, "chat_templates"))
    if tokenizer ~= false then
        path.write_file(path.join(dir, "tokenizer.json"), tokenizer or read(GOLDEN .. "smollm2/tokenizer.json"))
    end
    for name, text in pairs(files or {}) do
        path.write_file(path.join(dir, name), text)
    end
    return dir
end

local function load(files, tokenizer)
    return AutoTokenizer.from_pretrained(directory(files, tokenizer), { chat = chat })
end

local function fails(code, pattern, fn, ...)
    local ok, e = pcall(fn, ...)
    assert.is_false(ok, "no error")
    assert.is_true(err.is(e), "not an error object: " .. tostring(e))
    assert.equal(code, e.code)
    assert.is_truthy(e.msg:find(pattern, 1, true), e.msg)
end

local function plain(t) -- without JSON's marks, for assert.same
    if type(t) ~= "table" then
        return t
    end
    local out = {}
    for k, v in pairs(t) do
        out[k] = plain(v)
    end
    return out
end

setup(function()
    folder = path.unique("/tmp/amlua-tokenizers")
    path.mkdir_p(folder)
end)

teardown(function()
    path.remove_tree(folder)
end)

describe("tokenizer", function()
    for _, name in ipairs { "smollm2", "gpt2", "llama3", "qwen2" } do
        it("encodes and decodes as Hugging Face's: " .. name, function()
            local tok = AutoTokenizer.from_pretrained(GOLDEN .. name)
            local golden = json.decode(read(GOLDEN .. name .. ".json"))
            assert.is_true(#golden.encode > 100 and #golden.decode > 10)
            for _, case in ipairs(golden.encode) do
                assert.same(plain(case.ids), tok:encode(case.text))
                assert.same(plain(case.ids_plain), tok:encode(case.text, { add_special_tokens = false }))
                assert.equal(case.decoded, tok:decode(case.ids))
                assert.equal(case.decoded_skip, tok:decode(case.ids, { skip_special_tokens = true }))
            end
            for _, case in ipairs(golden.decode) do
                assert.equal(case.decoded, tok:decode(case.ids))
            end
        end)
    end

    it("says where each id came from", function()
        local tok = AutoTokenizer.from_pretrained(GOLDEN .. "llama3")
        local text = "caf\195\169 <|eot_id|>x"
        local ids, ranges = tok:encode(text, { return_offsets = true })
        assert.equal("<|begin_of_text|>", tok:convert_ids_to_tokens(ids[1]))
        assert.equal("", text:sub(unpack(ranges[1])))
        local seen = {}
        for i = 2, #ids do
            seen[#seen + 1] = text:sub(unpack(ranges[i]))
        end
        assert.same({ "x", "<|eot_id|>" }, { seen[#seen], seen[#seen - 1] })
        assert.equal("c", seen[1]:sub(1, 1))
    end)

    it("gives bytes that are no text back when asked", function()
        local tok = AutoTokenizer.from_pretrained(GOLDEN .. "llama3")
        local ids = tok:encode("a\226\130 b", { add_special_tokens = false })
        assert.equal("a\226\130 b", tok:decode(ids, { errors = "keep" }))
        assert.equal("a\239\191\189 b", tok:decode(ids))
    end)

    it("converts tokens and ids", function()
        local tok = load { ["tokenizer_config.json"] = '{"unk_token": "<|endoftext|>"}' }
        assert.equal(2, tok:convert_tokens_to_ids("<|im_end|>"))
        assert.same({ 1, 0 }, tok:convert_tokens_to_ids { "<|im_start|>", "not a token" })
        assert.same({ "<|im_start|>", "<|im_end|>" }, tok:convert_ids_to_tokens { 1, 2 })
        assert.equal("<|im_end|>", tok:decode(2))
        assert.equal("", tok:decode {})
        assert.equal("<|im_end|>", tok:decode { 49152, 2, 2 ^ 31 - 1 }) -- a model's table may be longer
        assert.equal(tok.vocab_size, tok:len())
        local bare = load()
        fails("data", "not a token", bare.convert_tokens_to_ids, bare, "not a token")
        fails("data", "49152", bare.convert_ids_to_tokens, bare, 49152)
        fails("data", "-1", bare.convert_ids_to_tokens, bare, -1)
        fails("data", "1.5", bare.convert_ids_to_tokens, bare, 1.5)
    end)

    it("refuses what is no text and no ids", function()
        local tok = load()
        fails("usage", "nil", tok.encode, tok, nil)
        fails("usage", "table", tok.encode, tok, {})
        fails("usage", "string", tok.decode, tok, "abc")
        fails("data", "ids[2] is -1", tok.decode, tok, { 1, -1 })
        fails("data", "ids[1] is 0.5", tok.decode, tok, { 0.5 })
        fails("data", "ids[1] is x", tok.decode, tok, { "x" })
        fails("data", "ids[1]", tok.decode, tok, { 2 ^ 40 })
        fails("usage", "errors", tok.decode, tok, { 1 }, { errors = "ignore" })
    end)
end)

describe("tokenizer files", function()
    local goldens = json.decode(read("tests/lua/tokenizers/goldens.json"))
    for name, case in pairs(goldens.cases) do
        -- Loaded from there, and from what is saved of it.
        local function check(tok)
            assert.equal(case.len, tok:len())
            for _, key in ipairs { "bos_token", "eos_token", "unk_token", "pad_token" } do
                assert.equal(case.special[key], tok[key])
                assert.equal(case.special_ids[key], tok[key .. "_id"])
            end
            assert.same(plain(case.ids), tok:encode(goldens.text))
            assert.same(plain(case.ids_plain), tok:encode(goldens.text, { add_special_tokens = false }))
            assert.equal(case.decoded, tok:decode(case.ids))
            assert.equal(case.decoded_skip, tok:decode(case.ids, { skip_special_tokens = true }))
            if not case.chat then
                assert.is_nil(tok.chat_template)
                fails("usage", "no chat template", tok.apply_chat_template, tok, goldens.talk)
                return
            end
            local talk = goldens.talk
            assert.same(plain(case.chat), tok:apply_chat_template(talk))
            assert.equal(case.chat_text, tok:apply_chat_template(talk, { tokenize = false }))
            assert.same(plain(case.chat_prompt),
                tok:apply_chat_template({ talk[1], talk[2], talk[3] }, { add_generation_prompt = true }))
            assert.equal(case.chat_tools, tok:apply_chat_template({ talk[1] },
                { tools = { { name = "f" } }, flavour = "sweet", tokenize = false }))
            if case.mask then
                local out = tok:apply_chat_template(talk, { return_dict = true, return_assistant_tokens_mask = true })
                assert.same(plain(case.chat), out.input_ids)
                assert.same(plain(case.mask), out.assistant_masks)
                assert.equal(#out.input_ids, #out.attention_mask)
            end
        end

        it("are read and written as transformers does: " .. name, function()
            local tok = load(case.files)
            check(tok)
            local saved = path.join(folder, "saved-" .. name)
            tok:save_pretrained(saved)
            check(AutoTokenizer.from_pretrained(saved, { chat = chat }))
            local config = json.decode(read(path.join(saved, "tokenizer_config.json")))
            assert.equal("PreTrainedTokenizerFast", config.tokenizer_class)
            assert.equal("table", type(json.decode(read(path.join(saved, "special_tokens_map.json")))))
        end)
    end

    it("keep values they do not use, and their order", function()
        local dir = directory { ["tokenizer_config.json"] =
            '{"zeta": [1, {}], "model_max_length": 1000000000000000019884624838656, "alpha": 1.0, '
            .. '"tokenizer_class": "TokenizersBackend"}' }
        AutoTokenizer.from_pretrained(dir):save_pretrained(dir)
        assert.equal('{"zeta":[1,{}],"model_max_length":1000000000000000019884624838656,"alpha":1.0,'
            .. '"tokenizer_class":"PreTrainedTokenizerFast"}',
            (read(path.join(dir, "tokenizer_config.json")):gsub("%s+", "")))
    end)

    it("are saved with the chat template that was set since", function()
        local tok = load { ["tokenizer_config.json"] = json.encode { chat_template = "old" } }
        tok.chat_template = "new"
        local dir = path.join(folder, "saved-template")
        tok:save_pretrained(dir)
        assert.equal("new", AutoTokenizer.from_pretrained(dir).chat_template)
    end)

    it("name a template among several", function()
        local tok = load { ["tokenizer_config.json"] = json.encode { chat_template = {
            { name = "a", template = "A{{ messages[0].content }}" }, { name = "b", template = "B" } } } }
        local talk = { { role = "user", content = "x" } }
        assert.equal("Ax", tok:apply_chat_template(talk, { chat_template = "a", tokenize = false }))
        assert.equal("C", tok:apply_chat_template(talk, { chat_template = "C", tokenize = false }))
        fails("usage", "(a, b)", tok.apply_chat_template, tok, talk)
    end)

    it("are refused by name when they are damaged", function()
        local function refused(code, pattern, files, tokenizer)
            fails(code, pattern, load, files, tokenizer)
        end
        refused("format", "tokenizer.json is missing", {}, false)
        refused("format", "tokenizer.json", {}, "{")
        refused("unsupported", "WordLevel", {}, '{"model": {"type": "WordLevel"}}')
        refused("format", "tokenizer_config.json", { ["tokenizer_config.json"] = "{" })
        refused("format", "tokenizer_config.json", { ["tokenizer_config.json"] = "[]" })
        refused("format", "special_tokens_map.json", { ["special_tokens_map.json"] = "3" })
        refused("format", "tokenizer_config.json: bos_token", { ["tokenizer_config.json"] = '{"bos_token": 3}' })
        refused("format", "pad_token", { ["special_tokens_map.json"] = '{"pad_token": {"x": 1}}' })
        refused("format", "chat_template is neither", { ["tokenizer_config.json"] = '{"chat_template": 3}' })
        refused("format", "chat_template[1]", { ["tokenizer_config.json"] = '{"chat_template": [{"name": "a"}]}' })
        refused("format", "no id", { ["tokenizer_config.json"] = '{"added_tokens_decoder": {"x": "y"}}' })
        refused("format", "added_tokens_decoder.7",
            { ["tokenizer_config.json"] = '{"added_tokens_decoder": {"7": 1}}' })
        refused("format", "additional_special_tokens[2]",
            { ["tokenizer_config.json"] = '{"additional_special_tokens": ["a", 1]}' })
        fails("io", "does not exist", AutoTokenizer.from_pretrained, path.join(folder, "nothing"))
        fails("usage", "nil", AutoTokenizer.from_pretrained, nil)
        fails("format", "", AutoTokenizer.from_pretrained, "tests/lua/tokenizers/goldens.json")
        fails("format", "safetensors", AutoTokenizer.from_pretrained, "tests/c/data/io/types.safetensors")
        fails("format", "tokenizer.ggml.model", AutoTokenizer.from_pretrained, "tests/c/data/io/types.gguf")
    end)
end)

describe("tokenizer formats", function()
    local FORMATS = GOLDEN .. "formats/"
    local goldens = json.decode(read(FORMATS .. "formats.json"))

    local function cases(name)
        for _, row in ipairs(goldens) do
            if row.file == name then
                return row.cases
            end
        end
    end

    local function check(tok, name, what)
        for _, case in ipairs(cases(name)) do
            local ids = tok:encode(case.text, { add_special_tokens = false })
            assert.same(plain(case.ids), ids, what .. ": " .. case.text)
        end
    end

    -- The files by themselves in a directory, and what is saved of them.
    for name, as in pairs { ["bpe.model"] = "tokenizer.model", ["unigram.model"] = "tokenizer.model",
                            ["small.tiktoken"] = "small.tiktoken", ["tekken.json"] = "tekken.json" } do
        it("are found in a directory: " .. name, function()
            local tok = load({ [as] = read(FORMATS .. name) }, false)
            check(tok, name, name)
            local dir = path.join(folder, "saved-" .. name)
            tok:save_pretrained(dir)
            check(AutoTokenizer.from_pretrained(dir), name, "saved " .. name)
        end)
    end

    it("put a beginning token where tokenizer_config.json does not say otherwise", function()
        local bpe = read(FORMATS .. "bpe.model")
        assert.equal(1, load({ ["tokenizer.model"] = bpe }, false):encode("the")[1])
        local bare = load({ ["tokenizer.model"] = bpe, ["tokenizer_config.json"] = '{"add_bos_token": false}' }, false)
        assert.same(bare:encode("the", { add_special_tokens = false }), bare:encode("the"))
        local both = load({ ["tokenizer.model"] = bpe, ["tokenizer_config.json"] =
            '{"add_bos_token": true, "add_eos_token": true, "bos_token": "<s>", "eos_token": "</s>"}' }, false)
        local ids = both:encode("the")
        assert.same({ 1, 2 }, { ids[1], ids[#ids] })
    end)

    it("take tokenizer.json first", function()
        assert.equal("<|im_end|>", load { ["tokenizer.model"] = read(FORMATS .. "bpe.model") }:convert_ids_to_tokens(2))
    end)

    it("read vocab.txt as BERT's, and refuse a word twice", function()
        local tok = load({ ["vocab.txt"] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\nthe\n##n\ncafe\n!\n" }, false)
        local ids = tok:encode("then Caf\195\169! x")
        assert.same({ 2, 4, 5, 6, 7, 1, 3 }, ids)
        assert.equal("[CLS] then cafe! [UNK] [SEP]", tok:decode(ids))
        fails("format", "line 3 repeats line 1", load, { ["vocab.txt"] = "[UNK]\n[CLS]\n[UNK]\n" }, false)
        fails("format", "lacks the token '[SEP]'", load, { ["vocab.txt"] = "[UNK]\n[CLS]\n" }, false)
    end)

    it("read vocab.json with merges.txt", function()
        local files = { ["vocab.json"] = '{"a": 0, "b": 1, "ab": 2, "\\u0120": 3}',
                        ["merges.txt"] = "#version: 0.2\na b\n" }
        assert.same({ 2, 3, 1 }, load(files, false):encode("ab b"))
        files["tokenizer_config.json"] = '{"tokenizer_class": "Qwen2Tokenizer"}'
        assert.same({ 2, 3, 1 }, load(files, false):encode("ab b"))
    end)

    it("are refused by the file's name", function()
        fails("format", "tokenizer.model", load, { ["tokenizer.model"] = "\10\127" }, false)
        fails("format", "tekken.json", load, { ["tekken.json"] = "{" }, false)
        fails("format", "tiktoken", load, { ["a.tiktoken"] = "x" }, false)
    end)
end)

describe("batches", function()
    local function smollm2(config)
        return load { ["tokenizer_config.json"] = config or '{"pad_token": "<|im_end|>"}' }
    end

    it("give the ids of one by one", function()
        local tok, texts = smollm2(), {}
        for i = 1, 100 do
            texts[i] = ("text %d "):format(i):rep(i % 7)
        end
        local rows = tok:encode_batch(texts)
        for i, text in ipairs(texts) do
            assert.same(tok:encode(text), rows[i])
        end
        assert.same({}, tok:encode_batch {})
        fails("usage", "texts[2] is a number", tok.encode_batch, tok, { "a", 1 })
        fails("usage", "array of texts", tok.encode_batch, tok, "a")
    end)

    it("are padded and cut as transformers does", function()
        local tok = smollm2()
        local pad = tok.pad_token_id
        local rows, masks = tok:encode_batch({ "a b c", "a" }, { padding = true })
        assert.same({ 3, 3 }, { #rows[1], #rows[2] })
        assert.same({ rows[1][1], pad, pad }, rows[2])
        assert.same({ { 1, 1, 1 }, { 1, 0, 0 } }, masks)
        rows = tok:encode_batch({ "a b c", "a" }, { padding = true, pad_to_multiple_of = 8 })
        assert.same({ 8, 8 }, { #rows[1], #rows[2] })
        rows = tok:encode_batch({ "a b c" }, { truncation = true, max_length = 2 })
        assert.same({ { unpack(tok:encode("a b c"), 1, 2) } }, rows)
        local left = smollm2('{"pad_token": "<|im_end|>", "padding_side": "left", "truncation_side": "left"}')
        rows, masks = left:encode_batch({ "a b c", "a" }, { padding = "max_length", max_length = 4 })
        assert.same({ pad, pad, pad, rows[1][2] }, rows[2])
        assert.same({ 0, 0, 0, 1 }, masks[2])
        assert.same({ unpack(tok:encode("a b c"), 2, 3) }, left:encode("a b c", { truncation = true, max_length = 2 }))
        fails("usage", "no pad_token", smollm2("{}").encode_batch, smollm2("{}"), { "a" }, { padding = true })
        fails("usage", "padding is true", tok.encode_batch, tok, { "a" }, { padding = "all" })
        fails("usage", "max_length", tok.encode, tok, "a", { truncation = true, max_length = -1 })
    end)

    it("keep what goes around a text when it is cut", function()
        local tok = load({ ["tokenizer.model"] = read(GOLDEN .. "formats/bpe.model") }, false)
        local text = "the thing in the word"
        local whole = tok:encode(text)
        assert.same({ unpack(whole, 1, 3) }, tok:encode(text, { truncation = true, max_length = 3 }))
        assert.equal(1, whole[1])
        fails("usage", "1 special tokens", tok.encode, tok, "the thing", { truncation = true, max_length = 0 })
    end)
end)

describe("chat template", function()
    local config = { ["tokenizer_config.json"] = json.encode {
        chat_template = "{% for m in messages %}{{ m.keys() | list }}{% endfor %}" } }
    local talk = { { role = "user", content = "x" } }

    it("does not show null fields", function()
        local tok = load(config)
        local text = tok:apply_chat_template({
            { role = "user", content = "x", tool_calls = json.null }, json.decode('{"role": "u", "content": null}'),
        }, { tokenize = false })
        assert.equal("['content', 'role']['role']", text)
    end)

    it("needs an engine, and uses the one it is given", function()
        local dir = directory(config)
        local alone = AutoTokenizer.from_pretrained(dir)
        fails("usage", "am.chat", alone.apply_chat_template, alone, talk)
        local seen
        local stub = { compile = function(source)
            return { render = function(_, vars)
                seen = { source = source, vars = vars }
                return "x", {}
            end }
        end }
        local tok = AutoTokenizer.from_pretrained(dir, { chat = stub })
        assert.same(tok:encode("x"), tok:apply_chat_template(talk, { enable_thinking = false }))
        assert.equal(tok.chat_template, seen.source)
        assert.is_false(seen.vars.enable_thinking)
        assert.same(talk, seen.vars.messages)
    end)

    it("refuses options it would have to ignore", function()
        local tok = load(config)
        fails("unsupported", "max_length", tok.apply_chat_template, tok, talk, { max_length = 9 })
        fails("usage", "continue_final_message", tok.apply_chat_template, tok, talk,
            { continue_final_message = true, add_generation_prompt = true })
        fails("usage", "continue_final_message", tok.apply_chat_template, tok, talk,
            { continue_final_message = true, return_dict = true, return_assistant_tokens_mask = true })
        fails("usage", "return_dict", tok.apply_chat_template, tok, talk, { return_assistant_tokens_mask = true })
        fails("usage", "array of messages", tok.apply_chat_template, tok, "x")
        fails("data", "messages", tok.apply_chat_template, tok, { role = "user", content = "x" })
    end)
end)
