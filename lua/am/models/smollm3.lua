-- SmolLM3 (Hugging Face 2025) as transformers' modeling_smollm3.py has it: Llama's block, with layers in between
-- that have no positions.

local decoder = require("am.models.decoder")
local Attention = require("am.nn.attention")
local DecoderLayer = require("am.nn.decoder_layer").DecoderLayer
local GatedMLP = require("am.nn.mlp").GatedMLP

-- Whether the i-th layer rotates: by no_rope_layers (1: it does), or all but every no_rope_layer_interval-th.
local function rotates(c, i)
    if c.no_rope_layers then
        return c.no_rope_layers[i + 1] ~= 0
    end
    return (i + 1) % c:integer("no_rope_layer_interval") ~= 0
end

return decoder.architecture {
    name = "SmolLM3ForCausalLM",
    layer = function(c, i)
        local sliding = decoder.layer_type(c, i, function() return not rotates(c, i) end) == "sliding_attention"
        return DecoderLayer.new {
            attention = { "self_attn", Attention.new(decoder.attention(c, {
                rotary = rotates(c, i),
                window = sliding and c.use_sliding_window and c.sliding_window or nil,
            })) },
            mlp = { "mlp", GatedMLP.new(decoder.mlp(c)) },
            attention_norm = { "input_layernorm", decoder.rms_norm(c) },
            mlp_norm = { "post_attention_layernorm", decoder.rms_norm(c) },
        }
    end,
    defaults = { hidden_act = "silu", rms_norm_eps = 1e-6, max_position_embeddings = 32768, rope_theta = 2000000,
                 num_key_value_heads = 4, no_rope_layer_interval = 4, tie_word_embeddings = true,
                 pad_token_id = 128004 },
    gguf = {
        architecture = "smollm3",
        config = { hidden_act = "silu" },
        flags = { attention_bias = "blk.0.attn_q.bias", mlp_bias = "blk.0.ffn_gate.bias" },
        write = function(c)
            for i = 0, c.num_hidden_layers - 1 do
                if rotates(c, i) ~= ((i + 1) % 4 ~= 0) then
                    c:unsupported("no_rope_layers", "llama.cpp rotates in all layers but every fourth")
                end
            end
        end,
        no_window = true,
        changes = { { "%.q_proj%.", "rotary", "num_attention_heads" },
                    { "%.k_proj%.", "rotary", "num_key_value_heads" } },
    },
}
