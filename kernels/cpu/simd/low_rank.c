/* low_rank.c — what a map of low rank needs of a pass over its input or over its output's gradient,
 * for f32, bf16 and f16; f64 goes to ref. It takes as long as reading `a` once: a block of rows
 * (low_rank_vec.h, low_rank_amx.h) stays in cache for both products.
 *
 * An element of g is a chain for each part of the rows, then the sum of the parts in order; the
 * parts depend on m alone. */
#include "vec.h"
#include "../ref_kernels.h"

/* What all threads see; rows of p and g are `padded` long. */
typedef struct low_rank {
    const am_low_rank_args *args;
    int64_t padded, part_rows;
    void *p;
    float *g; /* [parts, padded_ranks, padded] */
} low_rank;

#ifdef AM_AMX_TILES
#include "low_rank_amx.h"
#else
#include "low_rank_vec.h"
#endif

/* Most parts of g, for memory's sake, and the fewest rows of one. */
enum { PARTS = 16, PART_ROWS = 64 };

/* The rows of one part. */
AM_INLINE int part(const low_rank *l, int dtype, int64_t z)
{
    const am_low_rank_args *args = l->args;
    int64_t first = z * l->part_rows, end = at_most(args->m, first + l->part_rows);
    float *g = args->g ? l->g + z * padded_ranks(args->r) * l->padded : NULL;
    void *own = am_scratch(2, (size_t)own_bytes(l) + 1);
    if (!own)
        return AM_ENOMEM;
    for (int64_t i = first; i < end; i += BLOCK)
        block(l, dtype, g, own, i, at_most(BLOCK, end - i), i > first);
    blocks_end();
    return AM_OK;
}

/* g's features j.. of rank q, the sum of its parts. */
AM_INLINE void add_up(const low_rank *l, int dtype, int64_t parts, int64_t q, int64_t j)
{
    const am_low_rank_args *args = l->args;
    const float *from = l->g + q * l->padded + j;
    int64_t n = args->k - j;
    vf sum = {0};
    for (int64_t z = 0; z < parts; z++)
        sum += vload(from + z * padded_ranks(args->r) * l->padded);
    if (!args->turned) {
        int64_t at = q * args->k + j;
        if (args->accumulate)
            sum += vget_n(args->g, dtype, at, n, 0);
        vput_n(args->g, dtype, at, n, sum);
        return;
    }
    for (int64_t v = 0; v < VW && v < n; v++) {
        int64_t at = (j + v) * args->r + q;
        store1(args->g, dtype, at, args->accumulate ? load1(args->g, dtype, at) + sum[v] : sum[v]);
    }
}

static void g_of_parts(const low_rank *l, int64_t parts)
{
    const am_low_rank_args *args = l->args;
#pragma omp parallel for num_threads(team(parts * args->r * args->k)) schedule(static)
    for (int64_t j = 0; j < args->k; j += VW)
        for (int64_t q = 0; q < args->r; q++)
            AM_WITH_DTYPE(T, args->dtype_g, add_up(l, T, parts, q, j))
}

int AM_SIMD(low_rank)(am_stream *s, const am_low_rank_args *args)
{
    if (args->g && args->dtype_g != args->dtype && args->dtype_g != AM_F32)
        return am_ref_low_rank(s, args);
    if (!takes(args->dtype))
        return other(s, args);
    if (args->r == 0)
        return AM_OK;
    int64_t parts = (args->m + PART_ROWS - 1) / PART_ROWS;
    if (args->g)
        parts = at_most(PARTS, parts);
    int64_t padded = (args->k + K_STEP - 1) / K_STEP * K_STEP;
    int64_t cells = padded_ranks(args->r) * padded; /* of a part of g */
    int64_t rows = parts ? (args->m + parts - 1) / parts : 0;
    low_rank l = {.args = args,
                  .padded = padded,
                  .part_rows = (rows + BLOCK - 1) / BLOCK * BLOCK,
                  .p = am_scratch(0, (size_t)packed_bytes(args->r, padded) + 1),
                  .g = am_scratch(1, (size_t)((args->g ? parts : 0) * cells + 1) * sizeof *l.g)};
    if (!l.p || !l.g)
        return am_kernel_fail(AM_ENOMEM, "low_rank: no scratch memory");
    if (args->u)
        AM_WITH_DTYPE(T, dtype_of(args), pack(&l, T))
    parts = l.part_rows ? (args->m + l.part_rows - 1) / l.part_rows : 0;
    int failed = AM_OK;
#pragma omp parallel for num_threads(team(args->m * args->k)) schedule(dynamic, 1)
    for (int64_t z = 0; z < parts; z++) {
        int rc = AM_OK;
        AM_WITH_DTYPE(T, dtype_of(args), rc = part(&l, T, z))
        if (rc != AM_OK) {
#pragma omp atomic write
            failed = rc;
        }
    }
    if (failed != AM_OK)
        return am_kernel_fail(failed, "low_rank: no scratch memory");
    if (args->g)
        g_of_parts(&l, parts);
    return AM_OK;
}
