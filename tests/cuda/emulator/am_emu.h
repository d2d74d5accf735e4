/* am_emu.h — what device code sees of the emulated GPU: qualifiers, built-in variables, launches,
 * shared memory, barriers, warp collectives, tensor cores and asynchronous copies. A .cu file is
 * compiled with it as ordinary C++17. What can suspend a thread or has to be checked is a function
 * of the runtime beside this file; atomics and mathematics are in headers of their own. */
#ifndef AM_EMU_H
#define AM_EMU_H

#if !defined(__x86_64__)
#error                                                                                             \
    "the emulated GPU switches stacks in x86-64 assembly: other processors need their own am_emu_swap (fiber.cpp)"
#endif

#include <cuda_runtime_api.h>
#include <vector_functions.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <assert.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <utility>

/* Which branches of AM_ARCH are compiled. __CUDA_ARCH__ stays undefined: with it the toolkit's
 * headers choose PTX. */
#ifndef AM_EMU_ARCH
#define AM_EMU_ARCH 900
#endif
#define AM_ARCH AM_EMU_ARCH

#undef __global__
#undef __device__
#undef __host__
#undef __constant__
#undef __shared__
#undef __forceinline__
#undef __noinline__
#undef __launch_bounds__
#undef __grid_constant__
#undef __align__
#define __global__
#define __device__
#define __host__
#define __constant__
#define __shared__      shared_memory_is_declared_with_AM_SHARED
#define __forceinline__ inline
#define __noinline__    __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))
#define AM_DEVICE    static inline

/* The scheduler rewrites these at every switch of threads and blocks. */
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
static constexpr int warpSize = 32;

/* ---- the runtime's side; a site is "file:line" ---------------------------------------------- */

#define AM_EMU_TEXT2(x) #x
#define AM_EMU_TEXT(x)  AM_EMU_TEXT2(x)
#define AM_EMU_SITE     __FILE__ ":" AM_EMU_TEXT(__LINE__)

enum am_emu_shuffle { AM_EMU_IDX, AM_EMU_UP, AM_EMU_DOWN, AM_EMU_XOR };
enum am_emu_vote { AM_EMU_BALLOT, AM_EMU_ANY, AM_EMU_ALL };
enum am_emu_reduction { AM_EMU_ADD, AM_EMU_MIN, AM_EMU_MAX, AM_EMU_AND, AM_EMU_OR, AM_EMU_EXOR };
enum am_emu_predicate { AM_EMU_COUNT, AM_EMU_EVERY, AM_EMU_SOME };
enum am_emu_mma {
    AM_EMU_MMA_BF16,
    AM_EMU_MMA_F16,
    AM_EMU_MMA_TF32,
    AM_EMU_MMA_E4M3,
    AM_EMU_MMA_E5M2
};

typedef void am_emu_call(void *closure);

/* Where a static shared array lies in the block that runs. */
struct am_emu_place {
    unsigned long long block;
    void *p;
};

extern "C" {
cudaError_t am_emu_launch(const char *name, const void *kernel, dim3 grid, dim3 block,
                          size_t shared, cudaStream_t stream, am_emu_call *call,
                          am_emu_call *destroy, void *closure, size_t closure_size);
void *am_emu_dyn_shared(void);
void *am_emu_static_shared(const char *name, am_emu_place *place, size_t size, size_t align);
void am_emu_syncthreads(const char *site);
int am_emu_syncthreads_with(const char *site, int what, int predicate);
void am_emu_syncwarp(const char *site, unsigned mask);
void am_emu_shfl(const char *site, int kind, unsigned mask, const void *in, void *out, int size,
                 int arg, int width);
unsigned am_emu_vote(const char *site, int kind, unsigned mask, int predicate);
unsigned am_emu_reduce(const char *site, int kind, int is_signed, unsigned mask, unsigned value);
unsigned am_emu_match_any(const char *site, unsigned mask, unsigned long long value);
unsigned am_emu_active_mask(void);
void am_emu_mma(const char *site, int kind, float *d, const uint32_t *a, const uint32_t *b,
                const float *c);
void am_emu_ldmatrix(const char *site, int matrices, int transposed, uint32_t *r, const void *p);
void am_emu_cp_async(const char *site, void *shared, const void *global, int size, int bytes);
void am_emu_cp_commit(void);
void am_emu_cp_wait(int groups);
void am_emu_yield(void);
void am_emu_trap(const char *site);
/* Checks an access that the compiler doesn't show to the flavour `check`: of an atomic, or a copy.
 */
void am_emu_atomic(const char *site, const void *p, int size);
void am_emu_touch(const void *p, size_t bytes, int write);
}

/* ---- launches ------------------------------------------------------------------------------- */

namespace am_emu
{
template <class F>
cudaError_t launch_closure(const char *name, const void *kernel, dim3 grid, dim3 block,
                           size_t shared, cudaStream_t stream, F f)
{
    return am_emu_launch(
        name, kernel, grid, block, shared, stream, [](void *p) { (*static_cast<F *>(p))(); },
        [](void *p) { delete static_cast<F *>(p); }, new F(f), sizeof(F));
}

/* Arguments are converted to the kernel's parameter types when it is launched, as CUDA does. */
template <class... P, class... A>
cudaError_t launch(const char *name, dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
                   void (*kernel)(P...), A &&...args)
{
    static_assert(sizeof...(P) == sizeof...(A), "a kernel is launched with all its arguments");
    auto bind = [&](P... p) {
        return launch_closure(name, reinterpret_cast<const void *>(kernel), grid, block, shared,
                              stream, [=]() { kernel(p...); });
    };
    return bind(std::forward<A>(args)...);
}

template <class T>
T shuffle(const char *site, am_emu_shuffle kind, unsigned mask, T v, int arg, int width = 32)
{
    static_assert(sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8,
                  "a type that can be shuffled");
    T out;
    am_emu_shfl(site, kind, mask, &v, &out, sizeof(T), arg, width);
    return out;
}

template <class T> T reduce(const char *site, am_emu_reduction kind, unsigned mask, T v)
{
    static_assert(sizeof(T) == 4, "__reduce_*_sync takes int and unsigned");
    return static_cast<T>(am_emu_reduce(site, kind, T(-1) < T(0), mask, static_cast<unsigned>(v)));
}

template <class T> unsigned match_any(const char *site, unsigned mask, T v)
{
    unsigned long long bits = 0;
    static_assert(sizeof(T) <= sizeof bits, "__match_any_sync takes 4 or 8 bytes");
    memcpy(&bits, &v, sizeof v);
    return am_emu_match_any(site, mask, bits);
}
} // namespace am_emu

#define AM_LAUNCH(kernel, grid, block, smem, stream, ...)                                          \
    am_emu::launch(#kernel, (grid), (block), (smem), (stream), kernel __VA_OPT__(, ) __VA_ARGS__)

#define AM_SHARED(T, name, ...)                                                                    \
    T(&name)                                                                                       \
    __VA_ARGS__ = [&]() -> T(&) __VA_ARGS__ {                                                      \
        static am_emu_place am_place_;                                                             \
        typedef T am_array_ __VA_ARGS__;                                                           \
        return *(am_array_ *)am_emu_static_shared(#name, &am_place_, sizeof(am_array_),            \
                                                  alignof(am_array_));                             \
    }()
#define AM_DYN_SHARED(T, name) T *name = static_cast<T *>(am_emu_dyn_shared())

/* ---- barriers and warp collectives: macros, so that their place is known -------------------- */

#define __syncthreads()             am_emu_syncthreads(AM_EMU_SITE)
#define __syncthreads_count(p)      am_emu_syncthreads_with(AM_EMU_SITE, AM_EMU_COUNT, (p) != 0)
#define __syncthreads_and(p)        am_emu_syncthreads_with(AM_EMU_SITE, AM_EMU_EVERY, (p) != 0)
#define __syncthreads_or(p)         am_emu_syncthreads_with(AM_EMU_SITE, AM_EMU_SOME, (p) != 0)
#define AM_EMU_SYNCWARP(mask, ...)  am_emu_syncwarp(AM_EMU_SITE, (mask))
#define __syncwarp(...)             AM_EMU_SYNCWARP(__VA_ARGS__ __VA_OPT__(, ) 0xffffffffu)
#define __shfl_sync(m, v, ...)      am_emu::shuffle(AM_EMU_SITE, AM_EMU_IDX, m, v, __VA_ARGS__)
#define __shfl_up_sync(m, v, ...)   am_emu::shuffle(AM_EMU_SITE, AM_EMU_UP, m, v, __VA_ARGS__)
#define __shfl_down_sync(m, v, ...) am_emu::shuffle(AM_EMU_SITE, AM_EMU_DOWN, m, v, __VA_ARGS__)
#define __shfl_xor_sync(m, v, ...)  am_emu::shuffle(AM_EMU_SITE, AM_EMU_XOR, m, v, __VA_ARGS__)
#define __ballot_sync(m, p)         am_emu_vote(AM_EMU_SITE, AM_EMU_BALLOT, m, (p) != 0)
#define __any_sync(m, p)            static_cast<int>(am_emu_vote(AM_EMU_SITE, AM_EMU_ANY, m, (p) != 0))
#define __all_sync(m, p)            static_cast<int>(am_emu_vote(AM_EMU_SITE, AM_EMU_ALL, m, (p) != 0))
#define __reduce_add_sync(m, v)     am_emu::reduce(AM_EMU_SITE, AM_EMU_ADD, m, v)
#define __reduce_min_sync(m, v)     am_emu::reduce(AM_EMU_SITE, AM_EMU_MIN, m, v)
#define __reduce_max_sync(m, v)     am_emu::reduce(AM_EMU_SITE, AM_EMU_MAX, m, v)
#define __reduce_and_sync(m, v)     am_emu::reduce(AM_EMU_SITE, AM_EMU_AND, m, v)
#define __reduce_or_sync(m, v)      am_emu::reduce(AM_EMU_SITE, AM_EMU_OR, m, v)
#define __reduce_xor_sync(m, v)     am_emu::reduce(AM_EMU_SITE, AM_EMU_EXOR, m, v)
#define __match_any_sync(m, v)      am_emu::match_any(AM_EMU_SITE, m, v)
#define __activemask()              am_emu_active_mask()
#define __trap()                    am_emu_trap(AM_EMU_SITE)
#define __nanosleep(ns)             ((void)(ns), am_emu_yield())
/* Blocks run one at a time and every access is sequentially consistent: fences have nothing to do.
 */
#define __threadfence()        ((void)0)
#define __threadfence_block()  ((void)0)
#define __threadfence_system() ((void)0)

/* ---- tensor cores and asynchronous copies: as the GPU's am_target.h has them ---------------- */

#define am_mma_bf16_16816(d, a, b, c) am_emu_mma(AM_EMU_SITE, AM_EMU_MMA_BF16, d, a, b, c)
#define am_mma_f16_16816(d, a, b, c)  am_emu_mma(AM_EMU_SITE, AM_EMU_MMA_F16, d, a, b, c)
#define am_mma_tf32_1688(d, a, b, c)  am_emu_mma(AM_EMU_SITE, AM_EMU_MMA_TF32, d, a, b, c)
#define am_mma_e4m3_16832(d, a, b, c) am_emu_mma(AM_EMU_SITE, AM_EMU_MMA_E4M3, d, a, b, c)
#define am_mma_e5m2_16832(d, a, b, c) am_emu_mma(AM_EMU_SITE, AM_EMU_MMA_E5M2, d, a, b, c)
#define am_ldmatrix_x4(r, p)          am_emu_ldmatrix(AM_EMU_SITE, 4, 0, r, p)
#define am_ldmatrix_x4_trans(r, p)    am_emu_ldmatrix(AM_EMU_SITE, 4, 1, r, p)
#define am_cp_async16(s, g, bytes)    am_emu_cp_async(AM_EMU_SITE, s, g, 16, bytes)
#define am_cp_async_commit()          am_emu_cp_commit()
template <int N> static inline void am_cp_async_wait()
{
    am_emu_cp_wait(N);
}

/* The compiler shows loads and stores to the flavour `check`, but not what a long memcpy does. */
#if defined(__SANITIZE_THREAD__)
namespace am_emu
{
static inline void *copy(void *d, const void *s, size_t n)
{
    am_emu_touch(s, n, 0);
    am_emu_touch(d, n, 1);
    return __builtin_memmove(d, s, n);
}
static inline void *fill(void *d, int v, size_t n)
{
    am_emu_touch(d, n, 1);
    return __builtin_memset(d, v, n);
}
} // namespace am_emu
#define memcpy(d, s, n)                                                                            \
    (__builtin_constant_p(n) && (n) <= 8 ? __builtin_memcpy(d, s, n) : am_emu::copy(d, s, n))
#define memmove(d, s, n) am_emu::copy(d, s, n)
#define memset(d, v, n)  am_emu::fill(d, v, n)
#endif

#include "am_emu_atomics.h"
#include "am_emu_math.h"

#endif
