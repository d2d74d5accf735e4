-- What a recipe answers without training: --help, --print-config, and a configuration that finds its recipe.
local config = require("am.config")
local words = require("am.recipes.describe")
local finetune = require("recipes.llm_finetune")
local helper = require("tests.recipe.helper")
local targets = require("am.recipes.targets")

local registry = targets.registry()

describe("--help", function()
    teardown(helper.cleanup)

    it("lists options and sections", function()
        local status, out = helper.run { helper.finetune, "--help" }
        assert.equal(0, status)
        for _, part in ipairs { "usage: amlua recipes/llm_finetune.lua config.yaml", "--print-config", "--dry-run",
            "-c, --config", "  optimizer ", "(required)", "  step_scheduler " } do
            assert.is_truthy(out:find(part, 1, true), part)
        end
    end)

    it("tells a section's keys with types, defaults and meanings", function()
        local status, out = helper.run { helper.finetune, "--help", "step_scheduler" }
        assert.equal(0, status)
        assert.matches("max_steps: integer, at least 1\n%s+optimizer steps of the whole run", out)
        assert.matches("ckpt_every_steps: integer, at least 1; default 100", out)
        local text = words.details(finetune.schema(), registry, "optimizer")
        for _, part in ipairs { "_target_: am.optim.AdamW", "_target_: am.optim.SGD", "betas: list of number" } do
            assert.is_truthy(text:find(part, 1, true), part)
        end
        assert.is_nil(text:find("OptimizerParamScheduler", 1, true))
        assert.matches("^optimizer: ", words.details(finetune.schema(), registry, "optimizer.lr"))
    end)

    it("tells a target's keys and other names", function()
        local text = words.details(finetune.schema(), registry, "torch.optim.AdamW")
        assert.matches("^am%.optim%.AdamW: ", text)
        assert.matches("also torch%.optim%.AdamW", text)
    end)

    it("says what there is no help for", function()
        local status, _, errors = helper.run { helper.finetune, "--help", "optimiser" }
        assert.equal(2, status)
        assert.matches('no such section or target %(did you mean "optimizer"%?%)', errors)
    end)

    it("knows every section and key", function()
        local fields = finetune.schema()
        for name in pairs(fields) do
            local text = words.details(fields, registry, name)
            for key in pairs(fields[name].fields or {}) do
                assert.is_truthy(text:find("\n +" .. key:gsub("%p", "%%%0") .. ": "), name .. "." .. key)
            end
        end
    end)
end)

describe("--print-config", function()
    teardown(helper.cleanup)

    local function printed(cfg, ...)
        local file = helper.yaml(helper.folder(), cfg)
        local status, out, errors = helper.run({ helper.finetune, file, ... }, { before = "SECRET_OF_MINE=abcdef" })
        assert.equal(0, status, errors)
        return out
    end

    it("prints what overrides and variables make of a file, and it loads to the same", function()
        local cfg = helper.config(helper.folder())
        cfg.wandb = { project = "p", config = { api_key = "hunter2" }, name = "$SECRET_OF_MINE" }
        local out = printed(cfg, "--optimizer.lr", "3e-4", "--step_scheduler.max_steps=2", "--print-config")
        assert.matches("lr: 0%.0003\n", out)
        assert.matches("max_steps: 2\n", out)
        assert.not_matches("hunter2", out)
        assert.not_matches("abcdef", out)
        assert.equal(out, config.print(config.parse(out, { getenv = function() return "abcdef" end })))
    end)

    it("fills defaults in where asked, and stays valid", function()
        local out = printed(helper.config(helper.folder(), { peft = { dim = 4 } }), "--print-config=defaults")
        assert.is_nil(out:find("foreach", 1, true)) -- what has no effect is left out
        assert.is_nil(out:find("packed_sequence", 1, true)) -- nor is what was not asked for there
        for _, line in ipairs { "eps: 1.0e-08", "lora_A_init: xavier",
            "validate_on_checkpoint: true", "save_checkpoint_every_epoch: false" } do -- the last is the file's own
            assert.is_truthy(out:find(line, 1, true), line .. "\n" .. out)
        end
        local cfg = config.parse(out)
        config.validate(cfg, { fields = finetune.schema() }, { registry = registry })
        assert.equal(out, config.print(words.with_defaults(cfg, finetune.schema(), registry)))
    end)

    it("shows what the short form stands for", function()
        local file = helper.write(helper.folder() .. "/short.yaml", "model: {name: " .. helper.tiny .. "}\n"
            .. "data: {dataset_type: mock, batch_size: 2}\ntraining: {optimizer: sgd, learning_rate: 0.1}\n")
        local status, out, errors = helper.run { helper.finetune, file, "--print-config" }
        assert.equal(0, status, errors)
        assert.matches("_target_: torch%.optim%.SGD\n", out)
        assert.matches("pretrained_model_name_or_path: " .. helper.tiny:gsub("%p", "%%%0"), out)
        assert.not_matches("\ndata:", out)
    end)

    it("does not print what is wrong", function()
        local file = helper.yaml(helper.folder(), helper.config(helper.folder(), { optimizer = { lrr = 1 } }))
        local status, out, errors = helper.run { helper.finetune, file, "--print-config" }
        assert.equal(2, status)
        assert.equal("", out)
        assert.matches("optimizer%.lrr: unknown key", errors)
        assert.equal(2, (helper.run { helper.finetune, file, "--print-config=all" }))
    end)
end)

describe("a configuration alone", function()
    teardown(helper.cleanup)

    it("is run by the recipe that it names", function()
        local cfg = helper.config(helper.folder(), { recipe = "TrainFinetuneRecipeForNextTokenPrediction" })
        local status, out, errors = helper.run { helper.yaml(helper.folder(), cfg), "--print-config" }
        assert.equal(0, status, errors)
        assert.matches("recipe: TrainFinetuneRecipeForNextTokenPrediction", out)
    end)

    it("is asked for one when it names none, or another's", function()
        local file = helper.yaml(helper.folder(), helper.config(helper.folder()))
        local status, _, errors = helper.run { file }
        assert.equal(2, status)
        assert.matches("it has no key `recipe`; say which recipe: amlua recipes/llm_finetune%.lua", errors)
        file = helper.yaml(helper.folder(), helper.config(helper.folder(), { recipe = "a.b.Nothing" }))
        status, _, errors = helper.run { file }
        assert.equal(2, status)
        assert.matches("recipe: a%.b%.Nothing is none that is known; it is one of [^\n]*"
                       .. "TrainFinetuneRecipeForNextTokenPrediction", errors)
    end)

end)
