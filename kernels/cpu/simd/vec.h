/* vec.h — one vector of floats at the width of the instruction set a file is compiled for, and the
 * element access, functions and work splitting that the kernel families are written with.
 *
 * Every file of this folder is compiled once for each instruction set: AM_ISA is the suffix of its
 * symbols. Products and sums are fused only where vfma says so (contraction is off), and a tail
 * goes through the same vector code as the rest, so a value's bits do not depend on where it lies.
 * The constants of the polynomials are Cephes' (Moshier). */
#ifndef AM_KERNELS_VEC_H
#define AM_KERNELS_VEC_H

#include <math.h>
#include "../cpu.h"
#include "dtype.h"
#include "rng.h"
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define AM_PASTE2(a, b) a##_##b
#define AM_PASTE(a, b)  AM_PASTE2(a, b)
#define AM_SIMD(name)   AM_PASTE(am_cpu_##name, AM_ISA)

#define K(name, pointers) int AM_SIMD(name)(am_stream * s, const am_##name##_args *args);
#include "kernels.def"
#undef K

#define AM_INLINE static inline __attribute__((always_inline))

#if defined(__AVX512F__)
enum { VW = 16 };
#elif defined(__AVX2__)
enum { VW = 8 };
#else
enum { VW = 4 };
#endif

typedef float vf __attribute__((vector_size(VW * 4)));
typedef int32_t vi __attribute__((vector_size(VW * 4)));
typedef uint32_t vu __attribute__((vector_size(VW * 4)));
typedef uint16_t vh __attribute__((vector_size(VW * 2)));

/* ---- arithmetic -------------------------------------------------------------------------- */

AM_INLINE vf vsplat(float x)
{
    return x - (vf){0}; /* -0 and NaN stay */
}

AM_INLINE vi visplat(int32_t x)
{
    return x + (vi){0};
}

AM_INLINE vf vselect(vi mask, vf a, vf b)
{
    return (vf)(((vi)a & mask) | ((vi)b & ~mask));
}

/* As the instruction: b when either is NaN. */
#if defined(__AVX512F__)
AM_INLINE vf vfma(vf a, vf b, vf c)
{
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
AM_INLINE vf vmax(vf a, vf b)
{
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
}
AM_INLINE vf vmin(vf a, vf b)
{
    return (vf)_mm512_min_ps((__m512)a, (__m512)b);
}
AM_INLINE vf vsqrt(vf a)
{
    return (vf)_mm512_sqrt_ps((__m512)a);
}
#elif defined(__AVX2__)
AM_INLINE vf vfma(vf a, vf b, vf c)
{
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
AM_INLINE vf vmax(vf a, vf b)
{
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
}
AM_INLINE vf vmin(vf a, vf b)
{
    return (vf)_mm256_min_ps((__m256)a, (__m256)b);
}
AM_INLINE vf vsqrt(vf a)
{
    return (vf)_mm256_sqrt_ps((__m256)a);
}
#else
AM_INLINE vf vfma(vf a, vf b, vf c)
{
#if defined(__aarch64__)
    return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + c; /* rounded twice */
#endif
}
AM_INLINE vf vmax(vf a, vf b)
{
    return vselect(a > b, a, b);
}
AM_INLINE vf vmin(vf a, vf b)
{
    return vselect(a < b, a, b);
}
AM_INLINE vf vsqrt(vf a)
{
    for (int i = 0; i < VW; i++)
        a[i] = sqrtf(a[i]);
    return a;
}
#endif

/* Is any lane of a mask set? */
AM_INLINE int any_lane(vi mask)
{
    int32_t any = 0;
    for (int i = 0; i < VW; i++)
        any |= mask[i];
    return any != 0;
}

/* The sum of the lanes, half to half: always the same order. */
#if defined(__AVX2__)
AM_INLINE float vsum(vf a)
{
#if defined(__AVX512F__)
    __m256 eight =
        _mm256_add_ps(_mm512_castps512_ps256((__m512)a), _mm512_extractf32x8_ps((__m512)a, 1));
#else
    __m256 eight = (__m256)a;
#endif
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
#else
AM_INLINE float vsum(vf a)
{
    float x[VW];
    memcpy(x, &a, sizeof x);
    for (int step = VW / 2; step > 0; step /= 2)
        for (int i = 0; i < step; i++)
            x[i] += x[i + step];
    return x[0];
}
#endif

AM_INLINE float vmax_lanes(vf a)
{
    float m = a[0];
    for (int i = 1; i < VW; i++)
        m = a[i] > m ? a[i] : m;
    return m;
}

AM_INLINE vf vabs(vf a)
{
    return (vf)((vi)a & 0x7fffffff);
}

/* The transpose of VW vectors: rows i and i + VW / 2 are interleaved, log2 VW times. */
#if defined(__AVX512F__)
#define AM_LOW  0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define AM_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif defined(__AVX2__)
#define AM_LOW  0, 8, 1, 9, 2, 10, 3, 11
#define AM_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#else
#define AM_LOW  0, 4, 1, 5
#define AM_HIGH 2, 6, 3, 7
#endif
AM_INLINE void vturn(vf m[VW])
{
    for (int step = 1; step < VW; step *= 2) {
        vf t[VW];
        for (int i = 0; i < VW / 2; i++) {
            t[2 * i] = __builtin_shufflevector(m[i], m[i + VW / 2], AM_LOW);
            t[2 * i + 1] = __builtin_shufflevector(m[i], m[i + VW / 2], AM_HIGH);
        }
        for (int i = 0; i < VW; i++)
            m[i] = t[i];
    }
}

/* ---- element access: f32, bf16 and f16 as f32 --------------------------------------------- */

AM_INLINE vf vload(const float *p)
{
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}

AM_INLINE void vstore(float *p, vf v)
{
    memcpy(p, &v, sizeof v);
}

/* gcc 12 takes __builtin_convertvector apart. */
#if defined(__AVX512F__)
AM_INLINE vu widen(vh h)
{
    return (vu)_mm512_cvtepu16_epi32((__m256i)h);
}
AM_INLINE vh narrow(vu u) /* the lower halves */
{
    return (vh)_mm512_cvtepi32_epi16((__m512i)u);
}
#elif defined(__AVX2__)
AM_INLINE vu widen(vh h)
{
    return (vu)_mm256_cvtepu16_epi32((__m128i)h);
}
AM_INLINE vh narrow(vu u)
{
    return __builtin_convertvector(u, vh);
}
#else
AM_INLINE vu widen(vh h)
{
    return __builtin_convertvector(h, vu);
}
AM_INLINE vh narrow(vu u)
{
    return __builtin_convertvector(u, vh);
}
#endif

AM_INLINE vf from_bf16(vh h)
{
#if defined(__AVX512F__) /* one instruction: a word to the upper half of its lane */
    __m512i to = _mm512_slli_epi32(
        _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0), 16);
    return (vf)_mm512_maskz_permutexvar_epi16(0xaaaaaaaa, to, _mm512_castsi256_si512((__m256i)h));
#else
    return (vf)(widen(h) << 16);
#endif
}

/* All bits set in the lanes that hold NaN. */
AM_INLINE vi vnan(vf v)
{
    return v != v; /* NOLINT(misc-redundant-expression) */
}

/* To nearest, ties to even; NaN stays NaN. */
AM_INLINE vh round_to_bf16(vf v)
{
    vu u = (vu)v, rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    vu nan = (vu)vnan(v);
    return narrow((((u >> 16) | 0x40u) & nan) | (rounded & ~nan));
}

AM_INLINE vh to_bf16(vf v)
{
#if defined(__AVX512BF16__) /* which takes subnormal numbers for zero */
    enum { SUBNORMAL = 0x20 };
    if (__builtin_expect(_mm512_fpclass_ps_mask((__m512)v, SUBNORMAL) == 0, 1))
        return (vh)_mm512_cvtneps_pbh((__m512)v);
#endif
    return round_to_bf16(v);
}

AM_INLINE vf from_f16(vh h)
{
#if defined(__AVX512F__)
    return (vf)_mm512_cvtph_ps((__m256i)h);
#elif defined(__AVX2__)
    return (vf)_mm256_cvtph_ps((__m128i)h);
#elif defined(__aarch64__)
    return (vf)vcvt_f32_f16((float16x4_t)h);
#else
    vf v;
    for (int i = 0; i < VW; i++)
        v[i] = am_f16_to_f32(h[i]);
    return v;
#endif
}

AM_INLINE vh to_f16(vf v)
{
#if defined(__AVX512F__)
    return (vh)_mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(__AVX2__)
    return (vh)_mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(__aarch64__)
    return (vh)vcvt_f16_f32((float32x4_t)v);
#else
    vh h;
    for (int i = 0; i < VW; i++)
        h[i] = am_f32_to_f16(v[i]);
    return h;
#endif
}

/* The dtypes that these kernels take; f64 and integers are `ref`'s. */
AM_INLINE int is_simd_float(int dtype)
{
    return dtype == AM_F32 || dtype == AM_BF16 || dtype == AM_F16;
}

/* Bytes of an element of one of them. */
AM_INLINE int64_t simd_size(int dtype)
{
    return dtype == AM_F32 ? 4 : 2;
}

AM_INLINE float load1(const void *p, int dtype, int64_t i)
{
    if (dtype == AM_F32)
        return ((const float *)p)[i];
    uint16_t h = ((const uint16_t *)p)[i];
    return dtype == AM_BF16 ? am_bf16_to_f32(h) : am_f16_to_f32(h);
}

AM_INLINE void store1(void *p, int dtype, int64_t i, float v)
{
    if (dtype == AM_F32)
        ((float *)p)[i] = v;
    else
        ((uint16_t *)p)[i] = dtype == AM_BF16 ? am_f32_to_bf16(v) : am_f32_to_f16(v);
}

/* VW elements from i on. */
AM_INLINE vf vget(const void *p, int dtype, int64_t i)
{
    if (dtype == AM_F32)
        return vload((const float *)p + i);
    vh h;
    memcpy(&h, (const uint16_t *)p + i, sizeof h);
    return dtype == AM_BF16 ? from_bf16(h) : from_f16(h);
}

AM_INLINE void vput(void *p, int dtype, int64_t i, vf v)
{
    if (dtype == AM_F32) {
        vstore((float *)p + i, v);
        return;
    }
    vh h = dtype == AM_BF16 ? to_bf16(v) : to_f16(v);
    memcpy((uint16_t *)p + i, &h, sizeof h);
}

/* Tails, kept out of line: inlined everywhere they would be most of the code. */
#define AM_TAIL static __attribute__((noinline, unused))

AM_TAIL void get_tail(float to[VW], const void *p, int dtype, int64_t i, int64_t n, float rest)
{
    for (int64_t j = 0; j < VW; j++)
        to[j] = j < n ? load1(p, dtype, i + j) : rest;
}

AM_TAIL void put_tail(void *p, int dtype, int64_t i, int64_t n, const float from[VW])
{
    for (int64_t j = 0; j < n; j++)
        store1(p, dtype, i + j, from[j]);
}

/* The first n (at most VW) of them; the other lanes are `rest` and are not touched. */
AM_INLINE vf vget_n(const void *p, int dtype, int64_t i, int64_t n, float rest)
{
    if (n >= VW)
        return vget(p, dtype, i);
    float v[VW];
    get_tail(v, p, dtype, i, n, rest);
    return vload(v);
}

AM_INLINE void vput_n(void *p, int dtype, int64_t i, int64_t n, vf v)
{
    if (n >= VW) {
        vput(p, dtype, i, v);
        return;
    }
    float x[VW];
    vstore(x, v);
    put_tail(p, dtype, i, n, x);
}

/* The statement with the constant T for a dtype, which is f32, bf16 or f16. It belongs inside of a
 * parallel region: there a variable from outside is read from memory, so a loop that is given one
 * decides for every vector what its dtype is. */
#define AM_WITH_DTYPE(T, dtype, ...)                                                               \
    switch (dtype) {                                                                               \
    case AM_F32: {                                                                                 \
        enum { T = AM_F32 };                                                                       \
        __VA_ARGS__;                                                                               \
        break;                                                                                     \
    }                                                                                              \
    case AM_BF16: {                                                                                \
        enum { T = AM_BF16 };                                                                      \
        __VA_ARGS__;                                                                               \
        break;                                                                                     \
    }                                                                                              \
    default: {                                                                                     \
        enum { T = AM_F16 };                                                                       \
        __VA_ARGS__;                                                                               \
    }                                                                                              \
    }

/* ---- functions --------------------------------------------------------------------------- */

/* Whole numbers as integers. */
AM_INLINE vi vwhole(vf n)
{
    vf big = vsplat(12582912.0f); /* 1.5 * 2^23 */
    return (vi)(n + big) - (vi)big;
}

/* p 2^n for whole n and p near 1, rounded once. */
AM_INLINE vf vscale(vf p, vf n)
{
#if defined(__AVX512F__)
    return (vf)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
    vi whole = vwhole(n), half = whole >> 1; /* in two steps, for subnormals */
    return p * (vf)((half + 127) << 23) * (vf)((whole - half + 127) << 23);
#endif
}

/* e^r with x = n ln 2 + r: e^x is 2^n times that, to 1 ulp. */
AM_INLINE vf vexp_rest(vf x, vf *n)
{
    vf big = vsplat(12582912.0f); /* 1.5 * 2^23: adding it rounds to a whole number */
    *n = vfma(x, vsplat(1.44269504088896341f), big) - big;
    vf r = vfma(*n, vsplat(-0.693359375f), x);
    r = vfma(*n, vsplat(2.12194440e-4f), r);
    vf p = vfma(vsplat(1.9875691500e-4f), r, vsplat(1.3981999507e-3f));
    p = vfma(p, r, vsplat(8.3334519073e-3f));
    p = vfma(p, r, vsplat(4.1665795894e-2f));
    p = vfma(p, r, vsplat(1.6666665459e-1f));
    p = vfma(p, r, vsplat(5.0000001201e-1f));
    return vfma(p, r * r, r) + 1.0f;
}

/* e^x */
AM_INLINE vf vexp(vf x)
{
    vf n, p = vexp_rest(vmin(vsplat(89.0f), vmax(vsplat(-104.0f), x)), &n);
    return vscale(p, n);
}

/* e^x for x of at most about 0; 0 below e^-87, the least normal number. */
AM_INLINE vf vexp_down(vf x)
{
    vf n, p = vexp_rest(vmax(vsplat(-87.0f), x), &n); /* NaN stays */
#if defined(__AVX512F__)
    __mmask16 normal = _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(-87.0f), _CMP_NLT_UQ);
    return (vf)_mm512_maskz_scalef_ps(normal, (__m512)p, (__m512)n);
#else
    vi tiny = x < -87.0f;
    return (vf)((vi)(p * (vf)((vwhole(n) + 127) << 23)) & ~tiny);
#endif
}

/* tanh x: a polynomial near 0, else from e^2|x|. */
AM_INLINE vf vtanh(vf x)
{
    vf z = x * x, a = vabs(x);
    vf p = vfma(vsplat(-5.70498872745e-3f), z, vsplat(2.06390887954e-2f));
    p = vfma(p, z, vsplat(-5.37397155531e-2f));
    p = vfma(p, z, vsplat(1.33314422036e-1f));
    p = vfma(p, z, vsplat(-3.33332819422e-1f));
    vf small = vfma(p * z, x, x);
    vf big = 1.0f - 2.0f / (vexp(a + a) + 1.0f);
    big = (vf)((vi)big | ((vi)x & (int32_t)0x80000000));
    return vselect(a < 0.625f, small, big);
}

/* cap tanh(x / cap), or x where cap is 0. */
AM_INLINE vf vsoft_cap(vf x, float cap)
{
    return cap > 0 ? cap * vtanh(x * (1.0f / cap)) : x;
}

/* 1 / x for x from 1 to about 2^126 */
AM_INLINE vf vinverse(vf x)
{
#if defined(__AVX512F__) /* a division takes longer than all the rest */
    vf r = (vf)_mm512_rcp14_ps((__m512)x);
    return vfma(r, vfma(-x, r, vsplat(1.0f)), r);
#else
    return 1.0f / x;
#endif
}

/* 1 / (1 + e^-x); 0 below -87, where e^-x is about the largest number. */
AM_INLINE vf vsigmoid(vf x)
{
    vf n, p = vexp_rest(vmin(vsplat(87.0f), vmax(vsplat(-87.0f), -x)), &n);
    vf d = 1.0f + vscale(p, n);
#if defined(__AVX512F__) /* a division takes longer than all the rest */
    vf r = (vf)_mm512_rcp14_ps((__m512)d);
    __mmask16 normal = _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(-87.0f), _CMP_NLT_UQ);
    vf error = (vf)_mm512_fnmadd_ps((__m512)d, (__m512)r, _mm512_set1_ps(1.0f));
    return (vf)_mm512_maskz_fmadd_ps(normal, (__m512)error, (__m512)r, (__m512)r);
#else
    vi tiny = x < -87.0f;
    return (vf)((vi)(1.0f / d) & ~tiny);
#endif
}

/* The normal distribution function, and e^(-x^2 / 2). The lower tail is that times t q(t), t = 1 /
 * (1 + 0.26 |x|), q a least-maximum fit to 2e-8 of it; so the tail keeps its digits, all to about 4
 * ulp. */
AM_INLINE vf vphi(vf x, vf *bell)
{
    vf a = vmin(vsplat(20.0f), vabs(x)); /* all is 0 there; NaN stays */
    vf t = vinverse(vfma(vsplat(0.26f), a, vsplat(1.0f)));
    vf q = vfma(vsplat(3.0783694630696613e-2f), t, vsplat(-1.5418979093254330e-1f));
    q = vfma(q, t, vsplat(2.5431878906778110e-1f));
    q = vfma(q, t, vsplat(-1.5420740810482733e-1f));
    q = vfma(q, t, vsplat(1.6322102411295330e-1f));
    q = vfma(q, t, vsplat(5.0046748184154178e-2f));
    q = vfma(q, t, vsplat(1.0328546126300761e-1f));
    q = vfma(q, t, vsplat(1.0298020884344715e-1f));
    q = vfma(q, t, vsplat(1.0376126215123888e-1f));
    vf square = a * a, rest = vfma(a, a, -square); /* what rounding took from the square */
    vf e = vexp(-0.5f * square);
    *bell = vfma(e, -0.5f * rest, e);
    vf tail = *bell * (t * q);
    return vselect(x < 0.0f, tail, 1.0f - tail);
}

#define GELU_C 0.79788456080286535588f /* sqrt(2/pi) */
#define GELU_A 0.044715f

/* (1 + tanh u) / 2 of GELU's tanh form, which is sigmoid(2u). */
AM_INLINE vf vgelu_tanh_gate(vf x)
{
    return vsigmoid(2.0f * GELU_C * vfma(GELU_A * x * x, x, x));
}

AM_INLINE vf vact(int act, vf x)
{
    switch (act) {
    case AM_ACT_SILU:
        return x * vsigmoid(x);
    case AM_ACT_GELU: {
        vf bell;
        return x * vphi(x, &bell);
    }
    case AM_ACT_GELU_TANH:
        return x * vgelu_tanh_gate(x);
    case AM_ACT_RELU:
        return vmax((vf){0}, x);
    case AM_ACT_RELU2: {
        vf r = vmax((vf){0}, x);
        return r * r;
    }
    case AM_ACT_QUICK_GELU:
        return x * vsigmoid(1.702f * x);
    case AM_ACT_TANH:
        return vtanh(x);
    default:
        return vsigmoid(x);
    }
}

AM_INLINE vf vact_grad(int act, vf x)
{
    switch (act) {
    case AM_ACT_SILU: {
        vf s = vsigmoid(x);
        return s * vfma(x, 1.0f - s, vsplat(1.0f));
    }
    case AM_ACT_GELU: /* Phi(x) + x phi(x) */
    {
        vf bell, phi = vphi(x, &bell);
        return vfma(x * 0.39894228040143267794f, bell, phi);
    }
    case AM_ACT_GELU_TANH: { /* s + 2 x s (1 - s) du/dx */
        vf s = vgelu_tanh_gate(x), slope = GELU_C * vfma(3.0f * GELU_A * x, x, vsplat(1.0f));
        return vfma(2.0f * x * s * (1.0f - s), slope, s);
    }
    case AM_ACT_RELU: /* NaN where x is */
        return vselect(x > 0.0f, vsplat(1.0f), vmin(vsplat(0.0f), vmax(vsplat(0.0f), x)));
    case AM_ACT_RELU2:
        return 2.0f * vmax((vf){0}, x);
    case AM_ACT_QUICK_GELU: {
        vf s = vsigmoid(1.702f * x);
        return s * vfma(1.702f * x, 1.0f - s, vsplat(1.0f));
    }
    case AM_ACT_TANH: {
        vf t = vtanh(x);
        return vfma(-t, t, vsplat(1.0f));
    }
    default: {
        vf s = vsigmoid(x);
        return s * (1.0f - s);
    }
    }
}

/* The activation of x and its derivative. */
AM_INLINE vf vact_and_grad(int act, vf x, vf *grad)
{
    if (act != AM_ACT_SILU) {
        *grad = vact_grad(act, x);
        return vact(act, x);
    }
    vf s = vsigmoid(x);
    *grad = s * vfma(x, 1.0f - s, vsplat(1.0f));
    return x * s;
}

/* ---- work -------------------------------------------------------------------------------- */

/* Below this many elements a team of threads costs more than it saves. */
enum { AM_PARALLEL_MIN = 32768 };

AM_INLINE int team(int64_t elements)
{
    return elements < AM_PARALLEL_MIN ? 1 : am_threads();
}

AM_INLINE int64_t at_most(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

#endif
