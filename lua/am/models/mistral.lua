-- Mistral 7B (Jiang et al. 2023, arXiv:2310.06825) as transformers' modeling_mistral.py has it: Llama's block
-- without biases, with a window in all layers where sliding_window is given.

local decoder = require("am.models.decoder")
local Attention = require("am.nn.attention")
local DecoderLayer = require("am.nn.decoder_layer").DecoderLayer
local GatedMLP = require("am.nn.mlp").GatedMLP

return decoder.architecture {
    name = "MistralForCausalLM",
    layer = function(c)
        return DecoderLayer.new {
            attention = { "self_attn", Attention.new(decoder.attention(c, {
                bias = false, output_bias = false, window = c.sliding_window,
            })) },
            mlp = { "mlp", GatedMLP.new(decoder.mlp(c, { bias = false })) },
            attention_norm = { "input_layernorm", decoder.rms_norm(c) },
            mlp_norm = { "post_attention_layernorm", decoder.rms_norm(c) },
        }
    end,
    defaults = { hidden_act = "silu", rms_norm_eps = 1e-6, max_position_embeddings = 131072, num_key_value_heads = 8,
                 sliding_window = 4096 },
    gguf = {
        architecture = "llama",
        write_only = true,
        config = { hidden_act = "silu" },
        rope_tensors = true,
        no_window = true,
        changes = { { "%.q_proj%.", "rotary", "num_attention_heads" },
                    { "%.k_proj%.", "rotary", "num_key_value_heads" } },
    },
}
