-- am.datasets.parquet_rows: files of pyarrow and datasets, row for row; random access; damage.
local file_rows = require("am.datasets.file_rows")
local json = require("am.utils.json")
local path = require("am.utils.path")
local helpers = require("tests.lua.datasets.helpers")

local folder = "tests/lua/datasets/parquet/"

local function golden(name)
    local rows = {}
    for line in io.lines(folder .. name .. ".jsonl") do
        rows[#rows + 1] = assert(json.decode(line))
    end
    return rows
end

-- Names of values that differ in two rows; arrays and objects must be told apart by their marks too.
local function difference(a, b, at)
    if type(a) ~= "table" or type(b) ~= "table" or a == json.null or b == json.null then
        return a ~= b and string.format("%s: %s, expected %s", at, tostring(a), tostring(b)) or nil
    elseif json.is_array(a) ~= json.is_array(b) then
        return at .. ": an array and an object"
    end
    for key in pairs(a) do
        if b[key] == nil then
            return at .. "." .. key .. ": not expected"
        end
    end
    for key, value in pairs(b) do
        local found = difference(a[key], value, at .. "." .. key)
        if found then
            return found
        end
    end
end

local function compare(name, rows, order)
    local source = file_rows.open(name)
    assert.equal(#rows, source:len())
    for n = 1, #rows do
        local i = order and order(n) or n
        assert.is_nil(difference(source:get(i), rows[i], name .. " row " .. i))
    end
    source:close()
end

describe("am.datasets.parquet_rows", function()
    for _, name in ipairs { "chat", "squad", "types", "uuid", "int96", "delta", "legacy" } do
        it("reads the rows of " .. name .. ".parquet", function()
            compare(folder .. name .. ".parquet", golden(name))
        end)
    end

    for _, codec in ipairs { "none", "snappy", "gzip", "zstd" } do
        for version = 1, 2 do
            it("reads pages of version " .. version .. ", codec " .. codec .. ", in any order", function()
                local name, rows = folder .. "pages_" .. codec .. "_v" .. version .. ".parquet", golden("pages")
                local n = #rows
                compare(name, rows)
                compare(name, rows, function(i) return n + 1 - i end)
                compare(name, rows, function(i) return i * 37 % n + 1 end)
                compare(name, rows, function(i) return math.ceil(i / 2) end)
            end)
        end
    end

    it("reads the columns that are asked for, and names those that are not there", function()
        local source = file_rows.open(folder .. "pages_zstd_v1.parquet", { columns = { "pairs", "number" } })
        local rows = golden("pages")
        for i = 1, source:len() do
            assert.is_nil(difference(source:get(i), { pairs = rows[i].pairs, number = rows[i].number }, "row " .. i))
        end
        source:close()
        helpers.fails("data", 'no column "question_" %(did you mean "question"%?%); it has id, title', file_rows.open,
            folder .. "squad.parquet", { columns = { "answers", "question_" } })
    end)

    it("does not touch the pages of other columns", function()
        local text = assert(path.read_file(folder .. "squad.parquet"))
        local source = file_rows.open(folder .. "squad.parquet", { columns = { "id" } })
        local first, last = source:get(1).id, source:get(source:len()).id
        source:close()
        local at = assert(text:find("The light of", 1, true)) - 5 -- in the pages of context
        local name = helpers.file(text:sub(1, at - 1) .. ("\255"):rep(4) .. text:sub(at + 4), "parquet")
        source = file_rows.open(name, { columns = { "id" } })
        assert.equal(first, source:get(1).id)
        assert.equal(last, source:get(source:len()).id)
        source:close()
        source = file_rows.open(name)
        helpers.fails("format", 'row 1: column "context": ', source.get, source, 1)
        source:close()
        os.remove(name)
    end)

    it("joins files, of other formats too, and names their rows", function()
        local lines = helpers.file('{"id":"a"}\n{"id":"b"}\n')
        local source = file_rows.open { folder .. "squad.parquet", lines, folder .. "squad.parquet" }
        assert.equal(62, source:len())
        assert.equal("b", source:get(32).id)
        assert.equal(source:get(1).id, source:get(33).id)
        assert.equal(source:get(30).id, source:get(62).id)
        assert.equal(folder .. "squad.parquet row 3", source:name(35))
        assert.equal(lines .. " row 2", source:name(32))
        source:close()
        os.remove(lines)
    end)

    it("refuses files that contradict themselves, and says where", function()
        for name, pattern in pairs {
            rows = "3 rows, but 2", group_rows = 'row 1: column "n"', bomb = "which is not believed", at = "row 1",
            codec = "of an unknown codec", deep = "nested too deeply", deep_lists = "nested too deeply",
            not_utf8 = 'row 1: column "t": byte 2',
            struct = 'row 2: .*"y" do not belong', list = 'row 1: .*"l" do not belong', delta = "more values than",
            no_row = 'row 1: column "l": .*no beginning', many_children = "ends early", page_entries = "row 2",
        } do
            local ok, e = pcall(function()
                local source = file_rows.open(folder .. "lies/" .. name .. ".parquet")
                for i = 1, source:len() do
                    source:get(i)
                end
            end)
            assert(not ok and (e.code == "format" or e.code == "unsupported"), name .. ": " .. tostring(e))
            assert(e.msg:find(pattern), name .. ": " .. tostring(e))
        end
    end)

    it("says which codec it does not read", function()
        for _, codec in ipairs { "lz4", "brotli" } do
            local source = file_rows.open(folder .. codec .. ".parquet")
            helpers.fails("unsupported", 'column "a": ' .. codec:upper()
                .. ".*; UNCOMPRESSED, SNAPPY, GZIP and ZSTD are read", source.get, source, 1)
            source:close()
        end
    end)

    it("refuses a file that is cut off anywhere", function()
        for _, of in ipairs { "legacy", "squad" } do
            local text = assert(path.read_file(folder .. of .. ".parquet"))
            for n = 0, #text - 1, of == "legacy" and 1 or 37 do
                local name = helpers.file(text:sub(1, n), "parquet")
                helpers.fails("format", "", file_rows.open, name)
                os.remove(name)
            end
        end
    end)

    -- Bytes without a checksum may be other values; nothing else may come of them.
    it("gives rows or an error whatever byte is changed", function()
        local text, errors = assert(path.read_file(folder .. "legacy.parquet")), 0
        for at = 1, #text do
            local changed = string.char((text:byte(at) + 1 + at * 31 % 255) % 256)
            local name = helpers.file(text:sub(1, at - 1) .. changed .. text:sub(at + 1), "parquet")
            local ok, e = pcall(function()
                local source = file_rows.open(name)
                for i = 1, source:len() do
                    assert(json.encode(source:get(i)))
                end
                source:close()
            end)
            assert(ok or type(e) == "table" and e.code ~= "internal", tostring(e))
            errors = errors + (ok and 0 or 1)
            os.remove(name)
        end
        assert.is_true(errors > 100)
    end)

    it("finds every changed byte of a page that has a checksum", function()
        local text, rows = assert(path.read_file(folder .. "pages_gzip_v2.parquet")), golden("pages")
        local found = 0
        for at = 5, #text - 4000, 29 do
            local changed = string.char((text:byte(at) + 128) % 256)
            local name = helpers.file(text:sub(1, at - 1) .. changed .. text:sub(at + 1), "parquet")
            local source = file_rows.open(name)
            local ok, e = pcall(function()
                for i = 1, #rows do
                    assert.is_nil(difference(source:get(i), rows[i], "row " .. i))
                end
            end)
            assert(ok or type(e) == "table" and (e.code == "format" or e.code == "unsupported"), tostring(e))
            found = found + (ok and 0 or 1)
            source:close()
            os.remove(name)
        end
        assert.is_true(found > 50)
    end)
end)
