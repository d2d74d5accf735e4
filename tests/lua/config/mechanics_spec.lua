-- Mechanics of the original's loader that no other spec has: which keys are secret, overrides that name targets,
-- variables and callables inside lists and nested sections, call-time arguments.
local args = require("am.cli.args")
local config = require("am.config")

local function new_ctx()
    local registry = config.new_registry()
    registry:define { name = "torch.optim.Adam", fields = { lr = "number", params = "any" },
                      build = function(a) return { kind = "Adam", args = a } end }
    registry:define { name = "torch.optim.SGD", fields = { lr = "number", params = "any" },
                      build = function(a) return { kind = "SGD", args = a } end }
    registry:define { name = "a.collate", fields = { pad = { type = "integer", default = 1 } },
                      call = function(rows, bound) return { rows, bound.pad } end }
    registry:define { name = "a.open", open = true, build = function(a) return a end }
    return { registry = registry }
end

local function parse(text, ...)
    return config.parse(text, { name = "run.yaml", overrides = args.parse({ ... }).overrides, getenv = function(name)
        return ({ RATE = "3e-4", NAME = "x" })[name]
    end })
end

describe("a key", function()
    it("is secret by the original's words, and vocabulary is not", function()
        for _, key in ipairs { "password", "db_password", "secret", "client_secret", "token", "hf_token", "HF_TOKEN",
            "apikey", "apiKey", "api_key", "wandb_api_key", "authorization", "auth", "http_auth", "wandb_key",
            "access_key", "private_key", "credentials", "passphrase" } do
            assert.is_true(config.is_secret_key(key), key)
        end
        for _, key in ipairs { "tokenizer", "pad_token", "eos_token", "bos_token_id", "start_of_turn_token",
            "max_new_tokens", "num_tokens", "author", "key", "keys", "monkey", "secretary" } do
            assert.is_false(config.is_secret_key(key), key)
        end
    end)
end)

describe("an override", function()
    it("names another target, and its arguments go along", function()
        local cfg = parse("optimizer: {_target_: torch.optim.Adam, lr: 1}", "--optimizer._target_", "torch.optim.SGD",
                          "--optimizer.lr", "$RATE")
        local optimizer = config.instantiate(cfg:child("optimizer"), new_ctx(), { params = "theirs" })
        assert.same({ "SGD", 3e-4, "theirs" }, { optimizer.kind, optimizer.args.lr, optimizer.args.params })
    end)

    it("names a function, and makes a bound one of its section", function()
        local cfg = parse("loader: {_target_: a.open}", "--loader.collate_fn", "a.collate",
                          "--loader.other_fn._target_=a.collate", "--loader.other_fn.pad=7")
        local loader = config.instantiate(cfg:child("loader"), new_ctx())
        assert.same({ "rows", 1 }, loader.collate_fn("rows"))
        assert.same({ "rows", 7 }, loader.other_fn("rows"))
    end)

    it("that names no target is refused by its place", function()
        local cfg = parse("optimizer: {_target_: torch.optim.Adam}", "--optimizer._target_", "torch.optim.Adan")
        local ok, e = pcall(config.instantiate, cfg:child("optimizer"), new_ctx())
        assert.is_false(ok)
        assert.matches("^command line %(%-%-optimizer%._target_%): optimizer%._target_: unknown target", e.msg)
    end)
end)

describe("inside lists and sections", function()
    it("variables, literals, targets and callables mean what they mean elsewhere", function()
        local cfg = parse([[
a:
  _target_: a.open
  list: ["${NAME}/y", "1e-5", none, yes, {_target_: torch.optim.Adam, lr: $RATE}, {score_fn: a.collate}]
  inner: {deep: {loss_fn: {_target_: a.collate, pad: 4}, plain: {x: "[1, 2]"}}}
]])
        local a = config.instantiate(cfg:child("a"), new_ctx())
        assert.same({ "x/y", 1e-5, config.null, true }, { a.list[1], a.list[2], a.list[3], a.list[4] })
        assert.same({ "Adam", 3e-4 }, { a.list[5].kind, a.list[5].args.lr })
        assert.same({ "r", 1 }, a.list[6].score_fn("r"))
        assert.same({ "r", 4 }, a.inner.deep.loss_fn("r"))
        assert.same({ 1, 2 }, { a.inner.deep.plain.x[1], a.inner.deep.plain.x[2] })
    end)

    it("arguments of the program are never searched for variables", function()
        local a = config.instantiate(parse("{_target_: a.open, x: 1}"), new_ctx(), { x = "$NOT_SET" })
        assert.equal("$NOT_SET", a.x)
    end)
end)
