/* The thin products of a map of low rank against ref, on each instruction set and as this CPU has
 * them (which may be by gemm): sizes that are no multiple of a vector, a tile or a part, either
 * result alone, both layouts, accumulation, every dtype; rows whose bits don't depend on how many
 * there are, and no bit on the number of threads. */
#include "test_kernels.h"

typedef int kernel(am_stream *s, const am_low_rank_args *args);

/* The kernel of an instruction set, or NULL where this CPU lacks it; after them the CPU's own. */
enum { KERNELS = ISA_COUNT + 1 };
static kernel *kernel_at(int i)
{
    if (i == ISA_COUNT)
        return am_backend_cpu()->low_rank;
    const am_cpu_kernels *kernels = isa_kernels(i);
    return kernels ? kernels->low_rank : NULL;
}

static am_low_rank_args make(int dtype, int64_t m, int64_t k, int64_t r)
{
    return (am_low_rank_args){.u = random_elems(dtype, m * r, -1, 1),
                              .g = random_elems(dtype, k * r, -1, 1),
                              .a = random_elems(dtype, m * k, -1, 1),
                              .p = random_elems(dtype, k * r, -1, 1),
                              .t = random_elems(dtype, m * r, -1, 1),
                              .dtype = dtype,
                              .dtype_g = dtype,
                              .scale = 1,
                              .m = m,
                              .k = k,
                              .r = r};
}

static void discard(am_low_rank_args *l)
{
    free(l->u);
    free(l->g);
    free((void *)(uintptr_t)l->a);
    free((void *)(uintptr_t)l->p);
    free((void *)(uintptr_t)l->t);
}

/* A result, or none where l has none. */
static void *copy_of(int dtype, int64_t n, const void *from)
{
    return from ? copy_elems(dtype, n, from) : NULL;
}

static void compare(kernel *run, const am_low_rank_args *l, const char *what)
{
    am_low_rank_args got = *l, want = *l;
    got.u = copy_of(l->dtype, l->m * l->r, l->u);
    got.g = copy_of(l->dtype_g, l->k * l->r, l->g);
    want.u = copy_of(l->dtype, l->m * l->r, l->u);
    want.g = copy_of(l->dtype_g, l->k * l->r, l->g);
    ck_assert_int_eq(am_backend_ref.low_rank(NULL, &want), AM_OK);
    ck_assert_int_eq(run(NULL, &got), AM_OK);
    double error = l->dtype == AM_F64 ? 1e-13 : 4e-6; /* of a sum of n random terms, by sqrt n */
    if (l->u)
        check_close(what, got.u, want.u, l->dtype, l->m * l->r, ulp_of(l->dtype),
                    error * sqrt((double)l->k + 1) + ulp_of(l->dtype) * 1e-3);
    if (l->g)
        check_close(what, got.g, want.g, l->dtype_g, l->k * l->r, ulp_of(l->dtype_g),
                    error * sqrt((double)l->m + 1) + ulp_of(l->dtype_g) * 1e-3);
    free(got.u);
    free(got.g);
    free(want.u);
    free(want.g);
}

START_TEST(agrees_with_ref)
{
    static const int64_t sizes[][3] = {{1, 1, 1},      {2, 16, 8},    {33, 64, 8},  {7, 5, 3},
                                       {65, 37, 11},   {130, 100, 4}, {5, 129, 17}, {1100, 48, 8},
                                       {256, 128, 16}, {200, 66, 40}, {3, 2000, 1}, {3, 40, 0}};
    kernel *run = kernel_at(_i);
    if (!run)
        return;
    enum {
        SIZES = sizeof sizes / sizeof *sizes,
        TYPES = sizeof float_dtypes / sizeof *float_dtypes
    };
    for (int c = 0; c < SIZES * TYPES * 2; c++) {
        const int64_t *size = sizes[c % SIZES];
        int dtype = float_dtypes[c / SIZES % TYPES];
        am_low_rank_args l = make(dtype, size[0], size[1], size[2]);
        l.turned = c / SIZES / TYPES;
        char what[96];
        snprintf(what, sizeof what, "%s %s %lld x %lld, rank %lld%s",
                 _i < ISA_COUNT ? isa_label[_i] : "cpu", am_dtype_name(dtype), (long long)size[0],
                 (long long)size[1], (long long)size[2], l.turned ? ", turned" : "");
        compare(run, &l, what);
        l.accumulate = 1;
        l.scale = -0.37; /* must scale u alone */
        compare(run, &l, what);
        am_low_rank_args one = l;
        one.u = NULL;
        one.p = NULL;
        compare(run, &one, what);
        one = l;
        one.g = NULL;
        one.t = NULL;
        compare(run, &one, what);
        discard(&l);
    }
}
END_TEST

/* bf16 and f16 with gradients in f32. */
START_TEST(gradient_in_f32)
{
    kernel *run = kernel_at(_i);
    if (!run)
        return;
    for (int c = 0; c < 4; c++) {
        am_low_rank_args l = make(c & 1 ? AM_BF16 : AM_F16, 70, 50, 9);
        free(l.g);
        l.dtype_g = AM_F32;
        l.g = random_elems(AM_F32, 50 * 9, -1, 1);
        l.turned = c >> 1;
        compare(run, &l, "gradient in f32");
        l.accumulate = 1;
        compare(run, &l, "gradient in f32, added");
        discard(&l);
    }
}
END_TEST

START_TEST(empty)
{
    kernel *run = kernel_at(_i);
    if (!run)
        return;
    am_low_rank_args l = make(AM_F32, 0, 5, 3);
    compare(run, &l, "no rows"); /* g is zeros */
    l.accumulate = 1;
    compare(run, &l, "no rows, accumulate");
    discard(&l);
    l = make(AM_F32, 4, 0, 3);
    compare(run, &l, "no columns"); /* u is zeros */
    l.dtype = AM_I32;
    ck_assert_int_eq(run(NULL, &l), AM_EUNSUP);
    discard(&l);
}
END_TEST

START_TEST(bits_depend_on_the_row_alone)
{
    kernel *run = kernel_at(_i);
    if (!run)
        return;
    enum { M = 300, R = 11, TYPES = sizeof half_dtypes / sizeof *half_dtypes };
    for (int c = 0; c < 2 * TYPES; c++) {
        int dtype = half_dtypes[c % TYPES];
        int64_t k = c < TYPES ? 203 : 192; /* whose rows are used where they lie */
        size_t size = elem_size(dtype), row = (size_t)k * size;
        am_low_rank_args l = make(dtype, M, k, R);
        am_threads_set(1);
        ck_assert_int_eq(run(NULL, &l), AM_OK);
        for (int threads = 2; threads <= 3; threads++) {
            am_low_rank_args again = l;
            again.u = elems(dtype, M * R);
            again.g = elems(dtype, k * R);
            am_threads_set(threads);
            ck_assert_int_eq(run(NULL, &again), AM_OK);
            check_same_bits("u by threads", again.u, l.u, M * R * size);
            check_same_bits("g by threads", again.g, l.g, R * row);
            free(again.u);
            free(again.g);
        }
        for (int64_t first = 0; first < M; first += 37) {
            am_low_rank_args some = l;
            some.g = NULL;
            some.m = 1 + first % 5;
            some.a = (const char *)l.a + (size_t)first * row;
            some.u = elems(dtype, some.m * R);
            ck_assert_int_eq(run(NULL, &some), AM_OK);
            check_same_bits("some rows", some.u, (const char *)l.u + (size_t)first * R * size,
                            (size_t)some.m * R * size);
            free(some.u);
        }
        discard(&l);
    }
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {agrees_with_ref, gradient_in_f32, empty,
                                  bits_depend_on_the_row_alone};
    return run_loops("kernels_low_rank", tests, sizeof tests / sizeof *tests, KERNELS);
}
