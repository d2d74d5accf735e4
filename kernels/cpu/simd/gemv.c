/* gemv.c — a few rows times a weight matrix, y = x W^T, as one generated token needs it, for f32,
 * bf16 and f16; f64 goes to ref. It takes as long as reading the weight, which is read once, in
 * order, whatever the number of rows.
 *
 * An element of y is one chain of fused additions in each lane of a vector, then the sum of the
 * lanes: its bits depend neither on the rows beside it nor on the number of threads. */
#include "vec.h"
#include "../ref_kernels.h"

enum { W_ROWS = 4, X_ROWS = VW == 16 ? 4 : 2 }; /* that share registers */

/* One vector further: elements i.. of x's rows and of w's, which are n (at most VW) before the end.
 */
AM_INLINE void step(vf sum[X_ROWS][W_ROWS], const float *x, int64_t padded, int rows, const void *w,
                    int dtype, int64_t k, int cols, int64_t i, int64_t n)
{
    vf col[W_ROWS];
    for (int c = 0; c < cols; c++)
        col[c] = vget_n(w, dtype, c * k + i, n, 0);
    for (int m = 0; m < rows; m++) {
        vf v = vload(x + m * padded + i);
        for (int c = 0; c < cols; c++)
            sum[m][c] = vfma(v, col[c], sum[m][c]);
    }
}

/* y's elements of x's rows r.., `rows` of them, and w's rows j.., `cols` of them. x is f32, its
 * rows `padded` long. What comes next in w is asked for ahead. */
AM_INLINE void tile(const am_gemv_args *args, int dtype, const float *x, int64_t padded, int64_t r,
                    int rows, int64_t j, int cols)
{
    enum { LINE = 64 };
    int64_t k = args->k, size = simd_size(dtype), line = LINE / size, i = 0;
    const char *w = (const char *)args->w + j * k * size;
    vf sum[X_ROWS][W_ROWS] = {{{0}}};
    x += r * padded;
    for (; i + line <= k; i += line) {
        for (int c = 0; c < cols; c++)
            __builtin_prefetch(w + ((W_ROWS + c) * k + i) * size);
        for (int64_t v = 0; v < line; v += VW)
            step(sum, x, padded, rows, w, dtype, k, cols, i + v, VW);
    }
    for (; i < k; i += VW)
        step(sum, x, padded, rows, w, dtype, k, cols, i, k - i);
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
    int64_t r = 0;
    for (; r + X_ROWS <= args->rows; r += X_ROWS)
        tile(args, dtype, x, padded, r, X_ROWS, j, cols);
    for (; r + 2 <= args->rows; r += 2)
        tile(args, dtype, x, padded, r, 2, j, cols);
    for (; r < args->rows; r++)
        tile(args, dtype, x, padded, r, 1, j, cols);
}

/* Each thread takes a run of w's rows. */
AM_INLINE int gemv_simd(const am_gemv_args *args, int dtype)
{
    int64_t padded = (args->k + VW - 1) / VW * VW, tiles = args->n / W_ROWS;
    float *x = am_scratch(0, (size_t)(args->rows * padded + 1) * sizeof *x);
    if (!x)
        return am_kernel_fail(AM_ENOMEM, "gemv: no scratch memory");
    for (int64_t r = 0; r < args->rows; r++)
        for (int64_t i = 0; i < args->k; i += VW)
            vstore(x + r * padded + i, vget_n(args->x, dtype, r * args->k + i, args->k - i, 0));
#pragma omp parallel for num_threads(team(args->n * args->k)) schedule(static)
    for (int64_t t = 0; t < tiles; t++)
        columns(args, dtype, x, padded, t * W_ROWS, W_ROWS);
    for (int64_t j = tiles * W_ROWS; j < args->n; j++)
        columns(args, dtype, x, padded, j, 1);
    return AM_OK;
}

int AM_SIMD(gemv)(am_stream *s, const am_gemv_args *args)
{
    AM_DISPATCH_SIMD(args->dtype, gemv_simd, args, am_ref_gemv(s, args))
}
