/* ref_fp8.c — reference kernels of products in 8 bits: casts with a scale, and the product. */
#include "fp8.h"
#include "ref.h"

/* Which scale element (i, j) has. */
static int64_t scale_at(int per, int64_t i, int64_t j)
{
    return per == AM_FP8_PER_ROW ? i : per == AM_FP8_PER_COLUMN ? j : 0;
}

/* NaN where either is. */
static double larger(double a, double b)
{
    return b > a || b != b ? b : a;
}

AM_INLINE int quantize_float(const am_fp8_quantize_args *args, int dtype)
{
    fp8_format f = fp8_format_of(args->format);
    int64_t rows = args->rows, cols = args->cols, scales = 1;
    if (args->per != AM_FP8_PER_TENSOR)
        scales = args->per == AM_FP8_PER_ROW ? rows : cols;
    for (int64_t s = 0; s < scales; s++) { /* step over what shares it */
        int by_row = args->per == AM_FP8_PER_ROW, by_column = args->per == AM_FP8_PER_COLUMN;
        int64_t first = by_row ? s * cols : by_column ? s : 0, step = by_column ? cols : 1;
        int64_t end = by_row ? first + cols : rows * cols;
        double amax = 0;
        for (int64_t i = first; i < end; i += step)
            amax = larger(amax, fabs(load(args->a, dtype, i)));
        args->inverse[s] = fp8_scale(amax, f.max, args->power_of_2);
    }
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++)
            ((uint8_t *)args->q)[i * cols + j] =
                fp8_encode((float)load(args->a, dtype, i * cols + j) *
                               args->inverse[scale_at(args->per, i, j)],
                           &f);
    for (int64_t s = 0; s < scales; s++)
        args->inverse[s] = 1 / args->inverse[s];
    return AM_OK;
}

int am_ref_fp8_quantize(am_stream *s, const am_fp8_quantize_args *args)
{
    (void)s;
    AM_DISPATCH_FLOAT(args->dtype, quantize_float, args)
}

int am_ref_fp8_gemm(am_stream *s, const am_fp8_gemm_args *args)
{
    (void)s;
    const uint8_t *a = args->a, *b = args->b;
    int64_t m = args->m, n = args->n, k = args->k;
    if (!is_float(args->dtype_c))
        return AM_EUNSUP;
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t l = 0; l < k; l++)
                sum +=
                    (double)fp8_decode(a[args->trans_a ? l * m + i : i * k + l], args->format_a) *
                    (double)fp8_decode(b[args->trans_b ? j * k + l : l * n + j], args->format_b);
            sum *= (double)args->inverse_a[args->rows_a ? i : 0];
            sum *= (double)args->inverse_b[args->columns_b ? j : 0];
            if (args->accumulate)
                sum += load(args->c, args->dtype_c, i * n + j);
            store(args->c, args->dtype_c, i * n + j, sum);
        }
    return AM_OK;
}
