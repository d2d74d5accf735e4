-- Which lines of lua/ and recipes/ the tests run. Two uses, both by tests/run.sh --coverage:
---
---   luajit -ltests.support.coverage …      counts in this process; when it ends, what it ran is added
---                                          to a file of its own in the folder AMLUA_COVERAGE
---   luajit tests/support/coverage.lua DIR  adds up the files in DIR: a line for each source, the lines
---                                          that never ran, the sum
---
--- The compiler is off meanwhile: compiled code calls no hooks. A process that is killed counts nothing.

local ROOTS = { "lua/", "recipes/" }

--- The source's path from the project's root, or nil when it is none of ours. A process may have found
--- it through a link, by an absolute path or by "./".
local function project_path(source)
    for _, root in ipairs(ROOTS) do
        local path = source:match("^@" .. root .. ".*%.lua$") or source:match("^@.*/(" .. root .. ".*%.lua)$")
        if path then return (path:gsub("^@", "")) end
    end
end

local function count(dir)
    local ran, paths = {}, {} -- path -> line -> true; source -> path or false
    local getinfo = debug.getinfo
    jit.off()
    debug.sethook(function(_, line)
        local source = getinfo(2, "S").source
        local path = paths[source]
        if path == nil then
            path = project_path(source) or false
            paths[source] = path
            if path then ran[path] = ran[path] or {} end
        end
        if path then ran[path][line] = true end
    end, "l")

    local function write()
        debug.sethook()
        if not ran then return end
        local name = os.tmpname()
        local out = assert(io.open(dir .. "/" .. name:match("[^/]+$"), "a"))
        for path, lines in pairs(ran) do
            for line in pairs(lines) do out:write(path, ":", line, "\n") end
        end
        out:close()
        os.remove(name)
        ran = nil
    end
    local exit = os.exit
    os.exit = function(...) -- luacheck: ignore 122
        write()
        exit(...)
    end
    _COVERAGE = newproxy(true) -- luacheck: ignore 111
    getmetatable(_COVERAGE).__gc = write -- luacheck: ignore 113
end

--- The lines of a file that hold something to run.
local function lines_of(path)
    local util = require "jit.util"
    local lines = {}
    local function walk(proto)
        local pc = 1 -- 0 is the function's head
        while util.funcbc(proto, pc) do
            lines[util.funcinfo(proto, pc).currentline] = true
            pc = pc + 1
        end
        local n = -1
        while true do
            local constant = util.funck(proto, n)
            if constant == nil then break end
            if type(constant) == "proto" then walk(constant) end
            n = n - 1
        end
    end
    walk(assert(loadfile(path)))
    return lines
end

--- Line numbers in order as "3-7, 12".
local function ranges(numbers)
    local parts, i = {}, 1
    while i <= #numbers do
        local j = i
        while numbers[j + 1] == numbers[j] + 1 do j = j + 1 end
        parts[#parts + 1] = i == j and tostring(numbers[i]) or numbers[i] .. "-" .. numbers[j]
        i = j + 1
    end
    return table.concat(parts, ", ")
end

local function report(dir)
    local ran = {}
    for line in io.popen("cat " .. dir .. "/*"):lines() do ran[line] = true end
    local all, hit = 0, 0
    for path in io.popen("find " .. table.concat(ROOTS, " ") .. " -name '*.lua' | sort"):lines() do
        local total, missed = 0, {}
        for line in pairs(lines_of(path)) do
            total = total + 1
            if not ran[path .. ":" .. line] then missed[#missed + 1] = line end
        end
        table.sort(missed)
        all, hit = all + total, hit + total - #missed
        print(string.format("%-44s %5d %4.0f%%  %s", path, total, 100 * (total - #missed) / math.max(total, 1),
            ranges(missed)))
    end
    print(string.format("%-44s %5d %4.0f%%", "TOTAL", all, 100 * hit / math.max(all, 1)))
end

if (...) == "tests.support.coverage" then
    count(assert(os.getenv("AMLUA_COVERAGE"), "AMLUA_COVERAGE is not set"))
else
    report((assert((...), "usage: luajit tests/support/coverage.lua DIR")))
end
