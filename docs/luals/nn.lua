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

--- Declare a parameter: its shape and how to initialise it ("normal", "ones", "zeros", a number that
--- initializer_range is multiplied by for a narrower or wider "normal", {std = number} for one that does not depend on
--- it, {fill = number}). The tensor itself comes as weights are loaded or made.
function am_nn_Module:declare(name, shape, init) end

--- Initialise a declared parameter otherwise; returns the module.
function am_nn_Module:initialized(name, init) end

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
---@param bias_init string? how the bias begins (Module:declare), "zeros" by default
function am_nn_Linear.new(in_features, out_features, bias, bias_init) end

--- x [..., in] -> [..., out]. With `fp8`, the name of a recipe (ops.fp8_linear), by products in 8 bits.
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

--- The rows of index alone.
function am_nn_Embedding:lookup(index) end

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

---@class am.nn.LayerNorm: am.nn.Module
local am_nn_LayerNorm = {}

--- A norm over a last dim of `size`: with weight and bias, unless these are false, and an offset that is added to
--- the weight (1 in Nemotron).
---@param opts? {weight: boolean?, bias: boolean?, offset: number?}
function am_nn_LayerNorm.new(size, eps, opts) end

--- x [..., size] -> the same shape. self.composed: of elementwise ops.
function am_nn_LayerNorm:forward(x) end

--- What repr shows in brackets.
function am_nn_LayerNorm:extra_repr() end

---@class am.nn.GatedMLP: am.nn.Module
local am_nn_GatedMLP = {}

--- hidden_act is a name of ops.activations. With `fused`, gate and up are the halves of one map, gate_up_proj.
---@param opts {hidden_size: integer, intermediate_size: integer, hidden_act: string, bias: boolean?, fused: boolean?}
function am_nn_GatedMLP.new(opts) end

--- act(gate) * up in one op, or in two with self.composed.
function am_nn_GatedMLP:gated(gate, up) end

--- x [..., hidden_size] -> the same shape
function am_nn_GatedMLP:forward(x) end

---@class am.nn.MLP: am.nn.Module
local am_nn_MLP = {}

--- up and down are {name, module} pairs, maps from and to the hidden size; hidden_act is a name of
--- ops.activations.
---@param opts {up: table, down: table, hidden_act: string}
function am_nn_MLP.new(opts) end

--- x [..., hidden_size] -> the same shape
function am_nn_MLP:forward(x) end

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
--- ctx.part: see models/causal_lm.lua.
--- ctx.causal = false: the key ranges alone say what is seen, ctx.window_bounds in a layer with a window, which they
--- have in them. ctx.samples: how many samples ctx.bounds are of, where these are samples in rows. self.library: a
--- library of a GPU may compute it.
function am_nn_Attention:forward(x, rotary, ctx) end

---@class am.nn.DecoderLayer: am.nn.Module
local am_nn_DecoderLayer = {}

--- x = x + post_norm(attention(norm(x))), then the same with the feed-forward block.
---@param parts am.DecoderLayerParts
function am_nn_DecoderLayer.new(parts) end

--- [B, T, C] -> the same shape; of a layer with experts also the router's logits.
function am_nn_DecoderLayer:forward(x, rotary, ctx) end

---@class am.nn.ParallelDecoderLayer: am.nn.Module
local am_nn_ParallelDecoderLayer = {}

--- x + attention(attention_norm(x)) + mlp(mlp_norm(x)); without mlp_norm the first norm is both's.
---@param parts am.DecoderLayerParts
function am_nn_ParallelDecoderLayer.new(parts) end

--- [B, T, C] -> the same shape
function am_nn_ParallelDecoderLayer:forward(x, rotary, ctx) end

---@class am.nn.moe
local am_nn_moe = {}

--- The loss that balances experts (Fedus et al. 2021, arXiv:2101.03961, equations 4 to 6), as transformers'
--- load_balancing_loss_func has it: the number of experts times the sum over them of the share of tokens that
--- they get (all k choices counted) times their mean probability, over all layers together. A scalar.
---@param logits table of the layers' router logits [N, E]
---@param mask? table a tensor [N], 1 for tokens that count
---@param sum? fun(t: table): table adds up what these and other tokens have, where there are others
function am_nn_moe.load_balancing_loss(logits, num_experts, top_k, mask, sum) end

---@class am.nn.moe.SparseMoE: am.nn.Module
local am_nn_moe_SparseMoE = {}

--- Give an instance of a class what SparseMoE.new's options say.
function am_nn_moe_SparseMoE.configure(class, opts) end

--- router and experts (and shared, an expert that sees all tokens, with shared_gate before it) are {name, module};
--- the router maps [N, C] to logits [N, num_experts].
---@param opts {router: table, experts: table, shared: table?, shared_gate: table?, num_experts: integer, top_k: integer, softmax_after: boolean?, normalize: boolean?, jitter: number?} softmax_after: over the chosen logits, not over all before the choice; normalize: the chosen probabilities are divided by their sum; jitter: in training each number that comes in is multiplied by a draw from 1 - jitter to 1 + jitter
function am_nn_moe_SparseMoE.new(opts) end

--- x [N, C], rows sorted by expert, offsets int32 [E + 1] -> [N, C]
function am_nn_moe_SparseMoE:run_experts(x, offsets) end

--- x [B, T, C] -> the same shape, and the router's logits [B T, E].
function am_nn_moe_SparseMoE:forward(x) end

--- What the chosen experts make of rows [N, C], and the one that sees all: weights and index [N, k] -> [N, C].
function am_nn_moe_SparseMoE:mix(rows, weights, index) end

---@class am.nn.moe.Experts: am.nn.Module
local am_nn_moe_Experts = {}

--- act(gate) * up in one op, or in two with self.composed.
function am_nn_moe_Experts:gated(gate, up) end

--- Gated feed-forward blocks, one for each expert. names: of the three maps, {"gate_proj", "up_proj", "down_proj"}.
---@param opts {num_experts: integer, hidden_size: integer, intermediate_size: integer, hidden_act: string, names: table?}
function am_nn_moe_Experts.new(opts) end

--- x [N, C], rows sorted by expert -> [N, C]
function am_nn_moe_Experts:forward(x, offsets) end

---@class am.nn.moe.GroupedLinear: am.nn.Module
local am_nn_moe_GroupedLinear = {}

--- A linear map for each expert, their weights [E, out, in] one tensor. Checkpoints hold one matrix for each expert,
--- whose number stands before this module's name; with `stacked` they hold the tensor as it is.
---@param opts {num_experts: integer, in_features: integer, out_features: integer, stacked: boolean?}
function am_nn_moe_GroupedLinear.new(opts) end

--- x [N, in], rows sorted by expert; offsets int32 [E + 1]: where each expert's begin -> [N, out]
function am_nn_moe_GroupedLinear:forward(x, offsets) end

--- What repr shows in brackets.
function am_nn_moe_GroupedLinear:extra_repr() end

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
am_nn.LayerNorm = am_nn_LayerNorm
am_nn.GatedMLP = am_nn_GatedMLP
am_nn.MLP = am_nn_MLP
am_nn.Attention = am_nn_Attention
am_nn.DecoderLayer = am_nn_DecoderLayer
am_nn.ParallelDecoderLayer = am_nn_ParallelDecoderLayer
am_nn.moe = am_nn_moe
am_nn_moe.SparseMoE = am_nn_moe_SparseMoE
am_nn_moe.Experts = am_nn_moe_Experts
am_nn_moe.GroupedLinear = am_nn_moe_GroupedLinear
am_nn.Cache = am_nn_Cache
return am_nn
