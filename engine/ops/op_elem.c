/* op_elem.c — elementwise ops with broadcasting, casts and dropout. Holds no reductions except that
 * the gradient of a broadcast operand is summed back (op_reduce.c). */
#include "op.h"

#include <string.h>

#include "../core/rng_state.h"

/* ---- binary ------------------------------------------------------------------------------ */

static int broadcast_shape(am_call *c, int first, int *ndim, int64_t *shape)
{
    char ta[96], tb[96];
    *ndim = 0;
    for (int i = first; i < c->n_in; i++)
        if (c->in[i]->ndim > *ndim)
            *ndim = c->in[i]->ndim;
    for (int d = 0; d < *ndim; d++)
        shape[d] = 1;
    for (int i = first; i < c->n_in; i++)
        for (int d = 1; d <= c->in[i]->ndim; d++) {
            int64_t s = c->in[i]->shape[c->in[i]->ndim - d], *out = &shape[*ndim - d];
            if (*out == 1)
                *out = s;
            else if (s != 1 && s != *out)
                return am_fail(AM_ESHAPE, "%s: %s and %s do not broadcast", am_op_name(c->op),
                               am_shape_text(ta, c->in[first]->ndim, c->in[first]->shape),
                               am_shape_text(tb, c->in[i]->ndim, c->in[i]->shape));
        }
    return AM_OK;
}

static int binary_code(int op)
{
    static const int8_t codes[] = {
        [AM_OP_add] = AM_B_ADD, [AM_OP_sub] = AM_B_SUB,         [AM_OP_mul] = AM_B_MUL,
        [AM_OP_div] = AM_B_DIV, [AM_OP_maximum] = AM_B_MAXIMUM, [AM_OP_minimum] = AM_B_MINIMUM,
        [AM_OP_pow] = AM_B_POW, [AM_OP_eq] = AM_B_EQ,           [AM_OP_ne] = AM_B_NE,
        [AM_OP_lt] = AM_B_LT,   [AM_OP_le] = AM_B_LE,           [AM_OP_gt] = AM_B_GT,
        [AM_OP_ge] = AM_B_GE};
    return codes[op];
}

static int binary_forward(am_call *c)
{
    int ndim, code = binary_code(c->op);
    int64_t shape[AM_MAX_DIMS];
    AM_TRY(am_check_same_dtype(c, 0, 1));
    if (c->in[0]->dtype == AM_BOOL && code < AM_B_EQ)
        return am_fail(AM_EINVAL, "%s: bool has no arithmetic; cast first", am_op_name(c->op));
    if (code == AM_B_POW)
        AM_TRY(am_check_float(c, 0));
    AM_TRY(broadcast_shape(c, 0, &ndim, shape));
    AM_TRY(am_out(c, code >= AM_B_EQ ? AM_BOOL : c->in[0]->dtype, ndim, shape));
    if (code != AM_B_ADD && code != AM_B_SUB) {
        AM_TRY(am_save(c, 0, c->in[0]));
        AM_TRY(am_save(c, 1, c->in[1]));
    }
    if (am_shape_numel(ndim, shape) == 0)
        return AM_OK;
    am_binary_args a = {.out = am_tensor_ptr(c->out[0]),
                        .a = am_tensor_ptr(c->in[0]),
                        .b = am_tensor_ptr(c->in[1]),
                        .op = code,
                        .dtype = c->in[0]->dtype};
    am_tensor *operands[] = {c->out[0], c->in[0], c->in[1]};
    AM_TRY(am_nd_make(&a.nd, ndim, shape, 3, operands));
    return am_launch_binary(c->device, &a);
}

static int unary_map(am_temps *temps, am_tensor **out, am_tensor *a, int op, double p0)
{
    AM_TRY(am_temp_new(temps, out, a->dtype, a->ndim, a->shape, a->device));
    if (am_tensor_numel(a) == 0)
        return AM_OK;
    am_unary_args u = {
        .out = am_tensor_ptr(*out), .a = am_tensor_ptr(a), .op = op, .dtype = a->dtype, .p0 = p0};
    am_tensor *operands[] = {*out, a};
    AM_TRY(am_nd_make(&u.nd, a->ndim, a->shape, 2, operands));
    return am_launch_unary(a->device, &u);
}

/* d(a+b) = dout, dout;  d(a-b) = dout, -dout. */
static int add_backward(am_bwd *b)
{
    if (b->needs[0])
        AM_TRY(am_grad_give_summed(b, 0, b->dout));
    if (!b->needs[1])
        return AM_OK;
    am_tensor *d = b->dout;
    if (b->op == AM_OP_sub)
        AM_TRY(unary_map(&b->temps, &d, b->dout, AM_U_NEG, 0));
    return am_grad_give_summed(b, 1, d);
}

/* The others need their operands: see binary_bwd in backend.h. */
static int binary_backward(am_bwd *b)
{
    for (int i = 0; i < 2; i++) {
        if (!b->needs[i])
            continue;
        am_tensor *d;
        AM_TRY(
            am_temp_new(&b->temps, &d, b->dout->dtype, b->dout->ndim, b->dout->shape, b->device));
        if (am_tensor_numel(d) > 0) {
            am_binary_bwd_args a = {.d = am_tensor_ptr(d),
                                    .dout = am_tensor_ptr(b->dout),
                                    .a = am_tensor_ptr(b->saved[0]),
                                    .b = am_tensor_ptr(b->saved[1]),
                                    .op = binary_code(b->op),
                                    .which = i,
                                    .dtype = b->dout->dtype};
            am_tensor *operands[] = {d, b->dout, b->saved[0], b->saved[1]};
            AM_TRY(am_nd_make(&a.nd, d->ndim, d->shape, 4, operands));
            AM_TRY(am_launch_binary_bwd(b->device, &a));
        }
        AM_TRY(am_grad_give_summed(b, i, d));
    }
    return AM_OK;
}

#define BINARY_KERNELS                                                                             \
    {                                                                                              \
        AM_KERNEL(binary), AM_KERNEL(binary_bwd), AM_KERNEL(reduce)                                \
    }
AM_OP(add, .forward = binary_forward, .backward = add_backward, .kernels = BINARY_KERNELS);
AM_OP(sub, .forward = binary_forward, .backward = add_backward, .kernels = BINARY_KERNELS);
AM_OP(mul, .forward = binary_forward, .backward = binary_backward, .kernels = BINARY_KERNELS);
AM_OP(div, .forward = binary_forward, .backward = binary_backward, .kernels = BINARY_KERNELS);
AM_OP(pow, .forward = binary_forward, .backward = binary_backward, .kernels = BINARY_KERNELS);
AM_OP(maximum, .forward = binary_forward, .backward = binary_backward, .kernels = BINARY_KERNELS);
AM_OP(minimum, .forward = binary_forward, .backward = binary_backward, .kernels = BINARY_KERNELS);
AM_OP(eq, .forward = binary_forward, .kernels = {AM_KERNEL(binary)});
AM_OP(ne, .forward = binary_forward, .kernels = {AM_KERNEL(binary)});
AM_OP(lt, .forward = binary_forward, .kernels = {AM_KERNEL(binary)});
AM_OP(le, .forward = binary_forward, .kernels = {AM_KERNEL(binary)});
AM_OP(gt, .forward = binary_forward, .kernels = {AM_KERNEL(binary)});
AM_OP(ge, .forward = binary_forward, .kernels = {AM_KERNEL(binary)});

/* ---- where ------------------------------------------------------------------------------- */

static int where_kernel(am_tensor *out, am_tensor *cond, am_tensor *a, am_tensor *b)
{
    if (am_tensor_numel(out) == 0)
        return AM_OK;
    am_where_args w = {.out = am_tensor_ptr(out),
                       .cond = am_tensor_ptr(cond),
                       .a = am_tensor_ptr(a),
                       .b = am_tensor_ptr(b),
                       .dtype = out->dtype};
    am_tensor *operands[] = {out, cond, a, b};
    AM_TRY(am_nd_make(&w.nd, out->ndim, out->shape, 4, operands));
    return am_launch_where(out->device, &w);
}

static int where_forward(am_call *c)
{
    int ndim;
    int64_t shape[AM_MAX_DIMS];
    if (c->in[0]->dtype != AM_BOOL)
        return am_fail(AM_EINVAL, "where: the condition is %s; bool is needed",
                       am_dtype_name(c->in[0]->dtype));
    AM_TRY(am_check_same_dtype(c, 1, 2));
    AM_TRY(broadcast_shape(c, 0, &ndim, shape));
    AM_TRY(am_out(c, c->in[1]->dtype, ndim, shape));
    AM_TRY(where_kernel(c->out[0], c->in[0], c->in[1], c->in[2]));
    return am_save(c, 0, c->in[0]);
}

static int where_backward(am_bwd *b)
{
    am_tensor *zero, *d;
    AM_TRY(am_temp_new(&b->temps, &zero, b->dout->dtype, 0, NULL, b->device));
    AM_TRY(am_tensor_fill(zero, 0));
    for (int i = 1; i <= 2; i++) {
        if (!b->needs[i])
            continue;
        AM_TRY(
            am_temp_new(&b->temps, &d, b->dout->dtype, b->dout->ndim, b->dout->shape, b->device));
        AM_TRY(i == 1 ? where_kernel(d, b->saved[0], b->dout, zero)
                      : where_kernel(d, b->saved[0], zero, b->dout));
        AM_TRY(am_grad_give_summed(b, i, d));
    }
    return AM_OK;
}

AM_OP(where, .forward = where_forward, .backward = where_backward,
      .kernels = {AM_KERNEL(where), AM_KERNEL(reduce)});

/* ---- unary ------------------------------------------------------------------------------- */

static int unary_code(int op, const am_attrs *at, double *p0, double *p1)
{
    static const uint8_t codes[] = {[AM_OP_add_scalar] = AM_U_ADD_SCALAR,
                                    [AM_OP_mul_scalar] = AM_U_MUL_SCALAR,
                                    [AM_OP_pow_scalar] = AM_U_POW_SCALAR,
                                    [AM_OP_neg] = AM_U_NEG,
                                    [AM_OP_abs] = AM_U_ABS,
                                    [AM_OP_exp] = AM_U_EXP,
                                    [AM_OP_log] = AM_U_LOG,
                                    [AM_OP_sqrt] = AM_U_SQRT,
                                    [AM_OP_rsqrt] = AM_U_RSQRT,
                                    [AM_OP_tanh] = AM_U_TANH,
                                    [AM_OP_sigmoid] = AM_U_SIGMOID,
                                    [AM_OP_relu] = AM_U_RELU,
                                    [AM_OP_silu] = AM_U_SILU,
                                    [AM_OP_gelu] = AM_U_GELU,
                                    [AM_OP_gelu_tanh] = AM_U_GELU_TANH,
                                    [AM_OP_relu2] = AM_U_RELU2,
                                    [AM_OP_quick_gelu] = AM_U_QUICK_GELU,
                                    [AM_OP_clamp] = AM_U_CLAMP,
                                    [AM_OP_sin] = AM_U_SIN,
                                    [AM_OP_cos] = AM_U_COS,
                                    [AM_OP_erf] = AM_U_ERF,
                                    [AM_OP_log1p] = AM_U_LOG1P,
                                    [AM_OP_expm1] = AM_U_EXPM1,
                                    [AM_OP_softplus] = AM_U_SOFTPLUS,
                                    [AM_OP_sign] = AM_U_SIGN,
                                    [AM_OP_floor] = AM_U_FLOOR,
                                    [AM_OP_ceil] = AM_U_CEIL,
                                    [AM_OP_round] = AM_U_ROUND};
    int code = codes[op];
    *p0 = *p1 = 0;
    if (code == AM_U_CLAMP) {
        *p0 = at->clamp.min;
        *p1 = at->clamp.max;
    } else if (code <= AM_U_POW_SCALAR) {
        *p0 = at->scalar.value;
    }
    return code;
}

static int run_unary(am_unary_args *a, am_tensor *out, am_tensor *x)
{
    if (am_tensor_numel(x) == 0)
        return AM_OK;
    a->out = am_tensor_ptr(out);
    a->a = am_tensor_ptr(x);
    am_tensor *operands[] = {out, x};
    AM_TRY(am_nd_make(&a->nd, x->ndim, x->shape, 2, operands));
    return am_launch_unary(x->device, a);
}

static int unary_forward(am_call *c)
{
    am_tensor *x = c->in[0];
    am_unary_args a = {.dtype = x->dtype};
    a.op = unary_code(c->op, &c->attrs, &a.p0, &a.p1);
    bool any_number = a.op == AM_U_ADD_SCALAR || a.op == AM_U_MUL_SCALAR || a.op == AM_U_NEG ||
                      a.op == AM_U_ABS || a.op == AM_U_CLAMP || a.op >= AM_U_SIGN;
    if (x->dtype == AM_BOOL || !any_number)
        AM_TRY(am_check_float(c, 0));
    AM_TRY(am_out(c, x->dtype, x->ndim, x->shape));
    AM_TRY(am_save(c, 0, x));
    return run_unary(&a, c->out[0], x);
}

static int unary_recompute(const am_bwd *b, am_tensor *out)
{
    am_unary_args a = {.dtype = out->dtype};
    a.op = unary_code(b->op, b->attrs, &a.p0, &a.p1);
    return run_unary(&a, out, b->saved[0]);
}

static int unary_backward(am_bwd *b)
{
    am_tensor *x = b->saved[0];
    am_grad g;
    AM_TRY(am_grad_begin(b, 0, false, &g));
    if (am_tensor_numel(x) > 0) {
        am_unary_bwd_args a = {.da = am_tensor_ptr(g.t),
                               .dout = am_tensor_ptr(b->dout),
                               .a = am_tensor_ptr(x),
                               .dtype = x->dtype};
        a.op = unary_code(b->op, b->attrs, &a.p0, &a.p1);
        am_tensor *operands[] = {g.t, b->dout, x};
        AM_TRY(am_nd_make(&a.nd, x->ndim, x->shape, 3, operands));
        AM_TRY(am_launch_unary_bwd(b->device, &a));
    }
    return am_grad_end(b, 0, &g);
}

#define UNARY(name)                                                                                \
    AM_OP(name, .forward = unary_forward, .backward = unary_backward,                              \
          .kernels = {AM_KERNEL(unary), AM_KERNEL(unary_bwd)})
/* Of a feed-forward block, whose output is as large as what it was made from. */
#define ACTIVATION(name)                                                                           \
    AM_OP(name, .forward = unary_forward, .backward = unary_backward,                              \
          .recompute = unary_recompute, .kernels = {AM_KERNEL(unary), AM_KERNEL(unary_bwd)})
UNARY(add_scalar);
UNARY(mul_scalar);
UNARY(pow_scalar);
UNARY(neg);
UNARY(abs);
UNARY(exp);
UNARY(log);
UNARY(sqrt);
UNARY(rsqrt);
UNARY(tanh);
UNARY(sigmoid);
ACTIVATION(relu);
ACTIVATION(silu);
ACTIVATION(gelu);
ACTIVATION(gelu_tanh);
ACTIVATION(relu2);
ACTIVATION(quick_gelu);
UNARY(clamp);
UNARY(sin);
UNARY(cos);
UNARY(erf);
UNARY(log1p);
UNARY(expm1);
UNARY(softplus);
UNARY(sign);
UNARY(floor);
UNARY(ceil);
UNARY(round);

/* ---- cast -------------------------------------------------------------------------------- */

static int cast_forward(am_call *c)
{
    int dtype = c->attrs.cast.dtype;
    if (!am_dtype_size(dtype))
        return am_fail(AM_EINVAL, "cast: dtype %d does not exist", dtype);
    if (!am_dtype_is_float(dtype))
        c->record = false;
    AM_TRY(am_out(c, dtype, c->in[0]->ndim, c->in[0]->shape));
    return am_copy_kernel(c->out[0], c->in[0], 0);
}

static int cast_backward(am_bwd *b)
{
    return am_grad_give(b, 0, b->dout);
}

AM_OP(cast, .forward = cast_forward, .backward = cast_backward, .kernels = {AM_KERNEL(copy)});

/* ---- dropout ----------------------------------------------------------------------------- */

static int dropout_kernel(am_tensor *out, am_tensor *a, double p, uint64_t seed, uint64_t stream)
{
    return am_launch_dropout(out->device, &(am_dropout_args){.out = am_tensor_ptr(out),
                                                             .a = am_tensor_ptr(a),
                                                             .dtype = a->dtype,
                                                             .p = p,
                                                             .seed = seed,
                                                             .stream = stream,
                                                             .n = am_tensor_numel(a)});
}

static int dropout_forward(am_call *c)
{
    am_tensor *x;
    double p = c->attrs.dropout.p;
    AM_TRY(am_check_float(c, 0));
    if (!(p >= 0 && p <= 1))
        return am_fail(AM_EINVAL, "dropout: p is %g, not within 0 and 1", p);
    AM_TRY(am_temp_dense(&c->temps, &x, c->in[0]));
    am_rng_next(&c->rng_seed, &c->rng_stream);
    AM_TRY(am_out(c, x->dtype, x->ndim, x->shape));
    return dropout_kernel(c->out[0], x, p, c->rng_seed, c->rng_stream);
}

static int dropout_backward(am_bwd *b)
{
    am_grad g;
    AM_TRY(am_grad_begin(b, 0, false, &g));
    AM_TRY(dropout_kernel(g.t, b->dout, b->attrs->dropout.p, b->rng_seed, b->rng_stream));
    return am_grad_end(b, 0, &g);
}

AM_OP(dropout, .forward = dropout_forward, .backward = dropout_backward,
      .kernels = {AM_KERNEL(dropout)});
