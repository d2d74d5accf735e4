-- am.datasets.json_rows: both layouts, row numbers, and damaged files.
local file_rows = require("am.datasets.file_rows")
local helpers = require("tests.lua.datasets.helpers")

describe("am.datasets.json_rows", function()
    local files = {}

    local function file(text, extension)
        files[#files + 1] = helpers.file(text, extension)
        return files[#files]
    end

    after_each(function()
        for _, name in ipairs(files) do
            os.remove(name)
        end
        files = {}
    end)

    local function read(name)
        local source = file_rows.open(name)
        local out = {}
        for i = 1, source:len() do
            out[i] = source:get(i).a .. "@" .. source:name(i):match("%d+$")
        end
        source:close()
        return table.concat(out, " ")
    end

    it("reads lines, with blank ones, CRLF, BOM and no newline at the end", function()
        assert.equal("1@1 2@2", read(file '{"a":1}\n{"a":2}\n'))
        assert.equal("1@2 2@4", read(file '\n{"a":1}\r\n \t\n{"a":2}'))
        assert.equal("1@1", read(file '\239\187\191{"a":1}'))
        assert.equal("x\\\"}@1", read(file '{"a":"x\\\\\\"}"}'))
    end)

    it("refuses a row that is not UTF-8", function()
        local source = file_rows.open(file '{"a":1}\n{"a":"\255\254"}\n')
        local ok, e = pcall(source.get, source, 2)
        assert.is_false(ok)
        assert.matches("row 2: byte 7 is not UTF%-8", e.msg)
        source:close()
    end)

    it("reads an array, on one line or many", function()
        assert.equal("1@1 2@2", read(file('[{"a":1},{"a":2}]', "json")))
        assert.equal("1@1 2@2 3@3",
            read(file(' [\n  {\n "a" : 1 , "b":[1,{"c":2}] } ,{"a":2,"d":"],}{\\"]"}\n,{"a":3}\n] \n')))
        assert.equal("1@1", read(file('\239\187\191[{"a":1}]')))
    end)

    it("reads rows that lie across the chunks of the index", function()
        local lines, elements = {}, {}
        for i = 1, 3000 do
            lines[i] = string.format('{"a":%d,"t":"%s"}', i, ("x,]}\\\" "):rep(i % 97 + 1))
            elements[i] = lines[i]
        end
        for _, name in ipairs { file(table.concat(lines, "\n")), file("[" .. table.concat(elements, ",\n") .. "]") } do
            local source = file_rows.open(name)
            assert.equal(3000, source:len())
            for _, i in ipairs { 3000, 1, 2999, 1500 } do
                assert.equal(i, source:get(i).a)
                assert.equal(7 * (i % 97 + 1) - (i % 97 + 1), #source:get(i).t)
            end
        end
    end)

    it("keeps a few numbers for many rows, and closes blocks of long ones sooner", function()
        local short, long = {}, {}
        for i = 1, 5000 do
            short[i], long[i] = '{"a":' .. i .. "}", i <= 20 and string.format('{"a":%d,"t":"%s"}', i, ("x"):rep(50000))
        end
        for text, most in pairs { [table.concat(short, "\n")] = 80, [table.concat(long, "\n", 1, 20)] = 10 } do
            local source = file_rows.open(file(text))
            assert.is_true(source.files[1].rows.rows.index.blocks <= most)
            for _, i in ipairs { 1, source:len(), 7, 12, 11, 20, 2 } do
                assert.equal(i, source:get(i).a)
                assert.equal(source.files[1].name .. " row " .. i, source:name(i))
            end
        end
    end)

    it("names file and row of what is no object", function()
        local source = file_rows.open(file '{"a":1}\n{"a":\n[1]\n"x"\nnull\n{"a":1}}')
        for row, pattern in pairs {
            [2] = "row 2: not JSON at column", [3] = "row 3: not a JSON object", [4] = "row 4: not a JSON object",
            [5] = "row 5: not a JSON object", [6] = "row 6: not JSON at column",
        } do
            helpers.fails("data", pattern, source.get, source, row)
        end
        assert.equal(1, source:get(1).a)
    end)

    it("refuses arrays that are cut off, have holes, or are followed by text", function()
        for text, pattern in pairs {
            ['[{"a":1}'] = "no end", ['[{"a":1},'] = "no end", ['[{"a":"]'] = "no end",
            ['[{"a":1},]'] = "element 2 .* missing", ['[,{"a":1}]'] = "element 1 .* missing",
            ['[{"a":1},,{"a":2}]'] = "element 2 .* missing",
            ['[{"a":1}] x'] = "after the end", ["[]"] = "no rows", [""] = "no rows", [" \n"] = "no rows",
        } do
            helpers.fails("data", pattern, file_rows.open, file(text, "json"))
        end
        local source = file_rows.open(file '[{"a":1},{"a":1 2}, }]')
        helpers.fails("data", "row 2: not JSON", source.get, source, 2)
        helpers.fails("data", "row 3: not JSON", source.get, source, 3)
    end)

    it("notices a file that shrank", function()
        local name = file '{"a":1}\n{"a":2}\n'
        local source = file_rows.open(name)
        local out = assert(io.open(name, "wb"))
        out:write('{"a":1}\n')
        out:close()
        helpers.fails("io", ": cannot be read %(the file was changed", source.get, source, 2)
    end)
end)
