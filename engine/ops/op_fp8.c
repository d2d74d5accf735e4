/* op_fp8.c — fp8_linear: a map whose three products are in 8 bits, with scales from the numbers at
 * hand. What a recipe scales how is here; casts and products are the backend's, which may have
 * hardware for them (kernels fp8_quantize and fp8_gemm). */
#include "op.h"

/* With q(.) a cast and its inverse: y = q(x) q(W)^T; dx = q(dy) q(W); dW = q(dy)^T q(x). As torchao
 * has them, operands are cast anew in backward, from x and W as they were:
 *                tensorwise      rowwise                      rowwise_with_gw_hp
 *   y            e4m3, e4m3      x by row, W by row           as rowwise
 *   dx           e5m2, e4m3      dy by row, W by column       dy by row, W by tensor
 *   dW           e5m2, e4m3      dy by column, x by column    not cast
 * The last two have e4m3 throughout, and powers of two. */

/* A matrix in 8 bits. */
typedef struct quantized {
    am_tensor *q, *inverse;
    int format, per;
} quantized;

static int quantize(am_temps *temps, quantized *out, am_tensor *a, int64_t rows, int format,
                    int per, int power_of_2)
{
    int64_t cols = a->shape[a->ndim - 1];
    int64_t shape[] = {rows, cols};
    int64_t scales = per == AM_FP8_PER_TENSOR ? 1 : per == AM_FP8_PER_ROW ? rows : cols;
    out->format = format;
    out->per = per;
    AM_TRY(am_temp_new(temps, &out->q, AM_U8, 2, shape, a->device));
    AM_TRY(am_temp_new(temps, &out->inverse, AM_F32, 1, &scales, a->device));
    return am_launch_fp8_quantize(a->device,
                                  &(am_fp8_quantize_args){.q = am_tensor_ptr(out->q),
                                                          .inverse = am_tensor_ptr(out->inverse),
                                                          .a = am_tensor_ptr(a),
                                                          .dtype = a->dtype,
                                                          .format = format,
                                                          .per = per,
                                                          .power_of_2 = power_of_2,
                                                          .rows = rows,
                                                          .cols = cols});
}

/* c [m, n] (+)= op(a) op(b) */
static int multiply(am_tensor *c, const quantized *a, bool ta, const quantized *b, bool tb,
                    int64_t m, int64_t n, int64_t k, int accumulate)
{
    return am_launch_fp8_gemm(c->device,
                              &(am_fp8_gemm_args){.c = am_tensor_ptr(c),
                                                  .a = am_tensor_ptr(a->q),
                                                  .b = am_tensor_ptr(b->q),
                                                  .inverse_a = am_tensor_ptr(a->inverse),
                                                  .inverse_b = am_tensor_ptr(b->inverse),
                                                  .format_a = a->format,
                                                  .format_b = b->format,
                                                  .rows_a = a->per != AM_FP8_PER_TENSOR,
                                                  .columns_b = b->per != AM_FP8_PER_TENSOR,
                                                  .dtype_c = c->dtype,
                                                  .trans_a = ta,
                                                  .trans_b = tb,
                                                  .accumulate = accumulate,
                                                  .m = m,
                                                  .n = n,
                                                  .k = k});
}

static int check(const am_call *c)
{
    char tx[96], tw[96];
    am_tensor *x = c->in[0], *w = c->in[1];
    AM_TRY(am_check_float(c, 0));
    AM_TRY(am_check_same_dtype(c, 0, 1));
    if (x->ndim < 1 || w->ndim != 2 || x->shape[x->ndim - 1] != w->shape[1])
        return am_fail(AM_ESHAPE, "fp8_linear: %s x %s: x's last dim must be the weight's second",
                       am_shape_text(tx, x->ndim, x->shape), am_shape_text(tw, 2, w->shape));
    if (c->attrs.fp8.recipe < 0 || c->attrs.fp8.recipe >= AM_FP8_RECIPE_COUNT)
        return am_fail(AM_EINVAL, "fp8_linear: there is no recipe %d", (int)c->attrs.fp8.recipe);
    return AM_OK;
}

static int fp8_linear_forward(am_call *c)
{
    quantized xq, wq;
    int64_t shape[AM_MAX_DIMS];
    AM_TRY(check(c));
    am_tensor *x, *w;
    AM_TRY(am_temp_dense(&c->temps, &x, c->in[0]));
    AM_TRY(am_temp_dense(&c->temps, &w, c->in[1]));
    int64_t n = w->shape[0], k = w->shape[1], rows = am_rows_of(x);
    int by_row = c->attrs.fp8.recipe != AM_FP8_TENSORWISE;
    int per = by_row ? AM_FP8_PER_ROW : AM_FP8_PER_TENSOR;
    memcpy(shape, x->shape, sizeof shape);
    shape[x->ndim - 1] = n;
    AM_TRY(am_out(c, x->dtype, x->ndim, shape));
    AM_TRY(am_save(c, 0, x));
    AM_TRY(am_save(c, 1, w));
    AM_TRY(quantize(&c->temps, &xq, x, rows, AM_FP8_E4M3, per, by_row));
    AM_TRY(quantize(&c->temps, &wq, w, n, AM_FP8_E4M3, per, by_row));
    return multiply(c->out[0], &xq, false, &wq, true, rows, n, k, 0);
}

/* dx (+)= q(dy) q(W) */
static int backward_x(am_bwd *b, am_tensor *w, const quantized *dy, int64_t rows)
{
    am_grad g;
    quantized wq;
    int recipe = b->attrs->fp8.recipe;
    AM_TRY(quantize(&b->temps, &wq, w, w->shape[0], AM_FP8_E4M3,
                    recipe == AM_FP8_ROWWISE ? AM_FP8_PER_COLUMN : AM_FP8_PER_TENSOR,
                    recipe != AM_FP8_TENSORWISE));
    AM_TRY(am_grad_begin(b, 0, true, &g));
    AM_TRY(multiply(g.t, dy, false, &wq, false, rows, w->shape[1], w->shape[0], g.accumulate));
    return am_grad_end(b, 0, &g);
}

/* dW (+)= q(dy)^T q(x), dy as dx has it where that has one scale. */
static int backward_w(am_bwd *b, am_tensor *x, quantized *dy, int64_t rows, int64_t n, int64_t k)
{
    am_grad g;
    quantized xq;
    int recipe = b->attrs->fp8.recipe;
    if (recipe == AM_FP8_ROWWISE_WITH_GW_HP) {
        AM_TRY(am_grad_begin(b, 1, true, &g));
        AM_TRY(am_launch_gemm(g.t->device, &(am_gemm_args){.c = am_tensor_ptr(g.t),
                                                           .a = am_tensor_ptr(b->dout),
                                                           .b = am_tensor_ptr(x),
                                                           .dtype_ab = x->dtype,
                                                           .dtype_c = g.t->dtype,
                                                           .trans_a = 1,
                                                           .accumulate = g.accumulate,
                                                           .alpha = 1,
                                                           .m = n,
                                                           .n = k,
                                                           .k = rows,
                                                           .lda = n,
                                                           .ldb = k,
                                                           .ldc = k,
                                                           .batch = 1}));
        return am_grad_end(b, 1, &g);
    }
    int by_column = recipe == AM_FP8_ROWWISE;
    int per = by_column ? AM_FP8_PER_COLUMN : AM_FP8_PER_TENSOR;
    if (by_column)
        AM_TRY(quantize(&b->temps, dy, b->dout, rows, AM_FP8_E4M3, per, 1));
    AM_TRY(quantize(&b->temps, &xq, x, rows, AM_FP8_E4M3, per, by_column));
    AM_TRY(am_grad_begin(b, 1, true, &g));
    AM_TRY(multiply(g.t, dy, true, &xq, false, n, k, rows, g.accumulate));
    return am_grad_end(b, 1, &g);
}

static int fp8_linear_backward(am_bwd *b)
{
    am_tensor *x = b->saved[0], *w = b->saved[1];
    int64_t n = w->shape[0], k = w->shape[1], rows = am_rows_of(x);
    int tensorwise = b->attrs->fp8.recipe == AM_FP8_TENSORWISE;
    quantized dy;
    if (tensorwise)
        AM_TRY(quantize(&b->temps, &dy, b->dout, rows, AM_FP8_E5M2, AM_FP8_PER_TENSOR, 0));
    else if (b->needs[0])
        AM_TRY(quantize(&b->temps, &dy, b->dout, rows, AM_FP8_E4M3, AM_FP8_PER_ROW, 1));
    if (b->needs[0])
        AM_TRY(backward_x(b, w, &dy, rows));
    return b->needs[1] ? backward_w(b, x, &dy, rows, n, k) : AM_OK;
}

AM_OP(fp8_linear, .forward = fp8_linear_forward, .backward = fp8_linear_backward,
      .kernels = {AM_KERNEL(fp8_quantize), AM_KERNEL(fp8_gemm), AM_KERNEL(gemm)});
