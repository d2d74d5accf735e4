-- Tiny random mixtures of experts, one of each family. Holds no tests.
local am = require("am")
local helper = require("tests.recipe.helper")

local sizes = { hidden_size = 32, intermediate_size = 48, num_hidden_layers = 2, num_attention_heads = 4,
                num_key_value_heads = 2, head_dim = 8, vocab_size = 67, max_position_embeddings = 64,
                initializer_range = 0.1 }
local families = {
    mixtral = { architectures = { "MixtralForCausalLM" }, model_type = "mixtral", num_local_experts = 4,
                num_experts_per_tok = 2 },
    qwen2_moe = { architectures = { "Qwen2MoeForCausalLM" }, model_type = "qwen2_moe", num_experts = 4,
                  num_experts_per_tok = 2, moe_intermediate_size = 24, shared_expert_intermediate_size = 40,
                  decoder_sparse_step = 2 },
    qwen3_moe = { architectures = { "Qwen3MoeForCausalLM" }, model_type = "qwen3_moe", num_experts = 8,
                  num_experts_per_tok = 3, moe_intermediate_size = 24, norm_topk_prob = true },
    olmoe = { architectures = { "OlmoeForCausalLM" }, model_type = "olmoe", num_experts = 4, num_experts_per_tok = 2 },
    granite_moe = { architectures = { "GraniteMoeForCausalLM" }, model_type = "granitemoe", num_local_experts = 4,
                    num_experts_per_tok = 2 },
    gpt_oss = { architectures = { "GptOssForCausalLM" }, model_type = "gpt_oss", num_local_experts = 4,
                num_experts_per_tok = 2, rope_scaling = false },
}

-- A folder with a random model of a family. change(model), if given, is done to it before it is saved.
return function(family, change)
    local fields, dir = {}, helper.folder()
    for _, set in ipairs { sizes, families[family] } do
        for key, value in pairs(set) do
            fields[key] = value or nil
        end
    end
    am.manual_seed(7)
    local m = am.AutoModelForCausalLM.from_config(fields)
    if change then
        am.no_grad(change, m)
    end
    m:save_pretrained(dir)
    return dir
end

