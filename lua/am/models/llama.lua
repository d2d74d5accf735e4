-- Llama (Touvron et al. 2023) as transformers' modeling_llama.py has it: Llama 2 and 3, SmolLM2, Yi
-- and other configurations of the same blocks.

local ops = require("am.core.ops")
local autograd = require("am.core.autograd")
local scope = require("am.core.scope")
local Module = require("am.nn.module")
local Linear = require("am.nn.linear")
local Embedding = require("am.nn.embedding")
local RMSNorm = require("am.nn.norm")
local Attention = require("am.nn.attention")
local GatedMLP = require("am.nn.mlp")
local rope = require("am.nn.rope")
local strings = require("am.utils.strings")

local DecoderLayer = Module.class("LlamaDecoderLayer")

function DecoderLayer.new(c)
    local self = Module.init(DecoderLayer)
    local hidden, heads = c:integer("hidden_size"), c:integer("num_attention_heads")
    self:add("self_attn", Attention.new {
        hidden_size = hidden,
        num_heads = heads,
        num_kv_heads = c:integer("num_key_value_heads", heads),
        head_dim = c:integer("head_dim", hidden / heads),
        bias = c.attention_bias,
        output_bias = c.attention_bias,
        dropout = c.attention_dropout,
    })
    self:add("mlp", GatedMLP.new {
        hidden_size = hidden,
        intermediate_size = c:integer("intermediate_size"),
        hidden_act = c.hidden_act or "silu",
        bias = c.mlp_bias,
    })
    self:add("input_layernorm", RMSNorm.new(hidden, c.rms_norm_eps or 1e-6))
    self:add("post_attention_layernorm", RMSNorm.new(hidden, c.rms_norm_eps or 1e-6))
    return self
end

--- x [B, T, C] -> [B, T, C]
function DecoderLayer:forward(x, rotary, ctx)
    x = x + self.self_attn:forward(self.input_layernorm:forward(x), rotary, ctx)
    local function feed_forward(h)
        return self.mlp:forward(self.post_attention_layernorm:forward(h))
    end
    return x + (ctx.checkpointing == "selective" and autograd.checkpoint(feed_forward, x) or feed_forward(x))
end

local Model = Module.class("LlamaModel")

local function rope_options(c, longest)
    return { theta = c.rope_theta or 10000, dim = c.head_dim or c.hidden_size / c.num_attention_heads,
             max_position_embeddings = c.max_position_embeddings or 2048, scaling = c.rope_scaling,
             seq_len = longest }
end

-- What a configuration names is known before any weight is read.
local function check_names(c)
    if not ops.activations[c.hidden_act or "silu"] then
        c:unsupported("hidden_act", "activation " .. c.hidden_act .. " is not known; known are "
                      .. table.concat(strings.sorted_keys(ops.activations), ", "))
    end
    local known, e = pcall(rope.frequencies, rope_options(c))
    if not known then
        c:unsupported("rope_scaling", e)
    end
end

function Model.new(c)
    local self = Module.init(Model)
    local hidden = c:integer("hidden_size")
    c:integer("head_dim", hidden / c:integer("num_attention_heads"))
    check_names(c)
    self.config = c
    self:add("embed_tokens", Embedding.new(c:integer("vocab_size"), hidden, c.pad_token_id))
    local layers = self:add("layers", Module.init(Module.class("ModuleList")))
    for i = 0, c:integer("num_hidden_layers", nil, 10000) - 1 do
        layers:add(tostring(i), DecoderLayer.new(c))
    end
    self.layer_count = c.num_hidden_layers
    self:add("norm", RMSNorm.new(hidden, c.rms_norm_eps or 1e-6))
    return self
end

--- The rotary table for positions int32 [B or 1, T]; `longest` is the highest position + 1.
function Model:rotary(position_ids, longest)
    local c = self.config
    if self._inv_freq and rope.depends_on_length(c.rope_scaling) then
        self._inv_freq:release()
        self._inv_freq = nil
    end
    if not self._inv_freq then
        self._inv_freq, self._rope_scaling = rope.inv_freq(rope_options(c, longest), position_ids:device())
        scope.escape(self._inv_freq)
    end
    return ops.rope_table(position_ids, self._inv_freq, self._rope_scaling)
end

--- input_ids int [B, T] -> hidden states [B, T, C]. ctx: bounds, cache, longest.
--- self.activation_checkpointing: true computes each layer again in backward, "selective" only its
--- feed-forward block, which holds more than half of what a layer saves.
function Model:forward(input_ids, position_ids, ctx)
    local x = self.embed_tokens:forward(input_ids)
    local rotary = self:rotary(position_ids, ctx.longest)
    local checkpointing = self.activation_checkpointing
    for i = 1, self.layer_count do
        local layer = self.layers[tostring(i - 1)]
        local function run(h)
            return layer:forward(h, rotary, { bounds = ctx.bounds, cache = ctx.cache, layer = i,
                                               checkpointing = checkpointing })
        end
        -- A scope each: what backward does not need is freed as the layer ends.
        if checkpointing == true then
            x = scope.scope(autograd.checkpoint, run, x)
        else
            x = scope.scope(run, x)
        end
    end
    return self.norm:forward(x)
end

local ForCausalLM = Module.class("LlamaForCausalLM")

function ForCausalLM.new(c)
    local self = Module.init(ForCausalLM)
    self.config = c
    self:add("model", Model.new(c))
    self:add("lm_head", Linear.new(c:integer("hidden_size"), c:integer("vocab_size")))
    self.tied = c.tie_word_embeddings and { ["lm_head.weight"] = "model.embed_tokens.weight" } or {}
    return self
end

return {
    new = ForCausalLM.new,
    gguf = {
        architecture = "llama",
        experts = false,
        config = { hidden_act = "silu" },
        changes = {
            { "%.q_proj%.", "rotary", "num_attention_heads" },
            { "%.k_proj%.", "rotary", "num_key_value_heads" },
        },
    },
}
