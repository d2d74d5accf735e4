/* test_cuda_low_precision.c — kernels of few bits on device "cuda" against ref: casts to 8 bits,
 * the rounding of fake_quantize, packed weights and what they are unpacked to are the same bits;
 * products are as close as sums in another order, and a row's bits don't depend on how many there
 * are. Sizes of each way that a product takes: cuBLASLt's, and tiles. Without AMLUA_CUDA it counts
 * as skipped.
 */
#include "cuda_run.h"

/* The same bits, or NaN both. */
static void check_equal(const char *what, const void *got, const void *want, int dtype, int64_t n)
{
    size_t size = elem_size(dtype);
    for (int64_t i = 0; i < n; i++) {
        double g = elem_get(got, dtype, i), w = elem_get(want, dtype, i);
        size_t at = (size_t)i * size;
        int same = memcmp((const char *)got + at, (const char *)want + at, size) == 0;
        if (!same && (g == g || w == w))
            ck_abort_msg("%s: element %lld of %lld: %.9g, expected %.9g", what, (long long)i,
                         (long long)n, g, w);
    }
}

/* ---- casts to 8 bits ------------------------------------------------------------------------ */

static void compare_casts(am_fp8_quantize_args *args, const char *what)
{
    size_t n = (size_t)(args->rows * args->cols), size = n * elem_size(args->dtype);
    int64_t scales = args->per == AM_FP8_PER_TENSOR ? 1
                     : args->per == AM_FP8_PER_ROW  ? args->rows
                                                    : args->cols;
    float *want_inverse = keep(elems(AM_F32, scales)), *inverse = keep(elems(AM_F32, scales));
    uint8_t *want = keep(elems(AM_U8, (int64_t)n)), *q = keep(elems(AM_U8, (int64_t)n));
    args->q = want;
    args->inverse = want_inverse;
    ck_assert_int_eq(am_backend_ref.fp8_quantize(NULL, args), AM_OK);
    args->q = q;
    args->inverse = inverse;
    CUDA_OK(ON_CUDA(fp8_quantize, args, n, 4 * (size_t)scales, size));
    check_same_bits(what, q, want, n);
    check_equal(what, inverse, want_inverse, AM_F32, scales);
}

START_TEST(casts)
{
    static const int64_t sizes[][2] = {{1, 1}, {3, 16}, {7, 37},   {65, 130}, {40, 264},
                                       {0, 5}, {4, 0},  {5, 5000}, {600, 48}};
    static const double odd[] = {INFINITY, -NAN};
    const int64_t *size = sizes[_i];
    int64_t n = size[0] * size[1];
    for (int c = 0; c < 4 * 2 * 3 * 2; c++) {
        am_fp8_quantize_args args = {.dtype = float_dtypes[c % 4],
                                     .format = c / 4 % 2,
                                     .per = c / 8 % 3,
                                     .power_of_2 = c / 24,
                                     .rows = size[0],
                                     .cols = size[1]};
        char what[96];
        snprintf(what, sizeof what, "%s %lld x %lld, format %d, scale %d.%d",
                 am_dtype_name(args.dtype), (long long)size[0], (long long)size[1], args.format,
                 args.per, args.power_of_2);
        void *a = keep(random_elems(args.dtype, n, -1, 1));
        for (int64_t i = 0; i < n; i++) /* of many sizes, and a row and a column of zeros */
            elem_set(a, args.dtype, i,
                     i / size[1] == 2 || i % size[1] == 3
                         ? 0
                         : elem_get(a, args.dtype, i) * exp2(random_in(-14, 6)));
        args.a = a;
        compare_casts(&args, what);
        if (n > 20000 && other_order()) { /* smaller ones go on in every order */
            free_kept();
            continue;
        }
        cuda_shift = 8;
        compare_casts(&args, what);
        cuda_shift = 0;
        for (int i = 0; i < 2 && n > 0; i++) {
            elem_set(a, args.dtype, (n - 1) * i, odd[i]);
            compare_casts(&args, what);
        }
        free_kept();
    }
}
END_TEST

/* Every middle of two numbers and what lies beside it, by scale 1. */
START_TEST(nearest)
{
    enum { MOST = 1000 };
    static const float tops[] = {448, 57344};
    float *x = keep(elems(AM_F32, MOST));
    int64_t n = 0;
    for (int e = _i ? -14 : -6; e <= (_i ? 15 : 8); e++)
        for (int k = _i ? 8 : 16; k < (_i ? 16 : 32); k++) { /* in halves of the last place */
            float v = ldexpf((float)k, e - (_i ? 3 : 4));
            if (v > tops[_i])
                break;
            x[n++] = v;
            x[n++] = -nextafterf(v, 0);
        }
    x[n++] = tops[_i];
    am_fp8_quantize_args args = {.a = x, .format = _i, .rows = 1, .cols = n};
    ck_assert_int_le(n, MOST);
    compare_casts(&args, "nearest");
    ck_assert_msg(*args.inverse == 1, "the scale is %g", (double)*args.inverse);
    free_kept();
}
END_TEST

/* ---- products in 8 bits --------------------------------------------------------------------- */

static void *random_codes(int64_t n, int format)
{
    uint8_t *q = keep(elems(AM_U8, n));
    for (int64_t i = 0; i < n; i++) /* up to 4 or 16, so that f16 holds sums */
        q[i] =
            (uint8_t)((int)random_in(0, format ? 0x4b : 0x4f) | (random_in(0, 1) < 0.5 ? 128 : 0));
    return q;
}

static void compare_fp8_products(am_fp8_gemm_args g, const char *what)
{
    size_t bytes = (size_t)(g.m * g.n) * elem_size(g.dtype_c);
    void *before = keep(random_elems(g.dtype_c, g.m * g.n, -1, 1));
    void *want = keep(copy_elems(g.dtype_c, g.m * g.n, before));
    void *got = keep(copy_elems(g.dtype_c, g.m * g.n, before));
    size_t a = (size_t)(g.m * g.k), b = (size_t)(g.n * g.k), m = g.rows_a ? (size_t)g.m : 1;
    size_t n = g.columns_b ? (size_t)g.n : 1;
    g.c = want;
    ck_assert_int_eq(am_backend_ref.fp8_gemm(NULL, &g), AM_OK);
    g.c = got;
    CUDA_OK(ON_CUDA(fp8_gemm, &g, bytes, a, b, 4 * m, 4 * n));
    /* Terms have up to 16 by 16 times 0.01; sums in f32, of f64 in f64. */
    double error = (g.dtype_c == AM_F64 ? 1e-15 : 2e-7) * 2.56 * sqrt((double)g.k + 1);
    check_close(what, got, want, g.dtype_c, g.m * g.n, ulp_of(g.dtype_c), error);
    if (g.m > 1 && !g.trans_a) { /* the first row alone */
        void *one = keep(copy_elems(g.dtype_c, g.n, before));
        g.c = one;
        g.m = 1;
        CUDA_OK(
            ON_CUDA(fp8_gemm, &g, (size_t)g.n * elem_size(g.dtype_c), (size_t)g.k, b, 4, 4 * n));
        check_same_bits(what, one, got, (size_t)g.n * elem_size(g.dtype_c));
    }
}

START_TEST(fp8_products)
{
    static const int64_t sizes[][3] = {{1, 1, 1},   {37, 19, 70}, {70, 130, 48}, {33, 24, 40},
                                       {2, 150, 5}, {3, 5, 0},    {0, 4, 4},     /* tiles */
                                       {5, 32, 64}, {80, 48, 16}, {32, 16, 37}}; /* cuBLASLt */
    const int64_t *s = sizes[_i];
    for (int c = 0; c < 64; c++) {
        int dtype = float_dtypes[(c + c / 4) % 4];
        am_fp8_gemm_args g = {.format_a = c & 1,
                              .format_b = c >> 1 & 1,
                              .rows_a = c >> 2 & 1,
                              .columns_b = c >> 3 & 1,
                              .trans_a = c >> 4 & 1,
                              .trans_b = c >> 5 & 1,
                              .dtype_c = dtype,
                              .accumulate = c % 3 == 0,
                              .m = s[0],
                              .n = s[1],
                              .k = s[2]};
        char what[96];
        snprintf(what, sizeof what, "%lld x %lld x %lld, flags %d, %s", (long long)s[0],
                 (long long)s[1], (long long)s[2], c, am_dtype_name(dtype));
        g.a = random_codes(g.m * g.k, g.format_a);
        g.b = random_codes(g.n * g.k, g.format_b);
        g.inverse_a = keep(random_elems(AM_F32, g.m, 0.01, 0.1));
        g.inverse_b = keep(random_elems(AM_F32, g.n, 0.01, 0.1));
        compare_fp8_products(g, what);
        if (c % 8 == 0) {
            cuda_shift = 4;
            compare_fp8_products(g, what);
            cuda_shift = 0;
        }
        free_kept();
    }
}
END_TEST

/* A number that is not finite, in either operand. */
START_TEST(nan_stays)
{
    enum { N = 32 };
    uint8_t *a = keep(elems(AM_U8, N * N)), *b = keep(elems(AM_U8, N * N));
    float *c = keep(elems(AM_F32, N * N)), *one = keep(random_elems(AM_F32, 1, 1, 1));
    memset(a, 0x38, N * N);
    memset(b, 0x38, N * N);
    a[3 * N + 5] = 0x7f;
    b[7 * N + 9] = 0xff;
    am_fp8_gemm_args g = {.c = c, .a = a, .b = b, .inverse_a = one, .inverse_b = one, .trans_b = 1};
    g.m = N;
    g.n = _i ? N : N - 1; /* tiles, then cuBLASLt */
    g.k = N;
    CUDA_OK(ON_CUDA(fp8_gemm, &g, 4 * N * N, N * N, N * N, 4, 4));
    for (int64_t i = 0; i < g.m * g.n; i++)
        ck_assert(i / g.n == 3 || i % g.n == 7 ? isnan(c[i]) : c[i] == N);
    free_kept();
}
END_TEST

/* ---- fake_quantize -------------------------------------------------------------------------- */

START_TEST(rounds_as_ref)
{
    static const int64_t sizes[][2] = {{1, 1}, {300, 32}, {7, 5}, {5, 131}, {9, 64}, {3, 0}};
    for (int c = 0; c < 6 * 4 * 2 * 2; c++) {
        const int64_t *size = sizes[c % 6];
        int64_t n = size[0] * size[1];
        int dtype = float_dtypes[c / 6 % 4], grad = c / 24 % 2;
        size_t bytes = (size_t)n * elem_size(dtype);
        void *x = keep(random_elems(dtype, n, -2, 3)), *g = keep(random_elems(dtype, n, -1, 1));
        for (int64_t i = 0; i < n; i++) /* groups of one sign, of zeros, of one number; NaN */
            if (i / size[1] % 5 != 0)
                elem_set(x, dtype, i,
                         i / size[1] % 5 == 1   ? -fabs(elem_get(x, dtype, i))
                         : i / size[1] % 5 == 2 ? 0
                         : i / size[1] % 5 == 3 ? 1.5
                         : i % 7 == 0           ? NAN
                                                : 1e-4 * elem_get(x, dtype, i));
        void *want = keep(elems(dtype, n)), *got = keep(elems(dtype, n));
        am_fake_quantize_args a = {.out = want,
                                   .x = x,
                                   .grad = grad ? g : NULL,
                                   .kind = _i,
                                   .dtype = dtype,
                                   .dtype_scale = c / 48 ? AM_BF16 : AM_F32,
                                   .groups = size[1] ? size[0] : 0,
                                   .size = size[1]};
        char what[64];
        snprintf(what, sizeof what, "kind %d, %s, %lld x %lld%s", _i, am_dtype_name(dtype),
                 (long long)size[0], (long long)size[1], grad ? ", gradient" : "");
        ck_assert_int_eq(am_backend_ref.fake_quantize(NULL, &a), AM_OK);
        a.out = got;
        CUDA_OK(ON_CUDA(fake_quantize, &a, bytes, bytes, bytes));
        check_equal(what, got, want, dtype, n);
        free_kept();
    }
}
END_TEST

/* ---- packed weights ------------------------------------------------------------------------- */

static const am_packing kinds[] = {{.type = AM_PACK_NF4},
                                   {.type = AM_PACK_NF4, .nested = 1},
                                   {.type = AM_PACK_FP4},
                                   {.type = AM_PACK_FP4, .nested = 1},
                                   {.type = AM_PACK_INT8}};
enum { KINDS = sizeof kinds / sizeof *kinds };

static size_t packed_bytes(const am_packing *p)
{
    return (size_t)(4 * am_packing_scales(p) + am_packing_nested(p) + am_packing_codes(p));
}

static void *packed_by_ref(const am_packing *p, const void *a, int dtype)
{
    void *packed = keep(elems(AM_U8, (int64_t)packed_bytes(p)));
    float *work = keep(elems(AM_F32, am_packing_blocks(p)));
    am_pack_args args = {.packed = packed,
                         .work = am_packing_nested(p) ? work : NULL,
                         .a = a,
                         .dtype = dtype,
                         .packing = *p};
    ck_assert_int_eq(am_backend_ref.pack(NULL, &args), AM_OK);
    return packed;
}

static void compare_unpacked(const void *packed, am_unpack_args part)
{
    int64_t n = part.rows * part.cols;
    void *want = keep(elems(part.dtype, n)), *got = keep(elems(part.dtype, n));
    part.packed = packed;
    part.out = want;
    ck_assert_int_eq(am_backend_ref.unpack(NULL, &part), AM_OK);
    part.out = got;
    CUDA_OK(ON_CUDA(unpack, &part, (size_t)n * elem_size(part.dtype), packed_bytes(&part.packing)));
    check_equal("unpacked", got, want, part.dtype, n);
}

/* Packed, and unpacked whole and in a part. */
START_TEST(packs_and_unpacks)
{
    static const int64_t sizes[][2] = {{1, 1},    {3, 64},   {5, 13}, {7, 128}, {70, 130},
                                       {33, 192}, {40, 600}, {4, 64}, {64, 256}};
    for (int c = 0; c < 9 * 4; c++) {
        am_packing p = kinds[_i];
        int dtype = float_dtypes[c % 4];
        p.rows = sizes[c / 4][0];
        p.cols = sizes[c / 4][1];
        int64_t n = p.rows * p.cols;
        void *a = keep(random_elems(dtype, n, -1, 1)),
             *packed = keep(elems(AM_U8, (int64_t)packed_bytes(&p)));
        void *work = keep(elems(AM_F32, am_packing_blocks(&p)));
        for (int64_t i = 0; i < n; i++) /* blocks of many sizes, one of zeros */
            elem_set(a, dtype, i,
                     i / 64 % 9 == 3 ? 0 : elem_get(a, dtype, i) * exp2((double)(i / 64 % 7)));
        if (p.rows == 70) /* an infinite block, a row without a finite largest number */
            elem_set(a, dtype, 130, INFINITY);
        void *want = packed_by_ref(&p, a, dtype);
        am_pack_args args = {.packed = packed,
                             .work = am_packing_nested(&p) ? work : NULL,
                             .a = a,
                             .dtype = dtype,
                             .packing = p};
        CUDA_OK(ON_CUDA(pack, &args, packed_bytes(&p), 4 * (size_t)am_packing_blocks(&p),
                        (size_t)n * elem_size(dtype)));
        check_equal("scales", packed, want, AM_F32, am_packing_scales(&p));
        size_t scales = 4 * (size_t)am_packing_scales(&p);
        check_same_bits("packed", (char *)packed + scales, (char *)want + scales,
                        packed_bytes(&p) - scales);
        am_unpack_args part = {.dtype = dtype, .packing = p, .rows = p.rows, .cols = p.cols};
        compare_unpacked(want, part);
        part.row = p.rows / 2;
        part.rows = p.rows - part.row;
        part.col = p.cols / 3;
        part.cols = p.cols - part.col;
        compare_unpacked(want, part);
        free_kept();
    }
}
END_TEST

static void compare_packed_products(am_packed_gemm_args g, const char *what)
{
    int64_t n = g.trans ? g.packing.rows : g.packing.cols;
    int64_t k = g.trans ? g.packing.cols : g.packing.rows;
    size_t each = elem_size(g.dtype), each_c = elem_size(g.dtype_c);
    void *w = keep(random_elems(AM_F32, n * k, -1, 1));
    void *bias = keep(random_elems(g.dtype, n, -1, 1));
    void *before = keep(random_elems(g.dtype_c, g.m * n, -1, 1));
    void *want = keep(copy_elems(g.dtype_c, g.m * n, before));
    void *got = keep(copy_elems(g.dtype_c, g.m * n, before));
    size_t bytes = packed_bytes(&g.packing);
    g.a = keep(random_elems(g.dtype, g.m * k, -1, 1));
    g.w = packed_by_ref(&g.packing, w, AM_F32);
    g.bias = g.accumulate ? NULL : bias;
    g.c = want;
    ck_assert_int_eq(am_backend_ref.packed_gemm(NULL, &g), AM_OK);
    g.c = got;
    CUDA_OK(ON_CUDA(packed_gemm, &g, (size_t)(g.m * n) * each_c, (size_t)(g.m * k) * each, bytes,
                    (size_t)n * each));
    /* sums of k random terms, in another order */
    double error = (g.dtype_c == AM_F64 ? 1e-14 : 4e-6) * sqrt((double)k + 1);
    check_close(what, got, want, g.dtype_c, g.m * n, ulp_of(g.dtype_c),
                error + ulp_of(g.dtype_c) * 1e-2);
    void *one = keep(copy_elems(g.dtype_c, n, before)); /* the first row alone */
    g.c = one;
    g.m = 1;
    CUDA_OK(
        ON_CUDA(packed_gemm, &g, (size_t)n * each_c, (size_t)k * each, bytes, (size_t)n * each));
    check_same_bits(what, one, got, (size_t)n * each_c);
}

START_TEST(packed_products)
{
    static const int64_t sizes[][2] = {{1, 1}, {5, 13}, {136, 64}, {70, 130}, {33, 192}, {9, 577}};
    for (int c = 0; c < 6 * 4 * 5; c++) {
        int dtype = float_dtypes[c / 6 % 4], mode = c / 24;
        am_packed_gemm_args g = {.dtype = dtype,
                                 .dtype_c = mode == 3 && dtype != AM_F64 ? AM_F32 : dtype,
                                 .trans = mode != 1 && mode != 3,
                                 .few = mode == 4,
                                 .accumulate = mode == 2 || mode == 3,
                                 .packing = kinds[_i],
                                 .m = mode == 4 ? 6
                                      : c % 2   ? 67
                                                : 9};
        g.packing.rows = sizes[c % 6][0];
        g.packing.cols = sizes[c % 6][1];
        char what[80];
        snprintf(what, sizeof what, "%lld x %lld, kind %d, mode %d, %s", (long long)sizes[c % 6][0],
                 (long long)sizes[c % 6][1], _i, mode, am_dtype_name(dtype));
        cuda_shift = c % 5 == 0 ? 8 : 0;
        compare_packed_products(g, what);
        free_kept();
    }
}
END_TEST

/* What is no number in one row of a weight is in no other row's product. */
START_TEST(nan_of_a_row)
{
    enum { ROWS = 40, COLS = 20, M = 3, BAD = 17, BLOCK = 64 };
    for (int mode = 0; mode < 2; mode++) {
        am_packed_gemm_args g = {.dtype = AM_BF16,
                                 .dtype_c = AM_F32,
                                 .trans = 1,
                                 .few = mode,
                                 .packing = kinds[_i],
                                 .m = M};
        g.packing.rows = ROWS;
        g.packing.cols = COLS;
        float *w = keep(random_elems(AM_F32, ROWS * COLS, -1, 1)),
              *c = keep(elems(AM_F32, M * ROWS));
        w[BAD * COLS] = INFINITY;
        g.a = keep(random_elems(AM_BF16, M * COLS, -1, 1));
        g.w = packed_by_ref(&g.packing, w, AM_F32);
        g.c = c;
        CUDA_OK(ON_CUDA(packed_gemm, &g, sizeof *c * M * ROWS, 2 * M * COLS,
                        packed_bytes(&g.packing), 0));
        int first = BAD, last = BAD; /* rows of its block, or of all */
        if (g.packing.type != AM_PACK_INT8) {
            first = BAD * COLS / BLOCK * BLOCK / COLS;
            last = (BAD * COLS / BLOCK * BLOCK + BLOCK - 1) / COLS;
        }
        for (int i = 0; i < M * ROWS; i++)
            ck_assert_msg(isfinite(c[i]) || (i % ROWS >= first && i % ROWS <= last) ||
                              g.packing.nested,
                          "kind %d: row %d of the weight", _i, i % ROWS);
        free_kept();
    }
}
END_TEST

int main(void)
{
    const cuda_test tests[] = {{"casts", casts, 0, 9},
                               {"nearest", nearest, 0, 2},
                               {"fp8_products", fp8_products, 0, 10},
                               {"nan_stays", nan_stays, 0, 2},
                               {"rounds_as_ref", rounds_as_ref, 0, 3},
                               {"packs_and_unpacks", packs_and_unpacks, 0, KINDS},
                               {"packed_products", packed_products, 0, KINDS},
                               {"nan_of_a_row", nan_of_a_row, 0, KINDS}};
    return run_on_cuda("cuda low precision", tests, sizeof tests / sizeof *tests);
}
