/* softmax.cu — softmax and its logarithm over the middle dim, and their gradients. A row is a
 * warp's, or a block's where it is long. Passes over it: its maximum, its sum, the result; all but
 * the first find it in cache. */
#include "common.cuh"

/* BLOCKS on a multiprocessor, at least: left to itself ptxas spills to have more. */
constexpr int NT = 256, LONG_ROW = 1024, BLOCKS = 3;

/* A row's threads: WIDE, the block; else a warp. */
template <bool WIDE, class M> AM_DEVICE M row_sum(M x)
{
    return WIDE ? am_block_sum(x) : am_warp_sum(x);
}
template <bool WIDE, class M> AM_DEVICE M row_max(M x)
{
    return WIDE ? am_block_max(x) : am_warp_max(x);
}

/* Rows and lanes of a thread; a row's elements are `inner` apart. */
template <bool WIDE> struct row_walk {
    int lane, lanes;
    int64_t row, step;
    __device__ __forceinline__ row_walk()
    {
        lanes = WIDE ? NT : 32;
        lane = (int)threadIdx.x % lanes;
        row = (int64_t)blockIdx.x * (NT / lanes) + threadIdx.x / lanes;
        step = (int64_t)gridDim.x * (NT / lanes);
    }
};

template <class T, bool WIDE>
__global__ void __launch_bounds__(NT, BLOCKS)
    softmax_kernel(T *out, const T *a, int logarithm, int64_t rows, int64_t n, int64_t inner)
{
    typedef typename am_math<T>::type M;
    row_walk<WIDE> w;
    for (; w.row < rows; w.row += w.step) {
        int64_t o = am_divide(w.row, inner), first = o * n * inner + (w.row - o * inner);
        M max = -INFINITY, sum = 0;
#pragma unroll 2
        for (int64_t j = w.lane; j < n; j += w.lanes) {
            M x = am_get(a[first + j * inner]);
            max = x > max ? x : max;
        }
        max = row_max<WIDE>(max);
#pragma unroll 2
        for (int64_t j = w.lane; j < n; j += w.lanes)
            sum += exp(am_get(a[first + j * inner]) - max);
        sum = row_sum<WIDE>(sum);
        M whole = logarithm ? log(sum) : 1 / sum;
#pragma unroll 2
        for (int64_t j = w.lane; j < n; j += w.lanes) {
            M x = am_get(a[first + j * inner]) - max;
            am_put(out + first + j * inner, logarithm ? x - whole : exp(x) * whole);
        }
    }
}

/* softmax: da = out (dout - sum dout out); its logarithm: da = dout - e^out sum dout */
template <class T, bool WIDE>
__global__ void __launch_bounds__(NT, BLOCKS)
    softmax_bwd_kernel(T *da, const T *dout, const T *out, int logarithm, int64_t rows, int64_t n,
                       int64_t inner)
{
    typedef typename am_math<T>::type M;
    row_walk<WIDE> w;
    for (; w.row < rows; w.row += w.step) {
        int64_t o = am_divide(w.row, inner), first = o * n * inner + (w.row - o * inner);
        M sum = 0;
#pragma unroll 2
        for (int64_t j = w.lane; j < n; j += w.lanes) {
            int64_t k = first + j * inner;
            sum += am_get(dout[k]) * (logarithm ? (M)1 : am_get(out[k]));
        }
        sum = row_sum<WIDE>(sum);
#pragma unroll 2
        for (int64_t j = w.lane; j < n; j += w.lanes) {
            int64_t k = first + j * inner;
            M g = am_get(dout[k]), y = am_get(out[k]);
            am_put(da + k, logarithm ? g - exp(y) * sum : y * (g - sum));
        }
    }
}

extern "C" int am_cuda_softmax(am_stream *s, const am_softmax_args *a)
{
    int64_t rows = a->outer * a->inner;
    if (rows * a->n == 0)
        return AM_OK;
    AM_FOR_FLOAT(a->dtype, T, {
        if (a->n >= LONG_ROW)
            AM_LAUNCH((softmax_kernel<T, true>), am_blocks(rows, 1), NT, 0, s->stream, (T *)a->out,
                      (const T *)a->a, a->log, rows, a->n, a->inner);
        else
            AM_LAUNCH((softmax_kernel<T, false>), am_blocks(rows, NT / 32), NT, 0, s->stream,
                      (T *)a->out, (const T *)a->a, a->log, rows, a->n, a->inner);
    });
    return am_cuda_launched(s, "softmax");
}

extern "C" int am_cuda_softmax_bwd(am_stream *s, const am_softmax_bwd_args *a)
{
    int64_t rows = a->outer * a->inner;
    if (rows * a->n == 0)
        return AM_OK;
    AM_FOR_FLOAT(a->dtype, T, {
        if (a->n >= LONG_ROW)
            AM_LAUNCH((softmax_bwd_kernel<T, true>), am_blocks(rows, 1), NT, 0, s->stream,
                      (T *)a->da, (const T *)a->dout, (const T *)a->out, a->log, rows, a->n,
                      a->inner);
        else
            AM_LAUNCH((softmax_bwd_kernel<T, false>), am_blocks(rows, NT / 32), NT, 0, s->stream,
                      (T *)a->da, (const T *)a->dout, (const T *)a->out, a->log, rows, a->n,
                      a->inner);
    });
    return am_cuda_launched(s, "softmax_bwd");
}
