/* attention.cu — attention in bf16 and f16 on tensor cores, forward; and attention_merge. Other
 * dtypes and what isn't laid out for copies of 16 bytes go to attention_plain.cu.
 *
 * A block takes BM queries of a head, a warp 16 MB of them, and walks over tiles of BN keys: an
 * online softmax (Milakov & Gimelshein 2018) as in FlashAttention-2 (Dao 2023). There is one tile
 * of keys and one of values in shared memory: each is copied while the other is worked on. Scores
 * and probabilities stay in registers. */
#include "attention.cuh"
#include "cudnn.h"

/* d up to D. Blocks on a multiprocessor: what registers and, on sm_80, shared memory allow. */
template <int D> struct forward_shape;
template <> struct forward_shape<64> {
    static constexpr int MB = 2, BN = 64, BLOCKS = 2;
};
template <> struct forward_shape<128> {
    static constexpr int MB = 2, BN = 32, BLOCKS = 2;
};
template <> struct forward_shape<256> {
    static constexpr int MB = 1, BN = 32, BLOCKS = 2;
};
template <int D> struct forward_tile : forward_shape<D> {
    static constexpr int NT = 128, BM = 64 * forward_shape<D>::MB;
    static constexpr int SHARED = (BM + 2 * forward_shape<D>::BN) * am_row<D> * 2;
};

/* Zeros for what is dropped; the factor of what is kept comes with the sums' division. */
template <int MB, int N>
AM_DEVICE void drop(float (&s)[MB][N][4], const am_attention_shape &x, uint64_t mask, int key)
{
    int lane = threadIdx.x & 31;
#pragma unroll
    for (int m = 0; m < MB; m++) {
        uint32_t kept = 0; /* drawn in a loop, as a register array can't be walked in one */
#pragma unroll 1
        for (int i = 0; i < N * 4; i++) {
            int row = m * 16 + (i >> 1 & 1) * 8, c = (i >> 2) * 8 + (lane & 3) * 2 + (i & 1);
            kept |= (uint32_t)am_kept(x, mask + (uint64_t)(row * x.s + key + c)) << i;
        }
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int j = 0; j < 4; j++)
                if (!(kept >> (n * 4 + j) & 1))
                    s[m][n][j] = 0;
    }
}

template <class T, int D>
__global__ void __launch_bounds__(forward_tile<D>::NT, forward_tile<D>::BLOCKS)
    attention_kernel(am_attention_args a, int tiles)
{
    typedef forward_tile<D> F;
    constexpr int BM = F::BM, BN = F::BN, MB = F::MB, NT = F::NT;
    AM_DYN_SHARED(T, q_tile);
    T *k_tile = q_tile + BM * am_row<D>, *v_tile = k_tile + BN * am_row<D>;
    AM_SHARED(am_query_rows<BM>, rows, [1]);
    const am_attention_shape &x = a.shape;
    /* The last queries see the most keys when causal: they begin. */
    int first = (tiles - 1 - (int)(blockIdx.x % tiles)) * BM, d = (int)x.d;
    int heads = (int)x.h, head = (int)(blockIdx.x / tiles) % heads;
    int b = (int)(blockIdx.x / tiles) / heads, kv_head = head / (heads / (int)x.kh);
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, row = warp * 16 * MB + (lane >> 2);
    const T *q = (const T *)a.q + b * x.q_batch + first * x.q_token + head * x.q_head;
    const T *k = (const T *)a.k + b * x.k_batch + kv_head * x.k_head;
    const T *v = (const T *)a.v + b * x.v_batch + kv_head * x.v_head;

    am_query_rows_set(rows[0], x, a.bounds, b, first);
    am_tile_load<BM, D, NT>(q_tile, q, x.q_token, (int)x.t - first, d);
    __syncthreads();
    am_key_walk w = {0, 0, 0, 0};
    bool more = am_walk_segment<BN>(w, rows[0]);
    if (more)
        am_tile_load<BN, D, NT>(k_tile, k + w.key * x.k_token, x.k_token, w.high - w.key, d);
    am_cp_async_commit();

    float sink = a.sinks ? ((const float *)a.sinks)[head] : -INFINITY;
    float sum[MB][D / 8][4], top[MB][2], total[MB][2];
    am_tile_clear(sum);
#pragma unroll
    for (int m = 0; m < MB; m++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            top[m][i] = sink * AM_LOG2E; /* a sink is like a key that came before */
            total[m][i] = sink != -INFINITY && (lane & 3) == 0 ? 1 : 0;
        }
    float scale = (float)x.scale, cap = (float)x.softcap, unit = AM_LOG2E * (cap > 0 ? 1 : scale);

    while (more) {
        bool some = false, all = true;
#pragma unroll
        for (int i = 0; i < 2 * MB; i++) {
            int r = row + i * 8, high = r >= w.row0 && r < w.row1 ? rows[0].end[r] : 0;
            some |= rows[0].start[r] < w.key + BN && high > w.key;
            all &= rows[0].start[r] <= w.key && high >= w.key + BN;
        }
        some = __any_sync(AM_WARP, some);
        all = __all_sync(AM_WARP, all);
        float s[MB][BN / 8][4];

        am_cp_async_wait<0>();
        __syncthreads(); /* the keys are there, and nobody reads the last values */
        am_tile_load<BN, D, NT>(v_tile, v + w.key * x.v_token, x.v_token, w.high - w.key, d);
        am_cp_async_commit();
        if (some)
            am_tile_dot<MB, BN, D>(s, q_tile + warp * 16 * MB * am_row<D>, k_tile);
        if (some && cap > 0) {
#pragma unroll
            for (int m = 0; m < MB; m++)
#pragma unroll
                for (int n = 0; n < BN / 8; n++)
#pragma unroll
                    for (int j = 0; j < 4; j++)
                        s[m][n][j] = am_soft_cap(s[m][n][j], scale, cap);
        }
        if (some && !all) {
#pragma unroll
            for (int i = 0; i < 2 * MB; i++) {
                int r = row + i * 8, low = rows[0].start[r] - w.key - (lane & 3) * 2;
                int high = r >= w.row0 && r < w.row1 ? rows[0].end[r] : 0;
                high -= w.key + (lane & 3) * 2;
#pragma unroll
                for (int n = 0; n < BN / 8; n++)
#pragma unroll
                    for (int j = 0; j < 2; j++)
                        if (n * 8 + j < low || n * 8 + j >= high)
                            s[i / 2][n][i % 2 * 2 + j] = -INFINITY;
            }
        }
        int key = w.key;
        __syncthreads(); /* nobody reads the keys */
        more = am_walk_next<BN>(w, rows[0]);
        if (more)
            am_tile_load<BN, D, NT>(k_tile, k + w.key * x.k_token, x.k_token, w.high - w.key, d);
        am_cp_async_commit();
        if (some) {
#pragma unroll
            for (int m = 0; m < MB; m++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    float most = -INFINITY, part = 0;
#pragma unroll
                    for (int n = 0; n < BN / 8; n++)
                        most = fmaxf(most, fmaxf(s[m][n][2 * i], s[m][n][2 * i + 1]));
                    most = fmaxf(most, __shfl_xor_sync(AM_WARP, most, 1));
                    most = fmaxf(most, __shfl_xor_sync(AM_WARP, most, 2));
                    most = fmaxf(top[m][i], most * unit);
                    float base = most == -INFINITY ? 0 : most, shrink = exp2f(top[m][i] - base);
                    top[m][i] = most;
#pragma unroll
                    for (int n = 0; n < BN / 8; n++)
#pragma unroll
                        for (int j = 2 * i; j < 2 * i + 2; j++) {
                            s[m][n][j] = exp2f(fmaf(s[m][n][j], unit, -base));
                            part += s[m][n][j];
                        }
                    total[m][i] = total[m][i] * shrink + part;
                    if (__any_sync(AM_WARP, shrink != 1)) { /* seldom, after the first tiles */
#pragma unroll
                        for (int c = 0; c < D / 8; c++) {
                            sum[m][c][2 * i] *= shrink;
                            sum[m][c][2 * i + 1] *= shrink;
                        }
                    }
                }
            if (x.dropout_p > 0)
                drop(s, x, am_mask_row(x, b, head, first + row), key);
        }
        am_cp_async_wait<1>();
        __syncthreads(); /* the values are there */
        if (some)
            am_tile_add<MB, BN, D>(sum, s, v_tile);
    }
    am_cp_async_wait<0>();

    float kept = x.dropout_p > 0 ? (float)(1 / (1 - x.dropout_p)) : 1;
#pragma unroll
    for (int m = 0; m < MB; m++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int r = row + m * 16 + i * 8, t = first + r;
            float all = total[m][i];
            all += __shfl_xor_sync(AM_WARP, all, 1);
            all += __shfl_xor_sync(AM_WARP, all, 2);
            if (t >= (int)x.t)
                continue;
            bool empty = rows[0].origin[r] < 0;
            float by = empty ? 0 : kept / all;
            T *out = (T *)a.out + ((b * x.t + t) * x.h + head) * x.d;
#pragma unroll
            for (int c = 0; c < D / 8; c++) {
                int at = c * 8 + (lane & 3) * 2;
                if (at < d)
                    *(uint32_t *)(out + at) =
                        am_pair16(sum[m][c][2 * i] * by, sum[m][c][2 * i + 1] * by, T());
            }
            if ((lane & 3) == 0)
                ((float *)a.lse)[(b * x.h + head) * x.t + t] =
                    empty ? sink : top[m][i] * AM_LN2 + logf(all);
        }
}

template <class T, int D> static int launch(am_stream *s, const am_attention_args *a)
{
    typedef forward_tile<D> F;
    const am_attention_shape *x = &a->shape;
    int tiles = (int)((x->t + F::BM - 1) / F::BM);
    cudaError_t e = cudaFuncSetAttribute((const void *)attention_kernel<T, D>,
                                         cudaFuncAttributeMaxDynamicSharedMemorySize, F::SHARED);
    if (e != cudaSuccess)
        return am_cuda_fail(e, "attention's shared memory");
    AM_LAUNCH((attention_kernel<T, D>), (unsigned)(tiles * x->h * x->b), F::NT, F::SHARED,
              s->stream, *a, tiles);
    return am_cuda_launched(s, "attention");
}

template <class T> static int launch_for(am_stream *s, const am_attention_args *a)
{
    int64_t d = a->shape.d;
    return d <= 64 ? launch<T, 64>(s, a) : d <= 128 ? launch<T, 128>(s, a) : launch<T, 256>(s, a);
}

extern "C" int am_cuda_attention(am_stream *s, const am_attention_args *a)
{
    const am_attention_shape *x = &a->shape;
    int rc = am_attention_check(s, x);
    if (rc != AM_OK || x->b * x->t * x->h == 0)
        return rc;
    if (!am_attention_fast(x, a->q, a->k, a->v))
        return am_attention_plain(s, a);
    if (x->library) {
        rc = am_cuda_dnn_attention(s, a);
        if (rc != AM_EUNSUP)
            return rc;
    }
    return x->dtype == AM_BF16 ? launch_for<bf16>(s, a) : launch_for<f16>(s, a);
}

/* ---- parts ---------------------------------------------------------------------------------- */

constexpr int MERGE_NT = 128;

/* A warp for each row. */
template <class T>
__global__ void __launch_bounds__(MERGE_NT) attention_merge_kernel(am_attention_merge_args a)
{
    typedef typename am_math<T>::type A;
    int lane = threadIdx.x & 31;
    int64_t row = blockIdx.x * (int64_t)(MERGE_NT / 32) + (threadIdx.x >> 5);
    if (row >= a.b * a.t * a.h)
        return;
    int64_t b = row / (a.t * a.h), t = row / a.h % a.t, head = row % a.h;
    int64_t stat = (b * a.h + head) * a.t + t;
    A x = ((A *)a.lse)[stat], y = ((const A *)a.block_lse)[stat];
    if (y == -INFINITY)
        return;
    A most = x > y ? x : y, of_out = exp(x - most), of_block = exp(y - most);
    A all = of_out + of_block;
    A *out = (A *)a.out + row * a.d;
    const T *block = (const T *)a.block + row * a.d;
    for (int64_t i = lane; i < a.d; i += 32)
        out[i] = (of_out * out[i] + of_block * am_get(block[i])) / all;
    __syncwarp(); /* all have read lse */
    if (lane == 0)
        ((A *)a.lse)[stat] = most + log(all);
}

extern "C" int am_cuda_attention_merge(am_stream *s, const am_attention_merge_args *a)
{
    int64_t rows = a->b * a->t * a->h;
    if (rows == 0)
        return AM_OK;
    unsigned blocks = (unsigned)((rows * 32 + MERGE_NT - 1) / MERGE_NT);
    AM_FOR_FLOAT(a->dtype, T,
                 AM_LAUNCH(attention_merge_kernel<T>, blocks, MERGE_NT, 0, s->stream, *a));
    return am_cuda_launched(s, "attention_merge");
}
