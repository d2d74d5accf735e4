-- OLMo 2 (Walsh et al. 2025, arXiv:2501.00656) as transformers' modeling_olmo2.py has it: norms after attention and
-- feed-forward, not before, and norms of all queries and all keys.

local decoder = require("am.models.decoder")
local Attention = require("am.nn.attention")
local DecoderLayer = require("am.nn.decoder_layer").DecoderLayer
local GatedMLP = require("am.nn.mlp").GatedMLP

return decoder.architecture {
    name = "Olmo2ForCausalLM",
    layer = function(c)
        return DecoderLayer.new {
            attention = { "self_attn", Attention.new(decoder.attention(c, {
                norm = function(width) return decoder.rms_norm(c, width) end,
                norm_all = true,
            })) },
            mlp = { "mlp", GatedMLP.new(decoder.mlp(c, { bias = false })) },
            attention_post_norm = { "post_attention_layernorm", decoder.rms_norm(c) },
            mlp_post_norm = { "post_feedforward_layernorm", decoder.rms_norm(c) },
        }
    end,
    defaults = { hidden_act = "silu", rms_norm_eps = 1e-5, max_position_embeddings = 2048, pad_token_id = 1 },
    gguf = {
        architecture = "olmo2",
        config = { hidden_act = "silu" },
        head = true,
        names = {
            ["model.layers.%d.post_attention_layernorm"] = "blk.%d.post_attention_norm",
            ["model.layers.%d.post_feedforward_layernorm"] = "blk.%d.post_ffw_norm",
        },
    },
}
