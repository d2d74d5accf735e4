/* attention_merge.c — what two sets of keys gave becomes what both give together. Formulas as in
 * ref_attention.c. */
#include "vec.h"
#include "../ref_kernels.h"

AM_INLINE void merge_row(const am_attention_merge_args *args, int dtype, int64_t row)
{
    int64_t h = row % args->h, t = row / args->h % args->t, b = row / args->h / args->t;
    float *lse = (float *)args->lse + (b * args->h + h) * args->t + t, x = *lse;
    float y = ((const float *)args->block_lse)[(b * args->h + h) * args->t + t];
    if (y == -INFINITY)
        return;
    float max = x > y ? x : y, own = expf(x - max), other = expf(y - max), total = own + other;
    vf from = vsplat(own / total), take = vsplat(other / total);
    for (int64_t i = 0, at = row * args->d; i < args->d; i += VW) {
        vf out = vget_n(args->out, AM_F32, at + i, args->d - i, 0);
        vf block = vget_n(args->block, dtype, at + i, args->d - i, 0);
        vput_n(args->out, AM_F32, at + i, args->d - i, vfma(take, block, from * out));
    }
    *lse = max + logf(total);
}

int AM_SIMD(attention_merge)(am_stream *s, const am_attention_merge_args *args)
{
    int64_t rows = args->b * args->t * args->h;
    if (!is_simd_float(args->dtype))
        return am_ref_attention_merge(s, args);
#pragma omp parallel for num_threads(team(rows * args->d)) schedule(static)
    for (int64_t r = 0; r < rows; r++)
        AM_WITH_DTYPE(T, args->dtype, merge_row(args, T, r))
    return AM_OK;
}
