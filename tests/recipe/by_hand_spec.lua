-- A recipe driven by hand: setup, step and evaluate do what train does, and a mistake in their order is
-- said clearly.

local helper = require("tests.recipe.helper")
local tiny = require("tests.support.tiny")

local STEPS = 20 -- more than an epoch

local function config(changes)
    return helper.config(helper.folder(), helper.changes(helper.lora, { step_scheduler = { max_steps = STEPS } },
                                                         changes))
end

local validation = { _target_ = "am.datasets.build_unpacked_dataset", num_sentences = 6, vocab_size = 67 }

describe("a recipe by hand", function()
    teardown(helper.cleanup)

    it("steps across epochs as train does, with dropout, and says when the run is complete", function()
        local cfg = config()
        helper.train_here(cfg)
        local recipe, losses, wanted = helper.recipe(config()), {}, {}
        for i = 1, STEPS do
            local metrics = recipe:step()
            losses[i] = string.format("%.17g %.17g", metrics.loss, metrics.grad_norm)
        end
        for i, r in ipairs(helper.jsonl(cfg.checkpoint.checkpoint_dir .. "/training.jsonl")) do
            wanted[i] = string.format("%.17g %.17g", r.loss, r.grad_norm)
        end
        assert.equal(STEPS, #wanted)
        assert.same(wanted, losses)
        assert.is_true(recipe.scheduler.epoch > 0)
        tiny.raised("state", { "complete at step " .. STEPS, "max_steps" }, recipe.step, recipe)
        helper.close(recipe)
    end)

    it("takes the same window again after a step that failed, from clean gradients", function()
        local recipe = helper.recipe(config())
        local loss, calls = recipe.loss, 0
        function recipe:loss(batch)
            calls = calls + 1
            if calls == 2 then -- the second micro-batch; the first has left its gradient
                error("no luck", 0)
            end
            return loss(self, batch)
        end
        require("am").manual_seed(5)
        assert.is_false((pcall(recipe.step, recipe)))
        require("am").manual_seed(5)
        local again = recipe:step()
        helper.close(recipe)
        local other = helper.recipe(config())
        require("am").manual_seed(5)
        local first = other:step()
        assert.same({ first.loss, first.grad_norm }, { again.loss, again.grad_norm })
        assert.equal(0, other.scheduler.step)
        other:step()
        assert.equal(1, other.scheduler.step)
        helper.close(other)
    end)

    it("gives the loss the rows that have a label, and no others", function()
        local recipe = helper.recipe(config())
        local loss, given, padded = recipe.loss_fn, 0, 0
        function recipe.loss_fn(hidden, labels, ctx)
            given = given + hidden:size(0)
            for _, label in ipairs(labels:totable()) do
                assert.is_true(label >= 0)
            end
            assert.equal(ctx.num_label_tokens, hidden:size(0))
            return loss(hidden, labels, ctx)
        end
        local window = recipe:next_window()
        for _, batch in ipairs(window) do
            padded = padded + batch.B * batch.T
        end
        local metrics = recipe:step(window)
        assert.equal(metrics.num_label_tokens, given)
        assert.is_true(given < padded, "no row of the batches is padded: the test shows nothing")
        helper.close(recipe)
    end)

    it("keeps the gradients of a step, and trains with dropout again after evaluate", function()
        local recipe = helper.recipe(config { validation_dataset = validation })
        recipe:step()
        local sum = 0
        for _, p in recipe.model:named_parameters() do
            sum = sum + (p.requires_grad and p.grad:abs():sum():item() or 0)
        end
        assert.is_true(sum > 0)
        assert.is_number(recipe:evaluate())
        assert.is_false(recipe.model.training)
        recipe:step()
        assert.is_true(recipe.model.training)
        helper.close(recipe)
    end)

    it("says what is missing", function()
        local class = require("recipes.llm_finetune")
        local recipe = class.new(helper.yaml(helper.folder(), config()), { "--optimizer.lr", "0.5" })
        tiny.raised("state", "setup()", recipe.step, recipe)
        tiny.raised("state", "setup()", recipe.evaluate, recipe)
        recipe:setup()
        assert.equal(0.5, recipe.optimizer.param_groups[1].lr)
        tiny.raised("state", "validation_dataset", recipe.evaluate, recipe)
        tiny.raised("state", "setup() was called already", recipe.setup, recipe)
        assert.is_number(recipe:step().loss) -- it goes on as if nothing had been asked
        helper.close(recipe)
    end)

    it("can set up again what failed to, and names another run in one line", function()
        local cfg = config { checkpoint = { enabled = true, checkpoint_dir = helper.folder() } }
        local first = helper.recipe(cfg)
        local second = require("recipes.llm_finetune").new(helper.yaml(helper.folder(), cfg))
        local message = tiny.raised("state", "is in use by process", second.setup, second)
        assert.is_nil(tostring(message):find("\n", 1, true))
        helper.close(first)
        second:setup()
        assert.equal(6, #second.parts)
        helper.close(second)
    end)
end)
