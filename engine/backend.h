/* backend.h — the border between the engine and a device: one vtable, and the argument structs of
 * the kernels in kernels.def. The engine owns shapes, gradients and allocation; a kernel gets
 * plain pointers and sizes. Kernels include this file, dtype.h and rng.h, nothing else of the
 * engine.
 *
 * Rules for kernels
 *   - Every kernel takes (stream, args) and returns AM_OK, AM_EUNSUP for a dtype it does not do,
 *     or AM_EINVAL for bad data (an index out of range) with am_kernel_fail().
 *   - args are copied before the call returns where a device runs behind; pointers come first in
 *     each struct, outputs before inputs; an optional pointer is NULL when absent.
 *   - Buffers are row-major and dense unless a struct has strides. `dtype` is that of all floating
 *     buffers that have no dtype of their own.
 *   - bf16 and f16 are computed in f32 and rounded once; f64 in f64.
 *   - A row's result must not depend on how many rows the call has, nor on the thread count.
 *   - `accumulate`: add to what the output holds instead of overwriting it.
 */
#ifndef AM_BACKEND_H
#define AM_BACKEND_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include "am.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct am_stream am_stream; /* a backend's own; NULL where it has none */

/* Shape and strides (in elements) of up to four operands walked together; 0 is the output. */
enum { AM_ND_OPERANDS = 4 };
typedef struct am_nd {
    int32_t ndim; /* 0: one element */
    int64_t shape[AM_MAX_DIMS];
    int64_t stride[AM_ND_OPERANDS][AM_MAX_DIMS];
} am_nd;

/* out[...] = value */
typedef struct am_fill_args {
    void *out;
    double value;
    int dtype;
    am_nd nd;
} am_fill_args;

/* out = a, converted; out += a with accumulate. Integers convert by C's rules, to bool by != 0. */
typedef struct am_copy_args {
    void *out;
    const void *a;
    int dtype_out, dtype_a, accumulate;
    am_nd nd;
} am_copy_args;

enum {
    AM_U_ADD_SCALAR,
    AM_U_MUL_SCALAR,
    AM_U_POW_SCALAR,
    AM_U_NEG,
    AM_U_ABS,
    AM_U_EXP,
    AM_U_LOG,
    AM_U_SQRT,
    AM_U_RSQRT,
    AM_U_TANH,
    AM_U_SIGMOID,
    AM_U_RELU,
    AM_U_SILU,
    AM_U_GELU,
    AM_U_GELU_TANH,
    AM_U_RELU2,
    AM_U_QUICK_GELU,
    AM_U_CLAMP,
    AM_U_SIN,
    AM_U_COS,
    AM_U_ERF,
    AM_U_LOG1P,
    AM_U_EXPM1,
    AM_U_SOFTPLUS,
    AM_U_SIGN,
    AM_U_FLOOR,
    AM_U_CEIL,
    AM_U_ROUND,
    AM_U_COUNT
};
/* out = f(a); p0, p1 are the scalar, or clamp's bounds. Integers: scalar ops, neg, abs, clamp,
 * sign, floor, ceil, round. */
typedef struct am_unary_args {
    void *out;
    const void *a;
    int op, dtype;
    double p0, p1;
    am_nd nd;
} am_unary_args;

/* da = dout f'(a) */
typedef struct am_unary_bwd_args {
    void *da;
    const void *dout, *a;
    int op, dtype;
    double p0, p1;
    am_nd nd; /* da, dout, a */
} am_unary_bwd_args;

enum {
    AM_B_ADD,
    AM_B_SUB,
    AM_B_MUL,
    AM_B_DIV,
    AM_B_MAXIMUM,
    AM_B_MINIMUM,
    AM_B_POW,
    AM_B_EQ,
    AM_B_NE,
    AM_B_LT,
    AM_B_LE,
    AM_B_GT,
    AM_B_GE,
    AM_B_COUNT
};
/* out = a op b; comparisons write bool (one byte, 0 or 1). All dtypes (bool: comparisons
 * only; integers: not POW). */
typedef struct am_binary_args {
    void *out;
    const void *a, *b;
    int op, dtype;
    am_nd nd;
} am_binary_args;

/* d = dout * d(a op b)/d(operand `which`: 0 a, 1 b), in the full broadcast shape. MUL, DIV,
 * MAXIMUM, MINIMUM (ties: half) and POW only: b a^(b-1), 0 where b is 0; a^b ln a, 0 where a is 0
 * and b >= 0. */
typedef struct am_binary_bwd_args {
    void *d;
    const void *dout, *a, *b;
    int op, which, dtype;
    am_nd nd; /* d, dout, a, b */
} am_binary_bwd_args;

/* out = cond ? a : b; cond is bool */
typedef struct am_where_args {
    void *out;
    const void *cond, *a, *b;
    int dtype;
    am_nd nd; /* out, cond, a, b */
} am_where_args;

/* out[i] = keep(i) ? a[i] / (1-p) : 0 with keep from am_philox_u32(seed, stream, i). The gradient
 * is the same kernel on dout. May run in place. */
typedef struct am_dropout_args {
    void *out;
    const void *a;
    int dtype;
    double p;
    uint64_t seed, stream;
    int64_t n;
    int accumulate;
} am_dropout_args;

enum { AM_RANDOM_UNIFORM, AM_RANDOM_NORMAL };
/* uniform: a + (b-a) u; normal: a + b z, computed in double */
typedef struct am_random_args {
    void *out;
    int kind, dtype;
    double a, b;
    uint64_t seed, stream;
    int64_t n;
} am_random_args;

enum {
    AM_R_SUM,
    AM_R_MAX,
    AM_R_MIN,
    AM_R_LOGSUMEXP,
    AM_R_PROD,
    AM_R_ARGMAX, /* from here on the output is int64 */
    AM_R_ARGMIN,
    AM_R_COUNT
};
/* a [outer, n, inner] -> out [outer, inner]; sums (times scale) run in f32 or better with an order
 * that depends on n alone. SUM and PROD of integers and bool: out is int64. */
typedef struct am_reduce_args {
    void *out;
    const void *a;
    int op, dtype, dtype_out, accumulate;
    double scale;
    int64_t outer, n, inner;
} am_reduce_args;

/* da [outer, n, inner] from dout, out [outer, inner] and a; op SUM (broadcast dout times scale; a
 * and out may be NULL), MAX, MIN (ties share equally), LOGSUMEXP, PROD. */
typedef struct am_reduce_bwd_args {
    void *da;
    const void *dout, *a, *out;
    int op, dtype;
    double scale;
    int64_t outer, n, inner;
} am_reduce_bwd_args;

/* softmax (or its logarithm) over n of [outer, n, inner] */
typedef struct am_softmax_args {
    void *out;
    const void *a;
    int log, dtype;
    int64_t outer, n, inner;
} am_softmax_args;
typedef struct am_softmax_bwd_args {
    void *da;
    const void *dout, *out;
    int log, dtype;
    int64_t outer, n, inner;
} am_softmax_bwd_args;

/* out[o,j,i] = a[o,0,i] + ... + a[o,j,i]; from the other end with reverse (the gradient). Out of
 * integers and bool is int64. */
typedef struct am_cumsum_args {
    void *out;
    const void *a;
    int dtype, dtype_out, reverse;
    int64_t outer, n, inner;
} am_cumsum_args;

/* out int64 [outer, n, inner]: the order of a's n elements. Equal ones stay in place; NaN is the
 * greatest. */
typedef struct am_argsort_args {
    void *out;
    const void *a;
    int dtype, descending;
    int64_t outer, n, inner;
} am_argsort_args;

/* a [outer, n, inner], index -> out [outer, m, inner].
 * per_element 0: index [m] picks rows: out[o,j,i] = a[o,index[j],i] (embedding: outer 1).
 * per_element 1: index [outer, m, inner]: out[o,j,i] = a[o,index[o,j,i],i].
 * An index outside 0..n-1 is AM_EINVAL; nothing out of range is read. */
typedef struct am_gather_args {
    void *out;
    const void *a, *index;
    int dtype, dtype_index, per_element;
    int64_t outer, n, inner, m;
} am_gather_args;
/* da [outer, n, inner] += dout [outer, m, inner] at index, in index order (so the same bits for
 * any thread count). da has dtype_da: the same as dout (integers, too), or f32. With has_padding,
 * the index `padding` gets no gradient. */
typedef struct am_gather_bwd_args {
    void *da;
    const void *dout, *index;
    int dtype, dtype_da, dtype_index, per_element, has_padding;
    int64_t outer, n, inner, m, padding;
} am_gather_bwd_args;

/* c = alpha op(a) op(b) + bias + (accumulate ? c : 0), `batch` times.
 * op(a) is [m, k]: stored [m, k] with row stride lda, or [k, m] when trans_a; op(b) is [k, n]:
 * stored [k, n], or [n, k] when trans_b. c [m, n], row stride ldc. Batch strides in elements
 * (0 repeats an operand). a, b and bias [n] have dtype_ab; c has dtype_c: the same, or f32 where
 * the operands are bf16 or f16. Accumulation is in f32 (f64 for f64). A row of c must not depend
 * on m.
 * Unless u is NULL, c += u op(v) of rank r, after that, where c may be rounded in between: LoRA's
 * product, while c is in cache. u [m, r] and v [r, n], or [n, r] when trans_b, are dense; batch is
 * 1, alpha not theirs. */
typedef struct am_gemm_args {
    void *c;
    const void *a, *b, *bias, *u, *v;
    int dtype_ab, dtype_c, trans_a, trans_b, accumulate;
    double alpha;
    int64_t m, n, k, lda, ldb, ldc, r;
    int64_t batch, stride_a, stride_b, stride_c;
} am_gemm_args;

/* y [rows, n] = alpha x [rows, k] w^T + bias + (accumulate ? y : 0), with w [n, k]: what gemm does,
 * for a few rows and in inference mode (am.h). Sums in f32 (f64 for f64), but in another order than
 * gemm's. A row of y must not depend on `rows`. */
typedef struct am_gemv_args {
    void *y;
    const void *x, *w, *bias;
    int dtype, accumulate;
    double alpha;
    int64_t rows, n, k;
} am_gemv_args;

/* What a map of rank r takes of a pass over a [m, k], either of them or both:
 *   u [m, r] = scale a p^T, p being [r, k], or [k, r] when turned; not when u is NULL;
 *   g = t^T a + (accumulate ? g : 0), in p's shape, t being [m, r]; not when g is NULL.
 * All are dense; g has dtype_g, the same as the others or f32. Sums in f32 (f64 for f64). A row of
 * u must not depend on m. */
typedef struct am_low_rank_args {
    void *u, *g;
    const void *a, *p, *t;
    int dtype, dtype_g, turned, accumulate;
    double scale;
    int64_t m, k, r;
} am_low_rank_args;

/* 8-bit floating point (Micikevicius et al. 2022): e4m3 without infinities up to 448, and e5m2 up
 * to 57344; and what numbers share a scale. */
enum { AM_FP8_E4M3, AM_FP8_E5M2 };
enum { AM_FP8_PER_TENSOR, AM_FP8_PER_ROW, AM_FP8_PER_COLUMN };

/* q [rows, cols] = a times a scale, in one byte each: in f32, to nearest, ties to even, what lies
 * beyond the largest number being that. The scale is the format's largest number by the largest |a|
 * of what shares it (1e-12 at least), computed in f64 and rounded to f32; with power_of_2 it is
 * lowered to 2^floor(log2 scale). A NaN is 0x7f. inverse is 1 / scale: one number, [rows] or
 * [cols]. Where there is a NaN, or an infinity, all that shares the scale is NaN by q times
 * inverse. */
typedef struct am_fp8_quantize_args {
    void *q;
    float *inverse;
    const void *a;
    int dtype, format, per, power_of_2;
    int64_t rows, cols;
} am_fp8_quantize_args;
/* c [m, n] = op(a) op(b) times the operands' inverse scales + (accumulate ? c : 0), with a and b as
 * fp8_quantize gives them: op(a) is stored [m, k], or [k, m] when trans_a; op(b) [k, n], or [n, k]
 * when trans_b. inverse_a is one number, or [m] when rows_a; inverse_b one, or [n] when columns_b.
 * Products of two numbers are exact, sums are in f32. A row of c must not depend on m. */
typedef struct am_fp8_gemm_args {
    void *c;
    const void *a, *b;
    const float *inverse_a, *inverse_b;
    int format_a, format_b, rows_a, columns_b, dtype_c, trans_a, trans_b, accumulate;
    int64_t m, n, k;
} am_fp8_gemm_args;

/* A mixture of experts' product: rows sorted by group, each group with a matrix of its own. Group g
 * has rows offsets[g] .. offsets[g + 1] - 1, offsets being int32 [groups + 1]: AM_EINVAL when they
 * don't begin with 0, fall, or don't end with `rows`.
 * c [rows, n] = a [rows, k] op(b_g) + bias_g + (accumulate ? c : 0); b is [groups, k, n], or
 * [groups, n, k] when trans_b; bias [groups, n]. All are dense, dtypes and sums are gemm's. A row
 * of c must not depend on how many rows its group and the others have. */
typedef struct am_grouped_gemm_args {
    void *c;
    const void *a, *b, *bias;
    const int32_t *offsets;
    int dtype_ab, dtype_c, trans_b, accumulate;
    int64_t groups, rows, n, k;
} am_grouped_gemm_args;
/* Its gradients over dout [rows, n] and x [rows, k]; either may be NULL, x where dw is:
 *   dw [groups, n, k] = dout_g^T x_g, or [groups, k, n] = x_g^T dout_g when turned;
 *   dbias [groups, n] = sum of dout_g's rows.
 * Both are 0 for a group without rows. They have dtype_dw and dtype_db (dtype, or f32); sums are in
 * f32 (f64 for f64), in an order that depends on sizes and offsets alone. */
typedef struct am_grouped_gemm_dw_args {
    void *dw, *dbias;
    const void *dout, *x;
    const int32_t *offsets;
    int dtype, dtype_dw, dtype_db, turned, accumulate_dw, accumulate_db;
    int64_t groups, rows, n, k;
} am_grouped_gemm_dw_args;

/* Weights in few bits (am.h, am_packing): `rows` x `cols` numbers in one run of bytes,
 *   f32 scales: of int8 one for each row; of 4 bits one for each block, or, nested, their mean and
 *     one for each AM_PACK_NEST blocks;
 *   nested, a byte for each block: a code of bitsandbytes' dynamic map, times that block's scale,
 *     plus the mean, is the scale of the block;
 *   codes: of int8 a byte for each number, of 4 bits half a one, the upper half first.
 * Blocks are AM_PACK_BLOCK numbers and run on over the ends of rows. */
enum { AM_PACK_BLOCK = 64, AM_PACK_NEST = 256 };
static inline int64_t am_packing_blocks(const am_packing *p)
{
    return (p->rows * p->cols + AM_PACK_BLOCK - 1) / AM_PACK_BLOCK;
}
static inline int64_t am_packing_scales(const am_packing *p)
{
    int64_t blocks = am_packing_blocks(p);
    return p->type == AM_PACK_INT8 ? p->rows
           : p->nested             ? 1 + (blocks + AM_PACK_NEST - 1) / AM_PACK_NEST
                                   : blocks;
}
static inline int64_t am_packing_nested(const am_packing *p)
{
    return p->type != AM_PACK_INT8 && p->nested ? am_packing_blocks(p) : 0;
}
static inline int64_t am_packing_codes(const am_packing *p)
{
    return p->type == AM_PACK_INT8 ? p->rows * p->cols : (p->rows * p->cols + 1) / 2;
}

/* packed = a [rows, cols] in few bits, a dense and of dtype. work: an f32 for each block where
 * scales are nested, else NULL. */
typedef struct am_pack_args {
    void *packed;
    float *work;
    const void *a;
    int dtype;
    am_packing packing;
} am_pack_args;

/* out [rows, cols] = the part of a packed matrix that begins at (row, col), rounded to dtype. */
typedef struct am_unpack_args {
    void *out;
    const void *packed;
    int dtype;
    am_packing packing;
    int64_t row, rows, col, cols;
} am_unpack_args;

/* With W [rows, cols] what unpack makes of w in dtype:
 * c [m, rows] = a [m, cols] W^T + bias + (accumulate ? c : 0) when trans, else
 * c [m, cols] = a [m, rows] W + bias + (accumulate ? c : 0). Dtypes and sums are gemm's, or, with
 * `few`, which comes with trans and in inference mode, gemv's. */
typedef struct am_packed_gemm_args {
    void *c;
    const void *a, *w, *bias;
    int dtype, dtype_c, trans, few, accumulate;
    am_packing packing;
    int64_t m;
} am_packed_gemm_args;

/* x [rows, c] -> out = x * rstd * (offset + weight); rstd [rows] = 1/sqrt(mean(x^2) + eps), stored
 * as f32 (f64 for f64) unless NULL. Zhang & Sennrich 2019. */
typedef struct am_rms_norm_args {
    void *out, *rstd;
    const void *x, *weight;
    int dtype;
    double eps, offset;
    int64_t rows, c;
} am_rms_norm_args;
/* dx and dweight; either may be NULL. dweight has dtype_dw (dtype, or f32), summed over rows in an
 * order that depends on rows alone. */
typedef struct am_rms_norm_bwd_args {
    void *dx, *dweight;
    const void *dout, *x, *weight, *rstd;
    int dtype, dtype_dw, accumulate_dx, accumulate_dw;
    double offset;
    int64_t rows, c;
} am_rms_norm_bwd_args;

/* x [rows, c] -> out = (x - mean) * rstd * (offset + weight) + bias, rstd = 1/sqrt(var(x) + eps),
 * var being the mean square distance from the mean. Without a weight: times 1. stats [2, rows], the
 * means and then the rstds, stored as f32 (f64 for f64) unless NULL. Ba et al. 2016. */
typedef struct am_layer_norm_args {
    void *out, *stats;
    const void *x, *weight, *bias;
    int dtype;
    double eps, offset;
    int64_t rows, c;
} am_layer_norm_args;
/* dx, dweight and dbias; each may be NULL. dweight and dbias have dtype_dw and dtype_db (dtype, or
 * f32), summed over rows in an order that depends on rows alone. */
typedef struct am_layer_norm_bwd_args {
    void *dx, *dweight, *dbias;
    const void *dout, *x, *weight, *stats;
    int dtype, dtype_dw, dtype_db, accumulate_dx, accumulate_dw, accumulate_db;
    double offset;
    int64_t rows, c;
} am_layer_norm_bwd_args;

/* pos int32 [n], inv_freq f32 [half] -> out f32 [n, 2 half]: cos(pos * inv_freq) * scaling, then
 * sin; the angle is rounded to f32 as transformers does. */
typedef struct am_rope_table_args {
    float *out;
    const int32_t *pos;
    const float *inv_freq;
    double scaling;
    int64_t n, half;
} am_rope_table_args;

/* x [b, t, h, d], table f32 [b or 1, t, r] -> out: the first r of d rotated, the rest copied.
 * Pairs are (i, i + r/2), or (2i, 2i+1) when interleaved. inverse rotates back (the gradient).
 * out may be x. */
typedef struct am_rope_args {
    void *out;
    const void *x;
    const float *table;
    int dtype, table_batched, inverse, interleaved;
    int64_t b, t, h, d, r;
} am_rope_args;

/* out = act(gate) * up, act from AM_ACT_* */
typedef struct am_glu_args {
    void *out;
    const void *gate, *up;
    int act, dtype;
    int64_t n;
} am_glu_args;
/* dgate, dup (either may be NULL) */
typedef struct am_glu_bwd_args {
    void *dgate, *dup;
    const void *dout, *gate, *up;
    int act, dtype;
    int64_t n;
} am_glu_bwd_args;

/* x: `groups` groups of `size` adjacent elements, each with a scale of its own, kind from AM_FQ_*;
 * dtype_scale (f32 or bf16) counts for AM_FQ_INT4. grad NULL: out = x rounded. Else out = grad
 * where x lies between the lowest and the highest level, 0 from these on (as the gradient of
 * PyTorch's clamp is from 2.15 on), times the scale and through it again, for both are rounded.
 * Every step is rounded as PyTorch does: to the wider of two dtypes, then to x's. */
typedef struct am_fake_quantize_args {
    void *out;
    const void *x, *grad;
    int kind, dtype, dtype_scale;
    int64_t groups, size;
} am_fake_quantize_args;

/* q [b, t, h, d], k, v [b, s, kh, d] with strides (elements) for batch, token and head; the last
 * dim is dense. Query t of batch b attends to keys [start, end): bounds int32 [b, t, 2], or [0, s)
 * when NULL, narrowed by causal (keys <= t + s - bt, see am_attention_attrs) and window. An empty
 * range gives zeros. softcap, then softmax, then dropout of probabilities (keep from
 * am_philox_u32(seed, stream, ((b*h + head)*t + query)*s + key)).
 * sinks [h], of lse's dtype, or NULL: a logit of each head that takes part in the softmax, but has
 * no value.
 * out [b, t, h, d] dense; lse [b, h, t] f32 (f64 for f64), with the sink; of an empty range the
 * sink, without sinks -inf.
 * Never stores t x s. Key tiles are laid from the bounds' own start, so a row's bits do not depend
 * on where its sample lies in a pack. */
typedef struct am_attention_shape {
    int dtype, causal, window;
    int library, samples; /* as in am_attention_attrs; a backend may leave both alone */
    int64_t b, t, s, h, kh, d;
    int64_t q_batch, q_token, q_head, k_batch, k_token, k_head, v_batch, v_token, v_head;
    double scale, softcap, dropout_p;
    uint64_t seed, stream;
} am_attention_shape;
typedef struct am_attention_args {
    void *out, *lse;
    const void *q, *k, *v;
    const int32_t *bounds;
    const void *sinks;
    am_attention_shape shape;
} am_attention_args;
/* dq [b,t,h,d], dk, dv [b,s,kh,d] dense, overwritten; delta [b,h,t], of lse's dtype, becomes the
 * row sums of dout * out. Sinks are in lse. */
typedef struct am_attention_bwd_args {
    void *dq, *dk, *dv, *delta;
    const void *dout, *q, *k, *v, *out, *lse;
    const int32_t *bounds;
    am_attention_shape shape;
} am_attention_bwd_args;
/* What a query's keys so far gave, out [b, t, h, d] and lse [b, h, t] of f32 (f64 for f64), takes
 * in what other keys gave, block [b, t, h, d] of dtype and its lse: as if all were of one softmax.
 * Where a lse is -inf there were no keys. */
typedef struct am_attention_merge_args {
    void *out, *lse;
    const void *block, *block_lse;
    int dtype;
    int64_t b, t, h, d;
} am_attention_merge_args;

/* logits [rows, v], labels int32/int64 [rows] -> loss [rows] f32 (f64 for f64; 0 where ignored)
 * and lse [rows] of the same type. softcap: logits become cap tanh(logits / cap) first. A label
 * outside 0..v-1 that is not `ignore` is AM_EINVAL. Unless NULL, dlogits [rows, v] becomes what
 * cross_entropy_bwd gives for a dloss of 1, in dtype_dlogits: f32, bf16 or f16, or f64 for f64. It
 * may be logits where both have one dtype. */
typedef struct am_cross_entropy_args {
    void *loss, *lse;
    const void *logits, *labels;
    void *dlogits;
    int dtype, dtype_labels, dtype_dlogits;
    int64_t ignore, rows, v;
    double softcap;
} am_cross_entropy_args;
/* dlogits = dloss * (softmax - onehot), 0 in ignored rows; dloss points to one f32 (f64 for f64).
 * dlogits has logits' dtype and may be logits. */
typedef struct am_cross_entropy_bwd_args {
    void *dlogits;
    const void *logits, *labels, *lse, *dloss;
    int dtype, dtype_labels;
    int64_t ignore, rows, v;
    double softcap;
} am_cross_entropy_bwd_args;

/* *out = sum x^2 in double. partial has AM_SUMSQ_PARTIALS(n) doubles: one for each block, added in
 * order, so the bits depend on n alone. */
enum { AM_SUMSQ_BLOCK = 65536 };
typedef struct am_sumsq_args {
    double *out, *partial;
    const void *x;
    int dtype;
    int64_t n;
} am_sumsq_args;

/* Moments in 8 bits (dtype_state AM_U8) are codes, with one absmax for each AM_STATE_BLOCK of them
 * counted from element 0: see kernels/cpu/dynamic_map.h. AM_STATE_ZERO is the code of 0 in moments
 * with a sign (m, buf); in v it is 0. */
enum { AM_STATE_BLOCK = 256, AM_STATE_ZERO = 127 };

/* torch.optim.Adam/AdamW on flat buffers. g = grad * grad_scale (+ weight_decay * p when not
 * decoupled); p *= 1 - lr wd when decoupled; m = lerp(m, g, 1-beta1); v = beta2 v + (1-beta2) g^2;
 * p -= lr/bias1 * m / (sqrt(v)/sqrt(bias2) + eps), bias1 = 1 - beta1^t, bias2 = 1 - beta2^t.
 * vmax (AMSGrad; NULL without, never with 8-bit moments) is the largest v so far and takes its
 * place in the root. p is master (f32) when given, and param is then its rounding. */
typedef struct am_adam_args {
    void *param, *m, *v, *vmax;
    float *master, *m_absmax, *v_absmax; /* the latter for 8-bit moments only */
    const void *grad;
    int dtype, dtype_state, dtype_grad, decoupled;
    int64_t n;
    double lr, beta1, beta2, eps, weight_decay, bias1, bias2, grad_scale;
} am_adam_args;

/* torch.optim.SGD: g += wd p; buf = first ? g : momentum buf + (1-dampening) g;
 * g = nesterov ? g + momentum buf : buf; p -= lr g. buf is NULL without momentum. */
typedef struct am_sgd_args {
    void *param, *buf;
    float *master, *buf_absmax;
    const void *grad;
    int dtype, dtype_state, dtype_grad, first, nesterov;
    int64_t n;
    double lr, momentum, dampening, weight_decay, grad_scale;
} am_sgd_args;

/* Lion (Chen et al. 2023): p *= 1 - lr wd; p -= lr sign(beta1 m + (1-beta1) g);
 * m = beta2 m + (1-beta2) g. sign(0) is 0. */
typedef struct am_lion_args {
    void *param, *m;
    float *master, *m_absmax;
    const void *grad;
    int dtype, dtype_state, dtype_grad;
    int64_t n;
    double lr, beta1, beta2, weight_decay, grad_scale;
} am_lion_args;

/* Adafactor (Shazeer and Stern 2018) on one parameter, `batch` matrices [rows, cols] or, with var,
 * a vector of cols elements. g = grad * grad_scale, fresh = t^beta2_decay. As torch.optim: row =
 * lerp(row, mean g^2 of a row, fresh), col = lerp(col, mean g^2 of a column, fresh); v = row col /
 * max(mean row, eps1), or v = var = lerp(var, g^2, fresh); u = g / sqrt(max(v, eps1^2)); alpha =
 * rho max(eps2, rms p); p *= 1 - lr wd; p -= alpha / max(1, rms u / d) u. rms and alpha are those
 * of the whole parameter. As transformers: g^2 + eps1 in place of g^2, and eps1 nowhere else; p *=
 * 1 - alpha wd; alpha = rho without scale_parameter. row [batch, rows], col [batch, cols] and var
 * have dtype_grad, f32 or f64. work: doubles, two and cols / 2 for each block of AM_ADAFACTOR_ROWS
 * rows (of a vector: none). */
enum { AM_ADAFACTOR_ROWS = 32 };
typedef struct am_adafactor_args {
    void *param, *row, *col, *var;
    float *master;
    double *work;
    const void *grad;
    int dtype, dtype_grad, scale_parameter, transformers;
    int64_t batch, rows, cols;
    double lr, rho, fresh, eps1, eps2, d, weight_decay, grad_scale;
} am_adafactor_args;

/* Of a symmetric matrix [n, n] in `vectors`, whose upper half is read: its eigenvectors as rows, in
 * the order of their eigenvalues, ascending, which go to `values` [n]. work [n (n + 4)]. AM_EINVAL
 * when there are numbers that are not finite. */
typedef struct am_eigh_args {
    double *vectors, *values, *work;
    int64_t n;
} am_eigh_args;

/* q holds the columns of a matrix [n, n] as rows, and becomes those of its Q, by Householder
 * reflections as LAPACK's geqrf takes them (R's diagonal may be negative). work [n (n + 1)]. */
typedef struct am_qr_args {
    double *q, *work;
    int64_t n;
} am_qr_args;

/* ---- the vtable ------------------------------------------------------------------------ */

enum { AM_COPY_TO_DEVICE, AM_COPY_TO_HOST, AM_COPY_ON_DEVICE };
enum { AM_BACKEND_VERSION = 4 };

typedef struct am_backend {
    uint32_t size, version; /* sizeof(am_backend), AM_BACKEND_VERSION */
    const char *name;
    int is_host;                    /* device pointers may be read by the host */
    int (*probe)(const char **why); /* devices found; 0 with the reason */
    int (*use)(int ordinal);        /* the one that this process uses; NULL: there is one */
    const char *(*about)(void);     /* of the device in use, for people; or NULL */
    const char *(*built)(void);     /* what a module was built with and needs; or NULL */
    int (*memory)(size_t *left, size_t *total); /* the device's bytes; or NULL */
    int (*alloc)(void **p, size_t bytes);       /* 64-byte aligned at least */
    void (*release)(void *p, size_t bytes);     /* when kernels that still run have ended */
    /* kind: AM_COPY_*; done when it returns, but for what goes to the device: that is taken */
    int (*transfer)(am_stream *s, void *dst, const void *src, size_t bytes, int kind);
    int (*stream_new)(am_stream **s);
    void (*stream_release)(am_stream *s);
    int (*stream_sync)(am_stream *s); /* reports the first error of what ran behind */
    /* Graphs (api/graphs.h); NULL where there are none. After begin with `record` launches are
     * recorded instead of done; without, they are done, and end says of both in *unfit what can't
     * be recorded (a literal), or NULL. *graph is NULL after a rehearsal. In a run streams of
     * random numbers are `shift` on from those that were recorded. */
    int (*graph_begin)(am_stream *s, int record);
    int (*graph_end)(am_stream *s, void **graph, const char **unfit);
    int (*graph_run)(am_stream *s, void *graph, uint64_t shift);
    void (*graph_release)(am_stream *s, void *graph);
#define K(name, pointers) int (*name)(am_stream * s, const am_##name##_args *args); /* or NULL */
#include "kernels.def"
#undef K
} am_backend;

/* Backends that are linked in. */
extern const am_backend am_backend_ref, am_backend_fence;
const am_backend *am_backend_cpu(void);         /* picks kernels for this CPU on first use */
const char *am_backend_cpu_isa(void);           /* am_cpu_isa */
const char *am_backend_cpu_isa_available(void); /* AMLUA_ISA left aside */

/* A backend in a module, amlua_<name>.so, is what its am_backend_entry returns; NULL when it was
 * built for another host. It sees nothing of the engine but this. */
typedef struct am_backend_host {
    uint32_t size;                                      /* sizeof(am_backend_host) */
    int (*fail)(int code, const char *fmt, va_list ap); /* am_kernel_fail's work */
    /* The backend's own alloc, with the engine's cache emptied where there is no room. */
    int (*alloc)(void **p, size_t bytes);
} am_backend_host;
typedef const am_backend *(*am_backend_entry_fn)(const am_backend_host *host);
#pragma GCC visibility push(default)
const am_backend *am_backend_entry(const am_backend_host *host); /* a module's own */
#pragma GCC visibility pop

/* ---- what the engine offers kernels ----------------------------------------------------- */

/* Set the thread's error message and return the code; printf format. */
int am_kernel_fail(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Host scratch for one thread, reused by its next call with the same slot (0..5): at least `bytes`,
 * 64-byte aligned, NULL when out of memory. */
void *am_scratch(int slot, size_t bytes);
/* Team size for OpenMP: `#pragma omp parallel num_threads(am_threads())`. */

#ifdef __cplusplus
}
#endif

#endif
