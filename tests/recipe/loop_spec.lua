-- What goes beside training: several validation sets, metrics, averages, early stopping, samples, hooks.
local am = require("am")
local helper = require("tests.recipe.helper")
local path = require("am.utils.path")

local sentences = { _target_ = "am.datasets.build_unpacked_dataset", num_sentences = 6, vocab_size = 67 }

local function run(cfg)
    local recipe = helper.recipe(cfg)
    recipe:train()
    helper.close(recipe)
    return recipe
end

local function fails(cfg, text)
    local ok, e = pcall(helper.recipe, cfg)
    assert.is_false(ok)
    assert.is_truthy(tostring(e):find(text, 1, true), tostring(e))
end

describe("several validation sets", function()
    teardown(helper.cleanup)

    local function config(dir, more)
        return helper.config(dir, helper.changes({
            step_scheduler = { max_steps = 4, val_every_steps = 2, ckpt_every_steps = 2 },
            validation_dataset = sentences,
            validation_dataset_long = helper.changes(sentences, { mean_len = 30, seed = 3 }),
        }, more or {}))
    end

    it("have a log each, and one line each in losses.json", function()
        local dir = helper.folder()
        run(config(dir))
        local default = helper.jsonl(path.join(dir, "validation.jsonl"))
        local long = helper.jsonl(path.join(dir, "validation_long.jsonl"))
        assert.equal(2, #default)
        assert.equal(2, #long)
        assert.is_true(long[1].num_label_tokens > default[1].num_label_tokens)
        local losses = require("am.checkpoint").read_json(helper.latest(dir) .. "/losses.json")
        assert.equal(default[2].val_loss, losses.default)
        assert.equal(long[2].val_loss, losses.long)
        -- the same numbers as when a set stands alone
        local alone = helper.folder()
        run(helper.config(alone, helper.changes(config(alone), { validation_dataset_long = false })))
        assert.equal(default[2].val_loss, helper.jsonl(path.join(alone, "validation.jsonl"))[2].val_loss)
    end)

    it("have one that decides what the best checkpoint is", function()
        local dir = helper.folder()
        local recipe = run(config(dir, { checkpoint = { best_metric_key = "long" } }))
        assert.equal("long", recipe:best_key())
        local losses = helper.jsonl(path.join(dir, "validation_long.jsonl"))
        local best = losses[2].val_loss < losses[1].val_loss and 3 or 1
        assert.equal("epoch_0_step_" .. best, require("am.checkpoint").pointed(dir, "LOWEST_VAL"))
        fails(config(helper.folder(), { checkpoint = { best_metric_key = "lonh" } }),
              'no validation set "lonh"; there is default, long')
    end)

    it("have names that a file can have", function()
        fails(config(helper.folder(), { ["validation_dataset_../up"] = sentences }), "letters, digits, - and _ only")
    end)
end)

describe("metrics", function()
    it("are in validation.jsonl, as am.metrics and as one's own", function()
        local dir = helper.folder()
        local cfg = helper.config(dir, {
            step_scheduler = { max_steps = 2, val_every_steps = 1 }, validation_dataset = sentences,
            checkpoint = { save_consolidated = true },
            metrics = { { _target_ = "am.metrics.TokenAccuracy" },
                        { _target_ = path.absolute("examples/custom/metric.lua") .. ":top5" } },
        })
        local status, _, errors = helper.run { helper.finetune, helper.yaml(dir, cfg), "--allow-user-code" }
        assert.equal(0, status, errors)
        local last = helper.jsonl(path.join(dir, "validation.jsonl"))[2]

        -- the same, from logits
        local model = am.AutoModelForCausalLM.from_pretrained(helper.latest(dir) .. "/model/consolidated")
        local rows = require("am.datasets").build_unpacked_dataset(sentences)
        local right, top5, count = 0, 0, 0
        for i = 1, rows:len() do
            local row = rows:get(i)
            local logits = model:forward({ input_ids = { row.input_ids } }).logits:totable()[1]
            for t, label in ipairs(row.labels) do
                local better = 0
                for _, z in ipairs(logits[t]) do
                    better = better + (z > logits[t][label + 1] and 1 or 0)
                end
                right, top5, count = right + (better == 0 and 1 or 0), top5 + (better < 5 and 1 or 0), count + 1
            end
        end
        assert.equal(count, last.num_label_tokens)
        assert.near(right / count, last.val_token_accuracy, 1e-12)
        assert.near(top5 / count, last.val_top5, 1e-12)
    end)
end)

describe("averaged weights", function()
    teardown(helper.cleanup)

    local function config(dir, more)
        return helper.config(dir, helper.changes({
            step_scheduler = { max_steps = 6, ckpt_every_steps = 3, val_every_steps = 3 },
            validation_dataset = sentences, ema = { decay = 0.5 }, checkpoint = { save_consolidated = "final" },
        }, more or {}))
    end

    it("are what a recursion over the steps gives", function()
        local dir = helper.folder()
        local recipe = helper.recipe(config(dir))
        local expected
        local function weights()
            local out = {}
            for name, t in recipe.model:named_parameters() do
                out[name] = t:detach():clone()
            end
            return out
        end
        expected = weights()
        local step = recipe.optimizer.step
        recipe.optimizer.step = function(...)
            step(...)
            for name, t in pairs(weights()) do
                expected[name] = expected[name] * 0.5 + t * 0.5
            end
        end
        recipe:train()
        helper.close(recipe)
        local averaged = helper.tensors(helper.latest(dir) .. "/ema/model/model-00001-of-00001.safetensors")
        local trained = helper.tensors(helper.latest(dir) .. "/model/consolidated/model-00001-of-00001.safetensors")
        local file = require("am.core.io").open(helper.latest(dir) .. "/ema/averages.safetensors")
        for name, t in pairs(expected) do
            assert.is_true((file:get(name) - t):abs():max():item() < 1e-6, name)
            assert.not_equal(trained[name], averaged[name], name)
        end
    end)

    it("are validated, unless told otherwise, and training is the same with and without", function()
        local plain, averaged, trained = helper.folder(), helper.folder(), helper.folder()
        run(helper.config(plain, helper.changes(config(plain), { ema = false })))
        run(config(averaged))
        run(config(trained, { ema = { validate = false } }))
        assert.same(helper.curve(plain), helper.curve(averaged))
        local function last(dir) return helper.jsonl(path.join(dir, "validation.jsonl"))[2].val_loss end
        assert.equal(last(plain), last(trained))
        assert.not_equal(last(plain), last(averaged))
        -- the exported average is what was validated
        local cfg = config(helper.folder(), {
            model = { pretrained_model_name_or_path = helper.latest(averaged) .. "/ema/model" },
        })
        local recipe = helper.recipe(cfg)
        assert.near(last(averaged), recipe:evaluate(0, 0), 1e-7)
        helper.close(recipe)
    end)

    it("follow steps that are taken by hand", function()
        local recipe = helper.recipe(config(helper.folder()))
        local before = recipe:evaluate()
        for _ = 1, 4 do
            recipe:step()
        end
        assert.not_equal(before, recipe:evaluate())
        helper.close(recipe)
    end)

    it("go on bit for bit, also of bf16 weights and of an adapter", function()
        for _, more in ipairs { {}, { model = { torch_dtype = "bfloat16" } }, helper.lora } do
            local whole, parts = helper.folder(), helper.folder()
            run(config(whole, more))
            run(config(parts, helper.changes(more, { step_scheduler = { max_steps = 3 } })))
            run(config(parts, more))
            assert.same(helper.curve(whole), helper.curve(parts))
            for _, name in ipairs(helper.tree(helper.latest(whole) .. "/ema")) do
                assert.equal(helper.read(helper.latest(whole) .. "/ema/" .. name),
                             helper.read(helper.latest(parts) .. "/ema/" .. name), name)
            end
        end
    end)
end)

describe("early stopping", function()
    teardown(helper.cleanup)

    local function config(dir, more)
        return helper.config(dir, helper.changes({
            step_scheduler = { max_steps = 12, val_every_steps = 1, ckpt_every_steps = 100 },
            validation_dataset = sentences, optimizer = { lr = 0 }, checkpoint = { save_consolidated = "final" },
            early_stopping = { patience = 2 },
        }, more or {}))
    end

    it("ends a run that gets no better, with its last checkpoint, and goes on only with more patience", function()
        local dir = helper.folder()
        run(config(dir))
        assert.equal(3, #helper.curve(dir))
        assert.is_true(path.is_dir(helper.latest(dir) .. "/model/consolidated"))
        run(config(dir))
        assert.equal(3, #helper.curve(dir))
        run(config(dir, { early_stopping = { patience = 4 } }))
        assert.equal(5, #helper.curve(dir))
    end)

    it("goes by any number of validation, in either direction", function()
        local dir = helper.folder()
        run(config(dir, { early_stopping = { metric = "val_token_accuracy", mode = "max", min_delta = 0.5 },
                          metrics = { { _target_ = "am.metrics.TokenAccuracy" } }, optimizer = { lr = 1e-3 } }))
        assert.equal(3, #helper.curve(dir))
        fails(config(helper.folder(), { early_stopping = { metric = "val_los" } }),
              'early_stopping.metric: validation has no "val_los"; it has val_loss')
    end)

    it("needs validation, and a set that is there", function()
        fails(config(helper.folder(), { validation_dataset = false }), "there is no validation_dataset section")
        fails(config(helper.folder(), { early_stopping = { validation = "other" } }), 'no validation set "other"')
    end)
end)

describe("samples", function()
    teardown(helper.cleanup)

    it("are taken before training and at every validation, and only once in a run that goes on", function()
        local model, dir = helper.text_model(), helper.folder()
        local function config(steps)
            return helper.config(dir, {
                step_scheduler = { max_steps = steps, val_every_steps = 2, ckpt_every_steps = 2 },
                model = { pretrained_model_name_or_path = model },
                dataset = { vocab_size = 4240 }, validation_dataset = helper.changes(sentences, { vocab_size = 4240 }),
                checkpoint = { save_consolidated = true },
                samples = { prompts = { "Who?", "Where \"is\" it?" }, max_new_tokens = 5 },
            })
        end
        run(config(2))
        run(config(4))
        local records, steps = helper.jsonl(path.join(dir, "samples.jsonl")), {}
        for i, r in ipairs(records) do
            steps[i] = r.step
            assert.equal(i % 2 == 1 and "Who?" or "Where \"is\" it?", r.prompt)
            assert.is_string(r.text)
        end
        assert.same({ -1, -1, 1, 1, 3, 3 }, steps)
        -- what the trained model answers
        local trained = am.AutoModelForCausalLM.from_pretrained(helper.latest(dir) .. "/model/consolidated")
        local tok = am.AutoTokenizer.from_pretrained(model)
        local ids = tok:apply_chat_template({ { role = "user", content = "Who?" } },
                                            { tokenize = true, add_generation_prompt = true })
        local out = trained:generate(ids, { max_new_tokens = 5 })
        assert.equal(tok:decode({ unpack(out, #ids + 1) }, { skip_special_tokens = true }), records[5].text)
    end)
end)

describe("hooks", function()
    teardown(helper.cleanup)

    it("end a run as if it had been planned so: the last step is validated", function()
        local dir = helper.folder()
        local cfg = helper.config(dir .. "/run", { step_scheduler = { max_steps = 9 }, validation_dataset = sentences })
        helper.write(dir .. "/own.lua", [[return { stop = function()
            return { name = "stop", step = function(_, recipe, record)
                if record.step == 3 then recipe:stop("enough") end
            end }
        end }]])
        cfg.hooks = { { _target_ = dir .. "/own.lua:stop" } }
        local status, _, errors = helper.run { helper.finetune, helper.yaml(dir, cfg), "--allow-user-code" }
        assert.equal(0, status, errors)
        local validated = helper.jsonl(dir .. "/run/validation.jsonl")
        assert.equal(1, #validated)
        assert.equal(3, validated[1].step)
        assert.equal("epoch_0_step_3", path.basename(helper.latest(dir .. "/run")))
    end)

    it("are called where they say, with state in checkpoints, and told how a run ended", function()
        local dir = helper.folder()
        helper.write(dir .. "/own.lua", [[
            local M = {}
            function M.watch(args)
                local hook = { name = "watch", calls = {}, sum = 0 }
                local names = { "setup", "before_validation", "validation", "after_validation", "save", "load" }
                for _, name in ipairs(names) do
                    hook[name] = function(self) table.insert(self.calls, name) end
                end
                function hook:step(recipe, record)
                    table.insert(self.calls, "step " .. record.step)
                    self.sum = self.sum + 1
                    if record.step == args.bad then error("hook failed on purpose") end
                end
                function hook:finish(_, how, message)
                    local out = io.open(args.out, "a")
                    local first = (message or ""):match("[^\n]*")
                    out:write(table.concat(self.calls, ","), ",", how, " ", first, " ", self.sum, "\n")
                    out:close()
                end
                function hook:state_dict() return { sum = self.sum } end
                function hook:load_state_dict(state) self.sum = state.sum end
                return hook
            end
            return M]])
        local function start(steps, bad)
            local cfg = helper.config(dir .. "/run", {
                step_scheduler = { max_steps = steps, ckpt_every_steps = 2 }, validation_dataset = sentences,
                hooks = { { _target_ = dir .. "/own.lua:watch", out = dir .. "/calls", bad = bad },
                          { _target_ = path.absolute("examples/custom/hook.lua") .. ":best_so_far" } },
            })
            return helper.run { helper.finetune, helper.yaml(dir, cfg), "--allow-user-code" }
        end
        local status, out, errors = start(2)
        assert.equal(0, status, errors)
        assert.is_truthy((out .. errors):find("best of default so far", 1, true))
        assert.equal(1, (start(4, 3)))
        local lines = {}
        for line in io.lines(dir .. "/calls") do
            lines[#lines + 1] = line
        end
        assert.equal("setup,step 0,step 1,before_validation,after_validation,validation,save,finished  2", lines[1])
        assert.is_truthy(lines[2]:find("^load,setup,step 2,step 3,failed .*hook failed on purpose 4$"), lines[2])
    end)
end)

describe("a validation that fails", function()
    teardown(helper.cleanup)

    it("says what went wrong first, whatever else then does", function()
        local recipe = helper.recipe(helper.config(helper.folder(), { validation_dataset = sentences }))
        function recipe.evaluate_sets() error("first", 0) end
        function recipe.release_weights() error("second", 0) end
        local ok, e = pcall(recipe.evaluate, recipe)
        assert.same({ false, "first" }, { ok, e })
        helper.close(recipe)
    end)
end)

describe("a step without labels", function()
    teardown(helper.cleanup)

    it("has no loss and leaves the weights as they are", function()
        local recipe = helper.recipe(helper.config(helper.folder()))
        local tensors = require("tests.support.tiny")
        recipe:step() -- so that momentum would move them
        local before, at = tensors.weights(recipe.model), recipe.lr_schedule.num_steps
        local nothing = require("am.datasets").default_collater({ { input_ids = { 1, 2, 3 },
                                                                    labels = { -100, -100, -100 } } }, {})
        local metrics = recipe:step { nothing }
        assert.same({ 0, 0, 0, 3 }, { metrics.loss, metrics.grad_norm, metrics.num_label_tokens, nothing.T })
        assert.same({}, tensors.differing(before, tensors.weights(recipe.model)))
        assert.equal(at + 1, recipe.lr_schedule.num_steps)
        recipe:step()
        assert.is_true(#tensors.differing(before, tensors.weights(recipe.model)) > 0)
        helper.close(recipe)
    end)
end)
