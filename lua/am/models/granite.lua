-- Granite 3 (IBM 2024) as transformers' modeling_granite.py has it: Llama's block with four multipliers: of
-- embeddings, scores, what is added to the residual, and logits (a divisor).

local decoder = require("am.models.decoder")
local Attention = require("am.nn.attention")
local DecoderLayer = require("am.nn.decoder_layer").DecoderLayer
local GatedMLP = require("am.nn.mlp").GatedMLP

return decoder.architecture {
    name = "GraniteForCausalLM",
    layer = function(c)
        return DecoderLayer.new {
            attention = { "self_attn", Attention.new(decoder.attention(c, { scale = c.attention_multiplier })) },
            mlp = { "mlp", GatedMLP.new(decoder.mlp(c)) },
            attention_norm = { "input_layernorm", decoder.rms_norm(c) },
            mlp_norm = { "post_attention_layernorm", decoder.rms_norm(c) },
            multiplier = c.residual_multiplier,
        }
    end,
    embedding_multiplier = function(c) return c.embedding_multiplier end,
    logit_scale = function(c) return 1 / c.logits_scaling end,
    defaults = { hidden_act = "silu", rms_norm_eps = 1e-6, max_position_embeddings = 2048, embedding_multiplier = 1,
                 residual_multiplier = 1, attention_multiplier = 1, logits_scaling = 1 },
    gguf = {
        architecture = "granite",
        config = { hidden_act = "silu" },
        flags = { attention_bias = "blk.0.attn_q.bias", mlp_bias = "blk.0.ffn_gate.bias" },
        rope_tensors = true,
        keys = { ["attention.scale"] = "attention_multiplier", ["embedding_scale"] = "embedding_multiplier",
                 ["residual_scale"] = "residual_multiplier", ["logit_scale"] = "logits_scaling" },
        changes = { { "%.q_proj%.", "rotary", "num_attention_heads" },
                    { "%.k_proj%.", "rotary", "num_key_value_heads" } },
    },
}
