-- GPT-2 (Radford et al. 2019) as transformers' modeling_gpt2.py has it: learned positions, LayerNorm, one map for
-- queries, keys and values, weights that lie the other way round.

local decoder = require("am.models.decoder")
local Attention = require("am.nn.attention")
local Conv1D = require("am.nn.conv1d")
local DecoderLayer = require("am.nn.decoder_layer").DecoderLayer
local LayerNorm = require("am.nn.layer_norm")
local MLP = require("am.nn.mlp").MLP
local Module = require("am.nn.module")

local GPT2Attention = Module.class("GPT2Attention", Attention)

function GPT2Attention.new(o)
    local self = Attention.configure(GPT2Attention, o)
    self.output = "c_proj"
    self:add("c_attn", Conv1D.new(o.hidden_size, 3 * o.hidden_size))
    self:add("c_proj", Conv1D.new(o.hidden_size, o.hidden_size, o.residual_init))
    return self
end

--- x [B, T, C] -> queries, keys and values [B, T, H, D]
function GPT2Attention:project(x)
    local h = self.heads
    local all = self.c_attn:forward(x):reshape(x:size(0), x:size(1), 3 * h, self.head_dim)
    return all:narrow(2, 0, h), all:narrow(2, h, h), all:narrow(2, 2 * h, h)
end

local function norm(c)
    return LayerNorm.new(c.hidden_size, c.layer_norm_epsilon)
end

return decoder.architecture {
    name = "GPT2LMHeadModel",
    names = { body = "transformer", embeddings = "wte", layers = "h", norm = "ln_f" },
    positions = "wpe",
    rotary = false,
    layer = function(c, i)
        local hidden, inner = c.hidden_size, c:integer("n_inner", 4 * c.hidden_size)
        local residual_init = (2 * c:integer("num_hidden_layers")) ^ -0.5 -- what is added grows with the depth
        local scale = c.scale_attn_weights and decoder.head_dim(c) ^ -0.5 or 1
        return DecoderLayer.new {
            attention = { "attn", GPT2Attention.new(decoder.attention(c, {
                rotary = false, dropout = c.attn_pdrop, residual_init = residual_init,
                scale = c.scale_attn_by_inverse_layer_idx and scale / (i + 1) or scale,
            })) },
            mlp = { "mlp", MLP.new {
                up = { "c_fc", Conv1D.new(hidden, inner) },
                down = { "c_proj", Conv1D.new(inner, hidden, residual_init) },
                hidden_act = decoder.activation(c),
            } },
            attention_norm = { "ln_1", norm(c) },
            mlp_norm = { "ln_2", norm(c) },
            dropout = c.resid_pdrop,
        }
    end,
    norm = norm,
    padding = false,
    embedding_dropout = function(c) return c.embd_pdrop end,
    check = function(c)
        decoder.whole_heads(c)
        if c.add_cross_attention then
            c:unsupported("add_cross_attention", "attention to an encoder is not there")
        end
    end,
    attribute_map = { hidden_size = "n_embd", max_position_embeddings = "n_positions", num_attention_heads = "n_head",
                      num_hidden_layers = "n_layer", hidden_act = "activation_function",
                      intermediate_size = "n_inner" },
    defaults = { activation_function = "gelu_new", layer_norm_epsilon = 1e-5, n_positions = 1024, resid_pdrop = 0.1,
                 embd_pdrop = 0.1, attn_pdrop = 0.1, scale_attn_weights = true, tie_word_embeddings = true },
    unused = { "%.attn%.bias$", "%.attn%.masked_bias$" }, -- masks in the first files
    gguf = {
        architecture = "gpt2",
        root = "transformer.",
        config = { activation_function = "gelu_new" },
        only = { scale_attn_weights = true, scale_attn_by_inverse_layer_idx = false },
        no_head_dim = true,
        read = function(c, get) c.n_inner = get("feed_forward_length") end,
        write = function(c, set) set("feed_forward_length", c.n_inner or 4 * c.n_embd, "u32") end,
        keys = { ["context_length"] = "n_positions", ["embedding_length"] = "n_embd", ["block_count"] = "n_layer",
                 ["attention.head_count"] = "n_head", ["attention.head_count_kv"] = false,
                 ["feed_forward_length"] = false, ["rope.freq_base"] = false,
                 ["attention.layer_norm_epsilon"] = "layer_norm_epsilon",
                 ["attention.layer_norm_rms_epsilon"] = false },
        changes = { { "%.c_attn%.weight$", "transpose" }, { "%.c_proj%.weight$", "transpose" },
                    { "%.c_fc%.weight$", "transpose" } },
    },
}
