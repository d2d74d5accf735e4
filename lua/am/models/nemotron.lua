-- Nemotron and Minitron (NVIDIA 2024, arXiv:2406.11704, arXiv:2407.14679) as transformers' modeling_nemotron.py has
-- it: LayerNorm that multiplies by 1 + weight, an ungated feed-forward block with squared ReLU, and half of a head
-- rotated.

local decoder = require("am.models.decoder")
local Attention = require("am.nn.attention")
local DecoderLayer = require("am.nn.decoder_layer").DecoderLayer
local LayerNorm = require("am.nn.layer_norm")
local Linear = require("am.nn.linear")
local MLP = require("am.nn.mlp").MLP

local function norm(c)
    return LayerNorm.new(c.hidden_size, c.norm_eps, { offset = 1 })
end

return decoder.architecture {
    name = "NemotronForCausalLM",
    layer = function(c)
        local hidden, inner = c.hidden_size, c:integer("intermediate_size")
        return DecoderLayer.new {
            attention = { "self_attn", Attention.new(decoder.attention(c)) },
            mlp = { "mlp", MLP.new {
                up = { "up_proj", Linear.new(hidden, inner, c.mlp_bias) },
                down = { "down_proj", Linear.new(inner, hidden, c.mlp_bias) },
                hidden_act = decoder.activation(c),
            } },
            attention_norm = { "input_layernorm", norm(c) },
            mlp_norm = { "post_attention_layernorm", norm(c) },
        }
    end,
    norm = norm,
    defaults = { hidden_act = "relu2", norm_eps = 1e-5, max_position_embeddings = 4096, partial_rotary_factor = 0.5,
                 initializer_range = 0.0134 },
    gguf = {
        architecture = "nemotron",
        config = { hidden_act = "relu2" },
        flags = { attention_bias = "blk.0.attn_q.bias", mlp_bias = "blk.0.ffn_up.bias" },
        partial_rotary = true,
        head = true,
        keys = { ["attention.layer_norm_epsilon"] = "norm_eps", ["attention.layer_norm_rms_epsilon"] = false },
        changes = { { "norm%.weight$", "add", 1 } },
    },
}
