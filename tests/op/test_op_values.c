/* test_op_values.c — decisive values on every device: what differences and comparisons of random
 * numbers can't see. Infinities, NaN, ties, whole numbers, casts, what lies behind a mask. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dtype.h"
#include "devices.h"
#include "op_run.h"
#include "op_values.h"

/* ---- comparisons and whole numbers --------------------------------------------------------- */

START_TEST(comparisons)
{
    static const double a[] = {1, 2, 3, NAN, 1, INFINITY, -INFINITY, 0};
    static const double b[] = {2, 2, 2, 1, NAN, INFINITY, INFINITY, -0.0};
    static const struct {
        int op;
        double floats[8], wholes[3];
    } rows[] = {
        {AM_OP_eq, {0, 1, 0, 0, 0, 1, 0, 1}, {0, 1, 0}},
        {AM_OP_ne, {1, 0, 1, 1, 1, 0, 1, 0}, {1, 0, 1}},
        {AM_OP_lt, {1, 0, 0, 0, 0, 0, 1, 0}, {1, 0, 0}},
        {AM_OP_le, {1, 1, 0, 0, 0, 1, 1, 1}, {1, 1, 0}},
        {AM_OP_gt, {0, 0, 1, 0, 0, 0, 0, 0}, {0, 0, 1}},
        {AM_OP_ge, {0, 1, 1, 0, 0, 1, 0, 1}, {0, 1, 1}},
    };
    for (size_t r = 0; r < COUNT(rows); r++)
        for (int dtype = 0; dtype < AM_DTYPE_COUNT; dtype++) {
            size_t n = am_dtype_is_float(dtype) ? 8 : 3;
            am_tensor *in[] = {vec(_i, dtype, n, a), vec(_i, dtype, n, b)};
            am_tensor *out = apply(rows[r].op, 2, in, (am_attrs){.dim = {0}});
            ck_assert_int_eq(am_tensor_dtype(out), AM_BOOL);
            if (dtype != AM_BOOL) /* there all three are true */
                expect(am_op_name(rows[r].op), _i, out, n,
                       n == 8 ? rows[r].floats : rows[r].wholes);
            am_tensor_release(out);
            am_tensor_release(in[0]);
            am_tensor_release(in[1]);
        }
}
END_TEST

START_TEST(whole_numbers)
{
    static const double a[] = {7, -7, 6, 0}, b[] = {2, 2, -4, 5};
    static const struct {
        int op;
        double want[4];
    } rows[] = {{AM_OP_add, {9, -5, 2, 5}},     {AM_OP_sub, {5, -9, 10, -5}},
                {AM_OP_mul, {14, -14, -24, 0}}, {AM_OP_div, {3, -3, -1, 0}},
                {AM_OP_maximum, {7, 2, 6, 5}},  {AM_OP_minimum, {2, -7, -4, 0}}};
    static const int dtypes[] = {AM_I32, AM_I64};
    for (size_t d = 0; d < 2; d++) {
        am_tensor *in[] = {vec(_i, dtypes[d], 4, a), vec(_i, dtypes[d], 4, b)}, *out;
        for (size_t r = 0; r < COUNT(rows); r++) {
            out = apply(rows[r].op, 2, in, (am_attrs){.dim = {0}});
            ck_assert_int_eq(am_tensor_dtype(out), dtypes[d]);
            expect(am_op_name(rows[r].op), _i, out, 4, rows[r].want);
            am_tensor_release(out);
        }
        out = apply(AM_OP_add_scalar, 1, in, (am_attrs){.scalar = {-3}});
        EXPECT("add_scalar", out, 4, -10, 3, -3);
        am_tensor_release(out);
        out = apply(AM_OP_mul_scalar, 1, in, (am_attrs){.scalar = {5}});
        EXPECT("mul_scalar", out, 35, -35, 30, 0);
        am_tensor_release(out);
        out = apply(AM_OP_neg, 1, in, (am_attrs){.dim = {0}});
        EXPECT("neg", out, -7, 7, -6, 0);
        am_tensor_release(out);
        out = apply(AM_OP_abs, 1, in, (am_attrs){.dim = {0}});
        EXPECT("abs", out, 7, 7, 6, 0);
        am_tensor_release(out);
        out = apply(AM_OP_sign, 1, in, (am_attrs){.dim = {0}});
        EXPECT("sign", out, 1, -1, 1, 0);
        am_tensor_release(out);
        out = apply(AM_OP_round, 1, in, (am_attrs){.dim = {0}});
        EXPECT("round", out, 7, -7, 6, 0);
        am_tensor_release(out);
        out = apply(AM_OP_clamp, 1, in, (am_attrs){.clamp = {-1, 6}});
        EXPECT("clamp", out, 6, -1, 6, 0);
        am_tensor_release(out);
        out = apply(AM_OP_sum, 1, in, (am_attrs){.reduce = {0, 0}});
        ck_assert_int_eq(am_tensor_dtype(out), AM_I64);
        EXPECT("sum", out, 6);
        am_tensor_release(out);
        out = apply(AM_OP_amax, 1, in, (am_attrs){.reduce = {0, 0}});
        EXPECT("amax", out, 7);
        am_tensor_release(out);
        out = apply(AM_OP_argmax, 1, in, (am_attrs){.reduce = {0, 0}});
        EXPECT("argmax", out, 0);
        am_tensor_release(out);
        am_tensor_release(in[0]);
        am_tensor_release(in[1]);
    }
    am_tensor *x = vec(_i, AM_I64, 4, (double[]){3, 1, 2, 1});
    GIVES(AM_OP_argsort, 1, &x, ((am_attrs){.argsort = {0, 0}}), 1, 3, 2, 0);
    GIVES(AM_OP_cumsum, 1, &x, ((am_attrs){.dim = {0}}), 3, 4, 6, 7);
    GIVES(AM_OP_prod, 1, &x, ((am_attrs){.reduce = {0, 0}}), 6);
    GIVES(AM_OP_argmin, 1, &x, ((am_attrs){.reduce = {0, 0}}), 1);
    am_tensor *counted[] = {x, vec(_i, AM_I64, 4, (double[]){0, 2, 2, 2}), x};
    for (int op = AM_OP_index_add; op <= AM_OP_scatter_add; op++) {
        GIVES(op, 3, counted, ((am_attrs){.dim = {0}}), 6, 1, 6, 1);
    }
    am_tensor_release(x);
    am_tensor_release(counted[1]);
    /* sums of bool and uint8 do not wrap */
    double many[200];
    for (int i = 0; i < 200; i++)
        many[i] = 255;
    am_tensor *bytes = vec(_i, AM_U8, 200, many), *truths = vec(_i, AM_BOOL, 200, many);
    am_tensor *out = apply(AM_OP_sum, 1, &bytes, (am_attrs){.reduce = {AM_ALL_DIMS, 0}});
    EXPECT("sum of uint8", out, 200 * 255);
    am_tensor_release(out);
    out = apply(AM_OP_sum, 1, &truths, (am_attrs){.reduce = {AM_ALL_DIMS, 0}});
    EXPECT("sum of bool", out, 200);
    am_tensor_release(out);
    am_tensor_release(bytes);
    am_tensor_release(truths);
}
END_TEST

START_TEST(whole_division_by_zero)
{
    am_tensor *in[] = {vec(_i, AM_I32, 2, (double[]){1, 2}), vec(_i, AM_I32, 2, (double[]){1, 0})};
    am_tensor *out = NULL;
    int rc = am_apply(AM_OP_div, &out, in, 2, NULL);
    if (rc == AM_OK)
        rc = am_device_sync(_i);
    ck_assert_int_eq(rc, AM_EINVAL);
    ck_assert_ptr_nonnull(strstr(am_error_message(), "zero"));
    am_tensor_release(am_device_is_host(_i) ? NULL : out);
    am_tensor_release(in[0]);
    am_tensor_release(in[1]);
}
END_TEST

/* ---- casts and picks, for every dtype ------------------------------------------------------ */

START_TEST(casts)
{
    static const double small[] = {0, 1, 2, 3, 100, 127};
    for (int from = 0; from < AM_DTYPE_COUNT; from++)
        for (int to = 0; to < AM_DTYPE_COUNT; to++) {
            am_tensor *x = vec(_i, from, 6, small);
            am_tensor *y = apply(AM_OP_cast, 1, &x, (am_attrs){.cast = {to}});
            ck_assert_int_eq(am_tensor_dtype(y), to);
            if (from == AM_BOOL || to == AM_BOOL)
                EXPECT("cast with bool", y, 0, 1, 1, 1, 1, 1);
            else
                expect("cast", _i, y, 6, small);
            am_tensor_release(x);
            am_tensor_release(y);
        }
    am_tensor *x = vec(_i, AM_F32, 6, (double[]){2.7, -2.7, 0.5, -0.5, 1e9, NAN});
    am_tensor *y = apply(AM_OP_cast, 1, &x, (am_attrs){.cast = {AM_BOOL}});
    EXPECT("cast to bool", y, 1, 1, 1, 1, 1, 1);
    am_tensor_release(y);
    am_tensor *part;
    const int64_t five[] = {5}, one[] = {1};
    OK(am_tensor_as_strided(&part, x, 1, five, one, 0));
    y = apply(AM_OP_cast, 1, &part, (am_attrs){.cast = {AM_I32}});
    EXPECT("cast to int32", y, 2, -2, 0, 0, 1e9);
    am_tensor_release(y);
    am_tensor_release(part);
    am_tensor_release(x);
}
END_TEST

/* Rounding of f32 to 16 bits: to nearest, ties to even; infinities and NaN stay. */
START_TEST(rounding)
{
    enum { N = 4096 };
    static float values[N];
    static uint16_t got[N];
    const float special[] = {0,           -0.0f,       INFINITY,       -INFINITY, NAN,
                             1.00390625f, 1.01171875f, 65504,          65519.99f, 65520,
                             -65520,      1e-8f,       5.9604645e-8f,  2.98e-8f,  6.1e-5f,
                             3.4e38f,     1e-40f,      1.17549435e-38f};
    for (int i = 0; i < N; i++) {
        uint32_t u = am_rng_u32(9, 1, (uint64_t)i);
        memcpy(&values[i], &u, 4);
    }
    memcpy(values + 1000, special, sizeof special);
    const int64_t n = N;
    static const int dtypes[] = {AM_BF16, AM_F16};
    for (int d = 0; d < 2; d++) {
        am_tensor *x;
        OK(am_tensor_new(&x, AM_F32, 1, &n, _i));
        OK(am_tensor_write(x, values, sizeof values));
        am_tensor *y = apply(AM_OP_cast, 1, &x, (am_attrs){.cast = {dtypes[d]}});
        OK(am_tensor_read(y, got, sizeof got));
        for (int i = 0; i < N; i++) {
            uint16_t want = d ? am_f32_to_f16(values[i]) : am_f32_to_bf16(values[i]);
            float back = d ? am_f16_to_f32(got[i]) : am_bf16_to_f32(got[i]);
            ck_assert_msg(got[i] == want || (isnan(values[i]) && isnan(back)),
                          "%a becomes %04x in %s on %s, expected %04x", (double)values[i], got[i],
                          am_dtype_name(dtypes[d]), am_device_name(_i), want);
        }
        am_tensor_release(x);
        am_tensor_release(y);
    }
}
END_TEST

START_TEST(moving_any_dtype)
{
    static const double v[] = {1, 2, 3, 4, 5, 6};
    const int64_t two_three[] = {2, 3};
    for (int dtype = 0; dtype < AM_DTYPE_COUNT; dtype++) {
        if (dtype == AM_BOOL)
            continue;
        am_tensor *x = tensor(_i, dtype, 2, two_three, v), *y, *z;
        y = apply(AM_OP_transpose, 1, &x, (am_attrs){.transpose = {0, 1}});
        z = apply(AM_OP_contiguous, 1, &y, (am_attrs){.dim = {0}});
        EXPECT("contiguous", z, 1, 4, 2, 5, 3, 6);
        am_tensor *both[] = {y, z}, *joined = apply(AM_OP_cat, 2, both, (am_attrs){.dim = {1}});
        EXPECT("cat", joined, 1, 4, 1, 4, 2, 5, 2, 5, 3, 6, 3, 6);
        am_tensor *index = vec(_i, AM_I32, 3, (double[]){1, 0, 1}), *rows[] = {x, index};
        am_tensor *picked = apply(AM_OP_index_select, 2, rows, (am_attrs){.dim = {0}});
        EXPECT("index_select", picked, 4, 5, 6, 1, 2, 3, 4, 5, 6);
        am_tensor *cond = vec(_i, AM_BOOL, 3, (double[]){1, 0, 1}), *three[] = {cond, x, x};
        am_tensor *chosen = apply(AM_OP_where, 3, three, (am_attrs){.dim = {0}});
        EXPECT("where", chosen, 1, 2, 3, 4, 5, 6);
        am_tensor *all[] = {x, y, z, joined, index, picked, cond, chosen};
        for (size_t i = 0; i < COUNT(all); i++)
            am_tensor_release(all[i]);
    }
}
END_TEST

/* ---- functions at their ends --------------------------------------------------------------- */

static double f_sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}
static double f_silu(double x)
{
    return x / (1 + exp(-x));
}
static double f_gelu(double x)
{
    return 0.5 * x * erfc(-x / sqrt(2));
}
static double f_gelu_tanh(double x)
{
    return 0.5 * x * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
}
static double f_rsqrt(double x)
{
    return 1 / sqrt(x);
}
static double f_relu(double x)
{
    return isnan(x) ? x : fmax(x, 0);
}
static double f_neg(double x)
{
    return -x;
}
static double f_softplus(double x)
{
    return isnan(x) ? x : fmax(x, 0) + log1p(exp(-fabs(x)));
}
static double f_sign(double x)
{
    return (x > 0) - (x < 0);
}

/* Against libm in double. Small results of functions that add before they round (log near 1, tanh,
 * GELU's tail) are held to an absolute error: `floor` is the size it is relative to. */
START_TEST(functions)
{
    static const struct {
        int op;
        double (*f)(double);
        double floor;
        int no_infinity; /* not decided there: inf * 0 */
    } rows[] = {
        {AM_OP_exp, exp, 1e-30, 0},
        {AM_OP_log, log, 1, 0},
        {AM_OP_sqrt, sqrt, 1e-30, 0},
        {AM_OP_rsqrt, f_rsqrt, 1e-30, 0},
        {AM_OP_tanh, tanh, 1e-2, 0},
        {AM_OP_sigmoid, f_sigmoid, 1e-30, 0},
        {AM_OP_silu, f_silu, 1e-30, 1},
        {AM_OP_gelu, f_gelu, 1, 1},
        {AM_OP_gelu_tanh, f_gelu_tanh, 1, 1},
        {AM_OP_relu, f_relu, 0, 0},
        {AM_OP_abs, fabs, 0, 0},
        {AM_OP_neg, f_neg, 0, 0},
        {AM_OP_sin, sin, 1e-30, 0},
        {AM_OP_cos, cos, 1e-30, 0},
        {AM_OP_erf, erf, 1e-30, 0},
        {AM_OP_log1p, log1p, 1e-30, 0},
        {AM_OP_expm1, expm1, 1e-30, 0},
        {AM_OP_softplus, f_softplus, 1e-30, 0},
        {AM_OP_sign, f_sign, 0, 0},
        {AM_OP_floor, floor, 0, 0},
        {AM_OP_ceil, ceil, 0, 0},
        {AM_OP_round, nearbyint, 0, 0},
    };
    enum { N = 1031 };
    static double x[N], got[N];
    static const double ends[] = {0,    -0.0,  1,    -1,       3,         -3,     10,   -10,
                                  20,   -20,   87,   -87,      88.7,      -88.7,  89,   -89,
                                  104,  -104,  1e-3, -1e-3,    1e-10,     -1e-10, 1e10, -1e10,
                                  1e30, -1e30, NAN,  INFINITY, -INFINITY, 0.5,    -0.5, 1.0000001};
    for (int i = 0; i < N; i++)
        x[i] = ((double)am_rng_u32(4, 4, (uint64_t)i) / 4294967296.0 - 0.5) * (i % 3 ? 8 : 60);
    memcpy(x + 5, ends, sizeof ends);               /* in a vector's body */
    memcpy(x + N - COUNT(ends), ends, sizeof ends); /* and in its tail */
    for (size_t r = 0; r < COUNT(rows); r++) {
        am_tensor *in = vec(_i, AM_F32, N, x);
        am_tensor *out = apply(rows[r].op, 1, &in, (am_attrs){.dim = {0}});
        numbers(out, got);
        for (int i = 0; i < N; i++) {
            double at = (double)(float)x[i], want = (double)(float)rows[r].f(at);
            if (isinf(at) && rows[r].no_infinity)
                continue;
            ck_assert_msg(got[i] == want || (isnan(got[i]) && isnan(want)) ||
                              fabs(got[i] - want) <= 2e-6 * fmax(fabs(want), rows[r].floor),
                          "%s(%.9g) on %s is %.9g, expected %.9g", am_op_name(rows[r].op), at,
                          am_device_name(_i), got[i], want);
        }
        am_tensor_release(in);
        am_tensor_release(out);
    }
}
END_TEST

/* Gradients at kinks and ties, as op docs promise them. */
START_TEST(kinks)
{
    am_tensor *ones = vec(_i, AM_F32, 3, (double[]){1, 1, 1});
    am_tensor *x = vec(_i, AM_F32, 3, (double[]){-1, 0, 2}),
              *y = vec(_i, AM_F32, 3, (double[]){-1, 1, 2});
    OK(am_tensor_set_requires_grad(x, 1));
    OK(am_tensor_set_requires_grad(y, 1));
    am_tensor *out = apply(AM_OP_relu, 1, &x, (am_attrs){.dim = {0}});
    backward(out, ones);
    GRADIENT("relu", x, 0, 0, 1);
    am_tensor_release(out);
    OK(am_tensor_set_grad(x, NULL));
    out = apply(AM_OP_abs, 1, &x, (am_attrs){.dim = {0}});
    backward(out, ones);
    GRADIENT("abs", x, -1, 0, 1);
    am_tensor_release(out);
    OK(am_tensor_set_grad(x, NULL));
    out = apply(AM_OP_clamp, 1, &x, (am_attrs){.clamp = {-1, 1}});
    backward(out, ones);
    GRADIENT("clamp", x, 1, 1, 0);
    am_tensor_release(out);
    OK(am_tensor_set_grad(x, NULL));
    am_tensor *both[] = {x, y};
    out = apply(AM_OP_maximum, 2, both, (am_attrs){.dim = {0}});
    backward(out, ones);
    GRADIENT("maximum", x, 0.5, 0, 0.5);
    GRADIENT("maximum", y, 0.5, 1, 0.5);
    am_tensor_release(out);
    am_tensor *tied = vec(_i, AM_F32, 4, (double[]){3, 1, 3, 2});
    OK(am_tensor_set_requires_grad(tied, 1));
    out = apply(AM_OP_amax, 1, &tied, (am_attrs){.reduce = {AM_ALL_DIMS, 0}});
    backward(out, NULL);
    GRADIENT("amax", tied, 0.5, 0, 0.5, 0);
    am_tensor_release(out);
    out = apply(AM_OP_argmax, 1, &tied, (am_attrs){.reduce = {0, 0}});
    EXPECT("argmax takes the first", out, 0);
    am_tensor_release(out);
    am_tensor_release(tied);
    am_tensor_release(ones);
    am_tensor_release(x);
    am_tensor_release(y);
}
END_TEST

/* An order keeps ties in place and takes NaN for the greatest. */
START_TEST(orders)
{
    am_tensor *x = vec(_i, AM_F32, 7, (double[]){2, NAN, -1, 2, INFINITY, -INFINITY, NAN});
    GIVES(AM_OP_argsort, 1, &x, ((am_attrs){.argsort = {0, 0}}), 5, 2, 0, 3, 4, 1, 6);
    GIVES(AM_OP_argsort, 1, &x, ((am_attrs){.argsort = {0, 1}}), 1, 6, 4, 0, 3, 2, 5);
    GIVES(AM_OP_argmin, 1, &x, ((am_attrs){.reduce = {0, 0}}), 1);
    am_tensor_release(x);
}
END_TEST

/* The gradient of a product with zeros in it, and what there is of nothing. */
START_TEST(products)
{
    const int64_t three_three[] = {3, 3}, none[] = {2, 0};
    am_tensor *x = tensor(_i, AM_F32, 2, three_three, (double[]){2, 3, 4, 2, 0, 4, 0, 3, 0});
    am_tensor *ones = vec(_i, AM_F32, 3, (double[]){1, 1, 1});
    OK(am_tensor_set_requires_grad(x, 1));
    am_tensor *out = apply(AM_OP_prod, 1, &x, (am_attrs){.reduce = {1, 0}});
    EXPECT("prod", out, 24, 0, 0);
    backward(out, ones);
    GRADIENT("prod", x, 12, 8, 6, 0, 8, 0, 0, 0, 0);
    am_tensor_release(out);
    am_tensor_release(x);
    am_tensor_release(ones);
    x = tensor(_i, AM_F32, 2, none, (double[]){0});
    GIVES(AM_OP_prod, 1, &x, ((am_attrs){.reduce = {1, 0}}), 1, 1);
    GIVES(AM_OP_mean, 1, &x, ((am_attrs){.reduce = {1, 0}}), NAN, NAN);
    am_tensor_release(x);
}
END_TEST

/* 0 ^ 0 is 1; its gradients and those of 0 ^ 2 are finite. */
START_TEST(powers)
{
    am_tensor *a = vec(_i, AM_F32, 4, (double[]){0, 0, 2, -1}),
              *b = vec(_i, AM_F32, 4, (double[]){0, 2, 0, 3}),
              *ones = vec(_i, AM_F32, 4, (double[]){1, 1, 1, 1});
    OK(am_tensor_set_requires_grad(a, 1));
    OK(am_tensor_set_requires_grad(b, 1));
    am_tensor *both[] = {a, b}, *out = apply(AM_OP_pow, 2, both, (am_attrs){.dim = {0}});
    EXPECT("pow", out, 1, 0, 1, -1);
    backward(out, ones);
    GRADIENT("pow", a, 0, 0, 0, 3);
    GRADIENT("pow", b, 0, 0, (double)(float)log(2), NAN);
    am_tensor *all[] = {a, b, ones, out};
    for (size_t i = 0; i < COUNT(all); i++)
        am_tensor_release(all[i]);
}
END_TEST

START_TEST(nan_is_passed_on)
{
    am_tensor *a = vec(_i, AM_F32, 4, (double[]){NAN, 1, 2, 5}),
              *b = vec(_i, AM_F32, 4, (double[]){1, NAN, 3, 4});
    am_tensor *in[] = {a, b}, *out;
    out = apply(AM_OP_maximum, 2, in, (am_attrs){.dim = {0}});
    EXPECT("maximum", out, NAN, NAN, 3, 5);
    am_tensor_release(out);
    out = apply(AM_OP_minimum, 2, in, (am_attrs){.dim = {0}});
    EXPECT("minimum", out, NAN, NAN, 2, 4);
    am_tensor_release(out);
    out = apply(AM_OP_clamp, 1, in, (am_attrs){.clamp = {0, 3}});
    EXPECT("clamp", out, NAN, 1, 2, 3);
    am_tensor_release(out);
    out = apply(AM_OP_amax, 1, in, (am_attrs){.reduce = {0, 0}});
    EXPECT("amax", out, NAN);
    am_tensor_release(out);
    out = apply(AM_OP_amin, 1, &b, (am_attrs){.reduce = {0, 0}});
    EXPECT("amin", out, NAN);
    am_tensor_release(out);
    out = apply(AM_OP_argmax, 1, &b, (am_attrs){.reduce = {0, 0}});
    EXPECT("argmax", out, 1);
    am_tensor_release(out);
    out = apply(AM_OP_sum, 1, in, (am_attrs){.reduce = {0, 0}});
    EXPECT("sum", out, NAN);
    am_tensor_release(out);
    out = apply(AM_OP_logsumexp, 1, in, (am_attrs){.reduce = {0, 0}});
    EXPECT("logsumexp", out, NAN);
    am_tensor_release(out);
    out = apply(AM_OP_softmax, 1, in, (am_attrs){.dim = {0}});
    EXPECT("softmax", out, NAN, NAN, NAN, NAN);
    am_tensor_release(out);
    const int64_t two[] = {2, 2}, one_row[] = {1, 2};
    am_tensor *m = tensor(_i, AM_F32, 2, two, (double[]){NAN, 1, 2, 3});
    am_tensor *x = tensor(_i, AM_F32, 2, one_row, (double[]){0, 1}), *xm[] = {x, m};
    out = apply(AM_OP_matmul, 2, xm, (am_attrs){.dim = {0}});
    EXPECT("matmul: 0 NaN is NaN", out, NAN, 3);
    am_tensor *all[] = {out, m, x, a, b};
    for (size_t i = 0; i < COUNT(all); i++)
        am_tensor_release(all[i]);
}
END_TEST

/* ---- exponentials of large numbers --------------------------------------------------------- */

START_TEST(large_logits)
{
    static const double rows[] = {1e4, 0, -1e4, -INFINITY, 0, -INFINITY, 300, 300, -300};
    const int64_t shape[] = {3, 3};
    am_tensor *x = tensor(_i, AM_F32, 2, shape, rows), *out;
    out = apply(AM_OP_softmax, 1, &x, (am_attrs){.dim = {1}});
    EXPECT("softmax", out, 1, 0, 0, 0, 1, 0, 0.5, 0.5, 0);
    am_tensor_release(out);
    out = apply(AM_OP_log_softmax, 1, &x, (am_attrs){.dim = {1}});
    double got[9];
    numbers(out, got);
    ck_assert_msg(got[0] == 0 && got[1] == -1e4 && got[2] == -2e4, "log_softmax %g %g %g", got[0],
                  got[1], got[2]);
    am_tensor_release(out);
    out = apply(AM_OP_logsumexp, 1, &x, (am_attrs){.reduce = {1, 0}});
    numbers(out, got);
    ck_assert(got[0] == 1e4 && got[1] == 0 && fabs(got[2] - 300.6931472) < 1e-4);
    am_tensor_release(out);
    static const double nothing[] = {-INFINITY, -INFINITY};
    am_tensor *void_row = vec(_i, AM_F32, 2, nothing);
    out = apply(AM_OP_logsumexp, 1, &void_row, (am_attrs){.reduce = {0, 0}});
    EXPECT("logsumexp of nothing", out, -INFINITY);
    am_tensor_release(out);
    am_tensor_release(void_row);
    am_tensor_release(x);
}
END_TEST

/* Rows that are ignored may hold anything. */
START_TEST(ignored_rows)
{
    static const double logits[] = {1e4, 0, -1e4, NAN, NAN, INFINITY, 0, 0, 0};
    const int64_t shape[] = {3, 3};
    am_tensor *x = tensor(_i, AM_F32, 2, shape, logits),
              *labels = vec(_i, AM_I64, 3, (double[]){2, -100, 1});
    am_tensor *in[] = {x, labels};
    double loss, g[9];
    OK(am_tensor_set_requires_grad(x, 1));
    am_tensor *out = apply(AM_OP_cross_entropy, 2, in, (am_attrs){.loss = {-100, 0}});
    OK(am_tensor_item(out, &loss));
    ck_assert_double_eq_tol(loss, 2e4 + log(3), 0.01);
    backward(out, NULL);
    am_tensor *grad;
    OK(am_tensor_grad(&grad, x));
    numbers(grad, g);
    const double want[] = {1, 0, -1, 0, 0, 0, 1 / 3.0, -2 / 3.0, 1 / 3.0};
    for (int i = 0; i < 9; i++)
        ck_assert_msg(fabs(g[i] - want[i]) < 1e-6, "gradient %d is %g, expected %g", i, g[i],
                      want[i]);
    am_tensor *all[] = {x, labels, out, grad};
    for (size_t i = 0; i < COUNT(all); i++)
        am_tensor_release(all[i]);
}
END_TEST

/* Keys and values that a query does not see may hold anything, as padding in a cache does. */
START_TEST(behind_the_mask)
{
    enum { T = 3, S = 70, D = 4 };
    static double k[S * D], v[S * D], q[T * D], bounds[T * 2], out_values[T * D];
    for (int s = 0; s < S; s++)
        for (int d = 0; d < D; d++) {
            int seen = s >= 30 && s < 34;
            k[s * D + d] = seen ? 0.1 * (s - 30) : s % 2 ? NAN : INFINITY;
            v[s * D + d] = seen ? (double)(s - 30 + d) : (double)NAN;
        }
    for (int t = 0; t < T; t++) {
        bounds[2 * t] = t < 2 ? 30 : 5; /* the last one sees nothing */
        bounds[2 * t + 1] = t < 2 ? 34 : 5;
        for (int d = 0; d < D; d++)
            q[t * D + d] = 0;
    }
    const int64_t q_shape[] = {1, T, 1, D}, k_shape[] = {1, S, 1, D}, b_shape[] = {1, T, 2};
    am_tensor *in[] = {tensor(_i, AM_F32, 4, q_shape, q), tensor(_i, AM_F32, 4, k_shape, k),
                       tensor(_i, AM_F32, 4, k_shape, v), tensor(_i, AM_I32, 3, b_shape, bounds)};
    for (int i = 0; i < 3; i++)
        OK(am_tensor_set_requires_grad(in[i], 1));
    am_tensor *out = apply(AM_OP_attention, 4, in, (am_attrs){.attention = {.causal = 0}});
    numbers(out, out_values);
    for (int t = 0; t < T; t++)
        for (int d = 0; d < D; d++) { /* equal scores: the mean of what is seen */
            double want = t < 2 ? 1.5 + d : 0;
            ck_assert_msg(fabs(out_values[t * D + d] - want) < 1e-5, "query %d on %s gives %g", t,
                          am_device_name(_i), out_values[t * D + d]);
        }
    am_tensor *ones = tensor(_i, AM_F32, 4, q_shape, q), *g;
    OK(am_tensor_fill(ones, 1));
    backward(out, ones);
    static double grad[S * D];
    for (int i = 0; i < 3; i++) {
        OK(am_tensor_grad(&g, in[i]));
        numbers(g, grad);
        for (int j = 0; j < (i ? S : T) * D; j++) {
            int seen = i == 0 || (j / D >= 30 && j / D < 34);
            ck_assert_msg(isfinite(grad[j]) && (seen || grad[j] == 0),
                          "gradient %d of input %d on %s is %g", j, i + 1, am_device_name(_i),
                          grad[j]);
        }
        am_tensor_release(g);
    }
    am_tensor_release(out);
    am_tensor_release(ones);
    for (int i = 0; i < 4; i++)
        am_tensor_release(in[i]);
}
END_TEST

/* Which keys a query sees: with q = 0 the output is the mean of their values. */
START_TEST(visible_keys)
{
    enum { T = 3, S = 5 };
    static const struct {
        am_attention_attrs attrs;
        int bounds[T][2]; /* all of it: 0 to S */
        int seen[T][2];   /* first, and one past the last */
    } rows[] = {
        {{.causal = 0}, {{0, S}, {0, S}, {0, S}}, {{0, 5}, {0, 5}, {0, 5}}},
        {{.causal = 1}, {{0, S}, {0, S}, {0, S}}, {{0, 3}, {0, 4}, {0, 5}}},
        {{.causal = 1, .window = 2}, {{0, S}, {0, S}, {0, S}}, {{1, 3}, {2, 4}, {3, 5}}},
        {{.causal = 0, .window = 2}, {{0, S}, {0, S}, {0, S}}, {{1, 5}, {2, 5}, {3, 5}}},
        {{.causal = 1}, {{1, 3}, {2, 9}, {-4, 2}}, {{1, 3}, {2, 4}, {0, 2}}},
        {{.causal = 1, .window = 2}, {{0, 2}, {3, 4}, {4, 5}}, {{1, 2}, {3, 4}, {4, 5}}},
        {{.causal = 1}, {{3, 3}, {4, 5}, {5, 1}}, {{0, 0}, {0, 0}, {0, 0}}},
    };
    const int64_t q_shape[] = {1, T, 1, 1}, k_shape[] = {1, S, 1, 1}, b_shape[] = {1, T, 2};
    for (size_t r = 0; r < COUNT(rows); r++) {
        double bounds[T * 2], want[T];
        for (int t = 0; t < T; t++) {
            int first = rows[r].seen[t][0], end = rows[r].seen[t][1];
            bounds[2 * t] = rows[r].bounds[t][0];
            bounds[2 * t + 1] = rows[r].bounds[t][1];
            want[t] = first < end ? (first + end - 1) / 2.0 : 0; /* values are 0, 1, 2, … */
        }
        am_tensor *in[] = {tensor(_i, AM_F64, 4, q_shape, (double[T]){0}),
                           tensor(_i, AM_F64, 4, k_shape, (double[]){3, -1, 4, -1, 5}),
                           tensor(_i, AM_F64, 4, k_shape, (double[]){0, 1, 2, 3, 4}),
                           tensor(_i, AM_I32, 3, b_shape, bounds)};
        am_tensor *out = apply(AM_OP_attention, 4, in, (am_attrs){.attention = rows[r].attrs});
        double got[T];
        numbers(out, got);
        for (int t = 0; t < T; t++)
            ck_assert_msg(fabs(got[t] - want[t]) < 1e-12, "row %d, query %d on %s: %g, expected %g",
                          (int)r, t, am_device_name(_i), got[t], want[t]);
        am_tensor_release(out);
        for (int i = 0; i < 4; i++)
            am_tensor_release(in[i]);
    }
}
END_TEST

/* What is dropped is 0, also where it was infinite or NaN. */
START_TEST(dropped_infinities)
{
    enum { N = 67 };
    double x[N], got[N];
    for (int i = 0; i < N; i++)
        x[i] = i % 2 ? INFINITY : NAN;
    am_tensor *in = vec(_i, AM_F32, N, x);
    OK(am_rng_set(3, 0));
    am_tensor *out = apply(AM_OP_dropout, 1, &in, (am_attrs){.dropout = {0.5}});
    numbers(out, got);
    int dropped = 0;
    for (int i = 0; i < N; i++) {
        int keep = am_rng_u32(3, 0, (uint64_t)i) >= 0x80000000u;
        dropped += !keep;
        ck_assert_msg(keep ? !(got[i] == 0) : got[i] == 0, "element %d on %s is %g", i,
                      am_device_name(_i), got[i]);
    }
    ck_assert(dropped > 20 && dropped < 47);
    am_tensor_release(in);
    am_tensor_release(out);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("op values");
    TCase *t = tcase_create("values");
    tcase_set_timeout(t, 60);
    int n = devices_here();
    tcase_add_loop_test(t, comparisons, 0, n);
    tcase_add_loop_test(t, whole_numbers, 0, n);
    tcase_add_loop_test(t, whole_division_by_zero, 0, n);
    tcase_add_loop_test(t, casts, 0, n);
    tcase_add_loop_test(t, rounding, 0, n);
    tcase_add_loop_test(t, moving_any_dtype, 0, n);
    tcase_add_loop_test(t, functions, 0, n);
    tcase_add_loop_test(t, kinks, 0, n);
    tcase_add_loop_test(t, orders, 0, n);
    tcase_add_loop_test(t, products, 0, n);
    tcase_add_loop_test(t, powers, 0, n);
    tcase_add_loop_test(t, nan_is_passed_on, 0, n);
    tcase_add_loop_test(t, large_logits, 0, n);
    tcase_add_loop_test(t, ignored_rows, 0, n);
    tcase_add_loop_test(t, behind_the_mask, 0, n);
    tcase_add_loop_test(t, visible_keys, 0, n);
    tcase_add_loop_test(t, dropped_infinities, 0, n);
    suite_add_tcase(s, t);
    SRunner *runner = srunner_create(s);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
