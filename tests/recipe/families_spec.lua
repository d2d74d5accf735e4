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
            for again, kind in pairs { [true] = {}, selective = lora } do
                local plain = curve(family, kind)
                local other = curve(family, helper.changes(kind, { model = { activation_checkpointing = again } }))
                for step = 1, 3 do
                    local a, b = plain[step], other[step]
                    assert.is_true(a[1] > 2 and a[1] < 6 and a[2] > 0, "step " .. step .. ": " .. json.encode(a))
                    for i = 1, #a do -- where two parts have one input, its gradient is summed in another order
                        assert.is_true(helper.relative(a[i], b[i]) <= 1e-6, json.encode { a, b })
                    end
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

-- One window of rows of several lengths, learnt in micro-batches of `rows`: its metrics.
local function of_window(family, rows, changes)
    local cfg = config_of(family, helper.changes({
        step_scheduler = { global_batch_size = 8, local_batch_size = rows, max_steps = 1 },
    }, changes or {}))
    cfg.dataloader = { shuffle = false }
    return with_recipe(cfg, function(recipe) return recipe:step() end)
end

local function check_same(a, b, keys)
    for _, key in ipairs(keys or { "num_label_tokens", "loss", "grad_norm" }) do
        assert.is_true(helper.relative(a[key], b[key]) <= 1e-5, key .. ": " .. json.encode { a, b })
    end
end

-- A window, capped scores, LayerNorm, experts.
for _, family in ipairs { "mistral", "gemma2", "gpt_neox", "qwen2_moe" } do
    describe("exactness of " .. family, function()
        teardown(helper.cleanup)

        it("is that of a batch, however it is split", function()
            for _, peft in ipairs { {}, { peft = { target_modules = "all-linear", dim = 2 } } } do
                local whole = of_window(family, 8, peft)
                check_same(whole, of_window(family, 2, peft))
                check_same(whole, of_window(family, 1, peft))
            end
        end)

        it("is that of padded rows, where they are packed", function()
            -- all 12 rows in one window, 16 packs at most
            local all = { step_scheduler = { global_batch_size = 12, local_batch_size = 12 } }
            local packed = { step_scheduler = { global_batch_size = 16, local_batch_size = 4 },
                             packed_sequence = { packed_sequence_size = 61 } }
            check_same(of_window(family, 12, all), of_window(family, 4, packed))
        end)

        it("is that of an unbroken run, where it is interrupted", function()
            for _, kind in ipairs { {}, lora } do
                local function train(dir, from)
                    local cfg = config_of(family, helper.changes(kind, { model = { attention_dropout = 0.1 } }))
                    cfg.checkpoint.checkpoint_dir, cfg.checkpoint.restore_from = dir, from
                    cfg.step_scheduler.max_steps, cfg.step_scheduler.num_epochs = 4, 4
                    cfg.step_scheduler.ckpt_every_steps = 1
                    helper.train_here(cfg)
                    return dir
                end
                local whole = train(helper.folder())
                local second
                for _, name in ipairs(path.list_dir(whole)) do
                    second = name:match("_step_1$") and path.join(whole, name) or second
                end
                local broken = train(helper.folder(), second)
                assert.same({ unpack(helper.curve(whole), 3) }, helper.curve(broken))
                assert.is_nil(helper.checkpoint_difference(helper.latest(whole), helper.latest(broken)))
            end
        end)
    end)
end

describe("the loss that balances experts", function()
    teardown(helper.cleanup)

    it("is added where the configuration says so, and said", function()
        local plain = of_window("mixtral", 8, { model = { output_router_logits = false } })
        assert.is_nil(plain.aux_loss)
        for _, coef in ipairs { 0, 0.5 } do
            local with = of_window("mixtral", 8, { model = { output_router_logits = true,
                                                             router_aux_loss_coef = coef } })
            assert.is_true(with.aux_loss >= 1, with.aux_loss)
            assert.is_true(helper.relative(with.loss, plain.loss + coef * with.aux_loss) <= 1e-6)
            assert.is_true(coef == 0 or helper.relative(with.grad_norm, plain.grad_norm) > 1e-4)
        end
    end)

    it("is that of transformers, of each micro-batch", function()
        local cfg = config_of("qwen3_moe", { model = { output_router_logits = true } })
        with_recipe(cfg, function(recipe)
            local window = recipe:next_window()
            local wanted, labels = 0, 0
            for _, batch in ipairs(window) do
                am.scope(function()
                    local function int32(array, ...)
                        return am.from_buffer(array, { batch.B, batch.T, ... }, { dtype = "int32" })
                    end
                    local out = recipe.model:forward {
                        input_ids = int32(batch.input_ids), position_ids = int32(batch.position_ids),
                        bounds = int32(batch.bounds, 2), logits_to_keep = false }
                    wanted = wanted + out.aux_loss:item() * batch.num_label_tokens
                    labels = labels + batch.num_label_tokens
                end)
            end
            local m = recipe:step(window)
            assert.is_true(helper.relative(m.aux_loss, wanted / labels) <= 1e-6)
        end)
    end)

    it("stands in the log", function()
        local dir = helper.folder()
        local cfg = config_of("olmoe")
        cfg.checkpoint.checkpoint_dir = dir
        helper.train_here(cfg)
        for _, record in ipairs(helper.jsonl(dir .. "/training.jsonl")) do
            assert.is_true(record.aux_loss >= 1 and record.aux_loss < record.loss)
        end
    end)
end)
