-- am.datasets.text_dataset and text_pieces: documents, rows, long documents, files that are no text.
local path = require("am.utils.path")
local text_dataset = require("am.datasets.text_dataset")
local text_pieces = require("am.datasets.text_pieces")
local helpers = require("tests.lua.datasets.helpers")

-- A tokenizer of bytes: ids are bytes + 10, with 1 at the end and, with special tokens, 2 before a text.
local function bytes()
    return { eos_token_id = 1, encode = function(_, text, opts)
        local ids = { opts.add_special_tokens and 2 or nil }
        for k = 1, #text do
            ids[#ids + 1] = text:byte(k) + 10
        end
        return ids
    end, content = function() return "bytes" end }
end

local function text_of(ids)
    local out = {}
    for k, id in ipairs(ids) do
        out[k] = id == 1 and "$" or id == 2 and "^" or string.char(id - 10)
    end
    return table.concat(out)
end

describe("am.datasets.text_dataset", function()
    local names

    before_each(function() names = {} end)
    after_each(function()
        for _, name in ipairs(names) do
            os.remove(name)
        end
    end)

    local function file(text, extension)
        names[#names + 1] = helpers.file(text, extension or "txt")
        return names[#names]
    end

    -- All of a dataset's tokens, and each row's length; every row begins with the last label of the one before.
    local function tokens(opts)
        opts.tokenizer = opts.tokenizer or bytes()
        local ds, text, lengths = text_dataset.TextDataset(opts), nil, {}
        for i = 1, ds:len() do
            local row = ds:get(i)
            assert.equal(ds:length(i), #row.input_ids)
            assert.equal(#row.input_ids, #row.labels)
            for k = 2, #row.input_ids do
                assert(row.input_ids[k] == row.labels[k - 1])
            end
            assert(not text or text:sub(-1) == text_of { row.input_ids[1] })
            text = (text or text_of { row.input_ids[1] }) .. text_of(row.labels)
            lengths[i] = #row.input_ids
        end
        return text, lengths, ds
    end

    it("makes documents of files, lines, paragraphs and what a separator parts", function()
        local a, b = "one\r\ntwo\n\n \t\nthree\n", "\239\187\191\n\nfour\n===\n\nfive==="
        for split_by, expected in pairs {
            file = "^one\r\ntwo\n\n \t\nthree\n$^\n\nfour\n===\n\nfive===$",
            line = "^one$^two$^three$^four$^===$^five===$",
            blank_line = "^one\r\ntwo$^three\n$^four\n===$^five===$",
            separator = "^one\r\ntwo\n\n \t\nthree\n$^\n\nfour\n$^\n\nfive$",
        } do
            local text, lengths = tokens { path_or_dataset_id = { file(a), file(b) }, split_by = split_by,
                                           separator = split_by == "separator" and "===" or nil, seq_length = 4 }
            assert.equal(expected, text)
            for i = 1, #lengths - 1 do
                assert.equal(4, lengths[i])
            end
            assert.equal(#expected - 1, 4 * (#lengths - 1) + lengths[#lengths])
        end
        assert.equal("^ab^c", (tokens { path_or_dataset_id = file "ab\nc\n", split_by = "line", add_eos = false }))
    end)

    it("takes a column of a CSV file as it is written", function()
        local name = file("t,n\n1.50,1\n,2\n7,3\n", "csv")
        assert.equal("^1.50$^7$", (tokens { path_or_dataset_id = name, text_column = "t" }))
    end)

    it("takes a column of JSON rows", function()
        local name = file('{"t":"ab"}\n{"t":" "}\n{"t":"c\\nd"}\n', "jsonl")
        local text, _, ds = tokens { path_or_dataset_id = name, text_column = "t", seq_length = 3 }
        assert.equal("^ab$^c\nd$", text)
        assert.same({ 3, 8, 8, 3 }, { ds:stats().rows, ds:stats().tokens, ds:stats().label_tokens,
                                      ds:stats().longest.length })
        assert.matches("jsonl row 3$", ds:name(3))
        assert.equal("^ab$^", (tokens { path_or_dataset_id = name, text_column = "t", seq_length = 2,
                                        limit_dataset_samples = 2 }))
        helpers.fails("data", "row 1: \"x\" %(dataset.text_column%) must be a text", tokens, {
            path_or_dataset_id = name, text_column = "x" })
        helpers.fails("usage", "leave split_by", tokens, {
            path_or_dataset_id = name, text_column = "t", split_by = "line" })
    end)

    it("cuts a document only where it is longer than a megabyte, and loses nothing", function()
        local line = ("x"):rep(99) .. "\n"
        for _, case in ipairs {
            { line:rep(20000), 2 }, { ("y"):rep(1500000), 2 }, { ("\195\169"):rep(700000), 2 },
            { ("word "):rep(300000), 2 }, { line:rep(9000), 1 }, { line:rep(900) .. "\n" .. line:rep(9000), 1 },
        } do
            local name = file(case[1])
            assert.equal(case[2], text_pieces.open({ name }, {}):len())
            local text = tokens { path_or_dataset_id = name, seq_length = 4096 }
            assert.equal("^" .. case[1] .. "$", text)
        end
        local paragraphs = {}
        for i = 1, 3000 do
            paragraphs[i] = ("p" .. i .. " "):rep(1 + i % 60)
        end
        local name = file(table.concat(paragraphs, "\n\n") .. "\n")
        assert(text_pieces.open({ name }, { split_by = "blank_line" }):len() > 5)
        local text = tokens { path_or_dataset_id = name, seq_length = 777, split_by = "blank_line" }
        assert.equal("^" .. table.concat(paragraphs, "$^") .. "\n$", text)
        name = file(("a\n"):rep(70000) .. ("z"):rep(1200000) .. "\n\nb")
        text = tokens { path_or_dataset_id = name, seq_length = 5000, split_by = "line" }
        assert.equal(("^a$"):rep(70000) .. "^" .. ("z"):rep(1200000) .. "$^b$", text)
    end)

    it("makes the same rows in several processes, and from a cache", function()
        local C = require("am.core.ffi").C
        local lines = {}
        for i = 1, 5000 do
            lines[i] = ("line %d "):format(i):rep(100)
        end
        local function counting() -- three ids a line, to be quick
            local tokenizer = bytes()
            function tokenizer.encode(_, text) return { 10 + #text, 10 + text:byte(6), 10 + text:byte(9) } end
            return tokenizer
        end
        local name, dir = file(table.concat(lines, "\n")), os.tmpname()
        os.remove(dir)
        local log = require("am.utils.log")
        log.setup { stream = { write = function() end } }
        local function rows(opts)
            opts.path_or_dataset_id, opts.split_by, opts.seq_length, opts.tokenizer = name, "line", 100, counting()
            local ds, out = text_dataset.TextDataset(opts), {}
            for i = 1, ds:len() do
                out[i] = table.concat(ds:get(i).labels, " ")
            end
            return out
        end
        local threads = C.am_threads()
        C.am_threads_set(1)
        local one = rows {}
        C.am_threads_set(2)
        assert.same(one, rows {})
        C.am_threads_set(threads)
        assert.same(one, rows { cache_dir = dir })
        assert.same(one, rows { cache_dir = dir })
        assert.equal(1, #path.names(dir))
        log.setup {}
        path.remove_tree(dir)
    end)

    it("says what is wrong with text and options", function()
        helpers.fails("data", "txt: byte 4 is not UTF%-8", tokens, { path_or_dataset_id = file "abc\255d" })
        helpers.fails("data", "there is no text", tokens, { path_or_dataset_id = file "" })
        helpers.fails("data", ".", tokens, { path_or_dataset_id = file " \n \n", split_by = "line" })
        helpers.fails("usage", "go together", tokens, { path_or_dataset_id = file "a", split_by = "separator" })
        helpers.fails("usage", "go together", tokens, { path_or_dataset_id = file "a", separator = "-" })
        helpers.fails("usage", "expected a tokenizer", tokens, { path_or_dataset_id = file "a", tokenizer = {} })
        helpers.fails("data", "no such file", tokens, { path_or_dataset_id = "/nowhere/x.txt" })
    end)
end)
