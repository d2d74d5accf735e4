-- Qwen3 (Yang et al. 2025, arXiv:2505.09388) as transformers' modeling_qwen3.py has it: Llama's block with norms of
-- each head's queries and keys, and a window in the upper layers where use_sliding_window says so.

local decoder = require("am.models.decoder")
local Attention = require("am.nn.attention")
local DecoderLayer = require("am.nn.decoder_layer").DecoderLayer
local GatedMLP = require("am.nn.mlp").GatedMLP

return decoder.architecture {
    name = "Qwen3ForCausalLM",
    layer = function(c, i)
        local upper = function() return c.use_sliding_window and c.sliding_window and i >= c.max_window_layers end
        return DecoderLayer.new {
            attention = { "self_attn", Attention.new(decoder.attention(c, {
                norm = function(width) return decoder.rms_norm(c, width) end,
                window = c.use_sliding_window and decoder.window(c, i, upper) or nil,
            })) },
            mlp = { "mlp", GatedMLP.new(decoder.mlp(c, { bias = false })) },
            attention_norm = { "input_layernorm", decoder.rms_norm(c) },
            mlp_norm = { "post_attention_layernorm", decoder.rms_norm(c) },
        }
    end,
    defaults = { hidden_act = "silu", rms_norm_eps = 1e-6, max_position_embeddings = 32768, num_key_value_heads = 32,
                 head_dim = 128, sliding_window = 4096, max_window_layers = 28 },
    gguf = { architecture = "qwen3", config = { hidden_act = "silu" }, no_window = true },
}
