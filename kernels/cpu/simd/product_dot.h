/* product_dot.h — the products of product.h by vdpbf16ps: of pairs of bf16, f32 sums. */
#ifndef AM_KERNELS_PRODUCT_DOT_H
#define AM_KERNELS_PRODUCT_DOT_H

#include "product_pairs.h"

/* Rows and vectors of c that are held in registers. */
enum { MR = 8, NV = 2 };

AM_INLINE void product_begin(void)
{
}

AM_INLINE void product_end(void)
{
}

/* A whole number of pairs. */
AM_INLINE int64_t padded_depth(int64_t d, int64_t dp)
{
    (void)dp;
    return (d + 1) / 2 * 2;
}

/* c [MR, NV * VW]; two elements of a's row at a time, as one word. */
AM_INLINE void product_tile(float *c, int64_t ldc, const uint16_t *a, int64_t lda,
                            const uint32_t *b, int64_t ldb, int64_t k, int add)
{
    __m512 acc[MR][NV];
    for (int i = 0; i < MR; i++)
        for (int v = 0; v < NV; v++)
            acc[i][v] = _mm512_setzero_ps();
    for (int64_t j = 0; j < k; j += 2) {
        __m512i line[NV];
        for (int v = 0; v < NV; v++)
            line[v] = _mm512_loadu_si512(b + j / 2 * ldb + v * VW);
        for (int i = 0; i < MR; i++) {
            uint32_t word;
            memcpy(&word, a + i * lda + j, sizeof word);
            __m512i x = _mm512_set1_epi32((int32_t)word);
            for (int v = 0; v < NV; v++)
                acc[i][v] = _mm512_dpbf16_ps(acc[i][v], (__m512bh)x, (__m512bh)line[v]);
        }
    }
    for (int i = 0; i < MR; i++)
        for (int v = 0; v < NV; v++) {
            float *to = c + i * ldc + v * VW;
            vstore(to, add ? vload(to) + (vf)acc[i][v] : (vf)acc[i][v]);
        }
}

/* c [m, n] = a [m, k] b [k, n], or added to c. n is a multiple of 32, k of 2, and m counts as the
 * next multiple of MR: operands and c have those rows. */
static void product(float *c, int64_t ldc, left a, const right_cell *b, int64_t ldb, int64_t m,
                    int64_t n, int64_t k, int add)
{
    for (int64_t j = 0; j < n; j += NV * VW)
        for (int64_t i = 0; i < m; i += MR) {
            const uint16_t *rows = a.p + i * a.row;
            if (add)
                product_tile(c + i * ldc + j, ldc, rows, a.row, b + j, ldb, k, 1);
            else
                product_tile(c + i * ldc + j, ldc, rows, a.row, b + j, ldb, k, 0);
        }
}

#endif
