/* product_pairs.h — what product.h has beside the products, for bf16 operands in pairs (pairs.h)
 * and f32 sums: product_amx.h and product_dot.h have the products. */
#ifndef AM_KERNELS_PRODUCT_PAIRS_H
#define AM_KERNELS_PRODUCT_PAIRS_H

#include "pairs.h"
#include "../ref_kernels.h"

enum { LANES = 32, DEPTH = 32 };

typedef uint16_t left_cell;
typedef uint32_t right_cell;

/* a [m, k]: element (i, j) at p[i * row + j] */
typedef struct left {
    const left_cell *p;
    int64_t row, col;
} left;

AM_INLINE int takes(int dtype)
{
    return dtype == AM_BF16;
}

AM_INLINE int attention_other(am_stream *s, const am_attention_args *args)
{
    return am_cpu_attention_avx512_bf16(s, args);
}

AM_INLINE int attention_bwd_other(am_stream *s, const am_attention_bwd_args *args)
{
    return am_cpu_attention_bwd_avx512_bf16(s, args);
}

/* ---- operands ---------------------------------------------------------------------------- */

AM_INLINE int64_t padded_keys(int64_t n)
{
    return (n + 31) / 32 * 32;
}

/* A product may reach a tile of keys past the last one. */
enum { KEYS_MORE = 64 };

AM_INLINE int64_t turned_row(int64_t s)
{
    int64_t lines = (padded_keys(s) + KEYS_MORE) / 32;
    return (lines | 1) * 32; /* an odd number of cache lines: no two rows alias */
}

AM_INLINE int64_t keys_cells(int dtype, int64_t s, int64_t dp)
{
    (void)dtype;
    return (s + KEYS_MORE) * dp;
}

AM_INLINE int64_t turned_cells(int dtype, int64_t s, int64_t dp)
{
    (void)dtype;
    return turned_row(s) * dp;
}

static left keys_left(left_cell *to, const void *from, int dtype, int64_t base, int64_t token,
                      int64_t s, int64_t d, int64_t dp)
{
    (void)dtype;
    for (int64_t j = 0; j < s; j++)
        for (int64_t i = 0; i < dp; i += 32)
            _mm512_storeu_si512(to + j * dp + i, row_load(from, base + j * token, i, d));
    memset(to + s * dp, 0, (size_t)(KEYS_MORE * dp) * sizeof *to);
    return (left){to, dp, 1};
}

static left turned_left(left_cell *to, const void *from, int dtype, int64_t base, int64_t token,
                        int64_t s, int64_t d, int64_t dp)
{
    (void)dtype;
    int64_t row = turned_row(s);
    for (int64_t j = 0; j < row; j += VW)
        for (int64_t i = 0; i < dp; i += VW) {
            vf m[VW];
            for (int r = 0; r < VW; r++)
                m[r] = j + r < s && i < d
                           ? vget_n(from, AM_BF16, base + (j + r) * token + i, d - i, 0.0f)
                           : (vf){0};
            vturn(m);
            for (int r = 0; r < VW; r++) {
                vh h = narrow((vu)m[r] >> 16);
                memcpy(to + (i + r) * row + j, &h, sizeof h);
            }
        }
    return (left){to, row, 1};
}

AM_INLINE int64_t right_cells(int64_t depth, int64_t n)
{
    return depth / 2 * n;
}

AM_INLINE vf right_load(const void *from, int dtype, int64_t at, int64_t c, int64_t d)
{
    (void)dtype;
    return (vf)row_load(from, at, c, d);
}

AM_INLINE int64_t right_step(void)
{
    return 32;
}

/* ---- a tile of probabilities -------------------------------------------------------------- */

typedef struct tile {
    right_cell *right; /* [keys / 2, lanes] */
    left_cell *left;   /* [keys, lanes], or NULL */
} tile;

AM_INLINE int64_t tile_left_cells(int64_t keys, int64_t lanes)
{
    return keys * lanes;
}

AM_INLINE void tile_put(const tile *t, int64_t j, int64_t at, int64_t lanes, vf first, vf second)
{
    const __m512i turns =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    __m512i both = (__m512i)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
    _mm512_storeu_si512(t->right + j / 2 * lanes + at, _mm512_permutexvar_epi16(turns, both));
    if (t->left) {
        _mm256_storeu_si256((__m256i *)(t->left + j * lanes + at), _mm512_castsi512_si256(both));
        _mm256_storeu_si256((__m256i *)(t->left + (j + 1) * lanes + at),
                            _mm512_extracti64x4_epi64(both, 1));
    }
}

/* e^x for x of at most about 0; 0 below e^-87. To 7e-6 of itself, since it will have eight bits:
 * 2^t by a polynomial of t's fraction (to 3e-6, the least relative error with 2^0 = 1). */
AM_INLINE vf tile_exp(vf x)
{
    enum { FLOOR = 1 };
    vf t = x * 1.44269504088896341f;
    __mmask16 normal = _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(-87.0f), _CMP_NLT_UQ);
    vf f = (vf)_mm512_reduce_ps((__m512)t, FLOOR);
    vf p = vfma(vsplat(0.0134266857f), f, vsplat(0.0522424728f));
    p = vfma(p, f, vsplat(0.241280213f));
    p = vfma(p, f, vsplat(0.693044841f));
    p = vfma(p, f, vsplat(1.0f));
    return (vf)_mm512_maskz_scalef_ps(normal, (__m512)p, (__m512)t);
}

/* AM_BF16, which takes() has seen to. */
AM_INLINE int dtype_of(const am_attention_shape *x)
{
    (void)x;
    return AM_BF16;
}

#endif
