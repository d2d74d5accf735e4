-- MXFP4 checkpoints: numbers equal to those of transformers' dequantising (tests/parity/mxfp4_golden.py), to the bit.

local am = require("am")
local err = require("am.core.error")
local mxfp4 = require("am.models.mxfp4")

local golden = am.load_safetensors("tests/parity/golden/mxfp4.safetensors")

-- A source over some tensors.
local function source(tensors)
    return { where = "DIR", names = tensors, close = function() end,
             get = function(name, dtype) return dtype and tensors[name]:to(dtype) or tensors[name] end }
end

local function packed(blocks, scales)
    return source { ["a.w_blocks"] = blocks or golden.w_blocks, ["a.w_scales"] = scales or golden.w_scales,
                    ["a.bias"] = am.ones { 2 } }
end

describe("packed weights", function()
    it("are read under their own name, in bfloat16 or the dtype that is asked for", function()
        local unpacked = mxfp4.unpacked(packed())
        local names = {}
        for name in pairs(unpacked.names) do
            names[#names + 1] = name
        end
        table.sort(names)
        assert.same({ "a.bias", "a.w" }, names)
        local w = unpacked.get("a.w")
        assert.equal("bfloat16", w:dtype())
        assert.same(golden.w:totable(), w:totable())
        assert.same(golden.w:totable(), unpacked.get("a.w", "float32"):totable())
        assert.equal("float32", unpacked.get("a.w", "float32"):dtype())
        assert.same({ 1, 1 }, unpacked.get("a.bias"):totable())
        assert.is_nil(unpacked.get("other"))
    end)

    it("leave other checkpoints alone", function()
        local plain = source { w_blocks = golden.w_blocks }
        assert.equal(plain, mxfp4.unpacked(plain))
    end)

    it("that do not fit are refused by name", function()
        for _, case in ipairs { { golden.w_blocks:narrow(3, 0, 8) }, { golden.w_blocks:narrow(1, 0, 4) },
                                { golden.w_blocks:to("int32") }, { nil, golden.w_scales:reshape(3, 10) },
                                { nil, golden.w_scales:to("float32") }, { golden.w_blocks:reshape(3, 160) } } do
            local ok, e = pcall(mxfp4.unpacked(packed(case[1], case[2])).get, "a.w")
            assert.is_false(ok)
            assert.is_true(err.is(e) and e.code == "format", tostring(e))
            assert.is_truthy(tostring(e):find("a.w_blocks", 1, true), tostring(e))
        end
    end)
end)

describe("a configuration of quantised weights", function()
    it("is read when they are mxfp4, and refused by its method when not", function()
        local fields = { architectures = { "LlamaForCausalLM" }, hidden_size = 8, intermediate_size = 8,
                         num_hidden_layers = 1, num_attention_heads = 1, vocab_size = 5 }
        fields.quantization_config = { quant_method = "mxfp4" }
        local model = am.AutoModelForCausalLM.from_config(fields)
        assert.is_nil(model.config:to_table().quantization_config)
        fields.quantization_config = { quant_method = "gptq" }
        local ok, e = pcall(am.AutoModelForCausalLM.from_config, fields)
        assert.is_false(ok)
        assert.is_truthy(tostring(e):find("quantised by gptq", 1, true), tostring(e))
    end)
end)
