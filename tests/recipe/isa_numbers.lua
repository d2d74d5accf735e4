-- Writes logits, loss and gradients of a small Llama with attention dropout, in each dtype, to the
-- safetensors file that the argument names. A program of its own because the kernels are chosen
-- once a process: isa_spec.lua runs it for each instruction set.
local am = require("am")

local file = ...
local list = {}

for _, dtype in ipairs { "float32", "bfloat16", "float16" } do
    am.manual_seed(7)
    local model = am.AutoModelForCausalLM.from_config({
        architectures = { "LlamaForCausalLM" }, model_type = "llama", hidden_size = 192, intermediate_size = 520,
        num_hidden_layers = 2, num_attention_heads = 6, num_key_value_heads = 2, vocab_size = 517,
        max_position_embeddings = 256, rms_norm_eps = 1e-5, initializer_range = 0.05, attention_dropout = 0.1,
    }, { torch_dtype = dtype }):train()
    local ids, mask = { {}, {}, {} }, { {}, {}, {} }
    for t = 1, 131 do -- no multiple of a tile; the second row is padded
        ids[1][t], ids[2][t], ids[3][t] = t * 37 % 517, t * t % 517, (t * 7 + 3) % 517
        mask[1][t], mask[2][t], mask[3][t] = 1, t <= 70 and 1 or 0, 1
    end
    local out = model:forward { input_ids = ids, attention_mask = mask, labels = ids }
    out.loss:backward()
    list[#list + 1] = { dtype .. ".loss", out.loss }
    list[#list + 1] = { dtype .. ".logits", out.logits }
    for name, parameter in model:named_parameters() do
        list[#list + 1] = { dtype .. ".gradient." .. name, parameter.grad }
    end
end
require("am.core.io").save_safetensors(file, list)
