-- Mixtral (Jiang et al. 2024, arXiv:2401.04088) as transformers' modeling_mixtral.py has it: Mistral with experts in
-- place of the feed-forward block.

local decoder = require("am.models.decoder")
local Attention = require("am.nn.attention")
local DecoderLayer = require("am.nn.decoder_layer").DecoderLayer

return decoder.architecture {
    name = "MixtralForCausalLM",
    layer = function(c)
        return DecoderLayer.new {
            attention = { "self_attn", Attention.new(decoder.attention(c, {
                bias = false, output_bias = false, window = c.sliding_window,
            })) },
            mlp = { "block_sparse_moe", decoder.experts(c, {
                intermediate_size = c:integer("intermediate_size"), names = { "w1", "w3", "w2" }, normalize = true,
                jitter = c.router_jitter_noise,
            }) },
            attention_norm = { "input_layernorm", decoder.rms_norm(c) },
            mlp_norm = { "post_attention_layernorm", decoder.rms_norm(c) },
        }
    end,
    attribute_map = { num_experts = "num_local_experts" },
    defaults = { hidden_act = "silu", rms_norm_eps = 1e-5, max_position_embeddings = 131072, num_key_value_heads = 8,
                 rope_theta = 1000000, num_local_experts = 8, num_experts_per_tok = 2, router_aux_loss_coef = 0.001 },
    gguf = {
        architecture = "llama",
        model_type = "mixtral",
        experts = true,
        config = { hidden_act = "silu" },
        rope_tensors = true,
        no_window = true,
        keys = { ["expert_count"] = "num_local_experts" },
        names = {
            ["model.layers.%d.block_sparse_moe.gate"] = "blk.%d.ffn_gate_inp",
            ["model.layers.%d.block_sparse_moe.experts.%d.w1"] = "blk.%d.ffn_gate_exps",
            ["model.layers.%d.block_sparse_moe.experts.%d.w2"] = "blk.%d.ffn_down_exps",
            ["model.layers.%d.block_sparse_moe.experts.%d.w3"] = "blk.%d.ffn_up_exps",
        },
        changes = { { "%.q_proj%.", "rotary", "num_attention_heads" },
                    { "%.k_proj%.", "rotary", "num_key_value_heads" } },
    },
}
