/* gemv.cu — a few rows times a transposed weight, as decoding has them: each warp reads a row of
 * the weight once, for up to ROWS rows of x. */
#include "vector.cuh"

constexpr int NT = 128, WARPS = NT / 32, ROWS = 4;

template <class T, int ROWS>
__global__ void __launch_bounds__(NT) gemv_kernel(am_gemv_args a, bool wide)
{
    typedef typename am_math<T>::type M;
    constexpr int V = AM_WIDTH(T);
    int64_t column = (int64_t)blockIdx.x * WARPS + (threadIdx.x >> 5);
    int64_t first = (int64_t)blockIdx.y * ROWS;
    int lane = threadIdx.x & 31;
    if (column >= a.n)
        return; /* a whole warp */
    const T *w = (const T *)a.w + column * a.k, *x = (const T *)a.x + first * a.k;
    M sum[ROWS] = {0};
    for (int64_t i = lane * V; i < a.k; i += 32 * V) {
        M u[V], v[V];
        am_read(u, w + i, a.k - i, wide);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            if (first + r >= a.rows)
                break;
            am_read(v, x + r * a.k + i, a.k - i, wide);
#pragma unroll
            for (int j = 0; j < V; j++)
                sum[r] += u[j] * v[j];
        }
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        M y = am_warp_sum(sum[r]) * (M)a.alpha;
        if (lane != 0 || first + r >= a.rows)
            continue;
        T *to = (T *)a.y + (first + r) * a.n + column;
        if (a.bias)
            y += (M)am_get(((const T *)a.bias)[column]);
        if (a.accumulate)
            y += (M)am_get(*to);
        am_put(to, y);
    }
}

extern "C" int am_cuda_gemv(am_stream *s, const am_gemv_args *a)
{
    if (a->rows == 0 || a->n == 0)
        return AM_OK;
    dim3 grid((unsigned)((a->n + WARPS - 1) / WARPS), (unsigned)((a->rows + ROWS - 1) / ROWS));
    AM_FOR_FLOAT(a->dtype, T, {
        bool wide = a->k % AM_WIDTH(T) == 0 && am_aligned16(a->x, a->w);
        if (a->rows == 1)
            AM_LAUNCH((gemv_kernel<T, 1>), grid, NT, 0, s->stream, *a, wide);
        else
            AM_LAUNCH((gemv_kernel<T, ROWS>), grid, NT, 0, s->stream, *a, wide);
    });
    return am_cuda_launched(s, "gemv");
}
