-- am.datasets.file_rows: several files as one, compressed ones, and files that are not read.
local file_rows = require("am.datasets.file_rows")
local path = require("am.utils.path")
local helpers = require("tests.lua.datasets.helpers")

describe("am.datasets.file_rows", function()
    local files = {}

    local function file(text, extension)
        files[#files + 1] = helpers.file(text, extension)
        return files[#files]
    end

    after_each(function()
        for _, name in ipairs(files) do
            os.remove(name)
            os.remove(name .. ".out")
        end
        files = {}
    end)

    -- What a program of the system makes of a text.
    local function compressed(command, text, extension)
        local name = file(text, "plain")
        assert(os.execute(command .. " <" .. name .. " >" .. name .. ".out") == 0)
        return file(assert(path.read_file(name .. ".out")), extension)
    end

    local function rows_of(name)
        local source, out = file_rows.open(name), {}
        for i = 1, source:len() do
            out[i] = source:get(i).a
        end
        source:close()
        return table.concat(out, " ")
    end

    it("joins several files in order", function()
        local a, b = file '{"a":1}\n{"a":2}', file '[{"a":3}]'
        local source = file_rows.open { a, b, file("a\n4\n", "csv"), a }
        assert.equal(6, source:len())
        for _, i in ipairs { 1, 6, 3, 2, 4, 5, 1 } do
            assert.equal(({ 1, 2, 3, 4, 1, 2 })[i], source:get(i).a)
        end
        assert.equal(b .. " row 1", source:name(3))
        assert.same({ 4, 2 }, { source:place(6) })
        source:close()
    end)

    it("takes compressed files by their content, whatever they are called", function()
        local lines = '{"a":1}\n{"a":2}\n'
        for _, program in ipairs { "gzip", "zstd -q", "zstd -q --no-check -19" } do
            assert.equal("1 2", rows_of(compressed(program, lines, "jsonl")))
            assert.equal("1 2", rows_of(compressed(program, '[{"a":1},{"a":2}]', "json.gz")))
            assert.equal("1 x", rows_of(compressed(program, "a\n1\nx\n", "csv.zst")))
            assert.equal("1,2 x", rows_of(compressed(program, "a\n1,2\nx\n", "tsv.gz")))
        end
        assert.equal("1 2", rows_of(file(lines, "jsonl.gz"))) -- it is not compressed
    end)

    it("takes what was compressed in parts", function()
        for _, program in ipairs { "gzip", "zstd -q" } do
            local one = assert(path.read_file(compressed(program, '{"a":1}\n', "jsonl")))
            local two = assert(path.read_file(compressed(program, '{"a":2}\n', "jsonl")))
            assert.equal("1 2 1", rows_of(file(one .. two .. one, "jsonl")))
        end
        local padded = assert(path.read_file(compressed("gzip", '{"a":1}\n', "jsonl")))
        assert.equal("1", rows_of(file(padded .. ("\0"):rep(600), "gz")))
    end)

    it("reads a large compressed file in any order", function()
        local lines = {}
        for i = 1, 30000 do
            lines[i] = string.format('{"a":%d,"text":"%s"}', i, ("word "):rep(i % 40))
        end
        local source = file_rows.open(compressed("gzip -1", table.concat(lines, "\n"), "jsonl.gz"))
        assert.equal(30000, source:len())
        for _, i in ipairs { 30000, 1, 15000, 29999, 2 } do
            assert.equal(i, source:get(i).a)
        end
        source:close()
    end)

    it("refuses compressed files that are cut off or damaged anywhere", function()
        local lines = {}
        for i = 1, 50 do
            lines[i] = string.format('{"a":%d}', i * i * 7919)
        end
        for _, program in ipairs { "gzip -n", "zstd -q --check" } do
            local whole = assert(path.read_file(compressed(program, table.concat(lines, "\n"), "jsonl")))
            local expected = rows_of(file(whole, "jsonl"))
            for n = 4, #whole - 1 do
                local name = helpers.file(whole:sub(1, n), "jsonl")
                helpers.fails("format", "no end %(file cut off%?%)", file_rows.open, name)
                os.remove(name)
            end
            for at = 5, #whole do
                local name = helpers.file(whole:sub(1, at - 1) .. string.char((whole:byte(at) + 1) % 256)
                    .. whole:sub(at + 1), "jsonl")
                local ok, e = pcall(rows_of, name)
                assert(ok and e == expected or type(e) == "table" and (e.code == "format" or e.code == "data"),
                    program .. " byte " .. at .. ": " .. tostring(e))
                os.remove(name)
            end
            helpers.fails("format", "damaged", file_rows.open, file(whole .. "more", "jsonl"))
        end
    end)

    it("says that a compressed file is too large, before the disk is full", function()
        local name = compressed("(head -c 70000000 /dev/zero | zstd -q)", "", "jsonl.zst")
        helpers.fails("format", "more than 250 times its size", file_rows.open, name)
    end)

    it("leaves nothing in TMPDIR", function()
        local folder = os.tmpname()
        os.remove(folder)
        path.mkdir_p(folder)
        finally(function() path.remove_tree(folder) end)
        local name = compressed("gzip", '{"a":1}\n', "jsonl.gz")
        local code = "local s = require('am.datasets.file_rows').open('%s') "
            .. "print(s:get(1).a, #require('am.utils.path').list_dir('%s'))"
        local program = string.format("TMPDIR=%s '%s' -e \"" .. code .. "\"", folder, os.getenv("AMLUA"), name, folder)
        local pipe = io.popen(program)
        assert.equal("1\t0", pipe:read("*l"))
        pipe:close()
        assert.same({}, path.list_dir(folder))
    end)

    it("says what is not read", function()
        for head, what in pairs {
            ["BZh9"] = "compressed by bzip2", ["\253\55\122\88\90\0"] = "compressed by xz",
            ["PK\3\4"] = "a zip archive",
            ["ARROW1\0\0"] = "an Arrow file", ["version https://git-lfs.github.com/spec/v1\n"] = "a pointer of Git LFS",
            ["\4\34\77\24"] = "compressed by lz4",
        } do
            helpers.fails("data", "is " .. what, file_rows.open, file(head .. "rest of it", "jsonl"))
        end
        local twice = compressed("(gzip | gzip)", '{"a":1}\n', "jsonl.gz")
        helpers.fails("data", "compressed again within", file_rows.open, twice)
        local parquet = assert(path.read_file("tests/lua/datasets/parquet/squad.parquet"))
        helpers.fails("data", "a Parquet file within", file_rows.open, compressed("gzip", parquet, "parquet.gz"))
        helpers.fails("format", "not a Parquet file", file_rows.open, file("not really", "parquet"))
        helpers.fails("unsupported", "encrypted Parquet", file_rows.open, file("PARE" .. ("\0"):rep(20) .. "PARE", "x"))
        helpers.fails("data", "no such file", file_rows.open, "tests/nothing")
    end)

    it("tells Parquet by its content", function()
        local name = file(assert(path.read_file("tests/lua/datasets/parquet/squad.parquet")), "data")
        local source = file_rows.open(name)
        assert.equal(30, source:len())
        assert.equal("Which light?", source:get(30).question)
        source:close()
    end)
end)
