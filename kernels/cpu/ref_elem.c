/* ref_elem.c — reference kernels: fill, copy, unary, binary, where, dropout and random numbers.
 * Plain loops over one element at a time; the formulas are those of PyTorch, NaN included. */
#include "ref.h"

int am_ref_fill(am_stream *s, const am_fill_args *args)
{
    (void)s;
    nd_walk w = {0};
    int64_t n = nd_count(&args->nd);
    for (int64_t i = 0; i < n; i++, nd_step(&args->nd, &w, 1)) {
        if (is_float(args->dtype))
            store(args->out, args->dtype, w.at[0], args->value);
        else if (args->dtype == AM_BOOL)
            store_int(args->out, AM_BOOL, w.at[0], args->value != 0);
        else
            store_int(args->out, args->dtype, w.at[0], double_to_int(args->value));
    }
    return AM_OK;
}

int am_ref_copy(am_stream *s, const am_copy_args *args)
{
    (void)s;
    int to = args->dtype_out, from = args->dtype_a;
    nd_walk w = {0};
    int64_t n = nd_count(&args->nd);
    for (int64_t i = 0; i < n; i++, nd_step(&args->nd, &w, 2)) {
        int64_t at = w.at[0];
        if (is_float(to)) {
            double v = is_float(from) ? load(args->a, from, w.at[1])
                                      : (double)load_int(args->a, from, w.at[1]);
            store(args->out, to, at, args->accumulate ? load(args->out, to, at) + v : v);
        } else {
            int64_t v;
            if (!is_float(from))
                v = load_int(args->a, from, w.at[1]);
            else if (to == AM_BOOL)
                v = load(args->a, from, w.at[1]) != 0;
            else
                v = double_to_int(load(args->a, from, w.at[1]));
            if (args->accumulate)
                v = (int64_t)((uint64_t)v + (uint64_t)load_int(args->out, to, at));
            store_int(args->out, to, at, v);
        }
    }
    return AM_OK;
}

/* ---- unary ------------------------------------------------------------------------------ */

AM_INLINE double unary_value(int op, double x, double p0, double p1)
{
    switch (op) {
    case AM_U_ADD_SCALAR:
        return x + p0;
    case AM_U_MUL_SCALAR:
        return x * p0;
    case AM_U_POW_SCALAR:
        return pow(x, p0);
    case AM_U_NEG:
        return -x;
    case AM_U_ABS:
        return fabs(x);
    case AM_U_EXP:
        return exp(x);
    case AM_U_LOG:
        return log(x);
    case AM_U_SQRT:
        return sqrt(x);
    case AM_U_RSQRT:
        return 1.0 / sqrt(x);
    case AM_U_TANH:
        return tanh(x);
    case AM_U_SIGMOID:
        return ref_act(AM_ACT_SIGMOID, x);
    case AM_U_RELU:
        return ref_act(AM_ACT_RELU, x);
    case AM_U_SILU:
        return ref_act(AM_ACT_SILU, x);
    case AM_U_GELU:
        return ref_act(AM_ACT_GELU, x);
    case AM_U_GELU_TANH:
        return ref_act(AM_ACT_GELU_TANH, x);
    case AM_U_RELU2:
        return ref_act(AM_ACT_RELU2, x);
    case AM_U_QUICK_GELU:
        return ref_act(AM_ACT_QUICK_GELU, x);
    case AM_U_CLAMP:
        x = x < p0 ? p0 : x;
        return x > p1 ? p1 : x;
    case AM_U_SIN:
        return sin(x);
    case AM_U_COS:
        return cos(x);
    case AM_U_ERF:
        return erf(x);
    case AM_U_LOG1P:
        return log1p(x);
    case AM_U_EXPM1:
        return expm1(x);
    case AM_U_SOFTPLUS: /* of e^-|x|, so that nothing overflows */
        return (x < 0 ? 0 : x) + log1p(exp(-fabs(x)));
    case AM_U_SIGN:
        return (x > 0) - (x < 0);
    case AM_U_FLOOR:
        return floor(x);
    case AM_U_CEIL:
        return ceil(x);
    default: /* AM_U_ROUND */
        return nearbyint(x);
    }
}

AM_INLINE int unary_float(const am_unary_args *args, int dtype)
{
    nd_walk w = {0};
    int64_t n = nd_count(&args->nd);
    for (int64_t i = 0; i < n; i++, nd_step(&args->nd, &w, 2))
        store(args->out, dtype, w.at[0],
              unary_value(args->op, load(args->a, dtype, w.at[1]), args->p0, args->p1));
    return AM_OK;
}

static int unary_int(const am_unary_args *args)
{
    int64_t p0 = double_to_int(args->p0), p1 = double_to_int(args->p1);
    nd_walk w = {0};
    int64_t n = nd_count(&args->nd);
    for (int64_t i = 0; i < n; i++, nd_step(&args->nd, &w, 2)) {
        int64_t x = load_int(args->a, args->dtype, w.at[1]);
        switch (args->op) {
        case AM_U_ADD_SCALAR:
            x = (int64_t)((uint64_t)x + (uint64_t)p0);
            break;
        case AM_U_MUL_SCALAR:
            x = (int64_t)((uint64_t)x * (uint64_t)p0);
            break;
        case AM_U_POW_SCALAR:
            x = double_to_int(pow((double)x, args->p0));
            break;
        case AM_U_NEG:
            x = (int64_t)(0 - (uint64_t)x);
            break;
        case AM_U_ABS:
            x = x < 0 ? (int64_t)(0 - (uint64_t)x) : x;
            break;
        case AM_U_CLAMP:
            x = x < p0 ? p0 : x;
            x = x > p1 ? p1 : x;
            break;
        case AM_U_SIGN:
            x = (x > 0) - (x < 0);
            break;
        case AM_U_FLOOR:
        case AM_U_CEIL:
        case AM_U_ROUND:
            break;
        default:
            return AM_EUNSUP;
        }
        store_int(args->out, args->dtype, w.at[0], x);
    }
    return AM_OK;
}

int am_ref_unary(am_stream *s, const am_unary_args *args)
{
    (void)s;
    if (args->op < 0 || args->op >= AM_U_COUNT)
        return AM_EUNSUP;
    if (args->dtype == AM_I32 || args->dtype == AM_I64 || args->dtype == AM_U8)
        return unary_int(args);
    AM_DISPATCH_FLOAT(args->dtype, unary_float, args)
}

AM_INLINE double unary_slope(int op, double x, double p0, double p1)
{
    switch (op) {
    case AM_U_ADD_SCALAR:
        return 1;
    case AM_U_MUL_SCALAR:
        return p0;
    case AM_U_POW_SCALAR:
        return p0 == 0 ? 0 : p0 * pow(x, p0 - 1);
    case AM_U_NEG:
        return -1;
    case AM_U_ABS:
        return x > 0 ? 1 : x < 0 ? -1 : x;
    case AM_U_EXP:
        return exp(x);
    case AM_U_LOG:
        return 1 / x;
    case AM_U_SQRT:
        return 0.5 / sqrt(x);
    case AM_U_RSQRT:
        return -0.5 / (x * sqrt(x));
    case AM_U_TANH: {
        double t = tanh(x);
        return 1 - t * t;
    }
    case AM_U_SIGMOID:
        return ref_act_grad(AM_ACT_SIGMOID, x);
    case AM_U_RELU:
        return ref_act_grad(AM_ACT_RELU, x);
    case AM_U_SILU:
        return ref_act_grad(AM_ACT_SILU, x);
    case AM_U_GELU:
        return ref_act_grad(AM_ACT_GELU, x);
    case AM_U_GELU_TANH:
        return ref_act_grad(AM_ACT_GELU_TANH, x);
    case AM_U_RELU2:
        return ref_act_grad(AM_ACT_RELU2, x);
    case AM_U_QUICK_GELU:
        return ref_act_grad(AM_ACT_QUICK_GELU, x);
    case AM_U_CLAMP:
        return x >= p0 && x <= p1 ? 1 : 0;
    case AM_U_SIN:
        return cos(x);
    case AM_U_COS:
        return -sin(x);
    case AM_U_ERF: /* 2 / sqrt(pi) e^-x^2 */
        return 1.12837916709551257390 * exp(-x * x);
    case AM_U_LOG1P:
        return 1 / (1 + x);
    case AM_U_EXPM1:
        return exp(x);
    case AM_U_SOFTPLUS:
        return ref_sigmoid(x);
    default: /* AM_U_SIGN, FLOOR, CEIL, ROUND */
        return 0;
    }
}

AM_INLINE int unary_bwd_float(const am_unary_bwd_args *args, int dtype)
{
    nd_walk w = {0};
    int64_t n = nd_count(&args->nd);
    for (int64_t i = 0; i < n; i++, nd_step(&args->nd, &w, 3))
        store(args->da, dtype, w.at[0],
              load(args->dout, dtype, w.at[1]) *
                  unary_slope(args->op, load(args->a, dtype, w.at[2]), args->p0, args->p1));
    return AM_OK;
}

int am_ref_unary_bwd(am_stream *s, const am_unary_bwd_args *args)
{
    (void)s;
    if (args->op < 0 || args->op >= AM_U_COUNT)
        return AM_EUNSUP;
    AM_DISPATCH_FLOAT(args->dtype, unary_bwd_float, args)
}

/* ---- binary ----------------------------------------------------------------------------- */

AM_INLINE int compare(int op, int less, int equal, int unordered)
{
    switch (op) {
    case AM_B_EQ:
        return equal;
    case AM_B_NE:
        return !equal;
    case AM_B_LT:
        return less;
    case AM_B_LE:
        return less || equal;
    case AM_B_GT:
        return !(less || equal || unordered);
    default: /* AM_B_GE */
        return !(less || unordered);
    }
}

AM_INLINE int binary_float(const am_binary_args *args, int dtype)
{
    nd_walk w = {0};
    int64_t n = nd_count(&args->nd);
    for (int64_t i = 0; i < n; i++, nd_step(&args->nd, &w, 3)) {
        double a = load(args->a, dtype, w.at[1]), b = load(args->b, dtype, w.at[2]), v;
        switch (args->op) {
        case AM_B_ADD:
            v = a + b;
            break;
        case AM_B_SUB:
            v = a - b;
            break;
        case AM_B_MUL:
            v = a * b;
            break;
        case AM_B_DIV:
            v = a / b;
            break;
        case AM_B_MAXIMUM:
            v = a != a || a > b ? a : b;
            break;
        case AM_B_MINIMUM:
            v = a != a || a < b ? a : b;
            break;
        case AM_B_POW:
            v = pow(a, b);
            break;
        default:
            ((uint8_t *)args->out)[w.at[0]] =
                (uint8_t)compare(args->op, a < b, a == b, a != a || b != b);
            continue;
        }
        store(args->out, dtype, w.at[0], v);
    }
    return AM_OK;
}

static int binary_int(const am_binary_args *args)
{
    nd_walk w = {0};
    int64_t n = nd_count(&args->nd);
    for (int64_t i = 0; i < n; i++, nd_step(&args->nd, &w, 3)) {
        int64_t a = load_int(args->a, args->dtype, w.at[1]);
        int64_t b = load_int(args->b, args->dtype, w.at[2]), v;
        switch (args->op) {
        case AM_B_ADD:
            v = (int64_t)((uint64_t)a + (uint64_t)b);
            break;
        case AM_B_SUB:
            v = (int64_t)((uint64_t)a - (uint64_t)b);
            break;
        case AM_B_MUL:
            v = (int64_t)((uint64_t)a * (uint64_t)b);
            break;
        case AM_B_DIV:
            if (b == 0)
                return am_kernel_fail(AM_EINVAL, "div: integer division by zero");
            v = b == -1 ? (int64_t)(0 - (uint64_t)a) : a / b;
            break;
        case AM_B_MAXIMUM:
            v = a > b ? a : b;
            break;
        case AM_B_MINIMUM:
            v = a < b ? a : b;
            break;
        default:
            ((uint8_t *)args->out)[w.at[0]] = (uint8_t)compare(args->op, a < b, a == b, 0);
            continue;
        }
        store_int(args->out, args->dtype, w.at[0], v);
    }
    return AM_OK;
}

int am_ref_binary(am_stream *s, const am_binary_args *args)
{
    (void)s;
    if (args->op < 0 || args->op >= AM_B_COUNT || (args->dtype == AM_BOOL && args->op < AM_B_EQ))
        return AM_EUNSUP;
    if (!is_float(args->dtype) && args->op == AM_B_POW)
        return AM_EUNSUP;
    if (!is_float(args->dtype))
        return binary_int(args);
    AM_DISPATCH_FLOAT(args->dtype, binary_float, args)
}

AM_INLINE int binary_bwd_float(const am_binary_bwd_args *args, int dtype)
{
    nd_walk w = {0};
    int64_t n = nd_count(&args->nd);
    for (int64_t i = 0; i < n; i++, nd_step(&args->nd, &w, 4)) {
        double dout = load(args->dout, dtype, w.at[1]);
        double a = load(args->a, dtype, w.at[2]), b = load(args->b, dtype, w.at[3]), d;
        int won; /* by the operand the gradient is for */
        switch (args->op) {
        case AM_B_MUL:
            d = dout * (args->which == 0 ? b : a);
            break;
        case AM_B_DIV:
            d = args->which == 0 ? dout / b : -dout * (a / b) / b;
            break;
        case AM_B_POW:
            if (args->which == 0)
                d = b == 0 ? 0 : dout * b * pow(a, b - 1);
            else
                d = a == 0 && b >= 0 ? 0 : dout * pow(a, b) * log(a);
            break;
        default:
            won = (args->op == AM_B_MAXIMUM) == (args->which == 0) ? a > b : a < b;
            d = a == b ? 0.5 * dout : won ? dout : 0;
            break;
        }
        store(args->d, dtype, w.at[0], d);
    }
    return AM_OK;
}

int am_ref_binary_bwd(am_stream *s, const am_binary_bwd_args *args)
{
    (void)s;
    if (args->op < AM_B_MUL || args->op > AM_B_POW)
        return AM_EUNSUP;
    AM_DISPATCH_FLOAT(args->dtype, binary_bwd_float, args)
}

int am_ref_where(am_stream *s, const am_where_args *args)
{
    (void)s;
    const uint8_t *cond = args->cond;
    nd_walk w = {0};
    int64_t n = nd_count(&args->nd);
    int64_t size = args->dtype == AM_F64 || args->dtype == AM_I64    ? 8
                   : args->dtype == AM_F32 || args->dtype == AM_I32  ? 4
                   : args->dtype == AM_BF16 || args->dtype == AM_F16 ? 2
                                                                     : 1;
    for (int64_t i = 0; i < n; i++, nd_step(&args->nd, &w, 4)) {
        const char *from = cond[w.at[1]] ? (const char *)args->a + w.at[2] * size
                                         : (const char *)args->b + w.at[3] * size;
        memcpy((char *)args->out + w.at[0] * size, from, (size_t)size);
    }
    return AM_OK;
}

/* ---- random numbers ---------------------------------------------------------------------- */

AM_INLINE int dropout_float(const am_dropout_args *args, int dtype)
{
    uint64_t threshold = am_dropout_threshold(args->p);
    for (int64_t i = 0; i < args->n; i++) {
        uint32_t word = am_philox_u32(args->seed, args->stream, (uint64_t)i);
        double v = word >= threshold ? load(args->a, dtype, i) / (1.0 - args->p) : 0.0;
        store(args->out, dtype, i, args->accumulate ? load(args->out, dtype, i) + v : v);
    }
    return AM_OK;
}

int am_ref_dropout(am_stream *s, const am_dropout_args *args)
{
    (void)s;
    AM_DISPATCH_FLOAT(args->dtype, dropout_float, args)
}

AM_INLINE int random_float(const am_random_args *args, int dtype)
{
    for (int64_t i = 0; i < args->n; i++) {
        double v;
        if (args->kind == AM_RANDOM_UNIFORM) {
            uint32_t word = am_philox_u32(args->seed, args->stream, (uint64_t)i);
            v = args->a + (args->b - args->a) * am_uniform01(word);
        } else {
            v = args->a + args->b * am_normal01(args->seed, args->stream, (uint64_t)i);
        }
        store(args->out, dtype, i, v);
    }
    return AM_OK;
}

int am_ref_random(am_stream *s, const am_random_args *args)
{
    (void)s;
    AM_DISPATCH_FLOAT(args->dtype, random_float, args)
}
