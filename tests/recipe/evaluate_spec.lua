-- evaluate.lua as a user runs it: on a training configuration, of the model and of a checkpoint.
local helper = require("tests.recipe.helper")
local json = require("am.utils.json")
local path = require("am.utils.path")

local evaluate = "recipes/evaluate.lua"

describe("evaluate.lua", function()
    local model, dir, cfg, rows
    setup(function()
        model, dir = helper.text_model(), helper.folder()
        rows = helper.write(dir .. "/rows.jsonl", table.concat({
            json.encode { ctx_a = "Water", ctx_b = "boils", activity_label = "Cooking", label = 1,
                          endings = json.array { "over", "away", "up", "down" } },
            json.encode { ctx_a = "A dog", ctx_b = "", activity_label = "Pets", label = "2",
                          endings = json.array { "sings", "reads", "barks", "drives" } },
        }, "\n"))
        cfg = helper.config(dir .. "/run", {
            model = { pretrained_model_name_or_path = model }, dataset = { vocab_size = 4240 },
            step_scheduler = { max_steps = 3, val_every_steps = 3 },
            validation_dataset = { _target_ = "am.datasets.build_unpacked_dataset", num_sentences = 5,
                                   vocab_size = 4240 },
            evaluation = { tasks = { { _target_ = "am.evaluation.HellaSwag", path_or_dataset = rows } },
                           json_output_path = dir .. "/results.json" },
        })
    end)
    teardown(helper.cleanup)

    local function results()
        return json.decode(helper.read(dir .. "/results.json")).results
    end

    it("says perplexity and tasks of a model, and of what a run made of it", function()
        local training = helper.changes(cfg, {})
        training.evaluation = nil
        assert.equal(0, (helper.train(training)))
        local file = helper.yaml(helper.folder(), cfg)
        local status, out, errors = helper.run { evaluate, file }
        assert.equal(0, status, errors)
        assert.is_truthy(out:find("hellaswag +acc +[01]%.%d+ ± "), out)
        assert.is_truthy(out:find("validation default +perplexity +%d"), out)
        local before = results()
        assert.near(math.exp(before["validation default"].val_loss), before["validation default"].perplexity, 1e-9)

        status, out, errors = helper.run { evaluate, file, "--checkpoint.restore_from", "LATEST" }
        assert.equal(0, status, errors)
        assert.is_truthy(out:find("weights of ", 1, true), out)
        local validation = helper.jsonl(path.join(dir, "run/validation.jsonl"))
        assert.equal(validation[1].val_loss, results()["validation default"].val_loss)
        assert.not_equal(before["validation default"].val_loss, results()["validation default"].val_loss)
    end)

    it("says that weights are not finite, and whose fault that may be", function()
        local recipe = helper.recipe(cfg, evaluate)
        function recipe.loss() return require("am").tensor(0 / 0) end
        local ok, e = pcall(recipe.train, recipe)
        assert.is_false(ok)
        assert.is_truthy(tostring(e):find("the validation loss is nan: do the weights belong", 1, true)
            or tostring(e):find("the validation loss is -nan: do the weights belong", 1, true), tostring(e))
        recipe.model:close()
    end)

    it("says at once what is missing", function()
        local nothing = helper.changes(cfg, {})
        nothing.evaluation, nothing.validation_dataset = nil, nil
        local missing = helper.changes(cfg, { evaluation = { tasks = {
            { _target_ = "am.evaluation.HellaSwag", path_or_dataset = dir .. "/none.jsonl" },
        } } })
        for text, c in pairs { ["there is nothing to evaluate"] = nothing, ["none.jsonl: no such file"] = missing } do
            local status, _, errors = helper.run { evaluate, helper.yaml(helper.folder(), c) }
            assert.not_equal(0, status)
            assert.is_truthy(errors:find(text, 1, true), errors)
        end
    end)
end)
