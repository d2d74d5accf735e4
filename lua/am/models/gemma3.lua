-- Gemma 3's language model (Kamath et al. 2025, arXiv:2503.19786) as transformers' modeling_gemma3.py has it:
-- Gemma 2 with norms of queries and keys in place of the scores' cap, five layers with a window to one that sees
-- all, and a base of rotation for each of the two kinds.

local decoder = require("am.models.decoder")
local Attention = require("am.nn.attention")
local DecoderLayer = require("am.nn.decoder_layer").DecoderLayer
local GatedMLP = require("am.nn.mlp").GatedMLP

local function is_sliding(c, i)
    return function() return (i + 1) % c:integer("sliding_window_pattern") ~= 0 end
end

return decoder.architecture {
    name = "Gemma3ForCausalLM",
    layer = function(c, i)
        local layer = DecoderLayer.new {
            attention = { "self_attn", Attention.new(decoder.attention(c, {
                scale = c.query_pre_attn_scalar ^ -0.5,
                norm = function(width) return decoder.rms_norm_1p(c, width) end,
                window = decoder.window(c, i, is_sliding(c, i)),
            })) },
            mlp = { "mlp", GatedMLP.new(decoder.mlp(c, {
                bias = false, hidden_act = decoder.activation(c, "hidden_activation"),
            })) },
            attention_norm = { "input_layernorm", decoder.rms_norm_1p(c) },
            attention_post_norm = { "post_attention_layernorm", decoder.rms_norm_1p(c) },
            mlp_norm = { "pre_feedforward_layernorm", decoder.rms_norm_1p(c) },
            mlp_post_norm = { "post_feedforward_layernorm", decoder.rms_norm_1p(c) },
        }
        layer.kind = decoder.layer_type(c, i, is_sliding(c, i))
        return layer
    end,
    rotary = function(c)
        local near = decoder.rotary(c)
        near.theta, near.scaling = c.rope_local_base_freq, nil
        return { full_attention = decoder.rotary(c), sliding_attention = near }
    end,
    norm = decoder.rms_norm_1p,
    embedding_scale = function(c) return math.sqrt(c.hidden_size) end,
    logit_softcap = function(c) return c.final_logit_softcapping end,
    check = decoder.causal_only,
    defaults = { hidden_activation = "gelu_pytorch_tanh", rms_norm_eps = 1e-6, head_dim = 256, vocab_size = 262208,
                 hidden_size = 2304, intermediate_size = 9216, num_hidden_layers = 26, num_attention_heads = 8,
                 max_position_embeddings = 131072, num_key_value_heads = 4, query_pre_attn_scalar = 256,
                 sliding_window = 4096, sliding_window_pattern = 6, rope_theta = 1000000, rope_local_base_freq = 10000,
                 tie_word_embeddings = true, pad_token_id = 0 },
    gguf = {
        architecture = "gemma3",
        full_every = 6,
        model_type = "gemma3_text",
        config = { hidden_activation = "gelu_pytorch_tanh" },
        keys = { ["rope.freq_base_swa"] = "rope_local_base_freq" },
        only = { sliding_window_pattern = 6, attn_logit_softcapping = false, query_pre_attn_scalar = function(c)
            return c.num_hidden_layers == 62 and c.hidden_size / c.num_attention_heads or c.head_dim
        end },
        names = {
            ["model.layers.%d.post_attention_layernorm"] = "blk.%d.post_attention_norm",
            ["model.layers.%d.pre_feedforward_layernorm"] = "blk.%d.ffn_norm",
            ["model.layers.%d.post_feedforward_layernorm"] = "blk.%d.post_ffw_norm",
        },
        changes = { { "norm%.weight$", "add", 1 } },
    },
}
