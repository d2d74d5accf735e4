/* common.cuh — what the families of kernels share: element types, positions in strided operands,
 * sums over warps and blocks. Holds no kernel. */
#pragma once

#include "am_cuda.h"

typedef __nv_bfloat16 bf16;
typedef __half f16;
struct am_bool {
    uint8_t byte; /* 0 or 1 */
};

/* ---- element types ---- */

/* What an element is computed in: f64 for f64, integers as int64, f32 for the others. */
template <class T> struct am_math {
    typedef float type;
};
template <> struct am_math<double> {
    typedef double type;
};
template <> struct am_math<int32_t> {
    typedef int64_t type;
};
template <> struct am_math<int64_t> {
    typedef int64_t type;
};
template <> struct am_math<uint8_t> {
    typedef int64_t type;
};
template <> struct am_math<am_bool> {
    typedef int64_t type;
};

AM_DEVICE float am_get(float x)
{
    return x;
}
AM_DEVICE float am_get(bf16 x)
{
    return __bfloat162float(x);
}
AM_DEVICE float am_get(f16 x)
{
    return __half2float(x);
}
AM_DEVICE double am_get(double x)
{
    return x;
}
AM_DEVICE int64_t am_get(int32_t x)
{
    return x;
}
AM_DEVICE int64_t am_get(int64_t x)
{
    return x;
}
AM_DEVICE int64_t am_get(uint8_t x)
{
    return x;
}
AM_DEVICE int64_t am_get(am_bool x)
{
    return x.byte;
}

/* C's conversion where C defines it; saturating, and 0 for NaN, where it does not. */
AM_DEVICE int64_t am_int(double x)
{
    if (x != x)
        return 0;
    if (x >= 9223372036854775808.0)
        return INT64_MAX;
    return x < -9223372036854775808.0 ? INT64_MIN : (int64_t)x;
}
AM_DEVICE int64_t am_int(float x)
{
    return am_int((double)x);
}
AM_DEVICE int64_t am_int(int64_t x)
{
    return x;
}

/* Store x, rounded once to nearest even; integers by am_int and modulo 2^bits, bool by != 0. */
template <class X> AM_DEVICE void am_put(float *p, X x)
{
    *p = (float)x;
}
template <class X> AM_DEVICE void am_put(double *p, X x)
{
    *p = (double)x;
}
template <class X> AM_DEVICE void am_put(bf16 *p, X x)
{
    bf16 y = __float2bfloat16_rn((float)x); /* a store of its own, which a checker sees */
    *p = y;
}
template <class X> AM_DEVICE void am_put(f16 *p, X x)
{
    f16 y = __float2half_rn((float)x);
    *p = y;
}
template <class X> AM_DEVICE void am_put(int32_t *p, X x)
{
    *p = (int32_t)am_int(x);
}
template <class X> AM_DEVICE void am_put(int64_t *p, X x)
{
    *p = am_int(x);
}
template <class X> AM_DEVICE void am_put(uint8_t *p, X x)
{
    *p = (uint8_t)am_int(x);
}
template <class X> AM_DEVICE void am_put(am_bool *p, X x)
{
    p->byte = x != 0;
}

static __host__ __device__ __forceinline__ int am_is_float(int dtype)
{
    return dtype == AM_F32 || dtype == AM_BF16 || dtype == AM_F16 || dtype == AM_F64;
}

static __host__ __device__ __forceinline__ int am_size(int dtype)
{
    switch (dtype) {
    case AM_F64:
    case AM_I64:
        return 8;
    case AM_F32:
    case AM_I32:
        return 4;
    case AM_BF16:
    case AM_F16:
        return 2;
    default:
        return 1;
    }
}

/* Run `code` with T the type of a dtype; another dtype returns AM_EUNSUP from the function. */
#define AM_FOR_FLOAT(dtype, T, ...)                                                                \
    switch (dtype) {                                                                               \
        AM_CASE_(AM_F32, float, T, __VA_ARGS__)                                                    \
        AM_CASE_(AM_BF16, bf16, T, __VA_ARGS__)                                                    \
        AM_CASE_(AM_F16, f16, T, __VA_ARGS__)                                                      \
        AM_CASE_(AM_F64, double, T, __VA_ARGS__)                                                   \
    default:                                                                                       \
        return AM_EUNSUP;                                                                          \
    }
#define AM_FOR_INT(dtype, T, ...)                                                                  \
    switch (dtype) {                                                                               \
        AM_CASE_(AM_I32, int32_t, T, __VA_ARGS__)                                                  \
        AM_CASE_(AM_I64, int64_t, T, __VA_ARGS__)                                                  \
        AM_CASE_(AM_U8, uint8_t, T, __VA_ARGS__)                                                   \
        AM_CASE_(AM_BOOL, am_bool, T, __VA_ARGS__)                                                 \
    default:                                                                                       \
        return AM_EUNSUP;                                                                          \
    }
#define AM_FOR_ANY(dtype, T, ...)                                                                  \
    if (am_is_float(dtype))                                                                        \
        AM_FOR_FLOAT(dtype, T, __VA_ARGS__)                                                        \
    else                                                                                           \
        AM_FOR_INT(dtype, T, __VA_ARGS__)
#define AM_CASE_(id, type, T, ...)                                                                 \
    case id: {                                                                                     \
        typedef type T;                                                                            \
        __VA_ARGS__;                                                                               \
    } break;

/* N elements that are read or written at once, in pieces of 16 bytes at most. */
template <class T, int N> struct __align__(sizeof(T) * N < 16 ? sizeof(T) * N : 16) am_elems
{
    T v[N];
};

/* An element of a dtype that is known when the kernel runs. */
AM_DEVICE int64_t am_load_int(const void *p, int dtype, int64_t i)
{
    switch (dtype) {
    case AM_I32:
        return ((const int32_t *)p)[i];
    case AM_I64:
        return ((const int64_t *)p)[i];
    default:
        return ((const uint8_t *)p)[i];
    }
}
AM_DEVICE void am_store_int(void *p, int dtype, int64_t i, int64_t x)
{
    switch (dtype) {
    case AM_I32:
        am_put((int32_t *)p + i, x);
        break;
    case AM_I64:
        am_put((int64_t *)p + i, x);
        break;
    case AM_BOOL:
        am_put((am_bool *)p + i, x);
        break;
    default:
        am_put((uint8_t *)p + i, x);
    }
}
template <class M> AM_DEVICE M am_get_any(const void *p, int dtype, int64_t i) /* floating */
{
    switch (dtype) {
    case AM_F32:
        return (M)((const float *)p)[i];
    case AM_BF16:
        return (M)am_get(((const bf16 *)p)[i]);
    case AM_F16:
        return (M)am_get(((const f16 *)p)[i]);
    default:
        return (M)((const double *)p)[i];
    }
}
template <class X> AM_DEVICE void am_put_any(void *p, int dtype, int64_t i, X x)
{
    switch (dtype) {
    case AM_F32:
        am_put((float *)p + i, x);
        break;
    case AM_BF16:
        am_put((bf16 *)p + i, x);
        break;
    case AM_F16:
        am_put((f16 *)p + i, x);
        break;
    default:
        am_put((double *)p + i, x);
    }
}

/* ---- what nothing fuses with another operation, so that its rounding is kept ---- */

AM_DEVICE float am_mul(float a, float b)
{
    return __fmul_rn(a, b);
}
AM_DEVICE double am_mul(double a, double b)
{
    return __dmul_rn(a, b);
}
AM_DEVICE float am_add(float a, float b)
{
    return __fadd_rn(a, b);
}
AM_DEVICE double am_add(double a, double b)
{
    return __dadd_rn(a, b);
}

/* ---- positions ---- */

/* Blocks of `threads` that walk n elements with a grid-stride loop. */
static inline unsigned am_blocks(int64_t n, int threads)
{
    int64_t blocks = (n + threads - 1) / threads;
    return (unsigned)(blocks < 1 ? 1 : blocks < 65535 ? blocks : 65535);
}

/* i / n of two that are not negative; in 32 bits where they fit, which is far faster. */
AM_DEVICE int64_t am_divide(int64_t i, int64_t n)
{
    return (i | n) >> 32 ? i / n : (int64_t)((uint32_t)i / (uint32_t)n);
}

static inline int64_t am_nd_numel(const am_nd *nd)
{
    int64_t n = 1;
    for (int d = 0; d < nd->ndim; d++)
        n *= nd->shape[d];
    return n;
}

/* The same walk in as few dims: none of one element, neighbours as one where no operand minds. */
static inline am_nd am_nd_simple(const am_nd *nd, int operands)
{
    am_nd r = {}; /* nothing in it is left to chance */
    for (int d = 0; d < nd->ndim; d++) {
        int last = r.ndim - 1, joins = last >= 0;
        if (nd->shape[d] == 1)
            continue;
        for (int o = 0; joins && o < operands; o++)
            joins = r.stride[o][last] == nd->stride[o][d] * nd->shape[d];
        if (!joins)
            r.shape[last = r.ndim++] = 1;
        r.shape[last] *= nd->shape[d];
        for (int o = 0; o < operands; o++)
            r.stride[o][last] = nd->stride[o][d];
    }
    return r;
}

/* Offsets of element i in the first N operands; of the first ndim dims alone. */
template <int N> AM_DEVICE void am_nd_at(const am_nd &nd, int64_t i, int64_t (&at)[N], int ndim)
{
#pragma unroll
    for (int o = 0; o < N; o++)
        at[o] = 0;
    for (int d = ndim - 1; d >= 0; d--) {
        int64_t next = 0, k = i;
        if (d > 0) {
            next = am_divide(i, nd.shape[d]);
            k -= next * nd.shape[d];
        }
#pragma unroll
        for (int o = 0; o < N; o++)
            at[o] += k * nd.stride[o][d];
        i = next;
    }
}

template <int N> AM_DEVICE void am_nd_at(const am_nd &nd, int64_t i, int64_t (&at)[N])
{
    am_nd_at(nd, i, at, nd.ndim);
}

/* ---- bad indices ---- */

/* Leave it for the next sync, unless another was first. `what` is host text. */
AM_DEVICE void am_report(am_cuda_problem *problem, int64_t value, int64_t limit, const char *what)
{
    if (atomicExch(&problem->seen, 1ull) == 0ull) {
        problem->value = value;
        problem->limit = limit;
        problem->what = what;
    }
}

/* i, or 0 with a report when it is outside of 0..limit-1. */
AM_DEVICE int64_t am_checked(int64_t i, int64_t limit, am_cuda_problem *problem, const char *what)
{
    if (i >= 0 && i < limit)
        return i;
    am_report(problem, i, limit, what);
    return 0;
}

/* ---- warps and blocks ---- */

template <class T> AM_DEVICE T am_warp_sum(T x)
{
#pragma unroll
    for (int o = 16; o; o >>= 1)
        x += __shfl_xor_sync(0xffffffffu, x, o);
    return x;
}

template <class T> AM_DEVICE T am_warp_max(T x)
{
#pragma unroll
    for (int o = 16; o; o >>= 1) {
        T y = __shfl_xor_sync(0xffffffffu, x, o);
        x = x > y ? x : y;
    }
    return x;
}

/* The block's sum, in every thread, in an order that depends on the block's size alone. All of its
 * threads call it; a block is whole warps. */
template <class T> AM_DEVICE T am_block_sum(T x)
{
    AM_SHARED(T, part, [32]);
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
    x = am_warp_sum(x);
    __syncthreads(); /* an earlier call's may still be read */
    if (lane == 0)
        part[warp] = x;
    __syncthreads();
    return am_warp_sum(lane < warps ? part[lane] : (T)0);
}

template <class T> AM_DEVICE T am_block_max(T x)
{
    AM_SHARED(T, part, [32]);
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
    x = am_warp_max(x);
    __syncthreads(); /* as above */
    if (lane == 0)
        part[warp] = x;
    __syncthreads();
    return am_warp_max(lane < warps ? part[lane] : part[0]);
}
