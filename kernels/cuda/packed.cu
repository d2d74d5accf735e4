/* packed.cu — weights in few bits: packing, unpacking, and products with a weight that is unpacked
 * on its way to the multiplication, so that it never lies in memory. The bits are those of
 * kernels/cpu/packed.h, whose tables these kernels are handed. */
#include "tile.cuh"
#include "../cpu/packed.h"

constexpr int NT = 256, WARPS = NT / 32, SUM_NT = 1024, V = 8;

/* ---- tables --------------------------------------------------------------------------------- */

/* What codes of 4 bits stand for, and those of scales as shares of an absmax. */
struct meanings {
    float code[16], share[256];
};

static meanings meanings_of(const am_packing *p)
{
    meanings m = {};
    memcpy(m.code, am_packed_table(p), sizeof m.code);
    if (am_packing_nested(p))
        memcpy(m.share, am_scale_map(), sizeof m.share);
    return m;
}

/* To shared memory, by all threads of a block; they are there behind its next barrier. */
AM_DEVICE void place(meanings *to, const meanings &m)
{
    for (int i = threadIdx.x; i < 256; i += blockDim.x) {
        to->share[i] = m.share[i];
        if (i < 16)
            to->code[i] = m.code[i];
    }
}

/* ---- packing -------------------------------------------------------------------------------- */

/* The middles of neighbours of 16 values in their order, and their codes, half a byte each. */
struct order {
    float middle[15];
    uint64_t codes;
};

static order order_of(const am_packing *p)
{
    const float *value = am_packed_table(p);
    order o = {};
    for (int j = 0; j < 16; j++) {
        int code = p->type == AM_PACK_FP4 ? am_fp4_order[j] : j;
        int next = p->type == AM_PACK_FP4 ? am_fp4_order[j < 15 ? j + 1 : j] : j + 1;
        o.codes |= (uint64_t)code << 4 * j;
        if (j < 15)
            o.middle[j] = (value[code] + value[next]) / 2;
    }
    return o;
}

/* As a whole number, which orders NaN above all; and back, NaN where it is not finite. */
AM_DEVICE int magnitude(float x)
{
    return __float_as_int(x) & 0x7fffffff;
}
AM_DEVICE float absmax_of(int most)
{
    return most < 0x7f800000 ? __int_as_float(most) : NAN;
}

/* A warp packs a block of 64, a lane two neighbours: am_pack_block. The other half of a last byte
 * has the code of 0. */
template <class T>
__global__ void __launch_bounds__(NT)
    pack_blocks_kernel(const T *a, uint8_t *codes, float *scales, int64_t n, order o)
{
    int lane = threadIdx.x & 31;
    int64_t blocks = (n + AM_PACK_BLOCK - 1) / AM_PACK_BLOCK;
    for (int64_t b = (int64_t)blockIdx.x * WARPS + (threadIdx.x >> 5); b < blocks;
         b += (int64_t)gridDim.x * WARPS) {
        int64_t first = b * AM_PACK_BLOCK, left = n - first;
        bool full = left >= AM_PACK_BLOCK;
        float x[2];
        int most = 0, code[2];
#pragma unroll
        for (int j = 0; j < 2; j++) {
            x[j] = 2 * lane + j < left ? (float)am_get(a[first + 2 * lane + j]) : 0;
            most = max(most, magnitude(x[j]));
        }
        float absmax = absmax_of(am_warp_max(most)), above = absmax > 1e-38f ? absmax : 1e-38f;
        float inverse = 1.0f / above;
#pragma unroll
        for (int j = 0; j < 2; j++) {
            float s = full ? am_mul(x[j], inverse) : x[j] / above;
            int below = 0;
            s = s > 1 ? 1 : s < -1 ? -1 : s;
#pragma unroll
            for (int k = 0; k < 15; k++)
                below += s > o.middle[k];
            code[j] = (int)(o.codes >> 4 * below & 15);
        }
        if (2 * lane < left)
            codes[first / 2 + lane] = (uint8_t)(code[0] << 4 | code[1]);
        if (lane == 0)
            scales[b] = !full && absmax < above ? above : absmax;
    }
}

/* A block of threads packs a row to int8, by way of f16: am_pack_int8_row. */
template <class T>
__global__ void __launch_bounds__(NT)
    pack_rows_kernel(const T *a, int8_t *codes, float *scales, int64_t rows, int64_t cols)
{
    for (int64_t r = blockIdx.x; r < rows; r += gridDim.x) {
        int most = 0;
        f16 x;
        for (int64_t i = threadIdx.x; i < cols; i += NT) {
            am_put(&x, (float)am_get(a[r * cols + i]));
            most = max(most, magnitude(am_get(x)));
        }
        float absmax = absmax_of(am_block_max(most));
        float scale = absmax > 0 ? am_mul(1.0f / absmax, 127.0f) : 0;
        for (int64_t i = threadIdx.x; i < cols; i += NT) {
            am_put(&x, (float)am_get(a[r * cols + i]));
            float v = am_mul(am_get(x), scale);
            codes[r * cols + i] = (int8_t)(magnitude(v) < 0x7f800000 ? (int)rintf(v) : 0);
        }
        if (threadIdx.x == 0)
            scales[r] = absmax;
    }
}

/* The mean of the scales: a sum in f64, in an order that depends on their number alone. */
__global__ void __launch_bounds__(SUM_NT)
    mean_kernel(float *mean, const float *scales, int64_t blocks)
{
    double sum = 0;
    for (int64_t b = threadIdx.x; b < blocks; b += SUM_NT)
        sum += (double)scales[b];
    sum = am_block_sum(sum);
    if (threadIdx.x == 0)
        *mean = (float)sum / (float)blocks;
}

/* The code of a share of -1 to 1: by the nearest of 65536 even steps, that of the nearest share. */
AM_DEVICE uint8_t code_of(float share, const float *shares)
{
    constexpr int STEPS = 65535, SHARES = 256;
    if (!(share >= -1))
        return 0;
    float step = floorf(am_add(am_mul(am_add(share, 1), STEPS / 2.0f), 0.5f));
    share = am_add((step < STEPS ? step : STEPS) / (STEPS / 2.0f), -1);
    int low = 0, high = SHARES;
    while (high - low > 1) { /* shares[low] <= share, but for the first */
        int middle = (low + high) / 2;
        if (shares[middle] <= share)
            low = middle;
        else
            high = middle;
    }
    if (low + 1 < SHARES && fabsf(share - shares[low + 1]) < fabsf(share - shares[low]))
        low++;
    return (uint8_t)low;
}

/* A block of threads packs AM_PACK_NEST scales. */
__global__ void __launch_bounds__(AM_PACK_NEST)
    pack_scales_kernel(float *to, uint8_t *nested, const float *scales, int64_t blocks, meanings m)
{
    AM_SHARED(meanings, mean, [1]);
    place(mean, m);
    __syncthreads();
    int64_t b = (int64_t)blockIdx.x * AM_PACK_NEST + threadIdx.x;
    float scale = b < blocks ? scales[b] - to[0] : 0;
    float absmax = absmax_of(am_block_max(magnitude(scale)));
    if (threadIdx.x == 0)
        to[1 + blockIdx.x] = absmax;
    if (b < blocks)
        nested[b] = code_of(scale / absmax, mean->share);
}

extern "C" int am_cuda_pack(am_stream *s, const am_pack_args *a)
{
    const am_packing *p = &a->packing;
    am_packed_parts to = am_packed_parts_of(a->packed, p);
    int64_t n = p->rows * p->cols, blocks = am_packing_blocks(p);
    float *scales = a->work ? a->work : to.scale;
    AM_FOR_FLOAT(a->dtype, T, {
        if (p->type == AM_PACK_INT8)
            AM_LAUNCH((pack_rows_kernel<T>), am_blocks(p->rows, 1), NT, 0, s->stream,
                      (const T *)a->a, (int8_t *)to.codes, scales, p->rows, p->cols);
        else
            AM_LAUNCH((pack_blocks_kernel<T>), am_blocks(blocks, WARPS), NT, 0, s->stream,
                      (const T *)a->a, to.codes, scales, n, order_of(p));
    });
    int rc = am_cuda_launched(s, "pack");
    if (rc != AM_OK || !a->work)
        return rc;
    AM_LAUNCH(mean_kernel, 1, SUM_NT, 0, s->stream, to.scale, scales, blocks);
    rc = am_cuda_launched(s, "pack");
    if (rc != AM_OK)
        return rc;
    AM_LAUNCH(pack_scales_kernel, (unsigned)((blocks + AM_PACK_NEST - 1) / AM_PACK_NEST),
              AM_PACK_NEST, 0, s->stream, to.scale, to.nested, scales, blocks, meanings_of(p));
    return am_cuda_launched(s, "pack");
}

/* ---- unpacking ------------------------------------------------------------------------------ */

struct packed_weight {
    const float *scale;
    const uint8_t *nested, *codes; /* nested: NULL where scales are as they are */
    int64_t rows, cols;
    bool int8, words; /* words: V numbers from a multiple of V on lie in whole words */

    __device__ __forceinline__ float scale_of(int64_t block, const meanings *m) const
    {
        if (!nested)
            return scale[block];
        float share = am_mul(m->share[nested[block]], scale[1 + block / AM_PACK_NEST]);
        return am_add(share, scale[0]);
    }

    static __device__ __forceinline__ float int8_of(int code, float scale)
    {
        return am_mul(am_mul((float)code, scale), 7.874015718698502e-3f);
    }

    __device__ __forceinline__ float at(int64_t row, int64_t col, const meanings *m) const
    {
        int64_t i = row * cols + col;
        if (row >= rows || col >= cols)
            return 0;
        if (int8)
            return int8_of((int8_t)codes[i], scale[row]);
        int code = codes[i / 2] >> (i % 2 ? 0 : 4) & 15;
        return am_mul(m->code[code], scale_of(i / AM_PACK_BLOCK, m));
    }

    /* V numbers of a row; 0 beyond its end. */
    __device__ __forceinline__ void read(float (&x)[V], int64_t row, int64_t col,
                                         const meanings *m) const
    {
        int64_t i = row * cols + col;
        if (!words || i % V || row >= rows || col + V > cols) {
#pragma unroll
            for (int j = 0; j < V; j++)
                x[j] = at(row, col + j, m);
        } else if (int8) {
            am_elems<int8_t, V> eight = *(const am_elems<int8_t, V> *)(codes + i);
            float by = scale[row];
#pragma unroll
            for (int j = 0; j < V; j++)
                x[j] = int8_of(eight.v[j], by);
        } else {
            am_elems<uint8_t, V / 2> eight = *(const am_elems<uint8_t, V / 2> *)(codes + i / 2);
            float by = scale_of(i / AM_PACK_BLOCK, m);
#pragma unroll
            for (int j = 0; j < V; j++)
                x[j] = am_mul(m->code[eight.v[j / 2] >> (j % 2 ? 0 : 4) & 15], by);
        }
    }
};

static packed_weight weight_of(const void *packed, const am_packing *p)
{
    am_packed_parts from = am_packed_parts_of(packed, p);
    packed_weight w;
    w.scale = from.scale;
    w.nested = from.nested;
    w.codes = from.codes;
    w.rows = p->rows;
    w.cols = p->cols;
    w.int8 = p->type == AM_PACK_INT8;
    w.words = (uintptr_t)from.codes % (w.int8 ? V : V / 2) == 0;
    return w;
}

/* A thread has V numbers of a row. */
template <class T>
__global__ void __launch_bounds__(NT)
    unpack_kernel(am_unpack_args a, packed_weight w, meanings m, bool wide)
{
    AM_SHARED(meanings, mean, [1]);
    place(mean, m);
    __syncthreads();
    int64_t each = (a.cols + V - 1) / V;
    for (int64_t i = (int64_t)blockIdx.x * NT + threadIdx.x; i < a.rows * each;
         i += (int64_t)gridDim.x * NT) {
        int64_t row = am_divide(i, each), col = (i - row * each) * V;
        float x[V];
        w.read(x, a.row + row, a.col + col, mean);
        am_write((T *)a.out + row * a.cols + col, x, a.cols - col, wide);
    }
}

extern "C" int am_cuda_unpack(am_stream *s, const am_unpack_args *a)
{
    int64_t each = (a->cols + V - 1) / V;
    bool wide = a->cols % V == 0 && am_aligned16(a->out);
    if (a->rows == 0 || a->cols == 0)
        return AM_OK;
    AM_FOR_FLOAT(a->dtype, T, {
        AM_LAUNCH((unpack_kernel<T>), am_blocks(a->rows * each, NT), NT, 0, s->stream, *a,
                  weight_of(a->packed, &a->packing), meanings_of(&a->packing), wide);
    });
    return am_cuda_launched(s, "unpack");
}

/* ---- products ------------------------------------------------------------------------------- */

/* The weight from a tile's first row and column on, rounded to T. */
template <class T> struct packed_operand {
    const packed_weight &w;
    const meanings *m;
    int64_t row, col;

    template <int ROWS, int COLS>
    __device__ __forceinline__ void load(T *to, int64_t r0, int64_t c0) const
    {
        tile_fill<T, ROWS, COLS>(to, [&](am_elems<T, V> &v, int r, int c) {
            float x[V];
            w.read(x, row + r0 + r, col + c0 + c, m);
#pragma unroll
            for (int j = 0; j < V; j++)
                am_put(&v.v[j], x[j]);
        });
    }
    __device__ __forceinline__ T at(int64_t r, int64_t c) const
    {
        return (T)w.at(row + r, col + c, m);
    }
};

/* blockIdx: a strip of c's rows, one of its columns. TRANS: c = a W^T, else a W. */
template <class T, bool TRANS>
__global__ void __launch_bounds__(tile_of<T>::NT, 1)
    packed_gemm_kernel(am_packed_gemm_args a, packed_weight w, meanings m, bool wide, bool wide_c)
{
    typedef tile_of<T> G;
    AM_SHARED(meanings, mean, [1]);
    int64_t row = (int64_t)blockIdx.x * G::BM, column = (int64_t)blockIdx.y * G::BN;
    int64_t n = TRANS ? w.rows : w.cols, k = TRANS ? w.cols : w.rows, c = row * n + column;
    place(mean, m);
    __syncthreads();
    dense_operand<T> left = {(const T *)a.a + row * k, a.m - row, k, k, wide};
    packed_operand<T> right = {w, mean, TRANS ? column : 0, TRANS ? 0 : column};
    tile_out<T> out = {};
    out.same_type = a.dtype_c == a.dtype;
    out.c = out.same_type ? (void *)((T *)a.c + c) : (void *)((float *)a.c + c);
    out.bias = a.bias ? (const T *)a.bias + column : NULL;
    out.m = a.m - row;
    out.n = n - column;
    out.ld = n;
    out.accumulate = a.accumulate;
    out.wide = wide_c;
    G::template product<false, TRANS>(left, right, k, out);
}

constexpr int FEW_NT = 128, FEW_WARPS = FEW_NT / 32, FEW_ROWS = 4;

/* A few rows times W^T, as gemv has it: a warp has a row of W, for FEW_ROWS rows of a. */
template <class T>
__global__ void __launch_bounds__(FEW_NT)
    packed_gemv_kernel(am_packed_gemm_args a, packed_weight w, meanings m, bool wide)
{
    typedef typename am_math<T>::type M;
    AM_SHARED(meanings, mean, [1]);
    place(mean, m);
    __syncthreads();
    int64_t column = (int64_t)blockIdx.x * FEW_WARPS + (threadIdx.x >> 5);
    int64_t first = (int64_t)blockIdx.y * FEW_ROWS, k = w.cols;
    int lane = threadIdx.x & 31;
    if (column >= w.rows)
        return; /* a whole warp */
    M sum[FEW_ROWS] = {0};
    for (int64_t i = lane * V; i < k; i += 32 * V) {
        float u[V];
        M v[V];
        w.read(u, column, i, mean);
#pragma unroll
        for (int j = 0; j < V; j++) {
            T rounded;
            am_put(&rounded, u[j]);
            u[j] = (float)am_get(rounded);
        }
#pragma unroll
        for (int r = 0; r < FEW_ROWS; r++) {
            if (first + r >= a.m)
                break;
            am_read(v, (const T *)a.a + (first + r) * k + i, k - i, wide);
#pragma unroll
            for (int j = 0; j < V; j++)
                sum[r] += u[j] * v[j];
        }
    }
#pragma unroll
    for (int r = 0; r < FEW_ROWS; r++) {
        M y = am_warp_sum(sum[r]);
        int64_t to = (first + r) * w.rows + column;
        if (lane != 0 || first + r >= a.m)
            continue;
        if (a.bias)
            y += (M)am_get(((const T *)a.bias)[column]);
        if (a.accumulate)
            y += am_get_any<M>(a.c, a.dtype_c, to);
        am_put_any(a.c, a.dtype_c, to, y);
    }
}

static unsigned strips(int64_t n, int width)
{
    return (unsigned)((n + width - 1) / width);
}

extern "C" int am_cuda_packed_gemm(am_stream *s, const am_packed_gemm_args *a)
{
    const am_packing *p = &a->packing;
    packed_weight w = weight_of(a->w, p);
    meanings m = meanings_of(p);
    int64_t n = a->trans ? p->rows : p->cols, k = a->trans ? p->cols : p->rows;
    if (a->dtype_c != a->dtype && (a->dtype_c != AM_F32 || a->dtype == AM_F64))
        return AM_EUNSUP;
    if (a->m == 0)
        return AM_OK;
    AM_FOR_FLOAT(a->dtype, T, {
        typedef tile_of<T> G;
        bool wide = k % V == 0 && am_aligned16(a->a), wide_c = n % V == 0 && am_aligned16(a->c);
        dim3 grid(strips(a->m, G::BM), strips(n, G::BN));
        if (a->few)
            AM_LAUNCH((packed_gemv_kernel<T>), dim3(strips(n, FEW_WARPS), strips(a->m, FEW_ROWS)),
                      FEW_NT, 0, s->stream, *a, w, m, wide);
        else if (a->trans)
            AM_LAUNCH((packed_gemm_kernel<T, true>), grid, G::NT, 0, s->stream, *a, w, m, wide,
                      wide_c);
        else
            AM_LAUNCH((packed_gemm_kernel<T, false>), grid, G::NT, 0, s->stream, *a, w, m, wide,
                      wide_c);
    });
    return am_cuda_launched(s, "packed_gemm");
}
