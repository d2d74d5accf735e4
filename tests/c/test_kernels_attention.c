/* Attention of every instruction set against ref: causal, windows, bounds, soft cap, dropout,
 * sinks, shared key/value heads, odd sizes; and what a row's bits must not depend on. */
#include "test_kernels.h"

typedef struct problem {
    am_attention_shape x;
    int32_t *bounds;
    float *sinks;
    void *q, *k, *v, *dout, *out, *lse, *dq, *dk, *dv, *delta;
} problem;

/* q, k and v lie in one packed projection [b, t, h + 2 kh, d], so that strides matter. */
static problem make(int dtype, int64_t b, int64_t t, int64_t s, int64_t h, int64_t kh, int64_t d)
{
    problem p = {.x = {.dtype = dtype, .b = b, .t = t, .s = s, .h = h, .kh = kh, .d = d}};
    am_attention_shape *x = &p.x;
    x->scale = 1 / sqrt((double)d);
    x->q_head = x->k_head = x->v_head = d;
    x->q_token = (h + 1) * d; /* a gap behind the heads */
    x->k_token = x->v_token = (kh + 2) * d;
    x->q_batch = t * x->q_token;
    x->k_batch = x->v_batch = s * x->k_token;
    p.q = random_elems(dtype, b * x->q_batch, -2, 2);
    p.k = random_elems(dtype, b * x->k_batch, -2, 2);
    p.v = random_elems(dtype, b * x->v_batch, -2, 2);
    p.dout = random_elems(dtype, b * t * h * d, -1, 1);
    p.out = elems(dtype, b * t * h * d);
    p.dq = elems(dtype, b * t * h * d);
    p.dk = elems(dtype, b * s * kh * d);
    p.dv = elems(dtype, b * s * kh * d);
    p.lse = elems(AM_F32, b * h * t);
    p.delta = elems(AM_F32, b * h * t);
    return p;
}

static void discard(problem *p)
{
    void *all[] = {p->q,  p->k,  p->v,  p->dout,  p->out,    p->lse,
                   p->dq, p->dk, p->dv, p->delta, p->bounds, p->sinks};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

static am_attention_args forward_args(const problem *p)
{
    return (am_attention_args){p->out, p->lse, p->q, p->k, p->v, p->bounds, p->sinks, p->x};
}

static am_attention_bwd_args backward_args(const problem *p)
{
    return (am_attention_bwd_args){p->dq, p->dk, p->dv,  p->delta, p->dout,   p->q,
                                   p->k,  p->v,  p->out, p->lse,   p->bounds, p->x};
}

static void run(const am_cpu_kernels *k, const problem *p)
{
    am_attention_args f = forward_args(p);
    am_attention_bwd_args g = backward_args(p);
    ck_assert_int_eq(k->attention(NULL, &f), AM_OK);
    ck_assert_int_eq(k->attention_bwd(NULL, &g), AM_OK);
}

enum { AMX = ISA_COUNT, DOT, KERNEL_SETS };

/* isa_kernels, and bf16's attention on AMX tiles and by vdpbf16ps where this CPU has them. */
static const am_cpu_kernels *attention_kernels(int isa, const char **label)
{
#if defined(__x86_64__)
    static am_cpu_kernels amx, dot;
    if (isa == AMX) {
        *label = "amx";
        amx = am_cpu_kernels_avx512_bf16;
        amx.attention = am_cpu_attention_amx;
        amx.attention_bwd = am_cpu_attention_bwd_amx;
        return strcmp(am_backend_cpu_isa_available(), "amx") == 0 ? &amx : NULL;
    }
    if (isa == DOT) {
        *label = "bf16_dot";
        dot = am_cpu_kernels_avx512_bf16;
        dot.attention = am_cpu_attention_bf16_dot;
        dot.attention_bwd = am_cpu_attention_bwd_bf16_dot;
        return isa_kernels(AM_ISA_AVX512_BF16) ? &dot : NULL;
    }
#endif
    *label = isa < ISA_COUNT ? isa_label[isa] : "";
    return isa < ISA_COUNT ? isa_kernels(isa) : NULL;
}

/* The dtype that a set has kernels of its own for. */
static int dtype_for(int isa)
{
    return isa >= AMX ? AM_BF16 : AM_F32;
}

/* Outputs are means of values up to 2, gradients sums over t or s terms of that size: absolute
 * errors of a few f32 ulps of the sums' scale, then one rounding. Those for bf16 alone take
 * probabilities and their gradients as bf16, so each term of a sum is off by up to 2^-9 of itself.
 * Backward starts from ref's out and lse, so that only the kernel's own error counts. */
static void compare(const char *what, const am_cpu_kernels *k, problem *p, int isa)
{
    double rounded = isa >= AMX && p->x.dtype == AM_BF16 ? 0x1p-7 : 0; /* of up to 2 / 0.7 */
    const am_attention_shape *x = &p->x;
    int64_t nq = x->b * x->t * x->h * x->d, nk = x->b * x->s * x->kh * x->d;
    int64_t stats = x->b * x->h * x->t;
    problem r = *p;
    r.out = elems(x->dtype, nq);
    r.dq = elems(x->dtype, nq);
    r.dk = elems(x->dtype, nk);
    r.dv = elems(x->dtype, nk);
    r.lse = elems(AM_F32, stats);
    r.delta = elems(AM_F32, stats);
    am_attention_args f = forward_args(&r), f2 = forward_args(p);
    ck_assert_int_eq(am_backend_ref.attention(NULL, &f), AM_OK);
    ck_assert_int_eq(k->attention(NULL, &f2), AM_OK);
    char label[160];
    snprintf(label, sizeof label, "%s: out", what);
    check_close(label, p->out, r.out, x->dtype, nq, ulp_of(x->dtype), 4e-6 + rounded);
    snprintf(label, sizeof label, "%s: lse", what);
    check_close(label, p->lse, r.lse, AM_F32, stats, 1e-6, 4e-6);
    am_attention_bwd_args g = backward_args(&r), g2 = backward_args(p);
    g2.out = r.out;
    g2.lse = r.lse;
    ck_assert_int_eq(am_backend_ref.attention_bwd(NULL, &g), AM_OK);
    ck_assert_int_eq(k->attention_bwd(NULL, &g2), AM_OK);
    double absolute = (4e-6 + rounded) * sqrt((double)(x->t * x->h / x->kh + x->s)) + 1e-5;
    snprintf(label, sizeof label, "%s: dq", what);
    check_close(label, p->dq, r.dq, x->dtype, nq, ulp_of(x->dtype), absolute);
    snprintf(label, sizeof label, "%s: dk", what);
    check_close(label, p->dk, r.dk, x->dtype, nk, ulp_of(x->dtype), absolute);
    snprintf(label, sizeof label, "%s: dv", what);
    check_close(label, p->dv, r.dv, x->dtype, nk, ulp_of(x->dtype), absolute);
    free(r.out);
    free(r.dq);
    free(r.dk);
    free(r.dv);
    free(r.lse);
    free(r.delta);
}

/* Samples one behind the other, and some padding that sees nothing. */
static int32_t *packed_bounds(int64_t b, int64_t t, int64_t s)
{
    int32_t *bounds = malloc((size_t)(b * t * 2) * sizeof *bounds);
    for (int64_t i = 0; i < b; i++) {
        int64_t start = 0, end = 0;
        for (int64_t j = 0; j < t; j++) {
            if (j == end) {
                start = end;
                end = start + 1 + (start * 7 + i * 13 + 5) % (t / 3 + 2);
            }
            int padding = j >= t - t / 9;
            bounds[(i * t + j) * 2] = (int32_t)(padding ? s : start);
            bounds[(i * t + j) * 2 + 1] = (int32_t)(padding ? 0 : end < s ? end : s);
        }
    }
    return bounds;
}

static const struct {
    int64_t b, t, s, h, kh, d;
} shapes[] = {{1, 1, 1, 1, 1, 1},     {2, 5, 5, 3, 1, 8},     {1, 67, 67, 2, 2, 64},
              {1, 3, 131, 4, 2, 20},  {2, 100, 100, 3, 3, 5}, {1, 1, 70, 6, 2, 64},
              {1, 33, 33, 2, 1, 128}, {1, 9, 4, 2, 1, 16}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

START_TEST(agrees_with_ref)
{
    for (int isa = 0; isa < KERNEL_SETS; isa++) {
        const char *label;
        const am_cpu_kernels *k = attention_kernels(isa, &label);
        for (int c = 0; k && c < SHAPES * 3 * 8; c++) {
            int i = c % SHAPES, mode = c / SHAPES / 3, dtype = half_dtypes[c / SHAPES % 3];
            problem p = make(dtype, shapes[i].b, shapes[i].t, shapes[i].s, shapes[i].h,
                             shapes[i].kh, shapes[i].d);
            char what[128];
            snprintf(what, sizeof what, "%s %s shape %d mode %d", label, am_dtype_name(dtype), i,
                     mode);
            p.x.causal = mode != 0 && mode != 5;
            p.x.window = mode == 2 || mode == 6 ? 7 : 0;
            p.x.softcap = mode == 3 || mode == 6 ? 3 : 0;
            p.x.dropout_p = mode == 4 || mode == 6 ? 0.3 : 0;
            p.x.seed = 5;
            p.x.stream = 1000003;
            if (mode >= 5)
                p.bounds = packed_bounds(p.x.b, p.x.t, p.x.s);
            if (mode & 1)
                p.sinks = random_elems(AM_F32, p.x.h, -3, 12);
            compare(what, k, &p, isa);
            discard(&p);
        }
    }
}
END_TEST

/* Backward in several parts, and more of them than there are sums for. */
START_TEST(long_rows)
{
    for (int c = 0; c < KERNEL_SETS * 3; c++) {
        const char *label;
        int isa = c % KERNEL_SETS, mode = c / KERNEL_SETS;
        const am_cpu_kernels *k = attention_kernels(isa, &label);
        if (!k)
            continue;
        int64_t n = mode < 2 ? 600 : 2080, h = mode < 2 ? 2 : 1;
        problem p = make(dtype_for(isa), 1, n, n, h, h, 8);
        p.x.causal = 1;
        if (mode == 1)
            p.bounds = packed_bounds(1, n, n); /* short samples */
        compare("long rows", k, &p, isa);
        discard(&p);
    }
}
END_TEST

/* From one tile of keys to the next a lane's maximum grows, by less and by more than what sums are
 * scaled anew for, and falls. Scores of up to 10, so a few ulps more than in `compare`. */
START_TEST(growing_maxima)
{
    static const double first_feature[] = {-7, -3, 7, 2}; /* of a tile's keys; scores: times 1.41 */
    for (int isa = 0; isa < KERNEL_SETS; isa++) {
        const char *label;
        const am_cpu_kernels *k = attention_kernels(isa, &label);
        if (!k)
            continue;
        int dtype = dtype_for(isa);
        double rounded = isa >= AMX ? 0x1p-7 : 0;
        problem p = make(dtype, 1, 40, 256, 2, 1, 8), r = p;
        const am_attention_shape *x = &p.x;
        for (int64_t t = 0; t < x->t; t++)
            for (int64_t h = 0; h < x->h; h++)
                elem_set(p.q, dtype, t * x->q_token + h * x->q_head, 4);
        for (int64_t j = 0; j < x->s; j++)
            elem_set(p.k, dtype, j * x->k_token, first_feature[j / 64]);
        r.out = elems(dtype, x->t * x->h * x->d);
        r.lse = elems(AM_F32, x->h * x->t);
        am_attention_args want = forward_args(&r), got = forward_args(&p);
        ck_assert_int_eq(am_backend_ref.attention(NULL, &want), AM_OK);
        ck_assert_int_eq(k->attention(NULL, &got), AM_OK);
        check_close(label, p.out, r.out, dtype, x->t * x->h * x->d, ulp_of(dtype), 1e-5 + rounded);
        check_close(label, p.lse, r.lse, AM_F32, x->h * x->t, 1e-6, 1e-5);
        free(r.out);
        free(r.lse);
        discard(&p);
    }
}
END_TEST

/* One query to a cache: parts of it, bounds that leave nothing or what padding does not fill, and
 * the same bits beside other rows, behind padding and on any number of threads. */
START_TEST(one_query)
{
    static const int64_t caches[][4] = {/* s, h, kh, d */
                                        {2, 1, 1, 1},    {70, 6, 2, 64},  {255, 9, 3, 64},
                                        {300, 5, 1, 20}, {513, 8, 8, 33}, {800, 7, 1, 128}};
    for (int c = 0; c < ISA_COUNT * 6 * 3 * 4; c++) {
        const am_cpu_kernels *k = isa_kernels(c % ISA_COUNT);
        const int64_t *s = caches[c / ISA_COUNT % 6];
        int dtype = half_dtypes[c / ISA_COUNT / 6 % 3], mode = c / ISA_COUNT / 18;
        if (!k)
            continue;
        problem p = make(dtype, 3, 1, s[0], s[1], s[2], s[3]);
        p.x.causal = mode > 0;
        p.x.window = mode == 2 ? 37 : 0;
        p.x.softcap = mode == 2 ? 3 : 0;
        int32_t last = (int32_t)s[0], bounds[] = {0, last, last / 3, last, 5, 5}, none[] = {1, 1};
        if (mode == 3)
            p.bounds = memcpy(malloc(sizeof bounds), bounds, sizeof bounds);
        if (mode & 1)
            p.sinks = random_elems(AM_F32, s[1], -3, 12);
        am_threads_set(1);
        compare("one query", k, &p, c % ISA_COUNT);
        int64_t row = s[1] * s[3], size = (int64_t)elem_size(dtype);
        void *all = copy_elems(dtype, 3 * row, p.out);
        for (int i = 0; i < 3; i++) {
            am_attention_args alone = forward_args(&p);
            alone.shape.b = 1;
            alone.q = (const char *)p.q + i * p.x.q_batch * size;
            alone.k = (const char *)p.k + i * p.x.k_batch * size;
            alone.v = (const char *)p.v + i * p.x.v_batch * size;
            if (p.bounds) { /* without the keys that are not seen */
                alone.shape.s = bounds[2 * i + 1] - bounds[2 * i] + (i == 2 ? 2 : 0);
                alone.k = (const char *)alone.k + bounds[2 * i] * p.x.k_token * size;
                alone.v = (const char *)alone.v + bounds[2 * i] * p.x.v_token * size;
                alone.bounds = i == 2 ? none : NULL;
            }
            am_threads_set(1 + i);
            if (alone.shape.s > 1) { /* else not this kernel's */
                ck_assert_int_eq(k->attention(NULL, &alone), AM_OK);
                check_same_bits("one query alone", alone.out, (const char *)all + i * row * size,
                                (size_t)(row * size));
            }
        }
        free(all);
        discard(&p);
    }
}
END_TEST

/* Rows that see no key give zeros, -inf and no gradient, and hostile bounds read nothing outside.
 */
START_TEST(empty_and_hostile_bounds)
{
    for (int isa = 0; isa < KERNEL_SETS; isa++) {
        const char *label;
        const am_cpu_kernels *k = attention_kernels(isa, &label);
        if (!k)
            continue;
        problem p = make(AM_F32, 1, 6, 6, 2, 1, 16); /* AMX hands f32 on */
        static const int32_t bounds[] = {0,         0,         5,  2, INT32_MIN, INT32_MAX,
                                         INT32_MAX, INT32_MIN, -3, 2, 4,         900};
        p.bounds = malloc(sizeof bounds);
        memcpy(p.bounds, bounds, sizeof bounds);
        compare("hostile bounds", k, &p, isa);
        const float *out = p.out, *lse = p.lse, *dq = p.dq;
        for (int i = 0; i < 2 * 16; i++) /* query 0, both heads */
            ck_assert(out[i] == 0 && dq[i] == 0);
        ck_assert(lse[0] == -INFINITY && lse[6] == -INFINITY && isfinite(lse[2]));
        discard(&p);
    }
}
END_TEST

/* The longer rows have several parts in backward, and more heads than it takes at once. */
START_TEST(threads_leave_the_bits)
{
    static const int threads[] = {2, 3, 5};
    for (int c = 0; c < KERNEL_SETS * 2; c++) {
        const char *label;
        int isa = c % KERNEL_SETS, is_long = c / KERNEL_SETS;
        const am_cpu_kernels *k = attention_kernels(isa, &label);
        if (!k)
            continue;
        int dtype = dtype_for(isa);
        int64_t n = is_long ? 1100 : 150, h = is_long ? 3 : 4, kh = is_long ? 3 : 2;
        size_t size = elem_size(dtype);
        problem p = make(dtype, 2, n, n, h, kh, 64);
        p.x.causal = 1;
        if (!is_long)
            p.bounds = packed_bounds(2, n, n);
        p.sinks = random_elems(AM_F32, h, -1, 1);
        problem r = p;
        int64_t nq = 2 * n * h * 64, nk = 2 * n * kh * 64;
        r.out = elems(dtype, nq);
        r.dq = elems(dtype, nq);
        r.dk = elems(dtype, nk);
        r.dv = elems(dtype, nk);
        am_threads_set(1);
        run(k, &r);
        for (int i = 0; i < 3; i++) {
            am_threads_set(threads[i]);
            run(k, &p);
            check_same_bits("out", p.out, r.out, (size_t)nq * size);
            check_same_bits("dq", p.dq, r.dq, (size_t)nq * size);
            check_same_bits("dk", p.dk, r.dk, (size_t)nk * size);
            check_same_bits("dv", p.dv, r.dv, (size_t)nk * size);
        }
        free(r.out);
        free(r.dq);
        free(r.dk);
        free(r.dv);
        discard(&p);
    }
}
END_TEST

/* A sample of n tokens alone, and behind `offset` others in a pack: the same bits for its rows,
 * their gradients, and the gradients of its keys. */
START_TEST(place_in_a_pack_leaves_the_bits)
{
    enum { H = 4, KH = 2, D = 24 };
    static const int64_t places[][2] = {{1, 83},  {16, 83}, {37, 83},
                                        {64, 83}, {90, 83}, {70, 1100}};
    for (int c = 0; c < KERNEL_SETS * 6 * 2; c++) {
        const char *label;
        const am_cpu_kernels *k = attention_kernels(c % KERNEL_SETS, &label);
        const int64_t *place = places[c / KERNEL_SETS % 6];
        int64_t offset = place[0], n = place[1], total = offset + n + 11;
        int dtype = dtype_for(c % KERNEL_SETS);
        size_t size = elem_size(dtype), rows = (size_t)offset * size;
        if (!k)
            continue;
        problem alone = make(dtype, 1, n, n, H, KH, D);
        problem pack = make(dtype, 1, total, total, H, KH, D);
        alone.sinks = random_elems(AM_F32, H, -1, 4);
        pack.sinks = copy_elems(AM_F32, H, alone.sinks);
        alone.x.causal = pack.x.causal = 1;
        alone.x.window = pack.x.window = c / KERNEL_SETS / 6 ? 30 : 0;
        pack.bounds = malloc((size_t)total * 2 * sizeof *pack.bounds);
        for (int64_t t = 0; t < total; t++) {
            int in = t >= offset && t < offset + n;
            pack.bounds[2 * t] = (int32_t)(t < offset ? 0 : in ? offset : offset + n);
            pack.bounds[2 * t + 1] = (int32_t)(t < offset ? offset : in ? offset + n : total);
        }
        const am_attention_shape *x = &pack.x;
        memcpy((char *)pack.q + rows * (size_t)x->q_token, alone.q,
               (size_t)(n * x->q_token) * size);
        memcpy((char *)pack.k + rows * (size_t)x->k_token, alone.k,
               (size_t)(n * x->k_token) * size);
        memcpy((char *)pack.v + rows * (size_t)x->v_token, alone.v,
               (size_t)(n * x->v_token) * size);
        memcpy((char *)pack.dout + rows * H * D, alone.dout, (size_t)n * H * D * size);
        run(k, &alone);
        run(k, &pack);
        check_same_bits("out", (char *)pack.out + rows * H * D, alone.out,
                        (size_t)n * H * D * size);
        check_same_bits("dq", (char *)pack.dq + rows * H * D, alone.dq, (size_t)n * H * D * size);
        check_same_bits("dk", (char *)pack.dk + rows * KH * D, alone.dk, (size_t)n * KH * D * size);
        check_same_bits("dv", (char *)pack.dv + rows * KH * D, alone.dv, (size_t)n * KH * D * size);
        for (int h = 0; h < H; h++)
            check_same_bits("lse", (float *)pack.lse + h * total + offset,
                            (float *)alone.lse + h * n, (size_t)n * 4);
        discard(&alone);
        discard(&pack);
    }
}
END_TEST

/* What queries' keys so far and a block of others gave, some of them nothing, NaN among the rows.
 */
START_TEST(merges)
{
    enum { B = 2, T = 3, H = 5 };
    for (int c = 0; c < ISA_COUNT * 3 * 2; c++) {
        int isa = c % ISA_COUNT, dtype = half_dtypes[c / ISA_COUNT % 3];
        const am_cpu_kernels *k = isa_kernels(isa);
        int64_t d = c / ISA_COUNT / 3 ? 37 : 64, n = B * T * H * d;
        float *out = random_elems(AM_F32, n, -2, 2), *lse = random_elems(AM_F32, B * T * H, -3, 9);
        float *want = elems(AM_F32, n), *sums = elems(AM_F32, B * T * H);
        float *others = random_elems(AM_F32, B * T * H, -3, 9);
        void *block = random_elems(dtype, n, -2, 2);
        lse[3] = others[7] = lse[11] = others[11] = -INFINITY;
        lse[20] = NAN;
        memcpy(want, out, (size_t)n * sizeof *out);
        memcpy(sums, lse, B * T * H * sizeof *lse);
        am_attention_merge_args got = {out, lse, block, others, dtype, B, T, H, d}, ref = got;
        ref.out = want;
        ref.lse = sums;
        ck_assert_int_eq(am_backend_ref.attention_merge(NULL, &ref), AM_OK);
        if (k) {
            ck_assert_int_eq(k->attention_merge(NULL, &got), AM_OK);
            ck_assert(isnan(lse[20]) && isnan(sums[20]) && lse[11] == -INFINITY);
            ck_assert(lse[3] == others[3] && sums[3] == others[3]);
            lse[20] = sums[20] = 0; /* row 20 of [B, H, T]: b 1, h 1, t 2 */
            memset(out + ((1 * T + 2) * H + 1) * d, 0, (size_t)d * sizeof *out);
            memset(want + ((1 * T + 2) * H + 1) * d, 0, (size_t)d * sizeof *want);
            lse[11] = sums[11] = 0;
            check_close("merged", out, want, AM_F32, n, 4e-7,
                        4e-7); /* a few ulps of values up to 2 */
            check_close("merged lse", lse, sums, AM_F32, B * T * H, 4e-7, 4e-7);
        }
        void *all[] = {out, lse, want, sums, others, block};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++)
            free(all[i]);
    }
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {agrees_with_ref,
                                  long_rows,
                                  growing_maxima,
                                  one_query,
                                  empty_and_hostile_bounds,
                                  threads_leave_the_bits,
                                  place_in_a_pack_leaves_the_bits,
                                  merges};
    return run_suite("kernels_attention", tests, sizeof tests / sizeof *tests);
}
