/* op_grouped.c — grouped_linear: rows sorted by expert, each expert with a weight of its own. Which
 * rows belong to whom is in offsets on the device: the kernel checks them. */
#include "op.h"

/* With e the expert of a row: y = x W_e^T + b_e; dx = dy W_e; dW_e = dy_e^T x_e and db_e = sum of
 * dy_e over its rows, 0 for an expert that has none. W is [E, M, K], or [E, K, M] when transposed.
 */

static int check(am_call *c)
{
    char ta[96], tb[96];
    am_tensor *x = c->in[0], *w = c->in[1], *offsets = c->in[2];
    int turned = c->attrs.grouped.transposed != 0;
    AM_TRY(am_check_float(c, 0));
    AM_TRY(am_check_same_dtype(c, 0, 1));
    if (x->ndim != 2 || w->ndim != 3 || w->shape[turned ? 1 : 2] != x->shape[1])
        return am_fail(AM_ESHAPE, "grouped_linear: x %s and weight %s; needed are [N,K] and %s",
                       am_shape_text(ta, x->ndim, x->shape), am_shape_text(tb, w->ndim, w->shape),
                       turned ? "[E,K,M], transposed" : "[E,M,K]");
    if (offsets->dtype != AM_I32 || offsets->ndim != 1 || offsets->shape[0] != w->shape[0] + 1)
        return am_fail(AM_ESHAPE, "grouped_linear: offsets must be int32 [E+1], not %s %s",
                       am_dtype_name(offsets->dtype),
                       am_shape_text(ta, offsets->ndim, offsets->shape));
    if (x->shape[0] > INT32_MAX)
        return am_fail(AM_ESHAPE, "grouped_linear: %lld rows are more than offsets can hold",
                       (long long)x->shape[0]);
    if (c->n_in > 3 && c->in[3]) {
        am_tensor *bias = c->in[3];
        AM_TRY(am_check_same_dtype(c, 0, 3));
        if (bias->ndim != 2 || bias->shape[0] != w->shape[0] ||
            bias->shape[1] != w->shape[turned ? 2 : 1])
            return am_fail(AM_ESHAPE, "grouped_linear: weight %s and bias %s; needed is [E,M]",
                           am_shape_text(ta, w->ndim, w->shape),
                           am_shape_text(tb, bias->ndim, bias->shape));
    }
    return AM_OK;
}

/* c [rows, n] (+)= a [rows, k] op(w_e) + bias_e */
static int product(am_tensor *c, am_tensor *a, am_tensor *w, bool trans, am_tensor *bias,
                   am_tensor *offsets, int accumulate)
{
    if (am_tensor_numel(c) == 0)
        return AM_OK;
    return am_launch_grouped_gemm(c->device,
                                  &(am_grouped_gemm_args){.c = am_tensor_ptr(c),
                                                          .a = am_tensor_ptr(a),
                                                          .b = am_tensor_ptr(w),
                                                          .bias = bias ? am_tensor_ptr(bias) : NULL,
                                                          .offsets = am_tensor_ptr(offsets),
                                                          .dtype_ab = a->dtype,
                                                          .dtype_c = c->dtype,
                                                          .trans_b = trans,
                                                          .accumulate = accumulate,
                                                          .groups = w->shape[0],
                                                          .rows = a->shape[0],
                                                          .n = c->shape[1],
                                                          .k = a->shape[1]});
}

static int grouped_linear_forward(am_call *c)
{
    am_tensor *x, *w, *offsets, *bias = NULL;
    int turned = c->attrs.grouped.transposed != 0;
    AM_TRY(check(c));
    AM_TRY(am_temp_dense(&c->temps, &x, c->in[0]));
    AM_TRY(am_temp_dense(&c->temps, &w, c->in[1]));
    AM_TRY(am_temp_dense(&c->temps, &offsets, c->in[2]));
    if (c->n_in > 3 && c->in[3])
        AM_TRY(am_temp_dense(&c->temps, &bias, c->in[3]));
    int64_t shape[] = {x->shape[0], w->shape[turned ? 2 : 1]};
    AM_TRY(am_out(c, x->dtype, 2, shape));
    AM_TRY(product(c->out[0], x, w, !turned, bias, offsets, 0));
    if (c->needs[1])
        AM_TRY(am_save(c, 0, x));
    AM_TRY(am_save(c, 1, w));
    return am_save(c, 2, offsets);
}

static int grouped_linear_backward(am_bwd *b)
{
    am_tensor *x = b->saved[0], *w = b->saved[1], *offsets = b->saved[2];
    int turned = b->attrs->grouped.transposed != 0;
    bool has_bias = b->n_in > 3 && b->needs[3];
    am_grad g = {0}, gw = {0}, gb = {0};
    if (b->needs[0]) {
        AM_TRY(am_grad_begin(b, 0, true, &g));
        AM_TRY(product(g.t, b->dout, w, turned, NULL, offsets, g.accumulate));
        AM_TRY(am_grad_end(b, 0, &g));
    }
    if (!b->needs[1] && !has_bias)
        return AM_OK;
    if (b->needs[1])
        AM_TRY(am_grad_begin(b, 1, true, &gw));
    if (has_bias)
        AM_TRY(am_grad_begin(b, 3, true, &gb));
    if (am_tensor_numel(w) > 0)
        AM_TRY(am_launch_grouped_gemm_dw(
            b->device, &(am_grouped_gemm_dw_args){.dw = gw.t ? am_tensor_ptr(gw.t) : NULL,
                                                  .dbias = gb.t ? am_tensor_ptr(gb.t) : NULL,
                                                  .dout = am_tensor_ptr(b->dout),
                                                  .x = x ? am_tensor_ptr(x) : NULL,
                                                  .offsets = am_tensor_ptr(offsets),
                                                  .dtype = b->dout->dtype,
                                                  .dtype_dw = gw.t ? gw.t->dtype : w->dtype,
                                                  .dtype_db = gb.t ? gb.t->dtype : w->dtype,
                                                  .turned = turned,
                                                  .accumulate_dw = gw.accumulate,
                                                  .accumulate_db = gb.accumulate,
                                                  .groups = w->shape[0],
                                                  .rows = b->dout->shape[0],
                                                  .n = w->shape[turned ? 2 : 1],
                                                  .k = w->shape[turned ? 1 : 2]}));
    if (b->needs[1])
        AM_TRY(am_grad_end(b, 1, &gw));
    return has_bias ? am_grad_end(b, 3, &gb) : AM_OK;
}

AM_OP(grouped_linear, .forward = grouped_linear_forward, .backward = grouped_linear_backward,
      .kernels = {AM_KERNEL(grouped_gemm), AM_KERNEL(grouped_gemm_dw)});
