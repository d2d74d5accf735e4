/* test_cuda_attention.c — the CUDA backend's attention, forward, backward and merge, against ref:
 * head sizes of every kernel, sizes beside those of tiles, strides, bounds, windows, soft caps,
 * sinks, dropout; values that decide at the edges of tiles and of what is seen; and what a row's
 * bits must not depend on. The backend is the module that AMLUA_CUDA names; without it everything
 * counts as skipped. */
#include "cuda_attention.h"
#include "rng.h"

/* ---- against ref ---------------------------------------------------------------------------- */

enum { MODES = 8 };
static void set_mode(problem *p, int mode)
{
    p->x.causal = mode != 0 && mode != 5;
    p->x.window = mode == 2 || mode == 6 ? 7 : 0;
    p->x.softcap = mode == 3 || mode == 6 ? 3 : 0;
    p->x.dropout_p = mode == 4 || mode == 6 ? 0.3 : 0;
    if (mode >= 5)
        set_packed(p);
    if (mode & 1)
        buffer(p, SINKS, p->stat, p->x.h, -3, 12);
}

/* A gap that is no multiple of 8 is one that copies of 16 bytes can't take. */
static const struct {
    int64_t b, t, s, h, kh, d, gap;
} shapes[] = {
    {1, 1, 1, 1, 1, 8, 0},      {2, 5, 5, 3, 1, 16, 8},    {1, 67, 67, 2, 2, 64, 0},
    {1, 3, 131, 4, 2, 24, 16},  {1, 70, 70, 2, 1, 40, 0},  {1, 1, 70, 6, 2, 64, 0},
    {1, 131, 131, 2, 1, 64, 8}, {1, 65, 65, 2, 1, 72, 8},  {1, 130, 34, 1, 1, 80, 0},
    {1, 34, 97, 3, 1, 96, 0},   {2, 66, 66, 2, 2, 128, 0}, {1, 35, 35, 2, 1, 136, 0},
    {1, 9, 50, 2, 2, 192, 24},  {1, 67, 35, 2, 1, 256, 0}, {1, 19, 66, 4, 1, 256, 8},
    {1, 33, 70, 2, 1, 64, 3},   {1, 9, 4, 2, 1, 20, 0},    {1, 40, 37, 2, 2, 5, 0},
    {1, 5, 9, 2, 1, 131, 1},    {1, 3, 5, 1, 1, 300, 0},   {1, 5, 3, 1, 1, 1, 0},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

/* Every mode of a shape in one dtype, and two in each of the others. */
START_TEST(agrees_with_ref)
{
    for (int d = 0; d < 4; d++)
        for (int mode = 0; mode < MODES; mode++) {
            int half = d == 1 || d == 2;
            if (half ? (mode + d) % 2 : (mode + _i + d) % 4)
                continue;
            int dtype = float_dtypes[d];
            problem p = make(dtype, shapes[_i].b, shapes[_i].t, shapes[_i].s, shapes[_i].h,
                             shapes[_i].kh, shapes[_i].d, shapes[_i].gap);
            char what[128];
            snprintf(what, sizeof what, "%s shape %d mode %d", am_dtype_name(dtype), _i, mode);
            set_mode(&p, mode);
            compare(what, &p, 1);
            discard(&p);
        }
}
END_TEST

static const int64_t head_sizes[] = {64, 128, 256};
static const int edge_dtypes[] = {AM_BF16, AM_F32};
enum { EDGE_RUNS = 6 };

/* The last key that is seen decides, one way; the next, which is not seen, would the other. */
START_TEST(edges_decide)
{
    static const int edges[] = {1, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 128};
    int dtype = edge_dtypes[_i % 2];
    int64_t d = head_sizes[_i / 2];
    for (size_t e = 0; e < sizeof edges / sizeof *edges; e++) {
        int n = edges[e];
        for (int side = 0; side < 2; side++) { /* 0: the end of what is seen, 1: the start */
            problem p = make(dtype, 1, 3, n + 9, 1, 1, d, 0);
            const am_attention_shape *x = &p.x;
            int32_t bounds[6];
            for (int t = 0; t < 3; t++) { /* one more key, or less, each */
                bounds[2 * t] = side ? n + t : 0;
                bounds[2 * t + 1] = side ? n + 9 : n + t;
                elem_set(p.p[Q], dtype, t * x->q_token, 8);
            }
            set_bounds(&p, bounds);
            for (int64_t j = 0; j < x->s; j++) /* scores rise to the edge, and on */
                elem_set(p.p[K], dtype, j * x->k_token,
                         sqrt((double)d) * 0.3 * (double)(side ? n + 8 - j : j - n));
            char what[128];
            snprintf(what, sizeof what, "%s head %d edge %d side %d", am_dtype_name(dtype), (int)d,
                     n, side);
            compare(what, &p, 16);
            discard(&p);
        }
    }
}
END_TEST

/* From one tile of keys to the next the maximum grows, and falls. Scores of up to 10. */
START_TEST(growing_maxima)
{
    static const double first_feature[] = {-7, -3, 7, 2}; /* scores: times 1.41 */
    int dtype = edge_dtypes[_i % 2];
    problem p = make(dtype, 1, 40, 256, 2, 1, 8, 0);
    const am_attention_shape *x = &p.x;
    for (int64_t t = 0; t < x->t; t++)
        for (int64_t h = 0; h < x->h; h++)
            elem_set(p.p[Q], dtype, t * x->q_token + h * x->q_head, 4);
    for (int64_t j = 0; j < x->s; j++)
        elem_set(p.p[K], dtype, j * x->k_token, first_feature[j / 64]);
    compare("growing maxima", &p, 4);
    discard(&p);
}
END_TEST

/* Rows that see no key give zeros, -inf or the sink, and no gradient; hostile bounds read nothing
 * outside. */
START_TEST(empty_and_hostile_bounds)
{
    static const int32_t bounds[] = {0,         0,         5,  2, INT32_MIN, INT32_MAX,
                                     INT32_MAX, INT32_MIN, -3, 2, 4,         900};
    for (int with_sinks = 0; with_sinks < 2; with_sinks++) {
        int dtype = edge_dtypes[_i % 2], size = (int)elem_size(dtype);
        problem p = make(dtype, 1, 6, 6, 2, 1, 16, 0);
        set_bounds(&p, bounds);
        if (with_sinks)
            buffer(&p, SINKS, AM_F32, 2, -3, 3);
        compare("hostile bounds", &p, 1);
        for (int i = 0; i < 2 * 16 * size; i++) /* query 0, both heads */
            ck_assert(p.p[OUT][i] == 0 && p.p[DQ][i] == 0);
        run_cuda(&p, 0);
        const float *lse = (const float *)(const void *)p.p[LSE];
        const float *sinks = (const float *)(const void *)p.p[SINKS];
        ck_assert(lse[0] == (sinks ? sinks[0] : -INFINITY));
        ck_assert(lse[6] == (sinks ? sinks[1] : -INFINITY) && isfinite(lse[2]));
        discard(&p);
    }
}
END_TEST

/* Samples that overlap, as no packing makes them: of a warp's last query the keys begin one later,
 * and lie in tiles that the others see whole. */
START_TEST(overlapping_samples)
{
    enum { T = 70, S = 200 };
    problem p = make(edge_dtypes[_i % 2], 1, T, S, 2, 1, head_sizes[_i / 2], 0);
    int32_t bounds[2 * T];
    for (int t = 0; t < T; t++) {
        bounds[2 * t] = (t + 1) / 16 % 2 ? 0 : 1 + (t + 1) / 16;
        bounds[2 * t + 1] = S - t / 16;
    }
    set_bounds(&p, bounds);
    compare("overlapping samples", &p, 1);
    discard(&p);
}
END_TEST

/* More queries than attention_plan_kernel takes at once; samples go over from one step to the next.
 */
START_TEST(many_queries)
{
    enum { T = 1100 };
    problem p = make(edge_dtypes[_i], 1, T, T, 1, 1, 8, 0);
    int32_t bounds[2 * T];
    for (int t = 0, begin = 0, end = 0; t < T; t++) {
        if (t == end) {
            begin = end;
            end += t % 512 == 0 ? 3 : 1 + (t * 7 + 5) % 90;
            end = begin < 1024 && end > 1024 ? 1024 : end < T ? end : T;
        }
        bounds[2 * t] = begin;
        bounds[2 * t + 1] = end;
    }
    set_bounds(&p, bounds);
    compare("many queries", &p, 1);
    discard(&p);
}
END_TEST

/* An element whose random number is the probability itself is kept. */
START_TEST(dropout_decides)
{
    problem p = make(edge_dtypes[_i], 1, 1, 8, 1, 1, 8, 0);
    for (uint64_t i = 0; i < 4; i++) {
        p.x.dropout_p = (double)am_philox_u32(p.x.seed, p.x.stream, i) * 0x1p-32;
        compare("dropout", &p, 1 / (1 - p.x.dropout_p));
    }
    discard(&p);
}
END_TEST

START_TEST(no_scale)
{
    problem p = make(edge_dtypes[_i], 1, 5, 7, 1, 1, 8, 0);
    p.x.causal = 1;
    p.x.scale = 0;
    compare("scale 0", &p, 1);
    discard(&p);
}
END_TEST

START_TEST(most_positions)
{
    for (int k = 0; k < 4; k++) {
        am_attention_args a = {.shape = {.dtype = AM_F32, .h = 1, .kh = 1, .t = 1, .s = 1, .d = 8}};
        *(k < 2 ? &a.shape.t : &a.shape.s) = INT32_MAX / 2 + k % 2; /* of no rows */
        ck_assert_int_eq(cuda->attention(cuda_stream, &a), k % 2 ? AM_EINVAL : AM_OK);
    }
}
END_TEST

/* What draws random numbers is in no graph, and the rest may be. */
START_TEST(recorded)
{
    for (int drops = 0; drops < 2; drops++) {
        am_attention_args a = {.shape = {.dtype = AM_F32, .h = 1, .kh = 1, .t = 1, .s = 1, .d = 8}};
        void *graph;
        const char *unfit;
        a.shape.dropout_p = 0.5 * drops;
        ck_assert_int_eq(cuda->graph_begin(cuda_stream, 0), AM_OK); /* a rehearsal */
        ck_assert_int_eq(cuda->attention(cuda_stream, &a), AM_OK);
        ck_assert_int_eq(cuda->graph_end(cuda_stream, &graph, &unfit), AM_OK);
        ck_assert_int_eq(unfit != NULL, drops);
    }
}
END_TEST

/* ---- bits ----------------------------------------------------------------------------------- */

/* Elements of `n` tokens of `row` elements from token `at` on. */
static void check_part(const char *what, const problem *all, const problem *part, int which,
                       int64_t at, int64_t n, int64_t row)
{
    size_t size = elem_size(all->x.dtype);
    check_same_bits(what, all->p[which] + (size_t)(at * row) * size, part->p[which],
                    (size_t)(n * row) * size);
}

/* A sample's outputs and gradients are the same bits alone and in a pack, wherever it lies. */
START_TEST(place_in_the_pack)
{
    static const int64_t lengths[] = {37, 70, 1, 150, 9}, heads = 2;
    int dtype = _i < 3 ? AM_BF16 : _i == 3 ? AM_F16 : _i == 4 ? AM_F32 : AM_F64;
    int64_t d = _i < 3 ? head_sizes[_i] : 64, t = 0, at = 0;
    int32_t bounds[2 * 267];
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; t += lengths[i++])
        for (int64_t j = 0; j < lengths[i]; j++) {
            bounds[2 * (t + j)] = (int32_t)t;
            bounds[2 * (t + j) + 1] = (int32_t)(t + lengths[i]);
        }
    problem p = make(dtype, 1, t, t, heads, 1, d, 8);
    p.x.causal = 1;
    p.x.window = 90;
    set_bounds(&p, bounds);
    run_cuda(&p, 0);
    run_cuda(&p, 1);
    size_t size = elem_size(dtype);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; at += lengths[i++]) {
        int64_t n = lengths[i];
        problem one = make(dtype, 1, n, n, heads, 1, d, 8);
        one.x.causal = 1;
        one.x.window = 90;
        const int64_t rows[] = {
            [Q] = p.x.q_token, [K] = p.x.k_token, [V] = p.x.v_token, [DOUT] = heads * d};
        for (int k = Q; k <= DOUT; k++)
            memcpy(one.p[k], p.p[k] + (size_t)(at * rows[k]) * size, one.bytes[k]);
        run_cuda(&one, 0);
        run_cuda(&one, 1);
        check_part("out", &p, &one, OUT, at, n, heads * d);
        check_part("dq", &p, &one, DQ, at, n, heads * d);
        check_part("dk", &p, &one, DK, at, n, d);
        check_part("dv", &p, &one, DV, at, n, d);
        discard(&one);
    }
    discard(&p);
}
END_TEST

/* ---- parts ---------------------------------------------------------------------------------- */

START_TEST(merge_agrees)
{
    enum { B = 2, T = 5, H = 3, D = 37, ROWS = B * T * H };
    int dtype = float_dtypes[_i % 4], wide = dtype == AM_F64 ? AM_F64 : AM_F32;
    void *host[4], *want[2], *at[4];
    size_t bytes[4];
    for (int i = 0; i < 4; i++) { /* out, lse, block, block_lse */
        int type = i == 2 ? dtype : wide;
        int64_t n = i % 2 ? ROWS : ROWS * D;
        bytes[i] = (size_t)n * elem_size(type);
        host[i] = random_elems(type, n, -3, 3);
        for (int64_t j = i; i % 2 && j < n; j += 7)
            elem_set(host[i], type, j, -INFINITY);
        if (i < 2)
            want[i] = copy_elems(type, n, host[i]);
        ck_assert_int_eq(cuda->alloc(&at[i], bytes[i]), AM_OK);
        ck_assert_int_eq(cuda->transfer(cuda_stream, at[i], host[i], bytes[i], AM_COPY_TO_DEVICE),
                         AM_OK);
    }
    am_attention_merge_args r = {want[0], want[1], host[2], host[3], dtype, B, T, H, D}, c = r;
    c.out = at[0];
    c.lse = at[1];
    c.block = at[2];
    c.block_lse = at[3];
    ck_assert_int_eq(am_backend_ref.attention_merge(NULL, &r), AM_OK);
    ck_assert_int_eq(cuda->attention_merge(cuda_stream, &c), AM_OK);
    double tolerance = dtype == AM_F64 ? 1e-15 : 1e-6; /* some ulps of values up to 3 */
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(cuda->transfer(cuda_stream, host[i], at[i], bytes[i], AM_COPY_TO_HOST),
                         AM_OK);
        check_close("merge", host[i], want[i], wide, i ? ROWS : ROWS * D, tolerance, tolerance);
        free(want[i]);
    }
    for (int i = 0; i < 4; i++) {
        cuda->release(at[i], bytes[i]);
        free(host[i]);
    }
}
END_TEST

int main(void)
{
    const cuda_test tests[] = {{"agreement", agrees_with_ref, 0, SHAPES},
                               {"edges", edges_decide, 0, EDGE_RUNS},
                               {"maxima", growing_maxima, 0, 2},
                               {"bounds", empty_and_hostile_bounds, 0, 2},
                               {"overlap", overlapping_samples, 0, EDGE_RUNS},
                               {"many", many_queries, 0, 2},
                               {"dropout", dropout_decides, 0, 2},
                               {"scale", no_scale, 0, 2},
                               {"positions", most_positions, 0, 1},
                               {"recorded", recorded, 0, 1},
                               {"packs", place_in_the_pack, 0, 6},
                               {"merge", merge_agrees, 0, 4}};
    return run_on_cuda("cuda attention", tests, sizeof tests / sizeof *tests);
}
