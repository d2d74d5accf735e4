/* elem.c — elementwise kernels for f32, bf16 and f16: fill, copy, unary, binary, dropout, random
 * numbers. Integers, bool and f64 go to ref. Formulas as in ref_elem.c. */
#include "elem.h"
#include "../ref_kernels.h"

/* ---- fill and copy ------------------------------------------------------------------------ */

static void fill_row(const am_fill_args *args, const elem_row *row)
{
    elem_buffer b;
    for (int64_t i = 0; i < ELEM_CHUNK; i++)
        b.x[i] = (float)args->value;
    ELEM_CHUNKS(row, {
        float *out = (float *)args->out + row->at[0] + j;
        if (AM_SIMD(elem_place)(&b, args->out, args->dtype, row, j, n) == b.x)
            AM_SIMD(elem_put)(b.x, args->out, args->dtype, row, j, n);
        else
            memcpy(out, b.x, (size_t)n * sizeof *out);
    });
}

int AM_SIMD(fill)(am_stream *s, const am_fill_args *args)
{
    if (!is_simd_float(args->dtype))
        return am_ref_fill(s, args);
    ELEM_EACH(&args->nd, 1, fill_row(args, &row));
    return AM_OK;
}

AM_INLINE void convert_dense(void *out, int to, const void *a, int from, int64_t n)
{
    int64_t i = 0;
    for (; i + VW <= n; i += VW)
        vput(out, to, i, vget(a, from, i));
    if (i < n)
        vput_n(out, to, i, n - i, vget_n(a, from, i, n - i, 0));
}

/* Elements that lie side by side. */
static void copy_dense(void *out, int to, const void *a, int from, int64_t n)
{
    if (to == from)
        memmove(out, a, (size_t)(n * simd_size(to)));
    else if (from == AM_BF16)
        to == AM_F32 ? convert_dense(out, AM_F32, a, AM_BF16, n)
                     : convert_dense(out, AM_F16, a, AM_BF16, n);
    else if (from == AM_F16)
        to == AM_F32 ? convert_dense(out, AM_F32, a, AM_F16, n)
                     : convert_dense(out, AM_BF16, a, AM_F16, n);
    else
        to == AM_BF16 ? convert_dense(out, AM_BF16, a, AM_F32, n)
                      : convert_dense(out, AM_F16, a, AM_F32, n);
}

static void copy_row(const am_copy_args *args, const elem_row *row)
{
    int to = args->dtype_out, from = args->dtype_a;
    if (!args->accumulate && row->step[0] == 1 && row->step[1] == 1) {
        copy_dense((char *)args->out + row->at[0] * simd_size(to), to,
                   (const char *)args->a + row->at[1] * simd_size(from), from, row->n);
        return;
    }
    elem_buffer in, old, result;
    ELEM_CHUNKS(row, {
        const float *a = AM_SIMD(elem_get)(&in, args->a, from, row, 1, j, n);
        float *out = AM_SIMD(elem_place)(&result, args->out, to, row, j, n);
        if (args->accumulate) {
            const float *had = AM_SIMD(elem_get)(&old, args->out, to, row, 0, j, n);
            for (int64_t i = 0; i < n; i += VW)
                vstore(out + i, vload(had + i) + vload(a + i));
        } else {
            memmove(out, a, (size_t)n * sizeof *out);
        }
        AM_SIMD(elem_put)(out, args->out, to, row, j, n);
    });
}

int AM_SIMD(copy)(am_stream *s, const am_copy_args *args)
{
    if (!is_simd_float(args->dtype_out) || !is_simd_float(args->dtype_a))
        return am_ref_copy(s, args);
    ELEM_EACH(&args->nd, 2, copy_row(args, &row));
    return AM_OK;
}

/* ---- unary -------------------------------------------------------------------------------- */

AM_INLINE vf vpow(vf x, float p)
{
    if (p == 2.0f)
        return x * x;
    for (int i = 0; i < VW; i++)
        x[i] = powf(x[i], p);
    return x;
}

/* v<name>: libm's function, a lane at a time. */
#define LANES(name)                                                                                \
    AM_INLINE vf v##name(vf x)                                                                     \
    {                                                                                              \
        for (int i = 0; i < VW; i++)                                                               \
            x[i] = name##f(x[i]);                                                                  \
        return x;                                                                                  \
    }
LANES(log)
LANES(sin)
LANES(cos)
LANES(erf)
LANES(log1p)
LANES(expm1)
LANES(floor)
LANES(ceil)
LANES(nearbyint)

AM_INLINE vf unary_value(int op, vf x, float p0, float p1)
{
    switch (op) {
    case AM_U_ADD_SCALAR:
        return x + p0;
    case AM_U_MUL_SCALAR:
        return x * p0;
    case AM_U_POW_SCALAR:
        return vpow(x, p0);
    case AM_U_NEG:
        return -x;
    case AM_U_ABS:
        return vabs(x);
    case AM_U_EXP:
        return vexp(x);
    case AM_U_LOG:
        return vlog(x);
    case AM_U_SQRT:
        return vsqrt(x);
    case AM_U_RSQRT:
        return 1.0f / vsqrt(x);
    case AM_U_TANH:
        return vtanh(x);
    case AM_U_SIGMOID:
        return vact(AM_ACT_SIGMOID, x);
    case AM_U_RELU:
        return vact(AM_ACT_RELU, x);
    case AM_U_SILU:
        return vact(AM_ACT_SILU, x);
    case AM_U_GELU:
        return vact(AM_ACT_GELU, x);
    case AM_U_GELU_TANH:
        return vact(AM_ACT_GELU_TANH, x);
    case AM_U_RELU2:
        return vact(AM_ACT_RELU2, x);
    case AM_U_QUICK_GELU:
        return vact(AM_ACT_QUICK_GELU, x);
    case AM_U_CLAMP:
        return vmin(vsplat(p1), vmax(vsplat(p0), x));
    case AM_U_SIN:
        return vsin(x);
    case AM_U_COS:
        return vcos(x);
    case AM_U_ERF:
        return verf(x);
    case AM_U_LOG1P:
        return vlog1p(x);
    case AM_U_EXPM1:
        return vexpm1(x);
    case AM_U_SOFTPLUS:
        return vmax((vf){0}, x) + vlog1p(vexp(-vabs(x)));
    case AM_U_SIGN:
        return vselect(x > 0.0f, vsplat(1.0f), vselect(x < 0.0f, vsplat(-1.0f), (vf){0}));
    case AM_U_FLOOR:
        return vfloor(x);
    case AM_U_CEIL:
        return vceil(x);
    default: /* AM_U_ROUND */
        return vnearbyint(x);
    }
}

AM_INLINE vf unary_slope(int op, vf x, float p0, float p1)
{
    switch (op) {
    case AM_U_ADD_SCALAR:
        return vsplat(1.0f);
    case AM_U_MUL_SCALAR:
        return vsplat(p0);
    case AM_U_POW_SCALAR:
        return p0 == 0.0f ? (vf){0} : p0 == 2.0f ? 2.0f * x : p0 * vpow(x, p0 - 1.0f);
    case AM_U_NEG:
        return vsplat(-1.0f);
    case AM_U_ABS: /* NaN where x is */
        return vselect(x > 0.0f, vsplat(1.0f), vselect(x < 0.0f, vsplat(-1.0f), x));
    case AM_U_EXP:
        return vexp(x);
    case AM_U_LOG:
        return 1.0f / x;
    case AM_U_SQRT:
        return 0.5f / vsqrt(x);
    case AM_U_RSQRT:
        return -0.5f / (x * vsqrt(x));
    case AM_U_TANH: {
        vf t = vtanh(x);
        return vfma(-t, t, vsplat(1.0f));
    }
    case AM_U_SIGMOID:
        return vact_grad(AM_ACT_SIGMOID, x);
    case AM_U_RELU:
        return vact_grad(AM_ACT_RELU, x);
    case AM_U_SILU:
        return vact_grad(AM_ACT_SILU, x);
    case AM_U_GELU:
        return vact_grad(AM_ACT_GELU, x);
    case AM_U_GELU_TANH:
        return vact_grad(AM_ACT_GELU_TANH, x);
    case AM_U_RELU2:
        return vact_grad(AM_ACT_RELU2, x);
    case AM_U_QUICK_GELU:
        return vact_grad(AM_ACT_QUICK_GELU, x);
    case AM_U_CLAMP:
        return vselect((x >= p0) & (x <= p1), vsplat(1.0f), (vf){0});
    case AM_U_SIN:
        return vcos(x);
    case AM_U_COS:
        return -vsin(x);
    case AM_U_ERF:
        return 1.12837916709551257390f * vexp(-x * x);
    case AM_U_LOG1P:
        return 1.0f / (1.0f + x);
    case AM_U_EXPM1:
        return vexp(x);
    case AM_U_SOFTPLUS:
        return vsigmoid(x);
    default: /* AM_U_SIGN, FLOOR, CEIL, ROUND */
        return (vf){0};
    }
}

/* One loop for each op, so that the choice is made outside of it. */
/* clang-format off */
#define UNARY_OPS(X) \
    X(AM_U_ADD_SCALAR) \
    X(AM_U_MUL_SCALAR) \
    X(AM_U_POW_SCALAR) \
    X(AM_U_NEG) \
    X(AM_U_ABS) \
    X(AM_U_EXP) \
    X(AM_U_LOG) \
    X(AM_U_SQRT) \
    X(AM_U_RSQRT) \
    X(AM_U_TANH) \
    X(AM_U_SIGMOID) \
    X(AM_U_RELU) \
    X(AM_U_SILU) \
    X(AM_U_GELU) \
    X(AM_U_GELU_TANH) \
    X(AM_U_RELU2) \
    X(AM_U_QUICK_GELU) \
    X(AM_U_CLAMP) \
    X(AM_U_SIN) \
    X(AM_U_COS) \
    X(AM_U_ERF) \
    X(AM_U_LOG1P) \
    X(AM_U_EXPM1) \
    X(AM_U_SOFTPLUS) \
    X(AM_U_SIGN) \
    X(AM_U_FLOOR) \
    X(AM_U_CEIL) \
    X(AM_U_ROUND)
/* clang-format on */

/* A function each: in one, their vectors would take megabytes of stack in a sanitized build. */
#define X(code)                                                                                    \
    __attribute__((noinline)) static void chunk_##code(float *out, const float *a, int64_t n,      \
                                                       float p0, float p1)                         \
    {                                                                                              \
        for (int64_t i = 0; i < n; i += VW)                                                        \
            vstore(out + i, unary_value(code, vload(a + i), p0, p1));                              \
    }
UNARY_OPS(X)
#undef X

/* out = f(a) over n floats */
static void unary_chunk(int op, float *out, const float *a, int64_t n, float p0, float p1)
{
    switch (op) {
#define X(code)                                                                                    \
    case code:                                                                                     \
        chunk_##code(out, a, n, p0, p1);                                                           \
        break;
        UNARY_OPS(X)
#undef X
    default:
        break;
    }
}

static void unary_row(const am_unary_args *args, const elem_row *row)
{
    elem_buffer in, result;
    ELEM_CHUNKS(row, {
        const float *a = AM_SIMD(elem_get)(&in, args->a, args->dtype, row, 1, j, n);
        float *out = AM_SIMD(elem_place)(&result, args->out, args->dtype, row, j, n);
        unary_chunk(args->op, out, a, n, (float)args->p0, (float)args->p1);
        AM_SIMD(elem_put)(out, args->out, args->dtype, row, j, n);
    });
}

int AM_SIMD(unary)(am_stream *s, const am_unary_args *args)
{
    if (!is_simd_float(args->dtype) || args->op < 0 || args->op >= AM_U_COUNT)
        return am_ref_unary(s, args);
    ELEM_EACH(&args->nd, 2, unary_row(args, &row));
    return AM_OK;
}

#define X(code)                                                                                    \
    __attribute__((noinline)) static void slope_##code(                                            \
        float *out, const float *dout, const float *a, int64_t n, float p0, float p1)              \
    {                                                                                              \
        for (int64_t i = 0; i < n; i += VW)                                                        \
            vstore(out + i, vload(dout + i) * unary_slope(code, vload(a + i), p0, p1));            \
    }
UNARY_OPS(X)
#undef X

/* out = dout f'(a) */
static void slope_chunk(int op, float *out, const float *dout, const float *a, int64_t n, float p0,
                        float p1)
{
    switch (op) {
#define X(code)                                                                                    \
    case code:                                                                                     \
        slope_##code(out, dout, a, n, p0, p1);                                                     \
        break;
        UNARY_OPS(X)
#undef X
    default:
        break;
    }
}

static void unary_bwd_row(const am_unary_bwd_args *args, const elem_row *row)
{
    elem_buffer in[2], result;
    ELEM_CHUNKS(row, {
        const float *dout = AM_SIMD(elem_get)(&in[0], args->dout, args->dtype, row, 1, j, n);
        const float *a = AM_SIMD(elem_get)(&in[1], args->a, args->dtype, row, 2, j, n);
        float *out = AM_SIMD(elem_place)(&result, args->da, args->dtype, row, j, n);
        slope_chunk(args->op, out, dout, a, n, (float)args->p0, (float)args->p1);
        AM_SIMD(elem_put)(out, args->da, args->dtype, row, j, n);
    });
}

int AM_SIMD(unary_bwd)(am_stream *s, const am_unary_bwd_args *args)
{
    if (!is_simd_float(args->dtype) || args->op < 0 || args->op >= AM_U_COUNT)
        return am_ref_unary_bwd(s, args);
    ELEM_EACH(&args->nd, 3, unary_bwd_row(args, &row));
    return AM_OK;
}

/* ---- binary ------------------------------------------------------------------------------- */

AM_INLINE vf binary_value(int op, vf a, vf b)
{
    switch (op) {
    case AM_B_ADD:
        return a + b;
    case AM_B_SUB:
        return a - b;
    case AM_B_MUL:
        return a * b;
    case AM_B_DIV:
        return a / b;
    case AM_B_MAXIMUM:
        return vselect(vnan(a) | (a > b), a, b);
    case AM_B_MINIMUM:
        return vselect(vnan(a) | (a < b), a, b);
    default: /* AM_B_POW */
        for (int i = 0; i < VW; i++)
            a[i] = powf(a[i], b[i]);
        return a;
    }
}

/* clang-format off */
#define BINARY_OPS(X) \
    X(AM_B_ADD) \
    X(AM_B_SUB) \
    X(AM_B_MUL) \
    X(AM_B_DIV) \
    X(AM_B_MAXIMUM) \
    X(AM_B_MINIMUM) \
    X(AM_B_POW)
/* clang-format on */

/* out = a op b over n floats */
static void binary_chunk(int op, float *out, const float *a, const float *b, int64_t n)
{
    switch (op) {
#define X(code)                                                                                    \
    case code:                                                                                     \
        for (int64_t i = 0; i < n; i += VW)                                                        \
            vstore(out + i, binary_value(code, vload(a + i), vload(b + i)));                       \
        break;
        BINARY_OPS(X)
#undef X
    default:
        break;
    }
}

static void binary_row(const am_binary_args *args, const elem_row *row)
{
    elem_buffer in[2], result;
    ELEM_CHUNKS(row, {
        const float *a = AM_SIMD(elem_get)(&in[0], args->a, args->dtype, row, 1, j, n);
        const float *b = AM_SIMD(elem_get)(&in[1], args->b, args->dtype, row, 2, j, n);
        float *out = AM_SIMD(elem_place)(&result, args->out, args->dtype, row, j, n);
        binary_chunk(args->op, out, a, b, n);
        AM_SIMD(elem_put)(out, args->out, args->dtype, row, j, n);
    });
}

int AM_SIMD(binary)(am_stream *s, const am_binary_args *args)
{
    if (!is_simd_float(args->dtype) || args->op < 0 || args->op > AM_B_POW)
        return am_ref_binary(s, args);
    ELEM_EACH(&args->nd, 3, binary_row(args, &row));
    return AM_OK;
}

AM_INLINE vf pow_grad(int which, vf dout, vf a, vf b)
{
    for (int i = 0; i < VW; i++) {
        double x = (double)a[i], y = (double)b[i];
        double slope = which == 0 ? (y == 0 ? 0 : y * pow(x, y - 1))
                                  : (x == 0 && y >= 0 ? 0 : pow(x, y) * log(x));
        dout[i] = (float)((double)dout[i] * slope);
    }
    return dout;
}

AM_INLINE vf binary_grad(const am_binary_bwd_args *args, vf dout, vf a, vf b)
{
    if (args->op == AM_B_MUL)
        return dout * (args->which == 0 ? b : a);
    if (args->op == AM_B_DIV)
        return args->which == 0 ? dout / b : -dout * (a / b) / b;
    if (args->op == AM_B_POW) /* in double: b - 1 and ln a must not be rounded first */
        return pow_grad(args->which, dout, a, b);
    int a_wins_above = (args->op == AM_B_MAXIMUM) == (args->which == 0);
    vf won = vselect(a_wins_above ? a > b : a < b, dout, (vf){0});
    return vselect(a == b, 0.5f * dout, won);
}

static void binary_bwd_row(const am_binary_bwd_args *args, const elem_row *row)
{
    elem_buffer in[3], result;
    ELEM_CHUNKS(row, {
        const float *dout = AM_SIMD(elem_get)(&in[0], args->dout, args->dtype, row, 1, j, n);
        const float *a = AM_SIMD(elem_get)(&in[1], args->a, args->dtype, row, 2, j, n);
        const float *b = AM_SIMD(elem_get)(&in[2], args->b, args->dtype, row, 3, j, n);
        float *out = AM_SIMD(elem_place)(&result, args->d, args->dtype, row, j, n);
        for (int64_t i = 0; i < n; i += VW)
            vstore(out + i, binary_grad(args, vload(dout + i), vload(a + i), vload(b + i)));
        AM_SIMD(elem_put)(out, args->d, args->dtype, row, j, n);
    });
}

int AM_SIMD(binary_bwd)(am_stream *s, const am_binary_bwd_args *args)
{
    if (!is_simd_float(args->dtype) || args->op < AM_B_MUL || args->op > AM_B_POW)
        return am_ref_binary_bwd(s, args);
    ELEM_EACH(&args->nd, 4, binary_bwd_row(args, &row));
    return AM_OK;
}

/* ---- random numbers ------------------------------------------------------------------------ */

enum { RANDOM_BLOCK = 4096 }; /* elements a thread takes at a time; a multiple of 4 */

static void dropout_block(const am_dropout_args *args, int64_t first, int64_t end)
{
    uint64_t threshold = am_dropout_threshold(args->p);
    float scale = (float)(1.0 / (1.0 - args->p));
    uint32_t words[4];
    for (int64_t i = first; i < end; i++) {
        if ((i & 3) == 0)
            am_philox(words, args->seed, args->stream, (uint64_t)i >> 2);
        float v = words[i & 3] >= threshold ? load1(args->a, args->dtype, i) * scale : 0.0f;
        if (args->accumulate)
            v += load1(args->out, args->dtype, i);
        store1(args->out, args->dtype, i, v);
    }
}

int AM_SIMD(dropout)(am_stream *s, const am_dropout_args *args)
{
    if (!is_simd_float(args->dtype))
        return am_ref_dropout(s, args);
    int64_t n = args->n;
#pragma omp parallel for num_threads(team(4 * n)) schedule(static)
    for (int64_t i = 0; i < n; i += RANDOM_BLOCK)
        dropout_block(args, i, at_most(n, i + RANDOM_BLOCK));
    return AM_OK;
}

static void random_block(const am_random_args *args, int64_t first, int64_t end)
{
    uint32_t words[4];
    for (int64_t i = first; i < end; i++) {
        double v;
        if (args->kind == AM_RANDOM_NORMAL) {
            v = args->a + args->b * am_normal01(args->seed, args->stream, (uint64_t)i);
        } else {
            if ((i & 3) == 0)
                am_philox(words, args->seed, args->stream, (uint64_t)i >> 2);
            v = args->a + (args->b - args->a) * am_uniform01(words[i & 3]);
        }
        store1(args->out, args->dtype, i, (float)v);
    }
}

int AM_SIMD(random)(am_stream *s, const am_random_args *args)
{
    if (!is_simd_float(args->dtype))
        return am_ref_random(s, args);
    int64_t n = args->n;
#pragma omp parallel for num_threads(team(8 * n)) schedule(static)
    for (int64_t i = 0; i < n; i += RANDOM_BLOCK)
        random_block(args, i, at_most(n, i + RANDOM_BLOCK));
    return AM_OK;
}
