-- What is valid and not there yet, what changes nothing, and what is switched off.
local config = require("am.config")
local err = require("am.core.error")

local function new_registry()
    local registry = config.new_registry()
    registry:define { name = "am.Adam", aliases = { "torch.optim.Adam" }, fields = {
        lr = { type = "number" }, policy = { type = "any", no_effect = "there is one" },
    }, build = function(args) return args end }
    registry:define_later({ "other.vision.*", "torch.opt*.*", "torch.optim.Adax" },
        "images are for later; take am.Adam")
    return registry
end

local schema = { fields = {
    optimizer = { target = true },
    sizes = { fields = {
        tp_size = { type = "integer", min = 0, now = { 0, 1 }, not_yet = "set it to 1" },
        kind = { type = "string", enum = { "thd", "neat" }, now = { "thd" }, not_yet = "take thd" },
    } },
    fp8 = { fields = { enabled = "boolean", name = "string" }, switch = "enabled", not_yet = "leave it out" },
    compile = { fields = { enabled = "boolean" }, switch = "enabled", switch_off = true, not_yet = "leave it out" },
    wandb = { type = "any", no_effect = "nobody listens" },
} }

local ctx

local function check(text)
    ctx = { registry = new_registry() }
    config.validate(config.parse(text, { name = "run.yaml" }), schema, ctx)
end

local function refused(code, pattern, text)
    local ok, e = pcall(check, text)
    assert.is_false(ok, "no error for " .. text)
    assert.is_true(err.is(e), tostring(e))
    assert.equal(code, e.code)
    assert.matches(pattern, e.msg)
    return e.msg
end

describe("a value that is not there yet", function()
    it("is told from a mistake, by place and what to do", function()
        refused("unsupported", "^run%.yaml:1: sizes%.tp_size is 4: not there yet: set it to 1$", "sizes: {tp_size: 4}")
        refused("unsupported", "^run%.yaml:1: sizes%.kind is neat: not there yet: take thd$", "sizes: {kind: neat}")
        refused("usage", "sizes%.tp_size: expected an integer", "sizes: {tp_size: x}")
        refused("usage", "sizes%.tp_size: must be at least 0", "sizes: {tp_size: -1}")
        refused("usage", "expected one of thd, neat", "sizes: {kind: neet}")
    end)

    it("is said behind the mistakes, all at once", function()
        local msg = refused("usage", "tp_siz: unknown key", "sizes: {kind: neat, tp_siz: 3}")
        assert.matches("unknown key[^\n]*\nrun%.yaml:1: sizes%.kind is neat: not there yet", msg)
    end)

    it("may be absent, null or one of those that are", function()
        check("sizes: {tp_size: 1, kind: thd}")
        check("sizes: {tp_size: none}")
        check("sizes: {tp_size: 0}")
    end)
end)

describe("a section that is not there yet", function()
    it("is refused unless it is switched off", function()
        refused("unsupported", "^run%.yaml:1: fp8: not there yet: leave it out$", "fp8: {enabled: true}")
        refused("unsupported", "fp8: not there yet", "fp8: {name: tensorwise}")
        refused("unsupported", "compile: not there yet", "compile: {enabled: true}")
        check("fp8: {enabled: false, anything: 3}")
        check("compile: {mode: default}")
        check("compile: {}")
        check("fp8: null")
        refused("usage", "compile: expected a section of keys", "compile: 3")
    end)
end)

describe("a target that is not there yet", function()
    it("says so, unless it is defined", function()
        local text = "optimizer: {_target_: torch.optim.Rprop, lr: x}"
        refused("unsupported",
            '^run%.yaml:1: optimizer%._target_: "torch%.optim%.Rprop" is not there yet: images are for later', text)
        refused("unsupported", "is not there yet", "optimizer: {_target_: other.vision.a.b}")
        refused("usage", "unknown target", "optimizer: {_target_: other.visio.a}")
        refused("usage", "did you mean torch%.optim%.Adam or", "optimizer: {_target_: torch.optim.Adma}")
        check("optimizer: {_target_: torch.optim.Adam, lr: 1}")
    end)

    it("stops building, too", function()
        local cfg = config.parse("_target_: other.vision.x", { name = "run.yaml" })
        local ok, e = pcall(config.instantiate, cfg, { registry = new_registry() })
        assert.is_false(ok)
        assert.equal("unsupported", e.code)
    end)

    it("gets further names where they are free", function()
        local registry = new_registry()
        registry:alias("am.Adam", { "x.Adam", "torch.optim.Adam" })
        assert.equal("am.Adam", registry:lookup("x.Adam").name)
        assert.has_error(function() registry:alias("am.Eve", { "y" }) end)
    end)
end)

describe("a key without effect", function()
    it("is not looked into, and named when it asks for something", function()
        check("wandb: {x_fn: no.such, y: {_target_: no.such}}\n"
            .. "optimizer: {_target_: am.Adam, policy: {_target_: no.such}}")
        assert.same({ "wandb (nobody listens)", "optimizer.policy (there is one)" }, ctx.without_effect)
        check("wandb: none\noptimizer: {_target_: am.Adam, policy: false}")
        assert.is_nil(ctx.without_effect)
    end)

    it("is not built", function()
        local cfg = config.parse("{_target_: am.Adam, lr: 1, policy: {_target_: no.such}}", { name = "run.yaml" })
        local args = config.instantiate(cfg, { registry = new_registry() })
        assert.equal(1, args.lr)
        assert.is_nil(args.policy)
    end)
end)
