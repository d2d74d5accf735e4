-- Distillation as a whole run.
local helper = require("tests.recipe.helper")
local path = require("am.utils.path")

local sentences = { _target_ = "am.datasets.build_unpacked_dataset", num_sentences = 6, vocab_size = 67 }

local function config(dir, more)
    return helper.config(dir, helper.changes({
        step_scheduler = { max_steps = 4, val_every_steps = 2 }, validation_dataset = sentences,
        teacher_model = { _target_ = "am.AutoModelForCausalLM.from_pretrained",
                          pretrained_model_name_or_path = "tests/parity/golden/tiny_llama/mha" },
    }, more or {}))
end

local function run(cfg)
    local recipe = helper.recipe(cfg, "recipes/llm_kd.lua")
    recipe:train()
    helper.close(recipe)
    recipe.teacher:close()
end

describe("distillation", function()
    teardown(helper.cleanup)

    it("is fine-tuning where kd_ratio is 0", function()
        local plain, distilled = helper.folder(), helper.folder()
        local cfg = config(plain)
        cfg.teacher_model = nil
        helper.train_here(cfg)
        run(config(distilled, { kd_ratio = 0 }))
        assert.same(helper.curve(plain), helper.curve(distilled))
    end)

    it("mixes both losses, which training.jsonl and validation.jsonl have", function()
        local dir = helper.folder()
        run(config(dir, { kd_ratio = 0.25, kd_loss_fn = { temperature = 2 } }))
        for _, name in ipairs { "training", "validation" } do
            for _, r in ipairs(helper.jsonl(path.join(dir, name .. ".jsonl"))) do
                local loss = r.loss or r.val_loss
                assert.near(0.75 * r.ce_loss + 0.25 * r.kd_loss, loss, 1e-5 * loss)
                assert.is_true(r.kd_loss > 0)
            end
        end
    end)

    it("brings the student nearer to the teacher, which stays as it is", function()
        local dir = helper.folder()
        run(config(dir, { kd_ratio = 1, step_scheduler = { max_steps = 30 }, peft = { dim = 8 } }))
        local records = helper.jsonl(path.join(dir, "training.jsonl"))
        assert.is_true(records[#records].kd_loss < 0.8 * records[1].kd_loss)
    end)

    it("learns nothing of rows without a label", function()
        local cfg = config(helper.folder(), { kd_ratio = 0.5, metrics = { { _target_ = "am.metrics.TokenAccuracy" } } })
        local recipe = helper.recipe(cfg, "recipes/llm_kd.lua")
        local rows = { { input_ids = { 3, 4, 5 }, labels = { -100, -100, -100 } } }
        local batch = require("am.datasets").default_collater(rows)
        local seen = false
        assert.equal(0, recipe:loss(batch, function() seen = true end):item())
        assert.is_false(seen)
        helper.close(recipe)
        recipe.teacher:close()
    end)

    it("learns nothing from itself", function()
        local dir = helper.folder()
        run(config(dir, { kd_ratio = 1, teacher_model = { pretrained_model_name_or_path = helper.tiny },
                          step_scheduler = { max_steps = 1 } }))
        local record = helper.jsonl(path.join(dir, "training.jsonl"))[1]
        assert.near(0, record.kd_loss, 1e-6)
        assert.near(0, record.grad_norm, 1e-4)
    end)

    it("goes on bit for bit", function()
        local whole, parts = helper.folder(), helper.folder()
        run(config(whole, helper.lora))
        run(config(parts, helper.changes(helper.lora, { step_scheduler = { max_steps = 2 } })))
        run(config(parts, helper.lora))
        assert.same(helper.curve(whole), helper.curve(parts))
        local file = "/model/adapter_model.safetensors"
        assert.equal(helper.read(helper.latest(whole) .. file), helper.read(helper.latest(parts) .. file))
    end)

    it("refuses a teacher of another vocabulary", function()
        local cfg = config(helper.folder(), { teacher_model = { pretrained_model_name_or_path = helper.text_model() } })
        local ok, e = pcall(run, cfg)
        assert.is_false(ok)
        assert.is_truthy(tostring(e):find("a vocabulary of 4240 ids and model one of 67", 1, true), tostring(e))
    end)
end)
