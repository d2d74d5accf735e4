-- recipes/generate.lua on CUDA, over the emulated one of the tests: the words of the CPU. Skipped, counted, where
-- AMLUA_CUDA names no module.

local helper = require("tests.recipe.helper")
local vlm = require("tests.recipe.vlm_helper")

local function answer(device, words)
    local status, out, errors = helper.run {
        "recipes/generate.lua", "--max_new_tokens", "6", "--prompt", "What colour?", "--device", device, unpack(words),
    }
    assert.equal(0, status, errors)
    assert.equal(device == "cuda", errors:find("cuda:0 is ", 1, true) ~= nil)
    return out
end

describe("generate.lua on CUDA answers what it answers on a CPU:", function()
    teardown(helper.cleanup)

    local function case(name, words)
        it(name, function()
            if not os.getenv("AMLUA_CUDA") then
                pending("AMLUA_CUDA names no module")
                return
            end
            local list = words()
            assert.equal(answer("cpu", list), answer("cuda", list))
        end)
    end

    case("a text", function() return { "--model", helper.text_model() } end)
    case("a text, by weights in 4 bits", function()
        return { "--model", helper.text_model(), "--load_in_4bit", "--torch_dtype", "float32" }
    end)
    case("a sample", function() return { "--model", helper.text_model(), "--temperature", "1", "--top_k", "5" } end)
    case("a picture", function()
        return { "--model", vlm.model("gemma3"), "--image", vlm.rows(1) .. "/1.png" }
    end)
end)
