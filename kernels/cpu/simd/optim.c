/* optim.c — optimizer steps and the sum of squares, for f32 and 16-bit weights with f32 gradients;
 * other dtypes go to ref, whose formulas these are. The arithmetic is f32, as torch's is. */
#include "vec.h"
#include "../dynamic_map.h"
#include "../ref_kernels.h"

enum { PIECE = 16384 }; /* elements that a thread takes at a time; a multiple of every VW */

/* ---- Adam and AdamW ----------------------------------------------------------------------- */

/* Elements first..end-1, a multiple of VW of them. */
static void adam_range(const am_adam_args *a, int64_t first, int64_t end)
{
    float wd = (float)a->weight_decay, scale = (float)a->grad_scale, eps = (float)a->eps;
    float beta2 = (float)a->beta2, one_beta1 = (float)(1.0 - a->beta1);
    float one_beta2 = (float)(1.0 - a->beta2), shrink = (float)(1.0 - a->lr * a->weight_decay);
    float bias2 = (float)sqrt(a->bias2), size = (float)(a->lr / a->bias1);
    for (int64_t i = first; i < end; i += VW) {
        vf p = a->master ? vload(a->master + i) : vget(a->param, a->dtype, i);
        vf g = vload((const float *)a->grad + i) * scale;
        vf m = vget(a->m, a->dtype_state, i), v = vget(a->v, a->dtype_state, i);
        if (a->decoupled)
            p *= shrink;
        else
            g += wd * p;
        m += (g - m) * one_beta1;
        v = v * beta2 + g * g * one_beta2;
        p -= size * (m / (vsqrt(v) / bias2 + eps));
        vput(a->m, a->dtype_state, i, m);
        vput(a->v, a->dtype_state, i, v);
        if (a->master)
            vstore(a->master + i, p);
        vput(a->param, a->dtype, i, p);
    }
}

/* A vector's worth of each buffer, so that the tail takes the same path as the rest. */
typedef struct tail {
    float param[VW], master[VW], grad[VW], a[VW], b[VW];
} tail;

static void stage(void *to, const void *from, int dtype, int64_t first, int64_t n)
{
    if (from)
        memcpy(to, (const char *)from + first * simd_size(dtype), (size_t)(n * simd_size(dtype)));
}

static void unstage(void *to, const void *from, int dtype, int64_t first, int64_t n)
{
    if (to)
        memcpy((char *)to + first * simd_size(dtype), from, (size_t)(n * simd_size(dtype)));
}

static void adam_tail(const am_adam_args *a, int64_t first, int64_t n)
{
    tail t = {0};
    am_adam_args b = *a;
    stage(t.param, a->param, a->dtype, first, n);
    stage(t.master, a->master, AM_F32, first, n);
    stage(t.grad, a->grad, AM_F32, first, n);
    stage(t.a, a->m, a->dtype_state, first, n);
    stage(t.b, a->v, a->dtype_state, first, n);
    b.param = t.param;
    b.master = a->master ? t.master : NULL;
    b.grad = t.grad;
    b.m = t.a;
    b.v = t.b;
    adam_range(&b, 0, VW);
    unstage(a->param, t.param, a->dtype, first, n);
    unstage(a->master, t.master, AM_F32, first, n);
    unstage(a->m, t.a, a->dtype_state, first, n);
    unstage(a->v, t.b, a->dtype_state, first, n);
}

/* Elements of a block of 8-bit moments: they become f32, are updated as such, and become codes. */
static void adam_block(const am_adam_args *a, int64_t first, int64_t n)
{
    const am_dynamic_map *with_sign = am_dynamic_map_signed();
    const am_dynamic_map *without = am_dynamic_map_unsigned();
    uint8_t *m_codes = (uint8_t *)a->m + first, *v_codes = (uint8_t *)a->v + first;
    int64_t block = first / AM_STATE_BLOCK, whole = n - n % VW;
    float m[AM_STATE_BLOCK], v[AM_STATE_BLOCK];
    am_adam_args b = *a;
    b.param = (char *)a->param + first * simd_size(a->dtype);
    b.master = a->master ? a->master + first : NULL;
    b.grad = (const float *)a->grad + first;
    b.m = m;
    b.v = v;
    b.dtype_state = AM_F32;
    am_from_codes(m, m_codes, a->m_absmax[block], n, with_sign);
    am_from_codes(v, v_codes, a->v_absmax[block], n, without);
    adam_range(&b, 0, whole);
    if (whole < n)
        adam_tail(&b, whole, n - whole);
    a->m_absmax[block] = am_to_codes(m_codes, m, n, with_sign);
    a->v_absmax[block] = am_to_codes(v_codes, v, n, without);
}

int AM_SIMD(adam)(am_stream *s, const am_adam_args *args)
{
    int codes = args->dtype_state == AM_U8;
    if (!is_simd_float(args->dtype) || !(codes || is_simd_float(args->dtype_state)) ||
        args->dtype_grad != AM_F32)
        return am_ref_adam(s, args);
    if (codes) {
#pragma omp parallel for num_threads(team(args->n)) schedule(static)
        for (int64_t i = 0; i < args->n; i += AM_STATE_BLOCK)
            adam_block(args, i, at_most(AM_STATE_BLOCK, args->n - i));
        return AM_OK;
    }
    int64_t whole = args->n - args->n % VW;
#pragma omp parallel for num_threads(team(args->n)) schedule(static)
    for (int64_t i = 0; i < whole; i += PIECE)
        adam_range(args, i, at_most(whole, i + PIECE));
    if (whole < args->n)
        adam_tail(args, whole, args->n - whole);
    return AM_OK;
}

/* ---- SGD ---------------------------------------------------------------------------------- */

static void sgd_range(const am_sgd_args *a, int64_t first, int64_t end)
{
    float wd = (float)a->weight_decay, scale = (float)a->grad_scale, lr = (float)a->lr;
    float momentum = (float)a->momentum, fresh = (float)(1.0 - a->dampening);
    for (int64_t i = first; i < end; i += VW) {
        vf p = a->master ? vload(a->master + i) : vget(a->param, a->dtype, i);
        vf g = vload((const float *)a->grad + i) * scale;
        g += wd * p;
        if (a->buf) {
            vf b = g;
            if (!a->first)
                b = vget(a->buf, a->dtype_state, i) * momentum + g * fresh;
            vput(a->buf, a->dtype_state, i, b);
            g = a->nesterov ? g + b * momentum : b;
        }
        p -= lr * g;
        if (a->master)
            vstore(a->master + i, p);
        vput(a->param, a->dtype, i, p);
    }
}

static void sgd_tail(const am_sgd_args *a, int64_t first, int64_t n)
{
    tail t = {0};
    am_sgd_args b = *a;
    stage(t.param, a->param, a->dtype, first, n);
    stage(t.master, a->master, AM_F32, first, n);
    stage(t.grad, a->grad, AM_F32, first, n);
    stage(t.a, a->buf, a->dtype_state, first, n);
    b.param = t.param;
    b.master = a->master ? t.master : NULL;
    b.grad = t.grad;
    b.buf = a->buf ? t.a : NULL;
    sgd_range(&b, 0, VW);
    unstage(a->param, t.param, a->dtype, first, n);
    unstage(a->master, t.master, AM_F32, first, n);
    unstage(a->buf, t.a, a->dtype_state, first, n);
}

static void sgd_block(const am_sgd_args *a, int64_t first, int64_t n)
{
    const am_dynamic_map *map = am_dynamic_map_signed();
    uint8_t *codes = (uint8_t *)a->buf + first;
    int64_t block = first / AM_STATE_BLOCK, whole = n - n % VW;
    float buf[AM_STATE_BLOCK];
    am_sgd_args b = *a;
    b.param = (char *)a->param + first * simd_size(a->dtype);
    b.master = a->master ? a->master + first : NULL;
    b.grad = (const float *)a->grad + first;
    b.buf = buf;
    b.dtype_state = AM_F32;
    am_from_codes(buf, codes, a->buf_absmax[block], n, map);
    sgd_range(&b, 0, whole);
    if (whole < n)
        sgd_tail(&b, whole, n - whole);
    a->buf_absmax[block] = am_to_codes(codes, buf, n, map);
}

int AM_SIMD(sgd)(am_stream *s, const am_sgd_args *args)
{
    int codes = args->buf && args->dtype_state == AM_U8;
    if (!is_simd_float(args->dtype) || args->dtype_grad != AM_F32 ||
        (args->buf && !codes && !is_simd_float(args->dtype_state)))
        return am_ref_sgd(s, args);
    if (codes) {
#pragma omp parallel for num_threads(team(args->n)) schedule(static)
        for (int64_t i = 0; i < args->n; i += AM_STATE_BLOCK)
            sgd_block(args, i, at_most(AM_STATE_BLOCK, args->n - i));
        return AM_OK;
    }
    int64_t whole = args->n - args->n % VW;
#pragma omp parallel for num_threads(team(args->n)) schedule(static)
    for (int64_t i = 0; i < whole; i += PIECE)
        sgd_range(args, i, at_most(whole, i + PIECE));
    if (whole < args->n)
        sgd_tail(args, whole, args->n - whole);
    return AM_OK;
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

AM_INLINE int sumsq_simd(const am_sumsq_args *a, int dtype)
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
    AM_DISPATCH_SIMD(args->dtype, sumsq_simd, args, am_ref_sumsq(s, args))
}
