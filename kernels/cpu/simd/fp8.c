/* fp8.c — products in 8 bits: casts with a scale on vectors, for f32, bf16 and f16 (f64 is ref's),
 * and the product, which CPUs have none of: numbers of 3 or 4 bits of mantissa are exact in bf16,
 * so it is the bf16 product with a sum in f32, then the scales.
 *
 * Scratch slot 5: both operands in bf16 and some rows of the sum; the others are gemm's. */
#include "../fp8.h"
#include "../ref_kernels.h"
#include "vec.h"

enum { COLS = 4 };                              /* vectors of columns looked at together */
enum { SUM_FLOATS = 8 << 20, LEAST_ROWS = 64 }; /* of the sum at a time */

AM_INLINE vi vlarger(vi a, vi b)
{
    vi mask = a > b;
    return (a & mask) | (b & ~mask);
}

/* The largest |a| as bits, by which a NaN is larger than any number. */
AM_INLINE int32_t largest_lane(vi a)
{
    int32_t most = 0;
    for (int i = 0; i < VW; i++)
        most = a[i] > most ? a[i] : most;
    return most;
}

AM_INLINE int32_t largest(const void *a, int dtype, int64_t at, int64_t n)
{
    vi most = {0};
    for (int64_t i = 0; i < n; i += VW)
        most = vlarger(most, (vi)vabs(vget_n(a, dtype, at + i, n - i, 0)));
    return largest_lane(most);
}

static float scale_of(int32_t bits, const fp8_format *f, int power_of_2)
{
    float amax;
    memcpy(&amax, &bits, 4);
    return fp8_scale((double)amax, f->max, power_of_2);
}

/* fp8_encode */
AM_INLINE vu encode(vf v, const fp8_format *f)
{
    vu u = (vu)v, sign = u >> 24 & 0x80u;
    vi a = (vi)vabs(v), nan = a > 0x7f800000, top = a > (int32_t)f->top;
    a = (visplat((int32_t)f->top) & top) | (a & ~top);
    vi small = a < (int32_t)f->least;
    vu tiny = (vu)((vf)a + f->align) - fp8_bits(f->align);
    vu half = (vu)a + ((1u << (f->shift - 1)) - 1) + ((vu)a >> f->shift & 1u);
    vu code = (tiny & (vu)small) | (((half >> f->shift) - f->bias) & ~(vu)small);
    return (0x7fu & (vu)nan) | ((sign | code) & ~(vu)nan);
}

/* The lowest bytes of the first n lanes. */
AM_INLINE void put_bytes(uint8_t *to, vu code, int64_t n)
{
#if defined(__AVX512F__)
    if (n >= VW) {
        __m128i bytes = _mm512_cvtepi32_epi8((__m512i)code);
        memcpy(to, &bytes, sizeof bytes);
        return;
    }
#endif
    for (int64_t i = 0; i < at_most(n, VW); i++)
        to[i] = (uint8_t)code[i];
}

/* n numbers from `at` on by one scale, or by one each where `each` is 1. */
AM_INLINE void cast(const am_fp8_quantize_args *args, int dtype, const fp8_format *f, int64_t at,
                    int64_t n, const float *scale, int each)
{
    uint8_t *q = (uint8_t *)args->q + at;
    for (int64_t i = 0; i < n; i += VW) {
        vf by = each ? vget_n(scale, AM_F32, i, n - i, 1) : vsplat(*scale);
        put_bytes(q + i, encode(vget_n(args->a, dtype, at + i, n - i, 0) * by, f), n - i);
    }
}

static void scale_tensor(const am_fp8_quantize_args *args, const fp8_format *f)
{
    int32_t most = 0;
    int64_t cols = args->cols;
#pragma omp parallel for num_threads(team(args->rows *cols)) reduction(max : most)
    for (int64_t i = 0; i < args->rows; i++) {
        int32_t of_row = 0;
        AM_WITH_DTYPE(T, args->dtype, of_row = largest(args->a, T, i * cols, cols))
        most = of_row > most ? of_row : most;
    }
    args->inverse[0] = scale_of(most, f, args->power_of_2);
}

static void scale_rows(const am_fp8_quantize_args *args, const fp8_format *f)
{
    int64_t cols = args->cols;
#pragma omp parallel for num_threads(team(args->rows *cols)) schedule(static)
    for (int64_t i = 0; i < args->rows; i++) {
        int32_t most = 0;
        AM_WITH_DTYPE(T, args->dtype, most = largest(args->a, T, i * cols, cols))
        args->inverse[i] = scale_of(most, f, args->power_of_2);
    }
}

/* Columns j.. of all rows. */
AM_INLINE void scale_some_columns(const am_fp8_quantize_args *args, int dtype, const fp8_format *f,
                                  int64_t j)
{
    vi most[COLS] = {{0}};
    for (int64_t i = 0; i < args->rows; i++)
        for (int64_t k = 0; k < COLS; k++) {
            int64_t col = j + k * VW;
            vf v = vget_n(args->a, dtype, i * args->cols + col, args->cols - col, 0);
            most[k] = vlarger(most[k], (vi)vabs(v));
        }
    for (int64_t i = 0; i < at_most(COLS * VW, args->cols - j); i++)
        args->inverse[j + i] = scale_of(most[i / VW][i % VW], f, args->power_of_2);
}

static void scale_columns(const am_fp8_quantize_args *args, const fp8_format *f)
{
#pragma omp parallel for num_threads(team(args->rows * args->cols)) schedule(static)
    for (int64_t j = 0; j < args->cols; j += (int64_t)COLS * VW)
        AM_WITH_DTYPE(T, args->dtype, scale_some_columns(args, T, f, j))
}

int AM_SIMD(fp8_quantize)(am_stream *s, const am_fp8_quantize_args *args)
{
    if (!is_simd_float(args->dtype))
        return am_ref_fp8_quantize(s, args);
    fp8_format f = fp8_format_of(args->format);
    int per = args->per;
    int64_t rows = args->rows, cols = args->cols, scales = 1;
    if (per == AM_FP8_PER_TENSOR) {
        scale_tensor(args, &f);
    } else if (per == AM_FP8_PER_ROW) {
        scale_rows(args, &f);
        scales = rows;
    } else {
        scale_columns(args, &f);
        scales = cols;
    }
#pragma omp parallel for num_threads(team(rows *cols)) schedule(static)
    for (int64_t i = 0; i < rows; i++) {
        const float *scale = args->inverse + (per == AM_FP8_PER_ROW ? i : 0);
        AM_WITH_DTYPE(T, args->dtype,
                      cast(args, T, &f, i * cols, cols, scale, per == AM_FP8_PER_COLUMN))
    }
    for (int64_t i = 0; i < scales; i++)
        args->inverse[i] = 1 / args->inverse[i];
    return AM_OK;
}

/* ---- the product ----------------------------------------------------------------------------- */

static void to_bf16_all(uint16_t *to, const uint8_t *q, int format, int64_t n)
{
    enum { CHUNK = 1 << 14 };
    uint16_t table[256];
    for (int i = 0; i < 256; i++)
        table[i] = am_f32_to_bf16(fp8_decode((uint8_t)i, format));
#pragma omp parallel for num_threads(team(n)) schedule(static)
    for (int64_t first = 0; first < n; first += CHUNK)
        for (int64_t i = first; i < at_most(n, first + CHUNK); i++)
            to[i] = table[q[i]];
}

/* Rows i.. of c from their sums. */
static void scale_sums(const am_fp8_gemm_args *args, const float *sums, int64_t first, int64_t rows)
{
    int64_t n = args->n;
    int to = args->dtype_c;
#pragma omp parallel for num_threads(team(rows *n)) schedule(static)
    for (int64_t i = 0; i < rows; i++) {
        vf by_row = vsplat(args->inverse_a[args->rows_a ? first + i : 0]);
        int64_t at = (first + i) * n;
        for (int64_t j = 0; j < n; j += VW) {
            vf by = args->columns_b ? vget_n(args->inverse_b, AM_F32, j, n - j, 1)
                                    : vsplat(*args->inverse_b);
            vf v = vget_n(sums, AM_F32, i * n + j, n - j, 0) * by_row * by;
            AM_WITH_DTYPE(T, to, {
                if (args->accumulate)
                    v += vget_n(args->c, T, at + j, n - j, 0);
                vput_n(args->c, T, at + j, n - j, v);
            })
        }
    }
}

int AM_SIMD(fp8_gemm)(am_stream *s, const am_fp8_gemm_args *args)
{
    int64_t m = args->m, n = args->n, k = args->k;
    if (!is_simd_float(args->dtype_c) || n == 0 || k == 0)
        return am_ref_fp8_gemm(s, args);
    int64_t rows = SUM_FLOATS / n > LEAST_ROWS ? SUM_FLOATS / n : LEAST_ROWS;
    rows = at_most(rows, m);
    float *sums = am_scratch(5, (size_t)(rows * n) * sizeof *sums + (size_t)((m + n) * k) * 2);
    if (!sums)
        return am_kernel_fail(AM_ENOMEM, "fp8_gemm: no scratch memory");
    uint16_t *a = (uint16_t *)(sums + rows * n), *b = a + m * k;
    to_bf16_all(a, args->a, args->format_a, m * k);
    to_bf16_all(b, args->b, args->format_b, n * k);
    for (int64_t i = 0; i < m; i += rows) {
        int64_t count = at_most(rows, m - i);
        am_gemm_args g = {.c = sums,
                          .a = a + (args->trans_a ? i : i * k),
                          .b = b,
                          .dtype_ab = AM_BF16,
                          .dtype_c = AM_F32,
                          .trans_a = args->trans_a,
                          .trans_b = args->trans_b,
                          .alpha = 1,
                          .m = count,
                          .n = n,
                          .k = k,
                          .lda = args->trans_a ? m : k,
                          .ldb = args->trans_b ? k : n,
                          .ldc = n,
                          .batch = 1};
        int rc = am_cpu_gemm(s, &g);
        if (rc != AM_OK)
            return rc;
        scale_sums(args, sums, i, count);
    }
    return AM_OK;
}
