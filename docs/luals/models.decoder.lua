---@meta am.models.decoder
-- Written by docs/api.lua; do not edit. For workspace.library of a Lua language server.
-- luacheck: ignore

---@class am.models.decoder
local am_models_decoder = {}

--- The activation that a field names; it is known before any weight is read.
function am_models_decoder.activation(c, key) end

--- Size of a head.
function am_models_decoder.head_dim(c) end

--- Raise "unsupported" unless all heads have the hidden size together, as where one map makes them.
function am_models_decoder.whole_heads(c) end

--- RMSNorm over the hidden size, or over `width`.
function am_models_decoder.rms_norm(c, width) end

--- The same, multiplying by 1 + weight.
function am_models_decoder.rms_norm_1p(c, width) end

--- Raise "unsupported" for a configuration whose attention looks ahead.
function am_models_decoder.causal_only(c) end

--- The attention options (nn/attention.lua) that all families have, and those given.
function am_models_decoder.attention(c, options) end

--- The options of a gated feed-forward block (nn/mlp.lua), and those given.
function am_models_decoder.mlp(c, options) end

--- Experts (nn/moe.lua) in place of a feed-forward block. options: intermediate_size, names of an expert's maps,
--- and those of moe.SparseMoE that differ: normalize, shared, shared_gate, jitter.
function am_models_decoder.experts(c, options) end

--- Whether the i-th layer (from 0) has experts, by mlp_only_layers and decoder_sparse_step.
function am_models_decoder.has_experts(c, i) end

--- The kind of the i-th layer (from 0): "full_attention" or "sliding_attention". By layer_types, or by
--- sliding(i) where config.json has none.
function am_models_decoder.layer_type(c, i, sliding) end

--- The window of the i-th layer by its kind; nil where it sees all.
function am_models_decoder.window(c, i, sliding) end

--- The rotary options (nn/rope.lua) that the configuration's fields amount to.
function am_models_decoder.rotary(c) end

--- What models/init.lua's registry takes, made of the description at the head of this file: `new(c)` makes the model.
--- new_body(c) and add_head(model, c, name) make its two parts for a model that has them beside others
--- (image_text_to_text.lua).
function am_models_decoder.architecture(spec) end

return am_models_decoder
