/* Products in 8 bits on each instruction set: casts are ref's bit for bit, and ref's are the
 * nearest numbers by a search through all of them; products agree with ref; rows don't depend on
 * how many there are, and no bit on the number of threads. */
#include "test_kernels.h"

/* A number of a format by its definition. */
static double value_of(int q, int format)
{
    int mantissa = format == AM_FP8_E5M2 ? 2 : 3, bias = format == AM_FP8_E5M2 ? 15 : 7;
    int exponent = q >> mantissa, rest = q & ((1 << mantissa) - 1);
    return exponent == 0 ? ldexp(rest, 1 - bias - mantissa)
                         : ldexp(rest + (1 << mantissa), exponent - bias - mantissa);
}

static const int tops[] = {0x7e, 0x7b}; /* of e4m3 and e5m2 */

/* The code of |x|, by search: the nearest, of two the even one. */
static int nearest(double x, int format)
{
    int best = 0;
    for (int q = 1; q <= tops[format]; q++) {
        double before = fabs(value_of(best, format) - x), now = fabs(value_of(q, format) - x);
        if (now < before || (now == before && q % 2 == 0))
            best = q;
    }
    return best;
}

static int quantize(int isa, const am_fp8_quantize_args *args)
{
    return isa < 0 ? am_backend_ref.fp8_quantize(NULL, args)
                   : isa_kernels(isa)->fp8_quantize(NULL, args);
}

/* Every number, every middle of two and what lies beside it, and some beyond the ends, by scale 1:
 * the largest number is among them. */
START_TEST(nearest_numbers)
{
    int format = _i;
    enum { MOST = 2000 };
    float x[MOST], scale;
    uint8_t q[MOST];
    int n = 0;
    for (int i = 0; i < tops[format]; i++) {
        float low = (float)value_of(i, format), high = (float)value_of(i + 1, format);
        float middle = (low + high) / 2;
        const float some[] = {
            low, middle, nextafterf(middle, 0), nextafterf(middle, 1e9f), -high, -middle, -0.0f};
        for (size_t k = 0; k < sizeof some / sizeof *some; k++)
            x[n++] = some[k];
    }
    x[n++] = (float)value_of(tops[format], format);
    for (int isa = -1; isa < ISA_COUNT; isa++) {
        if (isa >= 0 && !isa_kernels(isa))
            continue;
        am_fp8_quantize_args args = {
            .q = q, .inverse = &scale, .a = x, .format = format, .rows = 1, .cols = n};
        ck_assert_int_eq(quantize(isa, &args), AM_OK);
        ck_assert_msg(scale == 1, "the scale is %g", (double)scale);
        for (int i = 0; i < n; i++) {
            int want = nearest(fabs((double)x[i]), format) | (signbit(x[i]) ? 0x80 : 0);
            ck_assert_msg(q[i] == want, "%g: code %d, expected %d", (double)x[i], q[i], want);
        }
    }
}
END_TEST

static int64_t scales_of(const am_fp8_quantize_args *a)
{
    return a->per == AM_FP8_PER_TENSOR ? 1 : a->per == AM_FP8_PER_ROW ? a->rows : a->cols;
}

static void compare_casts(int isa, am_fp8_quantize_args *args, const char *what)
{
    size_t n = (size_t)(args->rows * args->cols), scales = (size_t)scales_of(args);
    uint8_t *q = malloc(2 * n + 1);
    float *inverse = malloc((2 * scales + 1) * sizeof *inverse);
    args->q = q;
    args->inverse = inverse;
    ck_assert_int_eq(quantize(-1, args), AM_OK);
    args->q = q + n;
    args->inverse = inverse + scales;
    for (int threads = 1; threads <= 3; threads += 2) {
        memset(q + n, 0x55, n);
        am_threads_set(threads);
        ck_assert_int_eq(quantize(isa, args), AM_OK);
        check_same_bits(what, q + n, q, n);
        for (size_t i = 0; i < scales; i++)
            ck_assert_msg(
                inverse[i] == inverse[scales + i] ||
                    (inverse[i] != inverse[i] && inverse[scales + i] != inverse[scales + i]),
                "%s: scale %zu", what, i);
    }
    free(q);
    free(inverse);
}

START_TEST(casts_agree)
{
    static const int64_t sizes[][2] = {{1, 1},    {3, 16}, {7, 37}, {65, 130},
                                       {40, 257}, {0, 5},  {4, 0}};
    if (!isa_kernels(_i))
        return;
    enum { SIZES = sizeof sizes / sizeof *sizes };
    for (int c = 0; c < SIZES * 4 * 2 * 3 * 2; c++) {
        const int64_t *size = sizes[c % SIZES];
        am_fp8_quantize_args args = {.dtype = float_dtypes[c / SIZES % 4],
                                     .format = c / SIZES / 4 % 2,
                                     .per = c / SIZES / 8 % 3,
                                     .power_of_2 = c / SIZES / 24,
                                     .rows = size[0],
                                     .cols = size[1]};
        int64_t n = size[0] * size[1];
        char what[96];
        snprintf(what, sizeof what, "%s %s %lld x %lld, format %d, scale %d.%d", isa_label[_i],
                 am_dtype_name(args.dtype), (long long)size[0], (long long)size[1], args.format,
                 args.per, args.power_of_2);
        void *a = random_elems(args.dtype, n, -1, 1);
        for (int64_t i = 0; i < n; i++) /* of many sizes, and a row and a column of zeros */
            elem_set(a, args.dtype, i,
                     i / size[1] == 2 || i % size[1] == 3
                         ? 0
                         : elem_get(a, args.dtype, i) * exp2(random_in(-14, 6)));
        args.a = a;
        compare_casts(_i, &args, what);
        static const double odd[] = {INFINITY, -NAN, NAN};
        for (int i = 0; i < 3 && n > 0; i++) {
            elem_set(a, args.dtype, (n - 1) * i / 2, odd[i]);
            compare_casts(_i, &args, what);
        }
        free(a);
    }
}
END_TEST

/* A NaN or an infinity makes all NaN that shares its scale, and nothing else. */
START_TEST(not_finite)
{
    float x[] = {1, INFINITY, 2, 3}, inverse[2];
    uint8_t q[4];
    if (_i >= 0 && !isa_kernels(_i))
        return;
    am_fp8_quantize_args args = {
        .q = q, .inverse = inverse, .a = x, .per = AM_FP8_PER_ROW, .rows = 2, .cols = 2};
    ck_assert_int_eq(quantize(_i, &args), AM_OK);
    const float *one = (float[]){1};
    uint8_t unit[] = {0x38, 0, 0, 0x38}; /* ones on the diagonal */
    float c[4];
    am_fp8_gemm_args g = {.c = c,
                          .a = q,
                          .b = unit,
                          .inverse_a = inverse,
                          .inverse_b = one,
                          .rows_a = 1,
                          .m = 2,
                          .n = 2,
                          .k = 2};
    ck_assert_int_eq(am_backend_cpu()->fp8_gemm(NULL, &g), AM_OK);
    ck_assert(isnan(c[0]) && isnan(c[1]));
    ck_assert_msg(fabsf(c[2] - 2) < 0.15f && fabsf(c[3] - 3) < 0.15f, "%g %g", (double)c[2],
                  (double)c[3]);
}
END_TEST

/* ---- products ------------------------------------------------------------------------------- */

static uint8_t *random_codes(int64_t n, int format)
{
    uint8_t *q = malloc((size_t)n + 1);
    for (int64_t i = 0; i < n; i++)
        q[i] =
            (uint8_t)((int)random_in(0, tops[format] + 0.99) | (random_in(0, 1) < 0.5 ? 0x80 : 0));
    return q;
}

static am_fp8_gemm_args product(int64_t m, int64_t n, int64_t k, int flags)
{
    am_fp8_gemm_args g = {.format_a = flags & 1,
                          .format_b = flags >> 1 & 1,
                          .rows_a = flags >> 2 & 1,
                          .columns_b = flags >> 3 & 1,
                          .trans_a = flags >> 4 & 1,
                          .trans_b = flags >> 5 & 1,
                          .m = m,
                          .n = n,
                          .k = k};
    g.a = random_codes(m * k, g.format_a);
    g.b = random_codes(n * k, g.format_b);
    g.inverse_a = random_elems(AM_F32, m, 1e-3, 1e-1);
    g.inverse_b = random_elems(AM_F32, n, 1e-3, 1e-1);
    return g;
}

static void discard(am_fp8_gemm_args *g)
{
    free((void *)(uintptr_t)g->a);
    free((void *)(uintptr_t)g->b);
    free((void *)(uintptr_t)g->inverse_a);
    free((void *)(uintptr_t)g->inverse_b);
}

START_TEST(products_agree)
{
    static const int64_t sizes[][3] = {{1, 1, 1},   {3, 16, 32},  {37, 19, 70}, {70, 37, 48},
                                       {2, 150, 5}, {9, 33, 300}, {3, 5, 0},    {0, 4, 4}};
    enum { SIZES = sizeof sizes / sizeof *sizes };
    if (!isa_kernels(_i))
        return;
    (void)am_backend_cpu(); /* sets gemm up */
    for (int c = 0; c < SIZES * 16; c++) {
        const int64_t *s = sizes[c % SIZES];
        am_fp8_gemm_args g = product(s[0], s[1], s[2], c / SIZES * 13 % 64);
        /* Terms have up to 4 digits before their sums, whose largest is that of a format by itself.
         */
        double size = (g.format_a ? 57344.0 : 448) * (g.format_b ? 57344.0 : 448) * 1e-2;
        for (int d = 0; d < 8; d++) {
            int dtype = float_dtypes[d / 2];
            char what[96];
            snprintf(what, sizeof what, "%s %lld x %lld x %lld, flags %d, %s%s", isa_label[_i],
                     (long long)s[0], (long long)s[1], (long long)s[2], c / SIZES * 13 % 64,
                     am_dtype_name(dtype), d % 2 ? ", added" : "");
            if (dtype == AM_F16 && (g.format_a || g.format_b))
                continue; /* beyond its numbers */
            g.dtype_c = dtype;
            g.accumulate = d % 2;
            void *before = random_elems(dtype, s[0] * s[1], -1, 1);
            void *want = copy_elems(dtype, s[0] * s[1], before);
            g.c = want;
            ck_assert_int_eq(am_backend_ref.fp8_gemm(NULL, &g), AM_OK);
            g.c = before;
            ck_assert_int_eq(isa_kernels(_i)->fp8_gemm(NULL, &g), AM_OK);
            check_close(what, before, want, dtype, s[0] * s[1], ulp_of(dtype),
                        (dtype == AM_F64 ? 1e-15 : 2e-7) * size * sqrt((double)s[2] + 1));
            free(before);
            free(want);
        }
        discard(&g);
    }
}
END_TEST

/* Also where the sum is computed in several blocks of rows: 200 of them are more than fit at once.
 */
START_TEST(rows_and_threads)
{
    enum { M = 200, N = 60000, K = 16 };
    am_fp8_gemm_args g = product(M, N, K, 4 + 8 + 32);
    const am_backend *cpu = am_backend_cpu();
    float *whole = elems(AM_F32, (int64_t)M * N), *part = elems(AM_F32, (int64_t)M * N);
    am_threads_set(2);
    g.c = whole;
    ck_assert_int_eq(cpu->fp8_gemm(NULL, &g), AM_OK);
    am_threads_set(3);
    g.c = part;
    ck_assert_int_eq(cpu->fp8_gemm(NULL, &g), AM_OK);
    check_same_bits("another number of threads", part, whole, sizeof(float) * M * N);
    g.m = 33;
    ck_assert_int_eq(cpu->fp8_gemm(NULL, &g), AM_OK);
    check_same_bits("fewer rows", part, whole, sizeof(float) * 33 * N);
    free(whole);
    free(part);
    discard(&g);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("kernels fp8");
    TCase *t = tcase_create("casts");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, nearest_numbers, 0, 2);
    tcase_add_loop_test(t, casts_agree, 0, ISA_COUNT);
    tcase_add_loop_test(t, not_finite, -1, ISA_COUNT);
    suite_add_tcase(suite, t);
    t = tcase_create("products");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, products_agree, 0, ISA_COUNT);
    tcase_add_test(t, rows_and_threads);
    suite_add_tcase(suite, t);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
