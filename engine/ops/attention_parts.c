/* attention_parts.c — attention to keys that come in blocks: each on its own, and the results put
 * together by their log-sum-exps (Dao et al. 2022, Liu et al. 2023). No ops: what a rank has of the
 * keys changes between the calls, so nothing is recorded. */
#include "op_attention.h"

static int wide_of(int dtype)
{
    return dtype == AM_F64 ? AM_F64 : AM_F32;
}

/* A dense tensor of the given dtype and shape. */
static int check_dense(const char *what, const am_tensor *t, int dtype, int ndim,
                       const int64_t *shape)
{
    char has[96], needed[96];
    AM_TRY(am_tensor_check_given(t, what));
    AM_TRY(am_tensor_check_alive(t, what));
    bool same = t->ndim == ndim && t->dtype == dtype;
    for (int i = 0; same && i < ndim; i++)
        same = t->shape[i] == shape[i];
    if (!same || !am_tensor_is_contiguous(t))
        return am_fail(AM_ESHAPE, "attention in parts: %s is %s %s; a dense %s of %s is needed",
                       what, am_dtype_name(t->dtype), am_shape_text(has, t->ndim, t->shape),
                       am_dtype_name(dtype), am_shape_text(needed, ndim, shape));
    return AM_OK;
}

/* Check a block and make its operands ready for kernels: x becomes q, k, v, bounds, sinks. */
static int prepare(am_call *c, am_tensor *x[5])
{
    static const char *const names[] = {"q", "k", "v", "bounds", "sinks"};
    for (int i = 0; i < 5; i++) {
        if (c->in[i])
            AM_TRY(am_tensor_check_alive(c->in[i], names[i]));
        else if (i < 3)
            return am_fail(AM_EINVAL, "attention in parts: there is no %s", names[i]);
        if (c->in[i] && c->in[i]->device != c->device)
            return am_fail(AM_EINVAL, "attention in parts: %s is on another device than q",
                           names[i]);
        x[i] = c->in[i];
    }
    AM_TRY(am_attention_check(c));
    if (c->attrs.attention.dropout_p > 0)
        return am_fail(AM_EUNSUP, "attention in parts: there is no dropout");
    for (int i = 0; i < 3; i++)
        AM_TRY(am_attention_dense(&c->temps, &x[i], c->in[i]));
    if (c->in[3])
        AM_TRY(am_temp_dense(&c->temps, &x[3], c->in[3]));
    return c->in[4] ? am_attention_sinks(c, &x[4], wide_of(x[0]->dtype)) : AM_OK;
}

static void *pointer(am_tensor *t)
{
    return t ? am_tensor_ptr(t) : NULL;
}

/* Let go of what a call made, and note it in a profile as the op is. */
static int done(am_call *c, const am_span *span, int phase, int rc)
{
    am_temps_free(&c->temps);
    int64_t bytes = 0;
    for (int i = 0; i < 3 && rc == AM_OK; i++)
        bytes += am_tensor_bytes(c->in[i]);
    if (am_profiling && rc == AM_OK)
        am_span_end(span, "attention", phase, c->device, bytes);
    return rc;
}

static int add_block(am_call *c, am_tensor *out, am_tensor *lse)
{
    am_tensor *x[5], *block, *block_lse;
    AM_TRY(prepare(c, x));
    const int64_t *shape = x[0]->shape, stats[] = {shape[0], shape[2], shape[1]};
    int wide = wide_of(x[0]->dtype);
    AM_TRY(check_dense("out", out, wide, 4, shape));
    AM_TRY(check_dense("lse", lse, wide, 3, stats));
    if (am_tensor_numel(x[0]) == 0)
        return AM_OK;
    AM_TRY(am_temp_new(&c->temps, &block, x[0]->dtype, 4, shape, c->device));
    AM_TRY(am_temp_new(&c->temps, &block_lse, wide, 3, stats, c->device));
    AM_TRY(am_launch_attention(
        c->device, &(am_attention_args){.out = am_tensor_ptr(block),
                                        .lse = am_tensor_ptr(block_lse),
                                        .q = am_tensor_ptr(x[0]),
                                        .k = am_tensor_ptr(x[1]),
                                        .v = am_tensor_ptr(x[2]),
                                        .bounds = pointer(x[3]),
                                        .sinks = pointer(x[4]),
                                        .shape = am_attention_shape_of(&c->attrs.attention, x[0],
                                                                       x[1], x[2], 0, 0)}));
    return am_launch_attention_merge(
        c->device, &(am_attention_merge_args){.out = am_tensor_ptr(out),
                                              .lse = am_tensor_ptr(lse),
                                              .block = am_tensor_ptr(block),
                                              .block_lse = am_tensor_ptr(block_lse),
                                              .dtype = x[0]->dtype,
                                              .b = shape[0],
                                              .t = shape[1],
                                              .h = shape[2],
                                              .d = shape[3]});
}

int am_attention_add(am_tensor *out, am_tensor *lse, am_tensor *q, am_tensor *k, am_tensor *v,
                     am_tensor *bounds, am_tensor *sinks, const am_attention_attrs *at)
{
    am_tensor *in[] = {q, k, v, bounds, sinks};
    am_call c = {.op = AM_OP_attention, .n_in = 5, .device = q ? q->device : 0, .in = in};
    c.attrs.attention = *at;
    am_span span = am_span_begin();
    int rc = add_block(&c, out, lse);
    return done(&c, &span, AM_PHASE_FORWARD, rc);
}

static int add_grad(am_call *c, am_tensor *const d[3], am_tensor *dout, am_tensor *out,
                    am_tensor *lse)
{
    static const char *const names[] = {"dq", "dk", "dv"};
    am_tensor *x[5], *g[3], *delta;
    AM_TRY(prepare(c, x));
    int wide = wide_of(x[0]->dtype);
    const int64_t *shape = x[0]->shape, stats[] = {shape[0], shape[2], shape[1]};
    AM_TRY(check_dense("dout", dout, x[0]->dtype, 4, shape));
    AM_TRY(check_dense("out", out, x[0]->dtype, 4, shape));
    AM_TRY(check_dense("lse", lse, wide, 3, stats));
    for (int i = 0; i < 3; i++)
        AM_TRY(check_dense(names[i], d[i], wide, 4, x[i]->shape));
    if (am_tensor_numel(x[0]) == 0)
        return AM_OK;
    for (int i = 0; i < 3; i++)
        AM_TRY(am_temp_new(&c->temps, &g[i], x[0]->dtype, 4, x[i]->shape, c->device));
    AM_TRY(am_temp_new(&c->temps, &delta, wide, 3, stats, c->device));
    AM_TRY(am_launch_attention_bwd(
        c->device, &(am_attention_bwd_args){.dq = am_tensor_ptr(g[0]),
                                            .dk = am_tensor_ptr(g[1]),
                                            .dv = am_tensor_ptr(g[2]),
                                            .delta = am_tensor_ptr(delta),
                                            .dout = am_tensor_ptr(dout),
                                            .q = am_tensor_ptr(x[0]),
                                            .k = am_tensor_ptr(x[1]),
                                            .v = am_tensor_ptr(x[2]),
                                            .out = am_tensor_ptr(out),
                                            .lse = am_tensor_ptr(lse),
                                            .bounds = pointer(x[3]),
                                            .shape = am_attention_shape_of(
                                                &c->attrs.attention, x[0], x[1], x[2], 0, 0)}));
    for (int i = 0; i < 3; i++)
        AM_TRY(am_copy_kernel(d[i], g[i], 1));
    return AM_OK;
}

int am_attention_add_grad(am_tensor *dq, am_tensor *dk, am_tensor *dv, am_tensor *dout,
                          am_tensor *out, am_tensor *lse, am_tensor *q, am_tensor *k, am_tensor *v,
                          am_tensor *bounds, const am_attention_attrs *at)
{
    am_tensor *in[] = {q, k, v, bounds, NULL}, *d[] = {dq, dk, dv};
    am_call c = {.op = AM_OP_attention, .n_in = 5, .device = q ? q->device : 0, .in = in};
    c.attrs.attention = *at;
    am_span span = am_span_begin();
    int rc = add_grad(&c, d, dout, out, lse);
    return done(&c, &span, AM_PHASE_BACKWARD, rc);
}
