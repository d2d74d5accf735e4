-- The section `quantization` in a recipe: a run that is resumed has the bits of one that was not, with weights in 4
-- bits and in 8, and generate.lua answers over them. The bytes and numbers are tests/lua/quantization/qlora_spec.lua's
-- and tests/parity/qlora_spec.lua's; of several ranks, tests/dist/qlora_spec.lua.

local am = require("am")
local helper = require("tests.recipe.helper")
local packed = require("am.core.packed")

local KINDS = {
    load_in_4bit = { quantization = { load_in_4bit = true } },
    load_in_8bit = { quantization = { load_in_8bit = true } },
    ["transformers' BitsAndBytesConfig"] = {
        model = { quantization_config = { load_in_4bit = true, bnb_4bit_compute_dtype = "bfloat16" } },
    },
}

describe("a run over weights in few bits", function()
    teardown(helper.cleanup)

    for name, asked in pairs(KINDS) do
        it("goes on bit for bit: " .. name, function()
            local changes = helper.changes(helper.lora, asked, { step_scheduler = { ckpt_every_steps = 3 } })
            local whole, parts = helper.folder(), helper.folder()
            local recipe = helper.recipe(helper.config(whole, changes))
            local count = 0
            for _, t in recipe.model:named_parameters() do
                count = count + (packed.is(t) and 1 or 0)
            end
            assert.equal(14, count)
            recipe:train()
            helper.close(recipe)
            for _, steps in ipairs { 3, 6 } do
                changes.step_scheduler.max_steps = steps
                helper.train_here(helper.config(parts, changes))
            end
            local curve = helper.curve(whole)
            assert.equal(6, #curve)
            assert.same(curve, helper.curve(parts))
            assert.is_nil(helper.checkpoint_difference(helper.latest(whole), helper.latest(parts),
                                                       "optim/lr_scheduler.json"))
            local records = helper.jsonl(whole .. "/training.jsonl")
            assert.is_true(records[6].loss < records[1].loss, "it learns")
        end)
    end

    it("is asked over the weights that it was trained beside", function()
        local base, dir = helper.text_model(), helper.folder()
        helper.train_here(helper.config(dir, {
            quantization = { load_in_4bit = true }, model = { pretrained_model_name_or_path = base },
            peft = { target_modules = "*_proj", dim = 4 }, optimizer = { lr = 1e-2 },
        }))
        local adapter = helper.latest(dir) .. "/model"
        local function ask(...)
            local status, out, errors = helper.run { "recipes/generate.lua", "--prompt", "What?", "--max_new_tokens",
                                                     "24", ... }
            assert.equal(0, status, errors)
            return out
        end
        local model = am.AutoModelForCausalLM.from_pretrained(base, {
            quantize = am.quantization.qlora.new { load_in_4bit = true } })
        am.peft.load_adapter(model, adapter)
        local tokenizer = am.AutoTokenizer.from_pretrained(base)
        local ids = tokenizer:apply_chat_template({ { role = "user", content = "What?" } },
                                                  { tokenize = true, add_generation_prompt = true })
        local new = { unpack(model:generate(ids, { max_new_tokens = 24 }), #ids + 1) }
        model:close()
        local said = ask("--checkpoint-path", dir, "--load_in_4bit")
        assert.equal(tokenizer:decode(new, { skip_special_tokens = true }) .. "\n", said)
        assert.equal(said, ask("--model", base, "--adapter", adapter, "--load_in_4bit"))
        for _, other in ipairs { {}, { "--load_in_8bit" } } do
            assert.not_equal(said, ask("--model", base, "--adapter", adapter, unpack(other)))
        end
    end)

    it("does not go on with other weights", function()
        local dir = helper.folder()
        local changes = helper.changes(helper.lora, KINDS.load_in_4bit, { step_scheduler = { max_steps = 2 } })
        helper.train_here(helper.config(dir, changes))
        for _, other in ipairs { { load_in_8bit = true }, {} } do
            changes.quantization, changes.step_scheduler.max_steps = other, 3
            local status, out, errors = helper.train(helper.config(dir, changes))
            assert.equal(1, status, out .. errors)
            assert.matches("is of another model: base_weights is", errors)
        end
    end)
end)
