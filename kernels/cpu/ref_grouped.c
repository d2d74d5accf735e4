/* ref_grouped.c — reference products of rows sorted by group: one gemm for each group, after a
 * check of where groups begin, which all backends on the host share. */
#include "ref.h"

int am_ref_check_groups(const int32_t *offsets, int64_t groups, int64_t rows)
{
    if (offsets[0] != 0)
        return am_kernel_fail(AM_EINVAL, "offsets begin with row %d, not 0", (int)offsets[0]);
    for (int64_t g = 0; g < groups; g++)
        if (offsets[g + 1] < offsets[g])
            return am_kernel_fail(AM_EINVAL, "offsets of group %lld go from row %d to %d",
                                  (long long)g, (int)offsets[g], (int)offsets[g + 1]);
    if (offsets[groups] != rows)
        return am_kernel_fail(AM_EINVAL, "offsets end at row %d, but there are %lld",
                              (int)offsets[groups], (long long)rows);
    return AM_OK;
}

static void *at(const void *p, int64_t elements, int dtype)
{
    int64_t size = dtype == AM_F64 ? 8 : dtype == AM_F32 ? 4 : 2;
    return (char *)(uintptr_t)p + elements * size;
}

int am_ref_grouped_gemm(am_stream *s, const am_grouped_gemm_args *args)
{
    int64_t n = args->n, k = args->k;
    int rc = am_ref_check_groups(args->offsets, args->groups, args->rows);
    for (int64_t g = 0; g < args->groups && rc == AM_OK; g++) {
        int64_t first = args->offsets[g];
        rc = am_ref_gemm(
            s, &(am_gemm_args){.c = at(args->c, first * n, args->dtype_c),
                               .a = at(args->a, first * k, args->dtype_ab),
                               .b = at(args->b, g * n * k, args->dtype_ab),
                               .bias = args->bias ? at(args->bias, g * n, args->dtype_ab) : NULL,
                               .dtype_ab = args->dtype_ab,
                               .dtype_c = args->dtype_c,
                               .trans_b = args->trans_b,
                               .accumulate = args->accumulate,
                               .alpha = 1,
                               .m = args->offsets[g + 1] - first,
                               .n = n,
                               .k = k,
                               .lda = k,
                               .ldb = args->trans_b ? k : n,
                               .ldc = n,
                               .batch = 1});
    }
    return rc;
}

AM_INLINE int dbias_float(const am_grouped_gemm_dw_args *args, int dtype)
{
    for (int64_t g = 0; g < args->groups; g++)
        for (int64_t j = 0; j < args->n; j++) {
            int64_t to = g * args->n + j;
            double sum = args->accumulate_db ? load(args->dbias, args->dtype_db, to) : 0;
            for (int64_t r = args->offsets[g]; r < args->offsets[g + 1]; r++)
                sum += load(args->dout, dtype, r * args->n + j);
            store(args->dbias, args->dtype_db, to, sum);
        }
    return AM_OK;
}

static int dbias(const am_grouped_gemm_dw_args *args)
{
    AM_DISPATCH_FLOAT(args->dtype, dbias_float, args)
}

int am_ref_grouped_gemm_dw(am_stream *s, const am_grouped_gemm_dw_args *args)
{
    int64_t m = args->turned ? args->k : args->n, n = args->turned ? args->n : args->k;
    const void *a = args->turned ? args->x : args->dout, *b = args->turned ? args->dout : args->x;
    int rc = am_ref_check_groups(args->offsets, args->groups, args->rows);
    for (int64_t g = 0; args->dw && g < args->groups && rc == AM_OK; g++) {
        int64_t first = args->offsets[g];
        rc = am_ref_gemm(s, &(am_gemm_args){.c = at(args->dw, g * m * n, args->dtype_dw),
                                            .a = at(a, first * m, args->dtype),
                                            .b = at(b, first * n, args->dtype),
                                            .dtype_ab = args->dtype,
                                            .dtype_c = args->dtype_dw,
                                            .trans_a = 1,
                                            .accumulate = args->accumulate_dw,
                                            .alpha = 1,
                                            .m = m,
                                            .n = n,
                                            .k = args->offsets[g + 1] - first,
                                            .lda = m,
                                            .ldb = n,
                                            .ldc = n,
                                            .batch = 1});
    }
    return rc == AM_OK && args->dbias ? dbias(args) : rc;
}
