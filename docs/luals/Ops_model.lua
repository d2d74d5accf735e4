---@meta _
-- Written by docs/api.lua; do not edit. For workspace.library of a Lua language server.
-- luacheck: ignore

---@class am.Ops
local am_Ops = {}

--- x weight^T + bias; weight [out, in] as PyTorch stores it, or packed (packed.lua).
---@return am.Tensor
function am_Ops.linear(x, weight, bias) end

--- x weight^T by products in 8 bits; recipe: how operands are scaled, tensorwise, rowwise or rowwise_with_gw_hp
--- (docs/low_precision.md).
---@return am.Tensor
function am_Ops.fp8_linear(x, weight, recipe) end

--- linear plus scale B A x. opts: scale, dropout (probability, 0), position ("pre" or "post"). With a packed weight
--- all of it is computed in that one's dtype.
---@return am.Tensor
function am_Ops.lora_linear(x, weight, bias, lora_a, lora_b, opts) end

--- x [N, K], whose rows are sorted by expert, times each expert's weight [E, M, K] plus its bias [E, M] (or nil)
--- -> [N, M]. offsets int32 [E+1]: rows offsets[e] to offsets[e+1] - 1 are expert e's; see sort_by_expert.
--- opts: transposed (the weight is stored as [E, K, M]).
---@return am.Tensor
function am_Ops.grouped_linear(x, weight, offsets, bias, opts) end

--- Rows of weight [V, C] by index; padding_idx names a row that looking up gives no gradient.
---@return am.Tensor
function am_Ops.embedding(index, weight, padding_idx) end

--- x (offset + weight) / sqrt(mean x^2 + eps), over the last dim; offset is 0 unless given (Gemma: 1).
---@return am.Tensor
function am_Ops.rms_norm(x, weight, eps, offset) end

--- (x - mean) / sqrt(var + eps) (offset + weight) + bias, over the last dim; weight and bias may be nil,
--- offset is 0 unless given (Nemotron: 1).
---@return am.Tensor
function am_Ops.layer_norm(x, weight, bias, eps, offset) end

--- Cosines and sines [B, T, R] for position_ids int32 [B, T] and inverse frequencies [R/2].
---@return am.Tensor
function am_Ops.rope_table(position_ids, inv_freq, scaling) end

--- Rotate x [B, T, H, D] by a table; pairs are halves, or neighbours when interleaved.
---@return am.Tensor
function am_Ops.rope(x, rotary, interleaved) end

--- x [..., C] rounded to what few bits hold (int4, uint4 of tinygemm, or int8 with a zero point), with a scale for each
--- `group` numbers of a row, or for a whole one; its gradient goes straight through, but is 0 where x becomes the
--- lowest or the highest of these. The numbers are torchao's. opts: group, scales_dtype (float32 or bfloat16, of int4).
---@return am.Tensor
function am_Ops.fake_quantize(x, kind, opts) end

--- act(gate) * up, act by the name in a model's hidden_act.
---@return am.Tensor
function am_Ops.glu(gate, up, act) end

--- act(x), act by the name in a model's hidden_act.
---@return am.Tensor
function am_Ops.activation(x, act) end

--- q [B,T,H,D], k and v [B,S,K,D], bounds int32 [B,T,2] or nil -> [B,T,H,D].
--- opts: causal (true), window, softcap, scale, dropout (probability), sinks ([H]: a logit without a value
--- in each softmax of a head), library (a GPU's library may compute it), samples (what is known of bounds, see
--- am_attention_attrs in engine/am.h).
---@return am.Tensor
function am_Ops.attention(q, k, v, bounds, opts) end

--- Attention to keys that come in blocks, not recorded: out [B,T,H,D] and lse [B,H,T], float32 (float64 for float64),
--- take in a block's k and v; they begin as 0 and -inf. bounds are key ranges of the block; opts are those of
--- attention but dropout, sinks with one block only.
---@return am.Tensor
function am_Ops.attention_add(out, lse, q, k, v, bounds, opts) end

--- A block's gradients are added to grads { q, k, v } of lse's dtype. dout and out, of q's dtype, and lse are those
--- of all blocks.
---@return am.Tensor
function am_Ops.attention_add_grad(grads, dout, out, lse, q, k, v, bounds, opts) end

--- Sum over rows of -log softmax(logits)[label], rows with ignore_index (-100) left out.
---@return am.Tensor
function am_Ops.cross_entropy(logits, labels, opts) end

--- The same of hidden weight^T, without ever storing all logits.
---@return am.Tensor
function am_Ops.linear_cross_entropy(hidden, weight, labels, opts) end

return am_Ops
