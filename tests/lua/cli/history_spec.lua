-- The file of remembered lines, whatever lies in its place.

local files = require("tests.support.files")
local history = require("am.cli.history")

local function read(name)
    local file = assert(io.open(name, "rb"))
    local text = file:read("*a")
    file:close()
    return text
end

local function write(name, text)
    local file = assert(io.open(name, "wb"))
    file:write(text)
    file:close()
end

-- fn(open, file) where open() is a history at `file` and the warnings it gave.
local function at(fn)
    local real = history.file
    files.with_folder(function(dir)
        local file = dir .. "/history"
        history.file = function() return file end
        local ok, e = pcall(fn, function()
            local warnings = {}
            local h = history.open(function(text) warnings[#warnings + 1] = text end)
            return h, warnings
        end, file)
        history.file = real
        assert(ok, e)
    end)
end

describe("history", function()
    it("ends a line that was cut off before it writes another", function()
        at(function(open, file)
            write(file, "one\ntwo\nthr")
            local h = open()
            assert.same({ "one", "two" }, h.lines)
            h:add("four")
            h:add("five")
            assert.equal("one\ntwo\nthr\nfour\nfive\n", read(file))
        end)
    end)

    it("takes regular files only, and a link to one", function()
        at(function(open, file)
            for _, make in ipairs { "mkfifo " .. file, "ln -s /dev/tty " .. file, "ln -s /dev/zero " .. file,
                                    "mkdir " .. file } do
                assert.equal(0, os.execute(make))
                local h, warnings = open()
                assert.truthy(warnings[1]:find(file .. " is no regular file", 1, true), make)
                h:add("one") -- kept for this session only
                assert.equal(1, #warnings)
                os.execute("rm -r " .. file)
            end
            write(file .. ".real", "one\n")
            assert.equal(0, os.execute(string.format("ln -s %s.real %s", file, file)))
            local h, warnings = open()
            h:add("two")
            assert.same({}, warnings)
            assert.equal("one\ntwo\n", read(file .. ".real"))
            os.remove(file)
            assert.equal(0, os.execute("mkfifo " .. file)) -- while the session runs
            h:add("three")
            assert.truthy(warnings[1]:find("no regular file", 1, true))
        end)
    end)

    it("overwrites no damaged file with another", function()
        at(function(open, file)
            for i, name in ipairs { "history.damaged", "history.damaged.1", "history.damaged.2" } do
                write(file, i .. "\0\n")
                local _, warnings = open()
                assert.truthy(warnings[1]:find("is now " .. name .. "$"), warnings[1])
            end
            assert.equal("1\0\n", read(file .. ".damaged"))
            assert.equal("3\0\n", read(file .. ".damaged.2"))
        end)
    end)

    it("says why it is not saved, not where in amlua", function()
        at(function(open, file)
            history.file = function() return file .. "/no/way" end
            write(file, "")
            local h, warnings = open()
            h:add("one")
            assert.truthy(warnings[1]:find("history is not saved", 1, true), warnings[1])
            assert.is_nil(warnings[1]:find(".lua", 1, true), warnings[1])
        end)
    end)

    it("reads the end of a long file only, and shortens it", function()
        at(function(open, file)
            local lines = {}
            for i = 1, 250000 do
                lines[i] = "line number " .. i
            end
            lines = table.concat(lines, "\n") .. "\n"
            local least, h = math.huge, nil
            for _ = 1, 3 do
                write(file, lines)
                collectgarbage()
                local before = os.clock()
                h = open()
                least = math.min(least, os.clock() - before)
            end
            assert.is_true(least < 0.05, least)
            assert.equal(2000, #h.lines)
            assert.equal("line number 248001", h.lines[1])
            assert.equal("line number 250000", h.lines[2000])
            h:add("more")
            assert.equal(2000, #open().lines)
            assert.truthy(read(file):find("line number 250000\nmore\n$"))
        end)
    end)
end)
