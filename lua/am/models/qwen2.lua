-- Qwen2 and Qwen2.5 (Yang et al. 2024, arXiv:2407.10671) as transformers' modeling_qwen2.py has it: Llama's block
-- with biases of queries, keys and values, and a window in the upper layers where use_sliding_window says so.

local decoder = require("am.models.decoder")
local Attention = require("am.nn.attention")
local DecoderLayer = require("am.nn.decoder_layer").DecoderLayer
local GatedMLP = require("am.nn.mlp").GatedMLP

local function layer(c, i)
    local upper = function() return c.use_sliding_window and c.sliding_window and i >= c.max_window_layers end
    return DecoderLayer.new {
        attention = { "self_attn", Attention.new(decoder.attention(c, {
            bias = true, output_bias = false,
            window = c.use_sliding_window and decoder.window(c, i, upper) or nil,
        })) },
        mlp = { "mlp", GatedMLP.new(decoder.mlp(c, { bias = false })) },
        attention_norm = { "input_layernorm", decoder.rms_norm(c) },
        mlp_norm = { "post_attention_layernorm", decoder.rms_norm(c) },
    }
end

local M = decoder.architecture {
    name = "Qwen2ForCausalLM",
    layer = layer,
    defaults = { hidden_act = "silu", rms_norm_eps = 1e-6, max_position_embeddings = 32768, num_key_value_heads = 32,
                 sliding_window = 4096, max_window_layers = 28 },
    gguf = { architecture = "qwen2", config = { hidden_act = "silu" }, no_window = true },
}

M.layer = layer -- for families whose language model this is

return M
