/* rows.h — a few rows of floats by many rows of weights or keys, as one generated token needs them:
 * dot products that read the many once, in order. */
#ifndef AM_KERNELS_ROWS_H
#define AM_KERNELS_ROWS_H

#include "vec.h"

enum {
    W_ROWS = 4,
    X_ROWS = VW == 16 ? 4 : 2
}; /* of the many and of the few: what registers hold */

/* One vector further: elements i.., which are n (at most VW) before the end. */
AM_INLINE void rows_step(vf sum[X_ROWS][W_ROWS], const float *x, int64_t padded, int rows,
                         const void *w, int dtype, int64_t stride, int cols, int64_t i, int64_t n)
{
    vf col[W_ROWS];
    for (int c = 0; c < cols; c++)
        col[c] = vget_n(w, dtype, c * stride + i, n, 0);
    for (int m = 0; m < rows; m++) {
        vf v = vload(x + m * padded + i);
        for (int c = 0; c < cols; c++)
            sum[m][c] = vfma(v, col[c], sum[m][c]);
    }
}

/* sum[m][c] = the lanes of x's row m times w's row c, k long. x's rows are `padded` apart, with
 * zeros behind k; w's are `stride` apart. What comes next in w is asked for ahead. Each sum is one
 * chain of fused additions, the same for any `rows` and `cols`. */
AM_INLINE void rows_dot(vf sum[X_ROWS][W_ROWS], const float *x, int64_t padded, int rows,
                        const void *w, int dtype, int64_t stride, int cols, int64_t k)
{
    enum { LINE = 64 };
    int64_t size = simd_size(dtype), line = LINE / size, i = 0;
    for (int m = 0; m < rows; m++)
        for (int c = 0; c < cols; c++)
            sum[m][c] = (vf){0};
    for (; i + line <= k; i += line) {
        for (int c = 0; c < cols; c++)
            __builtin_prefetch((const char *)w + ((W_ROWS + c) * stride + i) * size);
        for (int64_t v = 0; v < line; v += VW)
            rows_step(sum, x, padded, rows, w, dtype, stride, cols, i + v, VW);
    }
    for (; i < k; i += VW)
        rows_step(sum, x, padded, rows, w, dtype, stride, cols, i, k - i);
}

/* Run the statement behind `count` for runs of the few: `r` is the first row, `rows` (a constant)
 * how many. */
#define ROWS_RUN(count, ...)                                                                       \
    {                                                                                              \
        enum { rows = count };                                                                     \
        __VA_ARGS__;                                                                               \
    }
#define ROWS_EACH(count, ...)                                                                      \
    for (int64_t r = 0; r < (count); r += X_ROWS) {                                                \
        if ((count)-r >= X_ROWS)                                                                   \
            ROWS_RUN(X_ROWS, __VA_ARGS__)                                                          \
        else if ((count)-r == 1)                                                                   \
            ROWS_RUN(1, __VA_ARGS__)                                                               \
        else if ((count)-r == 2)                                                                   \
            ROWS_RUN(2, __VA_ARGS__)                                                               \
        else                                                                                       \
            ROWS_RUN(X_ROWS - 1, __VA_ARGS__)                                                      \
    }

#endif
