-- Gemma (Mesnard et al. 2024, arXiv:2403.08295) as transformers' modeling_gemma.py has it: Llama's block with norms
-- that multiply by 1 + weight, and embeddings times the square root of their size.

local decoder = require("am.models.decoder")
local Attention = require("am.nn.attention")
local DecoderLayer = require("am.nn.decoder_layer").DecoderLayer
local GatedMLP = require("am.nn.mlp").GatedMLP

return decoder.architecture {
    name = "GemmaForCausalLM",
    layer = function(c)
        -- what the first files call gelu is its tanh approximation
        local act = c.hidden_act == "gelu" and "gelu_pytorch_tanh" or decoder.activation(c)
        return DecoderLayer.new {
            attention = { "self_attn", Attention.new(decoder.attention(c)) },
            mlp = { "mlp", GatedMLP.new(decoder.mlp(c, { bias = false, hidden_act = act })) },
            attention_norm = { "input_layernorm", decoder.rms_norm_1p(c) },
            mlp_norm = { "post_attention_layernorm", decoder.rms_norm_1p(c) },
        }
    end,
    norm = decoder.rms_norm_1p,
    embedding_scale = function(c) return math.sqrt(c.hidden_size) end,
    check = decoder.causal_only,
    defaults = { hidden_act = "gelu_pytorch_tanh", rms_norm_eps = 1e-6, head_dim = 256,
                 max_position_embeddings = 8192, num_key_value_heads = 16, tie_word_embeddings = true,
                 pad_token_id = 0 },
    gguf = {
        architecture = "gemma",
        config = { hidden_act = "gelu_pytorch_tanh" },
        changes = { { "norm%.weight$", "add", 1 } },
    },
}
