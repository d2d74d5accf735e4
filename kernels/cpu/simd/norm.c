/* norm.c — RMSNorm forward and backward, rotary embedding and gated units for f32, bf16 and f16.
 * Formulas as in ref_model.c. */
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
                   vget_n(args->weight, dtype, i, c - i, 0));
}

AM_INLINE int rms_norm_simd(const am_rms_norm_args *args, int dtype)
{
#pragma omp parallel for num_threads(team(args->rows * args->c)) schedule(static)
    for (int64_t r = 0; r < args->rows; r++)
        rms_norm_row(args, dtype, r);
    return AM_OK;
}

int AM_SIMD(rms_norm)(am_stream *s, const am_rms_norm_args *args){
    AM_DISPATCH_SIMD(args->dtype, rms_norm_simd, args, am_ref_rms_norm(s, args))}

AM_INLINE void rms_norm_dx_row(const am_rms_norm_bwd_args *args, int dtype, int64_t r)
{
    int64_t c = args->c, at = r * c;
    float rstd = ((const float *)args->rstd)[r];
    vf sum = {0};
    for (int64_t i = 0; i < c; i += VW) {
        vf g =
            vget_n(args->dout, dtype, at + i, c - i, 0) * vget_n(args->weight, dtype, i, c - i, 0);
        sum = vfma(g, vget_n(args->x, dtype, at + i, c - i, 0), sum);
    }
    float mean = vsum(sum) * rstd / (float)c * rstd; /* times x: n mean(g n) */
    for (int64_t i = 0; i < c; i += VW) {
        vf g =
            vget_n(args->dout, dtype, at + i, c - i, 0) * vget_n(args->weight, dtype, i, c - i, 0);
        vf d = rstd * vfma(vsplat(-mean), vget_n(args->x, dtype, at + i, c - i, 0), g);
        if (args->accumulate_dx)
            d += vget_n(args->dx, dtype, at + i, c - i, 0);
        vput_n(args->dx, dtype, at + i, c - i, d);
    }
}

enum { DW_ROWS = 64, DW_COLS = 4 }; /* rows summed apart, for shorter chains; vectors at a time */

/* Columns i.. of dweight: DW_COLS vectors, all rows in order. */
AM_INLINE void rms_norm_dw_columns(const am_rms_norm_bwd_args *args, int dtype, int to, int64_t i)
{
    int64_t c = args->c;
    const float *rstd = args->rstd;
    vf total[DW_COLS] = {{0}};
    for (int64_t first = 0; first < args->rows; first += DW_ROWS) {
        vf sum[DW_COLS] = {{0}};
        for (int64_t r = first; r < at_most(args->rows, first + DW_ROWS); r++) {
            for (int64_t j = 0; j < DW_COLS; j++) {
                int64_t col = i + j * VW, at = r * c + col;
                sum[j] = vfma(vget_n(args->dout, dtype, at, c - col, 0),
                              vget_n(args->x, dtype, at, c - col, 0) * rstd[r], sum[j]);
            }
        }
        for (int j = 0; j < DW_COLS; j++)
            total[j] += sum[j];
    }
    for (int64_t j = 0; j < DW_COLS; j++) {
        int64_t col = i + j * VW;
        if (args->accumulate_dw)
            total[j] += vget_n(args->dweight, to, col, c - col, 0);
        vput_n(args->dweight, to, col, c - col, total[j]);
    }
}

AM_INLINE int rms_norm_bwd_simd(const am_rms_norm_bwd_args *args, int dtype)
{
    int to = args->dtype_dw == AM_F32 ? AM_F32 : dtype;
#pragma omp parallel num_threads(team(args->rows * args->c))
    {
        if (args->dweight) {
#pragma omp for schedule(static)
            for (int64_t i = 0; i < args->c; i += DW_COLS * VW)
                rms_norm_dw_columns(args, dtype, to, i);
        }
        if (args->dx) {
#pragma omp for schedule(static)
            for (int64_t r = 0; r < args->rows; r++)
                rms_norm_dx_row(args, dtype, r);
        }
    }
    return AM_OK;
}

int AM_SIMD(rms_norm_bwd)(am_stream *s, const am_rms_norm_bwd_args *args)
{
    if (args->dweight && args->dtype_dw != AM_F32 && args->dtype_dw != args->dtype)
        return am_ref_rms_norm_bwd(s, args);
    AM_DISPATCH_SIMD(args->dtype, rms_norm_bwd_simd, args, am_ref_rms_norm_bwd(s, args))
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

AM_INLINE int rope_simd(const am_rope_args *args, int dtype)
{
    int64_t rows = args->b * args->t, rest = args->d - args->r;
#pragma omp parallel for num_threads(team(rows * args->h * args->d)) schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        const float *table = args->table + (args->table_batched ? row : row % args->t) * args->r;
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
    return AM_OK;
}

int AM_SIMD(rope)(am_stream *s, const am_rope_args *args)
{
    AM_DISPATCH_SIMD(args->dtype, rope_simd, args, am_ref_rope(s, args))
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
#define ACTS(X) X(AM_ACT_SILU) X(AM_ACT_GELU) X(AM_ACT_GELU_TANH) X(AM_ACT_RELU) X(AM_ACT_SIGMOID)

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

AM_INLINE int glu_simd(const am_glu_args *args, int dtype)
{
#pragma omp parallel for num_threads(team(2 * args->n)) schedule(static)
    for (int64_t i = 0; i < args->n; i += GLU_BLOCK)
        glu_block(args, dtype, i, at_most(args->n, i + GLU_BLOCK));
    return AM_OK;
}

int AM_SIMD(glu)(am_stream *s, const am_glu_args *args)
{
    if (args->act < 0 || args->act >= AM_ACT_COUNT)
        return am_ref_glu(s, args);
    AM_DISPATCH_SIMD(args->dtype, glu_simd, args, am_ref_glu(s, args))
}

AM_INLINE int glu_bwd_simd(const am_glu_bwd_args *args, int dtype)
{
#pragma omp parallel for num_threads(team(2 * args->n)) schedule(static)
    for (int64_t i = 0; i < args->n; i += GLU_BLOCK)
        glu_bwd_block(args, dtype, i, at_most(args->n, i + GLU_BLOCK));
    return AM_OK;
}

int AM_SIMD(glu_bwd)(am_stream *s, const am_glu_bwd_args *args)
{
    if (args->act < 0 || args->act >= AM_ACT_COUNT)
        return am_ref_glu_bwd(s, args);
    AM_DISPATCH_SIMD(args->dtype, glu_bwd_simd, args, am_ref_glu_bwd(s, args))
}
