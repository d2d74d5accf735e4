/* scan.cu — running sums over the middle dim, in double, or in int64 for integers. Columns that lie
 * side by side have a thread each; a row alone has a block, which scans it tile by tile. */
#include "common.cuh"

constexpr int NT = 256, EACH = 4, TILE = NT * EACH, SIDE_BY_SIDE = 32;

struct source {
    const void *p;
    int dtype;
};
AM_DEVICE void load(double &x, const source &a, int64_t i)
{
    x = am_get_any<double>(a.p, a.dtype, i);
}
AM_DEVICE void load(int64_t &x, const source &a, int64_t i)
{
    x = am_load_int(a.p, a.dtype, i);
}
AM_DEVICE void store(void *out, int dtype, int64_t i, double x)
{
    am_put_any(out, dtype, i, x);
}
AM_DEVICE void store(void *out, int, int64_t i, int64_t x)
{
    ((int64_t *)out)[i] = x;
}

template <class M>
__global__ void __launch_bounds__(NT)
    columns_kernel(void *out, source a, int dtype_out, int reverse, int64_t n, int64_t inner,
                   int64_t rows)
{
    int64_t step = (int64_t)gridDim.x * NT;
    for (int64_t i = (int64_t)blockIdx.x * NT + threadIdx.x; i < rows; i += step) {
        int64_t o = am_divide(i, inner), first = o * n * inner + (i - o * inner);
        M sum = 0;
        for (int64_t j = 0; j < n; j++) {
            int64_t at = first + (reverse ? n - 1 - j : j) * inner;
            M x;
            load(x, a, at);
            sum += x;
            store(out, dtype_out, at, sum);
        }
    }
}

template <class M>
__global__ void __launch_bounds__(NT) rows_kernel(void *out, source a, int dtype_out, int reverse,
                                                  int64_t n, int64_t inner, int64_t rows)
{
    AM_SHARED(M, of_warp, [NT / 32]);
    int lane = threadIdx.x & 31, warp = threadIdx.x / 32;
    for (int64_t i = blockIdx.x; i < rows; i += gridDim.x) {
        int64_t o = am_divide(i, inner), first = o * n * inner + (i - o * inner);
        M before = 0; /* of the tiles so far */
        for (int64_t tile = 0; tile < n; tile += TILE) {
            int64_t j = tile + (int64_t)threadIdx.x * EACH;
            M x[EACH], sum = 0, own;
#pragma unroll
            for (int e = 0; e < EACH; e++) {
                M v = 0;
                if (j + e < n)
                    load(v, a, first + (reverse ? n - 1 - j - e : j + e) * inner);
                x[e] = sum += v;
            }
            own = sum;
#pragma unroll
            for (int d = 1; d < 32; d *= 2) { /* sums of the lanes up to this one */
                M v = __shfl_up_sync(0xffffffffu, sum, d);
                if (lane >= d)
                    sum += v;
            }
            __syncthreads(); /* the last tile's may still be read */
            if (lane == 31)
                of_warp[warp] = sum;
            __syncthreads();
            M here = before, whole = before;
#pragma unroll
            for (int w = 0; w < NT / 32; w++) {
                whole += of_warp[w];
                if (w < warp)
                    here = whole;
            }
            before = whole;
            here += sum - own;
#pragma unroll
            for (int e = 0; e < EACH; e++)
                if (j + e < n)
                    store(out, dtype_out, first + (reverse ? n - 1 - j - e : j + e) * inner,
                          here + x[e]);
        }
    }
}

template <class M> static void scan(am_stream *s, const am_cumsum_args *a)
{
    int64_t rows = a->outer * a->inner;
    source from = {a->a, a->dtype};
    if (a->inner >= SIDE_BY_SIDE)
        AM_LAUNCH(columns_kernel<M>, am_blocks(rows, NT), NT, 0, s->stream, a->out, from,
                  a->dtype_out, a->reverse, a->n, a->inner, rows);
    else
        AM_LAUNCH(rows_kernel<M>, am_blocks(rows, 1), NT, 0, s->stream, a->out, from, a->dtype_out,
                  a->reverse, a->n, a->inner, rows);
}

extern "C" int am_cuda_cumsum(am_stream *s, const am_cumsum_args *a)
{
    int floating = am_is_float(a->dtype);
    if (floating ? !am_is_float(a->dtype_out) : a->dtype_out != AM_I64)
        return AM_EUNSUP;
    if (a->outer * a->n * a->inner == 0)
        return AM_OK;
    if (floating)
        scan<double>(s, a);
    else
        scan<int64_t>(s, a);
    return am_cuda_launched(s, "cumsum");
}
