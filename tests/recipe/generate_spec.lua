-- recipes/generate.lua with pictures and with checkpoints of runs: what it finds, says and refuses.
local am = require("am")
local helper = require("tests.recipe.helper")
local json = require("am.utils.json")
local path = require("am.utils.path")
local vlm = require("tests.recipe.vlm_helper")

local model, pictures

local function generate(...)
    return helper.run { "recipes/generate.lua", ... }
end

local function answer(...)
    local status, out, errors = generate("--max_new_tokens", "4", ...)
    assert.equal(0, status, errors)
    return out
end

local function refused(code, wanted, ...)
    local status, out, errors = generate(...)
    assert.is_nil(helper.refusal_problem(code, wanted, status, out, errors))
end

-- A run of two steps; its folder.
local function run(changes)
    local dir = helper.folder()
    local cfg = vlm.config(dir, model, pictures, helper.changes({ step_scheduler = { max_steps = 2 } }, changes))
    local recipe = helper.recipe(cfg, vlm.recipe)
    recipe:train()
    helper.close(recipe)
    return dir
end

setup(function() model, pictures = vlm.model("llava"), vlm.rows(3) end)
teardown(helper.cleanup)

describe("generate.lua", function()
    it("answers about pictures as generate does", function()
        local own = am.AutoModelForImageTextToText.from_pretrained(model)
        local processor = am.AutoProcessor.from_pretrained(model)
        for _, names in ipairs { { "1.png" }, { "2.png", "3.png" }, {} } do
            local content, words, plans = {}, { "--model", model, "--prompt", "What colour?" }, {}
            for i, name in ipairs(names) do
                content[i], plans[i] = { type = "image" }, processor:plan(pictures .. "/" .. name)
                words[#words + 1] = ({ "--image", "--image-path" })[i]
                words[#words + 1] = pictures .. "/" .. name
            end
            content[#content + 1] = { type = "text", text = "What colour?" }
            local ids = processor:render({ { role = "user", content = content } }, plans,
                                         { add_generation_prompt = true }).input_ids
            local out = own:generate(ids, { max_new_tokens = 4, inputs = #plans > 0 and processor.to_tensors(
                processor:collect(processor:submit(plans))) or nil })
            local text = processor.tokenizer:decode({ unpack(out, #ids + 1) }, { skip_special_tokens = true })
            assert.equal(text .. "\n", answer(unpack(words)))
        end
        own:close()
    end)

    it("says it as the original does, into a file where asked", function()
        local file, picture = helper.folder() .. "/answer.json", pictures .. "/1.png"
        local text = answer("--model", model, "--prompt", "What?", "--image-url", picture)
        assert.equal("", answer("--model", model, "--prompt", "What?", "--image-url", picture, "--output-format",
                                "json", "--output-file", file))
        assert.same({ prompt = "What?", image_url = picture, response = text:sub(1, -2) },
                    json.decode(helper.read(file)))
    end)

    it("continues a text with markers where --raw asks for that", function()
        local function raw(prompt)
            return answer("--model", model, "--raw", "--image", pictures .. "/1.png", "--prompt", prompt)
        end
        assert.equal(raw("What?"), raw("<image>What?"))
        assert.not_equal(raw("What?"), raw("What?<image>"))
    end)

    it("finds what a run saved: a whole model, an adapter, weights alone", function()
        local picture = pictures .. "/1.png"
        local function ask(...) return answer("--prompt", "What?", "--image", picture, ...) end
        local whole = run { checkpoint = { save_consolidated = true } }
        local latest = helper.latest(whole)
        local said = ask("--model", latest .. "/model/consolidated")
        assert.not_equal(said, ask("--model", model))
        assert.equal(said, ask("--checkpoint-path", whole))
        assert.equal(said, ask("--checkpoint-path", latest))
        assert(os.execute("rm -r " .. latest .. "/model/consolidated") == 0)
        refused(2, { "--base-model-path" }, "--checkpoint-path", whole, "--prompt", "x")
        assert.equal(said, ask("--checkpoint-path", whole, "--base-model-path", model))

        local adapted = run { peft = { target_modules = "*_proj", dim = 4 }, optimizer = { lr = 0.3 } }
        said = ask("--model", model, "--adapter", helper.latest(adapted) .. "/model")
        assert.not_equal(said, ask("--model", model))
        assert.equal(said, ask("--checkpoint-path", adapted))
        local saved = helper.latest(adapted) .. "/model/processor_config.json" -- the run's own processor is taken
        assert.is_truthy(path.is_file(saved))
        path.write_file(saved, "{")
        refused(1, { saved }, "--checkpoint-path", adapted, "--image", picture, "--prompt", "x")
    end)

    it("refuses what it cannot do", function()
        local one, prompt = pictures .. "/1.png", { "--prompt", "x" }
        refused(1, { "none.png" }, "--model", model, "--image", "none.png", unpack(prompt))
        refused(1, { "captions.jsonl" }, "--model", model, "--image", pictures .. "/captions.jsonl", unpack(prompt))
        refused(2, { "--image", "reads text alone" }, "--model", helper.tiny, "--image", one, unpack(prompt))
        refused(2, { "--model", "--checkpoint-path" }, "--image", one, unpack(prompt))
        refused(2, { "--checkpoint-path" }, "--model", model, "--checkpoint-path", model, unpack(prompt))
        refused(2, { "no model" }, "--checkpoint-path", pictures, unpack(prompt))
        refused(1, { "there is no" }, "--checkpoint-path", "none", unpack(prompt))
        refused(2, { "text or json" }, "--model", model, "--output-format", "xml", unpack(prompt))
        refused(1, { "1 image", "2" }, "--model", model, "--raw", "--image", one, "--prompt", "<image><image>")
    end)
end)
