/* attention.c — tiled attention, forward and backward, for f32, bf16 and f16; f64 goes to ref,
 * whose formulas these are. Compiled twice more for bf16 alone: on AMX tiles, and with vdpbf16ps.
 *
 * Work is cut into blocks of up to BLOCK_T queries of one sample; those of all heads that share a
 * key/value head are handled together, each in a lane of its own: scores, probabilities and sums
 * are [key, lane] or [feature, lane], so softmax and masks need no sums across lanes. Keys come in
 * tiles of TILE, laid from the sample's own start; the softmax is online (Milakov & Gimelshein
 * 2018). Every lane runs through the same operations in the same order wherever it lies in a
 * block, so its bits depend neither on what shares its pack nor on the number of threads. A block
 * or tile without visible keys is skipped.
 *
 * Backward deals the queries of a (batch, key/value head) out to parts, PART_T of a sample at a
 * time; a part is one thread's, which adds dk and dv in order, and the parts are added up in order.
 * What a sample's queries add up to so depends on their places in it alone. */
#if defined(AM_AMX_TILES)
#include "product_amx.h"
#elif defined(AM_BF16_DOT)
#include "product_dot.h"
#else
#include "product.h"
#endif
#include "attention_decode.h"

enum { TILE = 64, BLOCK_T = 32, PART_T = 512, MOST_PARTS = 4, SHARED_BYTES = 8 << 20 };

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

/* ---- the lanes of a block ------------------------------------------------------------------ */

/* Lane g * n + i is query first + i of head g of the group; lanes past the last see nothing. */
typedef struct block_lanes {
    int64_t n, most;      /* of this block, of any */
    int32_t *start, *end; /* the keys each sees; nothing where end is 0 */
    int64_t *q, *out; /* where its rows begin in q, and in a dense [b, t, h, d]; -1 past the last */
    int64_t *stat;    /* where its numbers are in [b, h, t] */
    uint64_t *mask;   /* where its dropout mask begins */
} block_lanes;

static void lanes_set(block_lanes *l, const am_attention_shape *x, const int32_t *bounds,
                      const block *k, int64_t b, int64_t kh)
{
    int64_t group = x->h / x->kh, used = group * k->n;
    l->n = round_up(used, LANES);
    for (int64_t r = 0; r < l->n; r++) {
        int64_t t = k->first + r % k->n, h = kh * group + r / k->n, origin;
        key_range range = r < used ? keys_of(x, bounds, b, t, &origin) : (key_range){0, 0};
        int empty = range.start >= range.end;
        l->start[r] = empty ? 0 : (int32_t)range.start;
        l->end[r] = empty ? 0 : (int32_t)range.end;
        l->q[r] = r < used ? b * x->q_batch + t * x->q_token + h * x->q_head : -1;
        l->out[r] = r < used ? ((b * x->t + t) * x->h + h) * x->d : -1;
        l->stat[r] = r < used ? (b * x->h + h) * x->t + t : -1;
        l->mask[r] = (uint64_t)(((b * x->h + h) * x->t + t) * x->s);
    }
}

/* What the lanes from `at` on see of n keys from key0 on. */
typedef enum sight { SEE_NOTHING, SEE_SOME, SEE_ALL } sight;

AM_INLINE vi vload_int(const int32_t *p)
{
    vi v;
    memcpy(&v, p, sizeof v);
    return v;
}

static sight lanes_see(const block_lanes *l, int64_t at, int64_t key0, int64_t n)
{
    int some = 0, all = 1;
    for (int i = 0; i < VW; i++) {
        int64_t start = l->start[at + i], end = l->end[at + i];
        some |= start < key0 + n && end > key0;
        all &= start <= key0 && end >= key0 + n;
    }
    return all ? SEE_ALL : some ? SEE_SOME : SEE_NOTHING;
}

/* All ones in the lanes that see this key. */
AM_INLINE vi sees(const block_lanes *l, int64_t at, int64_t key)
{
    vi k = visplat((int32_t)key);
    return (k >= vload_int(l->start + at)) & (k < vload_int(l->end + at));
}

/* keep [n, VW]: 1/(1-dropout) or 0, for n keys of the lanes from `at` on. */
static void drop_mask(float *keep, const am_attention_shape *x, const block_lanes *l, int64_t at,
                      int64_t key0, int64_t n)
{
    uint64_t threshold = am_dropout_threshold(x->dropout_p);
    float kept = (float)(1.0 / (1.0 - x->dropout_p));
    uint32_t word[4];
    for (int i = 0; i < VW; i++)
        for (int64_t j = 0; j < n; j++) {
            uint64_t index = l->mask[at + i] + (uint64_t)(key0 + j);
            if (j == 0 || (index & 3) == 0)
                am_philox(word, x->seed, x->stream, index >> 2);
            keep[j * VW + i] = word[index & 3] >= threshold ? kept : 0.0f;
        }
}

/* ---- rows to lanes and back ---------------------------------------------------------------- */

/* Rows of d elements at at[lane] as a right operand [dp, lanes]. */
static void right_turned(right_cell *to, const void *from, int dtype, const int64_t *at, int64_t n,
                         int64_t d, int64_t dp)
{
    int64_t step = right_step(), per_word = step / VW;
    for (int64_t r = 0; r < n; r += VW)
        for (int64_t c = 0; c < dp; c += step) {
            vf m[VW];
            for (int i = 0; i < VW; i++)
                m[i] = at[r + i] < 0 ? (vf){0} : right_load(from, dtype, at[r + i], c, d);
            vturn(m);
            for (int i = 0; i < VW; i++)
                memcpy(to + (c / per_word + i) * n + r, &m[i], sizeof m[i]);
        }
}

/* [dp, lanes], divided by what each lane has in `by` (unless NULL), as rows at at[lane]. */
AM_INLINE void store_turned(void *to, int dtype, const int64_t *at, const float *from,
                            const float *by, int64_t n, int64_t d)
{
    for (int64_t r = 0; r < n; r += VW) {
        vf factor = by ? 1.0f / vload(by + r) : vsplat(1.0f);
        for (int64_t c = 0; c < d; c += VW) {
            vf m[VW];
            for (int i = 0; i < VW; i++)
                m[i] = vload(from + (c + i) * n + r) * factor;
            vturn(m);
            for (int i = 0; i < VW; i++)
                if (at[r + i] >= 0)
                    vput_n(to, dtype, at[r + i] + c, d - c, m[i]);
        }
    }
}

AM_INLINE left left_rows(left a, int64_t first)
{
    return (left){a.p + first * a.row, a.row, a.col};
}

AM_INLINE left left_columns(left a, int64_t first)
{
    return (left){a.p + first * a.col, a.row, a.col};
}

AM_INLINE left tile_as_left(const tile *t, int64_t lanes)
{
    return (left){t->left, lanes, 1};
}

/* ---- scratch -------------------------------------------------------------------------------- */

/* Hands out pieces of one buffer, each aligned to a cache line. A first round without a buffer
 * counts. */
typedef struct arena {
    char *p;
    size_t used;
} arena;

static void *take(arena *a, int64_t count, size_t size)
{
    void *piece = a->p ? a->p + a->used : NULL;
    a->used += ((size_t)count * size + 63) / 64 * 64;
    return piece;
}

static void take_lanes(arena *a, block_lanes *l, const am_attention_shape *x)
{
    int64_t most = l->most = round_up(x->h / x->kh * BLOCK_T, LANES);
    l->start = take(a, most, sizeof *l->start);
    l->end = take(a, most, sizeof *l->end);
    l->q = take(a, most, sizeof *l->q);
    l->out = take(a, most, sizeof *l->out);
    l->stat = take(a, most, sizeof *l->stat);
    l->mask = take(a, most, sizeof *l->mask);
}

/* A tile of probabilities: in the scores themselves, where those are what products take. */
static void take_tile(arena *a, tile *t, float *scores, int64_t most, int with_left)
{
    int own = tile_left_cells(TILE, most) > 0;
    t->right = own ? take(a, right_cells(TILE, most), sizeof *t->right) : (void *)scores;
    t->left = own ? NULL : (void *)scores;
    if (own && with_left)
        t->left = take(a, tile_left_cells(TILE, most), sizeof *t->left);
}

/* ---- forward ------------------------------------------------------------------------------ */

typedef struct forward {
    int64_t dp;
    block_lanes l;
    right_cell *q;  /* [dp, lanes] */
    float *s, *out; /* [TILE, lanes], [dp, lanes] */
    tile p;
    float *max, *sum, *keep; /* the maximum up to MAX_SLACK, the sum relative to it */
} forward;

static void forward_take(forward *w, arena *a, const am_attention_shape *x)
{
    int64_t dp = w->dp = round_up(x->d, DEPTH);
    take_lanes(a, &w->l, x);
    int64_t most = w->l.most;
    w->q = take(a, right_cells(dp, most), sizeof *w->q);
    w->s = take(a, TILE * most, sizeof *w->s);
    w->out = take(a, dp * most, sizeof *w->out);
    take_tile(a, &w->p, w->s, most, 0);
    w->max = take(a, most, sizeof *w->max);
    w->sum = take(a, most, sizeof *w->sum);
    w->keep = take(a, TILE * VW, sizeof *w->keep);
}

/* What a maximum may grow by before what was summed up relative to it is scaled anew: e^8 is far
 * from overflow, and most tiles are spared a pass over the output. */
#define MAX_SLACK 8.0f

/* One online-softmax step of VW lanes: the scores become probabilities relative to about each
 * lane's maximum so far. A lane's bits do not depend on what `seen` says of the others. */
AM_INLINE void softmax_lanes(const am_attention_shape *x, forward *w, int64_t at, int64_t key0,
                             int64_t n, sight seen, float cap, const float *keep)
{
    int64_t count = w->l.n;
    float *s = w->s + at;
    vf scale = vsplat((float)x->scale), hidden = vsplat(-INFINITY), top = hidden;
    for (int64_t j = 0; j < n; j++) {
        vf y = vload(s + j * count) * scale;
        if (cap > 0) {
            y = vsoft_cap(y, cap);
            vstore(s + j * count, y);
        }
        if (seen == SEE_SOME)
            y = vselect(sees(&w->l, at, key0 + j), y, hidden);
        top = vmax(y, top);
    }
    vf old = vload(w->max + at), now = vselect(top > old + MAX_SLACK, top, old);
    vf base = vselect(now == hidden, (vf){0}, now), total = {0};
    for (int64_t j = 0; j < padded_keys(n); j += 2) {
        vf p[2];
        for (int i = 0; i < 2; i++) {
            vf y = vload(s + (j + i) * count);
            p[i] = tile_exp(cap > 0 ? y - base : vfma(y, scale, -base));
            if (seen == SEE_SOME)
                p[i] = vselect(sees(&w->l, at, key0 + j + i), p[i], (vf){0});
            if (j + i >= n) { /* nor is there a mask */
                p[i] = (vf){0};
                continue;
            }
            total += p[i];
            if (keep)
                p[i] *= vload(keep + (j + i) * VW);
        }
        tile_put(&w->p, j, at, count, p[0], p[1]);
    }
    vf shrink = vexp_down(old - base);
    vstore(w->sum + at, vfma(vload(w->sum + at), shrink, total));
    vstore(w->max + at, now);
    if (any_lane(shrink != 1.0f))
        for (int64_t i = 0; i < w->dp; i++)
            vstore(w->out + i * count + at, vload(w->out + i * count + at) * shrink);
}

/* No keys at all: no probability. */
static void tile_clear(const tile *t, int64_t at, int64_t count, int64_t n)
{
    for (int64_t j = 0; j < padded_keys(n); j += 2)
        tile_put(t, j, at, count, (vf){0}, (vf){0});
}

static void softmax_tile(const am_attention_shape *x, forward *w, int64_t key0, int64_t n)
{
    for (int64_t at = 0; at < w->l.n; at += VW) {
        sight seen = lanes_see(&w->l, at, key0, n);
        float *keep = x->dropout_p > 0 ? w->keep : NULL;
        if (keep)
            drop_mask(keep, x, &w->l, at, key0, n);
        if (seen == SEE_NOTHING)
            tile_clear(&w->p, at, w->l.n, n);
        else if (x->softcap > 0 || keep)
            softmax_lanes(x, w, at, key0, n, SEE_SOME, (float)x->softcap, keep);
        else if (seen == SEE_SOME)
            softmax_lanes(x, w, at, key0, n, SEE_SOME, 0, NULL);
        else
            softmax_lanes(x, w, at, key0, n, SEE_ALL, 0, NULL);
    }
}

/* The first tile of keys that a block sees. */
static int64_t first_key(const block *k)
{
    return k->highest > k->lowest ? (k->lowest - k->origin) / TILE * TILE + k->origin : 0;
}

/* keys [s, d], values transposed [d, s] */
static void forward_block(const am_attention_args *args, forward *w, const block *k, int64_t b,
                          int64_t kh, left keys, left values)
{
    const am_attention_shape *x = &args->shape;
    lanes_set(&w->l, x, args->bounds, k, b, kh);
    int64_t n = w->l.n, dp = w->dp;
    right_turned(w->q, args->q, x->dtype, w->l.q, n, x->d, dp);
    memset(w->out, 0, (size_t)(n * dp) * sizeof *w->out);
    for (int64_t r = 0; r < n; r++) { /* a sink is like a key that came before */
        int sink = args->sinks && w->l.stat[r] >= 0;
        w->max[r] = sink ? ((const float *)args->sinks)[w->l.stat[r] / x->t % x->h] : -INFINITY;
        w->sum[r] = w->max[r] == -INFINITY ? 0.0f : 1.0f;
    }
    for (int64_t key0 = first_key(k); key0 < k->highest; key0 += TILE) {
        int64_t count = at_most(TILE, k->highest - key0);
        product(w->s, n, left_rows(keys, key0), w->q, n, count, n, padded_depth(x->d, dp), 0);
        softmax_tile(x, w, key0, count);
        product(w->out, n, left_columns(values, key0), w->p.right, n, x->d, n, padded_keys(count),
                1);
    }
    for (int64_t r = 0; r < n; r++) {
        int empty = w->max[r] == -INFINITY && w->sum[r] == 0;
        if (w->l.stat[r] >= 0)
            ((float *)args->lse)[w->l.stat[r]] = empty ? -INFINITY : w->max[r] + logf(w->sum[r]);
        if (empty)
            w->sum[r] = 1; /* of an output that is 0 */
    }
    store_turned(args->out, dtype_of(x), w->l.out, w->out, w->sum, n, x->d);
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

/* Where the keys and values of (batch, key/value head) `i` begin, in elements. */
static int64_t keys_at(const am_attention_shape *x, int64_t i)
{
    return i / x->kh * x->k_batch + i % x->kh * x->k_head;
}

static int64_t values_at(const am_attention_shape *x, int64_t i)
{
    return i / x->kh * x->v_batch + i % x->kh * x->v_head;
}

int AM_SIMD(attention)(am_stream *stream, const am_attention_args *args)
{
    const am_attention_shape *x = &args->shape;
    if (!takes(x->dtype))
        return attention_other(stream, args);
    if (is_decode(x))
        return attention_decode(args);
    int64_t *list, blocks = list_blocks(x, args->bounds, &list), heads = x->b * x->kh;
    int64_t dp = round_up(x->d, DEPTH);
    /* operands that all threads share, and where they are */
    int64_t k_cells = round_up(keys_cells(x->dtype, x->s, dp), 32);
    int64_t v_cells = round_up(turned_cells(x->dtype, x->s, dp), 32);
    size_t cells = (size_t)(heads * (k_cells + v_cells)) * sizeof(left_cell);
    left_cell *operands = am_scratch(2, cells + (size_t)(2 * heads) * sizeof(left));
    left *at = (left *)((char *)operands + cells);
    int failed = blocks < 0 || !operands;
#pragma omp parallel num_threads(team(x->b * x->t * x->s * x->h)) if (!failed)
    {
        forward w = {0};
        arena need = {0};
        forward_take(&w, &need, x);
        arena a = {.p = am_scratch(1, need.used)};
        int ready = !failed && a.p;
        if (ready) {
            forward_take(&w, &a, x);
            product_begin();
        } else {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(static)
        for (int64_t i = 0; i < heads; i++) {
            if (!ready)
                continue;
            left_cell *to = operands + i * (k_cells + v_cells);
            at[2 * i] = keys_left(to, args->k, x->dtype, keys_at(x, i), x->k_token, x->s, x->d, dp);
            at[2 * i + 1] = turned_left(to + k_cells, args->v, x->dtype, values_at(x, i),
                                        x->v_token, x->s, x->d, dp);
        }
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < blocks * x->kh; i++) {
            if (!ready || failed)
                continue;
            /* long blocks first: the late ones of a causal row see the most keys */
            const int64_t *first = list + 2 * (blocks - 1 - i / x->kh);
            int64_t head = first[0] * x->kh + i % x->kh;
            block k = block_at(x, args->bounds, first[0], first[1]);
            forward_block(args, &w, &k, first[0], i % x->kh, at[2 * head], at[2 * head + 1]);
        }
        if (ready)
            product_end();
    }
    return failed ? am_kernel_fail(AM_ENOMEM, "attention: no scratch memory") : AM_OK;
}

/* ---- backward ----------------------------------------------------------------------------- */

typedef struct back {
    int64_t dp;
    block_lanes l;
    right_cell *q_turned, *dout_turned, *q, *dout; /* [dp, lanes] twice, [lanes, dp] twice */
    float *s, *g, *dq;                             /* [TILE, lanes] twice, [dp, lanes] */
    tile p, ds;
    float *lse, *delta, *keep;
} back;

/* What all parts of a (batch, key/value head) share. */
typedef struct back_head {
    left keys, values, turned;
    left_cell *k_cells, *v_cells, *turned_cells; /* where they may lie */
    float *dk, *dv;                              /* [parts, s + TILE, dp] each, */
    int used[MOST_PARTS];                        /* of the parts that have a query */
} back_head;

static int64_t parts_of(const am_attention_shape *x)
{
    return at_most(MOST_PARTS, 1 + (x->s - 1) / PART_T); /* without keys one as well */
}

static void back_take(back *w, arena *a, const am_attention_shape *x)
{
    int64_t dp = w->dp = round_up(x->d, DEPTH);
    take_lanes(a, &w->l, x);
    int64_t most = w->l.most, row = right_cells(most, dp);
    w->q_turned = take(a, row, sizeof *w->q);
    w->dout_turned = take(a, row, sizeof *w->q);
    w->q = take(a, row, sizeof *w->q);
    w->dout = take(a, row, sizeof *w->q);
    w->s = take(a, TILE * most, sizeof *w->s);
    w->g = take(a, TILE * most, sizeof *w->g);
    w->dq = take(a, dp * most, sizeof *w->dq);
    take_tile(a, &w->p, w->g, most, 1);
    take_tile(a, &w->ds, w->s, most, 1);
    w->lse = take(a, most, sizeof *w->lse);
    w->delta = take(a, most, sizeof *w->delta);
    w->keep = take(a, TILE * VW, sizeof *w->keep);
}

static void heads_take(back_head *heads, int64_t n, arena *a, const am_attention_shape *x)
{
    int64_t dp = round_up(x->d, DEPTH), sums = parts_of(x) * (x->s + TILE) * dp;
    for (int64_t i = 0; i < n; i++) {
        back_head *h = &heads[i];
        h->k_cells = take(a, keys_cells(x->dtype, x->s, dp), sizeof *h->k_cells);
        h->v_cells = take(a, keys_cells(x->dtype, x->s, dp), sizeof *h->v_cells);
        h->turned_cells = take(a, turned_cells(x->dtype, x->s, dp), sizeof *h->turned_cells);
        h->dk = take(a, sums, sizeof *h->dk);
        h->dv = take(a, sums, sizeof *h->dv);
    }
}

/* From scores (s) and dout·v (g) of VW lanes: the dropped probabilities, and ds with the scale. */
AM_INLINE void pair_lanes(const am_attention_shape *x, const back *w, int64_t at, int64_t key0,
                          int64_t n, sight seen, float cap, const float *keep)
{
    int64_t count = w->l.n;
    vf scale = vsplat((float)x->scale), lse = vload(w->lse + at), delta = vload(w->delta + at);
    for (int64_t j = 0; j < padded_keys(n); j += 2) {
        vf p[2], ds[2];
        for (int i = 0; i < 2; i++) {
            vf y = vload(w->s + (j + i) * count + at), g = vload(w->g + (j + i) * count + at);
            if (cap > 0)
                y = vsoft_cap(y * scale, cap);
            p[i] = tile_exp(cap > 0 ? y - lse : vfma(y, scale, -lse));
            if (seen == SEE_SOME)
                p[i] = vselect(sees(&w->l, at, key0 + j + i), p[i], (vf){0});
            vf kept = keep ? vload(keep + (j + i) * VW) : vsplat(1.0f);
            ds[i] = p[i] * (g * kept - delta) * scale;
            if (cap > 0)
                ds[i] *= 1.0f - y * y * (1.0f / (cap * cap));
            if (seen == SEE_SOME)
                ds[i] = vselect(sees(&w->l, at, key0 + j + i), ds[i], (vf){0});
            p[i] *= kept;
            if (j + i >= n) /* nor is there a mask */
                p[i] = ds[i] = (vf){0};
        }
        tile_put(&w->p, j, at, count, p[0], p[1]);
        tile_put(&w->ds, j, at, count, ds[0], ds[1]);
    }
}

static void pair_tile(const am_attention_shape *x, const back *w, int64_t key0, int64_t n)
{
    for (int64_t at = 0; at < w->l.n; at += VW) {
        sight seen = lanes_see(&w->l, at, key0, n);
        float *keep = x->dropout_p > 0 ? w->keep : NULL;
        if (keep)
            drop_mask(keep, x, &w->l, at, key0, n);
        if (seen == SEE_NOTHING) {
            tile_clear(&w->p, at, w->l.n, n);
            tile_clear(&w->ds, at, w->l.n, n);
        } else if (x->softcap > 0 || keep) {
            pair_lanes(x, w, at, key0, n, SEE_SOME, (float)x->softcap, keep);
        } else if (seen == SEE_SOME) {
            pair_lanes(x, w, at, key0, n, SEE_SOME, 0, NULL);
        } else {
            pair_lanes(x, w, at, key0, n, SEE_ALL, 0, NULL);
        }
    }
}

/* Row sums of dout * out, and the logarithms of the forward pass. */
static void load_stats(const am_attention_bwd_args *args, back *w)
{
    const am_attention_shape *x = &args->shape;
    for (int64_t r = 0; r < w->l.n; r++) {
        vf sum = {0};
        w->lse[r] = INFINITY; /* of a lane that sees nothing */
        w->delta[r] = 0;
        if (w->l.stat[r] < 0)
            continue;
        for (int64_t c = 0; c < x->d; c += VW)
            sum += vget_n(args->dout, dtype_of(x), w->l.out[r] + c, x->d - c, 0.0f) *
                   vget_n(args->out, dtype_of(x), w->l.out[r] + c, x->d - c, 0.0f);
        w->delta[r] = ((float *)args->delta)[w->l.stat[r]] = vsum(sum);
        if (w->l.end[r] > 0)
            w->lse[r] = ((const float *)args->lse)[w->l.stat[r]];
    }
}

static void backward_block(const am_attention_bwd_args *args, back *w, const block *k, int64_t b,
                           int64_t kh, const back_head *head, float *dk, float *dv)
{
    const am_attention_shape *x = &args->shape;
    lanes_set(&w->l, x, args->bounds, k, b, kh);
    int64_t n = w->l.n, dp = w->dp, depth = padded_depth(x->d, dp);
    right_turned(w->q_turned, args->q, x->dtype, w->l.q, n, x->d, dp);
    right_turned(w->dout_turned, args->dout, x->dtype, w->l.out, n, x->d, dp);
    right_rows(w->q, args->q, x->dtype, w->l.q, n, x->d, dp);
    right_rows(w->dout, args->dout, x->dtype, w->l.out, n, x->d, dp);
    load_stats(args, w);
    memset(w->dq, 0, (size_t)(n * dp) * sizeof *w->dq);
    for (int64_t key0 = first_key(k); key0 < k->highest; key0 += TILE) {
        int64_t count = at_most(TILE, k->highest - key0), padded = padded_keys(count);
        product(w->s, n, left_rows(head->keys, key0), w->q_turned, n, count, n, depth, 0);
        product(w->g, n, left_rows(head->values, key0), w->dout_turned, n, count, n, depth, 0);
        pair_tile(x, w, key0, count);
        product(w->dq, n, left_columns(head->turned, key0), w->ds.right, n, x->d, n, padded, 1);
        product(dk + key0 * dp, dp, tile_as_left(&w->ds, n), w->q, dp, count, dp, n, 1);
        product(dv + key0 * dp, dp, tile_as_left(&w->p, n), w->dout, dp, count, dp, n, 1);
    }
    store_turned(args->dq, dtype_of(x), w->l.out, w->dq, NULL, n, x->d);
}

static void head_begin(const am_attention_bwd_args *args, back_head *h, int64_t head)
{
    const am_attention_shape *x = &args->shape;
    int64_t dp = round_up(x->d, DEPTH), k_at = keys_at(x, head), v_at = values_at(x, head);
    h->keys = keys_left(h->k_cells, args->k, x->dtype, k_at, x->k_token, x->s, x->d, dp);
    h->values = keys_left(h->v_cells, args->v, x->dtype, v_at, x->v_token, x->s, x->d, dp);
    h->turned = turned_left(h->turned_cells, args->k, x->dtype, k_at, x->k_token, x->s, x->d, dp);
}

/* One part of a (batch, key/value head). */
static void backward_part(const am_attention_bwd_args *args, back *w, back_head *h, int64_t head,
                          int64_t part)
{
    const am_attention_shape *x = &args->shape;
    int64_t b = head / x->kh, sums = (x->s + TILE) * w->dp;
    float *dk = h->dk + part * sums, *dv = h->dv + part * sums;
    h->used[part] = 0;
    for (int64_t t = 0; t < x->t;) {
        block k = block_at(x, args->bounds, b, t);
        uint64_t place = (uint64_t)(t + x->s - x->t - k.origin); /* in its sample */
        t += k.n;
        if (place / PART_T % (uint64_t)parts_of(x) != (uint64_t)part)
            continue;
        if (!h->used[part]) {
            memset(dk, 0, (size_t)sums * sizeof *dk);
            memset(dv, 0, (size_t)sums * sizeof *dv);
            h->used[part] = 1;
        }
        backward_block(args, w, &k, b, head % x->kh, h, dk, dv);
    }
}

/* dk and dv of one key, from all parts. */
static void store_key(const am_attention_bwd_args *args, const back_head *h, int64_t head,
                      int64_t key)
{
    const am_attention_shape *x = &args->shape;
    int64_t dp = round_up(x->d, DEPTH), sums = (x->s + TILE) * dp;
    int64_t at = ((head / x->kh * x->s + key) * x->kh + head % x->kh) * x->d;
    for (int64_t c = 0; c < x->d; c += VW) {
        vf dk = {0}, dv = {0};
        for (int64_t part = 0; part < parts_of(x); part++) {
            if (!h->used[part])
                continue;
            dk += vload(h->dk + part * sums + key * dp + c);
            dv += vload(h->dv + part * sums + key * dp + c);
        }
        vput_n(args->dk, dtype_of(x), at + c, x->d - c, dk);
        vput_n(args->dv, dtype_of(x), at + c, x->d - c, dv);
    }
}

int AM_SIMD(attention_bwd)(am_stream *stream, const am_attention_bwd_args *args)
{
    const am_attention_shape *x = &args->shape;
    if (!takes(x->dtype))
        return attention_bwd_other(stream, args);
    int threads = team(x->b * x->t * x->s * x->h);
    /* as many heads at once as memory should hold, and equally many each time */
    arena one = {0};
    heads_take(&(back_head){0}, 1, &one, x);
    int64_t fit = SHARED_BYTES / (int64_t)(one.used + 1), heads = x->b * x->kh, parts = parts_of(x);
    int64_t least = (threads + parts - 1) / parts; /* something to do for each thread */
    fit = fit < least ? least : fit;
    int64_t rounds = (heads + fit - 1) / fit, most = rounds ? (heads + rounds - 1) / rounds : 0;
    back_head *shared = am_scratch(0, (size_t)(most + 1) * sizeof *shared);
    arena cells = {.p = am_scratch(2, (size_t)most * one.used + 1)};
    int failed = !shared || !cells.p;
    if (!failed)
        heads_take(shared, most, &cells, x);
#pragma omp parallel num_threads(threads) if (!failed)
    {
        back w = {0};
        arena need = {0};
        back_take(&w, &need, x);
        arena a = {.p = am_scratch(1, need.used)};
        int ready = !failed && a.p;
        if (ready) {
            back_take(&w, &a, x);
            product_begin();
        } else {
#pragma omp atomic write
            failed = 1;
        }
        for (int64_t first = 0; first < heads; first += most) {
            int64_t n = at_most(most, heads - first);
#pragma omp for schedule(static)
            for (int64_t i = 0; i < n; i++)
                if (ready && !failed)
                    head_begin(args, &shared[i], first + i);
#pragma omp for schedule(dynamic, 1)
            for (int64_t i = 0; i < n * parts; i++)
                if (ready && !failed) /* long parts first: the late ones of a causal row */
                    backward_part(args, &w, &shared[i % n], first + i % n, parts - 1 - i / n);
#pragma omp for schedule(static)
            for (int64_t i = 0; i < n * x->s; i++)
                if (ready && !failed)
                    store_key(args, &shared[i / x->s], first + i / x->s, i % x->s);
        }
        if (ready)
            product_end();
    }
    return failed ? am_kernel_fail(AM_ENOMEM, "attention_bwd: no scratch memory") : AM_OK;
}
