-- GLM-4-0414 (Z.ai 2025) as transformers' modeling_glm4.py has it: GLM's block with norms after attention and
-- feed-forward too.

local decoder = require("am.models.decoder")
local Attention = require("am.nn.attention")
local DecoderLayer = require("am.nn.decoder_layer").DecoderLayer
local GatedMLP = require("am.nn.mlp").GatedMLP

return decoder.architecture {
    name = "Glm4ForCausalLM",
    layer = function(c)
        return DecoderLayer.new {
            attention = { "self_attn", Attention.new(decoder.attention(c, {
                output_bias = false, interleaved = true,
            })) },
            mlp = { "mlp", GatedMLP.new(decoder.mlp(c, { bias = false, fused = true })) },
            attention_norm = { "input_layernorm", decoder.rms_norm(c) },
            attention_post_norm = { "post_self_attn_layernorm", decoder.rms_norm(c) },
            mlp_norm = { "post_attention_layernorm", decoder.rms_norm(c) },
            mlp_post_norm = { "post_mlp_layernorm", decoder.rms_norm(c) },
        }
    end,
    defaults = { hidden_act = "silu", rms_norm_eps = 1.5625e-7, max_position_embeddings = 131072, head_dim = 128,
                 num_key_value_heads = 2, partial_rotary_factor = 0.5, attention_bias = true, pad_token_id = 151329 },
    gguf = {
        architecture = "glm4",
        config = { hidden_act = "silu" },
        flags = { attention_bias = "blk.0.attn_q.bias" },
        partial_rotary = true,
        names = {
            ["model.layers.%d.post_self_attn_layernorm"] = "blk.%d.post_attention_norm",
            ["model.layers.%d.post_mlp_layernorm"] = "blk.%d.post_ffw_norm",
            ["model.layers.%d.mlp.gate_up_proj"] = "blk.%d.ffn_up",
        },
    },
}
