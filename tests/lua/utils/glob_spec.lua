-- am.utils.glob: which names a pattern finds.
local glob = require("am.utils.glob")
local path = require("am.utils.path")

describe("am.utils.glob", function()
    local folder

    setup(function()
        folder = os.tmpname()
        os.remove(folder)
        for _, name in ipairs {
            "a.bin", "b.bin", "b.idx", ".hidden.bin", "c+1.bin", "sub/a.bin", "sub2/d.txt", "x[1].bin",
        } do
            local full = path.join(folder, name)
            path.mkdir_p(path.dirname(full))
            assert(io.open(full, "w")):close()
        end
    end)
    teardown(function() path.remove_tree(folder) end)

    local function found(pattern)
        local out = glob.files(path.join(folder, pattern))
        for i, name in ipairs(out) do
            out[i] = name:sub(#folder + 2)
        end
        return out
    end

    it("finds sorted names as Python's glob does", function()
        for pattern, expected in pairs {
            ["*.bin"] = { "a.bin", "b.bin", "c+1.bin", "x[1].bin" }, ["?.bin"] = { "a.bin", "b.bin" },
            ["[ab].*"] = { "a.bin", "b.bin", "b.idx" }, ["[!a].bin"] = { "b.bin" }, ["[b-z].i*"] = { "b.idx" },
            [".h*"] = { ".hidden.bin" }, ["*/a.bin"] = { "sub/a.bin" }, ["sub*/*"] = { "sub/a.bin", "sub2/d.txt" },
            ["a.bin"] = { "a.bin" }, ["none*"] = {}, ["c+1*"] = { "c+1.bin" }, ["x[[]1].bin"] = { "x[1].bin" },
            ["[a.bin"] = {}, ["a.b[i]n"] = { "a.bin" },
        } do
            assert.same(expected, found(pattern), pattern)
        end
        assert.same({}, glob.files(""))
        assert.is_true(glob.is_pattern("a*") and glob.is_pattern("[a]") and not glob.is_pattern("a.b"))
    end)
end)
