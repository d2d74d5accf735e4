-- LoRA of a model with pictures by vlm_finetune, and merge_lora.lua: what is adapted, and that the merged folder is one
-- that answers about pictures as base and adapter do.

local am = require("am")
local helper = require("tests.recipe.helper")
local path = require("am.utils.path")
local vlm = require("tests.recipe.vlm_helper")

-- Paths of the modules that an adapter's folder adapts.
local function adapted(dir)
    local names = {}
    for name in pairs(am.load_safetensors(dir .. "/adapter_model.safetensors")) do
        names[name:match("^base_model%.model%.(.*)%.lora_")] = true
    end
    return names
end

local function answer(...)
    local status, out, errors = helper.run { "recipes/generate.lua", "--prompt", "What colour?", "--max_new_tokens",
                                             "6", ... }
    assert.equal(0, status, errors)
    return out
end

describe("an adapter of a model with pictures", function()
    local rows
    setup(function() rows = vlm.rows(8) end)
    teardown(helper.cleanup)

    local cases = {
        { "gemma3", { exclude_modules = { "*vision_tower*", "*vision*", "*visual*", "*image_encoder*", "*lm_head*" } },
          "model.language_model.layers.1.mlp.down_proj", nil },
        { "smolvlm", { match_all_linear = true }, "lm_head", "model.vision_model.encoder.layers.0.self_attn.out_proj" },
    }
    for _, case in ipairs(cases) do
        local family, peft, text, vision = unpack(case)
        it("is trained, merged, and answers as before: " .. family, function()
            local model, dir, out = vlm.model(family), helper.folder(), helper.folder() .. "/merged"
            local recipe = helper.recipe(vlm.config(dir, model, rows, {
                peft = helper.changes(peft, { dim = 2, alpha = 8 }), optimizer = { lr = 2e-2 },
                step_scheduler = { max_steps = 4 },
            }), vlm.recipe)
            recipe:train()
            helper.close(recipe)
            local adapter = helper.latest(dir) .. "/model"
            local names = adapted(adapter)
            assert.is_true(names[text])
            for name in pairs(names) do
                assert.is_true(vision ~= nil or not name:find("vision"), name)
            end
            assert.is_true(vision == nil or names[vision])
            local status, said, errors = helper.run { "recipes/merge_lora.lua", "--base-model", model,
                                                      "--adapter-path", adapter, "--output-dir", out }
            assert.equal(0, status, errors)
            assert.matches("have the same likeliest next token", said)
            assert.is_true(path.is_file(out .. "/preprocessor_config.json") or path.is_file(
                out .. "/processor_config.json"))
            for _, picture in ipairs { "1.png", "3.png" } do
                assert.equal(answer("--model", model, "--adapter", adapter, "--image", rows .. "/" .. picture),
                             answer("--model", out, "--image", rows .. "/" .. picture))
            end
        end)
    end
end)
