/* test_cuda_kernels.c — kernels of device "cuda" called as the engine calls them, against `ref`'s,
 * where the table of cases does not reach: all pairs of dtypes, odd strides, more elements than a
 * grid has threads, long rows, ties and NaN, bad indices, the same random numbers. Without
 * AMLUA_CUDA it counts as skipped. */
#include "cuda_buffers.h"

/* ---- copies -----------------------------------------------------------------------------------
 */

static const struct {
    const char *name;
    am_nd nd;
    int64_t at[2], room[2]; /* of the first element, and of all */
} walks[] = {
    {"dense", {1, {1003}, {{1}, {1}}}, {0, 0}, {1003, 1003}},
    {"one", {0}, {0, 0}, {1, 1}},
    {"nothing", {2, {3, 0}, {{1, 1}, {1, 1}}}, {0, 0}, {1, 1}},
    {"off by one", {1, {517}, {{1}, {1}}}, {1, 1}, {518, 518}},
    {"turned", {3, {2, 37, 41}, {{1517, 41, 1}, {1517, 1, 37}}}, {0, 0}, {3034, 3034}},
    {"odd strides", {3, {5, 7, 3}, {{21, 3, 1}, {2, 31, 11}}}, {0, 3}, {105, 250}},
    {"scattered", {2, {9, 13}, {{1, 27}, {13, 1}}}, {4, 0}, {340, 117}},
    {"a row for all", {2, {6, 32}, {{32, 1}, {0, 1}}}, {0, 0}, {192, 32}},
    {"a column for all", {2, {32, 16}, {{16, 1}, {1, 0}}}, {0, 0}, {512, 32}},
};

START_TEST(copies)
{
    static const double special[] = {NAN, INFINITY, -INFINITY, 1e30, -1e30, -0.0, 255.7, -3.5};
    for (int to = 0; to < DTYPES; to++)
        for (int from = 0; from < DTYPES; from++)
            for (int accumulate = 0; accumulate < 2; accumulate++) {
                buffer out = buffer_new(dtypes[to], walks[_i].room[0], 50);
                buffer a = buffer_new(dtypes[from], walks[_i].room[1], 100);
                for (int64_t i = 0; from < FLOATS && i < 8 && 7 * i < a.n; i++)
                    elem_set(a.host, a.dtype, 7 * i, special[i]);
                send(&out);
                send(&a);
                BOTH(copy, AT(out, walks[_i].at[0]), AT(a, walks[_i].at[1]), dtypes[to],
                     dtypes[from], accumulate, walks[_i].nd);
                same(walks[_i].name, &out, 0);
                release(&out);
                release(&a);
            }
}
END_TEST

/* More elements than a grid has threads. */
START_TEST(large)
{
    int64_t n = 65535 * 256 + 77;
    buffer out = buffer_new(AM_U8, n, 0), a = buffer_new(AM_U8, n, 0), b = buffer_new(AM_U8, 1, 90);
    for (int64_t i = 0; i < n; i++)
        ((uint8_t *)a.host)[i] = (uint8_t)(i % 251 * (i & 1));
    send(&a);
    send(&b);
    BOTH(where, AT(out, 0), AT(a, 0), AT(a, 0), AT(b, 0), AM_U8, {1, {n}, {{1}, {1}, {1}, {0}}});
    same("where", &out, 0);
    BOTH(copy, AT(out, 0), AT(a, n - 1), AM_U8, AM_U8, 0, {1, {n}, {{1}, {-1}}});
    same("backwards", &out, 0);
    release(&out);
    release(&a);
    release(&b);
}
END_TEST

/* More tiles than a grid has blocks: some blocks do a second one in the same shared memory. */
START_TEST(loops)
{
    int64_t n = 65535 + 5;
    buffer turned = buffer_new(AM_U8, n * 64, 0), bytes = buffer_new(AM_U8, n * 64, 0);
    for (int64_t i = 0; i < bytes.n; i++)
        ((uint8_t *)bytes.host)[i] = (uint8_t)(i % 251);
    send(&bytes);
    BOTH(copy, AT(turned, 0), AT(bytes, 0), AM_U8, AM_U8, 0,
         {3, {n, 8, 8}, {{64, 8, 1}, {64, 1, 8}}});
    same("turned", &turned, 0);
    enum { EACH = 32 }; /* some for several warps, of which two bring together what all have */
    buffer tops = buffer_new(AM_F32, n * 2, 0), a = buffer_new(AM_F32, n * 2 * EACH, 7);
    send(&a);
    BOTH(reduce, AT(tops, 0), AT(a, 0), AM_R_MAX, AM_F32, AM_F32, 0, 1, n, EACH, 2);
    same("maximum", &tops, 0);
    buffer order = buffer_new(AM_I64, n * 2, 0);
    BOTH(argsort, AT(order, 0), AT(a, 0), AM_F32, 0, n, 2, 1);
    same("argsort", &order, 0);
    release(&turned);
    release(&bytes);
    release(&tops);
    release(&a);
    release(&order);
}
END_TEST

/* ---- random numbers ---------------------------------------------------------------------------
 */

START_TEST(dropouts)
{
    static const int64_t counts[] = {0, 1, 2, 3, 5, 1001};
    for (int d = 0; d < FLOATS; d++)
        for (int k = 0; k < 6 * 4; k++) {
            int64_t n = counts[k / 4], shift = k / 2 % 2;
            buffer out = buffer_new(dtypes[d], n + 1, 3), a = buffer_new(dtypes[d], n + 1, 3);
            send(&out);
            send(&a);
            BOTH(dropout, AT(out, shift), AT(a, 0), dtypes[d], 0.4, 17, 1ull << 40 | 3, n, k % 2);
            same("dropout", &out, roundings[d]);
            for (int64_t i = 0; k % 2 == 0 && i < n; i++)
                ck_assert((elem_get(out.read, dtypes[d], i + shift) == 0) ==
                          (elem_get(out.host, dtypes[d], i + shift) == 0));
            release(&out);
            release(&a);
        }
}
END_TEST

START_TEST(randoms)
{
    for (int d = 0; d < FLOATS; d++)
        for (int64_t n = 1; n < 3000; n = 3 * n + 2) {
            buffer out = buffer_new(dtypes[d], n, 0);
            BOTH(random, AT(out, 0), AM_RANDOM_UNIFORM, dtypes[d], 0, 1, 17, 3, n);
            same("uniform", &out, 0);
            BOTH(random, AT(out, 0), AM_RANDOM_NORMAL, dtypes[d], 0.5, 2, 17, 1ull << 33, n);
            same("normal", &out, roundings[d]);
            release(&out);
        }
}
END_TEST

/* ---- long rows --------------------------------------------------------------------------------
 */

START_TEST(reductions)
{
    static const int64_t sizes[][3] = {
        {2, 5000, 1}, {2, 4097, 3}, {1, 2100, 35}, {3, 1, 1}, {3, 0, 2}};
    for (int k = 0; k < 5; k++)
        for (int d = 0; d < DTYPES; d++)
            for (int op = 0; op < AM_R_COUNT; op++) {
                int64_t outer = sizes[k][0], n = sizes[k][1], inner = sizes[k][2];
                int whole = d >= FLOATS, extreme = op == AM_R_MAX || op == AM_R_MIN;
                int to = op >= AM_R_ARGMAX || (whole && !extreme) ? AM_I64 : dtypes[d];
                if ((whole && op == AM_R_LOGSUMEXP) || (!whole && op == AM_R_PROD && n > 1))
                    continue;
                buffer out = buffer_new(to, outer * inner, 3);
                buffer a = buffer_new(dtypes[d], outer * n * inner, op == AM_R_SUM ? 1 : 100);
                for (int64_t i = 0; !whole && i < 2 && n > 4000; i++) /* two of a row */
                    elem_set(a.host, dtypes[d], (1234 + 2000 * i) * inner, NAN);
                send(&out);
                send(&a);
                BOTH(reduce, AT(out, 0), AT(a, 0), op, dtypes[d], to, op < AM_R_ARGMAX,
                     whole ? 1 : 0.5, outer, n, inner);
                same("reduce", &out, whole ? 0 : 4 * roundings[d]);
                release(&out);
                release(&a);
            }
}
END_TEST

/* Partials of partials; what comes out must be exact, being sums of small integers. */
START_TEST(longest_sum)
{
    int64_t n = 2048 * 2048 + 2049;
    buffer out = buffer_new(AM_F64, 1, 0), a = buffer_new(AM_F64, n, 0);
    for (int64_t i = 0; i < n; i++)
        ((double *)a.host)[i] = (double)(i % 97);
    send(&a);
    BOTH(reduce, AT(out, 0), AT(a, 0), AM_R_SUM, AM_F64, AM_F64, 0, 1, 1, n, 1);
    same("sum", &out, 0);
    release(&out);
    release(&a);
}
END_TEST

START_TEST(running_sums)
{
    static const int64_t sizes[][3] = {{2, 3001, 1}, {2, 1025, 3}, {2, 70, 40}, {1, 1, 1}};
    for (int k = 0; k < 4; k++)
        for (int d = 0; d < DTYPES; d++)
            for (int reverse = 0; reverse < 2; reverse++) {
                int64_t outer = sizes[k][0], n = sizes[k][1], inner = sizes[k][2];
                int to = d < FLOATS ? dtypes[d] : AM_I64;
                buffer out = buffer_new(to, outer * n * inner, 0);
                buffer a = buffer_new(dtypes[d], outer * n * inner, 9);
                send(&a);
                BOTH(cumsum, AT(out, 0), AT(a, 0), dtypes[d], to, reverse, outer, n, inner);
                same("cumsum", &out, roundings[d]);
                release(&out);
                release(&a);
            }
}
END_TEST

/* A few values, so that most are ties; NaN and both zeros among floats. */
START_TEST(orders)
{
    static const int64_t sizes[][3] = {
        {1, 5000, 1}, {2, 1024, 2}, {1, 1025, 3}, {4, 3, 1}, {5, 1, 1}};
    for (int k = 0; k < 5; k++)
        for (int d = 0; d < DTYPES; d++)
            for (int descending = 0; descending < 2; descending++) {
                int64_t outer = sizes[k][0], n = sizes[k][1], inner = sizes[k][2];
                buffer out = buffer_new(AM_I64, outer * n * inner, 0);
                buffer a = buffer_new(dtypes[d], outer * n * inner, 0);
                for (int64_t i = 0; i < a.n; i++) {
                    double v = floor(40 * random_at(i)) - 20;
                    v = d >= FLOATS || v > -18 ? v : v == -18 ? -0.0 : v == -19 ? NAN : -INFINITY;
                    elem_set(a.host, dtypes[d], i, v);
                }
                send(&a);
                BOTH(argsort, AT(out, 0), AT(a, 0), dtypes[d], descending, outer, n, inner);
                same("argsort", &out, 0);
                release(&out);
                release(&a);
            }
}
END_TEST

/* ---- indices ----------------------------------------------------------------------------------
 */

static void fill_index(buffer *index, int64_t n)
{
    for (int64_t i = 0; i < index->n; i++)
        elem_set(index->host, index->dtype, i, floor((double)n * random_at(3 * i)));
    send(index);
}

/* Many rows on few, dense and with a tail, with and without a row of padding. */
START_TEST(rows_added)
{
    static const int64_t inners[] = {1, 5, 32};
    for (int k = 0; k < 3 * 2 * 2; k++)
        for (int d = 0; d < DTYPES; d++) {
            int64_t m = 2500, n = 700, inner = inners[k % 3], outer = 1 + k / 3 % 2;
            int to = k >= 6 && d < FLOATS ? AM_F32 : dtypes[d];
            buffer da = buffer_new(to, outer * n * inner, 5);
            buffer dout = buffer_new(dtypes[d], outer * m * inner, 5);
            buffer index = buffer_new(k % 2 ? AM_I32 : AM_I64, m, 0);
            fill_index(&index, n);
            send(&da);
            send(&dout);
            BOTH(gather_bwd, AT(da, 0), AT(dout, 0), AT(index, 0), dtypes[d], to, index.dtype, 0,
                 k % 2, outer, n, inner, m, 3);
            /* ref rounds after each of some ten additions, the kernel once */
            same("rows added", &da, d >= FLOATS ? 0 : 8 * roundings[to == AM_F32 ? 0 : d]);
            release(&da);
            release(&dout);
            release(&index);
        }
}
END_TEST

START_TEST(elements_added)
{
    static const int64_t sizes[][4] = {{3, 7, 40, 5}, {1, 50, 2000, 1}}; /* outer n m inner */
    for (int k = 0; k < 2; k++)
        for (int d = 0; d < DTYPES; d++) {
            int64_t outer = sizes[k][0], n = sizes[k][1], m = sizes[k][2], inner = sizes[k][3];
            buffer da = buffer_new(dtypes[d], outer * n * inner, 5);
            buffer dout = buffer_new(dtypes[d], outer * m * inner, 5);
            buffer index = buffer_new(AM_I64, outer * m * inner, 0);
            fill_index(&index, n);
            send(&da);
            send(&dout);
            BOTH(gather_bwd, AT(da, 0), AT(dout, 0), AT(index, 0), dtypes[d], dtypes[d], AM_I64, 1,
                 1, outer, n, inner, m, 2);
            same("elements added", &da, d >= FLOATS ? 0 : 8 * roundings[d]);
            release(&da);
            release(&dout);
            release(&index);
        }
}
END_TEST

/* What is queued goes on, the next sync says what was wrong, and the one after that is content. */
static void reported(const char *text)
{
    int rc = cuda->stream_sync(cuda_stream);
    ck_assert_int_eq(rc, AM_EINVAL);
    ck_assert_msg(strstr(am_error_message(), text) != NULL, "\"%s\"", am_error_message());
    must(cuda->stream_sync(cuda_stream));
}

START_TEST(bad_indices)
{
    enum { DEVICE = 1 };
    static const int32_t bad[] = {1, 5, 4, -3};
    buffer out = buffer_new(AM_F32, 4 * 8, 1), a = buffer_new(AM_F32, 5 * 8, 1);
    buffer index = buffer_new(AM_I32, 4, 0), whole = buffer_new(AM_I32, 4, 9);
    send(&a);
    send(&out);
    send(&whole);
    for (int k = 0; k < 2; k++) { /* one of them is wrong */
        memcpy(index.host, bad, sizeof bad);
        ((int32_t *)index.host)[k ? 1 : 3] = 0;
        send(&index);
        for (int per_element = 0; per_element < 2; per_element++) {
            int64_t inner = per_element ? 1 : 8, outer = 1;
            must(cuda->gather(cuda_stream,
                              &(am_gather_args){AT(out, 0), AT(a, 0), AT(index, 0), AM_F32, AM_I32,
                                                per_element, outer, 5, inner, 4}));
            reported(k ? "gather: index -3 is outside of 0..4"
                       : "gather: index 5 is outside of 0..4");
            must(cuda->gather_bwd(cuda_stream,
                                  &(am_gather_bwd_args){AT(a, 0), AT(out, 0), AT(index, 0), AM_F32,
                                                        AM_F32, AM_I32, per_element, 0, outer, 5,
                                                        inner, 4, 0}));
            reported(k ? "gather_bwd: index -3 is outside of 0..4"
                       : "gather_bwd: index 5 is outside of 0..4");
        }
    }
    ((int32_t *)index.host)[1] = 0;
    send(&index);
    must(cuda->binary(cuda_stream, &(am_binary_args){AT(whole, 0),
                                                     AT(whole, 0),
                                                     AT(index, 0),
                                                     AM_B_DIV,
                                                     AM_I32,
                                                     {1, {4}, {{1}, {1}, {1}}}}));
    reported("integer division by zero");
    release(&out);
    release(&a);
    release(&index);
    release(&whole);
}
END_TEST

int main(void)
{
    const cuda_test tests[] = {
        {"copies", copies, 0, (int)(sizeof walks / sizeof *walks)},
        {"large", large, 0, 1},
        {"loops", loops, 0, 1},
        {"dropouts", dropouts, 0, 1},
        {"randoms", randoms, 0, 1},
        {"reductions", reductions, 0, 1},
        {"longest_sum", longest_sum, 0, 1},
        {"running_sums", running_sums, 0, 1},
        {"orders", orders, 0, 1},
        {"rows_added", rows_added, 0, 1},
        {"elements_added", elements_added, 0, 1},
        {"bad_indices", bad_indices, 0, 1},
    };
    return run_on_cuda("cuda kernels", tests, sizeof tests / sizeof *tests);
}
