-- The ops that a decoder and its losses are made of, one thin function each; ops.lua makes them its own.

local apply = require("am.core.apply")
local args = require("am.core.args")
local edge = require("am.core.ffi")
local err = require("am.core.error")
local packed = require("am.core.packed")

local C, check = edge.C, edge.check
local inputs, run, new_attrs, given = apply.inputs, apply.run, apply.new_attrs, apply.given
local apply1, apply2, apply3 = apply.apply1, apply.apply2, apply.apply3
local M = {}

--- x weight^T + bias; weight [out, in] as PyTorch stores it, or packed (packed.lua).
function M.linear(x, weight, bias)
    if packed.is(weight) then
        return weight:linear(x, bias)
    end
    return apply3(C.AM_OP_linear, x, weight, bias)
end

local fp8_recipes = { tensorwise = C.AM_FP8_TENSORWISE, rowwise = C.AM_FP8_ROWWISE,
                      rowwise_with_gw_hp = C.AM_FP8_ROWWISE_WITH_GW_HP }

--- x weight^T by products in 8 bits; recipe: how operands are scaled, tensorwise, rowwise or rowwise_with_gw_hp
--- (docs/low_precision.md).
function M.fp8_linear(x, weight, recipe)
    local at = new_attrs()
    at.fp8.recipe = fp8_recipes[recipe]
        or err.raise("argument", "fp8_linear: recipe %s; there are tensorwise, rowwise and rowwise_with_gw_hp",
                     tostring(recipe))
    return apply2(C.AM_OP_fp8_linear, x, weight, at)
end

local lora_options = { "scale", "dropout", "position" }

--- linear plus scale B A x. opts: scale, dropout (probability, 0), position ("pre" or "post"). With a packed weight
--- all of it is computed in that one's dtype.
function M.lora_linear(x, weight, bias, lora_a, lora_b, opts)
    opts = args.options("lora_linear", opts, lora_options)
    local at, op = new_attrs(), C.AM_OP_lora_linear
    at.lora.scale = args.number("lora_linear", "scale", opts.scale)
    at.lora.dropout_p = args.number("lora_linear", "dropout", opts.dropout, 0)
    at.lora.dropout_pre = opts.position == "pre" and 1 or 0
    local given_dtype
    if packed.is(weight) then
        given_dtype, at.lora.packing = given(op, x):dtype(), weight.packing
        x, bias, weight = x:to(weight.compute_dtype), bias and bias:to(weight.compute_dtype), weight.bytes
    end
    inputs[0], inputs[1], inputs[2] = given(op, x), given(op, weight), given(op, lora_a)
    inputs[3], inputs[4] = given(op, lora_b), bias ~= nil and given(op, bias) or nil
    local out = run(op, bias ~= nil and 5 or 4, at, x, weight, lora_a, lora_b, bias)
    return given_dtype and out:to(given_dtype) or out
end

--- x [N, K], whose rows are sorted by expert, times each expert's weight [E, M, K] plus its bias [E, M] (or nil)
--- -> [N, M]. offsets int32 [E+1]: rows offsets[e] to offsets[e+1] - 1 are expert e's; see sort_by_expert.
--- opts: transposed (the weight is stored as [E, K, M]).
function M.grouped_linear(x, weight, offsets, bias, opts)
    opts = args.options("grouped_linear", opts, { "transposed" })
    local at, op = new_attrs(), C.AM_OP_grouped_linear
    at.grouped.transposed = opts.transposed and 1 or 0
    inputs[0], inputs[1], inputs[2] = given(op, x), given(op, weight), given(op, offsets)
    inputs[3] = bias ~= nil and given(op, bias) or nil
    return run(op, 4, at, x, weight, offsets, bias)
end

-- ---- decoder --------------------------------------------------------------------------------

--- Rows of weight [V, C] by index; padding_idx names a row that looking up gives no gradient.
function M.embedding(index, weight, padding_idx)
    local at = new_attrs()
    at.embedding.padding_idx = args.whole("embedding", "padding_idx", padding_idx, -1)
    return apply2(C.AM_OP_embedding, index, weight, at)
end

--- x (offset + weight) / sqrt(mean x^2 + eps), over the last dim; offset is 0 unless given (Gemma: 1).
function M.rms_norm(x, weight, eps, offset)
    local at = new_attrs()
    at.norm.eps = args.number("rms_norm", "eps", eps)
    at.norm.offset = args.number("rms_norm", "offset", offset, 0)
    return apply2(C.AM_OP_rms_norm, x, weight, at)
end

--- (x - mean) / sqrt(var + eps) (offset + weight) + bias, over the last dim; weight and bias may be nil,
--- offset is 0 unless given (Nemotron: 1).
function M.layer_norm(x, weight, bias, eps, offset)
    local at, op = new_attrs(), C.AM_OP_layer_norm
    at.norm.eps = args.number("layer_norm", "eps", eps)
    at.norm.offset = args.number("layer_norm", "offset", offset, 0)
    inputs[0] = given(op, x)
    inputs[1] = weight ~= nil and given(op, weight) or nil
    inputs[2] = bias ~= nil and given(op, bias) or nil
    return run(op, 3, at, x, weight, bias)
end

--- Cosines and sines [B, T, R] for position_ids int32 [B, T] and inverse frequencies [R/2].
function M.rope_table(position_ids, inv_freq, scaling)
    local at = new_attrs()
    at.rope_table.scaling = args.number("rope_table", "scaling", scaling, 1)
    return apply2(C.AM_OP_rope_table, position_ids, inv_freq, at)
end

--- Rotate x [B, T, H, D] by a table; pairs are halves, or neighbours when interleaved.
function M.rope(x, rotary, interleaved)
    local at = new_attrs()
    at.rope.interleaved = interleaved and 1 or 0
    return apply2(C.AM_OP_rope, x, rotary, at)
end

-- Names of transformers' ACT2FN.
local activations = {
    silu = C.AM_ACT_SILU, swish = C.AM_ACT_SILU, gelu = C.AM_ACT_GELU, gelu_python = C.AM_ACT_GELU,
    gelu_pytorch_tanh = C.AM_ACT_GELU_TANH, gelu_new = C.AM_ACT_GELU_TANH, gelu_fast = C.AM_ACT_GELU_TANH,
    quick_gelu = C.AM_ACT_QUICK_GELU, relu = C.AM_ACT_RELU, relu2 = C.AM_ACT_RELU2,
    sigmoid = C.AM_ACT_SIGMOID, tanh = C.AM_ACT_TANH,
}
local activation_ops = {
    [C.AM_ACT_SILU] = C.AM_OP_silu, [C.AM_ACT_GELU] = C.AM_OP_gelu, [C.AM_ACT_GELU_TANH] = C.AM_OP_gelu_tanh,
    [C.AM_ACT_QUICK_GELU] = C.AM_OP_quick_gelu, [C.AM_ACT_RELU] = C.AM_OP_relu,
    [C.AM_ACT_RELU2] = C.AM_OP_relu2, [C.AM_ACT_SIGMOID] = C.AM_OP_sigmoid, [C.AM_ACT_TANH] = C.AM_OP_tanh,
}

local function activation_of(act)
    return activations[act] or err.raise("unsupported", "activation \"%s\" is not known", tostring(act))
end

local scale_dtypes = { float32 = C.AM_F32, bfloat16 = C.AM_BF16 }
local levels = { int4 = C.AM_FQ_INT4, uint4 = C.AM_FQ_UINT4, int8 = C.AM_FQ_INT8 }
local fake_quantize_options = { "group", "scales_dtype" }

--- x [..., C] rounded to what few bits hold (int4, uint4 of tinygemm, or int8 with a zero point), with a scale for each
--- `group` numbers of a row, or for a whole one; its gradient goes straight through, but is 0 where x becomes the
--- lowest or the highest of these. The numbers are torchao's. opts: group, scales_dtype (float32 or bfloat16, of int4).
function M.fake_quantize(x, kind, opts)
    opts = args.options("fake_quantize", opts, fake_quantize_options)
    local at = new_attrs()
    at.fake_quantize.kind = levels[kind]
        or err.raise("argument", "fake_quantize: there are int4, uint4 and int8, not %s", tostring(kind))
    at.fake_quantize.dtype_scale = scale_dtypes[opts.scales_dtype or "float32"]
        or err.raise("argument", "fake_quantize: scales_dtype can be float32 or bfloat16, not %s",
                     tostring(opts.scales_dtype))
    at.fake_quantize.group = args.whole("fake_quantize", "group", opts.group or 0)
    return apply1(C.AM_OP_fake_quantize, x, at)
end

--- The names that glu and activation know, as keys.
M.activations = activations

--- act(gate) * up, act by the name in a model's hidden_act.
function M.glu(gate, up, act)
    local at = new_attrs()
    at.glu.act = activation_of(act or "silu")
    return apply2(C.AM_OP_glu, gate, up, at)
end

--- act(x), act by the name in a model's hidden_act.
function M.activation(x, act) return apply1(activation_ops[activation_of(act)], x) end

local attention_options = { "causal", "window", "softcap", "scale", "dropout", "sinks", "library", "samples" }

local function attention_attrs(what, opts)
    local at = new_attrs()
    local mask = at.attention
    mask.causal = opts.causal == false and 0 or 1
    mask.window = args.int(what, "window", opts.window, 0)
    mask.softcap = args.number(what, "softcap", opts.softcap, 0)
    mask.scale = args.number(what, "scale", opts.scale, 0)
    mask.dropout_p = args.number(what, "dropout", opts.dropout, 0)
    mask.library = opts.library and 1 or 0
    mask.samples = args.int(what, "samples", opts.samples, 0)
    return at
end

--- q [B,T,H,D], k and v [B,S,K,D], bounds int32 [B,T,2] or nil -> [B,T,H,D].
--- opts: causal (true), window, softcap, scale, dropout (probability), sinks ([H]: a logit without a value
--- in each softmax of a head), library (a GPU's library may compute it), samples (what is known of bounds, see
--- am_attention_attrs in engine/am.h).
function M.attention(q, k, v, bounds, opts)
    opts = args.options("attention", opts, attention_options)
    local at, op = attention_attrs("attention", opts), C.AM_OP_attention
    inputs[0], inputs[1], inputs[2] = given(op, q), given(op, k), given(op, v)
    inputs[3] = bounds ~= nil and given(op, bounds) or nil
    inputs[4] = opts.sinks ~= nil and given(op, opts.sinks) or nil
    return run(op, 5, at, q, k, v, bounds, opts.sinks)
end

-- Raise "argument" unless all are tensors.
local function tensors(what, ...)
    for i = 1, select("#", ...) do
        args.tensor(what, (select(i, ...)))
    end
end

--- Attention to keys that come in blocks, not recorded: out [B,T,H,D] and lse [B,H,T], float32 (float64 for float64),
--- take in a block's k and v; they begin as 0 and -inf. bounds are key ranges of the block; opts are those of
--- attention but dropout, sinks with one block only.
function M.attention_add(out, lse, q, k, v, bounds, opts)
    opts = args.options("attention_add", opts, attention_options)
    tensors("attention_add", out, lse, q, k, v, bounds or v, opts.sinks or v)
    local at = attention_attrs("attention_add", opts)
    check(C.am_attention_add(out, lse, q, k, v, bounds, opts.sinks, at.attention))
end

--- A block's gradients are added to grads { q, k, v } of lse's dtype. dout and out, of q's dtype, and lse are those
--- of all blocks.
function M.attention_add_grad(grads, dout, out, lse, q, k, v, bounds, opts)
    opts = args.options("attention_add_grad", opts, attention_options)
    grads = args.options("attention_add_grad: grads", grads, { "q", "k", "v" })
    tensors("attention_add_grad", grads.q, grads.k, grads.v, dout, out, lse, q, k, v, bounds or v)
    local at = attention_attrs("attention_add_grad", opts)
    check(C.am_attention_add_grad(grads.q, grads.k, grads.v, dout, out, lse, q, k, v, bounds, at.attention))
end

-- ---- losses ---------------------------------------------------------------------------------

local function loss_attrs(what, opts)
    local at = new_attrs()
    opts = args.options(what, opts, { "ignore_index", "softcap" })
    at.loss.ignore_index = args.whole(what, "ignore_index", opts.ignore_index, -100)
    at.loss.softcap = args.number(what, "softcap", opts.softcap, 0)
    return at
end

--- Sum over rows of -log softmax(logits)[label], rows with ignore_index (-100) left out.
function M.cross_entropy(logits, labels, opts)
    return apply2(C.AM_OP_cross_entropy, logits, labels, loss_attrs("cross_entropy", opts))
end

--- The same of hidden weight^T, without ever storing all logits.
function M.linear_cross_entropy(hidden, weight, labels, opts)
    local at = loss_attrs("linear_cross_entropy", opts)
    return apply3(C.AM_OP_linear_cross_entropy, hidden, weight, labels, at)
end

return M
