/* ref_attention.c — reference attention, forward and backward, straight from the formulas:
 *   s = scale q.k, y = cap tanh(s / cap), p = e^(y - lse), out = sum of drop(p) v, where
 *   lse = ln(e^sink + sum of e^y)
 *   dp = drop(dout.v), dy = p (dp - delta), ds = dy (1 - (y / cap)^2)
 *   dq = scale sum ds k, dk = scale sum ds q, dv = sum drop(p) dout
 * and out, lse of two sets of keys are those of all: out = (e^lse1 out1 + e^lse2 out2) / e^lse.
 * Scores are computed again wherever they are needed; nothing of size t x s is stored. */
#include "ref.h"

typedef struct key_range {
    int64_t start, end;
} key_range;

/* Keys that query t of batch b sees. Bounds come from data, hence the clamping to [0, s). */
AM_INLINE key_range keys_of(const am_attention_shape *x, const int32_t *bounds, int64_t b,
                            int64_t t)
{
    key_range r = {0, x->s};
    if (bounds) {
        const int32_t *p = bounds + (b * x->t + t) * 2;
        r.start = p[0] > 0 ? p[0] : 0;
        r.end = p[1] < x->s ? p[1] : x->s;
    }
    int64_t last = t + x->s - x->t; /* the diagonal */
    if (x->causal && r.end > last + 1)
        r.end = last + 1;
    if (x->window > 0 && r.start < last - x->window + 1)
        r.start = last - x->window + 1;
    return r;
}

/* The (capped) score of a query and a key at element offsets q and k. */
AM_INLINE double score(const am_attention_shape *x, const void *q, int64_t q_at, const void *k,
                       int64_t k_at, int dtype)
{
    double sum = 0;
    for (int64_t i = 0; i < x->d; i++)
        sum += load(q, dtype, q_at + i) * load(k, dtype, k_at + i);
    sum *= x->scale;
    return x->softcap > 0 ? x->softcap * tanh(sum / x->softcap) : sum;
}

/* 1/(1-p) where the probability is kept, 0 where it is dropped. */
AM_INLINE double keep_factor(const am_attention_shape *x, int64_t b, int64_t h, int64_t t,
                             int64_t key)
{
    if (x->dropout_p <= 0)
        return 1;
    uint64_t i = (uint64_t)(((b * x->h + h) * x->t + t) * x->s + key);
    uint64_t word = am_philox_u32(x->seed, x->stream, i);
    return word >= am_dropout_threshold(x->dropout_p) ? 1.0 / (1.0 - x->dropout_p) : 0;
}

AM_INLINE int64_t q_offset(const am_attention_shape *x, int64_t b, int64_t t, int64_t h)
{
    return b * x->q_batch + t * x->q_token + h * x->q_head;
}

AM_INLINE int64_t k_offset(const am_attention_shape *x, int64_t b, int64_t key, int64_t kh)
{
    return b * x->k_batch + key * x->k_token + kh * x->k_head;
}

AM_INLINE int64_t v_offset(const am_attention_shape *x, int64_t b, int64_t key, int64_t kh)
{
    return b * x->v_batch + key * x->v_token + kh * x->v_head;
}

AM_INLINE int64_t out_offset(const am_attention_shape *x, int64_t b, int64_t t, int64_t h)
{
    return ((b * x->t + t) * x->h + h) * x->d;
}

AM_INLINE void attention_row(const am_attention_args *args, int dtype, int64_t b, int64_t h,
                             int64_t t, double *sum)
{
    const am_attention_shape *x = &args->shape;
    int64_t kh = h / (x->h / x->kh), q = q_offset(x, b, t, h);
    key_range r = keys_of(x, args->bounds, b, t);
    double sink = args->sinks ? load(args->sinks, stat_dtype(dtype), h) : -INFINITY;
    double max = sink, total = 0;
    for (int64_t i = 0; i < x->d; i++)
        sum[i] = 0;
    for (int64_t key = r.start; key < r.end; key++) {
        double y = score(x, args->q, q, args->k, k_offset(x, b, key, kh), dtype);
        max = y > max || y != y ? y : max;
    }
    if (sink != -INFINITY)
        total = exp(sink - max);
    for (int64_t key = r.start; key < r.end; key++) {
        double p = exp(score(x, args->q, q, args->k, k_offset(x, b, key, kh), dtype) - max);
        total += p;
        p *= keep_factor(x, b, h, t, key);
        for (int64_t i = 0; i < x->d; i++)
            sum[i] += p * load(args->v, dtype, v_offset(x, b, key, kh) + i);
    }
    for (int64_t i = 0; i < x->d; i++)
        store(args->out, dtype, out_offset(x, b, t, h) + i, r.start < r.end ? sum[i] / total : 0);
    store(args->lse, stat_dtype(dtype), (b * x->h + h) * x->t + t, max + log(total));
}

AM_INLINE int attention_float(const am_attention_args *args, int dtype)
{
    const am_attention_shape *x = &args->shape;
    double *sum = am_scratch(0, (size_t)x->d * sizeof(double));
    if (!sum)
        return am_kernel_fail(AM_ENOMEM, "attention: no scratch memory");
    for (int64_t b = 0; b < x->b; b++)
        for (int64_t h = 0; h < x->h; h++)
            for (int64_t t = 0; t < x->t; t++)
                attention_row(args, dtype, b, h, t, sum);
    return AM_OK;
}

int am_ref_attention(am_stream *s, const am_attention_args *args)
{
    (void)s;
    AM_DISPATCH_FLOAT(args->shape.dtype, attention_float, args)
}

/* ---- parts ------------------------------------------------------------------------------- */

AM_INLINE void merge_row(const am_attention_merge_args *args, int dtype, int64_t at, int64_t stat)
{
    int wide = stat_dtype(dtype);
    double x = load(args->lse, wide, stat), y = load(args->block_lse, wide, stat);
    if (y == -INFINITY)
        return;
    double max = x > y ? x : y, a = exp(x - max), b = exp(y - max), total = a + b;
    for (int64_t i = at; i < at + args->d; i++)
        store(args->out, wide, i,
              (a * load(args->out, wide, i) + b * load(args->block, dtype, i)) / total);
    store(args->lse, wide, stat, max + log(total));
}

AM_INLINE int merge_float(const am_attention_merge_args *args, int dtype)
{
    for (int64_t b = 0; b < args->b; b++)
        for (int64_t t = 0; t < args->t; t++)
            for (int64_t h = 0; h < args->h; h++)
                merge_row(args, dtype, ((b * args->t + t) * args->h + h) * args->d,
                          (b * args->h + h) * args->t + t);
    return AM_OK;
}

int am_ref_attention_merge(am_stream *s, const am_attention_merge_args *args)
{
    (void)s;
    AM_DISPATCH_FLOAT(args->dtype, merge_float, args)
}

/* ---- backward ---------------------------------------------------------------------------- */

/* What one (query, key) pair contributes: dropped probability and ds (scale included). */
typedef struct pair_grad {
    double p, ds;
} pair_grad;

AM_INLINE pair_grad pair_of(const am_attention_bwd_args *args, int dtype, int64_t b, int64_t h,
                            int64_t t, int64_t key)
{
    const am_attention_shape *x = &args->shape;
    int64_t kh = h / (x->h / x->kh), row = (b * x->h + h) * x->t + t;
    double y = score(x, args->q, q_offset(x, b, t, h), args->k, k_offset(x, b, key, kh), dtype);
    double p = exp(y - load(args->lse, stat_dtype(dtype), row)), dp = 0;
    double keep = keep_factor(x, b, h, t, key);
    for (int64_t i = 0; i < x->d; i++)
        dp += load(args->dout, dtype, out_offset(x, b, t, h) + i) *
              load(args->v, dtype, v_offset(x, b, key, kh) + i);
    double ds = p * (dp * keep - load(args->delta, stat_dtype(dtype), row)) * x->scale;
    if (x->softcap > 0)
        ds *= 1.0 - (y / x->softcap) * (y / x->softcap);
    return (pair_grad){p * keep, ds};
}

AM_INLINE void dq_row(const am_attention_bwd_args *args, int dtype, int64_t b, int64_t h, int64_t t,
                      double *dq)
{
    const am_attention_shape *x = &args->shape;
    int64_t kh = h / (x->h / x->kh), at = out_offset(x, b, t, h);
    key_range r = keys_of(x, args->bounds, b, t);
    double delta = 0;
    for (int64_t i = 0; i < x->d; i++) {
        delta += load(args->dout, dtype, at + i) * load(args->out, dtype, at + i);
        dq[i] = 0;
    }
    store(args->delta, stat_dtype(dtype), (b * x->h + h) * x->t + t, delta);
    for (int64_t key = r.start; key < r.end; key++) {
        pair_grad g = pair_of(args, dtype, b, h, t, key);
        for (int64_t i = 0; i < x->d; i++)
            dq[i] += g.ds * load(args->k, dtype, k_offset(x, b, key, kh) + i);
    }
    for (int64_t i = 0; i < x->d; i++)
        store(args->dq, dtype, at + i, dq[i]);
}

AM_INLINE void dkv_row(const am_attention_bwd_args *args, int dtype, int64_t b, int64_t kh,
                       int64_t key, double *dk, double *dv)
{
    const am_attention_shape *x = &args->shape;
    int64_t group = x->h / x->kh, at = ((b * x->s + key) * x->kh + kh) * x->d;
    for (int64_t i = 0; i < x->d; i++)
        dk[i] = dv[i] = 0;
    for (int64_t h = kh * group; h < (kh + 1) * group; h++) {
        for (int64_t t = 0; t < x->t; t++) {
            key_range r = keys_of(x, args->bounds, b, t);
            if (key < r.start || key >= r.end)
                continue;
            pair_grad g = pair_of(args, dtype, b, h, t, key);
            for (int64_t i = 0; i < x->d; i++) {
                dk[i] += g.ds * load(args->q, dtype, q_offset(x, b, t, h) + i);
                dv[i] += g.p * load(args->dout, dtype, out_offset(x, b, t, h) + i);
            }
        }
    }
    for (int64_t i = 0; i < x->d; i++) {
        store(args->dk, dtype, at + i, dk[i]);
        store(args->dv, dtype, at + i, dv[i]);
    }
}

AM_INLINE int attention_bwd_float(const am_attention_bwd_args *args, int dtype)
{
    const am_attention_shape *x = &args->shape;
    double *sum = am_scratch(0, (size_t)x->d * 2 * sizeof(double));
    if (!sum)
        return am_kernel_fail(AM_ENOMEM, "attention_bwd: no scratch memory");
    for (int64_t b = 0; b < x->b; b++)
        for (int64_t h = 0; h < x->h; h++)
            for (int64_t t = 0; t < x->t; t++)
                dq_row(args, dtype, b, h, t, sum);
    for (int64_t b = 0; b < x->b; b++)
        for (int64_t kh = 0; kh < x->kh; kh++)
            for (int64_t key = 0; key < x->s; key++)
                dkv_row(args, dtype, b, kh, key, sum, sum + x->d);
    return AM_OK;
}

int am_ref_attention_bwd(am_stream *s, const am_attention_bwd_args *args)
{
    (void)s;
    AM_DISPATCH_FLOAT(args->shape.dtype, attention_bwd_float, args)
}
