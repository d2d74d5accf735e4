-- A recipe with attn_implementation: flash_attention_2 on CUDA: cuDNN computes attention, padded and packed; when it
-- fails, the own kernels do. Over the emulated CUDA of the tests, which has a cuDNN in it; skipped, counted, where
-- AMLUA_CUDA names no module over it.

local ffi = require("ffi")
local helper = require("tests.recipe.helper")

ffi.cdef "size_t cudnnGetVersion(void);"

local module = os.getenv("AMLUA_CUDA")
local emulated = pcall(function() return ffi.load(module).cudnnGetVersion end)

-- Losses and all output of three steps in bf16.
local function train(implementation, packed, fail, compile)
    local dir = helper.folder()
    local cfg = helper.config(dir, helper.changes({
        device = "cuda", step_scheduler = { max_steps = 3 },
        model = { torch_dtype = "bfloat16", attn_implementation = implementation },
        packed_sequence = packed and { packed_sequence_size = 48 } or nil, compile = compile,
    }))
    local env = ("AMLUA_CUDNN=%s AM_EMU_CAPABILITY=90 AM_EMU_FAIL=%s"):format(helper.quote(module), fail or "")
    local rc, out, errors = helper.train(cfg, nil, { before = env, limit = 300 })
    assert.equal(0, rc, errors)
    local losses = {}
    for i, line in ipairs(helper.jsonl(dir .. "/training.jsonl")) do
        losses[i] = line.loss
    end
    return losses, out .. errors
end

describe("flash_attention_2 on CUDA", function()
    teardown(helper.cleanup)

    for name, packed in pairs { ["padded"] = false, ["packed"] = true } do
        it("is cuDNN's, and loses what the own kernel does: " .. name, function()
            if not emulated then
                pending("AMLUA_CUDA names no module over the emulated CUDA")
                return
            end
            local own = train("sdpa", packed)
            local losses, output = train("flash_attention_2", packed)
            local fallen, told = train("flash_attention_2", packed, "dnn:1")
            if packed then -- in CUDA graphs, too: only places without a label are more in products
                local again, said = train("flash_attention_2", true, nil, { enabled = true, mode = "reduce-overhead" })
                assert.truthy(said:find("are CUDA graphs", 1, true), said)
                for step, loss in ipairs(again) do
                    assert(math.abs(losses[step] - loss) <= 1e-2 * math.abs(loss), step .. ": " .. loss)
                end
            end
            assert.truthy(output:find("cuDNN 9.18.1", 1, true), output)
            assert.falsy(output:find("cuDNN failed", 1, true))
            assert.equal(1, select(2, told:gsub("cuDNN failed", "")))
            assert.truthy(told:find("cuDNN failed (attention: CUDNN_STATUS_EXECUTION_FAILED), own kernels compute",
                                    1, true), told)
            assert.equal(3, #own)
            assert.same(own, fallen)
            for step, loss in ipairs(own) do -- bf16 rounds each tensor to 2^-8
                assert(math.abs(losses[step] - loss) <= 2e-2 * math.abs(loss),
                       ("step %d: %.8f by cuDNN, %.8f by the own kernel"):format(step, losses[step], loss))
            end
        end)
    end
end)
