-- GLM-4's first release (Zeng et al. 2024, arXiv:2406.12793) as transformers' modeling_glm.py has it: Llama's block
-- with gate and up from one map, biases of queries, keys and values, and half of a head rotated, in neighbours.

local decoder = require("am.models.decoder")
local Attention = require("am.nn.attention")
local DecoderLayer = require("am.nn.decoder_layer").DecoderLayer
local GatedMLP = require("am.nn.mlp").GatedMLP

return decoder.architecture {
    name = "GlmForCausalLM",
    layer = function(c)
        return DecoderLayer.new {
            attention = { "self_attn", Attention.new(decoder.attention(c, {
                output_bias = false, interleaved = true,
            })) },
            mlp = { "mlp", GatedMLP.new(decoder.mlp(c, { bias = false, fused = true })) },
            attention_norm = { "input_layernorm", decoder.rms_norm(c) },
            mlp_norm = { "post_attention_layernorm", decoder.rms_norm(c) },
        }
    end,
    defaults = { hidden_act = "silu", rms_norm_eps = 1.5625e-7, max_position_embeddings = 131072, head_dim = 128,
                 num_key_value_heads = 2, partial_rotary_factor = 0.5, attention_bias = true, pad_token_id = 151329 },
}
