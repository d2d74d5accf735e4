-- Phi-1, Phi-1.5 and Phi-2 (Li et al. 2023, arXiv:2309.05463) as transformers' modeling_phi.py has it: attention and
-- feed-forward from the same norm, biases throughout, part of a head rotated.

local decoder = require("am.models.decoder")
local Attention = require("am.nn.attention")
local ParallelDecoderLayer = require("am.nn.decoder_layer").ParallelDecoderLayer
local LayerNorm = require("am.nn.layer_norm")
local Linear = require("am.nn.linear")
local MLP = require("am.nn.mlp").MLP
local Module = require("am.nn.module")

local PhiAttention = Module.class("PhiAttention", Attention)

function PhiAttention.new(o)
    local self = Attention.configure(PhiAttention, o)
    local width, kv_width = o.num_heads * o.head_dim, o.num_kv_heads * o.head_dim
    self.output = "dense"
    self:add("q_proj", Linear.new(o.hidden_size, width, true))
    self:add("k_proj", Linear.new(o.hidden_size, kv_width, true))
    self:add("v_proj", Linear.new(o.hidden_size, kv_width, true))
    self:add("dense", Linear.new(width, o.hidden_size, true))
    if o.norm then
        self.q_norm = self:add("q_layernorm", o.norm(o.head_dim))
        self.k_norm = self:add("k_layernorm", o.norm(o.head_dim))
    end
    return self
end

local function norm(c, width)
    return LayerNorm.new(width or c.hidden_size, c.layer_norm_eps)
end

return decoder.architecture {
    name = "PhiForCausalLM",
    names = { norm = "final_layernorm" },
    layer = function(c)
        local hidden, inner = c.hidden_size, c:integer("intermediate_size")
        return ParallelDecoderLayer.new {
            attention = { "self_attn", PhiAttention.new(decoder.attention(c, {
                norm = c.qk_layernorm and function(width) return norm(c, width) end or nil,
            })) },
            mlp = { "mlp", MLP.new {
                up = { "fc1", Linear.new(hidden, inner, true) },
                down = { "fc2", Linear.new(inner, hidden, true) },
                hidden_act = decoder.activation(c),
            } },
            attention_norm = { "input_layernorm", norm(c) },
            dropout = c.resid_pdrop,
        }
    end,
    norm = norm,
    head_bias = true,
    embedding_dropout = function(c) return c.embd_pdrop end,
    defaults = { hidden_act = "gelu_new", layer_norm_eps = 1e-5, max_position_embeddings = 2048,
                 partial_rotary_factor = 0.5 },
    gguf = {
        architecture = "phi2",
        model_type = "phi",
        config = { hidden_act = "gelu_new" },
        only = { qk_layernorm = false },
        partial_rotary = true,
        no_head_dim = true,
        head = true,
        keys = { ["attention.layer_norm_epsilon"] = "layer_norm_eps", ["attention.layer_norm_rms_epsilon"] = false },
        names = {
            ["model.final_layernorm"] = "output_norm",
            ["model.layers.%d.self_attn.dense"] = "blk.%d.attn_output",
            ["model.layers.%d.mlp.fc1"] = "blk.%d.ffn_up",
            ["model.layers.%d.mlp.fc2"] = "blk.%d.ffn_down",
        },
    },
}
