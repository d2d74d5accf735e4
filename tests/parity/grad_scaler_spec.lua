-- Training in float16 with a loss scale equals torch.amp.GradScaler's: losses, norms, scales, and which steps are
-- skipped (grad_scaler_golden.py).
local helper = require("tests.recipe.helper")
local json = require("am.utils.json")

-- float16 rounds at other places here (fused ops, gradients of weights in float32). Seen: 2.5e-4 of the loss and
-- 3.7e-3 of the norm; were one skipped step made, the next loss would be off by 0.15.
local LOSS, NORM = 1e-3, 1e-2

-- A configuration on the golden's rows, all of them in each step.
local function config(golden)
    local dir, lines = helper.folder(), {}
    for i, row in ipairs(golden.rows) do
        lines[i] = json.encode { input_ids = row } .. "\n"
    end
    local cfg = helper.config(dir, {
        model = { torch_dtype = "float16" }, optimizer = { lr = golden.lr, weight_decay = 0.01 },
        clip_grad_norm = { max_norm = golden.max_norm }, grad_scaler = golden.scaler,
        step_scheduler = { max_steps = #golden.steps, num_epochs = #golden.steps },
    })
    cfg.dataset = { _target_ = "am.datasets.PretokenizedDataset",
                    path_or_dataset_id = helper.write(dir .. "/rows.jsonl", table.concat(lines)) }
    return cfg, dir
end

-- Make one gradient of the golden's steps infinite, or NaN.
local function plant(recipe, golden)
    local plain = recipe.gradients
    function recipe:gradients(...)
        local loss = plain(self, ...)
        local what = golden.planted[tostring(self.scheduler.step)]
        if what then
            self.optimizer:gradients(self.optimizer:buckets(1)[3]):narrow(0, 5, 1):fill_(tonumber(what))
        end
        return loss
    end
end

describe("a tiny model in float16", function()
    teardown(helper.cleanup)

    it("trains as with torch.amp.GradScaler", function()
        local golden = assert(json.decode(helper.read("tests/parity/golden/grad_scaler.json")))
        local cfg, dir = config(golden)
        helper.log = ""
        local recipe = helper.recipe(cfg)
        plant(recipe, golden)
        recipe:train()
        assert.equal(golden.last_scale, recipe.grad_scaler.scale)
        helper.close(recipe)
        local records = helper.jsonl(dir .. "/training.jsonl")
        assert.equal(#golden.steps, #records)
        local worst = { loss = 0, norm = 0 }
        for i, want in ipairs(golden.steps) do
            local got = records[i]
            assert.equal(want.loss_scale, got.loss_scale)
            assert.equal(want.grad_norm == json.null, got.grad_norm == json.null)
            worst.loss = math.max(worst.loss, helper.relative(want.loss, got.loss))
            if want.grad_norm ~= json.null then
                worst.norm = math.max(worst.norm, helper.relative(want.grad_norm, got.grad_norm))
            end
        end
        assert.is_true(worst.loss < LOSS, "loss: " .. worst.loss)
        assert.is_true(worst.norm < NORM, "norm: " .. worst.norm)
        assert.matches("step 4 is skipped: the gradient norm is inf; loss scale 2048 %-> 1024", helper.log)
        assert.matches("step 5 is skipped: the gradient norm is %-?nan; loss scale 1024 %-> 512", helper.log)
    end)
end)
