-- What parameters of families begin with that differ from others', as transformers' _init_weights have it.
-- The rest: weights_spec.lua.

local am = require("am")
local tiny = require("tests.support.tiny")

describe("a model from a configuration", function()
    it("begins as its family does", function()
        local function std(model, name)
            local t = model:get(name:match("^(.*)%.")).weight:detach()
            return math.sqrt((t * t):mean():item())
        end
        local function near(expected, found)
            assert.is_true(math.abs(found - expected) < expected * 0.1, found .. " is not " .. expected)
        end
        local gpt2 = am.AutoModelForCausalLM.from_config { architectures = { "GPT2LMHeadModel" }, vocab_size = 9,
            n_embd = 64, n_head = 2, n_layer = 8, n_positions = 8, pad_token_id = 3 }
        near(0.02, std(gpt2, "transformer.h.3.attn.c_attn.weight"))
        near(0.005, std(gpt2, "transformer.h.3.attn.c_proj.weight")) -- 0.02 / sqrt(2 layers)
        near(0.005, std(gpt2, "transformer.h.3.mlp.c_proj.weight"))
        assert.is_true(gpt2.transformer.wte.weight:detach():select(0, 3):abs():amax():item() > 0) -- no padding row
        gpt2:close()
        for name, range in pairs { Starcoder2ForCausalLM = 0.018042, NemotronForCausalLM = 0.0134 } do
            local model = tiny.model { architectures = { name }, initializer_range = false, hidden_size = 48,
                                       intermediate_size = 96, head_dim = 8 }
            near(range, std(model, "model.layers.0.mlp." .. (name:find("^Star") and "c_proj" or "down_proj")
                                         .. ".weight"))
            assert.equal(1, model.model.norm.weight:amin():item()) -- Nemotron's too, which adds 1 to it
            model:close()
        end
        local moe = tiny.model { architectures = { "GptOssForCausalLM" }, num_local_experts = 3,
                                 num_experts_per_tok = 1 }
        assert.is_true(moe:get("model.layers.0.mlp.router").bias:detach():abs():amax():item() > 0)
        moe:close()
    end)
end)
