-- OLMo (Groeneveld et al. 2024, arXiv:2402.00838) as transformers' modeling_olmo.py has it: Llama's block with
-- LayerNorm that has no weights, and queries, keys and values clipped where clip_qkv is given.

local decoder = require("am.models.decoder")
local Attention = require("am.nn.attention")
local DecoderLayer = require("am.nn.decoder_layer").DecoderLayer
local GatedMLP = require("am.nn.mlp").GatedMLP
local LayerNorm = require("am.nn.layer_norm")

local function norm(c)
    return LayerNorm.new(c.hidden_size, 1e-5, { weight = false, bias = false })
end

return decoder.architecture {
    name = "OlmoForCausalLM",
    layer = function(c)
        return DecoderLayer.new {
            attention = { "self_attn", Attention.new(decoder.attention(c, { clip = c.clip_qkv })) },
            mlp = { "mlp", GatedMLP.new(decoder.mlp(c, { bias = false })) },
            attention_norm = { "input_layernorm", norm(c) },
            mlp_norm = { "post_attention_layernorm", norm(c) },
        }
    end,
    norm = norm,
    defaults = { hidden_act = "silu", max_position_embeddings = 2048, pad_token_id = 1 },
    gguf = {
        architecture = "olmo",
        config = { hidden_act = "silu" },
        only = { attention_bias = false },
        keys = { ["attention.layer_norm_rms_epsilon"] = false, ["attention.clamp_kqv"] = "clip_qkv" },
        changes = { { "%.q_proj%.", "rotary", "num_attention_heads" },
                    { "%.k_proj%.", "rotary", "num_key_value_heads" } },
        write = function(_, set) set("attention.layer_norm_epsilon", 1e-5, "f32") end,
    },
}
