-- GPT-NeoX and Pythia (Black et al. 2022, arXiv:2204.06745) as transformers' modeling_gpt_neox.py has it: attention
-- and feed-forward from the same input, one map for queries, keys and values, a quarter of each head rotated.

local decoder = require("am.models.decoder")
local Attention = require("am.nn.attention")
local layers = require("am.nn.decoder_layer")
local LayerNorm = require("am.nn.layer_norm")
local Linear = require("am.nn.linear")
local MLP = require("am.nn.mlp").MLP
local Module = require("am.nn.module")

local GPTNeoXAttention = Module.class("GPTNeoXAttention", Attention)

function GPTNeoXAttention.new(o)
    local self = Attention.configure(GPTNeoXAttention, o)
    self.output = "dense"
    self:add("query_key_value", Linear.new(o.hidden_size, 3 * o.hidden_size, o.bias))
    self:add("dense", Linear.new(o.hidden_size, o.hidden_size, o.bias))
    return self
end

--- x [B, T, C] -> queries, keys and values [B, T, H, D]; the map gives all three of a head together.
function GPTNeoXAttention:project(x)
    local d = self.head_dim
    local all = self.query_key_value:forward(x):reshape(x:size(0), x:size(1), self.heads, 3 * d)
    return all:narrow(3, 0, d), all:narrow(3, d, d), all:narrow(3, 2 * d, d)
end

local function norm(c)
    return LayerNorm.new(c.hidden_size, c.layer_norm_eps)
end

return decoder.architecture {
    name = "GPTNeoXForCausalLM",
    names = { body = "gpt_neox", embeddings = "embed_in", norm = "final_layer_norm", head = "embed_out" },
    layer = function(c)
        local hidden, inner = c.hidden_size, c:integer("intermediate_size")
        local class = c.use_parallel_residual and layers.ParallelDecoderLayer or layers.DecoderLayer
        return class.new {
            attention = { "attention", GPTNeoXAttention.new(decoder.attention(c)) },
            mlp = { "mlp", MLP.new {
                up = { "dense_h_to_4h", Linear.new(hidden, inner, true) },
                down = { "dense_4h_to_h", Linear.new(inner, hidden, true) },
                hidden_act = decoder.activation(c),
            } },
            attention_norm = { "input_layernorm", norm(c) },
            mlp_norm = { "post_attention_layernorm", norm(c) },
            dropout = c.hidden_dropout,
        }
    end,
    norm = norm,
    padding = false,
    embedding_dropout = function(c) return c.hidden_dropout end,
    check = decoder.whole_heads,
    attribute_map = { rope_theta = "rotary_emb_base", partial_rotary_factor = "rotary_pct" },
    defaults = { hidden_act = "gelu", layer_norm_eps = 1e-5, max_position_embeddings = 2048, rotary_emb_base = 10000,
                 rotary_pct = 0.25, use_parallel_residual = true, attention_bias = true },
    unused = { "%.attention%.bias$", "%.attention%.masked_bias$" }, -- masks in the first files
    gguf = {
        architecture = "gptneox",
        model_type = "gpt_neox",
        root = "gpt_neox.",
        config = { hidden_act = "gelu" },
        flags = { attention_bias = "blk.0.attn_qkv.bias" },
        partial_rotary = true,
        no_head_dim = true,
        head = true,
        keys = { ["attention.head_count_kv"] = false, ["attention.layer_norm_epsilon"] = "layer_norm_eps",
                 ["attention.layer_norm_rms_epsilon"] = false,
                 ["use_parallel_residual"] = "use_parallel_residual" },
        names = { ["embed_out"] = "output" },
        changes = { { "query_key_value%.", "qkv", "num_attention_heads" } },
    },
}
