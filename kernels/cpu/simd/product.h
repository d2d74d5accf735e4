/* product.h — small matrix products on f32 vectors, as attention.c needs them: c = a b with a's
 * elements (`left`) splat over vectors of b's columns (`right`). product_amx.h has the same
 * functions on AMX tiles. */
#ifndef AM_KERNELS_PRODUCT_H
#define AM_KERNELS_PRODUCT_H

#include "vec.h"
#include "../ref_kernels.h"

/* Lanes and depths come in multiples of these. */
enum { LANES = VW, DEPTH = VW };
/* Rows and most vectors of c that are held in registers. */
#if defined(__AVX512F__)
enum { MR = 8, NV = 3 };
#elif defined(__aarch64__)
enum { MR = 4, NV = 4 };
#else
enum { MR = 4, NV = VW == 8 ? 3 : 2 };
#endif

typedef float left_cell, right_cell;

/* a [m, k]: element (i, j) at p[i * row + j * col] */
typedef struct left {
    const left_cell *p;
    int64_t row, col;
} left;

/* The dtypes these products are for, and who has the others. */
AM_INLINE int takes(int dtype)
{
    return is_simd_float(dtype);
}

AM_INLINE int attention_other(am_stream *s, const am_attention_args *args)
{
    return am_ref_attention(s, args);
}

AM_INLINE int attention_bwd_other(am_stream *s, const am_attention_bwd_args *args)
{
    return am_ref_attention_bwd(s, args);
}

/* Around all products of a thread. */
AM_INLINE void product_begin(void)
{
}

AM_INLINE void product_end(void)
{
}

/* The first `valid` of MR rows, nv vectors wide. */
AM_INLINE void product_tile(float *c, int64_t ldc, left a, const float *b, int64_t ldb, int64_t k,
                            int64_t valid, int nv, int add)
{
    const float *row[MR];
    vf acc[MR][NV];
    for (int i = 0; i < MR; i++) {
        row[i] = a.p + (i < valid ? i : valid - 1) * a.row;
        for (int v = 0; v < nv; v++)
            acc[i][v] = (vf){0};
    }
    for (int64_t j = 0; j < k; j++) {
        vf line[NV];
        for (int v = 0; v < nv; v++)
            line[v] = vload(b + j * ldb + v * VW);
        for (int i = 0; i < MR; i++) {
            vf x = vsplat(row[i][j * a.col]);
            for (int v = 0; v < nv; v++)
                acc[i][v] = vfma(x, line[v], acc[i][v]);
        }
    }
    for (int i = 0; i < MR && i < valid; i++)
        for (int v = 0; v < nv; v++) {
            float *to = c + i * ldc + v * VW;
            vstore(to, add ? vload(to) + acc[i][v] : acc[i][v]);
        }
}

/* c [m, n] = a [m, k] b [k, n], or added to c; n is a multiple of LANES. An element's bits depend
 * on its row of a and its column of b alone. */
static void product(float *c, int64_t ldc, left a, const right_cell *b, int64_t ldb, int64_t m,
                    int64_t n, int64_t k, int add)
{
    for (int64_t j = 0; j < n;) {
        int64_t vectors = (n - j) / VW;
        int nv = vectors >= NV && vectors != NV + 1 ? NV : vectors >= 2 ? 2 : 1;
        for (int64_t i = 0; i < m; i += MR) {
            left part = {a.p + i * a.row, a.row, a.col};
            float *to = c + i * ldc + j;
            if (nv == NV)
                product_tile(to, ldc, part, b + j, ldb, k, m - i, NV, add);
            else if (nv == 2)
                product_tile(to, ldc, part, b + j, ldb, k, m - i, 2, add);
            else
                product_tile(to, ldc, part, b + j, ldb, k, m - i, 1, add);
        }
        j += nv * VW;
    }
}

/* ---- operands ---------------------------------------------------------------------------- */

/* Cells that the keys (or values) of a sequence take beside where they lie: none, if they are f32
 * and so used in place. */
AM_INLINE int64_t keys_cells(int dtype, int64_t s, int64_t dp)
{
    return dtype == AM_F32 ? 0 : s * dp;
}

AM_INLINE int64_t turned_cells(int dtype, int64_t s, int64_t dp)
{
    return keys_cells(dtype, s, dp);
}

/* Keys [s, d] from element `base` on, `token` apart, as a left operand; made in `to` if need be. */
static left keys_left(left_cell *to, const void *from, int dtype, int64_t base, int64_t token,
                      int64_t s, int64_t d, int64_t dp)
{
    if (dtype == AM_F32)
        return (left){(const float *)from + base, token, 1};
    for (int64_t j = 0; j < s; j++)
        for (int64_t i = 0; i < dp; i += VW)
            vstore(to + j * dp + i,
                   i < d ? vget_n(from, dtype, base + j * token + i, d - i, 0.0f) : (vf){0});
    return (left){to, dp, 1};
}

/* The same, transposed [d, s]. */
static left turned_left(left_cell *to, const void *from, int dtype, int64_t base, int64_t token,
                        int64_t s, int64_t d, int64_t dp)
{
    left keys = keys_left(to, from, dtype, base, token, s, d, dp);
    return (left){keys.p, 1, keys.row};
}

/* What a product over n keys, or over d of dp features, takes: the rest is zero. */
AM_INLINE int64_t padded_keys(int64_t n)
{
    return n;
}

AM_INLINE int64_t padded_depth(int64_t d, int64_t dp)
{
    (void)dp;
    return d;
}

/* Cells of a right operand of [depth, n]. */
AM_INLINE int64_t right_cells(int64_t depth, int64_t n)
{
    return depth * n;
}

/* Elements c..c+VW-1 of a row of d become one vector per lane, to be turned. */
AM_INLINE vf right_load(const void *from, int dtype, int64_t at, int64_t c, int64_t d)
{
    return c < d ? vget_n(from, dtype, at + c, d - c, 0.0f) : (vf){0};
}

/* Vectors of a row of dp elements in the form that right_load gives. */
AM_INLINE int64_t right_step(void)
{
    return VW;
}

/* A right operand [rows, dp] from rows of d elements at at[r]; a negative one is a row of zeros. */
static void right_rows(right_cell *to, const void *from, int dtype, const int64_t *at, int64_t rows,
                       int64_t d, int64_t dp)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < dp; i += VW)
            vstore(to + r * dp + i, at[r] < 0 ? (vf){0} : right_load(from, dtype, at[r], i, d));
}

/* ---- a tile of probabilities, which is the scores' own ------------------------------------ */

typedef struct tile {
    right_cell *right; /* [keys, lanes] */
    left_cell *left;   /* the same */
} tile;

AM_INLINE int64_t tile_left_cells(int64_t keys, int64_t lanes)
{
    (void)keys;
    (void)lanes;
    return 0;
}

/* What makes a probability of a score. */
AM_INLINE vf tile_exp(vf x)
{
    return vexp_down(x);
}

AM_INLINE int dtype_of(const am_attention_shape *x)
{
    return x->dtype;
}

/* Of keys j and j + 1, for the lanes from `at` on. */
AM_INLINE void tile_put(const tile *t, int64_t j, int64_t at, int64_t lanes, vf first, vf second)
{
    vstore(t->right + j * lanes + at, first);
    vstore(t->right + (j + 1) * lanes + at, second);
}

#endif
