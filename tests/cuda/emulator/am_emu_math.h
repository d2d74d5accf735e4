/* am_emu_math.h — mathematics, bit operations and cached loads of device code, for the host. The
 * fast functions (__expf, rsqrtf) are libm's: a GPU's differ in the last bits. Part of am_emu.h. */
#ifndef AM_EMU_MATH_H
#define AM_EMU_MATH_H

/* Macros where glibc keeps the name for itself. */
#define __expf             expf
#define __exp10f(x)        exp10f(x)
#define __logf             logf
#define __log2f            log2f
#define __log10f           log10f
#define __powf             powf
#define __sinf             sinf
#define __cosf             cosf
#define __tanf             tanf
#define __tanhf            tanhf
#define __sincosf(x, s, c) (*(s) = sinf(x), *(c) = cosf(x), (void)0)
#define __exp2f            exp2f

/* Angles in half turns. */
#define sinpi(x)  sin(3.14159265358979323846 * (double)(x))
#define cospi(x)  cos(3.14159265358979323846 * (double)(x))
#define sinpif(x) ((float)sinpi(x))
#define cospif(x) ((float)cospi(x))

AM_DEVICE float rsqrtf(float x)
{
    return 1.0f / sqrtf(x);
}
AM_DEVICE double rsqrt(double x)
{
    return 1.0 / sqrt(x);
}
AM_DEVICE float normcdff(float x)
{
    return 0.5f * erfcf(-x * 0.70710678118654752f);
}
AM_DEVICE float __fdividef(float a, float b)
{
    return a / b;
}
AM_DEVICE float __fdiv_rn(float a, float b)
{
    return a / b;
}
AM_DEVICE float __frcp_rn(float x)
{
    return 1.0f / x;
}
AM_DEVICE float __fsqrt_rn(float x)
{
    return sqrtf(x);
}
AM_DEVICE float __frsqrt_rn(float x)
{
    return 1.0f / sqrtf(x);
}
AM_DEVICE float __fmaf_rn(float a, float b, float c)
{
    return fmaf(a, b, c);
}
AM_DEVICE double __fma_rn(double a, double b, double c)
{
    return fma(a, b, c);
}
AM_DEVICE float __saturatef(float x)
{
    return x < 0 ? 0 : x > 1 ? 1 : x;
}

/* Never contracted to a fused multiply-add: that is what they are for. */
#define AM_EMU_ROUNDED __attribute__((noinline, optimize("fp-contract=off"))) static
AM_EMU_ROUNDED inline float __fadd_rn(float a, float b)
{
    return a + b;
}
AM_EMU_ROUNDED inline float __fsub_rn(float a, float b)
{
    return a - b;
}
AM_EMU_ROUNDED inline float __fmul_rn(float a, float b)
{
    return a * b;
}
AM_EMU_ROUNDED inline double __dadd_rn(double a, double b)
{
    return a + b;
}
AM_EMU_ROUNDED inline double __dmul_rn(double a, double b)
{
    return a * b;
}

namespace am_emu
{
template <class D, class S> D bits(S s)
{
    static_assert(sizeof(D) == sizeof(S), "the same size");
    D d;
    __builtin_memcpy(&d, &s, sizeof d);
    return d;
}
} // namespace am_emu
AM_DEVICE int __float_as_int(float x)
{
    return am_emu::bits<int>(x);
}
AM_DEVICE unsigned __float_as_uint(float x)
{
    return am_emu::bits<unsigned>(x);
}
AM_DEVICE float __int_as_float(int x)
{
    return am_emu::bits<float>(x);
}
AM_DEVICE float __uint_as_float(unsigned x)
{
    return am_emu::bits<float>(x);
}
AM_DEVICE long long __double_as_longlong(double x)
{
    return am_emu::bits<long long>(x);
}
AM_DEVICE double __longlong_as_double(long long x)
{
    return am_emu::bits<double>(x);
}

AM_DEVICE int __clz(int x)
{
    return x ? __builtin_clz((unsigned)x) : 32;
}
AM_DEVICE int __clzll(long long x)
{
    return x ? __builtin_clzll((unsigned long long)x) : 64;
}
AM_DEVICE int __ffs(int x)
{
    return __builtin_ffs(x);
}
AM_DEVICE int __ffsll(long long x)
{
    return __builtin_ffsll(x);
}
AM_DEVICE int __popc(unsigned x)
{
    return __builtin_popcount(x);
}
AM_DEVICE int __popcll(unsigned long long x)
{
    return __builtin_popcountll(x);
}
AM_DEVICE unsigned __umulhi(unsigned a, unsigned b)
{
    return (unsigned)(((uint64_t)a * b) >> 32);
}
AM_DEVICE unsigned long long __umul64hi(unsigned long long a, unsigned long long b)
{
    return (unsigned long long)(((unsigned __int128)a * b) >> 64);
}
AM_DEVICE unsigned __brev(unsigned x)
{
    unsigned r = 0;
    for (int i = 0; i < 32; i++)
        r |= (x >> i & 1u) << (31 - i);
    return r;
}
/* Bytes of b:a by the nibbles of s; a nibble's upper bit spreads the byte's sign. */
AM_DEVICE unsigned __byte_perm(unsigned a, unsigned b, unsigned s)
{
    uint64_t both = (uint64_t)b << 32 | a;
    unsigned r = 0;
    for (int i = 0; i < 4; i++) {
        unsigned n = s >> (4 * i) & 15u, byte = (unsigned)(both >> (8 * (n & 7u))) & 255u;
        if (n & 8u)
            byte = byte & 128u ? 255u : 0u;
        r |= byte << (8 * i);
    }
    return r;
}
AM_DEVICE unsigned __funnelshift_l(unsigned lo, unsigned hi, unsigned n)
{
    return (unsigned)(((uint64_t)hi << 32 | lo) << (n & 31u) >> 32);
}
AM_DEVICE unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned n)
{
    return (unsigned)(((uint64_t)hi << 32 | lo) >> (n & 31u));
}

#define AM_EMU_MIN_MAX(T)                                                                          \
    AM_DEVICE T min(T a, T b)                                                                      \
    {                                                                                              \
        return a < b ? a : b;                                                                      \
    }                                                                                              \
    AM_DEVICE T max(T a, T b)                                                                      \
    {                                                                                              \
        return a > b ? a : b;                                                                      \
    }
AM_EMU_MIN_MAX(int)
AM_EMU_MIN_MAX(unsigned)
AM_EMU_MIN_MAX(long)
AM_EMU_MIN_MAX(long long)
AM_EMU_MIN_MAX(unsigned long)
AM_EMU_MIN_MAX(unsigned long long)
#undef AM_EMU_MIN_MAX
/* Of floats, fminf and fmaxf: the operand that is a number wins. */
AM_DEVICE float min(float a, float b)
{
    return fminf(a, b);
}
AM_DEVICE float max(float a, float b)
{
    return fmaxf(a, b);
}
AM_DEVICE double min(double a, double b)
{
    return fmin(a, b);
}
AM_DEVICE double max(double a, double b)
{
    return fmax(a, b);
}

template <class T> inline T __ldg(const T *p)
{
    return *p;
}
template <class T> inline T __ldcs(const T *p)
{
    return *p;
}
template <class T> inline T __ldcg(const T *p)
{
    return *p;
}
template <class T> inline T __ldca(const T *p)
{
    return *p;
}
template <class T> inline void __stcs(T *p, T v)
{
    *p = v;
}
template <class T> inline void __stcg(T *p, T v)
{
    *p = v;
}
template <class T> inline void __stwt(T *p, T v)
{
    *p = v;
}

/* Fused operations of pairs: the toolkit's headers have them for devices only. */
AM_DEVICE __nv_bfloat162 __hfma2(__nv_bfloat162 a, __nv_bfloat162 b, __nv_bfloat162 c)
{
    return __floats2bfloat162_rn(fmaf(__low2float(a), __low2float(b), __low2float(c)),
                                 fmaf(__high2float(a), __high2float(b), __high2float(c)));
}
AM_DEVICE __half2 __hfma2(__half2 a, __half2 b, __half2 c)
{
    return __floats2half2_rn(fmaf(__low2float(a), __low2float(b), __low2float(c)),
                             fmaf(__high2float(a), __high2float(b), __high2float(c)));
}
AM_DEVICE __nv_bfloat16 __hfma(__nv_bfloat16 a, __nv_bfloat16 b, __nv_bfloat16 c)
{
    return __float2bfloat16(fmaf(__bfloat162float(a), __bfloat162float(b), __bfloat162float(c)));
}
AM_DEVICE __half __hfma(__half a, __half b, __half c)
{
    return __float2half(fmaf(__half2float(a), __half2float(b), __half2float(c)));
}

/* Time does not pass in a kernel. */
AM_DEVICE long long clock64()
{
    return 0;
}

#endif
