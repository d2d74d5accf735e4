-- StarCoder2 (Lozhkov et al. 2024, arXiv:2402.19173) as transformers' modeling_starcoder2.py has it: Llama's order
-- with LayerNorm, an ungated feed-forward block, biases throughout, and a window where sliding_window is given.

local decoder = require("am.models.decoder")
local Attention = require("am.nn.attention")
local DecoderLayer = require("am.nn.decoder_layer").DecoderLayer
local LayerNorm = require("am.nn.layer_norm")
local Linear = require("am.nn.linear")
local MLP = require("am.nn.mlp").MLP

local function norm(c)
    return LayerNorm.new(c.hidden_size, c.norm_epsilon)
end

return decoder.architecture {
    name = "Starcoder2ForCausalLM",
    layer = function(c)
        local hidden, inner = c.hidden_size, c:integer("intermediate_size")
        return DecoderLayer.new {
            attention = { "self_attn", Attention.new(decoder.attention(c, {
                bias = c.use_bias, output_bias = c.use_bias, window = c.sliding_window,
            })) },
            mlp = { "mlp", MLP.new {
                up = { "c_fc", Linear.new(hidden, inner, c.use_bias) },
                down = { "c_proj", Linear.new(inner, hidden, c.use_bias) },
                hidden_act = decoder.activation(c),
            } },
            attention_norm = { "input_layernorm", norm(c) },
            mlp_norm = { "post_attention_layernorm", norm(c) },
            dropout = c.residual_dropout,
        }
    end,
    norm = norm,
    embedding_dropout = function(c) return c.embedding_dropout end,
    defaults = { hidden_act = "gelu_pytorch_tanh", norm_epsilon = 1e-5, max_position_embeddings = 4096, use_bias = true,
                 num_key_value_heads = 2, tie_word_embeddings = true, initializer_range = 0.018042 },
    gguf = {
        architecture = "starcoder2",
        config = { hidden_act = "gelu_pytorch_tanh" },
        flags = { use_bias = "blk.0.attn_q.bias" },
        no_window = true,
        no_head_dim = true,
        keys = { ["attention.layer_norm_epsilon"] = "norm_epsilon", ["attention.layer_norm_rms_epsilon"] = false },
        names = { ["model.layers.%d.mlp.c_fc"] = "blk.%d.ffn_up", ["model.layers.%d.mlp.c_proj"] = "blk.%d.ffn_down" },
    },
}
