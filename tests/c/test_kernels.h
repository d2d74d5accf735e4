/* test_kernels.h — what the kernel tests share: the SIMD tables of this CPU, random operands of any
 * dtype, and a comparison in which NaN equals NaN. */
#ifndef TEST_KERNELS_H
#define TEST_KERNELS_H

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "backend.h"
#include "dtype.h"
#include "kernels/cpu/cpu.h"

enum { ISA_COUNT = 4 };
static const char *const isa_label[ISA_COUNT] = {"generic", "avx2", "avx512", "avx512_bf16"};

/* The kernels for an instruction set, or NULL where this CPU lacks it. */
static inline const am_cpu_kernels *isa_kernels(int isa)
{
#if defined(__x86_64__)
    if (isa == 1)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")
                   ? &am_cpu_kernels_avx2
                   : NULL;
    if (isa == 2)
        return __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw")
                   ? &am_cpu_kernels_avx512
                   : NULL;
    if (isa == 3)
        return __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bf16")
                   ? &am_cpu_kernels_avx512_bf16
                   : NULL;
#endif
    return isa == 0 ? &am_cpu_kernels_generic : NULL;
}

static const int half_dtypes[] = {AM_F32, AM_BF16, AM_F16};
static const int float_dtypes[] = {AM_F32, AM_BF16, AM_F16, AM_F64};

static inline size_t elem_size(int dtype)
{
    return (size_t)am_dtype_size(dtype);
}

static inline double elem_get(const void *p, int dtype, int64_t i)
{
    switch (dtype) {
    case AM_F32:
        return (double)((const float *)p)[i];
    case AM_BF16:
        return (double)am_bf16_to_f32(((const uint16_t *)p)[i]);
    case AM_F16:
        return (double)am_f16_to_f32(((const uint16_t *)p)[i]);
    case AM_I32:
        return ((const int32_t *)p)[i];
    case AM_I64:
        return (double)((const int64_t *)p)[i];
    case AM_U8:
    case AM_BOOL:
        return ((const uint8_t *)p)[i];
    default:
        return ((const double *)p)[i];
    }
}

static inline void elem_set(void *p, int dtype, int64_t i, double v)
{
    switch (dtype) {
    case AM_F32:
        ((float *)p)[i] = (float)v;
        break;
    case AM_BF16:
        ((uint16_t *)p)[i] = am_f32_to_bf16((float)v);
        break;
    case AM_F16:
        ((uint16_t *)p)[i] = am_f32_to_f16((float)v);
        break;
    case AM_I32:
        ((int32_t *)p)[i] = (int32_t)v;
        break;
    case AM_I64:
        ((int64_t *)p)[i] = (int64_t)v;
        break;
    case AM_BOOL:
        ((uint8_t *)p)[i] = v > 0;
        break;
    case AM_U8:
        ((uint8_t *)p)[i] = (uint8_t)fabs(v);
        break;
    default:
        ((double *)p)[i] = v;
        break;
    }
}

static uint32_t random_state = 1;

static inline double random_in(double lo, double hi)
{
    random_state = random_state * 1664525u + 1013904223u;
    return lo + (hi - lo) * (double)(random_state >> 8) / 16777216.0;
}

/* n elements (at least one) of 0xff bytes: NaN. Freed by the caller. */
static inline void *elems(int dtype, int64_t n)
{
    size_t bytes = (size_t)(n ? n : 1) * elem_size(dtype);
    void *p = malloc(bytes);
    ck_assert_ptr_nonnull(p);
    memset(p, 0xff, bytes);
    return p;
}

static inline void *random_elems(int dtype, int64_t n, double lo, double hi)
{
    void *p = elems(dtype, n);
    for (int64_t i = 0; i < n; i++)
        elem_set(p, dtype, i, random_in(lo, hi));
    return p;
}

static inline void *copy_elems(int dtype, int64_t n, const void *from)
{
    void *p = elems(dtype, n);
    memcpy(p, from, (size_t)n * elem_size(dtype));
    return p;
}

/* One unit in the last place, relative: what rounding a slightly different f32 value may change. */
static inline double ulp_of(int dtype)
{
    return dtype == AM_BF16  ? 0x1p-7
           : dtype == AM_F16 ? 0x1p-10
           : dtype == AM_F32 ? 0x1p-23
                             : 0x1p-52;
}

/* |got - want| <= absolute + relative |want|; NaN equals NaN, infinities equal themselves. Checks
 * as a whole: Check sends a message for every assertion. */
static inline void check_close(const char *what, const void *got, const void *want, int dtype,
                               int64_t n, double relative, double absolute)
{
    for (int64_t i = 0; i < n; i++) {
        double g = elem_get(got, dtype, i), w = elem_get(want, dtype, i);
        int same = (g != g && w != w) || g == w || fabs(g - w) <= absolute + relative * fabs(w);
        if (!same)
            ck_abort_msg("%s: element %lld of %lld: %.9g, expected %.9g", what, (long long)i,
                         (long long)n, g, w);
    }
}

static inline void check_same_bits(const char *what, const void *a, const void *b, size_t bytes)
{
    size_t i = 0;
    if (memcmp(a, b, bytes) == 0)
        return;
    while (((const char *)a)[i] == ((const char *)b)[i])
        i++;
    ck_abort_msg("%s: byte %zu of %zu differs", what, i, bytes);
}

/* Runs every test with _i from 0 to `loops` - 1. */
static inline int run_loops(const char *name, const TTest *const *tests, int count, int loops)
{
    Suite *suite = suite_create(name);
    TCase *tcase = tcase_create(name);
    tcase_set_timeout(tcase, 120);
    for (int i = 0; i < count; i++)
        tcase_add_loop_test(tcase, tests[i], 0, loops);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

static inline int run_suite(const char *name, const TTest *const *tests, int count)
{
    return run_loops(name, tests, count, 1);
}

#endif
