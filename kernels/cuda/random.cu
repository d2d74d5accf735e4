/* random.cu — dropout, and uniform and normal numbers: Philox's, the same ones as on any device
 * (rng.h). Dropout's `shift`, where there is one, is added to the stream's number: see graph.c. */
#include "map.cuh"

constexpr int NT = 256;

/* A thread takes the four numbers of a block; W of its elements at once, 4 or 1. */
template <int W, class T>
__global__ void __launch_bounds__(NT)
    dropout_kernel(T *out, const T *a, uint64_t threshold, typename am_math<T>::type scale,
                   uint64_t seed, uint64_t stream, const uint64_t *shift, int accumulate, int64_t n)
{
    typedef typename am_math<T>::type M;
    stream += shift ? *shift : 0;
    int64_t step = (int64_t)gridDim.x * NT * 4;
    for (int64_t i = ((int64_t)blockIdx.x * NT + threadIdx.x) * 4; i < n; i += step) {
        uint32_t words[4];
        am_philox(words, seed, stream, (uint64_t)i >> 2);
#pragma unroll
        for (int k = 0; k < 4; k += W) {
            M x[W], old[W];
            if (i + k >= n)
                break;
            am_map_load(x, a, i + k, 1, n - i - k);
            if (accumulate)
                am_map_load(old, out, i + k, 1, n - i - k);
#pragma unroll
            for (int e = 0; e < W; e++) {
                x[e] = words[k + e] >= threshold ? x[e] * scale : (M)0;
                if (accumulate)
                    x[e] += old[e];
            }
            am_write(out + i + k, x, n - i - k, W > 1 && n - i - k >= W);
        }
    }
}

extern "C" int am_cuda_dropout(am_stream *s, const am_dropout_args *a)
{
    uint64_t threshold = am_dropout_threshold(a->p);
    double scale = a->p < 1 ? 1 / (1 - a->p) : 0;
    unsigned blocks = am_blocks((a->n + 3) / 4, NT);
    const uint64_t *shift = am_cuda_shift(s);
    if (a->n == 0)
        return AM_OK;
    AM_FOR_FLOAT(a->dtype, T, {
        if ((((uintptr_t)a->out | (uintptr_t)a->a) & 15) == 0)
            AM_LAUNCH((dropout_kernel<4, T>), blocks, NT, 0, s->stream, (T *)a->out,
                      (const T *)a->a, threshold, scale, a->seed, a->stream, shift, a->accumulate,
                      a->n);
        else
            AM_LAUNCH((dropout_kernel<1, T>), blocks, NT, 0, s->stream, (T *)a->out,
                      (const T *)a->a, threshold, scale, a->seed, a->stream, shift, a->accumulate,
                      a->n);
    });
    return am_cuda_launched(s, "dropout");
}

/* The two normals of a pair, as am_normal01 has them; its sin and cos are taken in half turns. */
AM_DEVICE void normals(double &x, double &y, uint32_t wa, uint32_t wb)
{
    double u = ((double)wa + 1.0) * 0x1p-32, v = (double)wb * 0x1p-32;
    double r = sqrt(-2.0 * log(u));
    x = r * cospi(2 * v);
    y = r * sinpi(2 * v);
}

/* A thread takes a pair. */
template <class T>
__global__ void __launch_bounds__(NT) random_kernel(T *out, int kind, double a, double scale,
                                                    uint64_t seed, uint64_t stream, int64_t n)
{
    int64_t step = (int64_t)gridDim.x * NT * 2;
    for (int64_t i = ((int64_t)blockIdx.x * NT + threadIdx.x) * 2; i < n; i += step) {
        uint32_t words[4], wa, wb;
        double x, y;
        am_philox(words, seed, stream, (uint64_t)i >> 2);
        wa = i & 2 ? words[2] : words[0];
        wb = i & 2 ? words[3] : words[1];
        if (kind == AM_RANDOM_UNIFORM) {
            x = am_uniform01(wa);
            y = am_uniform01(wb);
        } else {
            normals(x, y, wa, wb);
        }
        am_put(out + i, a + scale * x);
        if (i + 1 < n)
            am_put(out + i + 1, a + scale * y);
    }
}

extern "C" int am_cuda_random(am_stream *s, const am_random_args *a)
{
    if (a->n == 0)
        return AM_OK;
    int rc = am_cuda_outside_graphs(s, "it fills a tensor at random");
    if (rc != AM_OK)
        return rc;
    double scale = a->kind == AM_RANDOM_UNIFORM ? a->b - a->a : a->b;
    AM_FOR_FLOAT(a->dtype, T, {
        AM_LAUNCH(random_kernel<T>, am_blocks((a->n + 1) / 2, NT), NT, 0, s->stream, (T *)a->out,
                  a->kind, a->a, scale, a->seed, a->stream, a->n);
    });
    return am_cuda_launched(s, "random");
}
