-- GPT-OSS (OpenAI 2025, arXiv:2508.10925) as transformers' modeling_gpt_oss.py has it: attention with sinks and a
-- window in every other layer, experts with biases whose gate and up lie interleaved, a clamped activation.

local decoder = require("am.models.decoder")
local ops = require("am.core.ops")
local Attention = require("am.nn.attention")
local DecoderLayer = require("am.nn.decoder_layer").DecoderLayer
local Linear = require("am.nn.linear")
local Module = require("am.nn.module")
local moe = require("am.nn.moe")

local Experts = Module.class("GptOssExperts")

function Experts.new(c, n)
    local self = Module.init(Experts)
    local hidden, inner = c.hidden_size, c:integer("intermediate_size")
    self.alpha, self.limit = c.swiglu_alpha, c.swiglu_limit
    self:declare("gate_up_proj", { n, hidden, 2 * inner })
    self:declare("gate_up_proj_bias", { n, 2 * inner }, "zeros")
    self:declare("down_proj", { n, inner, hidden })
    self:declare("down_proj_bias", { n, hidden }, "zeros")
    return self
end

--- x [N, C], rows sorted by expert -> [N, C]
function Experts:forward(x, offsets)
    local both = ops.grouped_linear(x, self.gate_up_proj, offsets, self.gate_up_proj_bias, { transposed = true })
    local inner = both:size(1) / 2
    local gate = both:narrow(1, 0, inner, 2):clamp(nil, self.limit)
    local up = both:narrow(1, 1, inner, 2):clamp(-self.limit, self.limit)
    local gated = (up + 1) * (gate * (gate * self.alpha):sigmoid())
    return ops.grouped_linear(gated, self.down_proj, offsets, self.down_proj_bias, { transposed = true })
end

local function is_sliding(i)
    return function() return i % 2 == 0 end
end

return decoder.architecture {
    name = "GptOssForCausalLM",
    layer = function(c, i)
        local n = c:integer("num_local_experts")
        return DecoderLayer.new {
            attention = { "self_attn", Attention.new(decoder.attention(c, {
                sinks = true, window = decoder.window(c, i, is_sliding(i)),
            })) },
            mlp = { "mlp", moe.SparseMoE.new {
                router = { "router", Linear.new(c.hidden_size, n, true, "normal") },
                experts = { "experts", Experts.new(c, n) },
                num_experts = n, top_k = c:integer("num_experts_per_tok", nil, n), softmax_after = true,
            } },
            attention_norm = { "input_layernorm", decoder.rms_norm(c) },
            mlp_norm = { "post_attention_layernorm", decoder.rms_norm(c) },
        }
    end,
    attribute_map = { num_experts = "num_local_experts" },
    defaults = {
        hidden_act = "silu", rms_norm_eps = 1e-5, max_position_embeddings = 131072, num_key_value_heads = 8,
        head_dim = 64, sliding_window = 128, attention_bias = true, rope_theta = 150000, num_local_experts = 128,
        num_experts_per_tok = 4, swiglu_alpha = 1.702, swiglu_limit = 7, router_aux_loss_coef = 0.001,
        rope_scaling = { rope_type = "yarn", factor = 32, beta_fast = 32, beta_slow = 1, truncate = false,
                         original_max_position_embeddings = 4096 },
    },
    gguf = {
        architecture = "gpt-oss",
        full_every = 2,
        model_type = "gpt_oss",
        config = { hidden_act = "silu" },
        only = { swiglu_alpha = 1.702, swiglu_limit = 7 },
        head = true,
        keys = { ["expert_count"] = "num_local_experts", ["expert_feed_forward_length"] = "intermediate_size" },
        names = {
            ["model.layers.%d.post_attention_layernorm"] = "blk.%d.post_attention_norm",
            ["model.layers.%d.self_attn.sinks"] = "blk.%d.attn_sinks.weight",
            ["model.layers.%d.mlp.router"] = "blk.%d.ffn_gate_inp",
            ["model.layers.%d.mlp.experts.down_proj"] = "blk.%d.ffn_down_exps.weight",
            ["model.layers.%d.mlp.experts.down_proj_bias"] = "blk.%d.ffn_down_exps.bias",
        },
        splits = {
            { "model.layers.%d.mlp.experts.gate_up_proj",
              { "blk.%d.ffn_gate_exps.weight", "blk.%d.ffn_up_exps.weight" }, dim = 1, interleaved = true },
            { "model.layers.%d.mlp.experts.gate_up_proj_bias",
              { "blk.%d.ffn_gate_exps.bias", "blk.%d.ffn_up_exps.bias" }, dim = 1, interleaved = true },
        },
        changes = { { "gate_up_proj$", "transpose" }, { "down_proj$", "transpose" } },
        read = function(c)
            if c.rope_scaling then
                c.rope_scaling.truncate = false -- as in all of its files; GGUF does not say
            end
        end,
    },
}
