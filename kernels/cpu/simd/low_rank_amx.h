/* low_rank_amx.h — a block of low_rank.c's rows on AMX tiles (amx.h), for bf16. u's left operand is
 * `a` where it lies, its right one p, packed as [ranks / 16, padded / 2, 16] pairs; g's left one is
 * t turned, and its right one pairs of a's rows, some columns at a time.
 *
 * An element of u is one chain over pairs of features, as tiles add them up. */
#ifndef AM_KERNELS_LOW_RANK_AMX_H
#define AM_KERNELS_LOW_RANK_AMX_H

#include "amx.h"

/* Rows that stay in cache; columns of four tiles of g; rows of four tiles of u; what a tile of a
 * left operand is deep. */
enum { BLOCK = 128, K_STEP = 4 * T_ROWS, U_ROWS = 4 * T_ROWS, DEPTH = 32 };

AM_INLINE int takes(int dtype)
{
    return dtype == AM_BF16;
}

/* A constant, which takes() has seen to. */
AM_INLINE int dtype_of(const am_low_rank_args *args)
{
    (void)args;
    return AM_BF16;
}

AM_INLINE int other(am_stream *s, const am_low_rank_args *args)
{
    return am_cpu_low_rank_avx512_bf16(s, args);
}

/* Tiles of sums have no more rows than a low rank needs. */
AM_INLINE int64_t padded_ranks(int64_t r)
{
    return r <= T_ROWS ? r : (r + T_ROWS - 1) / T_ROWS * T_ROWS;
}

/* Bytes of a packed p: whole tiles, whatever the rank. */
AM_INLINE int64_t packed_bytes(int64_t r, int64_t padded)
{
    return (r + T_ROWS - 1) / T_ROWS * T_ROWS * padded * 2;
}

/* What a thread needs of its own, for one block. */
typedef struct own_memory {
    float u[U_ROWS * T_ROWS];
    uint32_t pairs[BLOCK / 2 * K_STEP];
    uint16_t rows[]; /* a's, where they can't be used in place; then t's, turned [ranks, BLOCK] */
} own_memory;

AM_INLINE int64_t own_bytes(const low_rank *l)
{
    int64_t a = U_ROWS * l->padded, t = padded_ranks(l->args->r) * BLOCK;
    return (int64_t)sizeof(own_memory) + (a > t ? a : t) * 2;
}

/* After all blocks of a part. */
AM_INLINE void blocks_end(void)
{
    _tile_release();
}

AM_INLINE uint32_t p_at(const am_low_rank_args *args, int64_t q, int64_t j)
{
    return ((const uint16_t *)args->p)[args->turned ? j * args->r + q : q * args->k + j];
}

AM_INLINE void pack(const low_rank *l, int dtype)
{
    const am_low_rank_args *args = l->args;
    (void)dtype;
    memset(l->p, 0, (size_t)packed_bytes(args->r, l->padded));
    for (int64_t q = 0; q < args->r; q++) {
        uint32_t *to = (uint32_t *)l->p + q / T_ROWS * T_ROWS * l->padded / 2 + q % T_ROWS;
        for (int64_t j = 0; j < args->k; j += 2)
            to[j / 2 * T_ROWS] =
                p_at(args, q, j) | (j + 1 < args->k ? p_at(args, q, j + 1) << 16 : 0);
    }
}

/* sum [U_ROWS, 16] = rows of a, `stride` apart, times 16 ranks of p. */
AM_INLINE void u_tiles(float *sum, const uint16_t *a, int64_t stride, const uint32_t *p, int64_t k)
{
    size_t as = (size_t)stride * 2;
    const uint16_t *row[] = {a, a + T_ROWS * stride, a + 2 * T_ROWS * stride,
                             a + 3 * T_ROWS * stride};
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t j = 0; j < k; j += DEPTH) {
        _tile_loadd(6, p + j / 2 * T_ROWS, T_BYTES);
        _tile_loadd(4, row[0] + j, as);
        _tile_loadd(5, row[1] + j, as);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 5, 6);
        _tile_loadd(4, row[2] + j, as);
        _tile_loadd(5, row[3] + j, as);
        _tile_dpbf16ps(2, 4, 6);
        _tile_dpbf16ps(3, 5, 6);
    }
    _tile_stored(0, sum, T_BYTES);
    _tile_stored(1, sum + T_ROWS * T_ROWS, T_BYTES);
    _tile_stored(2, sum + 2 * T_ROWS * T_ROWS, T_BYTES);
    _tile_stored(3, sum + 3 * T_ROWS * T_ROWS, T_BYTES);
}

/* U_ROWS rows of u from i on. */
AM_INLINE void u_rows(const low_rank *l, own_memory *own, int64_t i, int64_t n)
{
    const am_low_rank_args *args = l->args;
    const uint16_t *a = (const uint16_t *)args->a + i * args->k;
    int64_t k = (args->k + DEPTH - 1) / DEPTH * DEPTH, r = args->r;
    if (n < U_ROWS || k != args->k) {
        memset(own->rows + n * k, 0, (size_t)((U_ROWS - n) * k) * 2);
        for (int64_t m = 0; m < n; m++)
            for (int64_t j = 0; j < k; j += DEPTH)
                _mm512_storeu_si512(own->rows + m * k + j, row_load(a, m * args->k, j, args->k));
        a = own->rows;
    }
    tiles_begin(T_ROWS);
    for (int64_t q = 0; q < r; q += T_ROWS) {
        __mmask16 ranks = (__mmask16)((1U << at_most(T_ROWS, r - q)) - 1);
        written(a);
        u_tiles(own->u, a, k, (const uint32_t *)l->p + q * l->padded / 2, k);
        for (int64_t m = 0; m < n; m++) {
            vh u = to_bf16(vload(own->u + m * T_ROWS) * (float)args->scale);
            _mm256_mask_storeu_epi16((uint16_t *)args->u + (i + m) * r + q, ranks, (__m256i)u);
        }
    }
}

/* What rows i.. are in g, or add to it. */
AM_INLINE void g_rows(const low_rank *l, own_memory *own, float *g, int64_t i, int64_t n, int add)
{
    const am_low_rank_args *args = l->args;
    int64_t r = args->r, ranks = padded_ranks(r), at[BLOCK];
    size_t gs = (size_t)l->padded * 4;
    memset(own->rows, 0, (size_t)(ranks * BLOCK) * 2);
    for (int64_t m = 0; m < BLOCK; m++) {
        at[m] = m < n ? (i + m) * args->k : -1;
        for (int64_t q = 0; m < n && q < r; q++)
            own->rows[q * BLOCK + m] = ((const uint16_t *)args->t)[(i + m) * r + q];
    }
    tiles_begin(at_most(r, T_ROWS));
    for (int64_t j = 0; j < l->padded; j += K_STEP) {
        for (int64_t m = 0; !args->u && m < n; m++) { /* the hardware's stride ends at 2 kB */
            const uint16_t *next = (const uint16_t *)args->a + at[m] + j + K_STEP;
            __builtin_prefetch(next);
            __builtin_prefetch(next + DEPTH);
        }
        right_rows(own->pairs, (const uint16_t *)args->a + j, AM_BF16, at, BLOCK, args->k - j,
                   K_STEP);
        written(own);
        for (int64_t q = 0; q < ranks; q += T_ROWS) {
            float *to = g + q * l->padded + j;
            if (add) {
                _tile_loadd(0, to, gs);
                _tile_loadd(1, to + T_ROWS, gs);
                _tile_loadd(2, to + 2 * T_ROWS, gs);
                _tile_loadd(3, to + 3 * T_ROWS, gs);
            } else {
                _tile_zero(0);
                _tile_zero(1);
                _tile_zero(2);
                _tile_zero(3);
            }
            for (int64_t m = 0; m < n; m += DEPTH) {
                const uint32_t *pairs = own->pairs + m / 2 * K_STEP;
                _tile_loadd(4, own->rows + q * BLOCK + m, BLOCK * 2);
                _tile_loadd(6, pairs, K_STEP * 4);
                _tile_loadd(7, pairs + T_ROWS, K_STEP * 4);
                _tile_dpbf16ps(0, 4, 6);
                _tile_dpbf16ps(1, 4, 7);
                _tile_loadd(6, pairs + 2 * T_ROWS, K_STEP * 4);
                _tile_loadd(7, pairs + 3 * T_ROWS, K_STEP * 4);
                _tile_dpbf16ps(2, 4, 6);
                _tile_dpbf16ps(3, 4, 7);
            }
            _tile_stored(0, to, gs);
            _tile_stored(1, to + T_ROWS, gs);
            _tile_stored(2, to + 2 * T_ROWS, gs);
            _tile_stored(3, to + 3 * T_ROWS, gs);
        }
    }
}

AM_INLINE void block(const low_rank *l, int dtype, float *g, void *own, int64_t i, int64_t n,
                     int add)
{
    (void)dtype;
    for (int64_t m = 0; l->args->u && m < n; m += U_ROWS)
        u_rows(l, own, i + m, at_most(U_ROWS, n - m));
    if (g)
        g_rows(l, own, g, i, n, add);
}

#endif
