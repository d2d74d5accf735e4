-- Gemma 2 (Riviere et al. 2024, arXiv:2408.00118) as transformers' modeling_gemma2.py has it: Gemma with norms
-- after attention and feed-forward, soft caps of scores and logits, and a window in every other layer.

local decoder = require("am.models.decoder")
local Attention = require("am.nn.attention")
local DecoderLayer = require("am.nn.decoder_layer").DecoderLayer
local GatedMLP = require("am.nn.mlp").GatedMLP

return decoder.architecture {
    name = "Gemma2ForCausalLM",
    layer = function(c, i)
        return DecoderLayer.new {
            attention = { "self_attn", Attention.new(decoder.attention(c, {
                scale = c.query_pre_attn_scalar ^ -0.5,
                softcap = c.attn_logit_softcapping,
                window = decoder.window(c, i, function() return i % 2 == 0 end),
            })) },
            mlp = { "mlp", GatedMLP.new(decoder.mlp(c, {
                bias = false, hidden_act = decoder.activation(c, "hidden_activation"),
            })) },
            attention_norm = { "input_layernorm", decoder.rms_norm_1p(c) },
            attention_post_norm = { "post_attention_layernorm", decoder.rms_norm_1p(c) },
            mlp_norm = { "pre_feedforward_layernorm", decoder.rms_norm_1p(c) },
            mlp_post_norm = { "post_feedforward_layernorm", decoder.rms_norm_1p(c) },
        }
    end,
    norm = decoder.rms_norm_1p,
    embedding_scale = function(c) return math.sqrt(c.hidden_size) end,
    logit_softcap = function(c) return c.final_logit_softcapping end,
    check = decoder.causal_only,
    defaults = { hidden_activation = "gelu_pytorch_tanh", rms_norm_eps = 1e-6, head_dim = 256,
                 max_position_embeddings = 8192, num_key_value_heads = 4, query_pre_attn_scalar = 256,
                 sliding_window = 4096, attn_logit_softcapping = 50, final_logit_softcapping = 30,
                 tie_word_embeddings = true, pad_token_id = 0 },
    gguf = {
        architecture = "gemma2",
        full_every = 2,
        config = { hidden_activation = "gelu_pytorch_tanh" },
        only = { query_pre_attn_scalar = function(c)
            return c.num_hidden_layers == 46 and c.hidden_size / c.num_attention_heads or c.head_dim
        end },
        names = {
            ["model.layers.%d.post_attention_layernorm"] = "blk.%d.post_attention_norm",
            ["model.layers.%d.pre_feedforward_layernorm"] = "blk.%d.ffn_norm",
            ["model.layers.%d.post_feedforward_layernorm"] = "blk.%d.post_ffw_norm",
        },
        changes = { { "norm%.weight$", "add", 1 } },
    },
}
