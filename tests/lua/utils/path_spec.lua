-- am.utils.path and am.utils.posix on a real folder.
local path = require("am.utils.path")
local posix = require("am.utils.posix")
local err = require("am.core.error")

describe("am.utils.path by text", function()
    it("joins", function()
        assert.equal("a/b/c", path.join("a", "b/", "", "c"))
        assert.equal("/x", path.join("a", "/x"))
        assert.equal("/a", path.join("/", "a"))
        assert.equal("", path.join(""))
    end)

    it("takes apart", function()
        local cases = {
            { "a/b.txt", "a", "b.txt", "txt" }, { "/b", "/", "b", nil }, { "b.TAR", ".", "b.TAR", "tar" },
            { "a/b/", "a", "b", nil }, { "/", "/", "/", nil }, { ".hidden", ".", ".hidden", nil },
            { "//x//y", "//x" and "//x", "y", nil },
        }
        for _, case in ipairs(cases) do
            assert.equal(case[2], path.dirname(case[1]))
            assert.equal(case[3], path.basename(case[1]))
            assert.equal(case[4], path.extension(case[1]))
        end
    end)

    it("normalizes", function()
        assert.equal("../b", path.normalize("a/../../b/."))
        assert.equal("/b", path.normalize("/../a/../b"))
        assert.equal(".", path.normalize("a/.."))
        assert.equal("../../x", path.normalize("../../x"))
    end)

    it("makes relative", function()
        assert.equal("../c/d", path.relative("/a/c/d", "/a/b"))
        assert.equal(".", path.relative("/a", "/a"))
        assert.equal("b", path.relative("a/b", "a"))
    end)
end)

describe("am.utils.path on disk", function()
    local dir

    before_each(function()
        dir = os.tmpname()
        os.remove(dir)
        path.mkdir_p(dir .. "/one/two")
    end)

    after_each(function()
        path.remove_tree(dir)
        assert.is_false(path.exists(dir))
    end)

    it("makes, lists and sizes", function()
        path.mkdir_p(dir .. "/one/two")
        path.write_file(dir .. "/b", "text")
        local file = posix.open(dir .. "/b", "append")
        assert.is_true(posix.write(file, "+more") and posix.close(file))
        posix.close(posix.open(dir .. "/a", "append"))
        assert.same({ "a", "b", "one" }, path.list_dir(dir))
        assert.equal("text+more", path.read_file(dir .. "/b"))
        assert.equal(9, path.size(dir .. "/b"))
        assert.is_true(path.is_dir(dir) and path.is_file(dir .. "/a") and not path.is_file(dir))
        assert.is_true(posix.stat(dir .. "/b").mtime > 1.6e9)
    end)

    it("says what is absent", function()
        local names, msg = path.list_dir(dir .. "/none")
        assert.is_nil(names)
        assert.matches("none: No such file", msg)
        assert.is_nil(path.read_file(dir .. "/none"))
        assert.is_nil((path.read_file(dir)))
        assert.is_nil(posix.stat("a\0b"))
        assert.is_nil(posix.mkdir("a\0b"))
    end)

    it("says when an open file cannot be read, and when it is closed", function()
        local file = posix.open(dir, "read")
        assert.matches("directory", (select(2, posix.read(file))))
        assert.matches("directory", (select(2, posix.read_at(file, 0, 1))))
        assert.is_true(posix.close(file))
        assert.is_nil((posix.close(file))) -- and not some other file of the same number
        assert.is_nil((posix.write(file, "x")))
        path.write_file(dir .. "/b", ("0123456789"):rep(20000))
        file = posix.open(dir .. "/b", "read")
        assert.equal(131071, #posix.read(file, 131071)) -- more than one call reads
        assert.equal("1234", posix.read(file, 4))
        assert.equal("789", posix.read_at(file, 199997, 9))
        posix.close(file)
    end)

    it("caps what it reads, also from files without a size", function()
        path.write_file(dir .. "/b", "12345")
        assert.equal("12345", path.read_file(dir .. "/b", 5))
        assert.is_nil(path.read_file(dir .. "/b", 4))
        assert.is_nil(path.read_file("/dev/zero", 100))
        path.write_file(dir .. "/b", "")
        assert.equal("", path.read_file(dir .. "/b", 4))
    end)

    it("raises io errors and leaves nothing behind", function()
        path.write_file(dir .. "/file", "x")
        for _, call in ipairs {
            function() path.mkdir_p(dir .. "/file/sub") end,
            function() path.mkdir_p(dir .. "/file") end,
            function() path.write_file(dir .. "/none/x", "") end,
            function() path.write_file(dir .. "/one", "") end,
            function() path.rename(dir .. "/none", dir .. "/x") end,
        } do
            local ok, e = pcall(call)
            assert.is_false(ok)
            assert.is_true(err.is(e) and e.code == "io")
        end
        assert.same({ "file", "one" }, path.list_dir(dir))
    end)

    it("swaps a relative link that survives moving the tree", function()
        path.write_file(dir .. "/one/f", "1")
        path.mkdir_p(dir .. "/three")
        path.write_file(dir .. "/three/f", "3")
        path.symlink_swap(dir .. "/one", dir .. "/LATEST")
        assert.equal("one", posix.readlink(dir .. "/LATEST"))
        path.symlink_swap(dir .. "/three", dir .. "/LATEST")
        assert.equal("three", posix.readlink(dir .. "/LATEST"))
        path.rename(dir, dir .. ".moved")
        assert.equal("3", path.read_file(dir .. ".moved/LATEST/f"))
        path.rename(dir .. ".moved", dir)
        assert.is_true(path.is_link(dir .. "/LATEST"))
        path.remove_tree(dir .. "/LATEST")
        assert.equal("3", path.read_file(dir .. "/three/f"))
    end)

    it("has a clock", function()
        assert.is_true(math.abs(posix.time() - os.time()) < 2)
    end)
end)
