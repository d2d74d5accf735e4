-- Every family in recipes: from scratch by full fine-tuning and by LoRA, with layers computed again, packed rows, what
-- is frozen, FLOPs, the loss that balances experts, classification, distillation.
local am = require("am")
local flops = require("am.recipes.flops")
local helper = require("tests.recipe.helper")
local json = require("am.utils.json")
local path = require("am.utils.path")

local ROOT = "tests/parity/models/golden/"
local families = path.list_dir(ROOT)

-- A run of three steps on a new model of a family, on rows of at most 30 tokens.
local function config_of(family, changes)
    local model_config = json.decode(helper.read(ROOT .. family .. "/config.json"))
    local cfg = helper.config(helper.folder(), helper.changes({
        model = { _target_ = "am.AutoModelForCausalLM.from_config", config = model_config },
        dataset = { vocab_size = 48, mean_len = 12, max_sentence_len = 30, num_sentences = 12 },
        step_scheduler = { max_steps = 3 }, optimizer = { lr = 1e-3 },
    }, changes or {}))
    cfg.model.pretrained_model_name_or_path = nil
    return cfg
end

-- fn(recipe) with a recipe, which goes away then.
local function with_recipe(cfg, fn, class)
    local recipe = helper.recipe(cfg, class)
    local out = fn(recipe)
    helper.close(recipe)
    return out
end

-- Losses and norms of the gradients of three steps.
local function curve(family, changes)
    return with_recipe(config_of(family, changes), function(recipe)
        local out = {}
        for _ = 1, 3 do
            local m = recipe:step()
            out[#out + 1] = { m.loss, m.grad_norm, m.aux_loss }
        end
        return out
    end)
end

local lora = { peft = { target_modules = "all-linear", dim = 2, dropout = 0.1 },
               packed_sequence = { packed_sequence_size = 32 } }

describe("a new model of each family", function()
    teardown(helper.cleanup)

    for _, family in ipairs(families) do
        it("trains fully and by LoRA, the same where layers are computed again: " .. family, function()
            for _, kind in ipairs { {}, lora } do
                local plain = curve(family, kind)
                for i, m in ipairs(plain) do
                    assert.is_true(m[1] > 2 and m[1] < 6 and m[2] > 0, "step " .. i .. ": " .. json.encode(m))
                end
                for _, again in ipairs { true, "selective" } do
                    assert.same(plain, curve(family, helper.changes(kind, {
                        model = { activation_checkpointing = again } })), tostring(again))
                end
            end
        end)

        it("counts the products of its maps: " .. family, function()
            with_recipe(config_of(family), function(recipe)
                local model, weights, head = recipe.model, 0, 0
                local output = model:get_output_embeddings().weight
                local c = model.config
                for _, module, slot in model:parameter_slots() do
                    local t, share = module[slot.name], 1
                    if t:dim() == 3 then
                        share = c.num_experts_per_tok / c.num_experts
                    elseif t:dim() ~= 2 or module.class_name == "Embedding" or slot.name:find("bias$") then
                        share = 0
                    end
                    if module == model:get_output_embeddings() then
                        head = head + (t == output and t:numel() or 0)
                    else
                        weights = weights + share * t:numel()
                    end
                end
                local costs = flops.costs(model)
                assert.equal(6 * head, costs.head)
                assert.is_true(weights > 0 and math.abs(costs.token - 6 * weights) < 1e-6 * costs.token)
                assert.is_true(costs.pair > 0)
            end)
        end)
    end

    it("freezes what freeze_config names, whatever it is called", function()
        for family, tables in pairs { gpt2 = { "transformer.wte.weight", "transformer.wpe.weight" },
                                      gpt_neox = { "gpt_neox.embed_in.weight" },
                                      falcon = { "transformer.word_embeddings.weight" } } do
            with_recipe(config_of(family, { freeze_config = { freeze_embeddings = true } }), function(recipe)
                local frozen = {}
                for name, t in recipe.model:named_parameters() do
                    frozen[#frozen + 1] = not t.requires_grad and name or nil
                end
                assert.same(tables, frozen)
            end)
        end
        with_recipe(config_of("gpt_neox", { freeze_config = { freeze_language_model = true } }), function(recipe)
            for name, t in recipe.model:named_parameters() do
                assert.equal(name == "embed_out.weight", t.requires_grad, name)
            end
        end)
    end)
end)
