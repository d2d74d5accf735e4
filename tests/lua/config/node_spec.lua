-- ConfigNode: reading, writing, overrides, environment, printing, secrets.
local args = require("am.cli.args")
local config = require("am.config")
local err = require("am.core.error")
local path = require("am.utils.path")

local TEXT = [[
seed: 42
model:
  name: x
  empty: null
  "dotted.key": 7
  list: [1, {a: b}, null]
optimizer:
  lr: 1e-5
  betas: [0.9, 0.999]
]]

local function parse(text, opts)
    opts = opts or {}
    opts.name = "run.yaml"
    return config.parse(text, opts)
end

describe("am.config node", function()
    it("gets by dotted path", function()
        local cfg = parse(TEXT)
        assert.equal(42, cfg:get("seed"))
        assert.equal(1e-5, cfg:get("optimizer.lr"))
        assert.equal(0.999, cfg:get("optimizer.betas.1"))
        assert.equal("b", cfg:get("model.list.1.a"))
        assert.equal(7, cfg:get("model.dotted.key"))
        assert.is_true(config.is_node(cfg:get("model")))
        assert.equal("x", cfg:get("model"):get("name"))
        local list = cfg:get("model.list")
        assert.equal(3, #list)
        assert.is_true(config.is_node(list[2]))
        assert.equal(config.null, list[3])
    end)

    it("keeps null apart from absence", function()
        local cfg = parse(TEXT)
        assert.is_nil(cfg:get("model.empty", "default"))
        assert.is_true(cfg:has("model.empty"))
        assert.equal("default", cfg:get("model.none", "default"))
        for _, absent in ipairs { "none", "seed.x", "model.list.3", "model.list.-1", "model.list.x", "", ".",
            "model." } do
            assert.is_false(cfg:has(absent), absent)
        end
    end)

    it("turns into plain tables", function()
        local t = parse(TEXT):to_table()
        assert.equal("x", t.model.name)
        assert.is_nil(t.model.empty)
        assert.equal("b", t.model.list[2].a)
        assert.equal(config.null, t.model.list[3])
        assert.equal(config.null, parse(TEXT):to_table(true).model.empty)
    end)

    it("iterates in order", function()
        local keys = {}
        for key in parse(TEXT):child("model"):pairs() do
            keys[#keys + 1] = key
        end
        assert.same({ "name", "empty", "dotted.key", "list" }, keys)
    end)

    it("sets, makes maps on the way, replaces lists, unsets", function()
        local cfg = parse(TEXT)
        cfg:set("a.b.c", { 1, { d = true } })
        assert.is_true(cfg:get("a.b.c.1.d"))
        cfg:set("optimizer.betas.0", 0.5)
        assert.equal(0.5, cfg:child("optimizer.betas"):get("0"))
        assert.is_nil(cfg:get("optimizer.betas.1"))
        cfg:set("seed", nil)
        assert.is_true(cfg:has("seed"))
        cfg:unset("seed")
        assert.is_false(cfg:has("seed"))
        assert.same({ "model", "optimizer", "a" }, cfg:keys())
        cfg:unset("not.there")
        assert.equal("set by the program", cfg:where("a.b"))
        assert.has_error(function() cfg:set("f", print) end)
    end)

    it("copies deeply", function()
        local cfg = parse(TEXT)
        local copy = cfg:copy()
        copy:set("model.name", "y")
        assert.equal("x", cfg:get("model.name"))
        assert.equal("run.yaml:3", cfg:copy():where("model.name"))
    end)
end)

describe("am.cli.args", function()
    local function split(...)
        return args.parse({ ... })
    end

    -- argv, expected configuration, expected overrides
    local cases = {
        { { "a.yaml" }, "a.yaml", {} },
        { { "-c", "a.yaml" }, "a.yaml", {} },
        { { "--config", "a.yaml" }, "a.yaml", {} },
        { { "--config=a.yaml" }, "a.yaml", {} },
        { { "a.yaml", "--a.b", "1" }, "a.yaml", { { path = "a.b", value = "1" } } },
        { { "--a.b=1", "a.yaml" }, "a.yaml", { { path = "a.b", value = "1" } } },
        { { "--a.b=x=y" }, nil, { { path = "a.b", value = "x=y" } } },
        { { "--a=" }, nil, { { path = "a", value = "" } } },
        { { "--flag" }, nil, { { path = "flag" } } },
        { { "--flag", "--other", "2" }, nil, { { path = "flag" }, { path = "other", value = "2" } } },
        { { "--lr", "-1e-3" }, nil, { { path = "lr", value = "-1e-3" } } },
        { { "--lr", "-5", "-c", "x" }, "x", { { path = "lr", value = "-5" } } },
        { { "--flag", "-c", "x" }, "x", { { path = "flag" } } },
        { { "--a", "" }, nil, { { path = "a", value = "" } } },
        { { "--a", "1", "--a", "2" }, nil, { { path = "a", value = "1" }, { path = "a", value = "2" } } },
        { { "--dataset.paths.0", "x" }, nil, { { path = "dataset.paths.0", value = "x" } } },
    }
    for _, case in ipairs(cases) do
        it("splits " .. table.concat(case[1], " "), function()
            local out = args.parse(case[1])
            assert.equal(case[2], out.config)
            assert.same(case[3], out.overrides)
        end)
    end

    it("keeps the host's own options apart", function()
        local out = split("--allow-user-code", "a.yaml", "--threads", "2", "-h", "--x.y", "1")
        assert.same({ ["allow-user-code"] = true, threads = "2", help = true }, out.options)
        assert.equal("a.yaml", out.config)
        assert.equal(1, #out.overrides)
    end)

    for _, bad in ipairs {
        { "a.yaml", "b.yaml" }, { "-c" }, { "--config" }, { "-c", "--x", "1" }, { "--threads" }, { "-x" }, { "-xyz" },
        { "--" }, { "---a", "1" }, { "--a..b", "1" }, { "--.a", "1" }, { "--a.", "1" }, { "--=1" }, { "-5" },
        { "-c", "a", "-c", "b" }, { "--allow-user-code=1" }, { "--config=" }, { "--a b", "1" },
    } do
        it("refuses " .. table.concat(bad, " "), function()
            local ok, e = pcall(args.parse, bad)
            assert.is_false(ok)
            assert.is_true(err.is(e) and e.code == "usage")
        end)
    end
end)

describe("am.config overrides", function()
    local function with(...)
        return parse(TEXT, { overrides = args.parse({ ... }).overrides, getenv = function(name)
            return name == "SET" and "[1, 2]" or nil
        end })
    end

    it("types values as strings of the file are", function()
        local cfg = with("--a.int", "3", "--a.float", "1e-3", "--a.list", "[1, 'x']", "--a.none", "none", "--a.flag",
            "--a.yes", "yes", "--a.null", "null", "--a.neg", "-4", "--a.env", "${SET}", "--a.quoted", "'10'")
        assert.equal(3, cfg:get("a.int"))
        assert.equal(0.001, cfg:get("a.float"))
        assert.equal("x", cfg:get("a.list.1"))
        assert.is_true(cfg:has("a.none") and cfg:get("a.none") == nil)
        assert.is_true(cfg:get("a.flag"))
        assert.equal("yes", cfg:get("a.yes"))
        assert.is_true(cfg:has("a.null") and cfg:get("a.null") == nil) -- the original: the string "null"
        assert.equal(-4, cfg:get("a.neg"))
        assert.equal(2, cfg:get("a.env.1"))
        assert.equal("10", cfg:get("a.quoted"))
    end)

    it("replaces what is in the way and says where it came from", function()
        local cfg = with("--optimizer.betas.0", "0.8", "--model.name=y", "--seed.deep", "1")
        assert.equal("map", cfg:child("optimizer.betas").kind)
        assert.equal("command line (--model.name)", cfg:where("model.name"))
        assert.equal("run.yaml:8", cfg:where("optimizer.lr"))
        assert.equal(1, cfg:get("seed.deep"))
    end)

    it("spares a variable that an override replaced", function()
        local cfg = config.parse("a: $NOT_SET_ANYWHERE", { overrides = { { path = "a", value = "1" } } })
        assert.equal(1, cfg:get("a"))
    end)
end)

describe("am.config environment", function()
    local values = { HOME = "/srv/me", N = "10", ["a.b"] = "dots", EMPTY = "", LIST = "[1, 2]" }
    local function value(text)
        return parse("k: '" .. text .. "'", { getenv = function(name) return values[name] end }):get("k")
    end

    local cases = {
        { "${HOME}", "/srv/me" }, { "$HOME", "/srv/me" }, { "$HOME/x", "/srv/me/x" }, { "${HOME}x", "/srv/mex" },
        { "${NONE,fallback}", "fallback" }, { "${NONE,a,b}", "a,b" }, { "${NONE,}", "" }, { "${NONE,1e-5}", 1e-5 },
        { "${oc.env:HOME}", "/srv/me" }, { "${oc.env:NONE,3}", 3 }, { "${a.b}", "dots" }, { "$a.b", "dots" },
        { "${N}", 10 }, { "${N}${N}", 1010 }, { "a $N b ${N}", "a 10 b 10" }, { "${EMPTY}", "" }, { "$", "$" },
        { "5$", "5$" }, { "$5", "$5" }, { "^a$|b$", "^a$|b$" }, { "$$HOME", "$HOME" }, { "$${HOME}", "${HOME}" },
        { "$$", "$$" }, { "${}", "${}" }, { "${1x}", "${1x}" }, { "${HOME", "${HOME" }, { "${NONE, spaced }",
            "spaced" },
        { "{% if $ %}", "{% if $ %}" }, { "$HOME.", "/srv/me." }, { "$HOME.. $a.b.", "/srv/me.. dots." },
    }
    for _, case in ipairs(cases) do
        it("substitutes " .. case[1], function()
            assert.equal(case[2], value(case[1]))
        end)
    end

    it("gives lists", function()
        assert.equal(2, #value("${LIST}"))
    end)

    it("names the variable that is not set", function()
        local ok, e = pcall(parse, "a:\n  b: x ${NOT_SET}\n", { getenv = function() end })
        assert.is_false(ok)
        assert.matches("^run%.yaml:2: a%.b: environment variable NOT_SET is not set %(required by '%${NOT_SET}'%)",
            e.msg)
    end)

    it("does not scan what the program sets or a variable's own text", function()
        local cfg = parse("a: $X", { getenv = function() return "$Y" end })
        assert.equal("$Y", cfg:get("a"))
        cfg:set("b", "$NOT_SET")
        assert.equal("$NOT_SET", cfg:get("b"))
    end)
end)

describe("am.config.print", function()
    local function round(t)
        local text = config.print(config.from_table(t))
        local ok, cfg = pcall(config.parse, text, { getenv = function() return "WRONG" end })
        assert.is_true(ok, text .. tostring(cfg))
        return cfg:to_table(), text
    end

    it("prints exact values that any YAML reader types alike", function()
        local t = { f = 1e-5, g = 0.1, i = 3, big = 1e22, tiny = 5e-324, third = 1 / 3, neg = -0.5, t = true,
            inf = math.huge }
        local back, text = round(t)
        for key, value in pairs(t) do
            assert.equal(value, back[key], key)
        end
        assert.matches("f: 1.0e%-05\n", text)
        assert.matches("big: 1.0e%+22\n", text)
        assert.matches("a: 1%.0\n", config.print(config.parse("a: 1.0")))
        assert.matches("a: %.nan\n", config.print(config.parse("a: .nan")))
    end)

    it("prints strings that stay those strings", function()
        for _, s in ipairs {
            "x", "", " ", "10", "1e-5", "none", "None", "true", "null", "~", "yes", "[1, 2]", "{'a': 1}", "'q'",
            '"q"', "a: b",
            "a #b", "#", "- a", "*x", "&x", "!x", "|", ">", "%", "@", "`", "\n", "a\nb\n", "tab\t", "\r\n", "é😀",
            "\194\133",
            "\226\128\168", "\239\187\191x", "$HOME", "${HOME}", "$$HOME", "$", "it's", "back\\slash", "\\n", "017",
            "1:30",
            ".inf", "...", "---", "<<", "=", "a,b", "1,2", "x]", "{x", "2024-01-01", "\1\127", "?", "-", "1_000",
            "'$HOME'",
            "<redacted>", "./a/b.yaml", "../x", ".5", "torch.bfloat16", "9007199254740993", "None\n", " 10 ",
        } do
            local back, text = round({ k = s, l = { s, { s, s } }, m = { [s == "" and "empty" or s] = 1 } })
            assert.equal(s, back.k, text)
            assert.equal(s, back.l[2][2], text)
            assert.equal(1, back.m[s == "" and "empty" or s], text)
        end
    end)

    it("keeps structure, nulls and order", function()
        local text = config.print(parse(TEXT))
        assert.equal(table.concat({
            "seed: 42", "model:", "  name: x", "  empty: null", "  dotted.key: 7", "  list:", "    - 1", "    - a: b",
            "    - null", "optimizer:", "  lr: 1.0e-05", "  betas: [0.9, 0.999]", "",
        }, "\n"), text)
        assert.equal(text, config.print(config.parse(text)))
        for _, odd in ipairs { "{}", "a: {}", "a: []", "a: [{}, [], [[1], {b: []}]]",
            "a:\n- b: 1\n  c:\n  - d: 2\n    e: 3" } do
            local cfg = config.parse(odd)
            local again = config.parse(config.print(cfg))
            assert.equal(config.print(cfg), config.print(again))
            assert.same(cfg:to_table(), again:to_table())
        end
    end)

    it("prints variables as written and hides secrets", function()
        local cfg = parse(table.concat({
            "a: ${MY_VAR}/x", "hf_token: abc", "wandb_key: abc", "api_key: abc", "auth: {name: abc, password: abc}",
            "tokens: {a: b}", "pad_token: <pad>", "start_of_turn_token: <turn>", "tokenizer: dir", "token: true",
            "max_new_tokens: 5", "note: uses hf_abcdefghijklmnop", "url: https://me:ab@c@host/x",
            "git: https://tok3n@host", "secret: [abc, abc]",
            "apiKey: abc", "none_secret: null", "access_token: ${TOK,abcdef}",
            "wandb: {api_key: 123456, password: '0x1234'}",
        }, "\n"), { getenv = function(name) return name == "MY_VAR" and "held" or nil end })
        assert.equal("held/x", cfg:get("a"))
        local text = config.print(cfg)
        assert.not_matches("held", text)
        assert.not_matches("abcdefghijklmnop", text)
        assert.matches('a: "%${MY_VAR}/x"\n', text)
        assert.matches("pad_token: \"<pad>\"\n", text)
        assert.matches("tokenizer: dir\n", text)
        assert.matches("token: true\n", text)
        assert.matches("none_secret: null\n", text)
        assert.not_matches(": abc", text)
        assert.not_matches("%[abc", text)
        assert.not_matches("abcdef", text)
        assert.matches('access_token: "%${TOK,<redacted>}"\n', text)
        assert.not_matches("123456", text)
        assert.not_matches("0x1234", text)
        assert.not_matches("4660", text)
        assert.matches('url: "?https://<redacted>@host/x"?\n', text)
        assert.matches('git: "?https://<redacted>@host"?\n', text)
        assert.matches("password: abc\n", config.print(cfg, { redact = false }))
    end)

    it("forgets a template once a part of it is changed", function()
        local cfg = parse("a: $LIST", { getenv = function() return "{'x': 1}" end })
        assert.matches("%$LIST", config.print(cfg))
        cfg:set("a.x", 2)
        assert.equal("a:\n  x: 2\n", config.print(cfg))
    end)
end)

describe("am.config.load", function()
    it("reads a file and says what is wrong with the name", function()
        local file = os.tmpname()
        path.write_file(file, "a: 1\nb: [\n")
        local ok, e = pcall(config.load, file)
        assert.is_false(ok)
        assert.equal("usage", e.code)
        assert.matches(file:gsub("%p", "%%%0") .. ":3:1:", e.msg)
        path.write_file(file, "a: 1\n")
        assert.equal(2, config.load(file, { overrides = { { path = "a", value = "2" } } }):get("a"))
        assert.equal(file .. ":1", config.load(file):where("a"))
        os.remove(file)
        for _, bad in ipairs { file, "/tmp", "a\0b" } do
            ok, e = pcall(config.load, bad)
            assert.is_false(ok)
            assert.is_true(err.is(e) and e.code == "usage")
        end
    end)
end)
