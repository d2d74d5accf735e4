-- Ministral 3's language model (Mistral AI 2025) as transformers' modeling_ministral3.py has it: Mistral with YaRN,
-- and queries that grow with the logarithm of their position, as Llama 4's do.

local decoder = require("am.models.decoder")
local Attention = require("am.nn.attention")
local DecoderLayer = require("am.nn.decoder_layer").DecoderLayer
local GatedMLP = require("am.nn.mlp").GatedMLP
local Module = require("am.nn.module")

local Ministral3Attention = Module.class("Ministral3Attention", Attention)

--- Queries times 1 + beta log(1 + floor(position / length)), length being the one that was trained.
function Ministral3Attention:rotate(q, k, rotary, ctx)
    q, k = Attention.rotate(self, q, k, rotary)
    local at = ctx.position_ids
    local grown = (at:to("float32") / self.length):floor():log1p() * self.beta + 1
    return q * grown:to(q:dtype()):reshape(at:size(0), at:size(1), 1, 1), k
end

return decoder.architecture {
    name = "Ministral3ForCausalLM",
    layer = function(c)
        local rope = c.rope_scaling or {}
        local attention = Attention.new(decoder.attention(c, {
            bias = false, output_bias = false, window = c.sliding_window,
        }), Ministral3Attention)
        attention.beta = rope.llama_4_scaling_beta or 0
        attention.length = rope.original_max_position_embeddings or c.max_position_embeddings
        return DecoderLayer.new {
            attention = { "self_attn", attention },
            mlp = { "mlp", GatedMLP.new(decoder.mlp(c, { bias = false })) },
            attention_norm = { "input_layernorm", decoder.rms_norm(c) },
            mlp_norm = { "post_attention_layernorm", decoder.rms_norm(c) },
        }
    end,
    defaults = {
        hidden_act = "silu", rms_norm_eps = 1e-5, max_position_embeddings = 262144, num_key_value_heads = 8,
        head_dim = 128, rope_theta = 1000000, pad_token_id = 11,
        rope_scaling = { rope_type = "yarn", factor = 16, original_max_position_embeddings = 16384, beta_fast = 32,
                         beta_slow = 1, mscale = 1, mscale_all_dim = 1, llama_4_scaling_beta = 0.1 },
    },
    gguf = {
        architecture = "mistral3",
        model_type = "ministral3",
        config = { hidden_act = "silu" },
        no_window = true,
        changes = { { "%.q_proj%.", "rotary", "num_attention_heads" },
                    { "%.k_proj%.", "rotary", "num_key_value_heads" } },
        read = function(c, get)
            local scaling = c.rope_scaling or {}
            scaling.mscale_all_dim = get("rope.scaling.yarn_log_multiplier")
            scaling.mscale = scaling.mscale_all_dim
            scaling.llama_4_scaling_beta = get("attention.temperature_scale")
        end,
        write = function(c, set)
            local scaling = c.rope_scaling or {}
            if scaling.mscale ~= scaling.mscale_all_dim then
                c:unsupported("rope_scaling", "GGUF has one number for mscale and mscale_all_dim")
            end
            set("rope.scaling.yarn_log_multiplier", scaling.mscale_all_dim, "f32")
            set("attention.temperature_scale", scaling.llama_4_scaling_beta, "f32")
        end,
    },
}
