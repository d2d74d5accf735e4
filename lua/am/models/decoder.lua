-- What decoders of all families share: the body (embeddings, layers, last norm), the head, and the functions that
-- an architecture file builds its layers with. An architecture file beside this one says what is its own:
--
--   return decoder.architecture {
--       name = "LlamaForCausalLM",       -- as config.json's "architectures" has it
--       layer = function(c, i) … end,    -- the i-th layer (from 0), a module as in nn/decoder_layer.lua
--       norm = function(c) … end,        -- the last norm
--       gguf = { architecture = "llama" },
--   }
--
-- with, where they differ from Llama's:
--   names           { body = "model", embeddings = "embed_tokens", layers = "layers", norm = "norm", head = "lm_head" }
--   defaults        values of fields that config.json leaves out, as the family's configuration class has them
--   attribute_map   { hidden_size = "n_embd", … }: the family's names of fields, as transformers' attribute_map
--   rotary          function(c): options of nn/rope.lua's Rotary, or { layer type = options }; false: none
--   positions       name of learned position embeddings
--   embedding_scale, embedding_multiplier, embedding_dropout, logit_scale, logit_softcap   function(c): a number; the
--                   first rounded to the embeddings' dtype
--   head_bias       the head has a bias
--   padding         false: the row of pad_token_id is one like the others; else it is given no gradient
--   unused          Lua patterns of tensors that files hold and the model does not need
--   check           function(c): raises about what the family does not allow
--
-- A model that this cannot describe is made by hand: causal_lm.lua says what it must have.

local ops = require("am.core.ops")
local err = require("am.core.error")
local autograd = require("am.core.autograd")
local scope = require("am.core.scope")
local Module = require("am.nn.module")
local Linear = require("am.nn.linear")
local Embedding = require("am.nn.embedding")
local RMSNorm = require("am.nn.norm")
local moe = require("am.nn.moe")
local rope = require("am.nn.rope")
local causal_lm = require("am.models.causal_lm")
local strings = require("am.utils.strings")

local M = {}

-- ---- what layers are built with -------------------------------------------------------------

--- The activation that a field names; it is known before any weight is read.
function M.activation(c, key)
    key = key or "hidden_act"
    if not ops.activations[c[key] or ""] then
        c:unsupported(key, "activation " .. tostring(c[key]) .. " is not known; known are "
                      .. table.concat(strings.sorted_keys(ops.activations), ", "))
    end
    return c[key]
end

--- Size of a head.
function M.head_dim(c)
    if c.head_dim ~= nil then
        return c:integer("head_dim", nil, 65536)
    end
    local hidden, heads = c:integer("hidden_size"), c:integer("num_attention_heads", nil, 65536)
    if hidden % heads ~= 0 or hidden / heads > 65536 then
        c:unsupported("hidden_size", string.format("%d numbers are not what %d heads (\"%s\") can share", hidden, heads,
                                                   c:spelling("num_attention_heads")))
    end
    return hidden / heads
end

--- Raise "unsupported" unless all heads have the hidden size together, as where one map makes them.
function M.whole_heads(c)
    local dim, heads, hidden = M.head_dim(c), c:integer("num_attention_heads"), c:integer("hidden_size")
    if dim * heads ~= hidden then
        c:unsupported("head_dim", string.format("%d heads of %d are not %d numbers (\"%s\")", heads, dim, hidden,
                                                c:spelling("hidden_size")))
    end
end

--- RMSNorm over the hidden size, or over `width`.
function M.rms_norm(c, width)
    return RMSNorm.new(width or c:integer("hidden_size"), c.rms_norm_eps)
end

--- The same, multiplying by 1 + weight.
function M.rms_norm_1p(c, width)
    return RMSNorm.new(width or c:integer("hidden_size"), c.rms_norm_eps, 1)
end

--- Raise "unsupported" for a configuration whose attention looks ahead.
function M.causal_only(c)
    if c.use_bidirectional_attention then
        c:unsupported("use_bidirectional_attention", "attention that looks ahead is not there")
    end
end

--- The attention options (nn/attention.lua) that all families have, and those given.
function M.attention(c, options)
    local heads = c:integer("num_attention_heads", nil, 65536)
    local o = {
        hidden_size = c:integer("hidden_size"),
        num_heads = heads,
        num_kv_heads = c:integer("num_key_value_heads", heads),
        head_dim = M.head_dim(c),
        bias = c.attention_bias,
        output_bias = c.attention_bias,
        dropout = c.attention_dropout,
    }
    if o.num_heads % o.num_kv_heads ~= 0 then
        c:unsupported("num_key_value_heads", string.format(
            "%d heads of keys do not divide %d heads of queries (\"%s\")", o.num_kv_heads, o.num_heads,
            c:spelling("num_attention_heads")))
    end
    for key, value in pairs(options or {}) do
        o[key] = value
    end
    return o
end

--- The options of a gated feed-forward block (nn/mlp.lua), and those given.
function M.mlp(c, options)
    local o = { hidden_size = c:integer("hidden_size"), bias = c.mlp_bias }
    for key, value in pairs(options or {}) do
        o[key] = value
    end
    o.intermediate_size = o.intermediate_size or c:integer("intermediate_size")
    o.hidden_act = o.hidden_act or M.activation(c)
    return o
end

--- Experts (nn/moe.lua) in place of a feed-forward block. options: intermediate_size, names of an expert's maps,
--- and those of moe.SparseMoE that differ: normalize, shared, shared_gate, jitter.
function M.experts(c, options)
    local n, hidden = c:integer("num_experts", nil, 65536), c:integer("hidden_size")
    return moe.SparseMoE.new {
        router = { "gate", Linear.new(hidden, n) },
        experts = { "experts", moe.Experts.new {
            num_experts = n, hidden_size = hidden, intermediate_size = options.intermediate_size,
            hidden_act = M.activation(c), names = options.names,
        } },
        num_experts = n, top_k = c:integer("num_experts_per_tok", nil, n),
        normalize = options.normalize, shared = options.shared, shared_gate = options.shared_gate,
        jitter = options.jitter,
    }
end

--- Whether the i-th layer (from 0) has experts, by mlp_only_layers and decoder_sparse_step.
function M.has_experts(c, i)
    for _, dense in ipairs(c.mlp_only_layers or {}) do
        if dense == i then
            return false
        end
    end
    return (i + 1) % c:integer("decoder_sparse_step") == 0
end

--- The kind of the i-th layer (from 0): "full_attention" or "sliding_attention". By layer_types, or by
--- sliding(i) where config.json has none.
function M.layer_type(c, i, sliding)
    local types = c.layer_types
    local kind = types and types[i + 1] or sliding and sliding(i) and "sliding_attention" or "full_attention"
    if kind ~= "full_attention" and kind ~= "sliding_attention" or types and #types < c.num_hidden_layers then
        c:unsupported("layer_types", types and #types < c.num_hidden_layers
            and string.format("%d types for %d layers (\"%s\")", #types, c.num_hidden_layers,
                                                           c:spelling("num_hidden_layers"))
            or tostring(kind) .. " is not known; known are full_attention and sliding_attention")
    end
    return kind
end

--- The window of the i-th layer by its kind; nil where it sees all.
function M.window(c, i, sliding)
    return M.layer_type(c, i, sliding) == "sliding_attention" and c:integer("sliding_window") or nil
end

--- The rotary options (nn/rope.lua) that the configuration's fields amount to.
function M.rotary(c)
    local scaling = c.rope_scaling
    if scaling and not scaling.original_max_position_embeddings and c.original_max_position_embeddings then
        scaling = setmetatable({ original_max_position_embeddings = c.original_max_position_embeddings },
                               { __index = scaling })
    end
    local dim = math.floor(M.head_dim(c) * (c.partial_rotary_factor or 1))
    if dim < 2 or dim % 2 ~= 0 then
        c:unsupported("partial_rotary_factor", string.format(
            "%d of a head's %d numbers (\"head_dim\") cannot be rotated in pairs", dim, M.head_dim(c)))
    end
    return { theta = c.rope_theta or 10000, dim = dim, scaling = scaling,
             max_position_embeddings = c.max_position_embeddings or 2048 }
end

-- ---- the body -------------------------------------------------------------------------------

local Body = Module.class("Model")

-- What makes the rotary tables, by layer type, or one for all as that of full_attention; what is wrong about it
-- names the field.
local function rotaries(c, spec)
    if spec.rotary == false or c.alibi then
        return {}
    end
    local options, made = (spec.rotary or M.rotary)(c), {}
    for kind, o in pairs(options.theta and { full_attention = options } or options) do
        local known, rotary = pcall(rope.Rotary, o)
        made[kind] = known and rotary or c:unsupported("rope_scaling", rotary)
    end
    return made
end

-- The row of the embeddings that pad_token_id names; -1 is the last, as in PyTorch.
local function padding_row(c)
    return c.pad_token_id == -1 and c.vocab_size - 1 or c.pad_token_id
end

local function new_body(c, spec, names)
    local class = spec.name:gsub("ForCausalLM$", "Model"):gsub("LMHeadModel$", "Model")
    local self = Module.init(Module.class(class, Body))
    local hidden = c:integer("hidden_size")
    self.config, self.names, self.rotaries = c, names, rotaries(c, spec)
    self.embedding_dropout = spec.embedding_dropout and spec.embedding_dropout(c) or 0
    self.embedding_multiplier = spec.embedding_multiplier and spec.embedding_multiplier(c)
    self:add(names.embeddings, Embedding.new(c:integer("vocab_size"), hidden,
                                             spec.padding ~= false and padding_row(c) or nil,
                                             spec.embedding_scale and spec.embedding_scale(c)))
    if spec.positions then
        self.positions = spec.positions
        self:add(spec.positions, Embedding.new(c:integer("max_position_embeddings"), hidden))
    end
    local layers = self:add(names.layers, Module.init(Module.class("ModuleList")))
    self.layer_count = c:integer("num_hidden_layers", nil, 10000)
    for i = 0, self.layer_count - 1 do
        layers:add(tostring(i), spec.layer(c, i))
    end
    self:add(names.norm, spec.norm and spec.norm(c) or M.rms_norm(c))
    return self
end

local function rotary_tables(self, position_ids, longest)
    local tables = {}
    for kind, rotary in pairs(self.rotaries) do
        tables[kind] = rotary:table(position_ids, longest)
    end
    return tables
end

--- The rows that input_ids int [B, T] look up -> [B, T, C].
function Body:embed(input_ids)
    return self[self.names.embeddings]:forward(input_ids)
end

--- input_ids int [B, T], position_ids int [B or 1, T] -> what the first layer gets [B, T, C]. ctx as in forward.
function Body:first_states(input_ids, position_ids, ctx)
    local x = ctx.inputs_embeds or self:embed(input_ids)
    if self.embedding_multiplier then
        x = x * self.embedding_multiplier
    end
    if self.positions then
        local most = self[self.positions].num_embeddings
        if ctx.longest and ctx.longest > most then
            err.raise("argument", "a row reaches position %d, but the model has %d (\"%s\")", ctx.longest, most,
                      self.config:spelling("max_position_embeddings"))
        end
        x = x + self[self.positions]:forward(position_ids)
    end
    if self.training and self.embedding_dropout > 0 then
        x = x:dropout(self.embedding_dropout)
    end
    return x
end

--- States x [B, T, C] through the layers `first` to `last` (from 1) -> states, and a list of the router logits
--- [B T, E] of those with experts.
function Body:run_layers(x, position_ids, ctx, first, last)
    local names, checkpointing = self.names, self.activation_checkpointing
    local tables, router_logits = rotary_tables(self, position_ids, ctx.longest), {}
    for i = first, last do
        local layer = self[names.layers][tostring(i - 1)]
        local rotary = tables[layer.kind] or tables.full_attention
        local function run(h)
            return layer:forward(h, rotary, { bounds = ctx.bounds, samples = ctx.samples,
                                               window_bounds = ctx.window_bounds,
                                               causal = ctx.causal, cache = ctx.cache, part = ctx.part, layer = i,
                                               position_ids = position_ids, checkpointing = checkpointing })
        end
        -- A scope each: what backward does not need is freed as the layer ends.
        local logits
        if checkpointing == true then
            x, logits = scope.scope(autograd.checkpoint, run, x)
        else
            x, logits = scope.scope(run, x)
        end
        router_logits[#router_logits + 1] = logits
    end
    return x, router_logits
end

--- States of the last layer -> those after the last norm.
function Body:last_states(x)
    return self[self.names.norm]:forward(x)
end

--- input_ids int [B, T], position_ids int [B or 1, T] -> hidden states [B, T, C] after the last norm, and a list of
--- the router logits [B T, E] of layers with experts. ctx: bounds, cache, longest; inputs_embeds [B, T, C], taken in
--- place of what input_ids look up; what nn/attention.lua takes beside (causal, window_bounds, samples, part).
--- self.activation_checkpointing: true computes each layer again in backward, "selective" only its
--- feed-forward block, which holds more than half of what a layer saves.
function Body:forward(input_ids, position_ids, ctx)
    local x = self:first_states(input_ids, position_ids, ctx)
    local router_logits
    x, router_logits = self:run_layers(x, position_ids, ctx, 1, self.layer_count)
    return self:last_states(x), router_logits
end

--- A text that changes where the frequencies do as a sequence grows to `longest` tokens: keys that were stored
--- before are rotated otherwise then.
function Body:rotary_stage(longest)
    local stages = {}
    for kind, rotary in pairs(self.rotaries) do
        stages[#stages + 1] = kind .. rope.stage(rotary.options, longest)
    end
    table.sort(stages)
    return table.concat(stages, " ")
end

--- Free what is no parameter.
function Body:release()
    for _, rotary in pairs(self.rotaries) do
        rotary:release()
    end
end

-- ---- the architecture -----------------------------------------------------------------------

--- What models/init.lua's registry takes, made of the description at the head of this file: `new(c)` makes the model.
--- new_body(c) and add_head(model, c, name) make its two parts for a model that has them beside others
--- (image_text_to_text.lua).
function M.architecture(spec)
    local names = setmetatable(spec.names or {}, { __index = causal_lm.names })
    local function check(c)
        if spec.check then
            spec.check(c)
        end
        return true
    end
    -- Give a model the head under a name.
    local function add_head(self, c, name)
        self.logit_scale = spec.logit_scale and spec.logit_scale(c)
        self.logit_softcap = spec.logit_softcap and spec.logit_softcap(c)
        self:add(name, Linear.new(c:integer("hidden_size"), c:integer("vocab_size"), spec.head_bias))
    end
    local function new(c)
        check(c)
        local self = Module.init(Module.class(spec.name))
        self.config, self.names, self.unused = c, names, spec.unused
        self.model = self:add(names.body, new_body(c, spec, names))
        add_head(self, c, names.head)
        self.tied = c.tie_word_embeddings
            and { [names.head .. ".weight"] = names.body .. "." .. names.embeddings .. ".weight" } or {}
        return self
    end
    return { new = new, name = spec.name, gguf = spec.gguf, defaults = spec.defaults,
             attribute_map = spec.attribute_map, padding = spec.padding, add_head = add_head,
             new_body = function(c) return check(c) and new_body(c, spec, names) end }
end

return M
