/* low_rank.c — what a map of low rank needs of a pass over its input or over its output's gradient,
 * for f32, bf16 and f16; f64 goes to ref. It takes as long as reading `a` once: a block of rows
 * stays in cache for both products.
 *
 * An element of u is one chain of fused additions in each lane of a vector, then the sum of the
 * lanes. An element of g is a chain for each part of the rows, then the sum of the parts in order;
 * the parts depend on m alone. */
#include "vec.h"
#include "../ref_kernels.h"

/* Rows that stay in cache; most parts of g, for memory's sake, and the fewest rows of one. */
enum { BLOCK = 32, PARTS = 16, PART_ROWS = 64 };
/* Rows and ranks that are held in registers at once. */
#if defined(__AVX512F__) || defined(__aarch64__)
enum { ROWS = 2, RANKS = 8, COLS = 2 };
#else
enum { ROWS = 2, RANKS = 4, COLS = 2 };
#endif

/* What all threads see; rows of f32 are `padded` long. */
typedef struct low_rank {
    const am_low_rank_args *args;
    int64_t padded, part_rows;
    float *p; /* [r, padded] */
    float *g; /* [parts, r, padded] */
} low_rank;

/* u's rows i.. and ranks q.. */
AM_INLINE void u_tile(const low_rank *l, int dtype, int64_t i, int rows, int64_t q, int ranks)
{
    const am_low_rank_args *args = l->args;
    const float *p = l->p + q * l->padded;
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
                      int64_t q, int ranks, int64_t j, int cols, int64_t left)
{
    const am_low_rank_args *args = l->args;
    vf sum[RANKS][COLS];
    for (int v = 0; v < ranks; v++)
        for (int c = 0; c < cols; c++)
            sum[v][c] = vload(g + (q + v) * l->padded + j + c * VW);
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
AM_INLINE void block(const low_rank *l, int dtype, float *g, const float *t, int64_t i, int64_t n,
                     int64_t q, int ranks)
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
        g_tile(l, dtype, g, t, i, n, q, ranks, j, COLS, COLS * VW);
    for (; j < args->k; j += VW)
        g_tile(l, dtype, g, t, i, n, q, ranks, j, 1, args->k - j);
}

/* The rows of one part. */
AM_INLINE int part(const low_rank *l, int dtype, int64_t z)
{
    const am_low_rank_args *args = l->args;
    int64_t end = at_most(args->m, (z + 1) * l->part_rows), r = args->r;
    float *g = NULL, *t = NULL;
    if (args->g) {
        g = l->g + z * r * l->padded;
        memset(g, 0, (size_t)(r * l->padded) * sizeof *g);
        t = am_scratch(2, (size_t)(BLOCK * r + 1) * sizeof *t);
        if (!t)
            return AM_ENOMEM;
    }
    for (int64_t i = z * l->part_rows; i < end; i += BLOCK) {
        int64_t n = at_most(BLOCK, end - i), q = 0;
        for (int64_t e = 0; t && e < n * r; e++)
            t[e] = load1(args->t, dtype, i * r + e);
        for (; q + RANKS <= r; q += RANKS)
            block(l, dtype, g, t, i, n, q, RANKS);
        for (; q + 4 <= r; q += 4)
            block(l, dtype, g, t, i, n, q, 4);
        for (; q < r; q++)
            block(l, dtype, g, t, i, n, q, 1);
    }
    return AM_OK;
}

/* p as rows of f32, filled up with zeros. */
AM_INLINE void pack(const low_rank *l, int dtype)
{
    const am_low_rank_args *args = l->args;
    for (int64_t q = 0; q < args->r; q++) {
        float *to = l->p + q * l->padded;
        for (int64_t j = 0; args->turned && j < l->padded; j++)
            to[j] = j < args->k ? load1(args->p, dtype, j * args->r + q) : 0.0f;
        for (int64_t j = 0; !args->turned && j < l->padded; j += VW)
            vstore(to + j, vget_n(args->p, dtype, q * args->k + j, args->k - j, 0));
    }
}

/* g as the sum of its parts. */
AM_INLINE void add_up(const low_rank *l, int64_t parts)
{
    const am_low_rank_args *args = l->args;
    int64_t one = args->r * l->padded;
#pragma omp parallel for num_threads(team(parts *one)) schedule(static)
    for (int64_t q = 0; q < args->r; q++)
        for (int64_t j = 0; j < args->k; j++) {
            int64_t at = args->turned ? j * args->r + q : q * args->k + j;
            float sum = 0;
            for (int64_t z = 0; z < parts; z++)
                sum += l->g[z * one + q * l->padded + j];
            if (args->accumulate)
                sum += load1(args->g, args->dtype_g, at);
            store1(args->g, args->dtype_g, at, sum);
        }
}

AM_INLINE int low_rank_simd(const am_low_rank_args *args, int dtype)
{
    int64_t parts = (args->m + PART_ROWS - 1) / PART_ROWS;
    if (args->g)
        parts = at_most(PARTS, parts);
    int64_t padded = (args->k + VW - 1) / VW * VW, rows = parts ? (args->m + parts - 1) / parts : 0;
    low_rank l = {
        .args = args,
        .padded = padded,
        .part_rows = (rows + BLOCK - 1) / BLOCK * BLOCK,
        .p = am_scratch(0, (size_t)(args->r * padded + 1) * sizeof *l.p),
        .g = am_scratch(1, (size_t)((args->g ? parts : 0) * args->r * padded + 1) * sizeof *l.g)};
    if (!l.p || !l.g)
        return am_kernel_fail(AM_ENOMEM, "low_rank: no scratch memory");
    if (args->u)
        pack(&l, dtype);
    parts = l.part_rows ? (args->m + l.part_rows - 1) / l.part_rows : 0;
    int failed = AM_OK;
#pragma omp parallel for num_threads(team(args->m * args->k)) schedule(dynamic, 1)
    for (int64_t z = 0; z < parts; z++) {
        int rc = part(&l, dtype, z);
        if (rc != AM_OK) {
#pragma omp atomic write
            failed = rc;
        }
    }
    if (failed != AM_OK)
        return am_kernel_fail(failed, "low_rank: no scratch memory");
    if (args->g)
        add_up(&l, parts);
    return AM_OK;
}

int AM_SIMD(low_rank)(am_stream *s, const am_low_rank_args *args)
{
    if (args->g && args->dtype_g != args->dtype && args->dtype_g != AM_F32)
        return am_ref_low_rank(s, args);
    AM_DISPATCH_SIMD(args->dtype, low_rank_simd, args, am_ref_low_rank(s, args))
}
