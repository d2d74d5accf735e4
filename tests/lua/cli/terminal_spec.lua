-- The prompt with a person at it, behind a pseudo-terminal: completion, history, several lines, Ctrl-C
-- and Ctrl-D, a recipe stepped by hand.

local helper = require("tests.recipe.helper")
local terminal = require("tests.support.terminal")

local state, session

-- amlua at its first prompt; its history lies under `state`.
local function start(args, environment)
    local words = { helper.amlua, unpack(args or {}) }
    local variables = { TERM = "xterm", LANG = "C.UTF-8", XDG_STATE_HOME = state, HOME = state }
    for name, value in pairs(environment or {}) do
        variables[name] = value
    end
    session = terminal.start(words, variables)
    session:expect("> ")
    return session
end

local function history_file()
    return state .. "/amlua/history"
end

local function mode(file)
    local _, out = helper.shell("stat -c %a " .. helper.quote(file))
    return (out:gsub("%s+$", ""))
end

local function leave()
    session:send("\4")
    assert.equal(0, session:status())
end

local built_with_editor = os.execute(helper.quote(helper.amlua)
    .. " -e 'os.exit(package.preload[\"am.cli.editor\"] and 0 or 1)'") == 0

describe("the prompt at a terminal", function()
    if not built_with_editor then
        pending("amlua was built without libedit")
        return
    elseif not terminal.available() then
        pending("no pseudo-terminals here: mount /dev/pts")
        return
    end

    before_each(function() state = helper.folder() end)
    after_each(function() session:kill() end)
    teardown(helper.cleanup)

    it("greets, answers and leaves with Ctrl-D", function()
        start()
        session:line("1 + 1", "2\r\n")
        session:line("'h\195\169'", "h\195\169\r\n")
        session:line("error('no')", "no\r\n")
        session:line("5", "5\r\n")
        leave()
    end)

    it("completes names of globals, modules, tensors and objects", function()
        start()
        session:send("am.ops.matm\t")
        session:expect("ul") -- what is on the screen already is not written again
        session:send("\3")
        session:expect("^C\r\n> ")
        session:line("t = am.zeros{2, 3}")
        session:send("x = t:ma\t")
        session:expect("masked_fill  matmul")
        session:expect("> x = t:ma")
        session:send("\3")
        session:expect("^C\r\n> ")
        session:send("t.requires_gra\t\r")
        session:expect("false\r\n> ")
        session:send("no_such.thing\t\3") -- nothing to offer, nothing broken
        session:expect("^C\r\n> ")
        leave()
    end)

    it("reads several lines; Ctrl-C gives them up", function()
        start()
        session:send("for i = 1, 3 do\r")
        session:expect(">> ")
        session:send("print(i * 11)\r")
        session:expect(">> ")
        session:send("end\r")
        session:expect("11\r\n22\r\n33\r\n> ")
        session:send("function f(\r")
        session:expect(">> ")
        session:send("\3")
        session:expect("^C\r\n> ")
        session:line("6 * 7", "42\r\n")
        leave()
    end)

    it("remembers lines over sessions, for their owner only", function()
        start()
        session:line("'first'", "first\r\n")
        session:line("'second'", "second\r\n")
        session:line("'second'", "second\r\n") -- kept once
        session:line(" 'private'", "private\r\n") -- not kept
        session:send("\27[A\27[A\r") -- up, up
        session:expect("first\r\n> ")
        leave()
        assert.equal("'first'\n'second'\n'first'\n", helper.read(history_file()))
        assert.equal("600", mode(history_file()))
        start()
        session:send("\27[A\27[A\r")
        session:expect("second\r\n> ")
        leave()
    end)

    it("sets a damaged history aside and goes on without one it cannot write", function()
        helper.write(history_file(), "1\n\0\1\2\n")
        start()
        assert.truthy(session.all:find("history.damaged", 1, true), session.all)
        session:line("6 * 7", "42\r\n")
        leave()
        assert.equal("6 * 7\n", helper.read(history_file()))
        assert.equal("1\n\0\1\2\n", helper.read(history_file() .. ".damaged"))
        helper.write(state .. "/file", "")
        start({}, { XDG_STATE_HOME = state .. "/file" })
        session:line("6 * 7", "history is not saved")
        session:line("7 * 7", "49\r\n")
        leave()
    end)

    it("keeps a limited number of lines", function()
        local lines = {}
        for i = 1, 5000 do
            lines[i] = "x = " .. i
        end
        helper.write(history_file(), table.concat(lines, "\n") .. "\n")
        start()
        session:send("\27[A\r")
        session:expect("x = 5000")
        session:expect("> ")
        leave()
        local _, kept = helper.read(history_file()):gsub("\n", "")
        assert.equal(2000, kept)
        assert.equal("600", mode(history_file()))
    end)

    it("interrupts a Lua loop, a loop of ops and one that catches errors; the session stays", function()
        start()
        session:line("am.x = 1")
        for _, loop in ipairs { "while true do end", "while true do pcall(function() am.x = am.x + 1 end) end",
                                "a = am.ones{64, 64} while true do a:matmul(a) end",
                                "am.scope(function() am.no_grad(function() while true do end end) end)" } do
            session:send("print('be' .. 'gin') " .. loop .. "\r")
            session:expect("begin\r\n")
            session:send("\3")
            session:expect("interrupted")
            session:expect("> ")
            session:line("am.autograd.is_grad_enabled(), am.x > 0", "true\ttrue\r\n")
        end
        leave()
    end)

    it("ends on a second Ctrl-C while something cannot be interrupted, and on SIGTERM", function()
        start()
        session:send("print('be' .. 'gin') string.find(('a'):rep(60), ('a*'):rep(40) .. 'b')\r")
        session:expect("begin\r\n")
        repeat -- two that come too close together are one
            session:send("\3")
        until not session:read(300)
        assert.equal(128 + 2, session:status())
        start()
        os.execute("kill -TERM " .. session.pid)
        assert.equal(128 + 15, session:status())
        start()
        session:send("print('be' .. 'gin') while true do end\r")
        session:expect("begin\r\n")
        os.execute("kill -TERM " .. session.pid)
        session:expect("interrupted")
        assert.equal(130, session:status())
    end)

    it("steps a recipe by hand, interrupts a long step, and takes it again", function()
        local cfg = helper.config(helper.folder(), {
            validation_dataset = { _target_ = "am.datasets.build_unpacked_dataset", num_sentences = 4,
                                   vocab_size = 67 },
        })
        start()
        session:line(string.format("r = require('recipes.llm_finetune').new('%s', { '--optimizer.lr', '1e-3' })",
                                   helper.yaml(helper.folder(), cfg)))
        session:line("r:setup()", "Trainable parameters")
        session:line("r:step()", "grad_norm = ")
        session:line("r:evaluate()", "[val]")
        session:line("r.model", "LlamaForCausalLM")
        session:send("r.mod\t")
        session:expect("el") -- what waits behind a Tab makes it text that was pasted
        session:send(":num_param\t")
        session:expect("eters")
        session:send("()\r")
        session:expect("19040\t19040")
        session:expect("> ")
        -- a step that takes minutes
        session:line("w = r:next_window() for i = 1, 100000 do w[i] = w[1] end")
        session:send("print('be' .. 'gin') r:step()\r")
        session:expect("begin\r\n")
        session:send("\3")
        session:expect("interrupted")
        session:expect("> ")
        session:line("for i = #w, 3, -1 do w[i] = nil end")
        session:line("r:step()", "grad_norm = ")
        session:line("require('am.core.ffi').C.am_scope_depth()", "0\r\n")
        leave()
    end)

    it("goes on when Lua is out of memory", function()
        session = terminal.start({ "sh", "-c", "ulimit -v 700000; exec " .. helper.quote(helper.amlua) },
                                 { TERM = "xterm", XDG_STATE_HOME = state, HOME = state, OMP_NUM_THREADS = "1" })
        session:expect("> ")
        for _ = 1, 2 do
            session:line("q = {} for i = 1, 1e8 do q[i] = {} end", "not enough memory\r\n")
            session:line("#q > 1e6, 1 + 1", "true\t2\r\n")
            session:line("for i = #q + 1, 1e8 do q[i] = {} end", "not enough memory\r\n")
            session:line("q = nil")
            session:line("('x'):rep(1e8):len()", "100000000\r\n") -- its memory is back
        end
        leave()
    end)

    it("breaks a loop around a pcall around a loop", function()
        start()
        session:send("print('be' .. 'gin') while true do pcall(function() while true do end end) end\r")
        session:expect("begin\r\n")
        session:send("\3")
        session:expect("interrupted")
        session:expect("> ")
        session:line("pcall(string.rep, 'ab', 2)", "true\tabab\r\n") -- nothing is left of it
        leave()
    end)

    it("interrupts long loops of amlua's own Lua", function()
        start()
        session:send("print('be' .. 'gin') am.randperm(1e8)\r")
        session:expect("begin\r\n")
        session:send("\3")
        session:expect("interrupted", 5)
        session:expect("> ")
        leave()
    end)

    it("takes SIGINT for the key Ctrl-C while a line is typed", function()
        start()
        session:send("1 + ")
        session:expect("1 + ")
        os.execute("kill -INT " .. session.pid)
        session:expect("^C\r\n> ")
        os.execute("kill -WINCH " .. session.pid)
        session:line("6 * 7", "42\r\n")
        os.execute("kill -INT " .. session.pid)
        session:expect("^C\r\n> ")
        leave()
    end)

    it("reads UTF-8 where the locale says nothing", function()
        start({}, { LANG = "", LC_ALL = "C" })
        session:line("#'h\195\169llo'", "6\r\n")
        leave()
    end)

    it("takes the keys that terminals send for Home, End and words", function()
        start()
        session:send("3\27[H2\27[F4\27OH1\27OF5\r")
        session:expect("12345\r\n> ")
        session:send("34\27[1~\27[3~\r")
        session:expect("\n4\r\n> ")
        session:send("10 + 20\27[1;5D4\27[1;5D\27[1;5D1\r")
        session:expect("530\r\n> ") -- 110 + 420
        leave()
    end)

    it("takes a Tab in pasted text for a Tab", function()
        start()
        session:send("mathx = 5\r")
        session:expect("> ")
        session:send("function paste(ma)\n\tlocal x\t= 7\n\treturn ma\tor x\nend\n")
        session:line("paste()", "7\r\n")
        leave()
    end)

    it("stays after a script with -i", function()
        local script = helper.write(state .. "/s.lua",
                                    "answer, x = arg[1] * 2, am.ones{2} print('begin') while arg[2] do x = x + 1 end")
        start { "-i", script, "21" }
        session:line("answer", "42\r\n")
        leave()
        session = terminal.start({ helper.amlua, "-i", script, "21", "loop" },
                                 { TERM = "xterm", XDG_STATE_HOME = state })
        session:expect("begin\r\n")
        session:send("\3")
        session:expect("interrupted")
        session:expect("> ")
        leave()
    end)

    it("is plain on a terminal that can do nothing", function()
        start({}, { TERM = "dumb" })
        session:line("1 + 1", "2\r\n")
        for _, text in ipairs { "", "1 +", "for i = 1, 2 do\r" } do -- each gives up what was typed so far
            session:send(text)
            session:expect((text:gsub("\r", "\r\n>> ")))
            session:send("\3")
            session:expect("^C\r\n> ")
        end
        session:line("6 * 7", "42\r\n")
        leave()
        start({}, { TERM = "dumb" })
        os.execute("kill -TERM " .. session.pid)
        assert.equal(130, session:status())
    end)
end)
