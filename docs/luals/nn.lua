---@meta _
-- Written by docs/api.lua; do not edit. For workspace.library of a Lua language server.
-- luacheck: ignore

---@class am.nn
local am_nn = {}

---@class am.nn.Module
local am_nn_Module = {}

--- A class of modules: local Linear = Module.class("Linear"); instances by Linear.new(...). What it does not
--- define comes from `parent`, Module itself by default.
function am_nn_Module.class(name, parent) end

--- An instance of a class, to be filled by its constructor.
function am_nn_Module.init(class) end

--- Declare a parameter: its shape and how to initialise it ("normal", "ones", "zeros" or a function
--- of the tensor). The tensor itself comes with `materialize` or `set_parameter`.
function am_nn_Module:declare(name, shape, init) end

--- Add a child under a name ("q_proj", or "0" in lists).
function am_nn_Module:add(name, child) end

--- Put another module in place of a child.
function am_nn_Module:replace(name, child) end

--- Iterator over (path, module), parents before children, in declaration order.
function am_nn_Module:named_modules(prefix) end

--- Iterator over (name, module, slot) of all declared parameters; slot has name, shape, init.
function am_nn_Module:parameter_slots() end

--- Iterator over (Hugging Face name, tensor). A tensor shared by two names comes once, under the
--- first, as in PyTorch.
function am_nn_Module:named_parameters() end

--- Make a parameter the same tensor as one that another module owns.
function am_nn_Module:share(name, t) end

--- The module at a dotted path.
function am_nn_Module:get(path) end

--- Set training mode here and below (dropout is on in it).
function am_nn_Module:train(on) end

--- The same as train(false).
function am_nn_Module:eval() end

--- The tree of modules as text, one a line.
function am_nn_Module:repr() end

---@class am.nn.Linear: am.nn.Module
local am_nn_Linear = {}

---@param in_features integer
---@param out_features integer
---@param bias boolean?
function am_nn_Linear.new(in_features, out_features, bias) end

--- x [..., in] -> [..., out]
function am_nn_Linear:forward(x) end

--- What repr shows in brackets.
function am_nn_Linear:extra_repr() end

---@class am.nn.Embedding: am.nn.Module
local am_nn_Embedding = {}

--- padding_idx (optional): looking this row up gives it no gradient, as in PyTorch. scale (optional): of the rows
--- that are looked up, rounded to their dtype (Gemma).
function am_nn_Embedding.new(num_embeddings, embedding_dim, padding_idx, scale) end

--- index [...] -> [..., embedding_dim]
function am_nn_Embedding:forward(index) end

--- Rows times the embedding's own scale.
function am_nn_Embedding:scaled(rows) end

--- NEFTune (Jain et al. 2023, arXiv:2310.05914): rows x [B, T, C] plus uniform(-1, 1) noise_alpha / sqrt(T C),
--- a draw of the generator's next stream; x itself without noise_alpha and outside of training. T is the length
--- of the rows as they come, padding and packed samples included, as in transformers.
function am_nn_Embedding:add_noise(x) end

--- What repr shows in brackets.
function am_nn_Embedding:extra_repr() end

---@class am.nn.RMSNorm: am.nn.Module
local am_nn_RMSNorm = {}

--- A norm over a last dim of `size`. Rows are multiplied by offset + weight, which is 1 at first: offset is 0, or
--- 1 as in Gemma.
function am_nn_RMSNorm.new(size, eps, offset) end

--- x [..., size] -> the same shape. self.composed: of elementwise ops.
function am_nn_RMSNorm:forward(x) end

--- What repr shows in brackets.
function am_nn_RMSNorm:extra_repr() end

---@class am.nn.GatedMLP: am.nn.Module
local am_nn_GatedMLP = {}

--- hidden_act is a name of ops.activations. With `fused`, gate and up are the halves of one map, gate_up_proj.
---@param opts {hidden_size: integer, intermediate_size: integer, hidden_act: string, bias: boolean?, fused: boolean?}
function am_nn_GatedMLP.new(opts) end

--- act(gate) * up in one op, or in two with self.composed.
function am_nn_GatedMLP:gated(gate, up) end

--- x [..., hidden_size] -> the same shape
function am_nn_GatedMLP:forward(x) end

---@class am.nn.Attention: am.nn.Module
local am_nn_Attention = {}

--- Give an instance of a class its numbers.
---@param opts am.AttentionOptions
function am_nn_Attention.configure(class, opts) end

--- class: of the instance, Attention by default.
---@param opts am.AttentionOptions
function am_nn_Attention.new(opts, class) end

--- x [B, T, C] -> queries [B, T, H, D], keys and values [B, T, K, D], not rotated yet.
function am_nn_Attention:project(x) end

--- Queries and keys as their positions make them.
function am_nn_Attention:rotate(q, k, rotary) end

--- x [B, T, C], rotary [B or 1, T, D] (ops.rope_table), ctx {bounds=, cache=, layer=, position_ids=} -> [B, T, C].
--- With a cache (nn.cache) keys and values of earlier calls are seen too. self.eager: the scores are stored.
function am_nn_Attention:forward(x, rotary, ctx) end

---@class am.nn.Cache
local am_nn_Cache = {}

--- A cache for rows of at most `length` tokens. Its buffers are made as layers append. Release it with
--- cache:release().
function am_nn_Cache.new(length) end

--- Store k and v [B, T, K, D] of a layer (1-based) behind what is there; returns views of all so
--- far, without a history. Call advance(T) after the last layer.
function am_nn_Cache:append(layer, k, v) end

--- Count t more tokens, once every layer has appended theirs.
function am_nn_Cache:advance(t) end

--- Forget all tokens; the buffers stay.
function am_nn_Cache:reset() end

--- Free the stored keys and values now.
function am_nn_Cache:release() end

am_nn.Module = am_nn_Module
am_nn.Linear = am_nn_Linear
am_nn.Embedding = am_nn_Embedding
am_nn.RMSNorm = am_nn_RMSNorm
am_nn.GatedMLP = am_nn_GatedMLP
am_nn.Attention = am_nn_Attention
am_nn.Cache = am_nn_Cache
return am_nn
