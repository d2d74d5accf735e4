/* am_emu_atomics.h — atomics of device code. One OS thread runs all emulated threads and none of
 * these suspends one, so that a plain read-modify-write is atomic; the runtime is told of each,
 * because atomics don't race with each other. Part of am_emu.h. */
#ifndef AM_EMU_ATOMICS_H
#define AM_EMU_ATOMICS_H

#define AM_EMU_ATOMIC_CODE __attribute__((no_sanitize("thread"))) static inline

namespace am_emu
{
template <class T, class F> AM_EMU_ATOMIC_CODE T modify(const char *site, T *p, F value_of)
{
    am_emu_atomic(site, p, sizeof(T));
    T old = *p;
    *p = value_of(old);
    return old;
}

AM_EMU_ATOMIC_CODE float sum(float a, float b)
{
    return a + b;
}
AM_EMU_ATOMIC_CODE double sum(double a, double b)
{
    return a + b;
}
AM_EMU_ATOMIC_CODE int sum(int a, int b)
{
    return (int)((unsigned)a + (unsigned)b);
}
AM_EMU_ATOMIC_CODE unsigned sum(unsigned a, unsigned b)
{
    return a + b;
}
AM_EMU_ATOMIC_CODE unsigned long long sum(unsigned long long a, unsigned long long b)
{
    return a + b;
}
AM_EMU_ATOMIC_CODE __half sum(__half a, __half b)
{
    return __float2half(__half2float(a) + __half2float(b));
}
AM_EMU_ATOMIC_CODE __nv_bfloat16 sum(__nv_bfloat16 a, __nv_bfloat16 b)
{
    return __float2bfloat16(__bfloat162float(a) + __bfloat162float(b));
}
AM_EMU_ATOMIC_CODE __half2 sum(__half2 a, __half2 b)
{
    return __floats2half2_rn(__low2float(a) + __low2float(b), __high2float(a) + __high2float(b));
}
AM_EMU_ATOMIC_CODE __nv_bfloat162 sum(__nv_bfloat162 a, __nv_bfloat162 b)
{
    return __floats2bfloat162_rn(__low2float(a) + __low2float(b),
                                 __high2float(a) + __high2float(b));
}

/* The operand has the type that the pointer says; CUDA's overloads convert it so, too. */
template <class T> struct operand {
    typedef T type;
};
template <class T> using of = typename operand<T>::type;

template <class T> AM_EMU_ATOMIC_CODE T atomic_add(const char *site, T *p, of<T> v)
{
    return modify(site, p, [=](T old) { return sum(old, v); });
}
template <class T> AM_EMU_ATOMIC_CODE T atomic_sub(const char *site, T *p, of<T> v)
{
    return modify(site, p, [=](T old) { return sum(old, T(0) - v); });
}
template <class T> AM_EMU_ATOMIC_CODE T atomic_max(const char *site, T *p, of<T> v)
{
    return modify(site, p, [=](T old) { return old > v ? old : v; });
}
template <class T> AM_EMU_ATOMIC_CODE T atomic_min(const char *site, T *p, of<T> v)
{
    return modify(site, p, [=](T old) { return old < v ? old : v; });
}
template <class T> AM_EMU_ATOMIC_CODE T atomic_and(const char *site, T *p, of<T> v)
{
    return modify(site, p, [=](T old) { return old & v; });
}
template <class T> AM_EMU_ATOMIC_CODE T atomic_or(const char *site, T *p, of<T> v)
{
    return modify(site, p, [=](T old) { return old | v; });
}
template <class T> AM_EMU_ATOMIC_CODE T atomic_xor(const char *site, T *p, of<T> v)
{
    return modify(site, p, [=](T old) { return old ^ v; });
}
template <class T> AM_EMU_ATOMIC_CODE T atomic_exch(const char *site, T *p, of<T> v)
{
    return modify(site, p, [=](T) { return v; });
}
template <class T> AM_EMU_ATOMIC_CODE T atomic_cas(const char *site, T *p, of<T> expected, of<T> v)
{
    return modify(site, p, [=](T old) { return old == expected ? v : old; });
}
} // namespace am_emu

#define atomicAdd(p, v)    am_emu::atomic_add(AM_EMU_SITE, p, v)
#define atomicSub(p, v)    am_emu::atomic_sub(AM_EMU_SITE, p, v)
#define atomicMax(p, v)    am_emu::atomic_max(AM_EMU_SITE, p, v)
#define atomicMin(p, v)    am_emu::atomic_min(AM_EMU_SITE, p, v)
#define atomicAnd(p, v)    am_emu::atomic_and(AM_EMU_SITE, p, v)
#define atomicOr(p, v)     am_emu::atomic_or(AM_EMU_SITE, p, v)
#define atomicXor(p, v)    am_emu::atomic_xor(AM_EMU_SITE, p, v)
#define atomicExch(p, v)   am_emu::atomic_exch(AM_EMU_SITE, p, v)
#define atomicCAS(p, c, v) am_emu::atomic_cas(AM_EMU_SITE, p, c, v)

#endif
