-- Ministral 8B (Mistral AI 2024) as transformers' modeling_ministral.py has it: Mistral with a window in the layers
-- that layer_types names.

local decoder = require("am.models.decoder")
local Attention = require("am.nn.attention")
local DecoderLayer = require("am.nn.decoder_layer").DecoderLayer
local GatedMLP = require("am.nn.mlp").GatedMLP

return decoder.architecture {
    name = "MinistralForCausalLM",
    layer = function(c, i)
        return DecoderLayer.new {
            attention = { "self_attn", Attention.new(decoder.attention(c, {
                bias = false, output_bias = false,
                window = decoder.window(c, i, function() return c.sliding_window ~= nil end),
            })) },
            mlp = { "mlp", GatedMLP.new(decoder.mlp(c, { bias = false })) },
            attention_norm = { "input_layernorm", decoder.rms_norm(c) },
            mlp_norm = { "post_attention_layernorm", decoder.rms_norm(c) },
        }
    end,
    defaults = { hidden_act = "silu", rms_norm_eps = 1e-6, max_position_embeddings = 131072, num_key_value_heads = 8,
                 sliding_window = 4096 },
}
