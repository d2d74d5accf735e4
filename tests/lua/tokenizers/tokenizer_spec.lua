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
        fails("data", "ids[2] is 49152", tok.decode, tok, { 1, 49152 })
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
