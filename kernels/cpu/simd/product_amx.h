/* product_amx.h — the products of product.h on AMX tiles (amx.h). */
#ifndef AM_KERNELS_PRODUCT_AMX_H
#define AM_KERNELS_PRODUCT_AMX_H

#include "amx.h"
#include "product_pairs.h"

/* Tiles 0 to 3 hold c, 4 and 5 a, 6 and 7 b: all of them full. */
AM_INLINE void product_begin(void)
{
    tiles_begin(T_ROWS);
}

AM_INLINE void product_end(void)
{
    _tile_release();
}

AM_INLINE int64_t padded_depth(int64_t d, int64_t dp)
{
    (void)d;
    return dp;
}

/* c [32, 32] */
AM_INLINE void product_tile(float *c, int64_t ldc, const uint16_t *a, int64_t lda,
                            const uint32_t *b, int64_t ldb, int64_t k, int add)
{
    const uint16_t *a_low = a + T_ROWS * lda;
    written(a);
    size_t cs = (size_t)ldc * 4, as = (size_t)lda * 2, bs = (size_t)ldb * 4;
    sums_begin(c, cs, add);
    for (int64_t j = 0; j < k; j += 32) {
        const uint32_t *pairs = b + j / 2 * ldb;
        _tile_loadd(4, a + j, as);
        _tile_loadd(6, pairs, bs);
        _tile_loadd(7, pairs + 16, bs);
        _tile_loadd(5, a_low + j, as);
        sums_add();
    }
    sums_end(c, cs);
}

/* c [m, n] = a [m, k] b [k, n], or added to c. n and k are multiples of 32, and m counts as the
 * next one: operands and c have those rows. */
static void product(float *c, int64_t ldc, left a, const right_cell *b, int64_t ldb, int64_t m,
                    int64_t n, int64_t k, int add)
{
    for (int64_t j = 0; j < n; j += 32)
        for (int64_t i = 0; i < m; i += 32)
            product_tile(c + i * ldc + j, ldc, a.p + i * a.row, a.row, b + j, ldb, k, add);
}

#endif
