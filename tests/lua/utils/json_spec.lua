-- am.utils.json: exact numbers, order, arrays apart from objects, hostile text.
local json = require("am.utils.json")
local number = require("am.utils.number")

describe("am.utils.json numbers", function()
    -- Right side: Python's repr / json.dumps.
    local cases = {
        { 0, "0" }, { -0.0, "-0.0" }, { 1, "1" }, { 0.1, "0.1" }, { 1e-5, "1e-05" }, { 2e-4, "0.0002" },
        { 1e16, "1e+16" }, { 123456789012345680, "1.2345678901234568e+17" }, { 2 ^ 53, "9007199254740992" },
        { 1 / 3, "0.3333333333333333" }, { 5e-324, "5e-324" }, { 2 ^ -44, "5.684341886080802e-14" },
        { 1.7976931348623157e308, "1.7976931348623157e+308" }, { -1.5, "-1.5" }, { 100.25, "100.25" },
        { 9.5367431640625e-07, "9.5367431640625e-07" }, { 0.0001, "0.0001" }, { 0.00001234, "1.234e-05" },
        { 2 ^ -25, "2.9802322387695312e-08" },
        { 1e22, "1e+22" }, { 2.5e15, "2500000000000000" }, { 1234567.125, "1234567.125" },
    }
    for _, case in ipairs(cases) do
        it("writes " .. case[2], function()
            assert.equal(case[2], json.encode(case[1]))
            assert.equal(case[1], json.decode(case[2]))
        end)
    end

    it("round-trips random doubles and every power of two", function()
        local seed = 12345
        local function random()
            seed = (seed * 1103515245 + 12345) % 2 ^ 31
            return seed / 2 ^ 31
        end
        for i = 1, 20000 do
            local x = i <= 2000 and 2 ^ (i - 1050) or (random() - 0.5) * 10 ^ math.floor(random() * 600 - 300)
            if x ~= math.huge then
                assert.equal(x, tonumber(number.text(x)))
            end
        end
    end)

    it("keeps a float a float when asked", function()
        assert.equal('{"a": 1.0, "b": 1}', json.encode({ a = json.float(1), b = 1 }))
        local text = '{"rope_theta": 10000.0, "big": 1000000000000000019884624838656, "n": 3}'
        local value = json.decode(text, { ordered = true, exact_numbers = true })
        assert.equal(text, json.encode(value))
        assert.equal(10000, value.rope_theta.value)
        assert.equal(3, value.n)
    end)

    it("has a policy for what JSON cannot hold", function()
        assert.has_error(function() json.encode({ x = 0 / 0 }) end)
        assert.equal("[null, null]", json.encode({ 0 / 0, 1 / 0 }, { nan = "null" }))
        assert.equal("[NaN, Infinity, -Infinity]", json.encode({ 0 / 0, 1 / 0, -1 / 0 }, { nan = "bare" }))
        assert.is_nil(json.decode("[NaN]"))
        local v = json.decode("[NaN, -Infinity]", { nan = true })
        assert.is_true(v[1] ~= v[1])
        assert.equal(-math.huge, v[2])
    end)
end)

describe("am.utils.json structure", function()
    it("prints as Python's json.dumps(indent=2)", function()
        local t = json.object({ b = json.array { 1, "x" }, a = json.array(), c = json.object() }, { "b", "a", "c" })
        assert.equal('{\n  "b": [\n    1,\n    "x"\n  ],\n  "a": [],\n  "c": {}\n}', json.encode(t, { indent = 2 }))
        assert.equal('{"a":[],"b":[1,"x"],"c":{}}', json.encode(t, { separators = "compact", sort_keys = true }))
        assert.equal('{"z": 1, "a": 2}', json.encode({ a = 2, z = 1 }, { keys = { "z", "absent" } }))
    end)

    it("keeps arrays apart from objects and null apart from absence", function()
        local v = json.decode('{"a": [], "o": {}, "n": null, "l": [null, 1]}')
        assert.is_true(json.is_array(v.a))
        assert.is_false(json.is_array(v.o))
        assert.equal(json.null, v.n)
        assert.equal(2, #v.l)
        assert.equal('{"a": [], "l": [null, 1], "n": null, "o": {}}', json.encode(v))
    end)

    it("keeps key order and puts new keys after it", function()
        local v = json.decode('{"z": 1, "a": 2, "m": 3}', { ordered = true })
        v.a, v.new = nil, 4
        assert.equal('{"z": 1, "m": 3, "new": 4}', json.encode(v))
    end)

    it("escapes strings as Python does", function()
        local s = 'a"\\/\b\f\n\r\t\0\31\127é😀'
        local text = '"a\\"\\\\/\\b\\f\\n\\r\\t\\u0000\\u001f\127\\u00e9\\ud83d\\ude00"'
        assert.equal(text, json.encode(s, { ascii = true }))
        assert.equal(s, json.decode(text))
        assert.equal(s, json.decode(json.encode(s)))
        assert.equal("😀/", json.decode('"\\uD83D\\uDE00\\/"'))
    end)

    it("refuses cycles, functions and odd keys", function()
        local cycle = {}
        cycle[1] = cycle
        assert.has_error(function() json.encode(cycle) end)
        assert.has_error(function() json.encode({ f = print }) end)
        assert.has_error(function() json.encode({ [{}] = 1 }) end)
    end)
end)

describe("am.utils.json hostile text", function()
    local bad = {
        "", " ", "{", "[", "[1", "[1,", "[1,]", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{a:1}", "nul", "nullx", "tru",
        "01", "-", "1.", ".5", "+1", "0x10", "1e", "1e+", "\"", "\"\\x\"", "\"\\u12\"", "\"\\ud800\"", "\"\\ude00\"",
        "\"\\ud800\\u0041\"", "\"a\nb\"", "\"\0\"", "1 2", "[1] x", "'a'", "/*c*/1", "Infinity", "\255", "[1\0]",
        "\"\\", "\"\\u",
    }
    for _, text in ipairs(bad) do
        it(string.format("refuses %q", text), function()
            local value, message = json.decode(text)
            assert.is_nil(value)
            assert.matches("^not JSON at line %d+, column %d+: ", message)
        end)
    end

    it("caps depth", function()
        assert.is_nil(json.decode(("["):rep(100000)))
        assert.is_nil(json.decode(("[1,"):rep(300) .. "1" .. ("]"):rep(300)))
        assert.is_table(json.decode(("["):rep(200) .. ("]"):rep(200)))
        assert.is_nil(json.decode("[[[]]]", { max_depth = 2 }))
    end)

    it("names line and column", function()
        local _, message = json.decode('{"a": 1,\n "b": x}')
        assert.equal("not JSON at line 2, column 7: not a value", message)
    end)

    it("reads a byte order mark and a bare false", function()
        assert.equal(false, json.decode("\239\187\191false"))
    end)
end)
