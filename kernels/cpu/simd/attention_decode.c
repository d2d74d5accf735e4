/* attention_decode.c — attention of one query to a cache of keys, as a generated token needs it,
 * for f32, bf16 and f16. Queries of a prompt or of training are attention.c's.
 *
 * It takes as long as reading keys and values, which is done once, in order, for all heads that
 * share them. Keys are cut into parts of PART, laid from the row's own start and shared out among
 * threads; each gives its maximum, its sum and its weighted values, which are put together in
 * order. So a row's bits depend neither on the rows beside it nor on the number of threads. */
#include "rows.h"
#include "attention_decode.h"

enum { PART = 128, KEYS = 8, COLS = 4 }; /* keys; keys and vectors of values at a time */

/* What a call needs to know of its shape. */
typedef struct cache_shape {
    int64_t group, padded; /* heads that share a key; d in whole vectors */
    int64_t parts, result; /* of a row, at most; floats of a part's result for one head */
} cache_shape;

static void keys_of(const am_attention_args *args, int64_t b, int64_t *start, int64_t *end)
{
    const am_attention_shape *x = &args->shape;
    const int32_t *bounds = args->bounds ? args->bounds + 2 * b : NULL;
    *start = bounds && bounds[0] > 0 ? bounds[0] : 0;
    *end = bounds ? at_most(bounds[1], x->s) : x->s;
    if (x->window > 0 && *start < x->s - x->window)
        *start = x->s - x->window;
}

/* Scores of keys j.., [h, PART]; `k` is key 0. */
AM_INLINE void score(const am_attention_shape *x, const cache_shape *c, int dtype, float *p,
                     const float *q, const char *k, int64_t j, int cols)
{
    vf sum[X_ROWS][W_ROWS];
    for (int64_t kh = 0; kh < x->kh; kh++) {
        const char *keys = k + (j * x->k_token + kh * x->k_head) * simd_size(dtype);
        ROWS_EACH(c->group, {
            int64_t h = kh * c->group + r;
            rows_dot(sum, q + h * c->padded, c->padded, rows, keys, dtype, x->k_token, cols, x->d);
            for (int m = 0; m < rows; m++)
                for (int i = 0; i < cols; i++)
                    p[(h + m) * PART + j + i] = vsum(sum[m][i]);
        });
    }
}

/* All ones in the first n lanes. */
AM_INLINE vi before(int64_t n)
{
    vi lane;
    for (int i = 0; i < VW; i++)
        lane[i] = i;
    return lane < (int32_t)at_most(n, VW);
}

/* Scores become probabilities relative to their maximum; returns that and their sum. */
static void softmax(const am_attention_shape *x, float *p, int64_t n, float *highest, float *total)
{
    float cap = (float)x->softcap;
    vf top = vsplat(-INFINITY), sum = {0};
    for (int64_t i = 0; i < n; i += VW) {
        vf y = vsoft_cap(vload(p + i) * (float)x->scale, cap);
        y = vselect(before(n - i), y, vsplat(-INFINITY));
        vstore(p + i, y);
        top = vmax(y, top);
    }
    *highest = vmax_lanes(top);
    for (int64_t i = 0; i < n; i += VW) {
        vf y = vselect(before(n - i), vexp(vload(p + i) - *highest), (vf){0});
        vstore(p + i, y);
        sum += y;
    }
    *total = vsum(sum);
}

/* out[m] += p[m] V for `rows` heads, a few keys and `cols` vectors of values, which are n (at most
 * VW) elements each. What comes next is asked for ahead. */
AM_INLINE void weigh(const am_attention_shape *x, int dtype, float *out, int64_t apart,
                     const float *p, int rows, const char *v, int64_t keys, int cols, int64_t n)
{
    enum { LINE = 64 };
    int64_t size = simd_size(dtype);
    vf sum[X_ROWS][COLS];
    for (int m = 0; m < rows; m++)
        for (int c = 0; c < cols; c++)
            sum[m][c] = vload(out + m * apart + c * VW);
    for (int64_t j = 0; j < keys; j++) {
        vf value[COLS];
        for (int64_t i = 0; i < cols * VW * size; i += LINE)
            __builtin_prefetch(v + (j + KEYS) * x->v_token * size + i);
        for (int c = 0; c < cols; c++)
            value[c] = vget_n(v, dtype, j * x->v_token + c * VW, n, 0);
        for (int m = 0; m < rows; m++)
            for (int c = 0; c < cols; c++)
                sum[m][c] = vfma(vsplat(p[m * PART + j]), value[c], sum[m][c]);
    }
    for (int m = 0; m < rows; m++)
        for (int c = 0; c < cols; c++)
            vstore(out + m * apart + c * VW, sum[m][c]);
}

/* Keys j.. of all heads: a run of memory. */
AM_INLINE void weigh_all(const am_attention_shape *x, const cache_shape *c, int dtype, float *out,
                         const float *p, const char *v, int64_t j, int64_t keys)
{
    int64_t size = simd_size(dtype);
    for (int64_t kh = 0; kh < x->kh; kh++) {
        const char *values = v + (j * x->v_token + kh * x->v_head) * size;
        ROWS_EACH(c->group, {
            int64_t h = kh * c->group + r, i = 0;
            for (; i + COLS * VW <= x->d; i += COLS * VW)
                weigh(x, dtype, out + h * c->result + i, c->result, p + h * PART + j, rows,
                      values + i * size, keys, COLS, VW);
            for (; i < x->d; i += VW)
                weigh(x, dtype, out + h * c->result + i, c->result, p + h * PART + j, rows,
                      values + i * size, keys, 1, x->d - i);
        });
    }
}

/* n keys from `first` on: for each head maximum, sum and values. */
AM_INLINE void part(const am_attention_args *args, const cache_shape *c, int dtype, float *result,
                    float *scratch, int64_t b, int64_t first, int64_t n)
{
    const am_attention_shape *x = &args->shape;
    int64_t size = simd_size(dtype), j = 0;
    const char *k = (const char *)args->k + (b * x->k_batch + first * x->k_token) * size;
    const char *v = (const char *)args->v + (b * x->v_batch + first * x->v_token) * size;
    float *p = scratch, *q = scratch + x->h * PART;
    for (int64_t h = 0; h < x->h; h++)
        for (int64_t i = 0; i < x->d; i += VW)
            vstore(q + h * c->padded + i,
                   vget_n(args->q, dtype, b * x->q_batch + h * x->q_head + i, x->d - i, 0));
    for (; j + W_ROWS <= n; j += W_ROWS)
        score(x, c, dtype, p, q, k, j, W_ROWS);
    for (; j < n; j++)
        score(x, c, dtype, p, q, k, j, 1);
    memset(result, 0, (size_t)(x->h * c->result) * sizeof *result);
    for (int64_t h = 0; h < x->h; h++)
        softmax(x, p + h * PART, n, &result[h * c->result], &result[h * c->result + 1]);
    for (j = 0; j < n; j += KEYS)
        weigh_all(x, c, dtype, result + VW, p, v, j, at_most(KEYS, n - j));
}

/* The parts of one head put together. */
static void join(const am_attention_args *args, const cache_shape *c, const float *results,
                 int64_t parts, int64_t b, int64_t h)
{
    const am_attention_shape *x = &args->shape;
    int64_t apart = x->h * c->result;
    float sink = args->sinks ? ((const float *)args->sinks)[h] : -INFINITY;
    float highest = sink, total = 0;
    for (int64_t i = 0; i < parts; i++)
        highest = fmaxf(highest, results[i * apart]);
    if (sink != -INFINITY)
        total = expf(sink - highest);
    for (int64_t i = 0; i < parts; i++)
        total += results[i * apart + 1] * vexp(vsplat(results[i * apart] - highest))[0];
    for (int64_t e = 0; e < x->d; e += VW) {
        vf sum = {0};
        for (int64_t i = 0; i < parts; i++)
            sum = vfma(vload(results + i * apart + VW + e),
                       vexp(vsplat(results[i * apart] - highest)), sum);
        vput_n(args->out, x->dtype, (b * x->h + h) * x->d + e, x->d - e,
               parts ? sum / total : (vf){0});
    }
    ((float *)args->lse)[b * x->h + h] = parts ? highest + logf(total) : sink;
}

int AM_SIMD(attention_decode)(const am_attention_args *args)
{
    const am_attention_shape *x = &args->shape;
    cache_shape c = {.group = x->h / x->kh, .padded = (x->d + VW - 1) / VW * VW};
    c.parts = (x->s + PART - 1) / PART;
    c.result = VW + c.padded;
    int64_t count = x->b * c.parts, floats = x->h * c.result;
    float *results = am_scratch(0, (size_t)(count * floats) * sizeof(float));
    int failed = results == NULL;
#pragma omp parallel num_threads(team(x->b * x->h * x->s * x->d)) if (!failed)
    {
        float *scratch = am_scratch(1, (size_t)(x->h * (PART + c.padded)) * sizeof(float));
        if (!scratch) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(static)
        for (int64_t i = 0; i < count; i++) {
            int64_t b = i / c.parts, start, end;
            keys_of(args, b, &start, &end);
            start += i % c.parts * PART;
            if (scratch && results && start < end)
                AM_WITH_DTYPE(T, x->dtype,
                              part(args, &c, T, results + i * floats, scratch, b, start,
                                   at_most(PART, end - start)))
        }
    }
    if (failed)
        return am_kernel_fail(AM_ENOMEM, "attention: no scratch memory");
    for (int64_t b = 0; b < x->b; b++) {
        int64_t start, end;
        keys_of(args, b, &start, &end);
        int64_t parts = end > start ? (end - start + PART - 1) / PART : 0;
        for (int64_t h = 0; h < x->h; h++)
            join(args, &c, results + b * c.parts * floats + h * c.result, parts, b, h);
    }
    return AM_OK;
}
