-- Targets: the registry, checks against declared fields, building, user files.
local config = require("am.config")
local err = require("am.core.error")
local path = require("am.utils.path")

local function new_registry()
    local registry = config.new_registry()
    registry:define {
        name = "am.optim.AdamW",
        aliases = { "torch.optim.AdamW", "torch.optim.adamw.AdamW" },
        fields = {
            lr = { type = "number", default = 1e-3, above = 0 },
            betas = { type = "list", default = { 0.9, 0.999 }, items = { type = "number", min = 0, below = 1 } },
            eps = { type = "number", default = 1e-8 },
            foreach = { type = "boolean", null = true, default = true },
            params = "any",
        },
        build = function(args) return { kind = "AdamW", args = args } end,
    }
    registry:define {
        name = "am.Model.from_pretrained",
        aliases = { "nemo_automodel.NeMoAutoModelForCausalLM.from_pretrained" },
        fields = {
            pretrained_model_name_or_path = { type = "string", required = true, doc = "hub id or folder" },
            torch_dtype = { type = "string", default = "auto", enum = { "auto", "bf16", "float32" } },
            text_config = { type = "table" },
            quantization = { type = "object" },
            data = { target = true, default_target = "torch.optim.AdamW" },
            rope = { fields = { theta = { type = "number", default = 10000 }, kind = "string" } },
            steps = { type = "integer|string" },
            init_fn = "function",
        },
        build = function(args, ctx) return { kind = "model", args = args, ctx = ctx } end,
    }
    registry:define {
        name = "am.collate.default",
        fields = { pad = { type = "integer", default = 0 } },
        call = function(rows, args) return { rows = rows, pad = args.pad } end,
    }
    registry:define {
        name = "am.Failing",
        build = function() err.raise("data", "no such data") end,
    }
    registry:define { name = "am.Open", open = true, build = function(args) return args end }
    return registry
end

local ctx

local function section(text)
    return config.parse(text, { name = "run.yaml" })
end

local function build(text, overrides, opts)
    return config.instantiate(section(text), ctx, overrides, opts)
end

local function fails(fn, pattern, code)
    local ok, e = pcall(fn)
    assert.is_false(ok, "no error")
    assert.is_true(err.is(e), tostring(e))
    assert.equal(code or "usage", e.code)
    assert.matches(pattern, tostring(e))
end

local function build_fails(text, pattern)
    fails(function() build(text) end, pattern)
end

before_each(function()
    ctx = { registry = new_registry() }
end)

describe("am.config.instantiate", function()
    it("builds by name and alias with defaults filled in", function()
        for _, name in ipairs { "am.optim.AdamW", "torch.optim.AdamW", "torch.optim.adamw.AdamW" } do
            local optimizer = build("_target_: " .. name .. "\nlr: 1e-5\n")
            assert.equal("AdamW", optimizer.kind)
            assert.equal(1e-5, optimizer.args.lr)
            assert.same({ 0.9, 0.999 }, { optimizer.args.betas[1], optimizer.args.betas[2] })
            assert.is_true(optimizer.args.foreach)
            assert.is_nil(optimizer.args._target_)
        end
    end)

    it("hands out defaults that may be changed", function()
        build("_target_: am.optim.AdamW").args.betas[1] = 0
        assert.equal(0.9, build("_target_: am.optim.AdamW").args.betas[1])
    end)

    it("keeps an explicit null from becoming the default", function()
        assert.is_nil(build("_target_: am.optim.AdamW\nforeach: null").args.foreach)
        build_fails("_target_: am.optim.AdamW\nlr: null", "^run%.yaml:2: lr: expected a number, got null$")
    end)

    it("lets the program's arguments win and count as given", function()
        local params = {}
        assert.equal(params, build("_target_: am.optim.AdamW", { params = params }).args.params)
        local model = build("_target_: am.Model.from_pretrained\ntorch_dtype: wrong", {
            pretrained_model_name_or_path = "x", torch_dtype = "bf16",
        })
        assert.equal("bf16", model.args.torch_dtype)
        assert.equal("x", model.args.pretrained_model_name_or_path)
        assert.equal(ctx, model.ctx)
    end)

    it("builds nested sections, lists and plain tables", function()
        local model = build([[
_target_: am.Model.from_pretrained
pretrained_model_name_or_path: dir
quantization: {_target_: torch.optim.AdamW, lr: 0.5}
text_config:
  hidden: 3
  inner: {_target_: am.optim.AdamW}
  list: [1, {_target_: am.optim.AdamW, lr: 2}, null]
  window: null
rope: {kind: llama3}
]])
        assert.equal(0.5, model.args.quantization.args.lr)
        assert.equal(3, model.args.text_config.hidden)
        assert.equal("AdamW", model.args.text_config.inner.kind)
        assert.equal(2, model.args.text_config.list[2].args.lr)
        assert.equal(config.null, model.args.text_config.list[3])
        assert.equal(config.null, model.args.text_config.window)
        assert.equal(10000, model.args.rope.theta)
        assert.equal("llama3", model.args.rope.kind)
    end)

    it("takes a default target and keys to pass over", function()
        local optimizer = build("lr: 0.25\nsplit: train", nil, { default_target = "am.optim.AdamW",
            ignore = { "split" } })
        assert.equal(0.25, optimizer.args.lr)
        assert.is_nil(optimizer.args.split)
        build_fails("lr: 1", "a _target_ is missing")
    end)

    it("takes the default target of a field", function()
        local model = "_target_: am.Model.from_pretrained\npretrained_model_name_or_path: x\n"
        local data = build(model .. "data: {lr: 0.25}").args.data
        assert.same({ "AdamW", 0.25, true }, { data.kind, data.args.lr, data.args.foreach })
        assert.is_true(build(model .. "data: {_target_: am.Open}").args.data.kind == nil)
        build_fails(model .. "data: {rl: 1}", '^run%.yaml:3: data%.rl: unknown key %(did you mean "lr"')
        build_fails(model .. "data: AdamW", "^run%.yaml:3: data: expected a section of keys, got the string")
    end)

    it("resolves _fn keys to functions", function()
        local args = build("_target_: am.Open\ncollate_fn: am.collate.default\nmake_fn: am.optim.AdamW\n"
            .. "bound_fn: {_target_: am.collate.default, pad: 7}\n")
        assert.equal(0, args.collate_fn({ 1 }).pad)
        assert.equal(7, args.bound_fn("rows").pad)
        assert.equal("rows", args.bound_fn("rows").rows)
        assert.equal(3, args.make_fn({ lr = 3 }).args.lr)
        build_fails("_target_: am.Open\ncollate_fn: am.collate.defualt",
            '^run%.yaml:2: collate_fn: unknown target "am.collate.defualt"; did you mean am.collate.default')
        assert.equal(5, config.callable(section("{_target_: am.collate.default, pad: 5}"), ctx)({}).pad)
        assert.equal(0, config.callable(section("a: am.collate.default"):child("a"), ctx)({}).pad)
    end)

    it("says in which section building failed", function()
        local cfg = section("data:\n  x:\n    _target_: am.Failing\n")
        fails(function() config.instantiate(cfg:child("data.x"), ctx) end,
            "^no such data %(in data%.x, run%.yaml:2%)$", "data")
    end)

    it("takes text for a string as it was written", function()
        local model = build("_target_: am.Model.from_pretrained\npretrained_model_name_or_path: 007\nsteps: 7")
        assert.equal("007", model.args.pretrained_model_name_or_path)
        assert.equal(7, model.args.steps)
    end)
end)

describe("am.config checks", function()
    local head = "_target_: am.Model.from_pretrained\npretrained_model_name_or_path: x\n"
    local cases = {
        { "_target_: am.optim.AdamW\nlrr: 1", '^run%.yaml:2: lrr: unknown .*did you mean "lr"' },
        { "_target_: am.optim.AdamW\nzzzzzz: 1", "known here: betas, eps, foreach, lr, params" },
        { "_target_: am.optim.AdamW\nlr: fast", '^run%.yaml:2: lr: expected a number, got the string "fast"$' },
        { "_target_: am.optim.AdamW\nlr: [1]", "expected a number, got a list" },
        { "_target_: am.optim.AdamW\nlr: {a: 1}", "expected a number, got a section" },
        { "_target_: am.optim.AdamW\nlr: true", "expected a number, got true" },
        { "_target_: am.optim.AdamW\nlr: 0", "^run%.yaml:2: lr: must be more than 0, and is 0$" },
        { "_target_: am.optim.AdamW\nlr: .nan", "must be a number, and is nan" },
        { "_target_: am.optim.AdamW\nbetas: [0.9, 1]", "^run%.yaml:2: betas%.1: must be less than 1, and is 1$" },
        { "_target_: am.optim.AdamW\nbetas: [0.9, x]", 'betas%.1: expected a number, got the string "x"' },
        { "_target_: am.optim.AdamW\nbetas: 0.9", "expected a list, got the number 0%.9" },
        { "_target_: am.optim.AdamW\nforeach: 1", "expected a boolean, got the number 1" },
        { "_target_: am.Model.from_pretrained", '^run%.yaml:1: "pretrained_model_name_or_path" is missing %(hub id' },
        { head .. "torch_dtype: bf61", 'got the string "bf61" %(did you mean "bf16"%?%); expected one of auto, bf16' },
        { head .. "text_config: 3", "expected a section of keys, got the number 3" },
        { head .. "quantization: {a: 1}", "expected a section with _target_, got a section without _target_" },
        { head .. "quantization: {_target_: am.optim.AdamW, lrr: 1}",
            'quantization%.lrr: unknown key %(did you mean "lr"' },
        { head .. "text_config: {x: {_target_: am.optim.AdamW, lr: no}}",
            "text_config%.x%.lr: expected a number, got false" },
        { head .. "rope: {thta: 1}", 'rope%.thta: unknown key %(did you mean "theta"' },
        { head .. "steps: 1.5", "expected an integer or a string, got the number 1.5" },
        { head .. "steps: .inf", "expected an integer or a string, got the number inf" },
        { head .. "init_fn: nothing.like.it", 'unknown target "nothing.like.it"' },
        { "_target_: torch.optim.AdmW", 'did you mean torch.optim.AdamW' },
        { "_target_: AdamW", "did you mean am.optim.AdamW" },
        { "_target_: some.where.AdamW", "did you mean am.optim.AdamW" },
        { "_target_: 3", "expected the dotted name of a target" },
        { "_target_: null", "expected the dotted name" },
        { "_target_: {a: 1}", "expected the dotted name" },
        { "_target_: [am.optim.AdamW]", "expected the dotted name" },
        { "_target_: am.io.popen.os", "unknown target" },
    }
    for _, case in ipairs(cases) do
        it("refuses " .. case[1]:gsub("\n", " / "), function()
            build_fails(case[1], case[2])
        end)
    end

    it("says everything that is wrong at once", function()
        local ok, e = pcall(build, "_target_: am.optim.AdamW\nlrr: 1\neps: x\nbetas: 3\n")
        assert.is_false(ok)
        local _, lines = e.msg:gsub("\n", "")
        assert.equal(2, lines)
    end)

    it("does not show secrets or variables in messages", function()
        local cfg = config.parse("_target_: am.Open2\nhf_token: abc", { name = "run.yaml" })
        ctx.registry:define { name = "am.Open2", fields = { hf_token = "integer" }, build = print }
        fails(function() config.instantiate(cfg, ctx) end, 'hf_token: expected an integer, got the string "<redacted>"')
        cfg = config.parse("_target_: am.optim.AdamW\nlr: $X", { name = "r", getenv = function() return "held" end })
        fails(function() config.instantiate(cfg, ctx) end, 'got the string "$X"')
    end)

    it("accepts a whole number as an integer and an integer as a number", function()
        assert.equal(1000, build(head .. "steps: 1e3").args.steps)
        assert.equal(1, build("_target_: am.optim.AdamW\nlr: 1").args.lr)
    end)
end)

describe("am.config.validate", function()
    local schema = {
        fields = {
            seed = { type = "integer", default = 42 },
            step_scheduler = { required = true, fields = { max_steps = { type = "integer", null = true, min = 1 } } },
            optimizer = { target = true, required = true },
            dataset = { target = true, default_target = "am.Open" },
            ["validation_dataset_*"] = { target = true },
            model = { target = true, fields = { extra = "string" } },
        },
    }
    local good = "seed: 1\nstep_scheduler: {max_steps: 3}\noptimizer: {_target_: am.optim.AdamW}\n"

    local function check(text)
        config.validate(section(text), schema, ctx)
    end

    it("accepts what is declared, ci and recipe", function()
        check(good)
        check(good .. "ci: {anything: [1]}\nrecipe: X\ndataset: {a: 1}\n"
            .. "validation_dataset_two: {_target_: am.Open, b: 2}\n"
            .. "model: {_target_: am.Model.from_pretrained, pretrained_model_name_or_path: x, extra: y}\n")
    end)

    local cases = {
        { "optimiser: {a: 1}\n", '^run%.yaml:4: optimiser: unknown section or key %(did you mean "optimizer"' },
        { "model: {_target_: am.Model.from_pretrained, extr: y, pretrained_model_name_or_path: x}\n",
            'model%.extr: unknown key %(did you mean "extra"' },
        { "validation_dataset_two: 3\n", "expected a section of keys, got the number 3" },
        { "validation_dataset_two: {b: 1}\n", "a _target_ is missing" },
        { "dataset: [1]\n", "dataset: expected a section of keys, got a list" },
    }
    for _, case in ipairs(cases) do
        it("refuses " .. case[1]:gsub("\n", ""), function()
            fails(function() check(good .. case[1]) end, case[2])
        end)
    end

    it("does not miss what the program will hand over", function()
        local text = "model: {_target_: am.Model.from_pretrained}"
        local name = "pretrained_model_name_or_path"
        fails(function() config.validate(section(text), { fields = { model = { target = true } } }, ctx) end, name)
        config.validate(section(text), { fields = { model = { target = true, given = { name } } } }, ctx)
        fails(function() -- what is there is checked all the same
            config.validate(section("model: {_target_: am.Model.from_pretrained, " .. name .. ": [x]}"),
                { fields = { model = { target = true, given = { name } } } }, ctx)
        end, name .. ": expected a string, got a list")
    end)

    it("names what is missing or mistyped, all of it", function()
        fails(function() check("seed: x\nstep_scheduler: {max_step: 3}\n") end,
            'seed: expected an integer.*max_step: unknown key %(did you mean "max_steps".*"optimizer" is missing')
        fails(function() check(good .. "optimizer: 1") end, "there already")
        fails(function() config.validate(section("step_scheduler: 3\noptimizer: null"), schema, ctx) end,
            "step_scheduler: expected a section of keys, got the number 3.*optimizer: expected .* got null")
    end)
end)

describe("am.config user code", function()
    local dir

    before_each(function()
        dir = os.tmpname()
        os.remove(dir)
        path.mkdir_p(dir .. "/recipe/pkg")
        path.mkdir_p(dir .. "/configs")
        path.write_file(dir .. "/recipe/loss.lua", [[
            loaded = (loaded or 0) + 1
            local M = { fields = { checked = { scale = "number" } } }
            function M.focal(args, ctx) return { args = args, ctx = ctx } end
            function M.checked(args) return args end
            function M.collate(rows, args) return #rows + (args.add or 0) end
            M.entry = { fields = { a = "integer" }, build = function(args) return args.a end }
            M.number = 3
            M._own, M.entry._own = M.focal, M.focal
            return M
        ]])
        path.write_file(dir .. "/recipe/pkg/data.lua", "return { sub = { make = function() return 'made' end } }")
        path.write_file(dir .. "/recipe/broken.lua", "return {")
        path.write_file(dir .. "/recipe/odd.lua", "return 3")
        path.write_file(dir .. "/recipe/compiled.lua", string.dump(function() return {} end))
        path.write_file(dir .. "/configs/evil.lua", "evil_ran = true return { run = function() return 'ran' end }")
        ctx.roots = { dir .. "/recipe" }
    end)

    after_each(function()
        path.remove_tree(dir)
        rawset(_G, "evil_ran", nil)
        rawset(_G, "loaded", nil)
    end)

    local function user(text, opts)
        local cfg = config.parse(text, { name = dir .. "/configs/run.yaml" })
        for key, value in pairs(opts or {}) do
            ctx[key] = value
        end
        return config.instantiate(cfg, ctx)
    end

    it("runs functions of the recipe's folder, each file once", function()
        local loss = user("_target_: loss.lua:focal\ngamma: 2\nanything: x")
        assert.equal(2, loss.args.gamma)
        assert.equal(ctx, loss.ctx)
        assert.equal("made", user("_target_: pkg.data.sub.make"))
        assert.equal("made", user("_target_: pkg/data.lua:sub.make"))
        assert.equal(3, user("_target_: loss.entry\na: 3"))
        assert.equal(1, rawget(_G, "loaded"))
    end)

    it("checks the fields that a user's file declares", function()
        assert.equal(1, user("_target_: loss.lua:checked\nscale: 1").scale)
        fails(function() user("_target_: loss.lua:checked\nscal: 1") end, 'did you mean "scale"')
        fails(function() user("_target_: loss.lua:entry\na: x") end, "expected an integer")
    end)

    it("gives functions under _fn keys", function()
        local args = user("_target_: am.Open\na_fn: loss.lua:collate\nb_fn: {_target_: loss.lua:collate, add: 5}")
        assert.equal(2, args.a_fn({ 1, 2 }))
        assert.equal(7, args.b_fn({ 1, 2 }))
    end)

    it("says what is wrong with a file", function()
        local cases = {
            ["loss.lua:nothing"] = "has no function \"nothing\"; it has: checked, collate, entry, fields, focal",
            ["loss.lua:number"] = "has no function",
            ["loss.py:focal"] = "is Python",
            ["loss.txt:focal"] = "must end in %.lua",
            ["loss.lua:"] = "expected file%.lua:function",
            [":x"] = "must end in %.lua",
            ["absent.lua:x"] = "no file \"absent%.lua\" in ",
            ["broken.lua:x"] = "broken%.lua:1: ",
            ["odd.lua:x"] = "must return a table",
            ["compiled.lua:x"] = "compiled code",
        }
        for name, pattern in pairs(cases) do
            fails(function() user("_target_: '" .. name .. "'") end, pattern)
        end
    end)

    it("does not run what lies elsewhere without leave", function()
        for _, name in ipairs {
            "evil.lua:run", "evil.run", "../configs/evil.lua:run", dir .. "/configs/evil.lua:run",
                "./../configs/evil.lua:run",
            "pkg/../../configs/evil.lua:run",
        } do
            fails(function() user("_target_: '" .. name .. "'") end, "allow%-user%-code")
            assert.is_nil(rawget(_G, "evil_ran"))
        end
        fails(function() user("_target_: am.evil.run") end, "unknown target")
        fails(function() user("_target_: evil..run") end, "allow%-user%-code")
        assert.is_nil(rawget(_G, "evil_ran"))
    end)

    it("keeps a file's private functions from configurations without leave", function()
        for _, name in ipairs { "loss.lua:_own", "loss.lua:entry._own", "loss._own" } do
            fails(function() user("_target_: " .. name) end, "is private to .*allow%-user%-code")
        end
        assert.equal(2, user("_target_: loss.lua:_own\ngamma: 2", { allow_user_code = true }).args.gamma)
    end)

    it("runs it with leave", function()
        for _, name in ipairs { "evil.lua:run", "evil.run", "../configs/evil.lua:run",
            dir .. "/configs/evil.lua:run" } do
            assert.equal("ran", user("_target_: '" .. name .. "'", { allow_user_code = true }))
        end
    end)

    it("has no roots by default", function()
        ctx.roots = nil
        fails(function() user("_target_: loss.lua:focal") end, 'no file "loss%.lua"')
    end)
end)

describe("am.config registry", function()
    it("refuses a name twice and entries without a way to run", function()
        local registry = new_registry()
        assert.has_error(function() registry:define { name = "torch.optim.AdamW", build = print } end)
        assert.has_error(function() registry:define { name = "x" } end)
        assert.has_error(function() registry:define { build = print } end)
        registry:define_all { { name = "b", build = print }, { name = "a", call = print } }
        assert.equal("a", registry:lookup("a").name)
        assert.equal("a", registry:names()[1])
    end)
end)
