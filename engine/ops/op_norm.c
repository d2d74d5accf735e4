/* op_norm.c — RMSNorm and LayerNorm. */
#include "op.h"

/* ---- rms_norm: y = x r w, r = 1/sqrt(mean x^2 + eps) (Zhang & Sennrich 2019) --------------
 * w is offset + weight, added in f32. With g = dy w:  dx = r (g - x r^2 mean(g x));  dw = sum over
 * rows of dy x r. */

/* rstd may be NULL */
static int run_rms_norm(am_tensor *out, am_tensor *rstd, const am_tensor *x, const am_tensor *w,
                        const am_attrs *at)
{
    if (am_tensor_numel(x) == 0)
        return AM_OK;
    return am_launch_rms_norm(x->device,
                              &(am_rms_norm_args){.out = am_tensor_ptr(out),
                                                  .rstd = rstd ? am_tensor_ptr(rstd) : NULL,
                                                  .x = am_tensor_ptr(x),
                                                  .weight = am_tensor_ptr(w),
                                                  .dtype = x->dtype,
                                                  .eps = at->norm.eps,
                                                  .offset = at->norm.offset,
                                                  .rows = am_shape_numel(x->ndim - 1, x->shape),
                                                  .c = w->shape[0]});
}

static int rms_norm_recompute(const am_bwd *b, am_tensor *out)
{
    return run_rms_norm(out, NULL, b->saved[0], b->saved[1], b->attrs);
}

static int rms_norm_forward(am_call *c)
{
    char ta[96], tb[96];
    am_tensor *x, *w, *rstd = NULL;
    AM_TRY(am_check_float(c, 0));
    AM_TRY(am_check_same_dtype(c, 0, 1));
    x = c->in[0];
    w = c->in[1];
    if (x->ndim < 1 || w->ndim != 1 || x->shape[x->ndim - 1] != w->shape[0])
        return am_fail(AM_ESHAPE, "rms_norm: x %s and weight %s",
                       am_shape_text(ta, x->ndim, x->shape), am_shape_text(tb, w->ndim, w->shape));
    AM_TRY(am_temp_dense(&c->temps, &x, x));
    AM_TRY(am_temp_dense(&c->temps, &w, w));
    AM_TRY(am_out(c, x->dtype, x->ndim, x->shape));
    int64_t rows = am_shape_numel(x->ndim - 1, x->shape);
    if (c->record)
        AM_TRY(am_temp_new(&c->temps, &rstd, x->dtype == AM_F64 ? AM_F64 : AM_F32, 1, &rows,
                           c->device));
    AM_TRY(run_rms_norm(c->out[0], rstd, x, w, &c->attrs));
    AM_TRY(am_save(c, 0, x));
    AM_TRY(am_save(c, 1, w));
    return am_save(c, 2, rstd);
}

static int rms_norm_backward(am_bwd *b)
{
    am_tensor *x = b->saved[0], *w = b->saved[1];
    am_grad gx = {0}, gw = {0};
    if (b->needs[0])
        AM_TRY(am_grad_begin(b, 0, x->dtype == AM_F32 || x->dtype == AM_F64, &gx));
    if (b->needs[1])
        AM_TRY(am_grad_begin(b, 1, true, &gw));
    if (am_tensor_numel(x) > 0)
        AM_TRY(am_launch_rms_norm_bwd(
            b->device, &(am_rms_norm_bwd_args){.dx = gx.t ? am_tensor_ptr(gx.t) : NULL,
                                               .dweight = gw.t ? am_tensor_ptr(gw.t) : NULL,
                                               .dout = am_tensor_ptr(b->dout),
                                               .x = am_tensor_ptr(x),
                                               .weight = am_tensor_ptr(w),
                                               .rstd = am_tensor_ptr(b->saved[2]),
                                               .dtype = x->dtype,
                                               .dtype_dw = gw.t ? gw.t->dtype : x->dtype,
                                               .accumulate_dx = gx.accumulate,
                                               .accumulate_dw = gw.accumulate,
                                               .offset = b->attrs->norm.offset,
                                               .rows = am_shape_numel(x->ndim - 1, x->shape),
                                               .c = w->shape[0]}));
    else if (gw.t && !gw.accumulate)
        AM_TRY(am_tensor_fill(gw.t, 0)); /* no rows */
    if (b->needs[0])
        AM_TRY(am_grad_end(b, 0, &gx));
    return b->needs[1] ? am_grad_end(b, 1, &gw) : AM_OK;
}

AM_OP(rms_norm, .forward = rms_norm_forward, .backward = rms_norm_backward,
      .recompute = rms_norm_recompute, .kernels = {AM_KERNEL(rms_norm), AM_KERNEL(rms_norm_bwd)});

/* ---- layer_norm: y = n w + b, n = (x - mean) r, r = 1/sqrt(var + eps) (Ba et al. 2016) ------
 * w is offset + weight, added in f32, or 1. With g = dy w: dx = r (g - mean(g) - n mean(g n));
 * dw = sum over rows of dy n, db = sum of dy. */

static void *ptr_or_null(const am_tensor *t)
{
    return t ? am_tensor_ptr(t) : NULL;
}

/* stats, weight and bias may be NULL */
static int run_layer_norm(am_tensor *out, const am_tensor *stats, const am_tensor *x,
                          const am_tensor *w, const am_tensor *bias, const am_attrs *at)
{
    if (am_tensor_numel(x) == 0)
        return AM_OK;
    return am_launch_layer_norm(x->device,
                                &(am_layer_norm_args){.out = am_tensor_ptr(out),
                                                      .stats = ptr_or_null(stats),
                                                      .x = am_tensor_ptr(x),
                                                      .weight = ptr_or_null(w),
                                                      .bias = ptr_or_null(bias),
                                                      .dtype = x->dtype,
                                                      .eps = at->norm.eps,
                                                      .offset = at->norm.offset,
                                                      .rows = am_shape_numel(x->ndim - 1, x->shape),
                                                      .c = x->shape[x->ndim - 1]});
}

static int layer_norm_recompute(const am_bwd *b, am_tensor *out)
{
    return run_layer_norm(out, NULL, b->saved[0], b->saved[1], b->saved[3], b->attrs);
}

static int layer_norm_forward(am_call *c)
{
    char ta[96], tb[96];
    am_tensor *x = c->in[0], *given[2] = {NULL}, *stats = NULL; /* weight, bias */
    AM_TRY(am_check_float(c, 0));
    if (x->ndim < 1)
        return am_fail(AM_ESHAPE, "layer_norm: x has no dims");
    for (int i = 1; i < c->n_in; i++) {
        am_tensor *t = c->in[i];
        if (!t)
            continue;
        AM_TRY(am_check_same_dtype(c, 0, i));
        if (t->ndim != 1 || t->shape[0] != x->shape[x->ndim - 1])
            return am_fail(AM_ESHAPE, "layer_norm: x %s and %s %s",
                           am_shape_text(ta, x->ndim, x->shape), i == 1 ? "weight" : "bias",
                           am_shape_text(tb, t->ndim, t->shape));
        AM_TRY(am_temp_dense(&c->temps, &given[i - 1], t));
    }
    AM_TRY(am_temp_dense(&c->temps, &x, x));
    AM_TRY(am_out(c, x->dtype, x->ndim, x->shape));
    int64_t shape[] = {2, am_shape_numel(x->ndim - 1, x->shape)};
    if (c->record)
        AM_TRY(am_temp_new(&c->temps, &stats, x->dtype == AM_F64 ? AM_F64 : AM_F32, 2, shape,
                           c->device));
    AM_TRY(run_layer_norm(c->out[0], stats, x, given[0], given[1], &c->attrs));
    AM_TRY(am_save(c, 0, x));
    AM_TRY(am_save(c, 1, given[0]));
    AM_TRY(am_save(c, 2, stats));
    return am_save(c, 3, given[1]);
}

static int layer_norm_backward(am_bwd *b)
{
    am_tensor *x = b->saved[0], *w = b->saved[1];
    am_grad g[3] = {{0}}; /* of x, weight and bias */
    for (int i = 0; i < 3; i++)
        if (b->needs[i])
            AM_TRY(am_grad_begin(b, i, i > 0 || x->dtype == AM_F32 || x->dtype == AM_F64, &g[i]));
    if (am_tensor_numel(x) > 0)
        AM_TRY(am_launch_layer_norm_bwd(
            b->device, &(am_layer_norm_bwd_args){.dx = ptr_or_null(g[0].t),
                                                 .dweight = ptr_or_null(g[1].t),
                                                 .dbias = ptr_or_null(g[2].t),
                                                 .dout = am_tensor_ptr(b->dout),
                                                 .x = am_tensor_ptr(x),
                                                 .weight = ptr_or_null(w),
                                                 .stats = am_tensor_ptr(b->saved[2]),
                                                 .dtype = x->dtype,
                                                 .dtype_dw = g[1].t ? g[1].t->dtype : x->dtype,
                                                 .dtype_db = g[2].t ? g[2].t->dtype : x->dtype,
                                                 .accumulate_dx = g[0].accumulate,
                                                 .accumulate_dw = g[1].accumulate,
                                                 .accumulate_db = g[2].accumulate,
                                                 .offset = b->attrs->norm.offset,
                                                 .rows = am_shape_numel(x->ndim - 1, x->shape),
                                                 .c = x->shape[x->ndim - 1]}));
    for (int i = 1; i < 3 && am_tensor_numel(x) == 0; i++)
        if (g[i].t && !g[i].accumulate)
            AM_TRY(am_tensor_fill(g[i].t, 0)); /* no rows */
    for (int i = 0; i < 3; i++)
        if (b->needs[i])
            AM_TRY(am_grad_end(b, i, &g[i]));
    return AM_OK;
}

AM_OP(layer_norm, .forward = layer_norm_forward, .backward = layer_norm_backward,
      .recompute = layer_norm_recompute,
      .kernels = {AM_KERNEL(layer_norm), AM_KERNEL(layer_norm_bwd)});
