/* op_reduce.c — reductions over one dim, or over all; softmax, running sums and orders along one.
 */
#include "op.h"

#include <math.h>
#include <string.h>

#include "tape.h"

/* ---- [outer, n, inner] ------------------------------------------------------------------- */

typedef struct view3 {
    int64_t outer, n, inner;
} view3;

static view3 split(const am_tensor *x, int dim)
{
    if (dim < 0) /* all */
        return (view3){1, am_tensor_numel(x), 1};
    return (view3){am_shape_numel(dim, x->shape), x->shape[dim],
                   am_shape_numel(x->ndim - dim - 1, x->shape + dim + 1)};
}

static int reduce_code(int op)
{
    switch (op) {
    case AM_OP_amax:
        return AM_R_MAX;
    case AM_OP_amin:
        return AM_R_MIN;
    case AM_OP_logsumexp:
        return AM_R_LOGSUMEXP;
    case AM_OP_prod:
        return AM_R_PROD;
    case AM_OP_argmax:
        return AM_R_ARGMAX;
    case AM_OP_argmin:
        return AM_R_ARGMIN;
    default:
        return AM_R_SUM;
    }
}

/* The reduced dim, or -1 for all. */
static int reduced_dim(const am_call *c, int *dim)
{
    *dim = -1;
    if (c->attrs.reduce.dim == AM_ALL_DIMS)
        return AM_OK;
    return am_check_dim(c, c->in[0]->ndim, c->attrs.reduce.dim, dim);
}

static int reduce_forward(am_call *c)
{
    am_tensor *x;
    int dim, ndim = 0, code = reduce_code(c->op);
    int64_t shape[AM_MAX_DIMS];
    AM_TRY(reduced_dim(c, &dim));
    bool whole = (c->op == AM_OP_sum || c->op == AM_OP_prod) && !am_dtype_is_float(c->in[0]->dtype);
    if (!whole && code < AM_R_ARGMAX && code != AM_R_MAX && code != AM_R_MIN)
        AM_TRY(am_check_float(c, 0));
    AM_TRY(am_temp_dense(&c->temps, &x, c->in[0]));
    view3 v = split(x, dim);
    if (v.n == 0 && code != AM_R_SUM && code != AM_R_PROD)
        return am_fail(AM_ESHAPE, "%s: nothing to reduce in a dim of size 0", am_op_name(c->op));
    for (int d = 0; d < x->ndim; d++) {
        if (d != dim && dim >= 0)
            shape[ndim++] = x->shape[d];
        else if (c->attrs.reduce.keepdim)
            shape[ndim++] = 1;
    }
    int dtype = code >= AM_R_ARGMAX || whole ? AM_I64 : x->dtype;
    AM_TRY(am_out(c, dtype, ndim, shape));
    c->attrs.reduce.dim = dim;
    if (code != AM_R_SUM) {
        AM_TRY(am_save(c, 0, x));
        AM_TRY(am_save(c, 1, c->out[0]));
    }
    if (v.n == 0)
        return am_tensor_fill(c->out[0], c->op == AM_OP_mean ? NAN : code == AM_R_PROD);
    if (v.outer * v.inner == 0)
        return AM_OK;
    return am_launch_reduce(c->device,
                            &(am_reduce_args){.out = am_tensor_ptr(c->out[0]),
                                              .a = am_tensor_ptr(x),
                                              .op = code,
                                              .dtype = x->dtype,
                                              .dtype_out = dtype,
                                              .scale = c->op == AM_OP_mean ? 1.0 / (double)v.n : 1,
                                              .outer = v.outer,
                                              .n = v.n,
                                              .inner = v.inner});
}

static view3 split_var(const am_var *x, int dim)
{
    if (dim < 0)
        return (view3){1, am_shape_numel(x->ndim, x->shape), 1};
    return (view3){am_shape_numel(dim, x->shape), x->shape[dim],
                   am_shape_numel(x->ndim - dim - 1, x->shape + dim + 1)};
}

/* d sum = dout; d mean = dout / n; d amax = dout / ties where a is it; d logsumexp = dout e^(a -
 * out); d prod = dout times the product of the others. */
static int reduce_backward(am_bwd *b)
{
    const am_var *x = b->in[0];
    view3 v = split_var(x, b->attrs->reduce.dim);
    int code = reduce_code(b->op);
    am_grad g;
    AM_TRY(am_grad_begin(b, 0, false, &g));
    if (v.outer * v.n * v.inner > 0)
        AM_TRY(am_launch_reduce_bwd(
            b->device,
            &(am_reduce_bwd_args){.da = am_tensor_ptr(g.t),
                                  .dout = am_tensor_ptr(b->dout),
                                  .a = code == AM_R_SUM ? NULL : am_tensor_ptr(b->saved[0]),
                                  .out = code == AM_R_SUM ? NULL : am_tensor_ptr(b->saved[1]),
                                  .op = code,
                                  .dtype = x->dtype,
                                  .scale = b->op == AM_OP_mean ? 1.0 / (double)v.n : 1,
                                  .outer = v.outer,
                                  .n = v.n,
                                  .inner = v.inner}));
    return am_grad_end(b, 0, &g);
}

#define REDUCTION(name)                                                                            \
    AM_OP(name, .forward = reduce_forward, .backward = reduce_backward,                            \
          .kernels = {AM_KERNEL(reduce), AM_KERNEL(reduce_bwd)})
REDUCTION(sum);
REDUCTION(mean);
REDUCTION(amax);
REDUCTION(amin);
REDUCTION(logsumexp);
REDUCTION(prod);
AM_OP(argmax, .forward = reduce_forward, .kernels = {AM_KERNEL(reduce)});
AM_OP(argmin, .forward = reduce_forward, .kernels = {AM_KERNEL(reduce)});

/* ---- softmax ----------------------------------------------------------------------------- */

static int softmax_forward(am_call *c)
{
    am_tensor *x;
    int dim;
    AM_TRY(am_check_float(c, 0));
    AM_TRY(am_check_dim(c, c->in[0]->ndim, c->attrs.dim.dim, &dim));
    AM_TRY(am_temp_dense(&c->temps, &x, c->in[0]));
    view3 v = split(x, dim);
    c->attrs.dim.dim = dim;
    AM_TRY(am_out(c, x->dtype, x->ndim, x->shape));
    AM_TRY(am_save(c, 0, c->out[0]));
    if (v.outer * v.n * v.inner == 0)
        return AM_OK;
    return am_launch_softmax(c->device, &(am_softmax_args){.out = am_tensor_ptr(c->out[0]),
                                                           .a = am_tensor_ptr(x),
                                                           .log = c->op == AM_OP_log_softmax,
                                                           .dtype = x->dtype,
                                                           .outer = v.outer,
                                                           .n = v.n,
                                                           .inner = v.inner});
}

static int softmax_backward(am_bwd *b)
{
    am_tensor *out = b->saved[0];
    view3 v = split(out, b->attrs->dim.dim);
    am_grad g;
    AM_TRY(am_grad_begin(b, 0, false, &g));
    if (v.outer * v.n * v.inner > 0)
        AM_TRY(am_launch_softmax_bwd(b->device,
                                     &(am_softmax_bwd_args){.da = am_tensor_ptr(g.t),
                                                            .dout = am_tensor_ptr(b->dout),
                                                            .out = am_tensor_ptr(out),
                                                            .log = b->op == AM_OP_log_softmax,
                                                            .dtype = out->dtype,
                                                            .outer = v.outer,
                                                            .n = v.n,
                                                            .inner = v.inner}));
    return am_grad_end(b, 0, &g);
}

#define SOFTMAX_KERNELS                                                                            \
    {                                                                                              \
        AM_KERNEL(softmax), AM_KERNEL(softmax_bwd)                                                 \
    }
AM_OP(softmax, .forward = softmax_forward, .backward = softmax_backward,
      .kernels = SOFTMAX_KERNELS);
AM_OP(log_softmax, .forward = softmax_forward, .backward = softmax_backward,
      .kernels = SOFTMAX_KERNELS);

/* ---- cumsum, argsort ---------------------------------------------------------------------- */

static int cumsum_kernel(am_tensor *out, am_tensor *a, int dim, int reverse)
{
    view3 v = split(a, dim);
    if (v.outer * v.n * v.inner == 0)
        return AM_OK;
    return am_launch_cumsum(a->device, &(am_cumsum_args){.out = am_tensor_ptr(out),
                                                         .a = am_tensor_ptr(a),
                                                         .dtype = a->dtype,
                                                         .dtype_out = out->dtype,
                                                         .reverse = reverse,
                                                         .outer = v.outer,
                                                         .n = v.n,
                                                         .inner = v.inner});
}

static int cumsum_forward(am_call *c)
{
    am_tensor *x;
    int dim;
    AM_TRY(am_check_dim(c, c->in[0]->ndim, c->attrs.dim.dim, &dim));
    AM_TRY(am_temp_dense(&c->temps, &x, c->in[0]));
    c->attrs.dim.dim = dim;
    AM_TRY(am_out(c, am_dtype_is_float(x->dtype) ? x->dtype : AM_I64, x->ndim, x->shape));
    return cumsum_kernel(c->out[0], x, dim, 0);
}

/* da[j] = dout[j] + dout[j+1] + ... */
static int cumsum_backward(am_bwd *b)
{
    am_grad g;
    AM_TRY(am_grad_begin(b, 0, false, &g));
    AM_TRY(cumsum_kernel(g.t, b->dout, b->attrs->dim.dim, 1));
    return am_grad_end(b, 0, &g);
}

AM_OP(cumsum, .forward = cumsum_forward, .backward = cumsum_backward,
      .kernels = {AM_KERNEL(cumsum)});

static int argsort_forward(am_call *c)
{
    am_tensor *x;
    int dim;
    AM_TRY(am_check_dim(c, c->in[0]->ndim, c->attrs.argsort.dim, &dim));
    AM_TRY(am_temp_dense(&c->temps, &x, c->in[0]));
    view3 v = split(x, dim);
    AM_TRY(am_out(c, AM_I64, x->ndim, x->shape));
    if (v.outer * v.n * v.inner == 0)
        return AM_OK;
    return am_launch_argsort(c->device,
                             &(am_argsort_args){.out = am_tensor_ptr(c->out[0]),
                                                .a = am_tensor_ptr(x),
                                                .dtype = x->dtype,
                                                .descending = c->attrs.argsort.descending != 0,
                                                .outer = v.outer,
                                                .n = v.n,
                                                .inner = v.inner});
}

AM_OP(argsort, .forward = argsort_forward, .kernels = {AM_KERNEL(argsort)});

/* ---- the gradient of a broadcast --------------------------------------------------------- */

/* Sum t over one dim, leaving size 1 there. */
static int sum_dim(am_temps *temps, am_tensor **out, am_tensor *t, int dim)
{
    int64_t shape[AM_MAX_DIMS];
    memcpy(shape, t->shape, sizeof shape);
    shape[dim] = 1;
    view3 v = split(t, dim);
    AM_TRY(am_temp_new(temps, out, t->dtype, t->ndim, shape, t->device));
    if (v.n == 0)
        return am_tensor_fill(*out, 0);
    if (v.outer * v.inner == 0)
        return AM_OK;
    return am_launch_reduce(t->device, &(am_reduce_args){.out = am_tensor_ptr(*out),
                                                         .a = am_tensor_ptr(t),
                                                         .op = AM_R_SUM,
                                                         .dtype = t->dtype,
                                                         .dtype_out = t->dtype,
                                                         .scale = 1,
                                                         .outer = v.outer,
                                                         .n = v.n,
                                                         .inner = v.inner});
}

int am_grad_give_summed(am_bwd *b, int i, am_tensor *g)
{
    const am_var *x = b->in[i];
    am_tensor *t;
    AM_TRY(am_temp_dense(&b->temps, &t, g));
    for (int d = 0; d < t->ndim; d++) {
        int dx = d - (t->ndim - x->ndim);
        if (t->shape[d] != 1 && (dx < 0 || x->shape[dx] == 1))
            AM_TRY(sum_dim(&b->temps, &t, t, d));
    }
    if (t->ndim == x->ndim)
        return am_grad_give(b, i, t);
    am_tensor *view; /* leading dims of size 1 go */
    AM_TRY(am_tensor_view(&view, t, x->ndim, x->shape, t->stride + (t->ndim - x->ndim), 0));
    int rc = am_grad_give(b, i, view);
    am_tensor_release(view);
    return rc;
}
