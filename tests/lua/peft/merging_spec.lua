-- Merging with its self-check: what the report says, and what it refuses.

local am = require("am")
local lora = require("am.peft.lora")
local peft = require("am.peft")
local tiny = require("tests.support.tiny")

local IDS = { 3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9 }

-- fn(model) with an adapter that does something.
local function with_adapted(fn, changes)
    local model = tiny.model(changes)
    peft.apply(model, { target_modules = { "*_proj", "embed_tokens", "lm_head" }, dim = 2, dropout = 0.5 })
    for name, t in model:named_parameters() do
        if name:find("lora_", 1, true) then
            t:detach():normal_(0, 0.1)
        end
    end
    fn(model)
    model:close()
end

-- fn() while merged weights are made by `wrong` of the right one.
local function with_wrong(wrong, fn)
    local right = lora.LinearLoRA.merged_weight
    lora.LinearLoRA.merged_weight = function(self) return wrong(right(self)) end
    local ok, e = pcall(fn)
    lora.LinearLoRA.merged_weight = right
    if not ok then
        error(e, 0)
    end
end

describe("a checked merge", function()
    it("reports how far the logits moved", function()
        for dtype, most in pairs { float64 = 1e-12, float32 = 1e-4, bfloat16 = 0.5, float16 = 0.05 } do
            with_adapted(function(model)
                model:train() -- with dropout, but not in the check
                local report = peft.merge_checked(model, IDS)
                assert.same({ dtype, 16, 15 }, { report.dtype, report.modules, report.tokens })
                assert.is_true(report.worst <= most and report.largest > 1 and report.same >= 12, report.worst)
                assert.is_true(model.training)
                assert.is_nil((peft.lora_modules(model)()))
            end, { torch_dtype = dtype, tie_word_embeddings = true })
        end
    end)

    it("refuses a model that says something else", function()
        for _, wrong in ipairs {
            function(w) return w * 1.01 end, function(w) return w * 0 end, function(w) return w * (0 / 0) end,
            function(w) return w * math.huge end,
        } do
            for _, dtype in ipairs { "float32", "float64" } do
                with_adapted(function(model)
                    with_wrong(wrong, function()
                        tiny.raised("state", { "merged model is another one", dtype }, peft.merge_checked, model, IDS)
                    end)
                end, { torch_dtype = dtype })
            end
        end
        with_adapted(function(model)
            with_wrong(function(w) return w * -1 end, function()
                tiny.raised("state", "bfloat16", peft.merge_checked, model, IDS)
            end)
        end, { torch_dtype = "bfloat16" })
    end)

    it("of a model without adapters moves nothing", function()
        local model = tiny.model()
        local report = am.scope(peft.merge_checked, model, IDS)
        assert.same({ 0, 0, 15 }, { report.modules, report.worst, report.same })
        model:close()
    end)
end)
