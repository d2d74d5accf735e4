/* gemv.c — a few rows times a weight matrix, y = x W^T, as one generated token needs it, for f32,
 * bf16 and f16; f64 goes to ref. It takes as long as reading the weight, which is read once, in
 * order, whatever the number of rows.
 *
 * An element of y is one chain of fused additions in each lane of a vector, then the sum of the
 * lanes: its bits depend neither on the rows beside it nor on the number of threads. */
#include "rows.h"
#include "../ref_kernels.h"

/* y's elements of x's rows r.. and w's rows j... x is f32, its rows `padded` long. */
AM_INLINE void tile(const am_gemv_args *args, int dtype, const float *x, int64_t padded, int64_t r,
                    int rows, int64_t j, int cols)
{
    vf sum[X_ROWS][W_ROWS];
    const char *w = (const char *)args->w + j * args->k * simd_size(dtype);
    rows_dot(sum, x + r * padded, padded, rows, w, dtype, args->k, cols, args->k);
    for (int m = 0; m < rows; m++)
        for (int c = 0; c < cols; c++) {
            int64_t at = (r + m) * args->n + j + c;
            float v = vsum(sum[m][c]) * (float)args->alpha;
            if (args->bias)
                v += load1(args->bias, dtype, j + c);
            if (args->accumulate)
                v += load1(args->y, dtype, at);
            store1(args->y, dtype, at, v);
        }
}

/* All rows of x by w's rows j.. */
AM_INLINE void columns(const am_gemv_args *args, int dtype, const float *x, int64_t padded,
                       int64_t j, int cols)
{
    ROWS_EACH(args->rows, tile(args, dtype, x, padded, r, rows, j, cols));
}

/* Each thread takes a run of w's rows. */
int AM_SIMD(gemv)(am_stream *s, const am_gemv_args *args)
{
    if (!is_simd_float(args->dtype))
        return am_ref_gemv(s, args);
    int64_t padded = (args->k + VW - 1) / VW * VW, tiles = args->n / W_ROWS;
    float *x = am_scratch(0, (size_t)(args->rows * padded + 1) * sizeof *x);
    if (!x)
        return am_kernel_fail(AM_ENOMEM, "gemv: no scratch memory");
    for (int64_t r = 0; r < args->rows; r++)
        for (int64_t i = 0; i < args->k; i += VW)
            vstore(x + r * padded + i,
                   vget_n(args->x, args->dtype, r * args->k + i, args->k - i, 0));
#pragma omp parallel for num_threads(team(args->n * args->k)) schedule(static)
    for (int64_t t = 0; t < tiles; t++)
        AM_WITH_DTYPE(T, args->dtype, columns(args, T, x, padded, t * W_ROWS, W_ROWS))
    for (int64_t j = tiles * W_ROWS; j < args->n; j++)
        AM_WITH_DTYPE(T, args->dtype, columns(args, T, x, padded, j, 1))
    return AM_OK;
}
