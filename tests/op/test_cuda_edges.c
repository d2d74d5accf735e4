/* test_cuda_edges.c — where conditions in kernels of device "cuda" turn: zeros and ties, the ends
 * of integers, dims that are one in all operands or in some, and what is refused. Against `ref`,
 * each on a few elements. Without AMLUA_CUDA it counts as skipped. */
#include "cuda_buffers.h"

#define REFUSED(kernel, ...)                                                                       \
    ck_assert_int_eq(cuda->kernel(cuda_stream, &(am_##kernel##_args){__VA_ARGS__}), AM_EUNSUP)

/* ---- functions ------------------------------------------------------------------------------ */

static const double corners[] = {-2, -1, -0.5, -0.0, 0, 0.5, 1, 2, 3};
enum { CORNERS = sizeof corners / sizeof *corners };

/* Every function and its gradient where branches meet; clamp's bounds are corners, too. */
START_TEST(unary)
{
    am_nd nd = {1, {CORNERS}, {{1}, {1}, {1}}};
    for (int d = 0; d < DTYPES; d++)
        for (int op = 0; op < AM_U_COUNT; op++)
            for (int k = 0; k < 2; k++) {
                double p0 = k ? 0 : -1, p1 = 2;
                buffer out = buffer_new(dtypes[d], CORNERS, 0),
                       da = buffer_new(dtypes[d], CORNERS, 0);
                buffer a = buffer_new(dtypes[d], CORNERS, 0),
                       dout = buffer_new(dtypes[d], CORNERS, 3);
                for (int i = 0; i < CORNERS; i++)
                    elem_set(a.host, dtypes[d], i, corners[i]);
                send(&a);
                send(&dout);
                int whole = op <= AM_U_ABS || op == AM_U_CLAMP || op >= AM_U_SIGN;
                if (d < FLOATS) {
                    BOTH(unary, AT(out, 0), AT(a, 0), op, dtypes[d], p0, p1, nd);
                    same("unary", &out, 2 * roundings[d]);
                    BOTH(unary_bwd, AT(da, 0), AT(dout, 0), AT(a, 0), op, dtypes[d], p0, p1, nd);
                    same("unary_bwd", &da, 2 * roundings[d]);
                } else if (whole && dtypes[d] != AM_BOOL) {
                    BOTH(unary, AT(out, 0), AT(a, 0), op, dtypes[d], p0, p1, nd);
                    same("unary", &out, 0);
                } else {
                    REFUSED(unary, out.device, a.device, op, dtypes[d], p0, p1, nd);
                }
                release(&out);
                release(&da);
                release(&a);
                release(&dout);
            }
    for (int op = -1; op <= AM_U_COUNT; op += AM_U_COUNT + 1) {
        REFUSED(unary, .op = op, .dtype = AM_F32, .nd = nd);
        REFUSED(unary_bwd, .op = op, .dtype = AM_F32, .nd = nd);
    }
}
END_TEST

/* Every pair of corners, ties among them. */
START_TEST(binary)
{
    am_nd nd = {2, {CORNERS, CORNERS}, {{CORNERS, 1}, {CORNERS, 1}, {CORNERS, 1}, {CORNERS, 1}}};
    const int64_t n = CORNERS * CORNERS;
    for (int d = 0; d < DTYPES; d++)
        for (int op = 0; op < AM_B_COUNT; op++) {
            int floating = d < FLOATS, type = dtypes[d];
            buffer out = buffer_new(op >= AM_B_EQ ? AM_BOOL : type, n, 0);
            buffer a = buffer_new(type, n, 0), b = buffer_new(type, n, 0);
            buffer dout = buffer_new(type, n, 3);
            for (int i = 0; i < n; i++) {
                double divisor = corners[i % CORNERS];
                divisor = !floating && op == AM_B_DIV && fabs(divisor) < 1 ? -1 : divisor;
                elem_set(a.host, type, i, corners[i / CORNERS]);
                elem_set(b.host, type, i, divisor);
            }
            send(&a);
            send(&b);
            send(&dout);
            if ((op == AM_B_POW && !floating) || (op < AM_B_EQ && type == AM_BOOL)) {
                REFUSED(binary, out.device, a.device, b.device, op, type, nd);
            } else {
                BOTH(binary, AT(out, 0), AT(a, 0), AT(b, 0), op, type, nd);
                same("binary", &out, floating ? 2 * roundings[d] : 0);
            }
            for (int which = 0; floating && which < 2 && op >= AM_B_MUL && op <= AM_B_POW;
                 which++) {
                BOTH(binary_bwd, AT(out, 0), AT(dout, 0), AT(a, 0), AT(b, 0), op, which, type, nd);
                same("binary_bwd", &out, 2 * roundings[d]);
            }
            release(&out);
            release(&a);
            release(&b);
            release(&dout);
        }
    REFUSED(binary, .op = -1, .dtype = AM_F32, .nd = nd);
    REFUSED(binary, .op = AM_B_COUNT, .dtype = AM_F32, .nd = nd);
    REFUSED(binary_bwd, .op = AM_B_SUB, .dtype = AM_F32, .nd = nd);
    REFUSED(binary_bwd, .op = AM_B_POW + 1, .dtype = AM_F32, .nd = nd);
}
END_TEST

/* What C doesn't define saturates. */
START_TEST(whole_numbers)
{
    static const double from[] = {0x1p63,  -0x1p63,  0x1p62, -0x1p62, 9223372036854774784.0,
                                  0x1p100, -0x1p100, NAN};
    static const int64_t to[] = {INT64_MAX,           INT64_MIN, 1ll << 62, -(1ll << 62),
                                 9223372036854774784, INT64_MAX, INT64_MIN, 0};
    enum { DEVICE = 1, N = sizeof to / sizeof *to };
    static const int types[] = {AM_F64, AM_F32};
    for (int k = 0; k < 2; k++) {
        buffer a = buffer_new(types[k], N, 0), out = buffer_new(AM_I64, N, 0);
        for (int i = 0; i < N; i++) {
            elem_set(a.host, types[k], i, k && i == 4 ? 0x1p62 : from[i]); /* no float is so near */
            ((int64_t *)out.host)[i] = k && i == 4 ? 1ll << 62 : to[i];
        }
        send(&a);
        must(cuda->copy(
            cuda_stream,
            &(am_copy_args){AT(out, 0), AT(a, 0), AM_I64, types[k], 0, {1, {N}, {{1}, {1}}}}));
        same("to whole numbers", &out, 0);
        release(&a);
        release(&out);
    }
}
END_TEST

/* ---- walks ---------------------------------------------------------------------------------- */

/* Dims that are one in both operands, in one of them, and where another's stride would seem to fit.
 */
START_TEST(joined)
{
    static const am_nd walks[] = {
        {3, {4, 5, 6}, {{30, 6, 1}, {60, 12, 2}}},
        {4, {2, 3, 5, 7}, {{105, 35, 7, 1}, {120, 40, 1, 5}}},
        {3, {3, 4, 5}, {{20, 5, 1}, {5, 15, 1}}},
        {3, {3, 4, 5}, {{5, 15, 1}, {20, 5, 1}}},
        {5, {2, 1, 3, 1, 4}, {{12, 99, 4, 99, 1}, {24, 7, 8, 7, 2}}},
        {2, {3, 4}, {{32, 1}, {8, 2}}},
        {3, {2, 3, 4}, {{30, 1, 5}, {20, 4, 1}}},
        {2, {5, 1}, {{1, 3}, {1, 7}}},
        {2, {9, 11}, {{24, 2}, {1, 12}}}, /* a's columns lie dense, and out's rows do not */
        {2, {9, 11}, {{11, 1}, {2, 20}}},
        {2, {9, 11}, {{1, 10}, {1, 12}}},
        {2, {9, 30}, {{30, 1}, {1, 9}}},
        {2, {35, 8}, {{8, 1}, {1, 35}}},
        {2, {8, 37}, {{37, 1}, {1, 8}}},
        {2, {8, 16}, {{40, 2}, {1, 0}}}, /* as if out's last stride were a's first */
        {1, {64}, {{1}, {0}}},
    };
    for (size_t k = 0; k < sizeof walks / sizeof *walks; k++)
        for (int accumulate = 0; accumulate < 2; accumulate++) {
            buffer out = buffer_new(AM_F32, 400, 5), a = buffer_new(AM_F32, 400, 5);
            send(&out);
            send(&a);
            BOTH(copy, AT(out, 0), AT(a, 0), AM_F32, AM_F32, accumulate, walks[k]);
            same("joined", &out, 0);
            release(&out);
            release(&a);
        }
}
END_TEST

/* Of three operands each in turn lies off 16 bytes, or has rows that do. */
START_TEST(shifted)
{
    const int64_t n = 240;
    for (int d = 0; d < DTYPES; d++)
        for (int which = 0; which < 4; which++) {
            int type = dtypes[d];
            buffer out = buffer_new(type, n + 1, 0), a = buffer_new(type, n + 1, 5);
            buffer b = buffer_new(type, n + 1, 5);
            send(&out);
            send(&a);
            send(&b);
            am_nd nd = {1, {n}, {{1}, {1}, {1}}};
            BOTH(where, AT(out, which == 1), AT(b, 0), AT(a, which == 2), AT(b, which == 3), type,
                 {1, {n / 8}, {{1}, {1}, {1}, {1}}});
            same("where", &out, 0);
            if (type != AM_BOOL) {
                BOTH(binary, AT(out, which == 1), AT(a, which == 2), AT(b, which == 3), AM_B_ADD,
                     type, nd);
                same("binary", &out, d < FLOATS ? roundings[d] : 0);
                BOTH(unary, AT(out, which == 1), AT(a, which == 2), AM_U_NEG, type, 0, 0, nd);
                same("unary", &out, 0);
            }
            release(&out);
            release(&a);
            release(&b);
        }
    buffer out = buffer_new(AM_F32, n, 0), a = buffer_new(AM_F32, 800, 5);
    buffer b = buffer_new(AM_F32, 1, 5);
    send(&out);
    send(&a);
    send(&b);
    BOTH(binary, AT(out, 0), AT(a, 0), AT(b, 0), AM_B_ADD, AM_F32,
         {4, {2, 3, 5, 8}, {{120, 40, 8, 1}, {400, 100, 10, 1}, {0}}});
    same("rows of ten", &out, roundings[0]);
    release(&out);
    release(&a);
    release(&b);
}
END_TEST

/* ---- what is refused, and what is nothing --------------------------------------------------- */

START_TEST(refused)
{
    for (int act = -1; act <= AM_ACT_COUNT; act += AM_ACT_COUNT + 1) {
        REFUSED(glu, .act = act, .dtype = AM_F32);
        REFUSED(glu_bwd, .act = act, .dtype = AM_F32);
    }
    REFUSED(reduce, .op = -1, .dtype = AM_F32, .dtype_out = AM_F32);
    REFUSED(reduce, .op = AM_R_COUNT, .dtype = AM_F32, .dtype_out = AM_F32);
    REFUSED(reduce, .op = AM_R_LOGSUMEXP, .dtype = AM_I64, .dtype_out = AM_I64);
    REFUSED(reduce, .op = AM_R_PROD, .dtype = AM_F32, .dtype_out = AM_I64);
    REFUSED(reduce_bwd, .op = -1, .dtype = AM_F32);
    REFUSED(reduce_bwd, .op = AM_R_PROD + 1, .dtype = AM_F32);
    /* of so many rows that there is no memory for them */
    am_argsort_args longest = {.dtype = AM_F32, .outer = 1000, .n = INT32_MAX, .inner = 1};
    ck_assert_int_eq(cuda->argsort(cuda_stream, &longest), AM_ENOMEM);
    longest.n++;
    ck_assert_int_eq(cuda->argsort(cuda_stream, &longest), AM_EUNSUP);
}
END_TEST

START_TEST(nothing)
{
    buffer offsets = buffer_new(AM_I32, 3, 0);
    send(&offsets);
    for (int k = 0; k < 4; k++)
        must(
            cuda->grouped_gemm_dw(cuda_stream, &(am_grouped_gemm_dw_args){.dw = offsets.device,
                                                                          .offsets = offsets.device,
                                                                          .turned = k & 1,
                                                                          .groups = 2,
                                                                          .n = k < 2 ? 0 : 5,
                                                                          .k = k < 2 ? 5 : 0}));
    must(cuda->stream_sync(cuda_stream));
    release(&offsets);
}
END_TEST

/* ---- indices -------------------------------------------------------------------------------- */

/* Where elements come one by one, too, a sum is rounded once; an index too large is reported. */
START_TEST(elements)
{
    enum { DEVICE = 1, M = 300 };
    buffer da = buffer_new(AM_BF16, 2, 0), dout = buffer_new(AM_BF16, M, 0);
    buffer index = buffer_new(AM_I64, M, 0);
    elem_set(da.host, AM_BF16, 0, 256);
    for (int i = 0; i < M; i++)
        elem_set(dout.host, AM_BF16, i, 1);
    send(&da);
    send(&dout);
    send(&index);
    must(cuda->gather_bwd(cuda_stream,
                          &(am_gather_bwd_args){AT(da, 0), AT(dout, 0), AT(index, 0), AM_BF16,
                                                AM_BF16, AM_I64, 1, 0, 1, 2, 1, M, 0}));
    elem_set(da.host, AM_BF16, 0, 556);
    same("a column", &da, 0);
    ((int64_t *)index.host)[5] = 2;
    send(&index);
    must(cuda->gather_bwd(cuda_stream,
                          &(am_gather_bwd_args){AT(da, 0), AT(dout, 0), AT(index, 0), AM_BF16,
                                                AM_BF16, AM_I64, 1, 0, 1, 2, 2, M / 2, 0}));
    ck_assert_int_eq(cuda->stream_sync(cuda_stream), AM_EINVAL);
    ck_assert_msg(strstr(am_error_message(), "gather_bwd: index 2 is outside of 0..1") != NULL,
                  "%s", am_error_message());
    release(&da);
    release(&dout);
    release(&index);
}
END_TEST

/* ---- random numbers ------------------------------------------------------------------------- */

/* Any number of them; an element whose number is the probability itself is kept. */
START_TEST(randoms)
{
    for (int64_t n = 1; n < 1100; n = n < 9 ? n + 1 : n * 2) {
        buffer out = buffer_new(AM_F32, n, 0), a = buffer_new(AM_F32, n, 3);
        send(&out);
        send(&a);
        BOTH(random, AT(out, 0), AM_RANDOM_UNIFORM, AM_F32, 0, 1, 17, 3, n);
        same("uniform", &out, 0);
        for (uint64_t i = 0; i < 4; i++) {
            double p = (double)am_philox_u32(17, 3, i) * 0x1p-32;
            BOTH(dropout, AT(out, 0), AT(a, 0), AM_F32, p, 17, 3, n, 0);
            same("dropout", &out, roundings[0]);
        }
        release(&out);
        release(&a);
    }
}
END_TEST

int main(void)
{
    const cuda_test tests[] = {
        {"unary", unary, 0, 1},
        {"binary", binary, 0, 1},
        {"whole_numbers", whole_numbers, 0, 1},
        {"joined", joined, 0, 1},
        {"shifted", shifted, 0, 1},
        {"refused", refused, 0, 1},
        {"nothing", nothing, 0, 1},
        {"elements", elements, 0, 1},
        {"randoms", randoms, 0, 1},
    };
    return run_on_cuda("cuda edges", tests, sizeof tests / sizeof *tests);
}
