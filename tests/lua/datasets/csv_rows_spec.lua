-- am.datasets.csv_rows: rows and types are those of `datasets`; long records; what is refused.
local file_rows = require("am.datasets.file_rows")
local json = require("am.utils.json")
local path = require("am.utils.path")
local helpers = require("tests.lua.datasets.helpers")

describe("am.datasets.csv_rows", function()
    local files = {}

    local function file(text, extension)
        files[#files + 1] = helpers.file(text, extension or "csv")
        return files[#files]
    end

    after_each(function()
        for _, name in ipairs(files) do
            os.remove(name)
        end
        files = {}
    end)

    local function refused(code, pattern, text)
        helpers.fails(code, pattern, file_rows.open, file(text))
    end

    it("gives the rows of datasets", function()
        local cases = assert(json.decode(assert(path.read_file("tests/lua/datasets/csv_goldens.json"))))
        assert.is_true(#cases > 50)
        for _, case in ipairs(cases) do
            local source = file_rows.open(file(case.text, case.extension))
            assert.equal(#case.rows, source:len(), case.text)
            for i = #case.rows, 1, -1 do
                assert.equal(json.encode(case.rows[i]), json.encode(source:get(i)), case.text)
            end
            source:close()
        end
    end)

    it("numbers rows by the line that they begin on", function()
        local name = file 'a,b\n\n1,"x\n\ny"\r\n2,"\r"\n3,z\r4,q'
        local source, numbers = file_rows.open(name), {}
        for i = 1, source:len() do
            local _, number = source:place(i)
            numbers[i] = number
        end
        assert.same({ 3, 6, 8, 9 }, numbers)
        assert.equal(name .. " row 6", source:name(2))
        source:close()
    end)

    it("reads records that lie across what is read at once, and long ones", function()
        local parts = { "n,text\n" }
        for i = 1, 4000 do
            parts[i + 1] = string.format('%d,"%s"\r\n', i, ('x,\n""'):rep(i % 150))
        end
        parts[#parts + 1] = '4001,"' .. ("long "):rep(500000) .. '"\n4002,"end"'
        local source = file_rows.open(file(table.concat(parts)))
        assert.equal(4002, source:len())
        for _, i in ipairs { 1, 4002, 2000, 3999, 4001, 149, 150, 4000, 2 } do
            local row = source:get(i)
            assert.equal(i, row.n)
            local expected = i <= 4000 and ('x,\n"'):rep(i % 150) or i == 4001 and ("long "):rep(500000) or "end"
            assert.equal(expected ~= "" and expected or json.null, row.text)
        end
        source:close()
    end)

    it("reads the columns that are asked for", function()
        local name = file "a,b,c\n1,2,x\n"
        local source = file_rows.open(name, { columns = { "c", "a" } })
        assert.same({ a = 1, c = "x" }, source:get(1))
        source:close()
        helpers.fails("data", 'no column "answer"; it has a, b, c', file_rows.open, name, { columns = { "answer" } })
    end)

    it("leaves text as it is written where text is asked for", function()
        local source = file_rows.open(file "a,b,c\n1.50,2.50,True\n,NA,x\n", { texts = { "a", "c", "d" } })
        assert.same({ a = "1.50", b = 2.5, c = "True" }, source:get(1))
        assert.same({ a = json.null, b = json.null, c = "x" }, source:get(2))
        source:close()
    end)

    it("refuses what is damaged, with file and line", function()
        refused("data", "row 4: 3 fields, but the header has 2", "a,b\n1,2\n\n1,2,3\n")
        refused("data", "row 2: 3 fields, but the header has 2", "a,b\n1,2,\n3,4,\n")
        refused("data", "row 3: a quote has no end", 'a\n1\n"x\n2\n')
        refused("data", "no header row", "")
        refused("data", "no header row", " \n\n")
        refused("data", "no rows", "a,b\n")
        refused("data", "the name of column 2 is not UTF%-8", "a,\255\n1,2\n")
        local source = file_rows.open(file "a\nx\n\255y\n")
        assert.equal("x", source:get(1).a)
        helpers.fails("data", "row 3: byte 1 is not UTF%-8", source.get, source, 2)
        source:close()
    end)

    it("notices a file that shrank", function()
        local name = file "a\n1\n2\n"
        local source = file_rows.open(name)
        local out = assert(io.open(name, "wb"))
        out:write("a\n1\n")
        out:close()
        helpers.fails("io", "the file was changed meanwhile", source.get, source, 2)
        source:close()
    end)
end)
