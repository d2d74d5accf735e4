/* attention.c — tiled attention, forward and backward, for f32, bf16 and f16; f64 goes to ref,
 * whose formulas these are.
 *
 * Work is cut into blocks of up to BLOCK_T queries of one sample; the rows of all heads that share
 * a key/value head are handled together. Keys come in tiles of TILE, laid from the sample's own
 * start, as f32 in scratch; the softmax is online (Milakov & Gimelshein 2018). Every row runs
 * through the same operations in the same order wherever it lies in a block, so its bits depend
 * neither on what shares its pack nor on the number of threads. A block or tile without visible
 * keys is skipped.
 *
 * Backward gives each (batch, key/value head) to one thread, which adds dk and dv in order. */
#include "vec.h"
#include "../ref_kernels.h"

enum { TILE = 64, BLOCK_T = 32, MR = 4, NV = VW == 16 ? 4 : 2, CHUNK = NV * VW };

typedef struct key_range {
    int64_t start, end;
} key_range;

/* Queries first..first+n-1 of a batch row, which all see keys from `origin` on or less. */
typedef struct block {
    int64_t first, n, origin, lowest, highest; /* union of their key ranges */
} block;

AM_INLINE int64_t round_up(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

static key_range keys_of(const am_attention_shape *x, const int32_t *bounds, int64_t b, int64_t t,
                         int64_t *origin)
{
    key_range r = {0, x->s};
    if (bounds) {
        const int32_t *p = bounds + (b * x->t + t) * 2;
        r.start = p[0] > 0 ? p[0] : 0;
        r.end = at_most(p[1], x->s);
    }
    *origin = r.start;
    int64_t last = t + x->s - x->t; /* the diagonal */
    if (x->causal && r.end > last + 1)
        r.end = last + 1;
    if (x->window > 0 && r.start < last - x->window + 1)
        r.start = last - x->window + 1;
    return r;
}

/* The block that begins at query t. */
static block block_at(const am_attention_shape *x, const int32_t *bounds, int64_t b, int64_t t)
{
    block k = {.first = t, .lowest = INT64_MAX, .highest = 0};
    for (; t < x->t && k.n < BLOCK_T; t++, k.n++) {
        int64_t origin;
        key_range r = keys_of(x, bounds, b, t, &origin);
        if (k.n == 0)
            k.origin = origin;
        else if (origin != k.origin)
            break;
        if (r.start >= r.end)
            continue;
        k.lowest = at_most(k.lowest, r.start);
        k.highest = k.highest > r.end ? k.highest : r.end;
    }
    return k;
}

/* ---- the products ------------------------------------------------------------------------ */

/* out [rows, TILE] = a [rows, dp] kt [d, TILE]; rows is a multiple of MR. */
static void scores(float *out, const float *a, const float *kt, int64_t rows, int64_t d, int64_t dp)
{
    for (int64_t r = 0; r < rows; r += MR)
        for (int64_t c = 0; c < TILE; c += CHUNK) {
            vf acc[MR][NV] = {0};
            for (int64_t i = 0; i < d; i++) {
                vf col[NV];
                for (int n = 0; n < NV; n++)
                    col[n] = vload(kt + i * TILE + c + n * VW);
                for (int m = 0; m < MR; m++) {
                    vf x = vsplat(a[(r + m) * dp + i]);
                    for (int n = 0; n < NV; n++)
                        acc[m][n] = vfma(x, col[n], acc[m][n]);
                }
            }
            for (int m = 0; m < MR; m++)
                for (int n = 0; n < NV; n++)
                    vstore(out + (r + m) * TILE + c + n * VW, acc[m][n]);
        }
}

/* out [count, dp] += sum over i < n of w(i, m) x [n, dp], with w at w + m * wm + i * wi; count is a
 * multiple of MR. */
static void accumulate(float *out, const float *w, int64_t wm, int64_t wi, const float *x,
                       int64_t count, int64_t n, int64_t dp)
{
    for (int64_t r = 0; r < count; r += MR)
        for (int64_t c = 0; c < dp; c += CHUNK) {
            vf acc[MR][NV];
            for (int m = 0; m < MR; m++)
                for (int k = 0; k < NV; k++)
                    acc[m][k] = vload(out + (r + m) * dp + c + k * VW);
            for (int64_t i = 0; i < n; i++) {
                vf row[NV];
                for (int k = 0; k < NV; k++)
                    row[k] = vload(x + i * dp + c + k * VW);
                for (int m = 0; m < MR; m++) {
                    vf p = vsplat(w[(r + m) * wm + i * wi]);
                    for (int k = 0; k < NV; k++)
                        acc[m][k] = vfma(p, row[k], acc[m][k]);
                }
            }
            for (int m = 0; m < MR; m++)
                for (int k = 0; k < NV; k++)
                    vstore(out + (r + m) * dp + c + k * VW, acc[m][k]);
        }
}

/* ---- loading ------------------------------------------------------------------------------ */

/* Row of d elements as f32, padded with zeros to dp. */
__attribute__((noinline)) static void load_row(float *to, const void *from, int dtype, int64_t at,
                                               int64_t d, int64_t dp)
{
    for (int64_t i = 0; i < dp; i += VW)
        vstore(to + i, i < d ? vget_n(from, dtype, at + i, d - i, 0.0f) : (vf){0});
}

/* Rows of a block, head by head: row g * n + i is query first + i of head g of the group. */
static void load_block(float *to, const void *from, int dtype, const am_attention_shape *x,
                       const block *k, int64_t base, int64_t token, int64_t head, int64_t rows,
                       int64_t dp)
{
    int64_t group = x->h / x->kh;
    for (int64_t g = 0; g < group; g++)
        for (int64_t i = 0; i < k->n; i++)
            load_row(to + (g * k->n + i) * dp, from, dtype,
                     base + (k->first + i) * token + g * head, x->d, dp);
    for (int64_t r = group * k->n; r < rows; r++)
        memset(to + r * dp, 0, (size_t)dp * sizeof *to);
}

/* A tile of up to TILE rows, and its transpose [d, TILE]; missing rows are zero. Either may be
 * NULL. */
static void load_tile(float *plain, float *turned, const void *from, int dtype, int64_t base,
                      int64_t token, int64_t n, int64_t d, int64_t dp, float *line)
{
    if (turned && n < TILE)
        memset(turned, 0, (size_t)(d * TILE) * sizeof *turned);
    for (int64_t j = 0; j < n; j++) {
        float *row = plain ? plain + j * dp : line;
        load_row(row, from, dtype, base + j * token, d, dp);
        for (int64_t i = 0; turned && i < d; i++)
            turned[i * TILE + j] = row[i];
    }
    for (int64_t j = n; plain && j < TILE; j++)
        memset(plain + j * dp, 0, (size_t)dp * sizeof *plain);
}

/* ---- probabilities ------------------------------------------------------------------------ */

AM_INLINE vf capped(vf y, float cap)
{
    return cap > 0 ? cap * vtanh(y * (1.0f / cap)) : y;
}

/* All ones in lanes whose key lies in [start, end). */
AM_INLINE vi visible(int64_t key, key_range r)
{
    vi lane;
    for (int i = 0; i < VW; i++)
        lane[i] = i;
    int64_t low = r.start - key, high = r.end - key;
    low = low < 0 ? 0 : at_most(low, VW);
    high = high < 0 ? 0 : at_most(high, VW);
    return (lane >= (int32_t)low) & (lane < (int32_t)high);
}

/* Multiply p [n] by 1/(1-dropout) or 0; element i is number first + i of the mask. */
static void drop(float *p, const am_attention_shape *x, uint64_t first, int64_t n)
{
    uint64_t threshold = am_dropout_threshold(x->dropout_p);
    float keep = (float)(1.0 / (1.0 - x->dropout_p));
    uint32_t word[4];
    for (int64_t i = 0; i < n; i++) {
        uint64_t at = first + (uint64_t)i;
        if (i == 0 || (at & 3) == 0)
            am_philox(word, x->seed, x->stream, at >> 2);
        p[i] *= word[at & 3] >= threshold ? keep : 0.0f;
    }
}

AM_INLINE uint64_t mask_index(const am_attention_shape *x, int64_t b, int64_t h, int64_t t,
                              int64_t key)
{
    return (uint64_t)(((b * x->h + h) * x->t + t) * x->s + key);
}

/* ---- forward ------------------------------------------------------------------------------ */

/* Scratch of one thread. */
typedef struct work {
    int64_t rows, dp;
    float *q, *out, *s, *kt, *v, *line, *max, *sum;
} work;

/* One online-softmax step of a row: s becomes the (dropped) probabilities relative to the row's
 * maximum so far. False when the row sees nothing of the tile. */
static int softmax_row(const am_attention_args *args, work *w, int64_t row, key_range r,
                       int64_t key0, int64_t n, uint64_t mask)
{
    const am_attention_shape *x = &args->shape;
    float *s = w->s + row * TILE;
    int64_t last = key0 + n;
    if (r.start >= last || r.end <= key0 || r.start >= r.end) {
        memset(s, 0, TILE * sizeof *s);
        return 0;
    }
    vf top = vsplat(-INFINITY);
    for (int64_t c = 0; c < TILE; c += VW) {
        vf y = capped(vload(s + c) * (float)x->scale, (float)x->softcap);
        y = vselect(visible(key0 + c, r), y, vsplat(-INFINITY));
        vstore(s + c, y);
        top = vmax(y, top);
    }
    float old = w->max[row], now = vmax_lanes(top);
    now = now > old ? now : old;
    vf total = {0};
    for (int64_t c = 0; c < TILE; c += VW) {
        vf p = vselect(visible(key0 + c, r), vexp(vload(s + c) - now), (vf){0});
        vstore(s + c, p);
        total += p;
    }
    if (now > old) {
        float shrink = old == -INFINITY ? 0.0f : vexp(vsplat(old - now))[0];
        w->sum[row] *= shrink;
        for (int64_t c = 0; c < w->dp; c += VW)
            vstore(w->out + row * w->dp + c, vload(w->out + row * w->dp + c) * shrink);
        w->max[row] = now;
    }
    w->sum[row] += vsum(total);
    if (x->dropout_p > 0)
        drop(s, x, mask, n);
    return 1;
}

static void store_block(const am_attention_args *args, const work *w, const block *k, int64_t b,
                        int64_t kh)
{
    const am_attention_shape *x = &args->shape;
    int64_t group = x->h / x->kh;
    for (int64_t g = 0; g < group; g++)
        for (int64_t i = 0; i < k->n; i++) {
            int64_t row = g * k->n + i, t = k->first + i, h = kh * group + g;
            float sum = w->sum[row];
            int empty = w->max[row] == -INFINITY && sum == 0;
            const float *out = w->out + row * w->dp;
            int64_t at = ((b * x->t + t) * x->h + h) * x->d;
            for (int64_t c = 0; c < x->d; c += VW)
                vput_n(args->out, x->dtype, at + c, x->d - c,
                       empty ? (vf){0} : vload(out + c) / sum);
            ((float *)args->lse)[(b * x->h + h) * x->t + t] =
                empty ? -INFINITY : w->max[row] + logf(sum);
        }
}

static void forward_block(const am_attention_args *args, work *w, const block *k, int64_t b,
                          int64_t kh)
{
    const am_attention_shape *x = &args->shape;
    int64_t group = x->h / x->kh, rows = round_up(group * k->n, MR);
    load_block(w->q, args->q, x->dtype, x, k, b * x->q_batch + kh * group * x->q_head, x->q_token,
               x->q_head, rows, w->dp);
    memset(w->out, 0, (size_t)(rows * w->dp) * sizeof *w->out);
    for (int64_t r = 0; r < rows; r++) {
        w->max[r] = -INFINITY;
        w->sum[r] = 0;
    }
    int64_t first = k->highest > k->lowest ? (k->lowest - k->origin) / TILE * TILE + k->origin : 0;
    for (int64_t key0 = first; key0 < k->highest; key0 += TILE) {
        int64_t n = at_most(TILE, k->highest - key0);
        load_tile(NULL, w->kt, args->k, x->dtype,
                  b * x->k_batch + key0 * x->k_token + kh * x->k_head, x->k_token, n, x->d, w->dp,
                  w->line);
        load_tile(w->v, NULL, args->v, x->dtype,
                  b * x->v_batch + key0 * x->v_token + kh * x->v_head, x->v_token, n, x->d, w->dp,
                  w->line);
        scores(w->s, w->q, w->kt, rows, x->d, w->dp);
        for (int64_t r = 0; r < group * k->n; r++) {
            int64_t t = k->first + r % k->n, origin;
            key_range range = keys_of(x, args->bounds, b, t, &origin);
            softmax_row(args, w, r, range, key0, n,
                        mask_index(x, b, kh * group + r / k->n, t, key0));
        }
        memset(w->s + group * k->n * TILE, 0,
               (size_t)((rows - group * k->n) * TILE) * sizeof *w->s);
        accumulate(w->out, w->s, TILE, 1, w->v, rows, n, w->dp);
    }
    store_block(args, w, k, b, kh);
}

/* Cut `count` pieces of so many floats, each aligned to a cache line, out of a thread's scratch. */
static int carve(int slot, int count, const int64_t *sizes, float **pieces)
{
    int64_t total = 0;
    for (int i = 0; i < count; i++)
        total += round_up(sizes[i], 16);
    float *p = am_scratch(slot, (size_t)total * sizeof(float));
    for (int i = 0; p && i < count; i++) {
        pieces[i] = p;
        p += round_up(sizes[i], 16);
    }
    return p != NULL;
}

static int work_new(work *w, const am_attention_shape *x)
{
    int64_t dp = round_up(x->d, CHUNK), rows = round_up(x->h / x->kh * BLOCK_T, MR);
    int64_t sizes[] = {rows * dp, rows * dp, rows * TILE, x->d * TILE, TILE * dp, dp, rows, rows};
    float *p[8];
    if (!carve(1, 8, sizes, p))
        return 0;
    *w = (work){rows, dp, p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]};
    return 1;
}

/* The blocks of all batch rows, as (batch, first query) pairs in scratch slot 0. */
static int64_t list_blocks(const am_attention_shape *x, const int32_t *bounds, int64_t **list)
{
    int64_t n = 0, *l = am_scratch(0, (size_t)(2 * x->b * x->t) * sizeof *l);
    if (!l)
        return -1;
    for (int64_t b = 0; b < x->b; b++)
        for (int64_t t = 0; t < x->t; n++) {
            l[2 * n] = b;
            l[2 * n + 1] = t;
            t += block_at(x, bounds, b, t).n;
        }
    *list = l;
    return n;
}

int AM_SIMD(attention)(am_stream *stream, const am_attention_args *args)
{
    const am_attention_shape *x = &args->shape;
    if (!is_simd_float(x->dtype))
        return am_ref_attention(stream, args);
    int64_t *list, blocks = list_blocks(x, args->bounds, &list);
    int failed = blocks < 0;
#pragma omp parallel num_threads(team(x->b * x->t * x->s * x->h)) if (!failed)
    {
        work w = {0};
        int ready = !failed && work_new(&w, x);
        if (!ready) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < blocks * x->kh; i++) {
            if (!ready)
                continue;
            /* long blocks first: the late ones of a causal row see the most keys */
            const int64_t *at = list + 2 * (blocks - 1 - i / x->kh);
            block k = block_at(x, args->bounds, at[0], at[1]);
            forward_block(args, &w, &k, at[0], i % x->kh);
        }
    }
    return failed ? am_kernel_fail(AM_ENOMEM, "attention: no scratch memory") : AM_OK;
}

/* ---- backward ----------------------------------------------------------------------------- */

typedef struct back {
    int64_t rows, dp;
    float *q, *dout, *dq, *s, *dp_, *kt, *vt, *k, *line, *lse, *delta, *dk, *dv;
} back;

/* From scores and dout·v of a row: s becomes ds (scale included), dp_ the dropped probability. */
static void pair_row(const am_attention_bwd_args *args, back *w, int64_t row, key_range r,
                     int64_t key0, int64_t n, uint64_t mask)
{
    const am_attention_shape *x = &args->shape;
    float *s = w->s + row * TILE, *g = w->dp_ + row * TILE, keep[TILE];
    float cap = (float)x->softcap, scale = (float)x->scale;
    if (r.start >= key0 + n || r.end <= key0 || r.start >= r.end) {
        memset(s, 0, TILE * sizeof *s);
        memset(g, 0, TILE * sizeof *g);
        return;
    }
    for (int64_t i = 0; i < TILE; i++)
        keep[i] = 1.0f;
    if (x->dropout_p > 0)
        drop(keep, x, mask, n);
    for (int64_t c = 0; c < TILE; c += VW) {
        vi seen = visible(key0 + c, r);
        vf y = capped(vload(s + c) * scale, cap), kept = vload(keep + c);
        vf p = vselect(seen, vexp(y - w->lse[row]), (vf){0});
        vf ds = p * (vload(g + c) * kept - w->delta[row]) * scale;
        if (cap > 0)
            ds *= 1.0f - y * y * (1.0f / (cap * cap));
        vstore(s + c, vselect(seen, ds, (vf){0}));
        vstore(g + c, p * kept);
    }
}

static void load_stats(const am_attention_bwd_args *args, back *w, const block *k, int64_t b,
                       int64_t kh)
{
    const am_attention_shape *x = &args->shape;
    int64_t group = x->h / x->kh;
    for (int64_t g = 0; g < group; g++)
        for (int64_t i = 0; i < k->n; i++) {
            int64_t row = g * k->n + i, t = k->first + i, h = kh * group + g;
            int64_t at = ((b * x->t + t) * x->h + h) * x->d, stat = (b * x->h + h) * x->t + t;
            vf sum = {0};
            for (int64_t c = 0; c < x->d; c += VW)
                sum += vload(w->dout + row * w->dp + c) *
                       vget_n(args->out, x->dtype, at + c, x->d - c, 0.0f);
            w->delta[row] = ((float *)args->delta)[stat] = vsum(sum);
            w->lse[row] = ((const float *)args->lse)[stat];
        }
}

static void backward_block(const am_attention_bwd_args *args, back *w, const block *k, int64_t b,
                           int64_t kh)
{
    const am_attention_shape *x = &args->shape;
    int64_t group = x->h / x->kh, rows = round_up(group * k->n, MR), dp = w->dp;
    load_block(w->q, args->q, x->dtype, x, k, b * x->q_batch + kh * group * x->q_head, x->q_token,
               x->q_head, rows, dp);
    load_block(w->dout, args->dout, x->dtype, x, k, b * x->t * x->h * x->d + kh * group * x->d,
               x->h * x->d, x->d, rows, dp);
    load_stats(args, w, k, b, kh);
    memset(w->dq, 0, (size_t)(rows * dp) * sizeof *w->dq);
    int64_t first = k->highest > k->lowest ? (k->lowest - k->origin) / TILE * TILE + k->origin : 0;
    for (int64_t key0 = first; key0 < k->highest; key0 += TILE) {
        int64_t n = at_most(TILE, k->highest - key0);
        load_tile(w->k, w->kt, args->k, x->dtype,
                  b * x->k_batch + key0 * x->k_token + kh * x->k_head, x->k_token, n, x->d, dp,
                  w->line);
        load_tile(NULL, w->vt, args->v, x->dtype,
                  b * x->v_batch + key0 * x->v_token + kh * x->v_head, x->v_token, n, x->d, dp,
                  w->line);
        scores(w->s, w->q, w->kt, rows, x->d, dp);
        scores(w->dp_, w->dout, w->vt, rows, x->d, dp);
        for (int64_t r = 0; r < group * k->n; r++) {
            int64_t t = k->first + r % k->n, origin;
            key_range range = keys_of(x, args->bounds, b, t, &origin);
            pair_row(args, w, r, range, key0, n, mask_index(x, b, kh * group + r / k->n, t, key0));
        }
        size_t rest = (size_t)((rows - group * k->n) * TILE) * sizeof(float);
        memset(w->s + group * k->n * TILE, 0, rest);
        memset(w->dp_ + group * k->n * TILE, 0, rest);
        accumulate(w->dq, w->s, TILE, 1, w->k, rows, n, dp);
        accumulate(w->dk + key0 * dp, w->s, 1, TILE, w->q, round_up(n, MR), group * k->n, dp);
        accumulate(w->dv + key0 * dp, w->dp_, 1, TILE, w->dout, round_up(n, MR), group * k->n, dp);
    }
    for (int64_t g = 0; g < group; g++)
        for (int64_t i = 0; i < k->n; i++) {
            int64_t at = ((b * x->t + k->first + i) * x->h + kh * group + g) * x->d;
            for (int64_t c = 0; c < x->d; c += VW)
                vput_n(args->dq, x->dtype, at + c, x->d - c,
                       vload(w->dq + (g * k->n + i) * dp + c));
        }
}

static int back_new(back *w, const am_attention_shape *x)
{
    int64_t dp = round_up(x->d, CHUNK), rows = round_up(x->h / x->kh * BLOCK_T, MR);
    int64_t keys = x->s + MR; /* accumulate writes rows by MR */
    int64_t sizes[] = {rows * dp,   rows * dp,   rows * dp, rows * TILE, rows * TILE,
                       x->d * TILE, x->d * TILE, TILE * dp, dp,          rows,
                       rows,        keys * dp,   keys * dp};
    float *p[13];
    if (!carve(1, 13, sizes, p))
        return 0;
    *w = (back){rows, dp,   p[0], p[1], p[2],  p[3],  p[4], p[5],
                p[6], p[7], p[8], p[9], p[10], p[11], p[12]};
    return 1;
}

/* All of one (batch, key/value head). */
static void backward_head(const am_attention_bwd_args *args, back *w, int64_t b, int64_t kh)
{
    const am_attention_shape *x = &args->shape;
    size_t bytes = (size_t)((x->s + MR) * w->dp) * sizeof *w->dk;
    memset(w->dk, 0, bytes);
    memset(w->dv, 0, bytes);
    for (int64_t t = 0; t < x->t;) {
        block k = block_at(x, args->bounds, b, t);
        backward_block(args, w, &k, b, kh);
        t += k.n;
    }
    for (int64_t key = 0; key < x->s; key++) {
        int64_t at = ((b * x->s + key) * x->kh + kh) * x->d;
        for (int64_t c = 0; c < x->d; c += VW) {
            vput_n(args->dk, x->dtype, at + c, x->d - c, vload(w->dk + key * w->dp + c));
            vput_n(args->dv, x->dtype, at + c, x->d - c, vload(w->dv + key * w->dp + c));
        }
    }
}

int AM_SIMD(attention_bwd)(am_stream *stream, const am_attention_bwd_args *args)
{
    const am_attention_shape *x = &args->shape;
    if (!is_simd_float(x->dtype))
        return am_ref_attention_bwd(stream, args);
    int failed = 0;
#pragma omp parallel num_threads(team(x->b * x->t * x->s * x->h))
    {
        back w = {0};
        int ready = back_new(&w, x);
        if (!ready) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < x->b * x->kh; i++)
            if (ready)
                backward_head(args, &w, i / x->kh, i % x->kh);
    }
    return failed ? am_kernel_fail(AM_ENOMEM, "attention_bwd: no scratch memory") : AM_OK;
}
