/* low_rank_vec.h — a block of low_rank.c's rows on f32 vectors; low_rank_amx.h has the same
 * functions on AMX tiles. An element of u is one chain of fused additions in each lane of a vector,
 * then the sum of the lanes; p is packed as [r, padded]. */
#ifndef AM_KERNELS_LOW_RANK_VEC_H
#define AM_KERNELS_LOW_RANK_VEC_H

/* Rows that stay in cache; what rows of p and g are padded to a multiple of. */
enum { BLOCK = 32, K_STEP = VW };
/* Rows and ranks that are held in registers at once. */
#if defined(__AVX512F__) || defined(__aarch64__)
enum { ROWS = 2, RANKS = 8, COLS = 2 };
#else
enum { ROWS = 2, RANKS = 4, COLS = 2 };
#endif

/* The dtypes these blocks are for, and who has the others. */
AM_INLINE int takes(int dtype)
{
    return is_simd_float(dtype);
}

AM_INLINE int other(am_stream *s, const am_low_rank_args *args)
{
    return am_ref_low_rank(s, args);
}

AM_INLINE int dtype_of(const am_low_rank_args *args)
{
    return args->dtype;
}

/* Ranks that a part of g has. */
AM_INLINE int64_t padded_ranks(int64_t r)
{
    return r;
}

/* Bytes of a packed p. */
AM_INLINE int64_t packed_bytes(int64_t r, int64_t padded)
{
    return r * padded * (int64_t)sizeof(float);
}

/* What a thread needs of its own: t's block in f32. */
AM_INLINE int64_t own_bytes(const low_rank *l)
{
    return BLOCK * l->args->r * (int64_t)sizeof(float);
}

/* After all blocks of a part. */
AM_INLINE void blocks_end(void)
{
}

/* p as rows of f32, filled up with zeros. */
AM_INLINE void pack(const low_rank *l, int dtype)
{
    const am_low_rank_args *args = l->args;
    for (int64_t q = 0; q < args->r; q++) {
        float *to = (float *)l->p + q * l->padded;
        for (int64_t j = 0; args->turned && j < l->padded; j++)
            to[j] = j < args->k ? load1(args->p, dtype, j * args->r + q) : 0.0f;
        for (int64_t j = 0; !args->turned && j < l->padded; j += VW)
            vstore(to + j, vget_n(args->p, dtype, q * args->k + j, args->k - j, 0));
    }
}

/* u's rows i.. and ranks q.. */
AM_INLINE void u_tile(const low_rank *l, int dtype, int64_t i, int rows, int64_t q, int ranks)
{
    const am_low_rank_args *args = l->args;
    const float *p = (const float *)l->p + q * l->padded;
    vf sum[ROWS][RANKS];
    for (int m = 0; m < rows; m++)
        for (int v = 0; v < ranks; v++)
            sum[m][v] = (vf){0};
    int64_t j = 0;
    for (; j + VW <= args->k; j += VW)
        for (int v = 0; v < ranks; v++) {
            vf x = vload(p + v * l->padded + j);
            for (int m = 0; m < rows; m++)
                sum[m][v] = vfma(vget(args->a, dtype, (i + m) * args->k + j), x, sum[m][v]);
        }
    if (j < args->k)
        for (int m = 0; m < rows; m++) {
            vf a = vget_n(args->a, dtype, (i + m) * args->k + j, args->k - j, 0);
            for (int v = 0; v < ranks; v++)
                sum[m][v] = vfma(a, vload(p + v * l->padded + j), sum[m][v]);
        }
    for (int m = 0; m < rows; m++)
        for (int v = 0; v < ranks; v++)
            store1(args->u, dtype, (i + m) * args->r + q + v, vsum(sum[m][v]) * (float)args->scale);
}

/* g's ranks q.. and columns j.. of rows i.., t being their t in f32. */
AM_INLINE void g_tile(const low_rank *l, int dtype, float *g, const float *t, int64_t i, int64_t n,
                      int64_t q, int ranks, int64_t j, int cols, int64_t left, int add)
{
    const am_low_rank_args *args = l->args;
    vf sum[RANKS][COLS];
    for (int v = 0; v < ranks; v++)
        for (int c = 0; c < cols; c++)
            sum[v][c] = add ? vload(g + (q + v) * l->padded + j + c * VW) : (vf){0};
    for (int64_t m = 0; m < n; m++) {
        vf a[COLS];
        for (int c = 0; c < cols; c++)
            a[c] = vget_n(args->a, dtype, (i + m) * args->k + j + c * VW, left - c * VW, 0);
        for (int v = 0; v < ranks; v++) {
            vf x = vsplat(t[m * args->r + q + v]);
            for (int c = 0; c < cols; c++)
                sum[v][c] = vfma(x, a[c], sum[v][c]);
        }
    }
    for (int v = 0; v < ranks; v++)
        for (int c = 0; c < cols; c++)
            vstore(g + (q + v) * l->padded + j + c * VW, sum[v][c]);
}

/* Both for ranks q.. of rows i.. */
AM_INLINE void ranks_of_block(const low_rank *l, int dtype, float *g, const float *t, int64_t i,
                              int64_t n, int64_t q, int ranks, int add)
{
    const am_low_rank_args *args = l->args;
    int64_t m = i, j = 0;
    if (args->u) {
        for (; m + ROWS <= i + n; m += ROWS)
            u_tile(l, dtype, m, ROWS, q, ranks);
        for (; m < i + n; m++)
            u_tile(l, dtype, m, 1, q, ranks);
    }
    if (!args->g)
        return;
    for (; j + COLS * VW <= args->k; j += COLS * VW)
        g_tile(l, dtype, g, t, i, n, q, ranks, j, COLS, COLS * VW, add);
    for (; j < args->k; j += VW)
        g_tile(l, dtype, g, t, i, n, q, ranks, j, 1, args->k - j, add);
}

/* Rows i.. of u, and what they are in g, or add to it. */
AM_INLINE void block(const low_rank *l, int dtype, float *g, void *own, int64_t i, int64_t n,
                     int add)
{
    const am_low_rank_args *args = l->args;
    int64_t r = args->r, q = 0;
    float *t = own;
    for (int64_t e = 0; args->g && e < n * r; e++)
        t[e] = load1(args->t, dtype, i * r + e);
    for (; q + RANKS <= r; q += RANKS)
        ranks_of_block(l, dtype, g, t, i, n, q, RANKS, add);
    for (; q + 4 <= r; q += 4)
        ranks_of_block(l, dtype, g, t, i, n, q, 4, add);
    for (; q < r; q++)
        ranks_of_block(l, dtype, g, t, i, n, q, 1, add);
}

#endif
