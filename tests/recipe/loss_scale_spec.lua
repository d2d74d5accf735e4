-- Training in float16: when the loss is scaled, what a step does that is skipped, resuming, refusals, several ranks.
-- Its numbers are compared with torch's in tests/parity/grad_scaler_spec.lua.
local helper = require("tests.recipe.helper")
local json = require("am.utils.json")
local ranks = require("tests.dist.ranks")

local half = { model = { torch_dtype = "float16" } }

-- The scales of the steps of a run; without one that of none.
local function scales(dir)
    local out = {}
    for _, r in ipairs(helper.jsonl(dir .. "/training.jsonl")) do
        out[#out + 1] = r.loss_scale
    end
    return out
end

-- What of a run's steps must be the same in another.
local function steps(dir)
    local out = {}
    for i, r in ipairs(helper.jsonl(dir .. "/training.jsonl")) do
        out[i] = { r.step, r.loss, r.grad_norm, r.loss_scale }
    end
    return out
end

describe("a loss scale", function()
    teardown(helper.cleanup)

    it("is there in float16 alone, unless grad_scaler.enabled says otherwise", function()
        for _, case in ipairs { { "float16", nil, true }, { "float16", false, false }, { "bfloat16", nil, false },
                                { "float32", nil, false }, { "float32", true, true } } do
            local dir = helper.folder()
            helper.train_here(helper.config(dir, {
                model = { torch_dtype = case[1] }, step_scheduler = { max_steps = 1 },
                grad_scaler = case[2] ~= nil and { enabled = case[2] } or {}, checkpoint = { enabled = false },
            }))
            assert.same(case[3] and { 65536 } or {}, scales(dir))
        end
    end)

    it("changes nothing where no gradient is too small or too large: it is a power of two", function()
        local curves = {}
        for i, scale in ipairs { 1, 2 ^ 14 } do
            local dir = helper.folder()
            helper.train_here(helper.config(dir, { step_scheduler = { max_steps = 4 },
                                                   grad_scaler = { enabled = true, init_scale = scale } }))
            curves[i] = helper.curve(dir)
        end
        assert.same(curves[1], curves[2])
    end)

    it("falls until gradients fit, and grows again; a step that is skipped changes no weight and no moment", function()
        local dir = helper.folder()
        helper.log = ""
        helper.train_here(helper.config(dir, helper.changes(half, {
            grad_scaler = { init_scale = 2 ^ 26, growth_interval = 2, backoff_factor = 0.125 },
            step_scheduler = { max_steps = 8, ckpt_every_steps = 1 },
        })))
        local records, skipped = helper.jsonl(dir .. "/training.jsonl"), 0
        for i, r in ipairs(records) do
            local folder = ("%s/epoch_%d_step_%d"):format(dir, r.epoch, r.step)
            local before = i > 1 and ("%s/epoch_%d_step_%d"):format(dir, records[i - 1].epoch, r.step - 1)
            if r.grad_norm == json.null then
                skipped = skipped + 1
                assert.equal(records[i + 1].loss_scale, r.loss_scale / 8)
                if before then
                    assert.same(helper.tensors(before .. "/model/shard-00001-model-00001-of-00001.safetensors"),
                                helper.tensors(folder .. "/model/shard-00001-model-00001-of-00001.safetensors"))
                end
            end
            local state = json.decode(helper.read(folder .. "/optim/optimizer.json"))
            assert.equal(i - skipped, state.step)
        end
        assert.is_true(skipped >= 2 and skipped < 6)
        assert.equal(2 * records[#records - 2].loss_scale, records[#records].loss_scale)
        assert.matches("is skipped: the gradient norm is", helper.log)
    end)

    it("ends the run when it can't be what keeps gradients from being finite", function()
        local recipe = helper.recipe(helper.config(helper.folder(), helper.changes(half, {
            grad_scaler = { init_scale = 2 ^ -13 },
        })))
        function recipe:loss(batch) return require("recipes.llm_finetune").loss(self, batch) * math.huge end
        local ok, e = pcall(recipe.train, recipe)
        assert.is_false(ok)
        assert.matches("step 1: the loss is still inf with a loss scale of 6.1.*bfloat16", tostring(e))
        helper.close(recipe)
    end)

    it("is saved, and a run goes on with the same bits", function()
        local folders = {}
        for _, stops in ipairs { false, true } do
            local dir = helper.folder()
            local cfg = helper.config(dir, helper.changes(half, {
                grad_scaler = { init_scale = 2 ^ 21, growth_interval = 3 },
                optimizer = { param_group_overrides = { { pattern = "norm", lr_mult = 0.5 } } },
                step_scheduler = { max_steps = 9, ckpt_every_steps = 4 },
            }))
            if stops then
                local recipe = helper.recipe(cfg)
                recipe.stop_requested = function(self) return self.scheduler.step >= 3 end
                recipe:train()
                helper.close(recipe)
            end
            helper.train_here(cfg)
            folders[#folders + 1] = dir
        end
        assert.is_true(#steps(folders[1]) == 9 and scales(folders[1])[9] ~= scales(folders[1])[4])
        assert.same(steps(folders[1]), steps(folders[2]))
        assert.is_nil(helper.checkpoint_difference(helper.latest(folders[1]), helper.latest(folders[2])))
    end)

    it("begins anew from a checkpoint without one", function()
        local dir = helper.folder()
        local cfg = helper.config(dir, helper.changes(half, { step_scheduler = { max_steps = 1 } }))
        helper.train_here(helper.changes(cfg, { grad_scaler = { enabled = false } }))
        cfg.step_scheduler.max_steps = 2
        helper.train_here(cfg)
        assert.same({ 65536 }, scales(dir))
    end)

    it("does not go with updates inside backward", function()
        local cfg = helper.config(helper.folder(), helper.changes(half, {
            optimizer = { fuse_backward = true }, step_scheduler = { global_batch_size = 2 },
        }))
        cfg.clip_grad_norm = { max_norm = json.null }
        local status, out, errors = helper.train(cfg)
        assert.is_nil(helper.refusal_problem(2, { "optimizer.fuse_backward", "float16", "bfloat16" }, status, out,
                                             errors))
    end)
end)

-- Gradients of one rank alone are infinite in two steps; its loss is not.
local PLANTED = [[
    local autograd = require("am.core.autograd")
    local Recipe = require("recipes.llm_finetune"):extend("planted")
    local spoil = autograd.custom {
        forward = function(_, x) return x * 1 end,
        backward = function(_, grad) return grad * math.huge end,
    }
    function Recipe:objective(batch)
        local sum = require("recipes.llm_finetune").objective(self, batch)
        local step = self.scheduler.step
        return (step == 2 or step == 5) and self.world.rank == self.world.size - 1 and spoil(sum) or sum
    end
    return Recipe]]

ranks.describe("several ranks in float16", function()
    it("skip together", function()
        local recipe = helper.write(helper.folder() .. "/planted.lua", PLANTED)
        local function train(n, changes)
            return ranks.run(n, helper.config(helper.folder(), helper.changes(half, {
                grad_scaler = { init_scale = 256, growth_interval = 4 },
                step_scheduler = { global_batch_size = 8, local_batch_size = 2, max_steps = 8 },
            }, changes or {})), nil, recipe)
        end
        local one = train(1)
        for _, section in ipairs { { strategy = "ddp" }, { strategy = "fsdp2" }, { tp_size = 2 }, { pp_size = 2 } } do
            local many = train(2, { distributed = section })
            assert.equal(#one, #many)
            for i, r in ipairs(one) do
                assert.equal(r.loss_scale, many[i].loss_scale)
                assert.equal(r.grad_norm == json.null, many[i].grad_norm == json.null)
                assert.is_true(helper.relative(r.loss, many[i].loss) < 5e-3) -- of sums that are rounded to float16
            end
        end
    end)
end)
