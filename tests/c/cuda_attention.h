/* cuda_attention.h — problems of attention, on device "cuda" and on ref: what its tests share. */
#ifndef CUDA_ATTENTION_H
#define CUDA_ATTENTION_H

#include "cuda_suite.h"
#include "test_kernels.h"

/* ---- problems ------------------------------------------------------------------------------- */

enum { Q, K, V, DOUT, BOUNDS, SINKS, OUT, LSE, DQ, DK, DV, DELTA, BUFFERS };

typedef struct problem {
    am_attention_shape x;
    int stat;                  /* dtype of lse */
    int64_t shift;             /* elements before q, k and v in their buffers */
    size_t bytes[BUFFERS];     /* 0: there is none */
    unsigned char *p[BUFFERS]; /* NULL: none */
} problem;

static inline void buffer(problem *p, int which, int dtype, int64_t n, double lo, double hi)
{
    p->bytes[which] = (size_t)n * elem_size(dtype);
    p->p[which] = hi > lo ? random_elems(dtype, n, lo, hi) : elems(dtype, n);
}

/* Gaps behind the heads of q, and k and v as parts of wider rows, each `gap` elements more. */
static inline problem make(int dtype, int64_t b, int64_t t, int64_t s, int64_t h, int64_t kh,
                           int64_t d, int64_t gap)
{
    problem p = {.x = {.dtype = dtype, .b = b, .t = t, .s = s, .h = h, .kh = kh, .d = d}};
    am_attention_shape *x = &p.x;
    x->scale = 1 / sqrt((double)d);
    x->seed = 5;
    x->stream = 1000003;
    x->q_head = x->k_head = x->v_head = d;
    x->q_token = h * d + gap;
    x->k_token = (kh + 1) * d + gap;
    x->v_token = kh * d + 2 * gap;
    x->q_batch = t * x->q_token;
    x->k_batch = s * x->k_token;
    x->v_batch = s * x->v_token;
    p.stat = dtype == AM_F64 ? AM_F64 : AM_F32;
    p.shift = gap % 8; /* of 16 bytes or not, as the strides are */
    buffer(&p, Q, dtype, p.shift + b * x->q_batch, -2, 2);
    buffer(&p, K, dtype, p.shift + b * x->k_batch, -2, 2);
    buffer(&p, V, dtype, p.shift + b * x->v_batch, -2, 2);
    buffer(&p, DOUT, dtype, b * t * h * d, -1, 1);
    buffer(&p, OUT, dtype, b * t * h * d, 0, 0);
    buffer(&p, DQ, dtype, b * t * h * d, 0, 0);
    buffer(&p, DK, dtype, b * s * kh * d, 0, 0);
    buffer(&p, DV, dtype, b * s * kh * d, 0, 0);
    buffer(&p, LSE, p.stat, b * h * t, 0, 0);
    buffer(&p, DELTA, p.stat, b * h * t, 0, 0);
    return p;
}

static inline void discard(problem *p)
{
    for (int i = 0; i < BUFFERS; i++)
        free(p->p[i]);
}

static inline problem copy_of(const problem *p)
{
    problem c = *p;
    for (int i = 0; i < BUFFERS; i++)
        if (p->p[i])
            c.p[i] = memcpy(malloc(p->bytes[i] + 1), p->p[i], p->bytes[i]);
    return c;
}

static inline am_attention_args forward_args(const problem *p, unsigned char *const *at)
{
    size_t shift = (size_t)p->shift * elem_size(p->x.dtype);
    return (am_attention_args){.out = at[OUT],
                               .lse = at[LSE],
                               .q = at[Q] + shift,
                               .k = at[K] + shift,
                               .v = at[V] + shift,
                               .bounds = (const int32_t *)(const void *)at[BOUNDS],
                               .sinks = at[SINKS],
                               .shape = p->x};
}

static inline am_attention_bwd_args backward_args(const problem *p, unsigned char *const *at)
{
    size_t shift = (size_t)p->shift * elem_size(p->x.dtype);
    return (am_attention_bwd_args){.dq = at[DQ],
                                   .dk = at[DK],
                                   .dv = at[DV],
                                   .delta = at[DELTA],
                                   .dout = at[DOUT],
                                   .q = at[Q] + shift,
                                   .k = at[K] + shift,
                                   .v = at[V] + shift,
                                   .out = at[OUT],
                                   .lse = at[LSE],
                                   .bounds = (const int32_t *)(const void *)at[BOUNDS],
                                   .shape = p->x};
}

/* On the device, forward or backward. Every buffer is an allocation of its own, whose ends the
 * emulator watches. */
static inline void run_cuda(problem *p, int backward)
{
    void *at[BUFFERS] = {0};
    unsigned char *device[BUFFERS] = {0};
    for (int i = 0; i < BUFFERS; i++) {
        if (!p->p[i])
            continue;
        ck_assert_int_eq(cuda->alloc(&at[i], p->bytes[i]), AM_OK);
        device[i] = at[i];
        if (i <= SINKS || (backward && i <= LSE))
            ck_assert_int_eq(
                cuda->transfer(cuda_stream, at[i], p->p[i], p->bytes[i], AM_COPY_TO_DEVICE), AM_OK);
    }
    am_attention_args f = forward_args(p, device);
    am_attention_bwd_args g = backward_args(p, device);
    int rc = backward ? cuda->attention_bwd(cuda_stream, &g) : cuda->attention(cuda_stream, &f);
    ck_assert_msg(rc == AM_OK, "%s", am_error_message());
    ck_assert_int_eq(cuda->stream_sync(cuda_stream), AM_OK);
    for (int i = backward ? DQ : OUT; i < (backward ? BUFFERS : DQ); i++)
        ck_assert_int_eq(cuda->transfer(cuda_stream, p->p[i], at[i], p->bytes[i], AM_COPY_TO_HOST),
                         AM_OK);
    for (int i = 0; i < BUFFERS; i++)
        if (at[i])
            cuda->release(at[i], p->bytes[i]);
}

static inline void run_ref(problem *p, int backward)
{
    am_attention_args f = forward_args(p, p->p);
    am_attention_bwd_args g = backward_args(p, p->p);
    ck_assert_int_eq(backward ? am_backend_ref.attention_bwd(NULL, &g)
                              : am_backend_ref.attention(NULL, &f),
                     AM_OK);
}

static inline void check_buffer(const char *what, const problem *p, const problem *r, int which,
                                int dtype, double relative, double absolute)
{
    static const char *const names[] = {
        [OUT] = "out", [LSE] = "lse", [DQ] = "dq", [DK] = "dk", [DV] = "dv", [DELTA] = "delta"};
    char label[200];
    snprintf(label, sizeof label, "%s: %s", what, names[which]);
    check_close(label, p->p[which], r->p[which], dtype,
                (int64_t)(p->bytes[which] / elem_size(dtype)), relative, absolute);
}

/* Outputs are means of values up to 2, gradients sums over t or s terms of that size: absolute
 * errors of a few ulps of what they are summed in, then one rounding. On tensor cores probabilities
 * and their gradients are rounded to the dtype, so each term is off by half an ulp of itself, of
 * up to 2 / 0.7. Backward starts from ref's out and lse, so that only the kernel's own error
 * counts.
 */
static inline void compare(const char *what, problem *p, double growth)
{
    const am_attention_shape *x = &p->x;
    int half = x->dtype == AM_BF16 || x->dtype == AM_F16;
    double ulp = ulp_of(x->dtype), rounded = half ? ulp : 0;
    double tiny = (x->dtype == AM_F64 ? 1e-14 : 4e-6) * growth;
    problem r = copy_of(p);
    run_ref(&r, 0);
    run_cuda(p, 0);
    check_buffer(what, p, &r, OUT, x->dtype, ulp, tiny + rounded);
    check_buffer(what, p, &r, LSE, p->stat, x->dtype == AM_F64 ? 1e-15 : 1e-6, tiny);
    memcpy(p->p[OUT], r.p[OUT], r.bytes[OUT]);
    memcpy(p->p[LSE], r.p[LSE], r.bytes[LSE]);
    run_ref(&r, 1);
    run_cuda(p, 1);
    double absolute = (tiny + rounded) * sqrt((double)(x->t * x->h / x->kh + x->s)) + 2 * tiny;
    check_buffer(what, p, &r, DELTA, p->stat, x->dtype == AM_F64 ? 1e-14 : 1e-5, tiny * 4);
    check_buffer(what, p, &r, DQ, x->dtype, ulp, absolute * growth);
    check_buffer(what, p, &r, DK, x->dtype, ulp, absolute * growth);
    check_buffer(what, p, &r, DV, x->dtype, ulp, absolute * growth);
    discard(&r);
}

/* Samples one behind the other, and some padding that sees nothing. */
static inline void set_packed(problem *p)
{
    const am_attention_shape *x = &p->x;
    int32_t *bounds = malloc((size_t)(x->b * x->t * 2) * sizeof *bounds);
    for (int64_t i = 0; i < x->b; i++) {
        int64_t start = 0, end = 0;
        for (int64_t j = 0; j < x->t; j++) {
            if (j == end) {
                start = end;
                end = start + 1 + (start * 7 + i * 13 + 5) % (x->t / 3 + 2);
            }
            int padding = j >= x->t - x->t / 9;
            bounds[(i * x->t + j) * 2] = (int32_t)(padding ? x->s : start);
            bounds[(i * x->t + j) * 2 + 1] = (int32_t)(padding ? 0 : end < x->s ? end : x->s);
        }
    }
    p->p[BOUNDS] = (unsigned char *)bounds;
    p->bytes[BOUNDS] = (size_t)(x->b * x->t * 2) * sizeof *bounds;
}

static inline void set_bounds(problem *p, const int32_t *bounds)
{
    p->bytes[BOUNDS] = (size_t)(p->x.b * p->x.t * 2) * sizeof *bounds;
    p->p[BOUNDS] = memcpy(malloc(p->bytes[BOUNDS]), bounds, p->bytes[BOUNDS]);
}

#endif
