-- Live bytes are the same after every step, with Lua's collector stopped: tensors are freed by scopes
-- and the tape, never by chance. And what memory.lua foretells is near what a step takes.
local am = require("am")
local helper = require("tests.recipe.helper")

local STEPS = 200

local function live()
    local now = am.memory()
    return now.live_bytes, now.live_storages
end

local function config_of(changes)
    return helper.config(helper.folder(), helper.changes({
        step_scheduler = { max_steps = STEPS, num_epochs = 1000, ckpt_every_steps = 50, val_every_steps = 25 },
        validation_dataset = { _target_ = "am.datasets.build_unpacked_dataset", num_sentences = 5, seed = 1,
                               vocab_size = 67 },
    }, changes))
end

local kinds = {
    { name = "full", changes = { checkpoint = { save_consolidated = "every" } } },
    { name = "LoRA", changes = helper.lora },
    { name = "recomputed layers in bfloat16",
      changes = { model = { torch_dtype = "bfloat16", activation_checkpointing = true, attention_dropout = 0.1 } } },
}

describe("live bytes", function()
    before_each(function()
        collectgarbage()
        collectgarbage()
        collectgarbage("stop")
    end)
    after_each(function() collectgarbage("restart") end)
    teardown(helper.cleanup)

    for _, kind in ipairs(kinds) do
        it("are the same after every step, validation and save: " .. kind.name, function()
            local recipe = helper.recipe(config_of(kind.changes))
            local after, log_step, save, evaluate = {}, recipe.log_step, recipe.save_checkpoint, recipe.evaluate
            local function note(what)
                local bytes, storages = live()
                after[#after + 1] = string.format("%d bytes in %d storages", bytes, storages)
                assert.equal(after[1], after[#after], "after " .. what .. " of step " .. recipe.scheduler.step)
            end
            function recipe:log_step(...)
                log_step(self, ...)
                note("the update")
            end
            function recipe:evaluate(...)
                local loss = evaluate(self, ...)
                note("the validation")
                return loss
            end
            function recipe:save_checkpoint(...)
                save(self, ...)
                note("the save")
            end
            recipe:train()
            assert.equal(STEPS + 8 + 4, #after)
            helper.close(recipe)
        end)
    end

    it("are the same after generating", function()
        local model = am.AutoModelForCausalLM.from_pretrained(helper.tiny)
        local prompt, before = { 5, 9, 14 }, nil
        for i = 1, 60 do
            local ids = model:generate(prompt, { max_new_tokens = 1 + i % 30, do_sample = i % 2 == 0, seed = i,
                                                 eos_token_id = -1 })
            assert.is_true(#ids > #prompt)
            local bytes = live()
            before = before or bytes
            assert.equal(before, bytes, "after the text of try " .. i)
        end
        model:close()
    end)

    it("go back when a recipe is closed", function()
        local before = live()
        for _ = 1, 3 do
            local recipe = helper.recipe(config_of { step_scheduler = { max_steps = 2 } })
            recipe:train()
            helper.close(recipe)
        end
        assert.equal(before, (live()))
    end)
end)
