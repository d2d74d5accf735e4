-- Qwen1.5-MoE and Qwen2-MoE (Yang et al. 2024, arXiv:2407.10671) as transformers' modeling_qwen2_moe.py has it:
-- Qwen2 with experts, of which one sees all tokens, in the layers that are not named as dense.

local decoder = require("am.models.decoder")
local Attention = require("am.nn.attention")
local DecoderLayer = require("am.nn.decoder_layer").DecoderLayer
local GatedMLP = require("am.nn.mlp").GatedMLP
local Linear = require("am.nn.linear")

return decoder.architecture {
    name = "Qwen2MoeForCausalLM",
    layer = function(c, i)
        local lower = function() return c.use_sliding_window and i % 2 == 0 and i < c.max_window_layers end
        return DecoderLayer.new {
            attention = { "self_attn", Attention.new(decoder.attention(c, {
                bias = c.qkv_bias, output_bias = false,
                window = c.use_sliding_window and decoder.window(c, i, lower) or nil,
            })) },
            mlp = { "mlp", decoder.has_experts(c, i) and decoder.experts(c, {
                intermediate_size = c:integer("moe_intermediate_size"),
                normalize = c.norm_topk_prob,
                shared = { "shared_expert", GatedMLP.new(decoder.mlp(c, {
                    intermediate_size = c:integer("shared_expert_intermediate_size"), bias = false,
                })) },
                shared_gate = { "shared_expert_gate", Linear.new(c.hidden_size, 1) },
            }) or GatedMLP.new(decoder.mlp(c, { bias = false })) },
            attention_norm = { "input_layernorm", decoder.rms_norm(c) },
            mlp_norm = { "post_attention_layernorm", decoder.rms_norm(c) },
        }
    end,
    attribute_map = { num_local_experts = "num_experts" },
    defaults = { hidden_act = "silu", rms_norm_eps = 1e-6, max_position_embeddings = 32768, num_key_value_heads = 16,
                 qkv_bias = true, sliding_window = 4096, max_window_layers = 28, decoder_sparse_step = 1,
                 moe_intermediate_size = 1408, shared_expert_intermediate_size = 5632, num_experts = 60,
                 num_experts_per_tok = 4, router_aux_loss_coef = 0.001 },
    gguf = {
        architecture = "qwen2moe",
        model_type = "qwen2_moe",
        config = { hidden_act = "silu" },
        only = { norm_topk_prob = false, decoder_sparse_step = 1 },
        head = true,
        no_window = true,
        write = function(c)
            if #(c.mlp_only_layers or {}) > 0 then
                c:unsupported("mlp_only_layers", "llama.cpp has experts in every layer")
            end
        end,
        keys = { ["expert_count"] = "num_experts" },
    },
}
