/* Products of rows sorted by group, on the CPU's own backend: against ref at sizes that cross
 * tasks, whatever the groups' sizes; a row's bits alone and in company; gradients on any number of
 * threads, and of a group whatever the others are. Run it with AMLUA_ISA for the others that the
 * CPU has. */
#include "test_kernels.h"

typedef struct shape {
    int64_t groups, n, k;
    int32_t offsets[10];
} shape;

static const shape shapes[] = {
    {1, 1, 1, {0, 1}},
    {3, 37, 65, {0, 0, 1, 26}},
    {9, 64, 32, {0, 3, 3, 300, 301, 325, 517, 517, 517, 800}},
    {4, 530, 70, {0, 250, 600, 600, 633}},
    {2, 33, 4200, {0, 5, 31}}, /* sums in parts where they are converted */
    {3, 7, 5, {0, 0, 0, 0}},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static double error_of(int dtype, int64_t k)
{
    return 2 * sqrt((double)k) * ulp_of(AM_F32) * 4 + (dtype == AM_F32 ? 0 : ulp_of(dtype));
}

START_TEST(agrees_with_ref)
{
    const am_backend *cpu = am_backend_cpu();
    for (int c = 0; c < SHAPES * 3 * 4; c++) {
        const shape *x = &shapes[c % SHAPES];
        int dtype = half_dtypes[c / SHAPES % 3], mode = c / SHAPES / 3;
        int turned = mode & 1, add = mode >> 1, to = mode == 2 ? AM_F32 : dtype;
        int64_t rows = x->offsets[x->groups], n = x->n, k = x->k, e = x->groups;
        void *a = random_elems(dtype, rows * k, -1, 1), *w = random_elems(dtype, e * n * k, -1, 1);
        void *bias = mode ? random_elems(dtype, e * n, -1, 1) : NULL;
        void *got = random_elems(to, rows * n, -1, 1), *want = copy_elems(to, rows * n, got);
        am_grouped_gemm_args args = {got,     a,   w, bias, x->offsets, dtype, to,
                                     !turned, add, e, rows, n,          k};
        char what[96];
        snprintf(what, sizeof what, "shape %d %s mode %d", c % SHAPES, am_dtype_name(dtype), mode);
        ck_assert_int_eq(cpu->grouped_gemm(NULL, &args), AM_OK);
        args.c = want;
        ck_assert_int_eq(am_backend_ref.grouped_gemm(NULL, &args), AM_OK);
        check_close(what, got, want, to, rows * n, error_of(to, k), error_of(to, k));
        void *dout = random_elems(dtype, rows * n, -1, 1);
        void *dw = random_elems(to, e * n * k, -1, 1), *dw_ref = copy_elems(to, e * n * k, dw);
        void *db = random_elems(dtype, e * n, -1, 1), *db_ref = copy_elems(dtype, e * n, db);
        am_grouped_gemm_dw_args back = {dw,     db,  dout, a, x->offsets, dtype, to, dtype,
                                        turned, add, add,  e, rows,       n,     k};
        ck_assert_int_eq(cpu->grouped_gemm_dw(NULL, &back), AM_OK);
        back.dw = dw_ref;
        back.dbias = db_ref;
        ck_assert_int_eq(am_backend_ref.grouped_gemm_dw(NULL, &back), AM_OK);
        check_close(what, dw, dw_ref, to, e * n * k, error_of(to, rows), error_of(to, rows));
        check_close(what, db, db_ref, dtype, e * n, error_of(dtype, rows), error_of(dtype, rows));
        void *all[] = {a, w, bias, got, want, dout, dw, dw_ref, db, db_ref};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++)
            free(all[i]);
    }
}
END_TEST

/* 317 rows in three groups, each of them alone, and in groups of another size. */
START_TEST(company_and_threads_leave_the_bits)
{
    enum { E = 3, N = 70, K = 96, ROWS = 317 };
    static const int32_t groups[] = {0, 20, 117, 317};
    const am_backend *cpu = am_backend_cpu();
    for (int c = 0; c < 6; c++) {
        int dtype = half_dtypes[c % 3], trans = c / 3;
        size_t size = elem_size(dtype), row_bytes = N * size;
        char *a = random_elems(dtype, ROWS * K, -1, 1), *w = random_elems(dtype, E * N * K, -1, 1);
        char *all = elems(dtype, ROWS * N), *again = elems(dtype, ROWS * N);
        am_grouped_gemm_args args = {.c = all,
                                     .a = a,
                                     .b = w,
                                     .offsets = groups,
                                     .dtype_ab = dtype,
                                     .dtype_c = dtype,
                                     .trans_b = trans,
                                     .groups = E,
                                     .rows = ROWS,
                                     .n = N,
                                     .k = K};
        am_threads_set(1);
        ck_assert_int_eq(cpu->grouped_gemm(NULL, &args), AM_OK);
        am_threads_set(3);
        args.c = again;
        ck_assert_int_eq(cpu->grouped_gemm(NULL, &args), AM_OK);
        check_same_bits("threads", again, all, ROWS * row_bytes);
        for (int g = 0; g < E; g++)
            for (int32_t r = groups[g], n = 1; r < groups[g + 1]; r += n, n += 7) {
                if (r + n > groups[g + 1])
                    n = groups[g + 1] - r;
                int32_t few[] = {0, g > 0 ? 0 : n, g > 1 ? 0 : n, n};
                args.offsets = few;
                args.a = a + (size_t)r * K * size;
                args.rows = n;
                ck_assert_int_eq(cpu->grouped_gemm(NULL, &args), AM_OK);
                check_same_bits("few rows", again, all + (size_t)r * row_bytes,
                                (size_t)n * row_bytes);
            }
        free(a);
        free(w);
        free(all);
        free(again);
    }
}
END_TEST

START_TEST(gradients_leave_the_bits)
{
    enum { E = 3, N = 230, K = 96, ROWS = 617 };
    static const int32_t groups[] = {0, 20, 317, 617};
    const am_backend *cpu = am_backend_cpu();
    for (int c = 0; c < 6; c++) {
        int dtype = half_dtypes[c % 3], turned = c / 3;
        size_t size = elem_size(dtype), matrix = (size_t)N * K * sizeof(float);
        char *x = random_elems(dtype, ROWS * K, -1, 1),
             *dout = random_elems(dtype, ROWS * N, -1, 1);
        char *dw = elems(AM_F32, E * N * K), *again = elems(AM_F32, E * N * K);
        am_grouped_gemm_dw_args args = {.dw = dw,
                                        .dout = dout,
                                        .x = x,
                                        .offsets = groups,
                                        .dtype = dtype,
                                        .dtype_dw = AM_F32,
                                        .turned = turned,
                                        .groups = E,
                                        .rows = ROWS,
                                        .n = N,
                                        .k = K};
        am_threads_set(1);
        ck_assert_int_eq(cpu->grouped_gemm_dw(NULL, &args), AM_OK);
        args.dw = again;
        for (int threads = 2; threads <= 5; threads += 3) {
            am_threads_set(threads);
            ck_assert_int_eq(cpu->grouped_gemm_dw(NULL, &args), AM_OK);
            check_same_bits("threads", again, dw, E * matrix);
        }
        for (int g = 0; g < E; g++) { /* alone */
            const int32_t one[] = {0, groups[g + 1] - groups[g]};
            args.offsets = one;
            args.groups = 1;
            args.rows = one[1];
            args.x = x + (size_t)groups[g] * K * size;
            args.dout = dout + (size_t)groups[g] * N * size;
            ck_assert_int_eq(cpu->grouped_gemm_dw(NULL, &args), AM_OK);
            check_same_bits("one group", again, dw + (size_t)g * matrix, matrix);
        }
        free(x);
        free(dout);
        free(dw);
        free(again);
    }
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {agrees_with_ref, company_and_threads_leave_the_bits,
                                  gradients_leave_the_bits};
    return run_suite("kernels_grouped", tests, sizeof tests / sizeof *tests);
}
