/* fake_quantize.cu — rounding to what few bits hold, and its gradient. A warp has a group: its grid
 * from the least and the largest element, then each element. Every step is rounded as the contract
 * says: computed in f32, which rounds once more to bf16 and f16; f64 in f64. */
#include "common.cuh"

constexpr int NT = 128, WARPS = NT / 32;

template <class T> constexpr double smallest_normal = 0x1p-126;
template <> constexpr double smallest_normal<f16> = 0x1p-14;
template <> constexpr double smallest_normal<double> = 0x1p-1022;
template <class T> constexpr bool is_bf16 = false;
template <> constexpr bool is_bf16<bf16> = true;

/* x as T holds it. */
template <class T, class M> AM_DEVICE M rounded(M x)
{
    T y;
    am_put(&y, x);
    return (M)am_get(y);
}

/* How a group is rounded. */
template <class T> struct grid {
    typedef typename am_math<T>::type M;
    M scale, inverse, zero, base, middle, lowest, highest;
};

/* What all groups have. */
struct rules {
    int kind;
    bool bf16_scale;

    template <class M> __device__ __forceinline__ M kept(M x) const
    {
        return bf16_scale ? rounded<bf16>(x) : rounded<float>(x);
    }
    /* To the wider of x's dtype and the scale's: bf16 where both are, else what it is computed in.
     */
    template <class T, class M> __device__ __forceinline__ M wide(M x) const
    {
        return is_bf16<T> && bf16_scale ? rounded<bf16>(x) : x;
    }
};

template <class T, class M> AM_DEVICE grid<T> grid_of(const rules &as, M least, M most)
{
    grid<T> g = {};
    M scale;
    if (as.kind == AM_FQ_INT4) {
        g.lowest = -8;
        g.highest = 7;
        scale = rounded<T>(max(-least, most) / (M)7.5);
        g.scale = as.kept(max(scale, (M)smallest_normal<T>));
    } else if (as.kind == AM_FQ_UINT4) {
        g.highest = 15;
        scale = rounded<T>(rounded<T>(am_add(most, -least)) / 15);
        scale = max(scale, rounded<T>((M)1e-6));
        g.middle = as.kept(rounded<T>(am_add(least, rounded<T>(am_mul(scale, (M)8)))));
        g.scale = as.kept(scale);
        g.base = as.kept(am_add(g.middle, -as.kept(am_mul(g.scale, (M)8))));
    } else {
        g.lowest = -128;
        g.highest = 127;
        least = min(least, (M)0);
        most = max(most, (M)0);
        scale = rounded<T>(rounded<T>(am_add(most, -least)) / 255);
        scale = max(scale, (M)0x1p-23);
        g.zero = rounded<T>(am_add((M)-128, -rint(rounded<T>(least / scale))));
        g.zero = min(max(g.zero, (M)-128), (M)127);
        g.scale = as.kept(scale);
    }
    g.inverse = as.kept(1 / g.scale);
    return g;
}

/* The level of x before it is cut to the lowest or highest. */
template <class T, class M> AM_DEVICE M level_of(const rules &as, const grid<T> &g, M x)
{
    if (as.kind == AM_FQ_UINT4)
        return rint(as.wide<T>(as.wide<T>(am_add(x, -g.base)) / g.scale));
    return as.wide<T>(am_add(rint(as.wide<T>(am_mul(x, g.inverse))), g.zero));
}

template <class T, class M> AM_DEVICE M value_of(const rules &as, const grid<T> &g, M level)
{
    level = level < g.lowest ? g.lowest : level > g.highest ? g.highest : level;
    if (as.kind != AM_FQ_UINT4)
        return as.wide<T>(am_mul(rounded<T>(am_add(level, -g.zero)), g.scale));
    M v = rounded<T>(as.wide<T>(am_mul(am_add(level, (M)-8), g.scale)));
    return as.wide<T>(am_add(v, g.middle));
}

template <class T, class M> AM_DEVICE M slope_of(const rules &as, const grid<T> &g, M level, M grad)
{
    M v = rounded<T>(as.wide<T>(am_mul(grad, g.scale)));
    if (!(level > g.lowest && level < g.highest))
        return 0;
    return as.wide<T>(as.kind == AM_FQ_UINT4 ? v / g.scale : am_mul(v, g.inverse));
}

template <class T>
__global__ void __launch_bounds__(NT, 1) fake_quantize_kernel(am_fake_quantize_args a, rules as)
{
    typedef typename am_math<T>::type M;
    int lane = threadIdx.x & 31;
    for (int64_t k = (int64_t)blockIdx.x * WARPS + (threadIdx.x >> 5); k < a.groups;
         k += (int64_t)gridDim.x * WARPS) {
        const T *x = (const T *)a.x + k * a.size;
        T *out = (T *)a.out + k * a.size;
        M least = NAN, most = NAN; /* which any number replaces */
        for (int64_t i = lane; i < a.size; i += 32) {
            least = min(least, (M)am_get(x[i]));
            most = max(most, (M)am_get(x[i]));
        }
#pragma unroll
        for (int o = 16; o; o >>= 1) {
            least = min(least, __shfl_xor_sync(0xffffffffu, least, o));
            most = max(most, __shfl_xor_sync(0xffffffffu, most, o));
        }
        grid<T> g = grid_of<T>(as, least, most);
        for (int64_t i = lane; i < a.size; i += 32) {
            M level = level_of(as, g, (M)am_get(x[i]));
            am_put(out + i,
                   a.grad ? slope_of(as, g, level, (M)am_get(((const T *)a.grad)[k * a.size + i]))
                          : value_of(as, g, level));
        }
    }
}

extern "C" int am_cuda_fake_quantize(am_stream *s, const am_fake_quantize_args *a)
{
    rules as = {a->kind,
                a->kind == AM_FQ_UINT4 || (a->kind == AM_FQ_INT4 && a->dtype_scale == AM_BF16)};
    if (a->groups == 0 || a->size == 0)
        return AM_OK;
    AM_FOR_FLOAT(a->dtype, T, {
        AM_LAUNCH((fake_quantize_kernel<T>), am_blocks(a->groups, WARPS), NT, 0, s->stream, *a, as);
    });
    return am_cuda_launched(s, "fake_quantize");
}
