/* thin_gemm.c — f32 matrix products that sum over a few features, as LoRA's B h and d A do. They
 * take as long as reading and writing c, which oneDNN's kernels for large products don't come near.
 * All other products are left to gemm.c, with AM_EUNSUP.
 *
 * An element is one chain of fused additions, added to what c holds. */
#include "vec.h"

enum { ROWS = 4, STEP = 2 * VW };

/* Rows i.., columns j.. of c: STEP of them, or `left`. */
AM_INLINE void tile(const am_gemm_args *g, int64_t i, int rows, int64_t j, int64_t left)
{
    const float *a = (const float *)g->a + i * g->lda, *b = (const float *)g->b + j;
    float *c = (float *)g->c + i * g->ldc + j;
    vf sum[ROWS][2];
    for (int m = 0; m < rows; m++)
        sum[m][0] = sum[m][1] = (vf){0};
    for (int64_t q = 0; q < g->k; q++)
        for (int v = 0; v < 2; v++) {
            vf x = vget_n(b, AM_F32, q * g->ldb + v * VW, left - v * VW, 0);
            for (int m = 0; m < rows; m++)
                sum[m][v] = vfma(vsplat(a[m * g->lda + q]), x, sum[m][v]);
        }
    for (int m = 0; m < rows; m++)
        for (int v = 0; v < 2; v++) {
            int64_t at = m * g->ldc + v * VW, n = left - v * VW;
            if (g->accumulate)
                sum[m][v] += vget_n(c, AM_F32, at, n, 0);
            vput_n(c, AM_F32, at, n, sum[m][v]);
        }
}

AM_INLINE void rows_from(const am_gemm_args *g, int64_t i, int rows)
{
    int64_t j = 0;
    for (; j + STEP <= g->n; j += STEP)
        tile(g, i, rows, j, STEP);
    if (j < g->n)
        tile(g, i, rows, j, g->n - j);
}

int AM_SIMD(gemm)(am_stream *s, const am_gemm_args *g)
{
    enum { RUN = 64 };
    (void)s;
    if (g->dtype_ab != AM_F32 || g->trans_a || g->trans_b || g->k > AM_THIN || g->alpha != 1 ||
        g->batch != 1 || g->bias || g->u)
        return AM_EUNSUP;
#pragma omp parallel for num_threads(team(g->m * g->n)) schedule(static)
    for (int64_t first = 0; first < g->m; first += RUN) {
        int64_t i = first, end = at_most(first + RUN, g->m);
        for (; i + ROWS <= end; i += ROWS)
            rows_from(g, i, ROWS);
        for (; i < end; i++)
            rows_from(g, i, 1);
    }
    return AM_OK;
}
