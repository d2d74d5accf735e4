-- The prompt fed from a pipe: what it prints, what it survives, how it ends. A person at a terminal is
-- in terminal_spec.lua.

local files = require("tests.support.files")
local amlua = os.getenv("AMLUA")

-- Status, stdout and stderr of amlua with `text` on its input.
local function feed(text, args)
    local status, out, errors
    files.with_folder(function(dir)
        local input = assert(io.open(dir .. "/in", "wb"))
        input:write(text)
        input:close()
        status = files.run(string.format("'%s' %s <%s/in >%s/out 2>%s/err", amlua, args or "", dir, dir, dir))
        local function read(name)
            local file = assert(io.open(dir .. "/" .. name, "rb"))
            local content = file:read("*a")
            file:close()
            return content
        end
        out, errors = read("out"), read("err")
    end)
    return status, out, errors
end

local function says(out, text)
    local status, got, errors = feed(text)
    assert.same({ 0, out, "" }, { status, got, errors })
end

describe("the prompt on a pipe", function()
    it("prints expressions without return, and nothing else", function()
        says("2\n", "1 + 1\n")
        says("2\n", "1 + 1") -- no newline at the end
        says("1\t2\n", "1, 2\n")
        says("nil\n", "nil\n")
        says("3\n", "=3\n")
        says("", "x = 1\nlocal y = 2\n\n-- nothing\n(function() end)()\n")
        says("", "")
        says("tensor [2] float32, cpu\n[1., 1.]\n", "am.ones{2}\n")
    end)

    it("reads on while a statement is not complete", function()
        says("3\n3\n", "function f(a,\n b)\n\n return a + b\nend\nf(1, 2)\nf(\n1,\n2)\n")
        says("a\nb\n", "x = [[a\nb]]\nx\n")
    end)

    it("keeps the last value in _", function()
        says("2\n6\nnil\n7\n", "2\n_ * 3\nnil\n_ + 1\n")
    end)

    it("survives whatever is assigned to standard names", function()
        local names = {}
        for name in pairs(_G) do
            if type(name) == "string" and (package.loaded[name] == _G[name]
                or type(_G[name]) == "function") then
                names[#names + 1] = name
            end
        end
        assert.is_true(#names > 30)
        for _, value in ipairs { "{}", "3", "false" } do
            local lines = {}
            for i, name in ipairs(names) do
                lines[i] = name .. " = " .. value .. "\n1 + 1, 'x', am\n" .. name .. "\n"
            end
            local status, out, errors = feed(table.concat(lines))
            assert.same({ 0, "" }, { status, errors })
            assert.equal(#names, select(2, out:gsub("2\tx\t{", "")) + select(2, out:gsub("2\nx\n{", "")))
        end
        names = {}
        for _, library in ipairs { "bit", "coroutine", "debug", "io", "jit", "math", "os", "string", "table" } do
            names[#names + 1] = "for name in pairs(" .. library .. ") do " .. library .. "[name] = 3 end\n"
        end
        says("2\nx\n{ 1 field }\n", table.concat(names) .. "1 + 1\n'x'\n'{ 1 field }'\n")
        says("a b\n", "function string.trim(s) return s:match('^%s*(.-)%s*$') end\n('  a b '):trim()\n")
        says("standard\n", "_G.table = nil\n_G.string = { format = 'standard' }\nstring.format\n")
    end)

    it("gives typed code globals of its own, also to what it loads", function()
        says("2\n3\n4\n5\n6\ntrue\n", [[
            function f() return x end
            x = 2
            f()
            _G.x = 3
            f()
            loadstring('x = 4')()
            f()
            load('return y', 'y', 't', { y = 5 })()
            assert(load(('function g() return x + 2 end'):gmatch('.*')))()
            g()
            _G.f == f and rawget(_G, 'x') == 4
        ]])
    end)

    it("goes on after errors and ends with status 1", function()
        local status, out, errors = feed("x y\nerror('one')\nx.y = 1\nam.zeros{2} + am.zeros{3}\n"
            .. "error({ a = 1 })\nerror(nil)\nerror(setmetatable({}, { __tostring = error }))\n"
            .. "am.zeros{1e7, 1e7}\n'\n5\n")
        assert.equal(1, status)
        assert.equal("5\n", out)
        for _, wanted in ipairs { "prompt:1: '=' expected", "one\n", "index global 'x'", "[2]", "memory",
                                  "\n{ a = 1 }\nnil\n", "cannot be printed", "unfinished string" } do
            assert.truthy(errors:find(wanted, 1, true), wanted .. " is not in " .. errors)
        end
        assert.is_nil(errors:find("repl.lua", 1, true))
        status, out, errors = feed("f(\n")
        assert.same({ 1, "" }, { status, out })
        assert.truthy(errors:find("near '<eof>'", 1, true))
    end)

    it("shows where in a file an error came from, not its own frames", function()
        local _, _, errors = feed("require('am.utils.json').decode()\n")
        assert.truthy(errors:find("traceback", 1, true), errors)
        assert.is_nil(errors:find("repl.lua", 1, true), errors)
    end)

    it("gives the memory of tensors back that no line can reach any more", function()
        local made = ("am.ones{1000, 1000}:sum():item()\nx = am.ones{1000, 1000}\n"):rep(20)
        local _, out = feed(made .. "am.memory('cpu').live_bytes\n")
        assert.is_true(tonumber(out:match("(%d+)\n$")) < 8e6, out) -- one of them is left
    end)

    it("undoes what an error left behind: scopes, no_grad, recording", function()
        local _, out = feed([[
            C = require("am.core.ffi").C
            a = am.tensor{3} a.requires_grad = true
            function leave() am.scope(function() am.no_grad(coroutine.yield) end) end
            co = coroutine.wrap(leave)
            co() error("with a scope open")
            C.am_scope_depth(), am.autograd.is_grad_enabled()
            am.scope(function() am.no_grad(error, "inside") end)
            C.am_scope_depth(), am.autograd.is_grad_enabled()
            (a * a):backward(am.ones{2})
            (a * a):sum():backward()
            a.grad
        ]])
        assert.equal("0\ttrue\n0\ttrue\ntensor [1] float32, cpu\n[6.]\n", out)
    end)
end)

describe("amlua -i", function()
    it("keeps what a script made, and its arguments", function()
        files.with_folder(function(dir)
            local script = assert(io.open(dir .. "/s.lua", "w"))
            script:write("answer = arg[1] * 2\nreturn { 'returned' }\n")
            script:close()
            assert.same({ 0, '{ "returned" }\nreturned\n42\n', "" },
                        { feed("_[1]\nanswer\n", "-i " .. dir .. "/s.lua 21") })
        end)
    end)

    it("keeps the globals of a script and of what is typed together, strict ones too", function()
        files.with_folder(function(dir)
            local script = assert(io.open(dir .. "/s.lua", "w"))
            script:write([[
                rate = 1
                function show() return rate end
                setmetatable(_G, { __newindex = function(_, k) error("new global " .. k, 2) end,
                                   __index = function(_, k) error("undefined " .. k, 2) end })
            ]])
            script:close()
            local status, out, errors = feed("1 + 1\nrate = 2\nshow()\n_\nother = 1\n#arg\n",
                                             "-i " .. dir .. "/s.lua")
            assert.same({ 1, "2\n2\n2\n0\n" }, { status, out })
            assert.truthy(errors:find("new global other", 1, true), errors)
        end)
    end)

    it("goes on after a script that fails, and needs one", function()
        local status, out, errors = feed("1\n", "-i no_such.lua")
        assert.same({ 1, "1\n" }, { status, out })
        assert.truthy(errors:find("no_such.lua", 1, true))
        assert.equal(2, (feed("", "-i")))
    end)
end)
