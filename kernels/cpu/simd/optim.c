/* optim.c — optimizer steps and the sum of squares, for f32 and 16-bit weights with f32 gradients;
 * other dtypes go to ref, whose formulas these are. The arithmetic is f32, as torch's is. */
#include "vec.h"
#include "../dynamic_map.h"
#include "../ref_kernels.h"

enum { PIECE = 16384 }; /* elements that a thread takes at a time; a multiple of every VW */

/* ---- what the steps share ----------------------------------------------------------------- */

/* A vector's worth of each buffer, so that the tail takes the same path as the rest. */
typedef struct tail {
    float param[VW], master[VW], grad[VW], a[VW], b[VW], c[VW];
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

/* A part of a step, for elements from first on; the second number is their end or their count. */
typedef void part(const void *args, int64_t first, int64_t end_or_count);

/* A step over n elements: `range` takes whole vectors up to an end, `rest` the count that is left.
 * With 8-bit moments `block` (else NULL) takes a count of at most AM_STATE_BLOCK at a time. */
static int update(const void *args, int64_t n, part *range, part *rest, part *block)
{
    if (block) {
#pragma omp parallel for num_threads(team(n)) schedule(static)
        for (int64_t i = 0; i < n; i += AM_STATE_BLOCK)
            block(args, i, at_most(AM_STATE_BLOCK, n - i));
        return AM_OK;
    }
    int64_t whole = n - n % VW;
#pragma omp parallel for num_threads(team(n)) schedule(static)
    for (int64_t i = 0; i < whole; i += PIECE)
        range(args, i, at_most(whole, i + PIECE));
    if (whole < n)
        rest(args, whole, n - whole);
    return AM_OK;
}

/* ---- Adam and AdamW ----------------------------------------------------------------------- */

/* Elements first..end-1, a multiple of VW of them. */
AM_INLINE void adam_loop(const am_adam_args *a, int dtype, int dtype_state, int64_t first,
                         int64_t end)
{
    float wd = (float)a->weight_decay, scale = (float)a->grad_scale, eps = (float)a->eps;
    float beta2 = (float)a->beta2, one_beta1 = (float)(1.0 - a->beta1);
    float one_beta2 = (float)(1.0 - a->beta2), shrink = (float)(1.0 - a->lr * a->weight_decay);
    float bias2 = (float)sqrt(a->bias2), size = (float)(a->lr / a->bias1);
    for (int64_t i = first; i < end; i += VW) {
        vf p = a->master ? vload(a->master + i) : vget(a->param, dtype, i);
        vf g = vload((const float *)a->grad + i) * scale;
        vf m = vget(a->m, dtype_state, i), v = vget(a->v, dtype_state, i);
        if (a->decoupled)
            p *= shrink;
        else
            g += wd * p;
        m += (g - m) * one_beta1;
        v = v * beta2 + g * g * one_beta2;
        vput(a->m, dtype_state, i, m);
        vput(a->v, dtype_state, i, v);
        if (a->vmax) {
            v = vmax(vget(a->vmax, dtype_state, i), v);
            vput(a->vmax, dtype_state, i, v);
        }
        p -= size * (m / (vsqrt(v) / bias2 + eps));
        if (a->master)
            vstore(a->master + i, p);
        vput(a->param, dtype, i, p);
    }
}

static void adam_range(const void *args, int64_t first, int64_t end)
{
    const am_adam_args *a = args;
    AM_WITH_DTYPE(T, a->dtype,
                  AM_WITH_DTYPE(State, a->dtype_state, adam_loop(a, T, State, first, end)))
}

static void adam_tail(const void *args, int64_t first, int64_t n)
{
    const am_adam_args *a = args;
    tail t = {0};
    am_adam_args b = *a;
    stage(t.param, a->param, a->dtype, first, n);
    stage(t.master, a->master, AM_F32, first, n);
    stage(t.grad, a->grad, AM_F32, first, n);
    stage(t.a, a->m, a->dtype_state, first, n);
    stage(t.b, a->v, a->dtype_state, first, n);
    stage(t.c, a->vmax, a->dtype_state, first, n);
    b.param = t.param;
    b.master = a->master ? t.master : NULL;
    b.grad = t.grad;
    b.m = t.a;
    b.v = t.b;
    b.vmax = a->vmax ? t.c : NULL;
    adam_range(&b, 0, VW);
    unstage(a->param, t.param, a->dtype, first, n);
    unstage(a->master, t.master, AM_F32, first, n);
    unstage(a->m, t.a, a->dtype_state, first, n);
    unstage(a->v, t.b, a->dtype_state, first, n);
    unstage(a->vmax, t.c, a->dtype_state, first, n);
}

/* Elements of a block of 8-bit moments: they become f32, are updated as such, and become codes. */
static void adam_block(const void *args, int64_t first, int64_t n)
{
    const am_adam_args *a = args;
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
    return update(args, args->n, adam_range, adam_tail, codes ? adam_block : NULL);
}

/* ---- SGD ---------------------------------------------------------------------------------- */

AM_INLINE void sgd_loop(const am_sgd_args *a, int dtype, int dtype_state, int64_t first,
                        int64_t end)
{
    float wd = (float)a->weight_decay, scale = (float)a->grad_scale, lr = (float)a->lr;
    float momentum = (float)a->momentum, fresh = (float)(1.0 - a->dampening);
    for (int64_t i = first; i < end; i += VW) {
        vf p = a->master ? vload(a->master + i) : vget(a->param, dtype, i);
        vf g = vload((const float *)a->grad + i) * scale;
        g += wd * p;
        if (a->buf) {
            vf b = g;
            if (!a->first)
                b = vget(a->buf, dtype_state, i) * momentum + g * fresh;
            vput(a->buf, dtype_state, i, b);
            g = a->nesterov ? g + b * momentum : b;
        }
        p -= lr * g;
        if (a->master)
            vstore(a->master + i, p);
        vput(a->param, dtype, i, p);
    }
}

static void sgd_range(const void *args, int64_t first, int64_t end)
{
    const am_sgd_args *a = args;
    AM_WITH_DTYPE(T, a->dtype,
                  AM_WITH_DTYPE(State, a->dtype_state, sgd_loop(a, T, State, first, end)))
}

static void sgd_tail(const void *args, int64_t first, int64_t n)
{
    const am_sgd_args *a = args;
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

static void sgd_block(const void *args, int64_t first, int64_t n)
{
    const am_sgd_args *a = args;
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
    return update(args, args->n, sgd_range, sgd_tail, codes ? sgd_block : NULL);
}

/* ---- Lion --------------------------------------------------------------------------------- */

AM_INLINE void lion_loop(const am_lion_args *a, int dtype, int dtype_state, int64_t first,
                         int64_t end)
{
    float scale = (float)a->grad_scale, lr = (float)a->lr;
    float shrink = (float)(1.0 - a->lr * a->weight_decay);
    float beta1 = (float)a->beta1, one_beta1 = (float)(1.0 - a->beta1);
    float beta2 = (float)a->beta2, one_beta2 = (float)(1.0 - a->beta2);
    for (int64_t i = first; i < end; i += VW) {
        vf p = a->master ? vload(a->master + i) : vget(a->param, dtype, i);
        vf g = vload((const float *)a->grad + i) * scale;
        vf m = vget(a->m, dtype_state, i);
        vf u = m * beta1 + g * one_beta1;
        vf up = vselect(u > 0, vsplat(lr), u), step = vselect(u < 0, vsplat(-lr), up);
        p = p * shrink - step; /* a NaN stays one */
        vput(a->m, dtype_state, i, m * beta2 + g * one_beta2);
        if (a->master)
            vstore(a->master + i, p);
        vput(a->param, dtype, i, p);
    }
}

static void lion_range(const void *args, int64_t first, int64_t end)
{
    const am_lion_args *a = args;
    AM_WITH_DTYPE(T, a->dtype,
                  AM_WITH_DTYPE(State, a->dtype_state, lion_loop(a, T, State, first, end)))
}

static void lion_tail(const void *args, int64_t first, int64_t n)
{
    const am_lion_args *a = args;
    tail t = {0};
    am_lion_args b = *a;
    stage(t.param, a->param, a->dtype, first, n);
    stage(t.master, a->master, AM_F32, first, n);
    stage(t.grad, a->grad, AM_F32, first, n);
    stage(t.a, a->m, a->dtype_state, first, n);
    b.param = t.param;
    b.master = a->master ? t.master : NULL;
    b.grad = t.grad;
    b.m = t.a;
    lion_range(&b, 0, VW);
    unstage(a->param, t.param, a->dtype, first, n);
    unstage(a->master, t.master, AM_F32, first, n);
    unstage(a->m, t.a, a->dtype_state, first, n);
}

static void lion_block(const void *args, int64_t first, int64_t n)
{
    const am_lion_args *a = args;
    const am_dynamic_map *map = am_dynamic_map_signed();
    uint8_t *codes = (uint8_t *)a->m + first;
    int64_t block = first / AM_STATE_BLOCK, whole = n - n % VW;
    float m[AM_STATE_BLOCK];
    am_lion_args b = *a;
    b.param = (char *)a->param + first * simd_size(a->dtype);
    b.master = a->master ? a->master + first : NULL;
    b.grad = (const float *)a->grad + first;
    b.m = m;
    b.dtype_state = AM_F32;
    am_from_codes(m, codes, a->m_absmax[block], n, map);
    lion_range(&b, 0, whole);
    if (whole < n)
        lion_tail(&b, whole, n - whole);
    a->m_absmax[block] = am_to_codes(codes, m, n, map);
}

int AM_SIMD(lion)(am_stream *s, const am_lion_args *args)
{
    int codes = args->dtype_state == AM_U8;
    if (!is_simd_float(args->dtype) || !(codes || is_simd_float(args->dtype_state)) ||
        args->dtype_grad != AM_F32)
        return am_ref_lion(s, args);
    return update(args, args->n, lion_range, lion_tail, codes ? lion_block : NULL);
}

/* ---- sum of squares ----------------------------------------------------------------------- */

typedef double vd __attribute__((vector_size(64)));

/* Adds the squares of eight elements from i on; a square of a float is exact. */
AM_INLINE void add_squares(vd *sum, const void *x, int dtype, int64_t i)
{
#if defined(__AVX512F__)
    __m256 f;
    if (dtype == AM_F32) {
        f = _mm256_loadu_ps((const float *)x + i);
    } else {
        __m128i h = _mm_loadu_si128((const __m128i *)(const void *)((const uint16_t *)x + i));
        f = dtype == AM_BF16 ? (__m256)_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16)
                             : _mm256_cvtph_ps(h);
    }
    __m512d v = _mm512_cvtps_pd(f);
    *sum = (vd)_mm512_fmadd_pd(v, v, (__m512d)*sum);
#else
    for (int j = 0; j < 8; j++) {
        double v = (double)load1(x, dtype, i + j);
        (*sum)[j] += v * v;
    }
#endif
}

/* In double, 32 running sums that are added in pairs at the end. */
AM_INLINE double block_sumsq(const void *x, int dtype, int64_t first, int64_t n)
{
    vd sum[4] = {{0}};
    int64_t i = 0;
    for (; i + 32 <= n; i += 32)
        for (int j = 0; j < 4; j++)
            add_squares(&sum[j], x, dtype, first + i + 8 * j);
    for (; i < n; i++) {
        double v = (double)load1(x, dtype, first + i);
        sum[i % 32 / 8][i % 8] += v * v;
    }
    vd s = (sum[0] + sum[2]) + (sum[1] + sum[3]);
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

int AM_SIMD(sumsq)(am_stream *s, const am_sumsq_args *a)
{
    int64_t blocks = (a->n + AM_SUMSQ_BLOCK - 1) / AM_SUMSQ_BLOCK;
    if (!is_simd_float(a->dtype))
        return am_ref_sumsq(s, a);
#pragma omp parallel for num_threads(team(a->n)) schedule(static)
    for (int64_t k = 0; k < blocks; k++) {
        int64_t first = k * AM_SUMSQ_BLOCK, n = at_most(AM_SUMSQ_BLOCK, a->n - first);
        AM_WITH_DTYPE(T, a->dtype, a->partial[k] = block_sumsq(a->x, T, first, n))
    }
    double total = 0;
    for (int64_t k = 0; k < blocks; k++)
        total += a->partial[k];
    *a->out = total;
    return AM_OK;
}
