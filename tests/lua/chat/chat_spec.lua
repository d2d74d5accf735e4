-- The Lua side of am.chat: conversion of data, checks of messages, spans, limits and error objects.
-- The template language itself is covered by goldens_spec.lua.

local cjson = require "cjson"
local chat = require "am.chat"
local err = require "am.core.error"
local json = require "am.utils.json"

-- Renders with no messages.
local function render(template, vars, opts)
    vars = vars or {}
    vars.messages = vars.messages or {}
    return (chat.compile(template, opts):render(vars))
end

-- The error object that fn raises; checks its code and that its message has `pattern`.
local function fails(code, pattern, fn, ...)
    local ok, e = pcall(fn, ...)
    assert.is_false(ok, "no error")
    assert.is_true(err.is(e), "not an error object: " .. tostring(e))
    assert.equal(code, e.code)
    assert.is_truthy(e.msg:find(pattern), e.msg)
    return e
end

describe("chat data", function()
    it("takes what am.utils.json reads: order, null, empty arrays, floats", function()
        local x = json.decode('{"b": [], "a": {}, "c": null, "d": [1, {"z": true, "y": 2.5}]}', { ordered = true })
        assert.equal("{'b': [], 'a': {}, 'c': None, 'd': [1, {'z': True, 'y': 2.5}]} 1.0",
            render("{{ x }} {{ f }}", { x = x, f = json.float(1) }))
    end)

    it("tells arrays from maps and sorts the keys of plain tables", function()
        local vars = { x = { 1, 2 }, y = { b = { true }, a = 1 } }
        assert.equal("[1, 2] {'a': 1, 'b': [True]}", render("{{ x }} {{ y }}", vars))
    end)

    it("takes an empty table for a dict, and for a list at the top of tools", function()
        assert.equal("{} []", render("{{ x }} {{ tools }}", { x = {}, tools = {} }))
    end)

    it("maps cjson.null to None and integral numbers to int", function()
        assert.equal("None 3 2.5", render("{{ x }} {{ y }} {{ z }}", { x = cjson.null, y = 3, z = 2.5 }))
    end)

    it("keeps order, floats and empty lists from chat.from_json", function()
        local tools = chat.from_json '[{"z": 1.0, "a": [], "m": {}, "u": "\\ud83d\\ude00\\n"}]'
        assert.equal('[{"z": 1.0, "a": [], "m": {}, "u": "😀\\n"}]', render("{{ tools|tojson }}", { tools = tools }))
    end)

    it("shows what templates cannot use as a placeholder", function()
        local image = setmetatable({}, { __index = function() error("touched") end })
        assert.equal("<function> <object> <cdata>",
            render("{{ f }} {{ o }} {{ c }}", { f = print, o = image, c = require("ffi").new("int[1]") }))
    end)

    it("refuses mixed tables, holes, odd keys and cycles, naming the place", function()
        fails("data", "^x: .*mixes", render, "", { x = { 1, a = 2 } })
        fails("data", "^x%.y: .*hole at 2", render, "", { x = { y = { [1] = 1, [3] = 3 } } })
        fails("data", "^x: .*key is a boolean", render, "", { x = { [true] = 1 } })
        local cycle = {}
        cycle.me = cycle
        fails("data", "levels deep", render, "", { x = cycle })
    end)

    it("refuses malformed JSON with the byte", function()
        local malformed = { "", "{", "[1,]", '{"a" 1}', '"\\x"', '"a', "01", "1.", "nul", "[] []", '"\\ud83"', "\1" }
        for _, text in ipairs(malformed) do
            fails("data", "^JSON, byte %d+", chat.from_json, text)
        end
        fails("data", "levels deep", chat.from_json, ("["):rep(1000))
    end)
end)

describe("chat messages", function()
    it("are checked, naming the index", function()
        local template = chat.compile "x"
        local function check(pattern, messages)
            fails("data", pattern, template.render, template, { messages = messages })
        end
        check("got nil", nil)
        check("got string", "hello")
        check("named fields", { role = "user", content = "x" })
        check("messages%[2%]", { { role = "user", content = "x" }, "y" })
        check("messages%[1%].*no 'role'", { { content = "x" } })
        check("messages%[1%]%.role.*got int", { { role = 1, content = "x" } })
        check("messages%[2%]%.content.*got int", { { role = "user", content = "x" }, { role = "user", content = 5 } })
        check("messages%[1%]", { { { role = "user" } } })
    end)

    it("may lack content or hold parts", function()
        local source = "{% for m in messages %}{{ m.content is defined }}{{ m.content is sequence }} {% endfor %}"
        local messages = {
            { role = "user", content = { { type = "text", text = "x" } } }, { role = "assistant" },
            { role = "assistant", content = cjson.null },
        }
        assert.equal("TrueTrue FalseTrue TrueFalse ", (chat.apply(source, messages)))
    end)

    it("are not changed by rendering", function()
        local messages = { { role = "assistant", content = "a", reasoning = "r" } }
        chat.apply("{{ messages }}", messages)
        assert.same({ { role = "assistant", content = "a", reasoning = "r" } }, messages)
    end)
end)

describe("chat rendering", function()
    it("gives generation spans in bytes", function()
        local source = "{% for m in messages %}é{% generation %}{{ m.content }}{% endgeneration %}.{% endfor %}"
        local text, spans = chat.apply(source, { { role = "user", content = "ü😀" }, { role = "user", content = "" } })
        assert.equal("éü😀.é.", text)
        assert.equal("ü😀", text:sub(spans[1][1], spans[1][2]))
        assert.same({ { 3, 8 }, { 12, 11 } }, spans)
        assert.is_true(chat.compile(source).has_generation)
        assert.is_false(chat.compile("{{ generation }}").has_generation)
    end)

    it("is repeatable and keeps nothing between calls", function()
        local template = chat.compile "{% set ns = namespace(n=0) %}{% set ns.n = ns.n + 1 %}{{ ns.n }}{{ x }}"
        assert.equal("1a", (template:render { messages = {}, x = "a" }))
        assert.equal("1", (template:render { messages = {} }))
    end)

    it("takes the time from `now`", function()
        local template = chat.compile("{{ strftime_now('%d %b %Y') }}", { now = 86400 * 365.25 })
        assert.equal("01 Jan 1971", (template:render { messages = {} }))
    end)

    it("takes a compiled template in apply", function()
        assert.equal("1True", (chat.apply(chat.compile "{{ messages|length }}{{ add_generation_prompt }}",
            { { role = "user", content = "x" } }, { add_generation_prompt = true })))
    end)
end)

-- What the assistant wrote, each turn with its header in brackets.
local function turns_of(source, vars)
    local text, turns = chat.compile(source):turns(vars)
    local out = {}
    for i, turn in ipairs(turns or {}) do
        out[i] = "[" .. text:sub(turn[1], turn.answer - 1) .. "]" .. text:sub(turn.answer, turn[2])
    end
    return turns and table.concat(out, "|") or nil, text
end

local function talk(more)
    local messages = {
        { role = "system", content = "s" }, { role = "user", content = "u" }, { role = "assistant", content = "a" },
        { role = "user", content = "v" }, { role = "assistant", content = "b" },
    }
    local vars = { messages = messages, eos_token = "</s>" }
    for name, v in pairs(more or {}) do vars[name] = v end
    return vars
end

local LOOP = "{% for m in messages %}{{ '<' + m.role + '>' + m.content + '.' }}{% endfor %}"
local PROMPT = "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"

describe("turns of the assistant", function()
    it("are what its rounds of the loop write, the header of a prompt apart", function()
        assert.equal("[<assistant>]a.|[<assistant>]b.", (turns_of(LOOP .. PROMPT, talk())))
        assert.equal("[<assistant>]a.|[<assistant>]b.",
            (turns_of(LOOP .. PROMPT, talk { add_generation_prompt = true })))
        -- without a prompt to compare with: what all of its turns begin with
        assert.equal("[<assistant>]a.|[<assistant>]b.", (turns_of(LOOP, talk())))
    end)

    it("are found in loops of other shapes", function()
        local say = "{{ '<' + m.role + '>' + m.content + '.' }}"
        local by_index = "{% for i in range(messages|length) %}{% set m = messages[i] %}" .. say .. "{% endfor %}"
        assert.equal("[<assistant>]a.|[<assistant>]b.", (turns_of(by_index .. PROMPT, talk())))
        local sliced = "{% set rest = messages[1:] %}{% for m in rest %}" .. say .. "{% endfor %}"
        assert.equal("[<assistant>]a.|[<assistant>]b.", (turns_of(sliced .. PROMPT, talk())))
        local last_apart = "{% for m in messages[:-1] %}" .. say .. "{% endfor %}"
            .. "{% set m = messages[-1] %}" .. say
        assert.equal("[<assistant>]a.|[<assistant>]b.", (turns_of(last_apart, talk())))
        -- another message's text in the midst of a turn, as Gemma 4 writes the results of tools
        local nested = "{% for m in messages %}{% if m.role != 'tool' %}{{ '<' + m.role + '>' }}"
            .. "{% for t in messages[loop.index:] if t.role == 'tool' %}{{ '(' + t.content + ')' }}{% endfor %}"
            .. "{{ m.content }}{% endif %}{% endfor %}"
        assert.equal("[<assistant>]|[]a", (turns_of(nested, { messages = {
            { role = "assistant", content = "a" }, { role = "tool", content = "t" } } })))
        local macro = "{% macro say(m) %}" .. say .. "{% endmacro %}{% for m in messages %}{{ say(m) }}{% endfor %}"
        assert.equal("[<assistant>]a.|[<assistant>]b.", (turns_of(macro, talk())))
    end)

    it("end with what ends the text, and keep the tag that opens reasoning", function()
        local ends = "{% if not add_generation_prompt %}{{ eos_token }}{% endif %}"
        assert.equal("[<assistant>]a.|[<assistant>]b.</s>", (turns_of(LOOP .. PROMPT .. ends, talk())))
        local thinks = "{% for m in messages %}{{ '<' + m.role + '>' }}{% if m.role == 'assistant' %}"
            .. "{{ '<think>' + (m.reasoning_content or '') + '</think>' }}{% endif %}{{ m.content }}{% endfor %}"
            .. "{% if add_generation_prompt %}{{ '<assistant><think>' }}{% endif %}"
        local vars = talk()
        vars.messages[3].reasoning_content = "r"
        assert.equal("[<assistant>]<think>r</think>a|[<assistant>]<think></think>b", (turns_of(thinks, vars)))
    end)

    it("are the generation blocks where there are some", function()
        local source = "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}{% generation %}"
            .. "{{ m.content }}{% endgeneration %}{% endif %}.{% endfor %}"
        assert.equal("[]a|[]b", (turns_of(source, talk())))
    end)

    it("are not told by a template that writes elsewhere", function()
        local turns, text = turns_of("{% set ns = namespace(t='') %}{% for m in messages %}"
            .. "{% set ns.t = ns.t ~ m.content %}{% endfor %}{{ ns.t }}", talk())
        assert.is_nil(turns)
        assert.equal("suavb", text)
        assert.equal("", (turns_of(LOOP, { messages = {} }) or ""))
    end)

    it("tell a message that is there twice", function()
        local twice = chat.from_json '[{"role":"assistant","content":"a"}]'
        twice[2] = twice[1]
        assert.equal("[<assistant>]a.|[<assistant>]a.", (turns_of(LOOP, { messages = twice })))
    end)
end)

describe("a message that is continued", function()
    local function continued(source, messages, field)
        return (chat.compile(source):render { messages = messages, continue_final_message = field or true })
    end
    local question = { role = "user", content = "q" }

    it("ends the text", function()
        local half = { role = "assistant", content = " one " }
        assert.equal("<user>q.<assistant> one ", continued(LOOP, { question, half }))
        local trimmed = "{% for m in messages %}{{ m.content|trim }}.{% endfor %}"
        assert.equal("q.one", continued(trimmed, { question, half }))
        local parts = "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}.{% endfor %}"
        local messages = { { role = "assistant", content = { { type = "text", text = "a" }, { type = "image" } } } }
        assert.equal("a", continued(parts, messages))
        assert.equal("a", messages[1].content[1].text)
    end)

    it("may be its reasoning, under any of its names", function()
        local thinks = "{% for m in messages %}{{ m.thinking }}|{{ m.content }}{% endfor %}"
        local messages = { { role = "assistant", content = "c", reasoning = "half a" } }
        assert.equal("half a", continued(thinks, messages, "reasoning"))
    end)

    it("must be there, and in the text", function()
        local function check(pattern, source, messages, field)
            fails("data", "^continue_final_message: .*" .. pattern, continued, source, messages, field)
        end
        check("no message", LOOP, {})
        check("no 'content'", LOOP, { { role = "assistant" } })
        check("is dict", LOOP, { { role = "assistant", content = { a = 1 } } })
        check("no text to continue", LOOP, { { role = "assistant", content = { { type = "image" } } } })
        check("does not read 'thinking'", LOOP, { { role = "assistant", thinking = "x", content = "y" } }, "thinking")
        check("changes it", "{% for m in messages %}{{ m.content|upper }}{% endfor %}",
            { { role = "assistant", content = "x" } })
    end)
end)

describe("chat errors", function()
    it("name the line", function()
        fails("format", "line 3", chat.compile, "a\n\n{% if %}")
        fails("format", "line 4.*'x' is undefined", render, "a\n{{ 1 }}\n{% if true %}\n{{ x.y }}{% endif %}")
        fails("data", "line 2: no!", render, "\n{{ raise_exception('no!') }}")
        fails("unsupported", "line 1.*include", chat.compile, "{% include 'x' %}")
        fails("usage", "must be a string", chat.compile, nil)
    end)

    it("come from limits on work, output and nesting", function()
        local endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
        fails("format", "steps", render, endless)
        fails("format", "steps", render, "{% for a in range(10) %}{% endfor %}", {}, { steps = 10 })
        fails("format", "bytes", render, "{{ 'x' * 1000000000000 }}")
        fails("format", "bytes", render, "{% for a in range(20) %}0123456789{% endfor %}", {}, { output = 100 })
        fails("format", "bytes", render,
            "{% set ns = namespace(s='x') %}{% for a in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}")
        fails("format", "bytes", render, "{{ ('a' * 100000)|replace('a', 'b' * 100000) }}")
        fails("format", "bytes", render, "{{ ('a' * 1000000)|join('b' * 1000) }}")
        fails("format", "too large", render, "{{ '%999999999d' % 1 }}")
        fails("format", "bytes", render, "{{ 'a'.center(10000000000) }}")
        fails("format", "range", render, "{{ range(100001) }}")
        fails("format", "steps", render, "{{ [0] * 1000000000 }}")
        fails("format", "nested", chat.compile, "{{ " .. ("("):rep(5000) .. (")"):rep(5000) .. " }}")
        fails("format", "nested", chat.compile, ("{% if 1 %}"):rep(5000))
        fails("format", "nested", chat.compile, "{{ " .. ("not "):rep(5000) .. "1 }}")
        fails("format", "nested", chat.compile, "{{ " .. ("-"):rep(5000) .. "1 }}")
        fails("format", "nested", render, "{{ 1" .. ("+1"):rep(5000) .. " }}")
        fails("format", "nested", render, "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}")
        fails("format", "nested", render, "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}")
        fails("format", "nested", render, "{% set n = namespace() %}{% set n.n = n %}{{ n }}")
        fails("format", "steps", render,
            "{% set n = namespace(x=[]) %}{% for i in range(90) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}")
        fails("format", "limit", chat.compile, (" "):rep(5 * 1024 * 1024))
    end)

    -- Each took from ten seconds to for ever, or gigabytes, when work on text was charged less than it costs. They
    -- take less than one second; the bound is wide for a busy machine.
    it("come before a second is over", function()
        local hostile = {
            "{% set s = 'a' * 10000000 %}{% for i in range(1000) %}{{ s.find('a' * 100000 ~ 'b') }}{% endfor %}",
            "{% set s = 'a' * 10000000 %}{% for i in range(1000) %}{{ ('a' * 100000 ~ 'b') in s }}{% endfor %}",
            "{% set s = 'a' * 9999999 %}{% for i in range(99999) %}{% set u = s < s ~ 'a' %}{% endfor %}",
            "{% for i in range(100) %}{{ ('ab' * 5000000).rsplit('a')|length }}{% endfor %}",
            "{% for i in range(100) %}{{ ('\n' * 10000000).splitlines()|length }}{% endfor %}",
            "{% for i in range(100) %}{{ ('a ' * 5000000)|title|length }}{% endfor %}",
            "{% for i in range(100) %}{{ ('a' * 10000000).strip('a') }}{% endfor %}",
            "{% for i in range(1000) %}{% set x = ('é' * 1000000)|upper %}{% endfor %}",
            "{{ ('é' * 8000000)|urlencode|length }}{{ ('é' * 8000000)|urlencode|length }}",
            "{{ ('{:>99999}' * 10000).format(*range(10000)) }}",
            "{{ ([1] * 100000)|tojson(separators=('x' * 100000, ':')) }}",
            "{{ ([[[[1]]]] * 100000)|tojson(indent=900) }}",
            "{% set n = namespace(s=()) %}{% for a in range(60) %}{% set n.s = (n.s, n.s) %}{% endfor %}{{ {n.s: 1} }}",
            "{% macro m(n) %}{% if n > 0 %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
            "{{ 1" .. ("+1"):rep(500000) .. " }}",
            "{% macro m() %}{{ x" .. (".x"):rep(500000) .. " }}{% endmacro %}",
            (" "):rep(1000000) .. "{% if 1 %}{{ nothing() }}",
        }
        for _, template in ipairs(hostile) do
            local before = os.clock()
            fails("format", "line %d", render, template)
            local took = os.clock() - before
            assert.is_true(took < 4, ("%.1f s: %s"):format(took, template:sub(1, 100)))
        end
    end)

    it("bound the Lua stack in the deepest templates that parse", function()
        local deep = ("("):rep(140) .. "m()" .. (")"):rep(140)
        fails("format", "nested", render, "{% macro m() %}{{ " .. deep .. " }}{% endmacro %}{{ m() }}")
        local blocks = ("{% if 1 %}"):rep(140) .. "{{ m() }}" .. ("{% endif %}"):rep(140)
        fails("format", "nested", render, "{% macro m() %}" .. blocks .. "{% endmacro %}{{ m() }}")
        local lists = ("["):rep(140) .. "m()" .. ("]"):rep(140)
        fails("format", "nested", render, "{% macro m() %}{{ " .. lists .. "|tojson }}{% endmacro %}{{ m() }}")
    end)
end)

describe("chat sandbox", function()
    it("reaches no Lua", function()
        for _, name in ipairs { "os", "io", "require", "_G", "string", "print", "self", "rt" } do
            assert.equal("False", render("{{ " .. name .. " is defined }}"))
        end
        assert.equal("", render("{{ x.keys }}{{ x.map }}{{ x.kind }}", { x = { 1 } }))
        assert.equal("", render("{{ range.call }}{{ range.callable }}{{ none.kind }}{{ 'a'.text }}{{ messages.kind }}"))
        fails("format", "unsafe", render, "{{ x.append(1) }}", { x = { 1 } })
    end)
end)
