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
    -- GGUF name -> Hugging Face name; "%d" is the layer. `permuted` names the projections whose rows
    -- GGUF stores in interleaved rotary order, with the field that counts their heads.
    gguf = {
        architecture = "llama",
        names = {
            ["token_embd"] = "model.embed_tokens",
            ["output_norm"] = "model.norm",
            ["output"] = "lm_head",
            ["blk.%d.attn_q"] = "model.layers.%d.self_attn.q_proj",
            ["blk.%d.attn_k"] = "model.layers.%d.self_attn.k_proj",
            ["blk.%d.attn_v"] = "model.layers.%d.self_attn.v_proj",
            ["blk.%d.attn_output"] = "model.layers.%d.self_attn.o_proj",
            ["blk.%d.ffn_gate"] = "model.layers.%d.mlp.gate_proj",
            ["blk.%d.ffn_up"] = "model.layers.%d.mlp.up_proj",
            ["blk.%d.ffn_down"] = "model.layers.%d.mlp.down_proj",
            ["blk.%d.attn_norm"] = "model.layers.%d.input_layernorm",
            ["blk.%d.ffn_norm"] = "model.layers.%d.post_attention_layernorm",
        },
        permuted = {
            ["blk.%d.attn_q"] = "num_attention_heads",
            ["blk.%d.attn_k"] = "num_key_value_heads",
        },
    },
}
