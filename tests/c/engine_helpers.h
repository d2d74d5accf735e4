/* engine_helpers.h — what the tests of the engine's core share: tensors from and to doubles, ops in
 * one line, a runner for suites of one test case. */
#ifndef ENGINE_HELPERS_H
#define ENGINE_HELPERS_H

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "am.h"
#include "devices.h"

#define OK(call)                                                                                   \
    do {                                                                                           \
        int rc_ = (call);                                                                          \
        ck_assert_msg(rc_ == AM_OK, "%s: %s (%s)", #call, am_error_message(), am_error_name(rc_)); \
    } while (0)

/* The call fails with the code, and its message has the text. */
#define FAILS(call, code, text)                                                                    \
    do {                                                                                           \
        int rc_ = (call);                                                                          \
        ck_assert_msg(rc_ == (code), "%s: %s, expected %s", #call, am_error_name(rc_),             \
                      am_error_name(code));                                                        \
        ck_assert_msg(strstr(am_error_message(), text) != NULL, "%s: \"%s\" lacks \"%s\"", #call,  \
                      am_error_message(), text);                                                   \
    } while (0)

static inline am_tensor *make_on(int device, int dtype, int ndim, const int64_t *shape,
                                 const double *values)
{
    am_tensor *t, *wide;
    OK(am_tensor_new(&t, dtype, ndim, shape, device));
    OK(am_tensor_new(&wide, AM_F64, ndim, shape, device));
    OK(am_tensor_write(wide, values, (size_t)am_tensor_numel(t) * sizeof *values));
    OK(am_tensor_copy(t, wide));
    am_tensor_release(wide);
    return t;
}

/* A vector on `ref`. */
static inline am_tensor *vec(int dtype, int64_t n, const double *values)
{
    int ref;
    OK(am_device_find(&ref, "ref"));
    return make_on(ref, dtype, 1, &n, values);
}
#define VEC(dtype, ...)                                                                            \
    vec(dtype, (int64_t)(sizeof((double[]){__VA_ARGS__}) / sizeof(double)), (double[]){__VA_ARGS__})

static inline am_tensor *leaf(am_tensor *t)
{
    OK(am_tensor_set_requires_grad(t, 1));
    return t;
}

/* Values of up to 64 elements, in a buffer that the next call overwrites. */
static inline const double *values_of(const am_tensor *t)
{
    static double values[64];
    am_tensor *wide;
    ck_assert_int_le(am_tensor_numel(t), 64);
    OK(am_tensor_new(&wide, AM_F64, am_tensor_ndim(t), am_tensor_shape(t), am_tensor_device(t)));
    OK(am_tensor_copy(wide, t));
    OK(am_tensor_read(wide, values, (size_t)am_tensor_numel(t) * sizeof *values));
    am_tensor_release(wide);
    return values;
}

static inline void holds(const am_tensor *t, int64_t n, const double *expected)
{
    ck_assert_int_eq(am_tensor_numel(t), n);
    const double *v = values_of(t);
    for (int64_t i = 0; i < n; i++)
        ck_assert_msg(v[i] == expected[i], "element %d is %.17g, expected %.17g", (int)i, v[i],
                      expected[i]);
}
#define HOLDS(t, ...)                                                                              \
    holds(t, (int64_t)(sizeof((double[]){__VA_ARGS__}) / sizeof(double)), (double[]){__VA_ARGS__})

static inline void has_grad(am_tensor *t, int64_t n, const double *expected)
{
    am_tensor *g;
    OK(am_tensor_grad(&g, t));
    ck_assert_ptr_nonnull(g);
    holds(g, n, expected);
    am_tensor_release(g);
}
#define HAS_GRAD(t, ...)                                                                           \
    has_grad(t, (int64_t)(sizeof((double[]){__VA_ARGS__}) / sizeof(double)),                       \
             (double[]){__VA_ARGS__})

static inline am_tensor *op1(int op, am_tensor *a, am_attrs attrs)
{
    am_tensor *out;
    OK(am_apply(op, &out, &a, 1, &attrs));
    return out;
}

static inline am_tensor *op2(int op, am_tensor *a, am_tensor *b)
{
    am_tensor *out, *in[] = {a, b};
    am_attrs attrs = {.scalar = {0}};
    OK(am_apply(op, &out, in, 2, &attrs));
    return out;
}

static inline am_tensor *times(am_tensor *a, double k)
{
    return op1(AM_OP_mul_scalar, a, (am_attrs){.scalar = {k}});
}

static inline am_tensor *total(am_tensor *a)
{
    return op1(AM_OP_sum, a, (am_attrs){.reduce = {AM_ALL_DIMS, 0}});
}

static inline void release_all(am_tensor **t, int n)
{
    for (int i = 0; i < n; i++)
        am_tensor_release(t[i]);
}
#define RELEASE(...)                                                                               \
    release_all((am_tensor *[]){__VA_ARGS__},                                                      \
                (int)(sizeof((am_tensor *[]){__VA_ARGS__}) / sizeof(am_tensor *)))

static inline int64_t live_bytes(int device)
{
    am_mem_stats s;
    OK(am_mem_get(device, &s));
    return s.live_bytes;
}

static inline int run_suite(Suite *s)
{
    SRunner *runner = srunner_create(s);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}

#endif
