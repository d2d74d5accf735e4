-- Granite 3's experts (IBM 2024) as transformers' modeling_granitemoe.py has it: Granite with experts in every
-- layer, whose gate and up are the halves of one tensor.

local decoder = require("am.models.decoder")
local Attention = require("am.nn.attention")
local DecoderLayer = require("am.nn.decoder_layer").DecoderLayer
local Linear = require("am.nn.linear")
local Module = require("am.nn.module")
local moe = require("am.nn.moe")

local Router = Module.class("GraniteMoeRouter")

function Router:forward(x)
    return self.layer:forward(x)
end

local GraniteMoE = Module.class("GraniteMoeMoE", moe.SparseMoE)
GraniteMoE.kernel, GraniteMoE.gated = moe.Experts.kernel, moe.Experts.gated

function GraniteMoE.new(c)
    local n, hidden, inner = c:integer("num_local_experts"), c.hidden_size, c:integer("intermediate_size")
    local router = Module.init(Router)
    router:add("layer", Linear.new(hidden, n))
    local self = moe.SparseMoE.configure(GraniteMoE, {
        router = { "router", router }, num_experts = n, top_k = c:integer("num_experts_per_tok", nil, n),
        softmax_after = true,
    })
    self.act = decoder.activation(c)
    self:add("input_linear", moe.GroupedLinear.new { num_experts = n, in_features = hidden, out_features = 2 * inner,
                                                     stacked = true })
    self:add("output_linear", moe.GroupedLinear.new { num_experts = n, in_features = inner, out_features = hidden,
                                                      stacked = true })
    return self
end

--- x [N, C], rows sorted by expert -> [N, C]
function GraniteMoE:run_experts(x, offsets)
    local both = self.input_linear:forward(x, offsets)
    local inner = both:size(1) / 2
    return self.output_linear:forward(self:gated(both:narrow(1, 0, inner), both:narrow(1, inner, inner)), offsets)
end

return decoder.architecture {
    name = "GraniteMoeForCausalLM",
    layer = function(c)
        return DecoderLayer.new {
            attention = { "self_attn", Attention.new(decoder.attention(c, { scale = c.attention_multiplier })) },
            mlp = { "block_sparse_moe", GraniteMoE.new(c) },
            attention_norm = { "input_layernorm", decoder.rms_norm(c) },
            mlp_norm = { "post_attention_layernorm", decoder.rms_norm(c) },
            multiplier = c.residual_multiplier,
        }
    end,
    embedding_multiplier = function(c) return c.embedding_multiplier end,
    logit_scale = function(c) return 1 / c.logits_scaling end,
    attribute_map = { num_experts = "num_local_experts" },
    defaults = { hidden_act = "silu", rms_norm_eps = 1e-6, max_position_embeddings = 2048, embedding_multiplier = 1,
                 residual_multiplier = 1, attention_multiplier = 1, logits_scaling = 1, num_local_experts = 8,
                 num_experts_per_tok = 2, router_aux_loss_coef = 0.001 },
    gguf = {
        architecture = "granitemoe",
        config = { hidden_act = "silu" },
        flags = { attention_bias = "blk.0.attn_q.bias" },
        rope_tensors = true,
        keys = { ["attention.scale"] = "attention_multiplier", ["embedding_scale"] = "embedding_multiplier",
                 ["residual_scale"] = "residual_multiplier", ["logit_scale"] = "logits_scaling",
                 ["expert_count"] = "num_local_experts" },
        names = { ["model.layers.%d.block_sparse_moe.router.layer"] = "blk.%d.ffn_gate_inp",
                  ["model.layers.%d.block_sparse_moe.output_linear"] = "blk.%d.ffn_down_exps" },
        splits = { { "model.layers.%d.block_sparse_moe.input_linear",
                     { "blk.%d.ffn_gate_exps", "blk.%d.ffn_up_exps" }, dim = 1 } },
        changes = { { "%.q_proj%.", "rotary", "num_attention_heads" },
                    { "%.k_proj%.", "rotary", "num_key_value_heads" } },
    },
}
