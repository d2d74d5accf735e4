/* fp8.cu — products in 8 bits: casts with a scale, and the product. That is cuBLASLt's (cublas.c)
 * where the GPU has it, over operands that are turned to lie as it wants them; else, and for sizes
 * that it refuses, tiles of f16, which holds both formats. */
#include "tile.cuh"
#include "../cpu/fp8.h"

constexpr int NT = 256, WARPS = NT / 32, V = 8, PARTS = 1024, SLOT = 1;

/* ---- casts ---------------------------------------------------------------------------------- */

/* |x| as a whole number, which orders NaN above infinity; as that of a double. */
AM_DEVICE int magnitude(float x)
{
    return __float_as_int(x) & 0x7fffffff;
}
AM_DEVICE long long magnitude(double x)
{
    return __double_as_longlong(x) & 0x7fffffffffffffffll;
}
AM_DEVICE unsigned long long as_double(int bits)
{
    return (unsigned long long)__double_as_longlong((double)__int_as_float(bits));
}
AM_DEVICE unsigned long long as_double(long long bits)
{
    return (unsigned long long)bits;
}

/* The largest magnitudes of groups of `size` neighbours; a group is cut in gridDim.y parts. */
template <class T>
__global__ void __launch_bounds__(NT)
    amax_kernel(unsigned long long *amax, const T *a, int64_t groups, int64_t size, bool wide)
{
    typedef typename am_math<T>::type M;
    constexpr int W = AM_WIDTH(T);
    for (int64_t g = blockIdx.x; g < groups; g += gridDim.x) {
        decltype(magnitude((M)0)) most = 0;
        for (int64_t i = ((int64_t)blockIdx.y * NT + threadIdx.x) * W; i < size;
             i += (int64_t)gridDim.y * NT * W) {
            M x[W];
            am_read(x, a + g * size + i, size - i, wide && size - i >= W);
#pragma unroll
            for (int j = 0; j < W; j++)
                most = max(most, magnitude(x[j]));
        }
        most = am_block_max(most);
        if (threadIdx.x == 0)
            atomicMax(amax + g, as_double(most)); /* whole numbers: in any order the same */
    }
}

/* Of columns: a lane has one, a warp its share of the rows. */
template <class T>
__global__ void __launch_bounds__(NT)
    amax_columns_kernel(unsigned long long *amax, const T *a, int64_t rows, int64_t cols)
{
    typedef typename am_math<T>::type M;
    typedef decltype(magnitude((M)0)) bits;
    AM_SHARED(bits, part, [WARPS][32]);
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    int64_t col = (int64_t)blockIdx.x * 32 + lane;
    bits most = 0;
    for (int64_t r = (int64_t)blockIdx.y * WARPS + warp; r < rows && col < cols;
         r += (int64_t)gridDim.y * WARPS)
        most = max(most, magnitude((M)am_get(a[r * cols + col])));
    part[warp][lane] = most;
    __syncthreads();
    if (warp != 0 || col >= cols)
        return;
#pragma unroll
    for (int w = 1; w < WARPS; w++)
        most = max(most, part[w][lane]);
    atomicMax(amax + col, as_double(most));
}

__global__ void __launch_bounds__(NT)
    scale_kernel(float *scale, float *inverse, const unsigned long long *amax, int64_t n,
                 double largest, int power_of_2)
{
    for (int64_t i = (int64_t)blockIdx.x * NT + threadIdx.x; i < n; i += (int64_t)gridDim.x * NT) {
        float s = fp8_scale(__longlong_as_double((long long)amax[i]), largest, power_of_2);
        scale[i] = s;
        inverse[i] = 1 / s;
    }
}

/* A thread has V numbers of a row. */
template <class T>
__global__ void __launch_bounds__(NT)
    cast_kernel(am_fp8_quantize_args a, const float *scale, fp8_format f, bool wide)
{
    typedef typename am_math<T>::type M;
    int64_t each = (a.cols + V - 1) / V;
    for (int64_t i = (int64_t)blockIdx.x * NT + threadIdx.x; i < a.rows * each;
         i += (int64_t)gridDim.x * NT) {
        int64_t row = am_divide(i, each), col = (i - row * each) * V, at = row * a.cols + col;
        int64_t left = a.cols - col;
        am_elems<uint8_t, V> q;
        M x[V];
        float one = a.per == AM_FP8_PER_COLUMN ? 0 : scale[a.per == AM_FP8_PER_ROW ? row : 0];
        am_read(x, (const T *)a.a + at, left, wide);
#pragma unroll
        for (int j = 0; j < V; j++) {
            float by = a.per == AM_FP8_PER_COLUMN && j < left ? scale[col + j] : one;
            q.v[j] = fp8_encode(am_mul((float)x[j], by), &f);
        }
        if (wide) {
            *(am_elems<uint8_t, V> *)((uint8_t *)a.q + at) = q;
            continue;
        }
#pragma unroll
        for (int j = 0; j < V; j++)
            if (j < left)
                ((uint8_t *)a.q)[at + j] = q.v[j];
    }
}

extern "C" int am_cuda_fp8_quantize(am_stream *s, const am_fp8_quantize_args *a)
{
    void *p;
    fp8_format f = fp8_format_of(a->format);
    int64_t n = a->rows * a->cols, each = (a->cols + V - 1) / V;
    int64_t scales = a->per == AM_FP8_PER_TENSOR ? 1 : a->per == AM_FP8_PER_ROW ? a->rows : a->cols;
    if (!am_is_float(a->dtype))
        return AM_EUNSUP;
    if (scales == 0)
        return AM_OK;
    int rc = am_cuda_scratch(s, &p, SLOT, (size_t)scales * (8 + 4));
    if (rc != AM_OK)
        return rc;
    unsigned long long *amax = (unsigned long long *)p;
    float *scale = (float *)(amax + scales);
    cudaError_t e = cudaMemsetAsync(amax, 0, (size_t)scales * 8, s->stream);
    if (e != cudaSuccess)
        return am_cuda_fail(e, "clearing memory");
    AM_FOR_FLOAT(a->dtype, T, {
        int64_t groups = a->per == AM_FP8_PER_ROW ? a->rows : 1, size = n / groups;
        unsigned parts = am_blocks(size, NT * AM_WIDTH(T));
        bool wide = size % AM_WIDTH(T) == 0 && am_aligned16(a->a);
        parts = groups > 1 ? 1 : parts < PARTS ? parts : PARTS;
        if (n > 0 && a->per == AM_FP8_PER_COLUMN)
            AM_LAUNCH((amax_columns_kernel<T>),
                      dim3((unsigned)((a->cols + 31) / 32), am_blocks(a->rows, WARPS * 32)), NT, 0,
                      s->stream, amax, (const T *)a->a, a->rows, a->cols);
        else if (n > 0)
            AM_LAUNCH((amax_kernel<T>), dim3(am_blocks(groups, 1), parts), NT, 0, s->stream, amax,
                      (const T *)a->a, groups, size, wide);
        AM_LAUNCH(scale_kernel, am_blocks(scales, NT), NT, 0, s->stream, scale, a->inverse, amax,
                  scales, f.max, a->power_of_2);
        if (n > 0)
            AM_LAUNCH((cast_kernel<T>), am_blocks(a->rows * each, NT), NT, 0, s->stream, *a, scale,
                      f, a->cols % V == 0 && am_aligned16(a->a) && (uintptr_t)a->q % V == 0);
    });
    return am_cuda_launched(s, "fp8_quantize");
}

/* ---- products by tiles ---------------------------------------------------------------------- */

/* A number of 8 bits as f16: e5m2 is its upper half, e4m3 has the mantissa 3 bits further up; its
 * exponent is left as it is, which makes it 2^-8 of what it stands for. */
AM_DEVICE f16 half_of(uint8_t q, bool e5m2)
{
    __half_raw h;
    h.x = (unsigned short)(e5m2               ? q << 8
                           : (q & 127) == 127 ? 0x7e00
                                              : (q & 128) << 8 | (q & 127) << 7);
    return f16(h);
}

static float unit_of(int format)
{
    return format == AM_FP8_E5M2 ? 1.0f : 256.0f;
}

/* As tile.cuh wants an operand. wide: rows are multiples of V bytes. */
template <class T> struct fp8_operand {
    const uint8_t *p;
    int64_t rows, cols, ld;
    bool e5m2, wide;

    template <int ROWS, int COLS>
    __device__ __forceinline__ void load(T *to, int64_t r0, int64_t c0) const
    {
        tile_fill<T, ROWS, COLS>(to, [&](am_elems<T, V> &v, int r, int c) {
            am_elems<uint8_t, V> q = {};
            int64_t row = r0 + r, left = row < rows ? cols - c0 - c : 0;
            const uint8_t *from = p + row * ld + c0 + c;
            if (wide && left >= V)
                q = *(const am_elems<uint8_t, V> *)from;
            else
#pragma unroll
                for (int j = 0; j < V; j++)
                    q.v[j] = j < left ? from[j] : 0;
#pragma unroll
            for (int j = 0; j < V; j++)
                v.v[j] = half_of(q.v[j], e5m2);
        });
    }
    __device__ __forceinline__ T at(int64_t r, int64_t c) const
    {
        return r < rows && c < cols ? (T)am_get(half_of(p[r * ld + c], e5m2)) : (T)0;
    }
};

/* Sums times scales to c. */
struct fp8_out {
    const am_fp8_gemm_args &a;
    int64_t row, col; /* of the tile */
    float unit;
    bool wide;

    template <class M, int W>
    __device__ __forceinline__ void put(int64_t r, int64_t c, M (&sum)[W]) const
    {
        int64_t i = row + r, j = col + c, left = a.n - j, to = i * a.n + j;
        if (i >= a.m || left <= 0)
            return;
        M more[W], by = a.inverse_a[a.rows_a ? i : 0];
        bool whole = wide && left >= W;
#pragma unroll
        for (int k = 0; k < W; k++)
            if (k < left)
                sum[k] = sum[k] * unit * by * (M)a.inverse_b[a.columns_b ? j + k : 0];
        if (a.accumulate) {
            am_read_any(more, a.c, a.dtype_c, to, left, whole);
#pragma unroll
            for (int k = 0; k < W; k++)
                sum[k] += more[k];
        }
        am_write_any(a.c, a.dtype_c, to, sum, left, whole);
    }
};

/* blockIdx: a strip of c's rows, one of its columns. T: f16, or double for c in f64. */
template <class T, bool TA, bool TB>
__global__ void __launch_bounds__(tile_of<T>::NT, 1)
    fp8_gemm_kernel(am_fp8_gemm_args a, float unit, bool wide_a, bool wide_b, bool wide_c)
{
    typedef tile_of<T> G;
    int64_t row = (int64_t)blockIdx.x * G::BM, col = (int64_t)blockIdx.y * G::BN;
    int64_t m = a.m - row, n = a.n - col;
    fp8_operand<T> left = {(const uint8_t *)a.a + row * (TA ? 1 : a.k),
                           TA ? a.k : m,
                           TA ? m : a.k,
                           TA ? a.m : a.k,
                           a.format_a == AM_FP8_E5M2,
                           wide_a};
    fp8_operand<T> right = {(const uint8_t *)a.b + col * (TB ? a.k : 1),
                            TB ? n : a.k,
                            TB ? a.k : n,
                            TB ? a.k : a.n,
                            a.format_b == AM_FP8_E5M2,
                            wide_b};
    fp8_out out = {a, row, col, unit, wide_c};
    G::template product<TA, TB>(left, right, a.k, out);
}

template <class T> static void by_tiles(am_stream *s, const am_fp8_gemm_args *a)
{
    typedef tile_of<T> G;
    dim3 grid((unsigned)((a->m + G::BM - 1) / G::BM), (unsigned)((a->n + G::BN - 1) / G::BN));
    float unit = unit_of(a->format_a) * unit_of(a->format_b);
    bool wide_a = ((uintptr_t)a->a | (uintptr_t)(a->trans_a ? a->m : a->k)) % V == 0;
    bool wide_b = ((uintptr_t)a->b | (uintptr_t)(a->trans_b ? a->k : a->n)) % V == 0;
    bool wide_c = a->n % V == 0 && am_aligned16(a->c);
#define TILES(TA, TB)                                                                              \
    AM_LAUNCH((fp8_gemm_kernel<T, TA, TB>), grid, G::NT, 0, s->stream, *a, unit, wide_a, wide_b,   \
              wide_c)
    if (a->trans_a && a->trans_b)
        TILES(true, true);
    else if (a->trans_a)
        TILES(true, false);
    else if (a->trans_b)
        TILES(false, true);
    else
        TILES(false, false);
#undef TILES
}

/* ---- products by cuBLASLt ------------------------------------------------------------------- */

constexpr int SIDE = 64;

/* in [rows, cols] -> out [cols, ld], 0 from `rows` on; ld is a multiple of 16. words: in's rows are
 * whole words. */
__global__ void __launch_bounds__(NT)
    turn_kernel(uint8_t *out, const uint8_t *in, int64_t rows, int64_t cols, int64_t ld, bool words)
{
    constexpr int W = 4, EACH = SIDE / W;
    typedef am_elems<uint8_t, W> word;
    AM_SHARED(word, tile, [SIDE][EACH + 1]);
    int64_t row = (int64_t)blockIdx.x * SIDE, col = (int64_t)blockIdx.y * SIDE;
    for (int i = threadIdx.x; i < SIDE * EACH; i += NT) {
        int r = i / EACH, c = i % EACH * W;
        const uint8_t *from = in + (row + r) * cols + col + c;
        int64_t left = row + r < rows ? cols - col - c : 0;
        word v = {};
        if (words && left >= W)
            v = *(const word *)from;
        else
#pragma unroll
            for (int j = 0; j < W; j++)
                v.v[j] = j < left ? from[j] : 0;
        tile[r][c / W] = v;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < SIDE * EACH; i += NT) {
        int c = i / EACH, r = i % EACH * W;
        word v;
#pragma unroll
        for (int j = 0; j < W; j++)
            v.v[j] = ((const uint8_t *)tile[r + j])[c];
        if (col + c < cols && row + r < ld)
            *(word *)(out + (col + c) * ld + row + r) = v;
    }
}

/* One scale as n of them. */
__global__ void __launch_bounds__(NT) repeat_kernel(float *out, const float *one, int64_t n)
{
    for (int64_t i = (int64_t)blockIdx.x * NT + threadIdx.x; i < n; i += (int64_t)gridDim.x * NT)
        out[i] = *one;
}

static void turn(am_stream *s, uint8_t *out, const void *in, int64_t rows, int64_t cols, int64_t ld)
{
    dim3 grid((unsigned)((ld + SIDE - 1) / SIDE), (unsigned)((cols + SIDE - 1) / SIDE));
    AM_LAUNCH(turn_kernel, grid, NT, 0, s->stream, out, (const uint8_t *)in, rows, cols, ld,
              cols % 4 == 0 && (uintptr_t)in % 4 == 0);
}

/* cuBLASLt takes a [m, k] and b [n, k], k a multiple of 16, and scales of one kind: operands that
 * lie otherwise are turned, then with zeros up to such a k. AM_EUNSUP where it doesn't do it. */
static int by_library(am_stream *s, const am_fp8_gemm_args *a)
{
    am_fp8_gemm_args g = *a;
    void *p;
    int64_t k = (a->k + 15) / 16 * 16;
    bool turn_a = a->trans_a, turn_b = !a->trans_b, each = a->rows_a || a->columns_b;
    if (a->k == 0 || (k != a->k && !(turn_a && turn_b)) || !am_cuda_fp8_library(a))
        return AM_EUNSUP;
    int64_t room_a = turn_a ? (a->m * k + 255) / 256 * 256 : 0, room_b = turn_b ? a->n * k : 0;
    room_b = (room_b + 255) / 256 * 256;
    int64_t repeats = each && !a->rows_a ? a->m : each && !a->columns_b ? a->n : 0;
    int rc = am_cuda_scratch(s, &p, SLOT, (size_t)(room_a + room_b + 4 * repeats));
    if (rc != AM_OK)
        return rc;
    uint8_t *at = (uint8_t *)p;
    if (turn_a) {
        turn(s, at, a->a, a->k, a->m, k);
        g.a = at;
    }
    if (turn_b) {
        turn(s, at + room_a, a->b, a->k, a->n, k);
        g.b = at + room_a;
    }
    if (repeats) {
        float *scales = (float *)(void *)(at + room_a + room_b);
        AM_LAUNCH(repeat_kernel, am_blocks(repeats, NT), NT, 0, s->stream, scales,
                  a->rows_a ? a->inverse_b : a->inverse_a, repeats);
        (a->rows_a ? g.inverse_b : g.inverse_a) = scales;
    }
    g.trans_a = 0;
    g.trans_b = 1;
    g.rows_a = g.columns_b = each;
    g.k = k;
    rc = am_cuda_launched(s, "fp8_gemm");
    return rc == AM_OK ? am_cuda_fp8_product(s, &g) : rc;
}

extern "C" int am_cuda_fp8_gemm(am_stream *s, const am_fp8_gemm_args *a)
{
    if (!am_is_float(a->dtype_c))
        return AM_EUNSUP;
    if (a->m == 0 || a->n == 0)
        return AM_OK;
    int rc = by_library(s, a);
    if (rc != AM_EUNSUP)
        return rc;
    if (a->dtype_c == AM_F64)
        by_tiles<double>(s, a);
    else
        by_tiles<f16>(s, a);
    return am_cuda_launched(s, "fp8_gemm");
}
