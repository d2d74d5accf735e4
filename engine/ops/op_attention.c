/* op_attention.c — scaled dot-product attention over key ranges, without the T x S matrix
 * (Dao et al. 2022). The mask's meaning is in backend.h beside am_attention_args. */
#include "op_attention.h"

#include <math.h>

#include "../core/rng_state.h"

int am_attention_check(am_call *c)
{
    char tq[96], tk[96], tv[96];
    am_tensor *q = c->in[0], *k = c->in[1], *v = c->in[2];
    const am_attention_attrs *at = &c->attrs.attention;
    AM_TRY(am_check_float(c, 0));
    AM_TRY(am_check_same_dtype(c, 0, 1));
    AM_TRY(am_check_same_dtype(c, 0, 2));
    if (q->ndim != 4 || k->ndim != 4 || !am_shape_equal(k, v) || q->shape[0] != k->shape[0] ||
        q->shape[3] != k->shape[3] || k->shape[2] < 1 || q->shape[2] % k->shape[2] != 0)
        return am_fail(AM_ESHAPE,
                       "attention: q %s, k %s, v %s; needed are [B,T,H,D], [B,S,K,D] twice, with H "
                       "a multiple of K",
                       am_shape_text(tq, q->ndim, q->shape), am_shape_text(tk, k->ndim, k->shape),
                       am_shape_text(tv, v->ndim, v->shape));
    if (at->samples < 0)
        return am_fail(AM_EINVAL, "attention: %d samples", at->samples);
    if (!(at->dropout_p >= 0 && at->dropout_p < 1) || at->window < 0 || at->softcap < 0)
        return am_fail(AM_EINVAL, "attention: dropout %g, window %d or softcap %g is out of range",
                       at->dropout_p, at->window, at->softcap);
    if (c->n_in > 3 && c->in[3]) {
        am_tensor *m = c->in[3];
        if (m->dtype != AM_I32 || m->ndim != 3 || m->shape[0] != q->shape[0] ||
            m->shape[1] != q->shape[1] || m->shape[2] != 2)
            return am_fail(AM_ESHAPE, "attention: bounds must be int32 [B,T,2], not %s",
                           am_shape_text(tq, m->ndim, m->shape));
    }
    if (c->n_in > 4 && c->in[4]) {
        am_tensor *m = c->in[4];
        if (m->dtype != q->dtype && m->dtype != AM_F32)
            return am_fail(AM_EINVAL, "attention: sinks are %s; %s or float32 is needed",
                           am_dtype_name(m->dtype), am_dtype_name(q->dtype));
        if (m->ndim != 1 || m->shape[0] != q->shape[2])
            return am_fail(AM_ESHAPE, "attention: sinks %s for q %s; [H] is needed",
                           am_shape_text(tk, m->ndim, m->shape),
                           am_shape_text(tq, q->ndim, q->shape));
    }
    return AM_OK;
}

int am_attention_dense(am_temps *temps, am_tensor **out, am_tensor *t)
{
    if (t->stride[3] == 1 || t->shape[3] == 1) {
        *out = t;
        return AM_OK;
    }
    return am_temp_dense(temps, out, t);
}

int am_attention_sinks(am_call *c, am_tensor **out, int dtype)
{
    am_tensor *sinks = c->in[4];
    if (sinks->dtype == dtype)
        return am_temp_dense(&c->temps, out, sinks);
    AM_TRY(am_temp_new(&c->temps, out, dtype, 1, sinks->shape, c->device));
    return am_copy_kernel(*out, sinks, 0);
}

am_attention_shape am_attention_shape_of(const am_attention_attrs *at, const am_tensor *q,
                                         const am_tensor *k, const am_tensor *v, uint64_t seed,
                                         uint64_t stream)
{
    return (am_attention_shape){.dtype = q->dtype,
                                .causal = at->causal != 0,
                                .window = at->window,
                                .library = at->library,
                                .samples = at->samples,
                                .b = q->shape[0],
                                .t = q->shape[1],
                                .s = k->shape[1],
                                .h = q->shape[2],
                                .kh = k->shape[2],
                                .d = q->shape[3],
                                .q_batch = q->stride[0],
                                .q_token = q->stride[1],
                                .q_head = q->stride[2],
                                .k_batch = k->stride[0],
                                .k_token = k->stride[1],
                                .k_head = k->stride[2],
                                .v_batch = v->stride[0],
                                .v_token = v->stride[1],
                                .v_head = v->stride[2],
                                .scale = at->scale != 0 ? at->scale : 1 / sqrt((double)q->shape[3]),
                                .softcap = at->softcap,
                                .dropout_p = at->dropout_p,
                                .seed = seed,
                                .stream = stream};
}

static int attention_forward(am_call *c)
{
    am_tensor *q, *k, *v, *bounds = NULL, *sinks = NULL, *lse;
    AM_TRY(am_attention_check(c));
    AM_TRY(am_attention_dense(&c->temps, &q, c->in[0]));
    AM_TRY(am_attention_dense(&c->temps, &k, c->in[1]));
    AM_TRY(am_attention_dense(&c->temps, &v, c->in[2]));
    if (c->n_in > 3 && c->in[3])
        AM_TRY(am_temp_dense(&c->temps, &bounds, c->in[3]));
    if (c->attrs.attention.dropout_p > 0)
        am_rng_next(&c->rng_seed, &c->rng_stream);
    int64_t lse_shape[] = {q->shape[0], q->shape[2], q->shape[1]};
    int stat = q->dtype == AM_F64 ? AM_F64 : AM_F32;
    AM_TRY(am_temp_new(&c->temps, &lse, stat, 3, lse_shape, c->device));
    if (c->n_in > 4 && c->in[4])
        AM_TRY(am_attention_sinks(c, &sinks, stat));
    AM_TRY(am_out(c, q->dtype, 4, q->shape));
    if (am_tensor_numel(q) > 0)
        AM_TRY(am_launch_attention(
            c->device,
            &(am_attention_args){.out = am_tensor_ptr(c->out[0]),
                                 .lse = am_tensor_ptr(lse),
                                 .q = am_tensor_ptr(q),
                                 .k = am_tensor_ptr(k),
                                 .v = am_tensor_ptr(v),
                                 .bounds = bounds ? am_tensor_ptr(bounds) : NULL,
                                 .sinks = sinks ? am_tensor_ptr(sinks) : NULL,
                                 .shape = am_attention_shape_of(&c->attrs.attention, q, k, v,
                                                                c->rng_seed, c->rng_stream)}));
    am_tensor *saved[AM_OP_SAVED] = {q, k, v, c->out[0], lse, bounds, sinks};
    for (int i = 0; i < AM_OP_SAVED; i++)
        AM_TRY(am_save(c, i, saved[i]));
    return AM_OK;
}

/* out = f(a, b) of one dtype, broadcast; unary where b is NULL. */
static int elementwise(int op, am_tensor *out, am_tensor *x, am_tensor *y)
{
    am_tensor *operands[] = {out, x, y};
    am_nd nd;
    AM_TRY(am_nd_make(&nd, out->ndim, out->shape, y ? 3 : 2, operands));
    if (!y)
        return am_launch_unary(out->device, &(am_unary_args){.out = am_tensor_ptr(out),
                                                             .a = am_tensor_ptr(x),
                                                             .op = op,
                                                             .dtype = out->dtype,
                                                             .nd = nd});
    return am_launch_binary(out->device, &(am_binary_args){.out = am_tensor_ptr(out),
                                                           .a = am_tensor_ptr(x),
                                                           .b = am_tensor_ptr(y),
                                                           .op = op,
                                                           .dtype = out->dtype,
                                                           .nd = nd});
}

static int sum(am_tensor *out, am_tensor *a, double scale, int64_t outer, int64_t n, int64_t inner)
{
    return am_launch_reduce(out->device, &(am_reduce_args){.out = am_tensor_ptr(out),
                                                           .a = am_tensor_ptr(a),
                                                           .op = AM_R_SUM,
                                                           .dtype = a->dtype,
                                                           .dtype_out = out->dtype,
                                                           .scale = scale,
                                                           .outer = outer,
                                                           .n = n,
                                                           .inner = inner});
}

/* A sink's share p of a row takes from all else: d sink = -sum of p delta over its head's rows. */
static int sinks_backward(am_bwd *b, am_tensor *sinks, am_tensor *lse, am_tensor *delta)
{
    int64_t batch = lse->shape[0], heads = lse->shape[1], t = lse->shape[2];
    am_tensor *column, *p[3], *rows, *d;
    am_grad g;
    AM_TRY(am_temp_new(&b->temps, &d, lse->dtype, 1, sinks->shape, b->device));
    AM_TRY(am_temp_new(&b->temps, &rows, lse->dtype, 2, lse->shape, b->device));
    for (int i = 0; i < 3; i++)
        AM_TRY(am_temp_new(&b->temps, &p[i], lse->dtype, 3, lse->shape, b->device));
    AM_TRY(am_tensor_view(&column, sinks, 2, (int64_t[]){heads, 1}, (int64_t[]){1, 1}, 0));
    int rc = elementwise(AM_B_SUB, p[0], column, lse);
    am_tensor_release(column);
    AM_TRY(rc);
    AM_TRY(elementwise(AM_U_EXP, p[1], p[0], NULL));
    AM_TRY(elementwise(AM_B_MUL, p[2], p[1], delta));
    AM_TRY(sum(rows, p[2], 1, batch * heads, t, 1));
    AM_TRY(sum(d, rows, -1, 1, batch, heads));
    AM_TRY(am_grad_begin(b, 4, true, &g));
    AM_TRY(am_copy_kernel(g.t, d, g.accumulate));
    return am_grad_end(b, 4, &g);
}

/* No queries: gradients of zero. */
static int nothing_backward(am_bwd *b)
{
    for (int i = 0; i < b->n_in; i++) {
        am_grad g;
        if (!b->needs[i])
            continue;
        AM_TRY(am_grad_begin(b, i, true, &g));
        if (!g.accumulate)
            AM_TRY(am_tensor_fill(g.t, 0));
        AM_TRY(am_grad_end(b, i, &g));
    }
    return AM_OK;
}

static int attention_backward(am_bwd *b)
{
    am_tensor *const *s = b->saved;
    am_tensor *q = s[0], *k = s[1], *v = s[2], *delta, *d[3];
    if (am_tensor_numel(q) == 0)
        return nothing_backward(b);
    AM_TRY(am_temp_new(&b->temps, &delta, s[4]->dtype, 3, s[4]->shape, b->device));
    for (int i = 0; i < 3; i++)
        AM_TRY(am_temp_new(&b->temps, &d[i], s[i]->dtype, 4, s[i]->shape, b->device));
    AM_TRY(am_launch_attention_bwd(
        b->device,
        &(am_attention_bwd_args){.dq = am_tensor_ptr(d[0]),
                                 .dk = am_tensor_ptr(d[1]),
                                 .dv = am_tensor_ptr(d[2]),
                                 .delta = am_tensor_ptr(delta),
                                 .dout = am_tensor_ptr(b->dout),
                                 .q = am_tensor_ptr(q),
                                 .k = am_tensor_ptr(k),
                                 .v = am_tensor_ptr(v),
                                 .out = am_tensor_ptr(s[3]),
                                 .lse = am_tensor_ptr(s[4]),
                                 .bounds = s[5] ? am_tensor_ptr(s[5]) : NULL,
                                 .shape = am_attention_shape_of(&b->attrs->attention, q, k, v,
                                                                b->rng_seed, b->rng_stream)}));
    for (int i = 0; i < 3; i++)
        if (b->needs[i])
            AM_TRY(am_grad_give(b, i, d[i]));
    return b->needs[4] ? sinks_backward(b, s[6], s[4], delta) : AM_OK;
}

AM_OP(attention, .forward = attention_forward, .backward = attention_backward,
      .kernels = {AM_KERNEL(attention), AM_KERNEL(attention_bwd), AM_KERNEL(binary),
                  AM_KERNEL(unary), AM_KERNEL(reduce), AM_KERNEL(copy)});
