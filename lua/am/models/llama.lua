-- Llama (Touvron et al. 2023) as transformers' modeling_llama.py has it: Llama 2 and 3, SmolLM2, Yi
-- and other configurations of the same blocks. The shortest family to read, and the one others are told apart from.

local decoder = require("am.models.decoder")
local Attention = require("am.nn.attention")
local DecoderLayer = require("am.nn.decoder_layer").DecoderLayer
local GatedMLP = require("am.nn.mlp").GatedMLP

return decoder.architecture {
    name = "LlamaForCausalLM",
    layer = function(c)
        return DecoderLayer.new {
            attention = { "self_attn", Attention.new(decoder.attention(c)) },
            mlp = { "mlp", GatedMLP.new(decoder.mlp(c)) },
            attention_norm = { "input_layernorm", decoder.rms_norm(c) },
            mlp_norm = { "post_attention_layernorm", decoder.rms_norm(c) },
        }
    end,
    defaults = { hidden_act = "silu", rms_norm_eps = 1e-6, max_position_embeddings = 2048 },
    gguf = {
        architecture = "llama",
        experts = false,
        config = { hidden_act = "silu", attention_dropout = 0 },
        flags = { attention_bias = "blk.0.attn_q.bias", mlp_bias = "blk.0.ffn_gate.bias" },
        rope_tensors = true,
        changes = {
            { "%.q_proj%.", "rotary", "num_attention_heads" },
            { "%.k_proj%.", "rotary", "num_key_value_heads" },
        },
    },
}
