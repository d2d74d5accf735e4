-- The classifier against transformers (tiny_seq_cls.py), and a causal model's weights under a new head.
local am = require("am")
local helper = require("tests.recipe.helper")
local io_core = require("am.core.io")
local json = require("am.utils.json")

local dir = "tests/parity/golden/tiny_seq_cls"

local function worst(a, b)
    return (a:to("float32") - b:to("float32")):abs():max():item()
end

describe("a classifier", function()
    teardown(helper.cleanup)

    it("has transformers' logits, loss and gradients", function()
        local golden = io_core.open(dir .. "/golden.safetensors")
        local model = am.AutoModelForSequenceClassification.from_pretrained(dir)
        local ids = golden:get("input_ids")
        local by_mask = model:forward { input_ids = ids, attention_mask = golden:get("attention_mask"),
                                        labels = golden:get("labels") }
        -- 1e-5 as for causal models: f32 sums in another order
        assert.is_true(worst(by_mask.logits, golden:get("logits")) < 1e-5)
        assert.is_true(worst(by_mask.loss:reshape(1), golden:get("loss")) < 1e-5)
        by_mask.loss:backward()
        for name, t in model:named_parameters() do
            assert.is_true(worst(t.grad, golden:get("grad." .. name)) < 1e-4, name)
        end
        local row = { unpack(ids:totable()[2], 1, 7) } -- alone, and without padding
        local alone = model:forward { input_ids = row, labels = { 0 } }
        assert.is_true(worst(alone.logits:reshape(3), golden:get("logits"):narrow(0, 1, 1):reshape(3)) < 1e-5)
        model:close()
    end)

    it("is written as transformers reads it", function()
        local model = am.AutoModelForSequenceClassification.from_pretrained(dir)
        local out = helper.folder()
        model:save_pretrained(out)
        local config = json.decode(helper.read(out .. "/config.json"))
        assert.same({ "LlamaForSequenceClassification" }, { unpack(config.architectures) })
        assert.same({ ["0"] = "LABEL_0", ["1"] = "LABEL_1", ["2"] = "LABEL_2" },
                    { ["0"] = config.id2label["0"], ["1"] = config.id2label["1"], ["2"] = config.id2label["2"] })
        assert.same(helper.tensors(dir .. "/model.safetensors"), helper.tensors(out .. "/model.safetensors"))
        model:close()
    end)

    it("is made of a causal model, with a head that begins anew, the same for a seed", function()
        local heads = {}
        for i = 1, 2 do
            am.manual_seed(4)
            local model = am.AutoModelForSequenceClassification.from_pretrained(helper.tiny, { num_labels = 5 })
            assert.same({ 5, 32 }, model.score.weight:size())
            heads[i] = model.score.weight:totable()
            assert.equal("LlamaForSequenceClassification", model.class_name)
            assert.same({ "LlamaForSequenceClassification" }, { unpack(model.config.architectures) })
        end
        assert.same(heads[1], heads[2])
        local tied = am.AutoModelForSequenceClassification.from_pretrained("tests/parity/golden/tiny_llama/gqa_tied")
        assert.same({ 2, 32 }, tied.score.weight:size())
    end)

    it("is Gemma 3's by the name that transformers writes", function()
        local fields = { architectures = { "Gemma3TextForSequenceClassification" }, vocab_size = 9, hidden_size = 8,
                         intermediate_size = 8, num_hidden_layers = 1, num_attention_heads = 2, num_key_value_heads = 1,
                         head_dim = 4 }
        local model = am.AutoModelForSequenceClassification.from_config(fields)
        assert.equal("Gemma3TextForSequenceClassification", model.class_name)
        model:close()
    end)

    it("says what it can't do", function()
        for text, call in pairs {
            ["regression (1) is not"] = function()
                am.AutoModelForSequenceClassification.from_pretrained(helper.tiny, { num_labels = 1 })
            end,
            ["does not generate: it classifies"] = function()
                am.AutoModelForSequenceClassification.from_pretrained(dir):generate { 1, 2 }
            end,
            ["several rows need an attention_mask"] = function()
                am.AutoModelForSequenceClassification.from_pretrained(helper.tiny):forward {
                    input_ids = { { 1, 2 }, { 3, 4 } },
                }
            end,
            ["architecture LlamaForSequenceClassification is not supported"] = function()
                am.AutoModelForCausalLM.from_pretrained(dir)
            end,
        } do
            local ok, e = pcall(call)
            assert.is_false(ok)
            assert.is_truthy(tostring(e):find(text, 1, true), tostring(e))
        end
    end)
end)
