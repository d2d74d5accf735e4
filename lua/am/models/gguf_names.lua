-- GGUF's standard names of tensors beside those of Hugging Face checkpoints, as gguf-py's TensorNameMap has
-- them: { GGUF, Hugging Face, … }, without ".weight" and ".bias". "%d" is the layer; a second one on the
-- Hugging Face side is the expert, whose matrices one GGUF tensor stacks. Of several Hugging Face names below
-- one root the first is what GGUF's is read as; an architecture that uses another says so (gguf.lua).
-- Data alone.

return {
    { "token_embd", "model.embed_tokens", "transformer.wte", "transformer.word_embeddings", "gpt_neox.embed_in" },
    { "position_embd", "transformer.wpe" },
    { "output_norm", "model.norm", "transformer.ln_f", "gpt_neox.final_layer_norm" },
    { "output", "lm_head", "embed_out" },

    { "blk.%d.attn_norm", "model.layers.%d.input_layernorm", "transformer.h.%d.ln_1",
      "transformer.h.%d.input_layernorm", "gpt_neox.layers.%d.input_layernorm" },
    { "blk.%d.attn_q", "model.layers.%d.self_attn.q_proj" },
    { "blk.%d.attn_k", "model.layers.%d.self_attn.k_proj" },
    { "blk.%d.attn_v", "model.layers.%d.self_attn.v_proj" },
    { "blk.%d.attn_qkv", "model.layers.%d.self_attn.qkv_proj", "transformer.h.%d.attn.c_attn",
      "transformer.h.%d.self_attention.query_key_value", "gpt_neox.layers.%d.attention.query_key_value" },
    { "blk.%d.attn_output", "model.layers.%d.self_attn.o_proj", "transformer.h.%d.attn.c_proj",
      "transformer.h.%d.self_attention.dense", "gpt_neox.layers.%d.attention.dense" },
    { "blk.%d.attn_q_norm", "model.layers.%d.self_attn.q_norm" },
    { "blk.%d.attn_k_norm", "model.layers.%d.self_attn.k_norm" },

    { "blk.%d.ffn_norm", "model.layers.%d.post_attention_layernorm", "transformer.h.%d.ln_2",
      "gpt_neox.layers.%d.post_attention_layernorm", "model.layers.%d.pre_feedforward_layernorm" },
    { "blk.%d.post_ffw_norm", "model.layers.%d.post_feedforward_layernorm", "model.layers.%d.post_mlp_layernorm" },
    { "blk.%d.post_attention_norm", "model.layers.%d.post_self_attn_layernorm" },
    { "blk.%d.ffn_gate", "model.layers.%d.mlp.gate_proj" },
    { "blk.%d.ffn_up", "model.layers.%d.mlp.up_proj", "model.layers.%d.mlp.gate_up_proj",
      "model.layers.%d.mlp.c_fc", "transformer.h.%d.mlp.c_fc", "transformer.h.%d.mlp.dense_h_to_4h",
      "gpt_neox.layers.%d.mlp.dense_h_to_4h" },
    { "blk.%d.ffn_down", "model.layers.%d.mlp.down_proj", "model.layers.%d.mlp.c_proj",
      "transformer.h.%d.mlp.c_proj", "transformer.h.%d.mlp.dense_4h_to_h", "gpt_neox.layers.%d.mlp.dense_4h_to_h" },

    { "blk.%d.ffn_gate_inp", "model.layers.%d.mlp.gate", "model.layers.%d.block_sparse_moe.gate",
      "model.layers.%d.block_sparse_moe.router.layer", "model.layers.%d.mlp.router" },
    { "blk.%d.ffn_gate_exps", "model.layers.%d.mlp.experts.%d.gate_proj",
      "model.layers.%d.block_sparse_moe.experts.%d.w1" },
    { "blk.%d.ffn_up_exps", "model.layers.%d.mlp.experts.%d.up_proj",
      "model.layers.%d.block_sparse_moe.experts.%d.w3" },
    { "blk.%d.ffn_down_exps", "model.layers.%d.mlp.experts.%d.down_proj",
      "model.layers.%d.block_sparse_moe.experts.%d.w2", "model.layers.%d.block_sparse_moe.output_linear" },
    { "blk.%d.ffn_gate_inp_shexp", "model.layers.%d.mlp.shared_expert_gate" },
    { "blk.%d.ffn_gate_shexp", "model.layers.%d.mlp.shared_expert.gate_proj" },
    { "blk.%d.ffn_up_shexp", "model.layers.%d.mlp.shared_expert.up_proj" },
    { "blk.%d.ffn_down_shexp", "model.layers.%d.mlp.shared_expert.down_proj" },
}
