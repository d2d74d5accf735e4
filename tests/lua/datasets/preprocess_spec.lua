-- am.datasets.token_writers and preprocess: the original's bytes, documents of text and JSON, nothing left of
-- what fails.
local ffi = require("ffi")
local indexed_dataset = require("am.datasets.indexed_dataset")
local json = require("am.utils.json")
local nanogpt = require("am.datasets.nanogpt_dataset")
local path = require("am.utils.path")
local preprocess = require("am.datasets.preprocess")
local token_writers = require("am.datasets.token_writers")
local helpers = require("tests.lua.datasets.helpers")

local function unhex(text)
    return (text:gsub("..", function(h) return string.char(tonumber(h, 16)) end))
end

local function int32s(list)
    return ffi.new("int32_t[?]", #list, list), #list
end

-- Ids are bytes + 10; "<" is the bos 2, and the end of a document 1.
local function bytes()
    return { eos_token_id = 1, bos_token_id = 2, encode = function(_, text)
        local ids = {}
        for k = 1, #text do
            ids[k] = text:byte(k) == 60 and 2 or text:byte(k) + 10
        end
        return ids
    end }
end

describe("am.datasets.token_writers", function()
    local folder = helpers.folder(before_each, after_each)

    local function at(name) return path.join(folder, name) end

    local function read(name)
        return assert(path.read_file(at(name)))
    end

    -- The sequences of an indexed data set as texts, "$" for the eos.
    local function sequences(prefix)
        local indexed, out = indexed_dataset.open(at(prefix)), {}
        for i = 0, indexed.count - 1 do
            local ids, text = indexed:get(i, 0, indexed.lengths[i]), {}
            for k = 0, indexed.lengths[i] - 1 do
                text[k + 1] = ids[k] == 1 and "$" or ids[k] == 2 and "<" or string.char(ids[k] - 10)
            end
            out[i + 1] = table.concat(text)
        end
        indexed:close()
        return out
    end

    local function megatron(vocab_size)
        return token_writers.megatron(at "out", vocab_size or 1000)
    end

    it("writes the bytes that the original's builder does", function()
        local golden = json.decode(assert(path.read_file("tests/lua/datasets/megatron_goldens.json"))).files[1]
        local writer, token = token_writers.megatron(at "a", 65499), golden.first
        for _, n in ipairs(golden.documents) do
            local ids = {}
            for k = 1, n do
                ids[k] = k == n and 3 or token + k - 1
            end
            token = token + n
            writer:append(int32s { unpack(ids, 1, math.floor(n / 2)) })
            writer:append(int32s { unpack(ids, math.floor(n / 2) + 1) })
            writer:end_document()
        end
        local documents, tokens = writer:finish()
        assert.same({ #golden.documents, token - golden.first }, { documents, tokens })
        assert.equal(unhex(golden.idx), read "a.idx")
        assert.equal(unhex(golden.bin), read "a.bin")
        assert.same({ "a.bin", "a.idx" }, path.names(folder))
    end)

    it("writes the shards that the original's tool does", function()
        local goldens = json.decode(assert(path.read_file("tests/lua/datasets/nanogpt_goldens.json"))).shards
        for _, golden in ipairs { goldens[1], goldens[3] } do
            local data = unhex(golden.hex)
            local tokens = ffi.cast(golden.width == 2 and "const uint16_t *" or "const uint32_t *", data)
            local list, begins = {}, {}
            for k = 1, #data / golden.width do
                list[k] = tonumber(tokens[k - 1])
                if list[k] == 7 then
                    begins[#begins + 1] = k - 1
                end
            end
            local writer = token_writers.nanogpt(at(golden.name), golden.width == 2 and 65535 or 65536 * 2, 1000, 7)
            writer:append(int32s(list))
            writer:end_document()
            writer:finish()
            local text = read(golden.name .. "_000000.bin")
            assert.equal(data, text:sub(1025))
            assert.equal(ffi.string(ffi.new("int32_t[4]", { unpack(golden.head) }), 16), text:sub(1, 16))
            assert.equal(("\0"):rep(1008), text:sub(17, 1024))
            assert.equal(ffi.string((int32s(begins)), 4 * #begins), read(golden.name .. "_000000.bos.idx"))
        end
    end)

    it("cuts shards", function()
        local writer = token_writers.nanogpt(at "s", 100, 4, 9)
        for _ = 1, 3 do
            writer:append(int32s { 9, 5, 6 })
            writer:end_document()
        end
        assert.same({ 3, 9, 3 }, { writer:finish() })
        assert.same({ "s_000000.bin", "s_000000.bos.idx", "s_000001.bin", "s_000001.bos.idx", "s_000002.bin",
                      "s_000002.bos.idx" }, path.names(folder))
        assert.equal("\0\0\0\0\3\0\0\0", read "s_000000.bos.idx")
        local dataset = nanogpt.NanogptDataset { file_pattern = at "s_*.bin", seq_len = 3 }
        local iterator = dataset:iter { once = true }
        assert.same({ 9, 5, 6 }, iterator:next().input_ids)
        assert.same({ 5, 6, 9 }, iterator:next().input_ids)
        assert.is_nil(iterator:next())
    end)

    it("keeps documents of JSON rows, their sequences and what is left out", function()
        local input = helpers.file('{"text":"ab","x":"1"}\n{"text":["c","d",3],"x":"2"}\n{"text":null}\n{"text":""}\n'
            .. '{"x":"3"}\n{"text":[]}\n')
        local function run(opts)
            opts.files, opts.tokenizer, opts.writer = { input }, bytes(), megatron()
            return { preprocess.run(opts) }
        end
        assert.same({ 2, 4, 5 }, run { key = "text" })
        assert.same({ "ab", "c", "d" }, sequences "out")
        assert.same({ 2, 6, 5 }, run { key = "text", append_eod = true })
        assert.same({ "ab$", "c", "d$" }, sequences "out")
        assert.same({ 3, 3, 3 }, run { key = "x" })
        assert.same({ 2, 4, 1 }, { unpack(run { key = "text", max_tokens = 3 }, 1, 3) })
        assert.same({ 1, 2, 0 }, run { key = "text", max_tokens = 2 })
        assert.same({ "out.bin", "out.idx" }, path.names(folder))
        for key, pattern in pairs {
            texts = ' row 1: no column "texts" %(did you mean "text"%?%); it has text, x; .*%-%-json%-keys',
            empty = ' row 1: no column "empty"; it has text, x',
        } do
            helpers.fails("data", input .. pattern, run, { key = key })
        end
        os.remove(input)
        input = helpers.file('{"text":null}\n{"text":""}\n')
        helpers.fails("data", input .. ': no row has text in column "text"', run, { key = "text" })
        os.remove(input)
    end)

    it("joins a text's pieces, in one process or several", function()
        local C = require("am.core.ffi").C
        local long, parts = ("word "):rep(400000), {}
        for i = 1, 40 do
            parts[i] = ("part " .. i .. " "):rep(8000)
        end
        local input = helpers.file(long .. "\n\n" .. table.concat(parts, "\n\n") .. "\n", "txt")
        local threads, found = C.am_threads(), {}
        for count = 1, 2 do
            C.am_threads_set(count)
            preprocess.run { files = { input }, split_by = "blank_line", tokenizer = bytes(), append_eod = true,
                             writer = megatron() }
            found[count] = sequences "out"
        end
        C.am_threads_set(threads)
        os.remove(input)
        assert.equal(41, #found[1])
        assert.equal(long .. "$", found[1][1])
        assert.equal(parts[7] .. "$", found[1][8])
        assert(table.concat(found[1]) == table.concat(found[2]))
    end)

    it("puts a bos before nanogpt's documents, once", function()
        local input = helpers.file("ab\n<c\n\n", "txt")
        preprocess.run { files = { input }, split_by = "line", tokenizer = bytes(), bos = true,
                         writer = token_writers.nanogpt(at "n", 300, 100, 2) }
        os.remove(input)
        local row = nanogpt.NanogptDataset { file_pattern = at "n*.bin", seq_len = 4 }:iter():next()
        assert.same({ 2, 107, 108, 2 }, row.input_ids)
        assert.equal(109, row.labels[4])
    end)

    it("leaves nothing of what fails", function()
        local input = helpers.file("ab\255", "txt")
        local function fails(code, pattern, opts)
            opts.tokenizer = opts.tokenizer or bytes()
            helpers.fails(code, pattern, preprocess.run, opts)
            assert.same({}, path.names(folder))
        end
        fails("data", "txt: byte 3 is not UTF", { files = { input }, writer = megatron() })
        local good = helpers.file("ab", "txt")
        fails("data", "out.bin: id 107 does not fit; the vocabulary has 50", {
            files = { good }, writer = megatron(50) })
        fails("data", "id 107 does not fit", { files = { good }, writer = token_writers.nanogpt(at "n", 50, 9, 1) })
        local empty = helpers.file(" \n", "txt")
        fails("data", empty .. ": there is no text", { files = { empty }, writer = megatron() })
        fails("data", "there is no text", { files = { empty }, writer = token_writers.nanogpt(at "n", 50, 9, 1) })
        local writer = megatron()
        helpers.fails("usage", "the tokenizer has no bos_token", preprocess.run, {
            files = { good }, bos = true, tokenizer = { eos_token_id = 1 }, writer = writer,
        })
        writer:discard()
        for _, name in ipairs { input, good, empty } do
            os.remove(name)
        end
    end)
end)
