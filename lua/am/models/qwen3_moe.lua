-- Qwen3-MoE (Yang et al. 2025, arXiv:2505.09388) as transformers' modeling_qwen3_moe.py has it: Qwen3 with experts
-- in the layers that are not named as dense.

local decoder = require("am.models.decoder")
local Attention = require("am.nn.attention")
local DecoderLayer = require("am.nn.decoder_layer").DecoderLayer
local GatedMLP = require("am.nn.mlp").GatedMLP

return decoder.architecture {
    name = "Qwen3MoeForCausalLM",
    layer = function(c, i)
        return DecoderLayer.new {
            attention = { "self_attn", Attention.new(decoder.attention(c, {
                norm = function(width) return decoder.rms_norm(c, width) end,
                window = c.use_sliding_window and c.sliding_window or nil,
            })) },
            mlp = { "mlp", decoder.has_experts(c, i) and decoder.experts(c, {
                intermediate_size = c:integer("moe_intermediate_size"),
                normalize = c.norm_topk_prob,
            }) or GatedMLP.new(decoder.mlp(c, { bias = false })) },
            attention_norm = { "input_layernorm", decoder.rms_norm(c) },
            mlp_norm = { "post_attention_layernorm", decoder.rms_norm(c) },
        }
    end,
    attribute_map = { num_local_experts = "num_experts" },
    defaults = { hidden_act = "silu", rms_norm_eps = 1e-6, max_position_embeddings = 32768, num_key_value_heads = 4,
                 sliding_window = 4096, decoder_sparse_step = 1, moe_intermediate_size = 768, num_experts = 128,
                 num_experts_per_tok = 8, router_aux_loss_coef = 0.001 },
    gguf = {
        architecture = "qwen3moe",
        model_type = "qwen3_moe",
        config = { hidden_act = "silu" },
        only = { norm_topk_prob = true, decoder_sparse_step = 1 },
        no_window = true,
        write = function(c)
            if #(c.mlp_only_layers or {}) > 0 then
                c:unsupported("mlp_only_layers", "llama.cpp has experts in every layer")
            end
        end,
        keys = { ["expert_count"] = "num_experts" },
    },
}
