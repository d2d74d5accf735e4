/* norm.c — RMSNorm and LayerNorm forward and backward, rotary embedding and gated units for f32,
 * bf16 and f16. Formulas as in ref_model.c. */
#include "vec.h"
#include "../ref_kernels.h"

/* ---- RMSNorm ------------------------------------------------------------------------------ */

AM_INLINE void rms_norm_row(const am_rms_norm_args *args, int dtype, int64_t r)
{
    int64_t c = args->c, at = r * c;
    vf sum = {0};
    for (int64_t i = 0; i < c; i += VW) {
        vf x = vget_n(args->x, dtype, at + i, c - i, 0);
        sum = vfma(x, x, sum);
    }
    float rstd = 1.0f / sqrtf(vsum(sum) / (float)c + (float)args->eps);
    if (args->rstd)
        ((float *)args->rstd)[r] = rstd;
    for (int64_t i = 0; i < c; i += VW)
        vput_n(args->out, dtype, at + i, c - i,
               vget_n(args->x, dtype, at + i, c - i, 0) * rstd *
                   ((float)args->offset + vget_n(args->weight, dtype, i, c - i, 0)));
}

int AM_SIMD(rms_norm)(am_stream *s, const am_rms_norm_args *args)
{
    if (!is_simd_float(args->dtype))
        return am_ref_rms_norm(s, args);
#pragma omp parallel for num_threads(team(args->rows * args->c)) schedule(static)
    for (int64_t r = 0; r < args->rows; r++)
        AM_WITH_DTYPE(T, args->dtype, rms_norm_row(args, T, r))
    return AM_OK;
}

/* ---- LayerNorm ---------------------------------------------------------------------------- */

/* The weight of elements i.., which are n before the end. */
AM_INLINE vf weight_of(const void *weight, int dtype, double offset, int64_t i, int64_t n)
{
    return weight ? (float)offset + vget_n(weight, dtype, i, n, 0) : vsplat(1.0f);
}

AM_INLINE void layer_norm_row(const am_layer_norm_args *args, int dtype, int64_t r)
{
    int64_t c = args->c, at = r * c;
    vf sum = {0}, squares = {0};
    for (int64_t i = 0; i < c; i += VW)
        sum += vget_n(args->x, dtype, at + i, c - i, 0);
    float mean = vsum(sum) / (float)c;
    for (int64_t i = 0; i < c; i += VW) {
        vf d = vget_n(args->x, dtype, at + i, c - i, mean) - mean;
        squares = vfma(d, d, squares);
    }
    float rstd = 1.0f / sqrtf(vsum(squares) / (float)c + (float)args->eps);
    if (args->stats) {
        ((float *)args->stats)[r] = mean;
        ((float *)args->stats)[args->rows + r] = rstd;
    }
    for (int64_t i = 0; i < c; i += VW) {
        vf y = (vget_n(args->x, dtype, at + i, c - i, 0) - mean) * rstd;
        y *= weight_of(args->weight, dtype, args->offset, i, c - i);
        if (args->bias)
            y += vget_n(args->bias, dtype, i, c - i, 0);
        vput_n(args->out, dtype, at + i, c - i, y);
    }
}

int AM_SIMD(layer_norm)(am_stream *s, const am_layer_norm_args *args)
{
    if (!is_simd_float(args->dtype))
        return am_ref_layer_norm(s, args);
#pragma omp parallel for num_threads(team(args->rows * args->c)) schedule(static)
    for (int64_t r = 0; r < args->rows; r++)
        AM_WITH_DTYPE(T, args->dtype, layer_norm_row(args, T, r))
    return AM_OK;
}

/* ---- the gradients of both ---------------------------------------------------------------- */

/* RMSNorm is LayerNorm with means that are 0: `centred` tells them apart, a constant wherever a row
 * is walked. */
typedef struct norm_bwd {
    am_layer_norm_bwd_args args;
    const float *mean, *rstd; /* mean: LayerNorm only */
} norm_bwd;

/* Rows of dweight and dbias are summed in chunks, for shorter chains, and those in at most PARTS
 * parts, which depend on their number alone. */
enum { CHUNK = 64, PARTS = 64 };

/* dx of row r, and what it adds to the c sums of dweight and dbias. */
AM_INLINE void norm_bwd_row(const norm_bwd *b, int dtype, int64_t r, int centred, int dx,
                            float *dweight, float *dbias)
{
    const am_layer_norm_bwd_args *args = &b->args;
    int64_t c = args->c, at = r * c;
    float rstd = b->rstd[r], centre = centred ? b->mean[r] : 0;
    vf sum = {0}, sum_g = {0};
    for (int64_t i = 0; dx && i < c; i += VW) {
        vf x = vget_n(args->x, dtype, at + i, c - i, 0);
        vf g = vget_n(args->dout, dtype, at + i, c - i, 0) *
               weight_of(args->weight, dtype, args->offset, i, c - i);
        sum = vfma(g, centred ? x - centre : x, sum);
        if (centred)
            sum_g += g;
    }
    float mean_g = vsum(sum_g) / (float)c;
    float mean = vsum(sum) * rstd / (float)c * rstd; /* times x: n mean(g n) */
    for (int64_t i = 0; i < c; i += VW) {
        vf dout = vget_n(args->dout, dtype, at + i, c - i, 0);
        vf x = vget_n(args->x, dtype, at + i, c - i, centre);
        if (centred)
            x -= centre;
        if (dweight)
            vstore(dweight + i, vfma(dout, x * rstd, vload(dweight + i)));
        if (dbias)
            vstore(dbias + i, dout + vload(dbias + i));
        if (!dx)
            continue;
        vf g = dout * weight_of(args->weight, dtype, args->offset, i, c - i);
        vf d = vfma(vsplat(-mean), x, g);
        d = rstd * (centred ? d - mean_g : d);
        if (args->accumulate_dx)
            d += vget_n(args->dx, dtype, at + i, c - i, 0);
        vput_n(args->dx, dtype, at + i, c - i, d);
    }
}

/* Rows first..end-1 and their dweight and dbias: `sums` has two rows of `padded` floats for each,
 * the first of them the result. */
AM_INLINE void norm_bwd_part(const norm_bwd *b, int dtype, int centred, int64_t first, int64_t end,
                             int64_t padded, float *sums)
{
    float *chunk = sums + padded, *bias = centred ? sums + 2 * padded : NULL;
    float *bias_chunk = centred ? sums + 3 * padded : NULL;
    memset(sums, 0, (size_t)((centred ? 4 : 2) * padded) * sizeof *sums);
    for (int64_t at = first; at < end; at += CHUNK) {
        int64_t last = at_most(end, at + CHUNK);
        memset(chunk, 0, (size_t)padded * sizeof *chunk);
        if (centred)
            memset(bias_chunk, 0, (size_t)padded * sizeof *chunk);
        if (b->args.dx)
            for (int64_t r = at; r < last; r++)
                norm_bwd_row(b, dtype, r, centred, 1, chunk, bias_chunk);
        else
            for (int64_t r = at; r < last; r++)
                norm_bwd_row(b, dtype, r, centred, 0, chunk, bias_chunk);
        for (int64_t i = 0; i < padded; i += VW) {
            vstore(sums + i, vload(sums + i) + vload(chunk + i));
            if (centred)
                vstore(bias + i, vload(bias + i) + vload(bias_chunk + i));
        }
    }
}

/* A gradient of c elements from the sums of all parts, which are `apart` floats from one another.
 */
static void sum_parts(void *out, int dtype, int accumulate, int64_t c, const float *sums,
                      int64_t parts, int64_t apart)
{
    for (int64_t i = 0; out && i < c; i += VW) {
        vf total = {0};
        for (int64_t z = 0; z < parts; z++)
            total += vload(sums + z * apart + i);
        if (accumulate)
            total += vget_n(out, dtype, i, c - i, 0);
        vput_n(out, dtype, i, c - i, total);
    }
}

/* dx alone. */
AM_INLINE int norm_dx(const norm_bwd *b, int centred)
{
#pragma omp parallel for num_threads(team(b->args.rows * b->args.c)) schedule(static)
    for (int64_t r = 0; r < b->args.rows; r++)
        AM_WITH_DTYPE(T, b->args.dtype, norm_bwd_row(b, T, r, centred, 1, NULL, NULL))
    return AM_OK;
}

AM_INLINE int norm_gradients(const norm_bwd *b, int centred)
{
    const am_layer_norm_bwd_args *args = &b->args;
    if (!args->dweight && !args->dbias)
        return args->dx ? norm_dx(b, centred) : AM_OK;
    int64_t chunks = (args->rows + CHUNK - 1) / CHUNK, padded = (args->c + VW - 1) / VW * VW;
    int64_t rows = (chunks + PARTS - 1) / PARTS * CHUNK; /* of a part */
    int64_t parts = rows ? (args->rows + rows - 1) / rows : 0, apart = (centred ? 4 : 2) * padded;
    float *sums = am_scratch(0, (size_t)(parts * apart + 1) * sizeof *sums);
    if (!sums)
        return am_kernel_fail(AM_ENOMEM, "norm_bwd: no scratch memory");
#pragma omp parallel for num_threads(team(args->rows * args->c)) schedule(static)
    for (int64_t z = 0; z < parts; z++)
        AM_WITH_DTYPE(T, args->dtype,
                      norm_bwd_part(b, T, centred, z * rows, at_most(args->rows, (z + 1) * rows),
                                    padded, sums + z * apart))
    sum_parts(args->dweight, args->dtype_dw, args->accumulate_dw, args->c, sums, parts, apart);
    sum_parts(args->dbias, args->dtype_db, args->accumulate_db, args->c, sums + 2 * padded, parts,
              apart);
    return AM_OK;
}

/* May a gradient have this dtype? */
static int takes_gradient(const void *out, int dtype_out, int dtype)
{
    return !out || dtype_out == AM_F32 || dtype_out == dtype;
}

int AM_SIMD(rms_norm_bwd)(am_stream *s, const am_rms_norm_bwd_args *args)
{
    if (!is_simd_float(args->dtype) || !takes_gradient(args->dweight, args->dtype_dw, args->dtype))
        return am_ref_rms_norm_bwd(s, args);
    norm_bwd b = {.args = {.dx = args->dx,
                           .dweight = args->dweight,
                           .dout = args->dout,
                           .x = args->x,
                           .weight = args->weight,
                           .dtype = args->dtype,
                           .dtype_dw = args->dtype_dw,
                           .accumulate_dx = args->accumulate_dx,
                           .accumulate_dw = args->accumulate_dw,
                           .offset = args->offset,
                           .rows = args->rows,
                           .c = args->c},
                  .rstd = args->rstd};
    return norm_gradients(&b, 0);
}

int AM_SIMD(layer_norm_bwd)(am_stream *s, const am_layer_norm_bwd_args *args)
{
    if (!is_simd_float(args->dtype) ||
        !takes_gradient(args->dweight, args->dtype_dw, args->dtype) ||
        !takes_gradient(args->dbias, args->dtype_db, args->dtype))
        return am_ref_layer_norm_bwd(s, args);
    const float *stats = args->stats;
    norm_bwd b = {.args = *args, .mean = stats, .rstd = stats + args->rows};
    return norm_gradients(&b, 1);
}

/* ---- rotary embedding --------------------------------------------------------------------- */

int AM_SIMD(rope_table)(am_stream *s, const am_rope_table_args *args)
{
    (void)s;
    int64_t half = args->half;
#pragma omp parallel for num_threads(team(8 * args->n * half)) schedule(static)
    for (int64_t i = 0; i < args->n; i++) {
        am_rope_table_args row = *args;
        row.n = 1;
        row.pos += i;
        row.out += i * 2 * half;
        am_ref_rope_table(NULL, &row);
    }
    return AM_OK;
}

/* Pairs (i, i + half) of one head. */
AM_INLINE void rope_halves(const am_rope_args *args, int dtype, int64_t base, const float *table)
{
    int64_t half = args->r / 2;
    for (int64_t i = 0; i < half; i += VW) {
        int64_t n = half - i, p = base + i, q = base + half + i;
        vf x = vget_n(args->x, dtype, p, n, 0), y = vget_n(args->x, dtype, q, n, 0);
        vf cosine = vget_n(table, AM_F32, i, n, 0), sine = vget_n(table, AM_F32, half + i, n, 0);
        if (args->inverse)
            sine = -sine;
        vput_n(args->out, dtype, p, n, vfma(x, cosine, -(y * sine)));
        vput_n(args->out, dtype, q, n, vfma(y, cosine, x * sine));
    }
}

AM_INLINE void rope_pairs(const am_rope_args *args, int dtype, int64_t base, const float *table)
{
    int64_t half = args->r / 2;
    for (int64_t i = 0; i < half; i++) {
        float x = load1(args->x, dtype, base + 2 * i), y = load1(args->x, dtype, base + 2 * i + 1);
        float cosine = table[i], sine = args->inverse ? -table[half + i] : table[half + i];
        store1(args->out, dtype, base + 2 * i, x * cosine - y * sine);
        store1(args->out, dtype, base + 2 * i + 1, y * cosine + x * sine);
    }
}

/* All heads of one token. */
AM_INLINE void rope_row(const am_rope_args *args, int dtype, int64_t row)
{
    const float *table = args->table + (args->table_batched ? row : row % args->t) * args->r;
    int64_t rest = args->d - args->r;
    for (int64_t h = 0; h < args->h; h++) {
        int64_t base = (row * args->h + h) * args->d;
        if (args->interleaved)
            rope_pairs(args, dtype, base, table);
        else
            rope_halves(args, dtype, base, table);
        if (rest > 0 && args->out != args->x)
            memcpy((char *)args->out + (base + args->r) * simd_size(dtype),
                   (const char *)args->x + (base + args->r) * simd_size(dtype),
                   (size_t)(rest * simd_size(dtype)));
    }
}

int AM_SIMD(rope)(am_stream *s, const am_rope_args *args)
{
    int64_t rows = args->b * args->t;
    if (!is_simd_float(args->dtype))
        return am_ref_rope(s, args);
#pragma omp parallel for num_threads(team(rows * args->h * args->d)) schedule(static)
    for (int64_t row = 0; row < rows; row++)
        AM_WITH_DTYPE(T, args->dtype, rope_row(args, T, row))
    return AM_OK;
}

/* ---- gated units -------------------------------------------------------------------------- */

enum { GLU_BLOCK = 4096 };

AM_INLINE void glu_loop(const am_glu_args *args, int act, int dtype, int64_t first, int64_t end)
{
    for (int64_t i = first; i < end; i += VW) {
        int64_t n = end - i;
        vput_n(args->out, dtype, i, n,
               vact(act, vget_n(args->gate, dtype, i, n, 0)) * vget_n(args->up, dtype, i, n, 0));
    }
}

AM_INLINE void glu_bwd_loop(const am_glu_bwd_args *args, int act, int dtype, int64_t first,
                            int64_t end)
{
    for (int64_t i = first; i < end; i += VW) {
        int64_t n = end - i;
        vf up = vget_n(args->up, dtype, i, n, 0), dout = vget_n(args->dout, dtype, i, n, 0), slope;
        vf y = vact_and_grad(act, vget_n(args->gate, dtype, i, n, 0), &slope);
        if (args->dgate)
            vput_n(args->dgate, dtype, i, n, dout * up * slope);
        if (args->dup)
            vput_n(args->dup, dtype, i, n, dout * y);
    }
}

/* One loop for each activation, so that the choice is made outside of it. */
/* clang-format off */
#define ACTS(X) \
    X(AM_ACT_SILU) \
    X(AM_ACT_GELU) \
    X(AM_ACT_GELU_TANH) \
    X(AM_ACT_RELU) \
    X(AM_ACT_SIGMOID) \
    X(AM_ACT_RELU2) \
    X(AM_ACT_QUICK_GELU) \
    X(AM_ACT_TANH)
/* clang-format on */

AM_INLINE void glu_block(const am_glu_args *args, int dtype, int64_t first, int64_t end)
{
    switch (args->act) {
#define X(act)                                                                                     \
    case act:                                                                                      \
        glu_loop(args, act, dtype, first, end);                                                    \
        break;
        ACTS(X)
#undef X
    default:
        break;
    }
}

AM_INLINE void glu_bwd_block(const am_glu_bwd_args *args, int dtype, int64_t first, int64_t end)
{
    switch (args->act) {
#define X(act)                                                                                     \
    case act:                                                                                      \
        glu_bwd_loop(args, act, dtype, first, end);                                                \
        break;
        ACTS(X)
#undef X
    default:
        break;
    }
}

int AM_SIMD(glu)(am_stream *s, const am_glu_args *args)
{
    if (args->act < 0 || args->act >= AM_ACT_COUNT || !is_simd_float(args->dtype))
        return am_ref_glu(s, args);
#pragma omp parallel for num_threads(team(2 * args->n)) schedule(static)
    for (int64_t i = 0; i < args->n; i += GLU_BLOCK)
        AM_WITH_DTYPE(T, args->dtype, glu_block(args, T, i, at_most(args->n, i + GLU_BLOCK)))
    return AM_OK;
}

int AM_SIMD(glu_bwd)(am_stream *s, const am_glu_bwd_args *args)
{
    if (args->act < 0 || args->act >= AM_ACT_COUNT || !is_simd_float(args->dtype))
        return am_ref_glu_bwd(s, args);
#pragma omp parallel for num_threads(team(2 * args->n)) schedule(static)
    for (int64_t i = 0; i < args->n; i += GLU_BLOCK)
        AM_WITH_DTYPE(T, args->dtype, glu_bwd_block(args, T, i, at_most(args->n, i + GLU_BLOCK)))
    return AM_OK;
}
