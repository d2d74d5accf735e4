-- The iterable dataset: order, repetition, exact resuming at every place, parts of a split, files of both
-- kinds of JSON, nothing read that is not needed, and what is refused.
local column_mapped = require("am.datasets.column_mapped")
local json = require("am.utils.json")
local row_stream = require("am.datasets.row_stream")
local helpers = require("tests.lua.datasets.helpers")

describe("am.datasets.column_mapped_stream", function()
    local names, tok = {}, nil

    before_each(function()
        tok = helpers.tokenizer()
    end)

    after_each(function()
        for _, name in ipairs(names) do
            os.remove(name)
        end
        names = {}
    end)

    local function file(text, extension)
        names[#names + 1] = helpers.file(text, extension)
        return names[#names]
    end

    local function line(i, answer)
        return string.format('{"q":"%d?","a":"%s"}', i, answer or "yes " .. i)
    end

    local function stream(files, more)
        local opts = { path_or_dataset_id = files, column_mapping = { question = "q", answer = "a" }, tokenizer = tok,
                       streaming = true, answer_boundary = "prefix" }
        for key, value in pairs(more or {}) do
            opts[key] = value
        end
        return column_mapped.ColumnMappedTextInstructionDataset(opts)
    end

    -- The numbers of the next rows of an iterator, as text.
    local function take(iterator, count)
        local out = {}
        for i = 1, count do
            local row = iterator:next()
            out[i] = row and tok:text(row.input_ids):match("^(%d+)") or "end"
        end
        return table.concat(out, " ")
    end

    it("gives the rows of its files in order, again and again, or once", function()
        local ds = stream { file(line(1) .. "\n\n" .. line(2) .. "\n"),
                            file("[" .. line(3) .. "," .. line(4) .. "]", "json") }
        assert.is_true(ds.is_iterable)
        assert.is_nil(ds.len)
        assert.equal("1 2 3 4 1 2 3 4 1", take(ds:iter(), 9))
        assert.equal("1 2 3 4 end", take(ds:iter { once = true }, 5))
        local it = ds:iter()
        it:next()
        assert.equal(names[1] .. " row 3", it:next().name) -- a line's number
    end)

    it("goes on from every place exactly, whatever the kind of file", function()
        local ds = stream { file(line(1) .. "\n" .. line(2, "") .. "\n" .. line(3) .. "\n"),
                            file("[" .. line(4) .. "," .. line(5) .. "]", "json") }
        local whole = take(ds:iter(), 12)
        assert.equal("1 3 4 5 1 3 4 5 1 3 4 5", whole)
        for read = 0, 8 do
            local it = ds:iter()
            take(it, read)
            local state = json.decode(json.encode(it:state_dict()))
            local other = ds:iter()
            other:load_state_dict(state)
            assert.equal(take(it, 3), take(other, 3))
        end
        local it = ds:iter()
        it:load_state_dict { pass = 0, file = 1, row = 99, read = 99, found = 1 }
        helpers.fails("state", "fewer than the 99 rows", it.next, it)
        for _, bad in ipairs { {}, { pass = 0, file = 0, row = 0, read = 0, found = 0 },
                               { pass = 0, file = 1, row = -1, read = 0, found = 0 },
                               { pass = 0, file = 1, row = 0.5, read = 0, found = 0 }, { pass = "x" } } do
            helpers.fails("format", "must be a whole number", it.load_state_dict, it, bad)
        end
    end)

    it("takes cells of a CSV file as they are written, and passes over rows without an answer", function()
        local it = stream(file("q,a\n1?,2\n2?,\n3?,4.0\n", "csv")):iter()
        assert.equal("1?| 2", tok:text(it:next().input_ids) .. "| 2")
        assert.equal(" 4.0", tok:text(it:next().labels))
        assert.equal("1?", tok:text(it:next().input_ids))
    end)

    it("takes parts and limits by numbers of rows", function()
        local lines = {}
        for i = 1, 9 do
            lines[i] = line(i)
        end
        local name = file(table.concat(lines, "\n"))
        assert.equal("1 2 1 2", take(stream(name, { limit_dataset_samples = 2 }):iter(), 4))
        assert.equal("4 5 6 4", take(stream(name, { split = "train[3:6]" }):iter(), 4))
        assert.equal("8 9 end", take(stream(name, { split = "train[7:]" }):iter { once = true }, 3))
        assert.equal("8 8", take(stream(name, { split = "train[7:]", limit_dataset_samples = 1 }):iter(), 2))
        for _, split in ipairs { "train[:10%]", "train[-1:]", "train[3:3]", "a b" } do
            helpers.fails("usage", "no part of a stream", stream, name, { split = split })
        end
    end)

    it("reads no further than it must: a bad row at the end stops nobody before", function()
        local ds = stream(file(line(1) .. "\n" .. line(2) .. "\nno\n"))
        local it = ds:iter()
        assert.equal("1 2", take(it, 2))
        helpers.fails("data", "row 3: not JSON", it.next, it)
        it = stream(file(line(1) .. "\n" .. '{"q":"x"}')):iter()
        it:next()
        helpers.fails("data", 'row 2: no column "a"', it.next, it)
    end)

    it("says when a whole pass has nothing to learn, and what it needs", function()
        local it = stream(file(line(1, "") .. "\n" .. line(2, " "))):iter()
        helpers.fails("data", "no row has a label", it.next, it)
        helpers.fails("data", "no such file", stream, "/nowhere.jsonl")
        helpers.fails("usage", "tokenizer", stream, file(line(1)), { tokenizer = false })
    end)

    it("reads lines that are longer than what it reads at once, marks and line ends of all kinds", function()
        local long = ("x"):rep(2500000)
        local name = file("\239\187\191" .. '{"a":"' .. long .. '"}\r\n  \n{"a":1}')
        local rows = row_stream.open(name)
        local row, where = rows:next()
        assert.same({ #long, name .. " row 1" }, { #row.a, where })
        row, where = rows:next()
        assert.same({ 1, name .. " row 3" }, { row.a, where })
        assert.is_nil(rows:next())
        assert.is_nil(rows:next())
        rows:close()
        rows = row_stream.open(name)
        assert.equal(1, rows:skip(1))
        assert.equal(1, rows:next().a)
        assert.equal(0, rows:skip(5))
        rows:close()
    end)
end)
