-- Phi-3 and Phi-4 (Abdin et al. 2024, arXiv:2404.14219, arXiv:2412.08905) as transformers' modeling_phi3.py has it:
-- Llama's block with queries, keys and values from one map, gate and up from another; LongRoPE in long variants.

local decoder = require("am.models.decoder")
local Attention = require("am.nn.attention")
local DecoderLayer = require("am.nn.decoder_layer").DecoderLayer
local GatedMLP = require("am.nn.mlp").GatedMLP
local Linear = require("am.nn.linear")
local Module = require("am.nn.module")

local Phi3Attention = Module.class("Phi3Attention", Attention)

function Phi3Attention.new(o)
    local self = Attention.configure(Phi3Attention, o)
    self:add("o_proj", Linear.new(o.num_heads * o.head_dim, o.hidden_size))
    self:add("qkv_proj", Linear.new(o.hidden_size, (o.num_heads + 2 * o.num_kv_heads) * o.head_dim))
    return self
end

--- x [B, T, C] -> queries [B, T, H, D], keys and values [B, T, K, D]
function Phi3Attention:project(x)
    local heads, kv = self.heads, self.kv_heads
    local all = self.qkv_proj:forward(x):reshape(x:size(0), x:size(1), heads + 2 * kv, self.head_dim)
    return all:narrow(2, 0, heads), all:narrow(2, heads, kv), all:narrow(2, heads + kv, kv)
end

return decoder.architecture {
    name = "Phi3ForCausalLM",
    layer = function(c)
        return DecoderLayer.new {
            attention = { "self_attn", Phi3Attention.new(decoder.attention(c, { window = c.sliding_window })) },
            mlp = { "mlp", GatedMLP.new(decoder.mlp(c, { bias = false, fused = true })) },
            attention_norm = { "input_layernorm", decoder.rms_norm(c) },
            mlp_norm = { "post_attention_layernorm", decoder.rms_norm(c) },
            dropout = c.resid_pdrop,
        }
    end,
    rotary = function(c) -- the first files say su or yarn and mean longrope
        local o = decoder.rotary(c)
        local kind = o.scaling and o.scaling.rope_type
        if kind == "su" or kind == "yarn" then
            o.scaling = setmetatable({ rope_type = "longrope" }, { __index = o.scaling })
        end
        return o
    end,
    defaults = { hidden_act = "silu", rms_norm_eps = 1e-5, max_position_embeddings = 4096,
                 original_max_position_embeddings = 4096, pad_token_id = 32000 },
    gguf = {
        architecture = "phi3",
        config = { hidden_act = "silu" },
        partial_rotary = true,
        rope_tensors = true,
        no_window = true,
        no_head_dim = true,
        names = {
            ["model.layers.%d.self_attn.qkv_proj"] = "blk.%d.attn_qkv",
            ["model.layers.%d.mlp.gate_up_proj"] = "blk.%d.ffn_up",
        },
    },
}
