/* The fence: host accesses fault, results are ref's bit for bit, errors come late and once, memory
 * is handed out and taken back without overlap. */
#include <signal.h>
#include "test_kernels.h"

static const am_backend *fence = &am_backend_fence;
static am_stream *stream;

static void setup(void)
{
    const char *why = NULL;
    ck_assert_msg(fence->probe(&why) == 1, "%s", why);
    ck_assert_int_eq(fence->stream_new(&stream), AM_OK);
}

static void teardown(void)
{
    fence->stream_release(stream);
}

static void *device(const void *from, size_t bytes)
{
    void *p;
    ck_assert_int_eq(fence->alloc(&p, bytes), AM_OK);
    if (from)
        ck_assert_int_eq(fence->transfer(stream, p, from, bytes, AM_COPY_TO_DEVICE), AM_OK);
    return p;
}

static am_nd flat(int64_t n)
{
    return (am_nd){.ndim = 1, .shape = {n}, .stride = {{1}, {1}, {1}, {1}}};
}

START_TEST(host_read_faults) /* expects SIGSEGV */
{
    volatile float *p = device(NULL, 4096);
    signal(SIGSEGV, SIG_DFL); /* not a sanitizer's */
    float x = p[3];
    (void)x;
}
END_TEST

START_TEST(host_write_faults) /* expects SIGSEGV */
{
    volatile float *p = device(NULL, 4096);
    signal(SIGSEGV, SIG_DFL); /* not a sanitizer's */
    p[0] = 1;
}
END_TEST

START_TEST(results_are_refs)
{
    enum { M = 13, N = 21, K = 34 };
    float *a = random_elems(AM_F32, M * K, -1, 1), *b = random_elems(AM_F32, N * K, -1, 1);
    float want[M * N], got[M * N], x[M * N];
    void *da = device(a, M * K * 4), *db = device(b, N * K * 4), *dc = device(NULL, sizeof got);
    am_gemm_args g = {.c = want,
                      .a = a,
                      .b = b,
                      .dtype_ab = AM_F32,
                      .dtype_c = AM_F32,
                      .trans_b = 1,
                      .alpha = 0.5,
                      .m = M,
                      .n = N,
                      .k = K,
                      .lda = K,
                      .ldb = K,
                      .ldc = N,
                      .batch = 1};
    ck_assert_int_eq(am_backend_ref.gemm(NULL, &g), AM_OK);
    am_unary_args u = {x, want, AM_U_TANH, AM_F32, 0, 0, flat(M * N)};
    ck_assert_int_eq(am_backend_ref.unary(NULL, &u), AM_OK);
    g.c = dc;
    g.a = da;
    g.b = db;
    ck_assert_int_eq(fence->gemm(stream, &g), AM_OK);
    u.out = dc;
    u.a = dc;
    ck_assert_int_eq(fence->unary(stream, &u), AM_OK);
    memset(&g, 0xff, sizeof g); /* arguments were copied */
    memset(&u, 0xff, sizeof u);
    ck_assert_int_eq(fence->transfer(stream, got, dc, sizeof got, AM_COPY_TO_HOST), AM_OK);
    check_same_bits("fence", got, x, sizeof x);
    free(a);
    free(b);
}
END_TEST

/* Far more commands than the ring holds, in order. */
START_TEST(long_queue)
{
    float x = 0;
    void *p = device(&x, sizeof x);
    am_unary_args u = {p, p, AM_U_ADD_SCALAR, AM_F32, 1, 0, flat(1)};
    for (int i = 0; i < 5000; i++)
        ck_assert_int_eq(fence->unary(stream, &u), AM_OK);
    ck_assert_int_eq(fence->transfer(stream, &x, p, sizeof x, AM_COPY_TO_HOST), AM_OK);
    ck_assert(x == 5000);
}
END_TEST

START_TEST(errors_come_late_and_once)
{
    float row[4] = {1, 2, 3, 4}, out[4];
    int32_t bad = 9;
    void *a = device(row, sizeof row), *index = device(&bad, sizeof bad);
    void *to = device(NULL, sizeof out);
    am_gather_args g = {.out = to,
                        .a = a,
                        .index = index,
                        .dtype = AM_F32,
                        .dtype_index = AM_I32,
                        .outer = 1,
                        .n = 4,
                        .inner = 1,
                        .m = 1};
    ck_assert_int_eq(fence->gather(stream, &g), AM_OK); /* only queued */
    am_fill_args fill = {to, 7, AM_F32, flat(4)};
    ck_assert_int_eq(fence->fill(stream, &fill), AM_OK);
    ck_assert_int_eq(fence->stream_sync(stream), AM_EINVAL);
    ck_assert_str_eq(am_error_message(), "gather: index 9 is outside 0..3");
    ck_assert_int_eq(fence->stream_sync(stream), AM_OK);
    ck_assert_int_eq(fence->gather(stream, &g), AM_OK);
    ck_assert_int_eq(fence->transfer(stream, out, to, sizeof out, AM_COPY_TO_HOST), AM_EINVAL);
    ck_assert_int_eq(fence->transfer(stream, out, to, sizeof out, AM_COPY_TO_HOST), AM_OK);
    fill.dtype = AM_I32;
    am_unary_args u = {to, to, AM_U_EXP, AM_I64, 0, 0, flat(1)};
    ck_assert_int_eq(fence->unary(stream, &u), AM_OK);
    ck_assert_int_eq(fence->stream_sync(stream), AM_EUNSUP);
    ck_assert_ptr_nonnull(strstr(am_error_message(), "unary"));
}
END_TEST

START_TEST(host_pointers_are_refused)
{
    float x[4] = {0};
    void *p = device(NULL, sizeof x);
    am_unary_args u = {p, x, AM_U_NEG, AM_F32, 0, 0, flat(4)};
    ck_assert_int_eq(fence->unary(stream, &u), AM_EINVAL);
    ck_assert_ptr_nonnull(strstr(am_error_message(), "pointer 1 of unary"));
    ck_assert_int_eq(fence->unary(NULL, &u), AM_EINVAL);
    ck_assert_int_eq(fence->transfer(stream, x, x, 4, AM_COPY_TO_DEVICE), AM_EINVAL);
    ck_assert_int_eq(fence->transfer(stream, p, x, (size_t)1 << 40, AM_COPY_TO_DEVICE), AM_EINVAL);
}
END_TEST

START_TEST(memory)
{
    enum { COUNT = 64 };
    void *p[COUNT];
    unsigned char in[1000], out[1000];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < COUNT; i++) {
            p[i] = device(NULL, (size_t)(1 + i * 15));
            ck_assert_uint_eq((uintptr_t)p[i] % 64, 0);
            memset(in, i, sizeof in);
            ck_assert_int_eq(
                fence->transfer(stream, p[i], in, (size_t)(1 + i * 15), AM_COPY_TO_DEVICE), AM_OK);
        }
        for (int i = 0; i < COUNT; i++) { /* no block overlaps another */
            ck_assert_int_eq(
                fence->transfer(stream, out, p[i], (size_t)(1 + i * 15), AM_COPY_TO_HOST), AM_OK);
            for (int j = 0; j < 1 + i * 15; j++)
                ck_assert_int_eq(out[j], i);
        }
        for (int i = 0; i < COUNT; i++)
            fence->release(p[i * 27 % COUNT], (size_t)(1 + i * 27 % COUNT * 15));
    }
    void *big = NULL;
    ck_assert_int_eq(fence->alloc(&big, (size_t)1 << 50), AM_ENOMEM);
    ck_assert_ptr_null(big);
    am_stream *more[16];
    int made = 0;
    while (made < 16 && fence->stream_new(&more[made]) == AM_OK)
        made++;
    ck_assert(made > 0 && made < 16);
    while (made-- > 0)
        fence->stream_release(more[made]);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("kernels_fence");
    TCase *tcase = tcase_create("fence");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test_raise_signal(tcase, host_read_faults, SIGSEGV);
    tcase_add_test_raise_signal(tcase, host_write_faults, SIGSEGV);
    tcase_add_test(tcase, results_are_refs);
    tcase_add_test(tcase, long_queue);
    tcase_add_test(tcase, errors_come_late_and_once);
    tcase_add_test(tcase, host_pointers_are_refused);
    tcase_add_test(tcase, memory);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_FORK); /* faults end a process */
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
