-- What tests/gpu.sh measures on a GPU, tried over the emulated CUDA at small sizes. Skipped, counted, where AMLUA_CUDA
-- names no module.

local helper = require("tests.recipe.helper")
local json = require("am.utils.json")

describe("what tests/gpu.sh measures", function()
    teardown(helper.cleanup)

    it("is each kernel's time", function()
        if not os.getenv("AMLUA_CUDA") then
            pending("AMLUA_CUDA names no module")
            return
        end
        local status, out, errors = helper.run { "tests/bench/gpu_kernels.lua", "--shrink", "64", "--seconds", "0.001" }
        assert.equal(0, status, errors)
        local names = {}
        for line in out:gmatch("[^\n]+") do
            local figures = json.decode(line)
            names[#names + 1] = figures.name
            assert.is_true(figures.device ~= nil or figures.ms > 0 and figures.tflops > 0 and figures.tbs > 0, line)
        end
        assert.same({ "linear", "lora_linear and gradients", "attention", "attention and gradients",
                      "rms_norm and gradients", "glu and gradients", "linear_cross_entropy and gradients" }, names)
    end)

    it("is LoRA on Llama-3-8B's layers", function()
        if not os.getenv("AMLUA_CUDA") then
            pending("AMLUA_CUDA names no module")
            return
        end
        local small = { "hidden_size", 64, "intermediate_size", 96, "num_hidden_layers", 2, "num_attention_heads", 4,
                        "num_key_value_heads", 2, "vocab_size", 512 }
        local words = { "recipes/benchmark.lua", "tests/bench/llama3_8b_lora.yaml", "--device", "cuda",
                        "--benchmark.seq_len", "64", "--step_scheduler.global_batch_size", "2" }
        for i = 1, #small, 2 do
            words[#words + 1] = "--model.config." .. small[i]
            words[#words + 1] = tostring(small[i + 1])
        end
        local status, out, errors = helper.run(words)
        assert.equal(0, status, errors)
        assert.truthy(out:match("speed +%d+%.%d tokens/s"), out)
    end)
end)
