-- Falcon (Almazrouei et al. 2023, arXiv:2311.16867) as transformers' modeling_falcon.py has it, in its three shapes:
-- one key/value head (7B), groups of them with two norms (40B, 180B: new_decoder_architecture), and
-- one for each head with ALiBi (RW).

local decoder = require("am.models.decoder")
local Attention = require("am.nn.attention")
local layers = require("am.nn.decoder_layer")
local LayerNorm = require("am.nn.layer_norm")
local Linear = require("am.nn.linear")
local MLP = require("am.nn.mlp").MLP
local Module = require("am.nn.module")

local FalconAttention = Module.class("FalconAttention", Attention)

function FalconAttention.new(o)
    local self = Attention.configure(FalconAttention, o)
    self.output = "dense"
    self:add("query_key_value", Linear.new(o.hidden_size, (o.num_heads + 2 * o.num_kv_heads) * o.head_dim, o.bias))
    self:add("dense", Linear.new(o.hidden_size, o.hidden_size, o.bias))
    return self
end

--- x [B, T, C] -> queries [B, T, H, D], keys and values [B, T, K, D]; the map gives a key and a value behind the
--- queries of their group.
function FalconAttention:project(x)
    local b, t, d, kv = x:size(0), x:size(1), self.head_dim, self.kv_heads
    local per = self.heads / kv
    local all = self.query_key_value:forward(x):reshape(b, t, kv, per + 2, d)
    return all:narrow(3, 0, per):reshape(b, t, self.heads, d), all:narrow(3, per, 1):reshape(b, t, kv, d),
        all:narrow(3, per + 1, 1):reshape(b, t, kv, d)
end

local function norm(c)
    return LayerNorm.new(c.hidden_size, c.layer_norm_epsilon)
end

local function kv_heads(c)
    if c.new_decoder_architecture then
        return c:integer("num_kv_heads", c:integer("num_attention_heads"))
    end
    return c.multi_query and 1 or c:integer("num_attention_heads")
end

return decoder.architecture {
    name = "FalconForCausalLM",
    names = { body = "transformer", embeddings = "word_embeddings", layers = "h", norm = "ln_f" },
    layer = function(c)
        local hidden, inner = c.hidden_size, c:integer("ffn_hidden_size", 4 * c.hidden_size)
        local new = c.new_decoder_architecture
        local parts = {
            attention = { "self_attention", FalconAttention.new(decoder.attention(c, {
                num_kv_heads = kv_heads(c), bias = c.bias, alibi = c.alibi,
                dropout = c.alibi and c.attention_dropout or 0,
            })) },
            mlp = { "mlp", MLP.new {
                up = { "dense_h_to_4h", Linear.new(hidden, inner, c.bias) },
                down = { "dense_4h_to_h", Linear.new(inner, hidden, c.bias) },
                hidden_act = decoder.activation(c),
            } },
            dropout = c.hidden_dropout, drop_sum = true, attention_dropout = c.attention_dropout,
        }
        if new and (c.num_ln_in_parallel_attn or 2) == 2 then
            parts.attention_norm, parts.mlp_norm = { "ln_attn", norm(c) }, { "ln_mlp", norm(c) }
        else
            parts.attention_norm = { "input_layernorm", norm(c) }
        end
        if new or c.parallel_attn then
            return layers.ParallelDecoderLayer.new(parts)
        end
        parts.mlp_norm = { "post_attention_layernorm", norm(c) }
        return layers.DecoderLayer.new(parts)
    end,
    norm = norm,
    padding = false,
    check = function(c)
        decoder.whole_heads(c)
        if c.new_decoder_architecture and not c.parallel_attn then
            c:unsupported("parallel_attn", "false is not known with new_decoder_architecture")
        end
    end,
    attribute_map = { hidden_act = "activation", intermediate_size = "ffn_hidden_size",
                      num_key_value_heads = "num_kv_heads" },
    defaults = { activation = "gelu", layer_norm_epsilon = 1e-5, max_position_embeddings = 2048, multi_query = true,
                 parallel_attn = true, tie_word_embeddings = true, hidden_dropout = 0, attention_dropout = 0 },
    gguf = {
        architecture = "falcon",
        root = "transformer.",
        config = { activation = "gelu" },
        only = { alibi = false, parallel_attn = true, bias = false },
        no_head_dim = true,
        keys = { ["attention.layer_norm_epsilon"] = "layer_norm_epsilon",
                 ["attention.layer_norm_rms_epsilon"] = false, ["attention.head_count_kv"] = false,
                 ["feed_forward_length"] = false },
        names = {
            ["transformer.word_embeddings"] = "token_embd",
            ["transformer.h.%d.ln_attn"] = "blk.%d.attn_norm_2",
            ["transformer.h.%d.ln_mlp"] = "blk.%d.attn_norm",
            ["transformer.h.%d.self_attention.query_key_value"] = "blk.%d.attn_qkv",
            ["transformer.h.%d.self_attention.dense"] = "blk.%d.attn_output",
            ["transformer.h.%d.mlp.dense_h_to_4h"] = "blk.%d.ffn_up",
            ["transformer.h.%d.mlp.dense_4h_to_h"] = "blk.%d.ffn_down",
        },
        from = function(archive)
            local two = archive:info("blk.0.attn_norm_2.weight")
            return { ["blk.%d.attn_norm"] = two and "transformer.h.%d.ln_mlp" or "transformer.h.%d.input_layernorm" }
        end,
        changes = { { "query_key_value%.", "qkv", "num_attention_heads", kv_heads } },
        read = function(c, get, archive)
            c.ffn_hidden_size = get("feed_forward_length")
            c.num_kv_heads = get("attention.head_count_kv")
            c.multi_query = c.num_kv_heads == 1
            c.new_decoder_architecture = archive:info("blk.0.attn_norm_2.weight") ~= nil
                or not c.multi_query and c.num_kv_heads ~= c.num_attention_heads
            c.num_ln_in_parallel_attn = archive:info("blk.0.attn_norm_2.weight") and 2 or 1
        end,
        write = function(c, set)
            set("attention.head_count_kv", kv_heads(c), "u32")
            set("feed_forward_length", c.ffn_hidden_size or 4 * c.hidden_size, "u32")
            set("tensor_data_layout", "jploski", "string")
        end,
    },
}
