/* pairs.h — operands of bf16 products with f32 sums, as AMX tiles and vdpbf16ps take them: a left
 * one holds rows whose columns lie side by side, a right one pairs of rows: word (i, j) has
 * elements (2i, j) and (2i + 1, j). */
#ifndef AM_KERNELS_PAIRS_H
#define AM_KERNELS_PAIRS_H

#include "vec.h"

/* 32 elements from c on, zero from d on. */
AM_INLINE __m512i row_load(const void *from, int64_t at, int64_t c, int64_t d)
{
    const uint16_t *p = (const uint16_t *)from + at + c;
    int64_t n = d - c;
    __mmask32 mask = n >= 32 ? ~0U : n > 0 ? (1U << n) - 1 : 0;
    return _mm512_maskz_loadu_epi16(mask, p);
}

/* A right operand [rows, dp] from rows of d elements at at[r]; a negative one is a row of zeros. */
static inline void right_rows(uint32_t *to, const void *from, int dtype, const int64_t *at,
                              int64_t rows, int64_t d, int64_t dp)
{
    (void)dtype;
    for (int64_t r = 0; r < rows; r += 2)
        for (int64_t i = 0; i < dp; i += 32) {
            __m512i a = row_load(from, at[r], i, at[r] < 0 ? 0 : d);
            __m512i b = row_load(from, at[r + 1], i, at[r + 1] < 0 ? 0 : d);
            for (int half = 0; half < 2; half++) {
                __m512i low = _mm512_cvtepu16_epi32(half ? _mm512_extracti64x4_epi64(a, 1)
                                                         : _mm512_castsi512_si256(a));
                __m512i high = _mm512_cvtepu16_epi32(half ? _mm512_extracti64x4_epi64(b, 1)
                                                          : _mm512_castsi512_si256(b));
                _mm512_storeu_si512(to + r / 2 * dp + i + half * VW,
                                    _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
            }
        }
}

#endif
