/* Products of a few rows against ref, on each instruction set: sizes that are no multiple of a
 * vector or a tile, bias, alpha, accumulation, every dtype; and rows whose bits depend neither on
 * how many there are nor on the number of threads. */
#include "test_kernels.h"

static am_gemv_args make(int dtype, int64_t rows, int64_t n, int64_t k)
{
    return (am_gemv_args){.y = random_elems(dtype, rows * n, -1, 1),
                          .x = random_elems(dtype, rows * k, -1, 1),
                          .w = random_elems(dtype, n * k, -1, 1),
                          .dtype = dtype,
                          .alpha = 1,
                          .rows = rows,
                          .n = n,
                          .k = k};
}

static void discard(am_gemv_args *g)
{
    free(g->y);
    free((void *)(uintptr_t)g->x);
    free((void *)(uintptr_t)g->w);
    free((void *)(uintptr_t)g->bias);
}

static void compare(const am_cpu_kernels *kernels, am_gemv_args *g, const char *what)
{
    void *want = copy_elems(g->dtype, g->rows * g->n, g->y);
    am_gemv_args ref = *g;
    ref.y = want;
    ck_assert_int_eq(am_backend_ref.gemv(NULL, &ref), AM_OK);
    ck_assert_int_eq(kernels->gemv(NULL, g), AM_OK);
    double error = g->dtype == AM_F64 ? 1e-13 : 4e-6;
    check_close(what, g->y, want, g->dtype, g->rows * g->n, ulp_of(g->dtype),
                error * sqrt((double)g->k + 1) + ulp_of(g->dtype) * 1e-3);
    free(want);
}

START_TEST(agrees_with_ref)
{
    static const int64_t sizes[][2] = {{1, 1},   {4, 16},  {3, 5},     {5, 17},   {64, 64},
                                       {7, 300}, {97, 33}, {600, 129}, {192, 576}};
    const am_cpu_kernels *kernels = isa_kernels(_i);
    if (!kernels)
        return;
    for (int c = 0; c < 9 * 4 * 9; c++) {
        const int64_t *size = sizes[c % 9];
        int dtype = float_dtypes[c / 9 % 4], rows = 1 + c / 36;
        char what[96];
        snprintf(what, sizeof what, "%s %s %d x %lld x %lld", isa_label[_i], am_dtype_name(dtype),
                 rows, (long long)size[0], (long long)size[1]);
        am_gemv_args g = make(dtype, rows, size[0], size[1]);
        compare(kernels, &g, what);
        g.bias = random_elems(dtype, size[0], -1, 1);
        g.accumulate = 1;
        compare(kernels, &g, what);
        g.alpha = -0.37; /* must scale neither bias nor y */
        compare(kernels, &g, what);
        discard(&g);
    }
}
END_TEST

START_TEST(empty)
{
    const am_cpu_kernels *kernels = isa_kernels(_i);
    if (!kernels)
        return;
    am_gemv_args g = make(AM_F32, 2, 3, 0);
    compare(kernels, &g, "k 0"); /* zeros */
    g.accumulate = 1;
    compare(kernels, &g, "k 0, accumulate");
    g.n = 0;
    ck_assert_int_eq(kernels->gemv(NULL, &g), AM_OK);
    g.dtype = AM_I32;
    ck_assert_int_eq(kernels->gemv(NULL, &g), AM_EUNSUP);
    discard(&g);
}
END_TEST

/* Eight rows, then each run of them alone. */
static void rows_case(const am_cpu_kernels *kernels, int dtype, int64_t n, int64_t k)
{
    int64_t size = (int64_t)elem_size(dtype);
    am_gemv_args g = make(dtype, AM_FEW_ROWS, n, k);
    am_threads_set(1);
    ck_assert_int_eq(kernels->gemv(NULL, &g), AM_OK);
    char *part = elems(dtype, AM_FEW_ROWS * n);
    for (int c = 0; c < 2 * AM_FEW_ROWS * AM_FEW_ROWS; c++) {
        int64_t first = c % AM_FEW_ROWS, rows = 1 + c / AM_FEW_ROWS % AM_FEW_ROWS;
        if (first + rows > AM_FEW_ROWS)
            continue;
        am_gemv_args some = g;
        some.rows = rows;
        some.x = (const char *)g.x + first * k * size;
        some.y = part;
        am_threads_set(1 + c / (AM_FEW_ROWS * AM_FEW_ROWS));
        ck_assert_int_eq(kernels->gemv(NULL, &some), AM_OK);
        char what[96];
        snprintf(what, sizeof what, "%s: %lld rows from %lld", am_dtype_name(dtype),
                 (long long)rows, (long long)first);
        check_same_bits(what, part, (const char *)g.y + first * n * size,
                        (size_t)(rows * n * size));
    }
    free(part);
    discard(&g);
}

START_TEST(rows_do_not_depend_on_each_other)
{
    const am_cpu_kernels *kernels = isa_kernels(_i);
    if (!kernels)
        return;
    for (size_t d = 0; d < sizeof half_dtypes / sizeof *half_dtypes; d++) {
        rows_case(kernels, half_dtypes[d], 203, 576);
        rows_case(kernels, half_dtypes[d], 1030, 77);
    }
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {agrees_with_ref, empty, rows_do_not_depend_on_each_other};
    return run_loops("kernels_gemv", tests, sizeof tests / sizeof *tests, ISA_COUNT);
}
