/* map.cuh — one kernel for all that is computed element by element from up to three operands of one
 * dtype, over strided operands; what it computes is a functor, which may look an op up. With N > 1
 * a thread takes N neighbours, in pieces of 16 bytes at most: am_map_vectors says where that can
 * be.
 *
 * A functor that looks up among 28 functions is large. It costs some 20 instructions an element,
 * where an H100 has time for 34 while it reads and writes a bf16, and 50 for two read and one
 * written: kernels for each function would not be faster, and take a minute to compile. */
#pragma once

#include "vector.cuh"

constexpr int AM_MAP_THREADS = 256;

/* Can N elements of a simple nd be taken at once? Operand o is at p[o], in elements of size[o]; one
 * that stands still along the last dim is read once. */
static inline int am_map_vectors(const am_nd *nd, int operands, const void *const *p,
                                 const int *size, int n)
{
    int last = nd->ndim - 1;
    if (last < 0 || (last > 0 && nd->shape[last] % n))
        return 0;
    for (int o = 0; o < operands; o++) {
        int64_t stride = nd->stride[o][last];
        int bytes = n * size[o] < 16 ? n * size[o] : 16;
        if (stride == 0 && o > 0)
            continue;
        if (stride != 1 || (uintptr_t)p[o] % (unsigned)bytes)
            return 0;
        for (int d = 0; d < last; d++)
            if (nd->stride[o][d] % n)
                return 0;
    }
    return 1;
}

/* N elements of operand o from `at` on, in the type they are computed in; `stride` is that of the
 * last dim, 1 or 0 where N > 1. `left` of them are there. */
template <int N, class T>
AM_DEVICE void am_map_load(typename am_math<T>::type (&x)[N], const T *p, int64_t at,
                           int64_t stride, int64_t left)
{
    if (N > 1 && left >= N && stride == 1) {
        am_elems<T, N> v = *(const am_elems<T, N> *)(p + at);
#pragma unroll
        for (int k = 0; k < N; k++)
            x[k] = am_get(v.v[k]);
        return;
    }
#pragma unroll
    for (int k = 0; k < N; k++)
        x[k] = am_get(p[at + (k < left ? k : 0) * stride]);
}

/* x[1], ..., x[N-1], next */
template <int N, class M> AM_DEVICE void am_map_move(M (&x)[N], M next)
{
#pragma unroll
    for (int k = 0; k < N - 1; k++)
        x[k] = x[k + 1];
    x[N - 1] = next;
}

template <class T, int INS> struct am_map_inputs {
    const T *p[INS];
};

/* out = f(inputs...) */
template <int N, class TO, class T, int INS, class F>
__global__ void __launch_bounds__(AM_MAP_THREADS)
    map_kernel(TO *out, am_map_inputs<T, INS> in, am_nd nd, int64_t n, F f)
{
    typedef typename am_math<T>::type M;
    int64_t step = (int64_t)gridDim.x * AM_MAP_THREADS * N;
    int last = nd.ndim - 1;
    for (int64_t i = ((int64_t)blockIdx.x * AM_MAP_THREADS + threadIdx.x) * N; i < n; i += step) {
        int64_t at[INS + 1];
        M x[INS][N], y[N];
        am_nd_at(nd, i, at);
#pragma unroll
        for (int o = 0; o < INS; o++)
            am_map_load(x[o], in.p[o], at[o + 1], N > 1 ? nd.stride[o + 1][last] : 1, n - i);
            /* f is there once: the N elements move past it. */
#pragma unroll 1
        for (int k = 0; k < N; k++) {
            M e[INS];
#pragma unroll
            for (int o = 0; o < INS; o++) {
                e[o] = x[o][0];
                am_map_move(x[o], e[o]);
            }
            am_map_move(y, f(e));
        }
        am_write(out + at[0], y, n - i, N > 1 && n - i >= N);
    }
}

template <int N, class TO, class T, int INS, class F>
static void am_map_launch(am_stream *s, TO *out, am_map_inputs<T, INS> in, const am_nd *nd, F f)
{
    int64_t n = am_nd_numel(nd);
    AM_LAUNCH((map_kernel<N, TO, T, INS, F>), am_blocks((n + N - 1) / N, AM_MAP_THREADS),
              AM_MAP_THREADS, 0, s->stream, out, in, *nd, n, f);
}

/* The launch: four elements at once where the operands allow it; of 8-byte elements one. */
template <class TO, class T, int INS, class F>
static void am_map(am_stream *s, TO *out, am_map_inputs<T, INS> in, const am_nd *nd, F f)
{
    const void *p[INS + 1];
    int size[INS + 1];
    p[0] = out;
    size[0] = (int)sizeof(TO);
    for (int o = 0; o < INS; o++) {
        p[o + 1] = in.p[o];
        size[o + 1] = (int)sizeof(T);
    }
    if (sizeof(typename am_math<T>::type) < 8 && am_map_vectors(nd, INS + 1, p, size, 4))
        am_map_launch<sizeof(typename am_math<T>::type) < 8 ? 4 : 1>(s, out, in, nd, f);
    else
        am_map_launch<1>(s, out, in, nd, f);
}
