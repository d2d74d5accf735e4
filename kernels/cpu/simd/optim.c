/* optim.c — optimizer steps and the sum of squares, for f32 and 16-bit weights with f32 gradients;
 * other dtypes go to ref, whose formulas these are. The arithmetic is f32, as torch's is. */
#include "vec.h"
#include "../ref_kernels.h"

enum { PIECE = 16384 }; /* elements that a thread takes at a time; a multiple of every VW */

AM_INLINE int handled(int dtype)
{
    return dtype == AM_F32 || dtype == AM_BF16 || dtype == AM_F16;
}

/* ---- Adam and AdamW ----------------------------------------------------------------------- */

AM_INLINE void adam_vector(const am_adam_args *a, int dtype, int state, int64_t i, int64_t n)
{
    float wd = (float)a->weight_decay;
    vf p = a->master ? vget_n(a->master, AM_F32, i, n, 0.0f) : vget_n(a->param, dtype, i, n, 0.0f);
    vf g = vget_n(a->grad, AM_F32, i, n, 0.0f) * (float)a->grad_scale;
    vf m = vget_n(a->m, state, i, n, 0.0f), v = vget_n(a->v, state, i, n, 0.0f);
    if (a->decoupled)
        p *= (float)(1.0 - a->lr * a->weight_decay);
    else
        g += wd * p;
    m += (g - m) * (float)(1.0 - a->beta1);
    v = v * (float)a->beta2 + g * g * (float)(1.0 - a->beta2);
    vf denominator = vsqrt(v) / (float)sqrt(a->bias2) + (float)a->eps;
    p -= (float)(a->lr / a->bias1) * (m / denominator);
    vput_n(a->m, state, i, n, m);
    vput_n(a->v, state, i, n, v);
    if (a->master)
        vput_n(a->master, AM_F32, i, n, p);
    vput_n(a->param, dtype, i, n, p);
}

AM_INLINE int adam_half(const am_adam_args *a, int dtype)
{
    int64_t pieces = (a->n + PIECE - 1) / PIECE;
#pragma omp parallel for num_threads(team(a->n)) schedule(static)
    for (int64_t k = 0; k < pieces; k++) {
        int64_t end = at_most(a->n, (k + 1) * PIECE);
        if (a->dtype_state == AM_F32)
            for (int64_t i = k * PIECE; i < end; i += VW)
                adam_vector(a, dtype, AM_F32, i, at_most(VW, end - i));
        else
            for (int64_t i = k * PIECE; i < end; i += VW)
                adam_vector(a, dtype, AM_BF16, i, at_most(VW, end - i));
    }
    return AM_OK;
}

int AM_SIMD(adam)(am_stream *s, const am_adam_args *args)
{
    if (args->dtype_grad != AM_F32 ||
        (args->dtype_state != AM_F32 && args->dtype_state != AM_BF16))
        return am_ref_adam(s, args);
    AM_DISPATCH_HALF(args->dtype, adam_half, args, am_ref_adam(s, args))
}

/* ---- SGD ---------------------------------------------------------------------------------- */

AM_INLINE void sgd_vector(const am_sgd_args *a, int dtype, int state, int64_t i, int64_t n)
{
    vf p = a->master ? vget_n(a->master, AM_F32, i, n, 0.0f) : vget_n(a->param, dtype, i, n, 0.0f);
    vf g = vget_n(a->grad, AM_F32, i, n, 0.0f) * (float)a->grad_scale;
    g += (float)a->weight_decay * p;
    if (a->buf) {
        vf b = g;
        if (!a->first)
            b = vget_n(a->buf, state, i, n, 0.0f) * (float)a->momentum +
                g * (float)(1.0 - a->dampening);
        vput_n(a->buf, state, i, n, b);
        g = a->nesterov ? g + b * (float)a->momentum : b;
    }
    p -= (float)a->lr * g;
    if (a->master)
        vput_n(a->master, AM_F32, i, n, p);
    vput_n(a->param, dtype, i, n, p);
}

AM_INLINE int sgd_half(const am_sgd_args *a, int dtype)
{
    int64_t pieces = (a->n + PIECE - 1) / PIECE;
#pragma omp parallel for num_threads(team(a->n)) schedule(static)
    for (int64_t k = 0; k < pieces; k++) {
        int64_t end = at_most(a->n, (k + 1) * PIECE);
        for (int64_t i = k * PIECE; i < end; i += VW)
            sgd_vector(a, dtype, a->dtype_state, i, at_most(VW, end - i));
    }
    return AM_OK;
}

int AM_SIMD(sgd)(am_stream *s, const am_sgd_args *args)
{
    if (args->dtype_grad != AM_F32 || (args->buf && !handled(args->dtype_state)))
        return am_ref_sgd(s, args);
    AM_DISPATCH_HALF(args->dtype, sgd_half, args, am_ref_sgd(s, args))
}

/* ---- sum of squares ----------------------------------------------------------------------- */

/* In double, eight running sums that are added in pairs at the end. */
AM_INLINE double block_sumsq(const void *x, int dtype, int64_t first, int64_t n)
{
    double sum[8] = {0};
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int j = 0; j < 8; j++) {
            double v = (double)load1(x, dtype, first + i + j);
            sum[j] += v * v;
        }
    for (; i < n; i++) {
        double v = (double)load1(x, dtype, first + i);
        sum[i % 8] += v * v;
    }
    return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}

AM_INLINE int sumsq_half(const am_sumsq_args *a, int dtype)
{
    int64_t blocks = (a->n + AM_SUMSQ_BLOCK - 1) / AM_SUMSQ_BLOCK;
#pragma omp parallel for num_threads(team(a->n)) schedule(static)
    for (int64_t k = 0; k < blocks; k++) {
        int64_t first = k * AM_SUMSQ_BLOCK;
        a->partial[k] = block_sumsq(a->x, dtype, first, at_most(AM_SUMSQ_BLOCK, a->n - first));
    }
    double total = 0;
    for (int64_t k = 0; k < blocks; k++)
        total += a->partial[k];
    *a->out = total;
    return AM_OK;
}

int AM_SIMD(sumsq)(am_stream *s, const am_sumsq_args *args)
{
    AM_DISPATCH_HALF(args->dtype, sumsq_half, args, am_ref_sumsq(s, args))
}
