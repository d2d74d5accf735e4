-- What a run that goes on owes to the one before: validations that a signal left out, log lines, and
-- the checkpoint whose weights turn out to be useless. Runs that were killed are in kill_spec.lua.
local helper = require("tests.recipe.helper")
local json = require("am.utils.json")
local path = require("am.utils.path")

local validation = { _target_ = "am.datasets.build_unpacked_dataset", num_sentences = 6, vocab_size = 67 }

-- Train in this process; asked(recipe) says whether the run is asked to end.
local function train(cfg, asked)
    local recipe = helper.recipe(cfg)
    if asked then
        recipe.stop_requested = asked
    end
    recipe:train()
    helper.close(recipe)
end

-- validation.jsonl without what differs between any two runs.
local function validations(dir)
    local lines = {}
    for i, r in ipairs(helper.jsonl(path.join(dir, "validation.jsonl"))) do
        lines[i] = string.format("%d %d %.17g %.17g %d", r.step, r.epoch, r.val_loss, r.lr, r.num_label_tokens)
    end
    return lines
end

describe("a run with DoRA, an adapted embedding and a head that is trained whole", function()
    teardown(helper.cleanup)

    it("goes on with the same bits", function()
        local folders = {}
        for _, stops in ipairs { false, true } do
            local dir = helper.folder()
            local cfg = helper.config(dir, {
                peft = { target_modules = { "*.q_proj", "*.mlp.*", "embed_tokens" }, modules_to_save = "lm_head",
                         dim = 2, use_dora = true, use_rslora = true, dropout = 0.25, dropout_position = "pre" },
                step_scheduler = { max_steps = 5, ckpt_every_steps = 2 },
            })
            if stops then
                train(cfg, function(recipe) return recipe.scheduler.step >= 2 end)
                assert.is_true(#helper.curve(dir) < 5)
            end
            train(cfg)
            folders[#folders + 1] = dir
        end
        assert.equal(5, #helper.curve(folders[1]))
        assert.same(helper.curve(folders[1]), helper.curve(folders[2]))
        assert.is_nil(helper.checkpoint_difference(helper.latest(folders[1]), helper.latest(folders[2])))
    end)
end)

describe("a validation that a signal left out", function()
    teardown(helper.cleanup)

    local function config(dir)
        return helper.config(dir, {
            step_scheduler = { max_steps = 8, val_every_steps = 2, ckpt_every_steps = 4 },
            validation_dataset = validation, checkpoint = { save_consolidated = "final" },
        })
    end

    -- Asked to end when `count` validation batches were seen, or at the end of step `at`.
    local function after_batches(count)
        local seen = 0
        return function(recipe)
            if not recipe.model.training then
                seen = seen + 1
            end
            return seen > count
        end
    end
    local function at_step(at)
        return function(recipe) return recipe.scheduler.step >= at end
    end

    local whole = helper.folder()
    setup(function() train(config(whole)) end)

    for name, asked in pairs {
        ["in the middle"] = after_batches(3), ["in the middle, where a checkpoint is due"] = after_batches(9),
        ["before it began"] = at_step(1), ["before it began, where a checkpoint is due"] = at_step(3),
        ["of the last step"] = at_step(7),
    } do
        it("is made up for by the run that goes on: " .. name, function()
            local dir = helper.folder()
            train(config(dir), asked)
            assert.is_true(#validations(dir) < 4)
            train(config(dir))
            assert.same(helper.curve(whole), helper.curve(dir))
            assert.same(validations(whole), validations(dir))
            assert.is_nil(helper.checkpoint_difference(helper.latest(whole), helper.latest(dir)))
            assert.equal(helper.read(path.join(whole, "LOWEST_VAL", "losses.json")),
                         helper.read(path.join(dir, "LOWEST_VAL", "losses.json")))
        end)
    end
end)

describe("a folder of checkpoints", function()
    teardown(helper.cleanup)

    it("belongs to one run at a time, and to none that was killed", function()
        local dir = helper.folder()
        local cfg = helper.config(dir, { step_scheduler = { max_steps = 100000, num_epochs = 100000 } })
        local run = helper.start { helper.finetune, helper.yaml(helper.folder(), cfg) }
        helper.until_true(function() return #helper.curve(dir) >= 2 end, 30, "two steps")
        local status, out, errors = helper.train(cfg, { "--step_scheduler.max_steps", "3" })
        assert.is_nil(helper.refusal_problem(1, { dir, "in use by process", "checkpoint.checkpoint_dir" }, status, out,
                                             errors))
        run.stop("KILL")
        run.wait()
        status, out, errors = helper.train(cfg, { "--step_scheduler.max_steps", "3" })
        assert.equal(0, status, out .. errors)
        assert.equal(3, #helper.curve(dir))
    end)

    it("may be named by a number", function()
        local dir = helper.folder()
        local cfg = helper.config(dir, { step_scheduler = { max_steps = 1 }, checkpoint = { checkpoint_dir = 2024 } })
        local _, here = helper.shell("pwd")
        here = here:match("[^\n]+")
        local status, out, errors = helper.shell(string.format(
            "cd %s && '%s' %s/%s %s --model.pretrained_model_name_or_path %s/%s", dir,
            helper.amlua:sub(1, 1) == "/" and helper.amlua or here .. "/" .. helper.amlua, here, helper.finetune,
            helper.yaml(dir, cfg), here, helper.tiny))
        assert.equal(0, status, out .. errors)
        assert.is_truthy(path.is_dir(dir .. "/2024/epoch_0_step_0"))
    end)
end)

describe("the logs of an earlier run", function()
    teardown(helper.cleanup)

    it("stay when checkpointing is off, whose own lie beside them", function()
        local dir = helper.folder()
        local function steps(name)
            local out = {}
            for i, record in ipairs(helper.jsonl(path.join(dir, name))) do
                out[i] = record.step
            end
            return out
        end
        train(helper.config(dir, { step_scheduler = { max_steps = 3 } }))
        local report = helper.read(dir .. "/report.html")
        for _ = 1, 2 do
            local status, _, errors = helper.train(helper.config(dir, {
                step_scheduler = { max_steps = 2 }, checkpoint = { enabled = false } }))
            assert.equal(0, status, errors)
            assert.matches("holds another run's checkpoints: logs go to .*/trial", errors)
        end
        assert.same({ 0, 1, 2 }, steps("training.jsonl"))
        assert.same({ 0, 1 }, steps("trial/training.jsonl"))
        assert.equal(report, helper.read(dir .. "/report.html"))
    end)
end)

describe("a run that goes on", function()
    teardown(helper.cleanup)

    it("needs the optimizer of the checkpoint", function()
        local dir = helper.folder()
        train(helper.config(dir, { step_scheduler = { max_steps = 2 } }))
        local status, out, errors = helper.train(helper.config(dir, { optimizer = { _target_ = "am.optim.Lion" } }))
        assert.is_nil(helper.refusal_problem(1, { "made with the optimizer adamw, this run's is lion", dir }, status,
                                             out, errors))
    end)

    it("says what it keeps of the checkpoint, and the seed that counts", function()
        local dir = helper.folder()
        train(helper.config(dir, { step_scheduler = { max_steps = 3 } }))
        local status, _, errors = helper.train(helper.config(dir, { step_scheduler = { max_steps = 4 }, seed = 7,
                                                                    dataloader = { shuffle = false } }))
        assert.equal(0, status, errors)
        assert.matches("as in the checkpoint: seed 11, not 7\n", errors)
        assert.matches("as in the checkpoint: dataloader%.shuffle true, not false\n", errors)
        assert.matches("; seed 11\n", errors)
    end)
end)

describe("a checkpoint that led to a loss that is no number", function()
    teardown(helper.cleanup)

    it("is withdrawn by the run that went on from it", function()
        local dir = helper.folder()
        train(helper.config(dir, { step_scheduler = { max_steps = 1 } }))
        train(helper.config(dir, { step_scheduler = { max_steps = 2 }, optimizer = { lr = 1e30 },
                                   lr_scheduler = { lr_decay_style = "constant", override_opt_param_scheduler = true,
                                                    lr_warmup_steps = 0 }, clip_grad_norm = { max_norm = json.null } }))
        assert.matches("step_1$", helper.latest(dir))
        local status, _, errors = helper.train(helper.config(dir, { step_scheduler = { max_steps = 3 },
            optimizer = { lr = 1e30 }, lr_scheduler = { lr_decay_style = "constant",
            override_opt_param_scheduler = true, lr_warmup_steps = 0 } }))
        assert.equal(1, status)
        assert.matches("The last good state is [^ ]*step_0", errors)
        assert.matches("step_0$", helper.latest(dir))
    end)
end)
