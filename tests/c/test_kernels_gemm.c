/* Matrix products of the cpu backend against ref: transposes, leading dimensions, bias, alpha,
 * accumulation, batches, every dtype, and rows that must not depend on m. oneDNN takes one ceiling
 * for its instruction set in a process, so each test runs once for each AMLUA_ISA (a forked child
 * of Check's, before the backend is first used). */
#include "test_kernels.h"

static const char *const isa_env[] = {"generic", "avx2", "avx512", "avx512_bf16", "amx"};
enum { AMX = 4 };

static const am_backend *backend_under(int isa)
{
    setenv("AMLUA_ISA", isa_env[isa], 1);
    return am_backend_cpu();
}

typedef struct problem {
    am_gemm_args g;
    int64_t count_a, count_b, count_c;
} problem;

static problem make(int64_t m, int64_t n, int64_t k, int trans_a, int trans_b, int dtype, int to,
                    int64_t batch, int gap)
{
    problem p = {.g = {.dtype_ab = dtype,
                       .dtype_c = to,
                       .trans_a = trans_a,
                       .trans_b = trans_b,
                       .alpha = 1,
                       .m = m,
                       .n = n,
                       .k = k,
                       .batch = batch}};
    am_gemm_args *g = &p.g;
    g->lda = (trans_a ? m : k) + gap;
    g->ldb = (trans_b ? k : n) + gap;
    g->ldc = n + gap;
    g->stride_a = (trans_a ? k : m) * g->lda;
    g->stride_b = (trans_b ? n : k) * g->ldb;
    g->stride_c = m * g->ldc;
    p.count_a = batch * g->stride_a;
    p.count_b = batch * g->stride_b;
    p.count_c = batch * g->stride_c;
    g->a = random_elems(dtype, p.count_a, -1, 1);
    g->b = random_elems(dtype, p.count_b, -1, 1);
    g->c = random_elems(to, p.count_c, -1, 1);
    return p;
}

static void add_low_rank(problem *p, int64_t r)
{
    p->g.r = r;
    p->g.u = random_elems(p->g.dtype_ab, p->g.m * r, -1, 1);
    p->g.v = random_elems(p->g.dtype_ab, p->g.n * r, -1, 1);
}

static void discard(problem *p)
{
    free((void *)(uintptr_t)p->g.a);
    free((void *)(uintptr_t)p->g.b);
    free((void *)(uintptr_t)p->g.bias);
    free((void *)(uintptr_t)p->g.u);
    free((void *)(uintptr_t)p->g.v);
    free(p->g.c);
}

/* Sums of k products of numbers up to 1, in f32: their error is some roundings of sqrt(k), of
 * partial sums that reach sqrt(k) where k is long and one chain (k 2^-24 in all), then one rounding
 * to c's dtype; with u v one more before, of a number that may be larger. What lies between the
 * rows of c must stay. */
static void compare(const am_backend *cpu, problem *p, const char *what)
{
    int to = p->g.dtype_c;
    void *want = copy_elems(to, p->count_c, p->g.c);
    am_gemm_args ref = p->g;
    ref.c = want;
    ck_assert_int_eq(am_backend_ref.gemm(NULL, &ref), AM_OK);
    int rc = cpu->gemm(NULL, &p->g);
    ck_assert_msg(rc == AM_OK, "%s: %s", what, am_error_message());
    double root = sqrt((double)p->g.k + 1), error = 1e-13 * root;
    if (to != AM_F64)
        error = 4e-6 * root + 6e-8 * (double)p->g.k;
    if (p->g.u)
        error += ulp_of(to) * root;
    check_close(what, p->g.c, want, to, p->count_c, ulp_of(to), error + ulp_of(to) * 1e-3);
    free(want);
}

START_TEST(agrees_with_ref)
{
    const am_backend *cpu = backend_under(_i);
    static const int64_t shapes[][3] = {{1, 1, 1},    {1, 16, 64},    {2, 3, 5},    {7, 13, 31},
                                        {8, 8, 8},    {37, 1, 9},     {64, 64, 64}, {127, 65, 33},
                                        {3, 600, 2},  {130, 97, 300}, {5, 17, 1},   {241, 520, 40},
                                        {2, 8, 16384}};
    static const int types[][2] = {{AM_F32, AM_F32}, {AM_BF16, AM_BF16}, {AM_BF16, AM_F32},
                                   {AM_F16, AM_F16}, {AM_F16, AM_F32},   {AM_F64, AM_F64}};
    enum { SHAPES = sizeof shapes / sizeof *shapes, TYPES = sizeof types / sizeof *types };
    for (int c = 0; c < SHAPES * TYPES * 4; c++) {
        const int64_t *s = shapes[c % SHAPES];
        const int *type = types[c / SHAPES % TYPES];
        int mode = c / SHAPES / TYPES;
        problem p = make(s[0], s[1], s[2], mode & 1, mode >> 1, type[0], type[1], 1, c % 3);
        char what[96];
        snprintf(what, sizeof what, "%s %lldx%lldx%lld %s trans %d", isa_env[_i], (long long)s[0],
                 (long long)s[1], (long long)s[2], am_dtype_name(type[0]), mode);
        /* the large ones take a second each under sanitizers: either plain or with all that is
         * added */
        int large = s[0] * s[1] * s[2] > 1000 * 1000;
        if (!large || mode < 2)
            compare(cpu, &p, what);
        p.g.bias = random_elems(type[0], s[1], -1, 1);
        p.g.accumulate = 1;
        if (!large)
            compare(cpu, &p, what);
        p.g.alpha = -0.37; /* must scale neither bias nor c */
        if (!large || mode >= 2)
            compare(cpu, &p, what);
        discard(&p);
    }
}
END_TEST

START_TEST(with_low_rank)
{
    const am_backend *cpu = backend_under(_i);
    static const int64_t shapes[][4] = {{1, 1, 1, 1},
                                        {7, 13, 31, 3},
                                        {37, 65, 9, 40},
                                        {260, 24, 16, 8},
                                        {30, 530, 20, 16},
                                        /* through f32: several tiles, several parts of k */
                                        {1030, 8, 5, 3},
                                        {3, 2100, 5, 3},
                                        {1, 520, 4100, 8}};
    static const int types[][2] = {{AM_F32, AM_F32},
                                   {AM_BF16, AM_BF16},
                                   {AM_BF16, AM_F32},
                                   {AM_F16, AM_F16},
                                   {AM_F64, AM_F64}};
    enum { SHAPES = sizeof shapes / sizeof *shapes, TYPES = sizeof types / sizeof *types };
    for (int c = 0; c < SHAPES * TYPES * 2; c++) {
        const int64_t *s = shapes[c % SHAPES];
        const int *type = types[c / SHAPES % TYPES];
        int trans_b = c / SHAPES / TYPES;
        if ((c % SHAPES == 5 || c % SHAPES == 6) && type[0] == AM_BF16 && _i >= 3)
            continue; /* multiplied as bf16, and slow to make */
        problem p = make(s[0], s[1], s[2], 0, trans_b, type[0], type[1], 1, c % 3);
        char what[96];
        snprintf(what, sizeof what, "%s %lldx%lldx%lld + %lld %s trans %d", isa_env[_i],
                 (long long)s[0], (long long)s[1], (long long)s[2], (long long)s[3],
                 am_dtype_name(type[0]), trans_b);
        add_low_rank(&p, s[3]);
        compare(cpu, &p, what);
        p.g.bias = random_elems(type[0], s[1], -1, 1);
        p.g.accumulate = 1;
        p.g.alpha = -0.37;
        compare(cpu, &p, what);
        discard(&p);
    }
    problem p = make(3, 4, 5, 0, 0, AM_F32, AM_F32, 2, 0);
    add_low_rank(&p, 2);
    ck_assert_int_eq(cpu->gemm(NULL, &p.g), AM_EUNSUP);
    discard(&p);
    for (int c = 0; c < TYPES * 4; c++) { /* a turned, u not */
        const int *type = types[c / 4];
        p = make(7, 9, 5, 1, c & 1, type[0], type[1], 1, 0);
        add_low_rank(&p, 3);
        p.g.alpha = c & 2 ? 2 : 1;
        compare(cpu, &p, "low rank beside a turned a");
        discard(&p);
    }
}
END_TEST

/* Several tasks down and across, several parts of k, a rank of more than a tile. */
START_TEST(tasks_of_tiles)
{
    const am_backend *cpu = backend_under(AMX);
    for (int to = 0; to < 2; to++) {
        problem p = make(600, 400, 3200, 0, to, AM_BF16, to ? AM_F32 : AM_BF16, 1, 3);
        add_low_rank(&p, 40);
        p.g.bias = random_elems(AM_BF16, 400, -1, 1);
        p.g.accumulate = 1;
        compare(cpu, &p, "tasks of tiles");
        discard(&p);
    }
}
END_TEST

START_TEST(batches)
{
    const am_backend *cpu = backend_under(_i);
    for (int c = 0; c < 3 * 4; c++) {
        int dtype = half_dtypes[c % 3], mode = c / 3;
        problem p = make(9, 20, 33, 0, mode & 1, dtype, AM_F32, 5, 1);
        p.g.bias = random_elems(dtype, 20, -1, 1);
        p.g.accumulate = mode & 1;
        compare(cpu, &p, "batch");
        p.g.stride_a = 0; /* a repeated */
        compare(cpu, &p, "batch, one a");
        p.g.stride_b = 0;
        compare(cpu, &p, "batch, one a and b");
        p.g.stride_a = 9 * p.g.lda;
        p.g.stride_c = 0; /* all items add to one c */
        p.g.accumulate = 1;
        p.g.bias = (free((void *)(uintptr_t)p.g.bias), NULL);
        compare(cpu, &p, "batch, one c");
        discard(&p);
    }
}
END_TEST

START_TEST(empty_and_unsupported)
{
    const am_backend *cpu = backend_under(_i);
    problem p = make(3, 4, 5, 0, 0, AM_F32, AM_F32, 1, 0);
    void *before = copy_elems(AM_F32, p.count_c, p.g.c);
    p.g.m = 0;
    ck_assert_int_eq(cpu->gemm(NULL, &p.g), AM_OK);
    check_same_bits("m 0", p.g.c, before, (size_t)p.count_c * 4);
    p.g.m = 3;
    p.g.k = 0;
    p.g.accumulate = 1;
    ck_assert_int_eq(cpu->gemm(NULL, &p.g), AM_OK);
    check_same_bits("k 0, accumulate", p.g.c, before, (size_t)p.count_c * 4);
    p.g.k = 5;
    p.g.dtype_c = AM_BF16;
    ck_assert_int_eq(cpu->gemm(NULL, &p.g), AM_EUNSUP);
    p.g.dtype_ab = p.g.dtype_c = AM_I32;
    ck_assert_int_eq(cpu->gemm(NULL, &p.g), AM_EUNSUP);
    p.g.dtype_ab = p.g.dtype_c = AM_F32;
    free(before);
    discard(&p);
}
END_TEST

/* Rows of an m x k product, computed alone, in parts and from the middle: the same bits. */
static void rows_case(const am_backend *cpu, int64_t n, int64_t k, int trans_b, int dtype, int to,
                      int64_t m)
{
    static const int64_t parts[] = {1, 2, 7, 8, 23, 31, 120, 121, 512, 1021};
    enum { RANK = 8 };
    problem p = make(m, n, k, 0, trans_b, dtype, to, 1, 0);
    size_t size = elem_size(dtype), size_c = elem_size(to);
    add_low_rank(&p, RANK);
    ck_assert_int_eq(cpu->gemm(NULL, &p.g), AM_OK);
    void *part = elems(to, m * n);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        for (int64_t first = 0; first <= 37; first += 37) {
            if (first + parts[i] > m)
                continue;
            am_gemm_args g = p.g;
            g.m = parts[i];
            g.a = (const char *)p.g.a + (size_t)(first * k) * size;
            g.u = (const char *)p.g.u + (size_t)(first * RANK) * size;
            g.c = part;
            ck_assert_int_eq(cpu->gemm(NULL, &g), AM_OK);
            char what[96];
            snprintf(what, sizeof what, "n %lld k %lld: %lld rows from %lld", (long long)n,
                     (long long)k, (long long)parts[i], (long long)first);
            check_same_bits(what, part, (const char *)p.g.c + (size_t)(first * n) * size_c,
                            (size_t)(parts[i] * n) * size_c);
        }
    }
    free(part);
    discard(&p);
}

START_TEST(rows_do_not_depend_on_m)
{
    const am_backend *cpu = backend_under(_i);
    for (int threads = 1; threads <= 2; threads++) {
        am_threads_set(threads);
        rows_case(cpu, 192, 192, 1, AM_F32, AM_F32, 2048);
        rows_case(cpu, 192, 576, 0, AM_F32, AM_F32, 700);
        rows_case(cpu, 7, 13, 1, AM_F32, AM_F32, 1100);
        rows_case(cpu, 1, 64, 1, AM_F32, AM_F32, 600);
        rows_case(cpu, 2050, 96, 1, AM_F32, AM_F32, 400);
        rows_case(cpu, 576, 1536, 1, AM_F32, AM_F32, 300);
        rows_case(cpu, 64, 20000, 0, AM_F32, AM_F32, 130);
        rows_case(cpu, 192, 192, 1, AM_BF16, AM_BF16, 600);
        rows_case(cpu, 8, 4200, 0, AM_BF16, AM_F32, 1030); /* through f32 in parts of k */
        /* where larger blocks would cut k by m */
        rows_case(cpu, 192, 1032, 1, AM_F32, AM_F32, 500);
        if (_i >= 3) { /* where oneDNN's AMX cuts k by m, which shows where nothing is rounded */
            rows_case(cpu, 65, 37, 0, AM_BF16, AM_F32, 300);
            rows_case(cpu, 576, 1536, 1, AM_BF16, AM_F32, 1100);
            rows_case(cpu, 576, 3072, 0, AM_BF16, AM_F32, 300);
            rows_case(cpu, 64, 20000, 0, AM_BF16, AM_F32, 130);
            rows_case(cpu, 40, 24576, 0, AM_BF16, AM_F32, 600); /* k in three parts */
        }
    }
}
END_TEST

/* bf16 as oneDNN multiplies it itself: emulated where AVX-512 has no bf16, but the same code here.
 */
START_TEST(native_bf16)
{
    const am_backend *cpu = am_backend_cpu();
    if (!isa_kernels(2))
        return;
    am_cpu_gemm_init(AM_ISA_AVX512_BF16, isa_kernels(2));
    for (int c = 0; c < 2 * 4; c++) {
        problem p = make(37, 65, 130, c >> 1 & 1, c >> 2, AM_BF16, c & 1 ? AM_F32 : AM_BF16, 1, 2);
        compare(cpu, &p, "native bf16");
        p.g.bias = random_elems(AM_BF16, 65, -1, 1);
        p.g.accumulate = 1;
        p.g.alpha = 0.5;
        compare(cpu, &p, "native bf16 with bias, alpha and sum");
        discard(&p);
    }
    problem p = make(9, 20, 34, 0, 1, AM_BF16, AM_F32, 5, 0);
    compare(cpu, &p, "native bf16 batch");
    discard(&p);
}
END_TEST

/* Rows of c that lie apart, as those of a part of its columns do, change no bit; 2100 of them are
 * more than are copied at once. */
START_TEST(gaps_change_no_bit)
{
    const am_backend *cpu = backend_under(_i);
    for (int c = 0; c < 2 * 2 * 2; c++) {
        int to = c & 1 ? AM_F32 : AM_BF16;
        problem p = make(2100, 2100, 24, 0, c >> 1 & 1, AM_BF16, to, 1, 0);
        am_gemm_args apart = p.g;
        apart.accumulate = p.g.accumulate = c >> 2;
        apart.ldc += 7;
        size_t row = (size_t)p.g.n * elem_size(to), next = (size_t)apart.ldc * elem_size(to);
        char *spread = random_elems(to, apart.m * apart.ldc, -1, 1), *dense = p.g.c;
        for (size_t i = 0; i < (size_t)apart.m; i++)
            memcpy(spread + i * next, dense + i * row, row);
        apart.c = spread;
        ck_assert_int_eq(cpu->gemm(NULL, &p.g), AM_OK);
        ck_assert_int_eq(cpu->gemm(NULL, &apart), AM_OK);
        for (size_t i = 0; i < (size_t)apart.m; i++)
            ck_assert_msg(!memcmp(spread + i * next, dense + i * row, row), "%s: row %zu, case %d",
                          isa_env[_i], i, c);
        free(spread);
        discard(&p);
    }
}
END_TEST

/* More shapes than the table of primitives holds, twice. */
START_TEST(many_shapes)
{
    const am_backend *cpu = backend_under(_i);
    for (int round = 0; round < 2; round++)
        for (int64_t n = 1; n <= 600; n++) {
            problem p = make(2, n, 3, 0, 1, AM_F32, AM_F32, 1, 0);
            compare(cpu, &p, "many shapes");
            discard(&p);
        }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("kernels_gemm");
    TCase *tcase = tcase_create("gemm");
    const TTest *const tests[] = {agrees_with_ref,        with_low_rank,      batches,
                                  empty_and_unsupported,  gaps_change_no_bit, many_shapes,
                                  rows_do_not_depend_on_m};
    tcase_set_timeout(tcase, 900);
    int best = 0;
    while (strcmp(isa_env[best], am_backend_cpu_isa_available()) != 0)
        best++;
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        tcase_add_loop_test(tcase, tests[i], 0, best + 1);
    tcase_add_test(tcase, native_bf16);
    if (best == AMX)
        tcase_add_test(tcase, tasks_of_tiles);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_FORK); /* a process for each instruction set */
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
