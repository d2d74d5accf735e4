-- What the fields of config.json may be, for all families: checked before a model is made of them. Sizes are
-- checked where they are read (Config:integer).

local M = {}

local number, boolean, text, list, object = { "number" }, { "boolean" }, { "string" }, { "list" }, { "object" }
local probability, positive, size = { "number", 0, 1 }, { "number", 1e-30 }, { "integer", 1, 2 ^ 31 }
local dropout = { "number", 0, 0.9999 } -- of 1 nothing would be left

--- Name -> {type, least, greatest} of fields that are no sizes.
M.kinds = {
    -- positions
    rope_theta = { "number", 1 }, rotary_emb_base = { "number", 1 }, rope_local_base_freq = { "number", 1 },
    rope_scaling = object, max_position_embeddings = size, n_positions = size,
    sliding_window = { "integer", 0, 2 ^ 31 },
    original_max_position_embeddings = size, partial_rotary_factor = probability, rotary_pct = probability,
    max_window_layers = { "integer", 0, 2 ^ 31 }, use_sliding_window = boolean, layer_types = list,
    no_rope_layers = list, no_rope_layer_interval = size, sliding_window_pattern = size, alibi = boolean,
    -- norms
    rms_norm_eps = probability, layer_norm_eps = probability, layer_norm_epsilon = probability,
    norm_epsilon = probability, norm_eps = probability, qk_layernorm = boolean,
    -- attention and feed-forward blocks
    attention_bias = boolean, mlp_bias = boolean, use_bias = boolean, bias = boolean,
    hidden_act = text, hidden_activation = text, activation_function = text, activation = text,
    query_pre_attn_scalar = positive, attn_logit_softcapping = positive, final_logit_softcapping = positive,
    clip_qkv = positive, scale_attn_weights = boolean, scale_attn_by_inverse_layer_idx = boolean,
    use_parallel_residual = boolean, parallel_attn = boolean, multi_query = boolean,
    new_decoder_architecture = boolean, num_ln_in_parallel_attn = { "integer", 1, 2 },
    use_bidirectional_attention = boolean, tie_word_embeddings = boolean,
    embedding_multiplier = number, residual_multiplier = number, attention_multiplier = number,
    logits_scaling = positive,
    -- dropout
    attention_dropout = dropout, residual_dropout = dropout, embedding_dropout = dropout,
    hidden_dropout = dropout, resid_pdrop = dropout, embd_pdrop = dropout, attn_pdrop = dropout,
    -- experts
    norm_topk_prob = boolean, mlp_only_layers = list, router_aux_loss_coef = { "number", 0 },
    output_router_logits = boolean, router_jitter_noise = probability, swiglu_alpha = number, swiglu_limit = positive,
    -- vision towers
    vision_use_head = boolean, qkv_bias = boolean, use_swiglu_ffn = boolean, use_mask_token = boolean,
    fullatt_block_indexes = list, mlp_ratio = { "number", 1e-3, 1e6 }, layerscale_value = number,
    drop_path_rate = dropout,
    hidden_dropout_prob = dropout, attention_probs_dropout_prob = dropout,
    -- weights
    initializer_factor = { "number", 0 }, initializer_range = { "number", 0 }, torch_dtype = text,
}

--- Names of fields that transformers takes as floats only: 30 for 30.0 and it opens the file no more.
M.floats = { "initializer_factor", "layerscale_value", "initializer_range", "rms_norm_eps", "layer_norm_eps",
             "layer_norm_epsilon", "norm_epsilon", "norm_eps", "attn_logit_softcapping", "final_logit_softcapping",
             "clip_qkv", "router_aux_loss_coef", "router_jitter_noise", "swiglu_alpha", "swiglu_limit" }

--- Those with a default that may be null: there is none then. Others must be what they are.
M.nullable = { sliding_window = true, attn_logit_softcapping = true, final_logit_softcapping = true, clip_qkv = true,
               rope_scaling = true, layer_types = true, mlp_only_layers = true, no_rope_layers = true }

--- Names of sizes that config_overrides may give where config.json has none.
M.sizes = { "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
            "head_dim", "vocab_size", "pad_token_id", "bos_token_id", "eos_token_id", "num_experts",
            "num_local_experts", "num_experts_per_tok", "moe_intermediate_size", "shared_expert_intermediate_size",
            "decoder_sparse_step" }

return M
