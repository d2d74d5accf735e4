-- vlm_finetune on a tiny model of each family: batches split and packed alike, rows of text among those with pictures,
-- what is saved opens again and answers.
local am = require("am")
local helper = require("tests.recipe.helper")
local json = require("am.utils.json")
local vlm = require("tests.recipe.vlm_helper")
local vlm_prompt = require("am.recipes.vlm_prompt")

-- Loss, gradients' norm and the updated weights' norm of one step over all rows.
local function one_step(model, rows, changes)
    local recipe = helper.recipe(vlm.config(helper.folder(), model, rows, helper.changes({
        dataloader = { shuffle = false }, optimizer = { lr = 1e-3 }, freeze_config = { freeze_vision_tower = false },
        step_scheduler = { global_batch_size = 8, local_batch_size = 8, max_steps = 1 },
    }, changes)), vlm.recipe)
    local metrics = recipe:step()
    metrics.param_norm = recipe.optimizer:param_norm()
    helper.close(recipe)
    return metrics
end

describe("a prompt with pictures", function()
    teardown(helper.cleanup)

    it("says what its tokens are, where the family's attention goes by it", function()
        local rows, processor = vlm.rows(1), am.AutoProcessor.from_pretrained(vlm.model("gemma3"))
        local request = { text = "What colour?", images = vlm_prompt.sources({ rows .. "/1.png" }, "the test") }
        local ids, inputs = vlm_prompt.make(processor, request, "cpu")
        local types, n = inputs.token_type_ids:to_buffer()
        assert.equal(#ids, n)
        local images = 0
        for i, id in ipairs(ids) do
            assert.equal(id == processor.image_token_id and 1 or 0, types[i - 1])
            images = images + types[i - 1]
        end
        assert.is_true(images > 0)
    end)
end)

describe("vlm_finetune on", function()
    local rows
    setup(function() rows = vlm.rows(8, { text_rows = true }) end)
    teardown(helper.cleanup)

    for _, family in ipairs { "gemma3", "qwen2_5_vl", "smolvlm" } do
        it(family .. ": rows one by one, padded and packed are the same", function()
            local model = vlm.model(family)
            local whole = one_step(model, rows, {})
            for _, changes in ipairs { { step_scheduler = { local_batch_size = 1 } },
                                       { step_scheduler = { local_batch_size = 2 },
                                         packed_sequence = { pack_size = 160 } } } do
                local parts = one_step(model, rows, changes)
                assert.equal(whole.num_label_tokens, parts.num_label_tokens)
                for _, key in ipairs { "loss", "grad_norm", "param_norm" } do -- sums of float32 in another order
                    assert.is_true(helper.relative(whole[key], parts[key]) <= 1e-5,
                                   key .. ": " .. whole[key] .. " and " .. parts[key])
                end
            end
        end)

        it(family .. ": trains, and answers from what it saved", function()
            local dir = helper.folder()
            local recipe = helper.recipe(vlm.config(dir, vlm.model(family), rows, {
                step_scheduler = { max_steps = 8 }, checkpoint = { save_consolidated = "final" },
                optimizer = { lr = 5e-3 } }), vlm.recipe)
            recipe:train()
            helper.close(recipe)
            local curve = helper.jsonl(dir .. "/training.jsonl")
            -- Gemma 3's head is tied to embeddings, which are frozen
            assert.is_true(curve[8].loss < curve[1].loss - 0.3, curve[1].loss .. " to " .. curve[8].loss)
            assert.is_true(curve[8].mfu > 0)
            local status, _, errors = helper.run { "recipes/generate.lua", "--checkpoint-path", dir, "--image",
                rows .. "/1.png", "--prompt", "What colour?", "--max_new_tokens", "3" }
            assert.equal(0, status, errors)
            local again = am.AutoProcessor.from_pretrained(helper.latest(dir) .. "/model/consolidated")
            assert.equal(vlm.IMAGE, again.image_token_id)
        end)
    end

    -- Its head is tied to the embeddings, which are frozen: a batch of text alone uses nothing that is trained.
    it("gemma3: a projector alone, and rows without a picture", function()
        local model = vlm.model("gemma3", { sliding_window = 64 })
        local function step(size, on)
            return one_step(model, on or rows, { freeze_config = { freeze_vision_tower = true,
                freeze_language_model = true }, step_scheduler = { local_batch_size = size } })
        end
        local whole, parts = step(8), step(1)
        assert.is_true(whole.grad_norm > 1)
        for _, key in ipairs { "loss", "grad_norm", "param_norm" } do -- sums of float32 in another order
            assert.is_true(helper.relative(whole[key], parts[key]) <= 1e-5, key .. ": " .. whole[key] .. " and "
                .. parts[key])
        end
        local text = helper.folder()
        helper.write(text .. "/captions.jsonl", json.encode { messages = json.array {
            { role = "user", content = "Say it" }, { role = "assistant", content = "No picture" } } })
        assert.equal(0, step(8, text).grad_norm)
    end)
end)
