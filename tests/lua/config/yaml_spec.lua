-- am.config reading YAML: order, places, anchors, what is refused, and hostile text.
local config = require("am.config")
local err = require("am.core.error")

local function fails(text, pattern)
    local ok, e = pcall(config.parse, text, { name = "run.yaml" })
    assert.is_false(ok, "no error for " .. text:sub(1, 80))
    assert.is_true(err.is(e), tostring(e))
    assert.equal("usage", e.code)
    assert.matches(pattern, e.msg)
end

describe("am.config YAML", function()
    it("keeps key order and places", function()
        local cfg = config.parse("z: 1\na:\n  y: 2\n  b:\n    - 3\n    - c: 4\n", { name = "run.yaml" })
        assert.same({ "z", "a" }, cfg:keys())
        assert.same({ "y", "b" }, cfg:child("a"):keys())
        assert.equal("run.yaml:2", cfg:where("a"))
        assert.equal("run.yaml:5", cfg:where("a.b.0"))
        assert.equal("run.yaml:6", cfg:where("a.b.1.c"))
        assert.equal("a.b.1.c", cfg:child("a.b.1.c"):path())
        assert.equal("run.yaml:4", cfg:where("a.b.7.x"))
    end)

    it("expands anchors into copies", function()
        local cfg = config.parse("a: &x {k: 1}\nb: *x\nc:\n  <<: *x\n  l: 2\n", { name = "run.yaml" })
        cfg:set("b.k", 5)
        assert.equal(1, cfg:get("a.k"))
        assert.equal(5, cfg:get("b.k"))
        assert.equal("run.yaml:1", cfg:where("c.k"))
    end)

    it("reads an empty file as an empty map", function()
        for _, text in ipairs { "", "# only a comment\n", "---\n", "{}", "\239\187\191" } do
            assert.same({}, config.parse(text):keys())
        end
    end)

    it("names file, line and column", function()
        fails("a: 1\nb: [1\n",
            "^run%.yaml:3:1: did not find .* %(while parsing a flow sequence that starts at line 2%)")
        fails("a: 1\n\tb: 2\n", "^run%.yaml:2:1: found a tab character .*; indent with spaces")
        fails("a:\n\tb: 2\n", "^run%.yaml:2:1: found a tab; indent with spaces")
        fails("é:\n  b: 1\n  \tc: 2\n", "^run%.yaml:3:3: found a tab")
        fails("a: @x\n", "^run%.yaml:1:4: found character that cannot start any token")
        fails("a: 1\nb: 2\na: 3\n", '^run%.yaml:3:1: key "a" is there already, at line 1$')
        fails("a: {b: 1, b: 2}", '^run%.yaml:1:11: key "b"')
        fails("a: *x\n", "^run%.yaml:1:4: no anchor &x before this alias")
        fails("a: &x [1, *x]\n", "^run%.yaml:1:11: alias %*x is inside what it names")
        fails("a: &x {b: *x}\n", "alias %*x is inside")
        fails("- 1\n", "^run%.yaml:1:1: a configuration is a map of sections, not a list")
        fails("text", "not a single value")
        fails("a: 1\n---\nb: 2\n", "^run%.yaml:2:1: a second document")
        fails("? [1]\n: 2\n", "a key must be plain text")
        fails("a: &k x\n*k : 2\n", "a key must be plain text, not an alias")
        fails("'': 1\n", "empty key")
        fails(("k"):rep(300) .. ": 1\n", "key of 300 bytes")
        fails("<<: 3\n", "<< takes a map")
        fails("<<: [{a: 1}, 3]\n", "<< takes a map")
    end)

    it("refuses tags that make objects", function()
        for _, tag in ipairs { "!!python/object/apply:os.system", "!foo", "!!binary", "!!set", "!!map",
            "!!timestamp" } do
            fails("a: " .. tag .. " x\n", "tag \".*\" is not allowed")
        end
        fails("a: !!python/tuple [1]\n", "not allowed")
        fails("a: !!int x\n", '"x" is not a !!int')
        fails("a: !!int 1.5\n", "not a !!int")
        fails("a: !!bool 1\n", "not a !!bool")
    end)
end)

describe("am.config hostile YAML", function()
    it("names bytes that are not text", function()
        fails("a: b\0c", "^run%.yaml:1:5: control character 0x00")
        fails("a: 1\nb: \27[2J", "^run%.yaml:2:4: control character 0x1b")
        fails("a: \194\128", "^run%.yaml:1:4: control character 0x80")
        for _, bytes in ipairs { "\255", "\192\128", "\237\160\128", "\244\144\128\128", "\226\130", "\128",
            "\224\128\128" } do
            fails("a: 1\nb: x" .. bytes, "^run%.yaml:2:5: byte 0x%x%x is not UTF%-8")
        end
        fails("\255\254a\0:\0", "byte 0xff is not UTF%-8")
    end)

    it("does not lose what follows an escaped NUL", function()
        for _, text in ipairs { 'a: "x\\0y"', 'a: "\\x00"', 'é: "é\\u0000"', 'a: "\\U00000000"', '"a\\0b": 1',
            'a: "\\\\\\0"' } do
            fails(text, "NUL in a string")
        end
        assert.equal("\\0", config.parse("a: '\\0'"):get("a"))
        assert.equal("\\0", config.parse('a: "\\\\0"'):get("a"))
    end)

    it("caps depth", function()
        local depth = 200000
        fails("a: " .. ("["):rep(depth), "nested more than 64 deep")
        fails("a: " .. ("{a: "):rep(depth), "nested more than 64 deep")
        fails("a: " .. ("- "):rep(depth), "run%.yaml")
        fails("a:\n  " .. ("- "):rep(1000) .. "x", "nested more than 64 deep")
        fails("a: &a " .. ("["):rep(40) .. ("]"):rep(40) .. "\nb: " .. ("["):rep(40) .. "*a" .. ("]"):rep(40),
            "nested more than 64 deep")
        assert.is_table(config.parse("a: " .. ("["):rep(60) .. ("]"):rep(60)):get("a"))
        -- A literal in a string is a value of its own; too deep a one stays text.
        assert.is_string(config.parse('a: "' .. ("["):rep(400) .. ("]"):rep(400) .. '"'):get("a"))
    end)

    it("caps alias bombs", function()
        local lines = { "a0: &a0 [x, x, x, x, x, x, x, x, x]" }
        for i = 1, 20 do
            local alias = "*a" .. (i - 1)
            lines[#lines + 1] = string.format("a%d: &a%d [%s]", i, i, (alias .. ", "):rep(8) .. alias)
        end
        fails(table.concat(lines, "\n"), "more than 100000 values, aliases expanded")
        lines = { "a0: &a0 {k: v, l: w}" }
        for i = 1, 40 do
            lines[#lines + 1] = string.format("a%d: &a%d {x: *a%d, y: *a%d}", i, i, i - 1, i - 1)
        end
        fails(table.concat(lines, "\n"), "more than 100000 values")
        -- Literals count too: an anchored one is no way round the cap.
        lines = { "a: &a '" .. ("[" .. ("1,"):rep(480) .. "]") .. "'" }
        for i = 1, 300 do
            lines[#lines + 1] = string.format("b%d: *a", i)
        end
        fails(table.concat(lines, "\n"), "more than 100000 values")
    end)

    it("takes huge scalars and refuses huge files", function()
        local big = ("x"):rep(1000000)
        assert.equal(big, config.parse("a: " .. big):get("a"))
        assert.equal(big, config.parse("a: '" .. big .. "'"):get("a"))
        assert.equal(("1"):rep(100000), config.parse("a: " .. ("1"):rep(100000)):get("a"))
        fails("a: " .. ("x"):rep(5000000), "at most 4194304")
        fails(("- "):rep(100) .. "\n", "not a list")
    end)

    it("survives every truncation and many damaged bytes of a real file", function()
        local text = table.concat({
            "model: &m", "  _target_: a.b.c", "  lr: 1e-5", "  betas: [0.9, 0.999]", "other:", "  <<: *m",
            "  name: \"q\\u00e9\"", "  text: |", "    one", "    two", "  'single': !!str 3", "",
        }, "\n")
        local function try(candidate)
            local ok, e = pcall(config.parse, candidate, { getenv = function() end })
            assert.is_true(ok or (err.is(e) and e.code == "usage"), tostring(e))
        end
        for i = 0, #text do
            try(text:sub(1, i))
        end
        local seed = 7
        for _ = 1, 3000 do
            seed = (seed * 1103515245 + 12345) % 2 ^ 31
            local at = seed % #text + 1
            seed = (seed * 1103515245 + 12345) % 2 ^ 31
            try(text:sub(1, at - 1) .. string.char(math.floor(seed / 256) % 256) .. text:sub(at + 1))
        end
    end)
end)
