-- OLMoE (Muennighoff et al. 2024, arXiv:2409.02060) as transformers' modeling_olmoe.py has it: Llama's order with
-- norms of all queries and all keys, and experts in every layer.

local decoder = require("am.models.decoder")
local Attention = require("am.nn.attention")
local DecoderLayer = require("am.nn.decoder_layer").DecoderLayer

return decoder.architecture {
    name = "OlmoeForCausalLM",
    layer = function(c)
        return DecoderLayer.new {
            attention = { "self_attn", Attention.new(decoder.attention(c, {
                norm = function(width) return decoder.rms_norm(c, width) end,
                norm_all = true,
                clip = c.clip_qkv,
            })) },
            mlp = { "mlp", decoder.experts(c, {
                intermediate_size = c:integer("intermediate_size"), normalize = c.norm_topk_prob,
            }) },
            attention_norm = { "input_layernorm", decoder.rms_norm(c) },
            mlp_norm = { "post_attention_layernorm", decoder.rms_norm(c) },
        }
    end,
    attribute_map = { num_local_experts = "num_experts" },
    defaults = { hidden_act = "silu", rms_norm_eps = 1e-5, max_position_embeddings = 4096, pad_token_id = 1,
                 num_experts = 64, num_experts_per_tok = 8, router_aux_loss_coef = 0.01 },
    gguf = {
        architecture = "olmoe",
        config = { hidden_act = "silu" },
        only = { norm_topk_prob = false, clip_qkv = false,
                 num_key_value_heads = function(c) return c.num_attention_heads end },
        head = true,
        keys = { ["expert_count"] = "num_experts" },
    },
}
