-- recipes/convert.lua: GGUF files of models and adapters, and what it refuses. Directories: bad_files_spec.lua.

local am = require("am")
local helper = require("tests.recipe.helper")
local path = require("am.utils.path")
local tiny = require("tests.support.tiny")

local function refused(status, wanted, got, out, errors)
    assert.is_nil(helper.refusal_problem(status, wanted, got, out, errors))
end

describe("convert.lua", function()
    teardown(helper.cleanup)

    it("writes GGUF, which reads back the same, and an adapter, too", function()
        local text_model, folder = helper.text_model(), helper.folder()
        local text = helper.read(text_model .. "/tokenizer.json"):gsub('"add_prefix_space": *true',
                                                                       '"add_prefix_space": false')
        path.write_file(text_model .. "/tokenizer.json", text) -- llama.cpp knows GPT-2's without it
        local file, lora, adapter = folder .. "/m.gguf", folder .. "/lora.gguf", folder .. "/adapter"
        local function convert(...) return helper.run { "recipes/convert.lua", ... } end
        local status, _, errors = convert("--input", text_model, "--output-file", file, "--type", "f32")
        assert.equal(0, status, errors)
        local a, b = am.AutoModelForCausalLM.from_pretrained(text_model), am.AutoModelForCausalLM.from_pretrained(file)
        assert.same({}, tiny.differing(tiny.weights(a), tiny.weights(b)))
        local from, to = am.AutoTokenizer.from_pretrained(text_model), am.AutoTokenizer.from_pretrained(file)
        assert.same(from:encode("The keeper is Ada."), to:encode("The keeper is Ada."))
        b:close()
        local config = am.peft.apply(a, { target_modules = { "*q_proj" }, dim = 2 })
        path.mkdir_p(adapter)
        am.peft.save_adapter(a, adapter, config)
        a:close()
        status, _, errors = convert("--input", adapter, "--base-model", text_model, "--output-file", lora)
        assert.equal(0, status, errors)
        local archive = require("am.core.io").open(lora)
        assert.is_table(archive:info("blk.0.attn_q.weight.lora_b"))
        archive:close()

        local before = helper.read(file)
        refused(2, { file, "--output-file" }, convert("--input", text_model, "--output-file", file))
        assert.equal(before, helper.read(file))
        refused(2, { '"q4_l"', "q4_k" }, convert("--input", text_model, "--output-file", folder .. "/x", "--type",
                                                "q4_l"))
        refused(2, { "either --output-dir", "--output-file" }, convert("--input", text_model))
        refused(1, { "/proc/nowhere/x" }, convert("--input", text_model, "--output-file", "/proc/nowhere/x"))
        local bare = folder .. "/bare"
        path.mkdir_p(bare)
        for _, name in ipairs { "config.json", "model.safetensors" } do
            path.write_file(bare .. "/" .. name, helper.read(text_model .. "/" .. name))
        end
        refused(1, { bare, "tokenizer.json" }, convert("--input", bare, "--output-file", folder .. "/x"))
        assert.is_false(path.exists(folder .. "/x"))
    end)
end)
