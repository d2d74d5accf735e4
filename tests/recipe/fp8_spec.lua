-- The section `fp8` in a recipe: which maps, the head's rows, LoRA, resuming, and what is refused. The numbers are
-- tests/parity/fp8_spec.lua's; of several ranks, tests/dist/fp8_spec.lua.

local am = require("am")
local config = require("am.config")
local cross_fields = require("am.recipes.cross_fields")
local helper = require("tests.recipe.helper")
local llm_finetune = require("recipes.llm_finetune")
local targets = require("am.recipes.targets")

-- The names and recipes of a model's maps in 8 bits.
local function maps_in_8_bits(model)
    local list = {}
    for path, module in model:named_modules() do
        if module.fp8 then
            list[#list + 1] = path:match("[^.]+$") .. " " .. module.fp8
        end
    end
    return table.concat(list, ", ")
end

local function with_recipe(changes, fn)
    local recipe = helper.recipe(helper.config(helper.folder(), changes))
    fn(recipe)
    helper.close(recipe)
end

local function refused(changes, ...)
    local cfg = config.load(helper.yaml(helper.folder(), helper.config(helper.folder(), changes)))
    local ok, e = pcall(function()
        config.validate(cfg, { fields = llm_finetune.schema() }, { registry = targets.registry() })
        cross_fields.check(cfg, llm_finetune)
        with_recipe(changes, function() end)
    end)
    assert.is_false(ok)
    assert.equal("usage", e.code, tostring(e))
    for _, pattern in ipairs { ... } do
        assert.matches(pattern, e.msg)
    end
end

describe("the section fp8", function()
    teardown(helper.cleanup)

    it("takes maps with dims that are multiples of 16, but those that it names", function()
        -- not the feed-forward blocks (44 wide) and the head (67 tokens)
        helper.log = ""
        with_recipe({ fp8 = { enabled = true, recipe_name = "rowwise", filter_fqns = { "layers.1", "v_proj" } } },
                    function(recipe)
            assert.equal("q_proj rowwise, k_proj rowwise, o_proj rowwise", maps_in_8_bits(recipe.model))
            assert.matches("fp8: 3 of 15 linear maps, rowwise; emulated, since device cpu", helper.log)
        end)
        helper.log = ""
        with_recipe({ fp8 = { _target_ = "nemo_automodel.components.quantization.fp8.FP8Config", emulate = true,
                              filter_fqns = { "layers.0", "k_proj", "v_proj", "o_proj" } } }, function(recipe)
            assert.equal("q_proj tensorwise", maps_in_8_bits(recipe.model))
            assert.is_nil(helper.log:find("emulated", 1, true))
        end)
        with_recipe({ model = { fp8_config = { enabled = true, filter_fqns = { "layers" } },
                                pretrained_model_name_or_path = helper.text_model() } }, function(recipe)
            assert.equal("lm_head tensorwise", maps_in_8_bits(recipe.model))
        end)
        with_recipe({ fp8 = { recipe_name = "rowwise" } }, function(recipe) -- without `enabled`
            assert.equal("", maps_in_8_bits(recipe.model))
        end)
    end)

    it("has a head's scales of all rows, and measures those with labels", function()
        local tokens = { 5, 9, 4000, 77, 21, 350, 8, 8, 1200, 3 }
        local rows = helper.write(helper.folder() .. "/rows.jsonl", ('{"input_ids": [%s], "labels": [%s]}\n')
            :format(table.concat(tokens, ","), "-100,-100,-100,77,21,350,-100,8,1200,3"))
        local dataset = { _target_ = "am.datasets.PretokenizedDataset", path_or_dataset_id = rows }
        local function losses(target, fp8)
            local cfg = helper.config(helper.folder(), {
                model = { pretrained_model_name_or_path = helper.text_model() }, fp8 = fp8,
                loss_fn = { _target_ = target }, step_scheduler = { global_batch_size = 1, local_batch_size = 1 },
            })
            cfg.dataset, cfg.validation_dataset = dataset, dataset
            local recipe = helper.recipe(cfg)
            local set, seen = recipe.validation_sets[1], nil
            local loss, model = recipe:evaluate_set(set).val_loss, recipe.model
            for batch in set.loader:batches() do
                am.no_grad(recipe.loss, recipe, batch, function(_, labels) seen = labels:numel() end)
            end
            local all = am.no_grad(function()
                local labels = am.tensor({ { -100, -100, -100, 77, 21, 350, -100, 8, 1200, 3 } }, { dtype = "int32" })
                local logits = model:forward { input_ids = { tokens } }.logits
                return am.ops.cross_entropy(logits:reshape(#tokens, -1), labels:reshape(-1)):item() / 6
            end)
            helper.close(recipe)
            assert.equal(6, seen)
            return loss, all
        end
        local masked, all = losses("am.loss.MaskedCrossEntropy", { enabled = true })
        assert.near(all, masked, 1e-6 * all)
        local fused = losses("am.loss.FusedLinearCrossEntropy", { enabled = true })
        local without_head = losses("am.loss.MaskedCrossEntropy", { enabled = true, filter_fqns = { "lm_head" } })
        assert.near(without_head, fused, 1e-6 * fused)
        assert.is_true(math.abs(masked - fused) > 1e-5, "8 bits make a difference")
    end)

    it("trains, with LoRA, too, and goes on bit for bit", function()
        for _, changes in ipairs { {}, { peft = helper.lora.peft } } do
            changes.fp8 = { enabled = true, recipe_name = "rowwise_with_gw_hp" }
            changes.step_scheduler = { ckpt_every_steps = 3 }
            local whole, parts = helper.folder(), helper.folder()
            helper.train_here(helper.config(whole, changes))
            changes.step_scheduler.max_steps = 3
            helper.train_here(helper.config(parts, changes))
            changes.step_scheduler.max_steps = 6
            helper.train_here(helper.config(parts, changes))
            assert.equal(6, #helper.curve(whole))
            assert.same(helper.curve(whole), helper.curve(parts))
            assert.is_nil(helper.checkpoint_difference(helper.latest(whole), helper.latest(parts),
                                                       "optim/lr_scheduler.json"))
        end
    end)

    it("is refused where numbers would be others than one rank's, and where no map can", function()
        refused({ fp8 = { enabled = true }, distributed = { tp_size = 2 } }, "distributed%.tp_size: with fp8",
                "dp_size")
        refused({ model = { fp8_config = { enabled = true } }, distributed = { cp_size = 2 } },
                "distributed%.cp_size: with model%.fp8_config")
        refused({ fp8 = { enabled = true, recipe_name = "blockwise" } }, "fp8%.recipe_name", "rowwise_with_gw_hp")
        refused({ fp8 = { enabled = true, filter_fqn = { "lm_head" } } }, "fp8%.filter_fqn", "filter_fqns")
        refused({ fp8 = { enabled = true, filter_fqns = { "layers" } } }, "fp8: none of the model's 15 linear maps")
        refused({ fp8 = { enabled = true }, peft = { target_modules = "*_proj", dim = 4, use_dora = true } },
                "none of the model's 15", "use_dora")
    end)
end)
