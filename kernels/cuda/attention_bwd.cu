/* attention_bwd.cu — attention's gradients in bf16 and f16 on tensor cores; what attention.cu does
 * not take goes to attention_plain.cu here, too, after the steps that all share.
 *
 * Nothing is added up between blocks, so the same bits come out every time: dq is summed in one
 * pass, over keys, and dk and dv in another, over queries. Both compute the scores again. A pass
 * keeps its own tiles in shared memory; of the others there are two sets, one being copied while
 * the other is worked on. */
#include "attention_bwd.cuh"
#include "cudnn.h"

/* d up to D. BM queries and BN keys for dq; KEYS keys and BQ queries for dk and dv, where for D 256
 * half of the warps sum up dv and half dk, as registers do not hold both. */
template <int D> struct backward_shape;
template <> struct backward_shape<64> {
    static constexpr int BN = 64, BQ = 64, DQ_BLOCKS = 2, DKV_BLOCKS = 2, HALVES = 1;
};
template <> struct backward_shape<128> {
    static constexpr int BN = 32, BQ = 32, DQ_BLOCKS = 2, DKV_BLOCKS = 2, HALVES = 1;
};
template <> struct backward_shape<256> {
    static constexpr int BN = 16, BQ = 16, DQ_BLOCKS = 2, DKV_BLOCKS = 1, HALVES = 2;
};
template <int D> struct backward_tile : backward_shape<D> {
    typedef backward_shape<D> S;
    static constexpr int NT = 128, BM = 64, KEYS = 64, DKV_NT = NT * S::HALVES;
    static constexpr int DQ_SHARED = (2 * BM + 4 * S::BN) * am_row<D> * 2;
    static constexpr int DKV_SHARED = (2 * KEYS + 4 * S::BQ) * am_row<D> * 2;
    static constexpr int MOST_SHARED = /* with the static arrays */
        (DQ_SHARED > DKV_SHARED ? DQ_SHARED : DKV_SHARED) + 2048;
};

/* ---- first steps ---------------------------------------------------------------------------- */

constexpr int DELTA_NT = 128;

/* A warp for each row. */
template <class T>
__global__ void __launch_bounds__(DELTA_NT) attention_delta_kernel(am_attention_bwd_args a)
{
    typedef typename am_math<T>::type A;
    const am_attention_shape &x = a.shape;
    int lane = threadIdx.x & 31;
    int64_t row = blockIdx.x * (int64_t)(DELTA_NT / 32) + (threadIdx.x >> 5);
    if (row >= x.b * x.t * x.h)
        return;
    const T *dout = (const T *)a.dout + row * x.d, *out = (const T *)a.out + row * x.d;
    A sum = 0;
    for (int64_t i = lane; i < x.d; i += 32)
        sum += am_get(dout[i]) * am_get(out[i]);
    sum = am_warp_sum(sum);
    int64_t b = row / (x.t * x.h), t = row / x.h % x.t, head = row % x.h;
    if (lane == 0)
        ((A *)a.delta)[(b * x.h + head) * x.t + t] = sum;
}

constexpr int PLAN_NT = 512;

/* The tiles of a batch row, by a block: a step takes PLAN_NT queries, each of which learns where
 * its sample begins, and so whether a tile begins with it. */
__global__ void __launch_bounds__(PLAN_NT)
    attention_plan_kernel(am_query_tile *tiles, int *count, am_attention_shape x,
                          const int32_t *bounds, int queries)
{
    constexpr int WARPS = PLAN_NT / 32;
    AM_SHARED(int, begins, [WARPS]); /* the last sample that begins in a warp's queries, or -1 */
    AM_SHARED(int, emits, [WARPS]);
    int64_t b = blockIdx.x;
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, t = (int)x.t, sample = 0, done = 0;
    unsigned upto = 0xffffffffu >> (31 - lane);
    for (int step = 0; step < t; step += PLAN_NT) {
        int q = step + threadIdx.x, origin = 0;
        bool begin = false;
        if (q < t) {
            origin = am_keys_of(x, bounds, b, q).origin;
            begin = q == 0 || am_keys_of(x, bounds, b, q - 1).origin != origin;
        }
        unsigned begun = __ballot_sync(AM_WARP, begin);
        if (lane == 0)
            begins[warp] = begun ? step + warp * 32 + 31 - __clz((int)begun) : -1;
        __syncthreads();
        int own = sample;
        for (int i = 0; i < WARPS; i++) {
            if (i < warp)
                own = max(own, begins[i]);
            sample = max(sample, begins[i]);
        }
        if (begun & upto)
            own = step + warp * 32 + 31 - __clz((int)(begun & upto));
        am_query_tile tile = {q, 0, INT_MAX, 0, 0, INT_MAX};
        if (q < t && (q - own) % queries == 0) {
            for (; tile.count < queries && q + tile.count < t; tile.count++) {
                am_key_range k = am_keys_of(x, bounds, b, q + tile.count);
                if (k.origin != origin)
                    break;
                bool empty = k.start >= k.end;
                tile.low = min(tile.low, empty ? INT_MAX : k.start);
                tile.high = max(tile.high, empty ? 0 : k.end);
                tile.all_low = max(tile.all_low, k.start);
                tile.all_high = min(tile.all_high, k.end);
            }
            if (tile.count < queries)
                tile.all_high = 0;
        }
        unsigned emit = __ballot_sync(AM_WARP, tile.low < tile.high);
        if (lane == 0)
            emits[warp] = __popc(emit);
        __syncthreads();
        int at = done + __popc(emit & upto) - 1;
        for (int i = 0; i < WARPS; i++) {
            if (i < warp)
                at += emits[i];
            done += emits[i];
        }
        if (tile.low < tile.high)
            tiles[b * x.t + at] = tile;
    }
    if (threadIdx.x == 0)
        count[b] = done;
}

/* ---- pairs ---------------------------------------------------------------------------------- */

/* From scores s and dout v (dp): the probability, and ds without the scale. `own` is what the
 * softmax's gradient takes off: delta, or 0 where softened has done it. */
AM_DEVICE void pair_of(float &s, float &dp, float unit, float lse2, float own)
{
    s = exp2f(fmaf(s, unit, -lse2));
    dp = s * (dp - own);
}

/* With a soft cap, before that: the score in its place, its derivative times dp - delta. */
AM_DEVICE void soften(float &s, float &dp, float scale, float cap, float delta)
{
    s = am_soft_cap(s, scale, cap);
    float u = s / cap;
    dp = (dp - delta) * (1 - u * u);
}

/* What multiplies a score to give a power of 2. */
AM_DEVICE float unit_of(const am_attention_shape &x)
{
    return AM_LOG2E * (x.softcap > 0 ? 1 : (float)x.scale);
}

/* ---- dq ------------------------------------------------------------------------------------- */

template <class T, int D>
__global__ void __launch_bounds__(backward_tile<D>::NT, backward_tile<D>::DQ_BLOCKS)
    attention_dq_kernel(am_attention_bwd_args a, int tiles)
{
    typedef backward_tile<D> B;
    constexpr int BM = B::BM, BN = B::BN, NT = B::NT, SET = 2 * BN * am_row<D>;
    AM_DYN_SHARED(T, q_tile);
    T *dout_tile = q_tile + BM * am_row<D>, *sets = dout_tile + BM * am_row<D>;
    AM_SHARED(am_query_rows<BM>, rows, [1]);
    const am_attention_shape &x = a.shape;
    int first = (tiles - 1 - (int)(blockIdx.x % tiles)) * BM, d = (int)x.d, t = (int)x.t;
    int64_t head = blockIdx.x / tiles % x.h, b = blockIdx.x / tiles / x.h;
    int64_t kv_head = head / (x.h / x.kh), stat = (b * x.h + head) * x.t;
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, row = warp * 16 + (lane >> 2);
    const T *q = (const T *)a.q + b * x.q_batch + first * x.q_token + head * x.q_head;
    const T *k = (const T *)a.k + b * x.k_batch + kv_head * x.k_head;
    const T *v = (const T *)a.v + b * x.v_batch + kv_head * x.v_head;
    int64_t out_at = ((b * x.t + first) * x.h + head) * x.d, out_token = x.h * x.d;

    am_query_rows_set(rows[0], x, a.bounds, b, first);
    am_tile_load<BM, D, NT>(q_tile, q, x.q_token, t - first, d);
    am_tile_load<BM, D, NT>(dout_tile, (const T *)a.dout + out_at, out_token, t - first, d);
    __syncthreads();
    am_key_walk w = {0, 0, 0, 0};
    bool more = am_walk_segment<BN>(w, rows[0]);
    if (more) {
        am_tile_load<BN, D, NT>(sets, k + w.key * x.k_token, x.k_token, w.high - w.key, d);
        am_tile_load<BN, D, NT>(sets + SET / 2, v + w.key * x.v_token, x.v_token, w.high - w.key,
                                d);
    }
    am_cp_async_commit();

    float scale = (float)x.scale, cap = (float)x.softcap, unit = unit_of(x);
    float kept = x.dropout_p > 0 ? (float)(1 / (1 - x.dropout_p)) : 1;
    float lse2[2], delta[2], dq[1][D / 8][4];
    am_tile_clear(dq);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        bool in = first + row + i * 8 < t;
        lse2[i] = in ? ((const float *)a.lse)[stat + first + row + i * 8] * AM_LOG2E : 0;
        delta[i] = in ? ((const float *)a.delta)[stat + first + row + i * 8] : 0;
    }

    for (int set = 0; more; set ^= 1) {
        const T *k_tile = sets + set * SET, *v_tile = k_tile + SET / 2;
        int low[2], high[2], key = w.key;
        bool some = false, all = true;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int r = row + i * 8;
            low[i] = rows[0].start[r] - key;
            high[i] = (r >= w.row0 && r < w.row1 ? rows[0].end[r] : 0) - key;
            some |= low[i] < BN && high[i] > 0;
            all &= low[i] <= 0 && high[i] >= BN;
            low[i] -= (lane & 3) * 2;
            high[i] -= (lane & 3) * 2;
        }
        some = __any_sync(AM_WARP, some);
        all = __all_sync(AM_WARP, all);
        am_cp_async_wait<0>();
        __syncthreads(); /* this set is there, and nobody reads the other */
        more = am_walk_next<BN>(w, rows[0]);
        if (more) {
            T *next = sets + (set ^ 1) * SET;
            am_tile_load<BN, D, NT>(next, k + w.key * x.k_token, x.k_token, w.high - w.key, d);
            am_tile_load<BN, D, NT>(next + SET / 2, v + w.key * x.v_token, x.v_token,
                                    w.high - w.key, d);
        }
        am_cp_async_commit();
        if (!some)
            continue;

        float s[1][BN / 8][4], dp[1][BN / 8][4];
        am_tile_dot<1, BN, D>(s, q_tile + warp * 16 * am_row<D>, k_tile);
        am_tile_dot<1, BN, D>(dp, dout_tile + warp * 16 * am_row<D>, v_tile);
        if (x.dropout_p > 0) {
            uint32_t keep = 0;
            uint64_t mask = am_mask_row(x, b, head, first + row) + (uint64_t)(key + (lane & 3) * 2);
#pragma unroll 1
            for (int i = 0; i < BN / 2; i++) {
                int at = (i >> 2) * 8 + (i & 1);
                keep |= (uint32_t)am_kept(x, mask + (uint64_t)((i >> 1 & 1) * 8 * x.s + at)) << i;
            }
#pragma unroll
            for (int n = 0; n < BN / 8; n++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    dp[0][n][j] = keep >> (n * 4 + j) & 1 ? dp[0][n][j] * kept : 0;
        }
        if (cap > 0) {
#pragma unroll
            for (int n = 0; n < BN / 8; n++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    soften(s[0][n][j], dp[0][n][j], scale, cap, delta[j >> 1]);
        }
#pragma unroll
        for (int n = 0; n < BN / 8; n++)
#pragma unroll
            for (int j = 0; j < 4; j++)
                pair_of(s[0][n][j], dp[0][n][j], unit, lse2[j >> 1], cap > 0 ? 0 : delta[j >> 1]);
        if (!all) {
#pragma unroll
            for (int n = 0; n < BN / 8; n++)
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    int at = n * 8 + (j & 1);
                    if (at < low[j >> 1] || at >= high[j >> 1])
                        dp[0][n][j] = 0;
                }
        }
        am_tile_add<1, BN, D>(dq, dp, k_tile);
    }
    am_cp_async_wait<0>();
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int r = row + i * 8;
        if (first + r >= t)
            continue;
        T *out = (T *)a.dq + out_at + r * out_token;
#pragma unroll
        for (int c = 0; c < D / 8; c++) {
            int at = c * 8 + (lane & 3) * 2;
            if (at < d)
                *(uint32_t *)(out + at) =
                    am_pair16(dq[0][c][2 * i] * scale, dq[0][c][2 * i + 1] * scale, T());
        }
    }
}

/* ---- dk and dv ------------------------------------------------------------------------------ */

/* What a tile's queries have: the logarithm of base 2, delta, and the keys they see; of queries
 * past the tile's last none. */
template <int BQ> struct query_stats {
    float lse2[BQ], delta[BQ];
    int low[BQ], high[BQ];
};

/* One query's, by its thread: read early, and stored when the others no longer need the place. */
struct query_stat {
    float lse2, delta;
    int low, high;
};

AM_DEVICE query_stat stat_of(const am_attention_bwd_args &a, const am_query_tile &tile, int64_t b,
                             int64_t head)
{
    query_stat s = {0, 0, 0, 0};
    int i = threadIdx.x;
    if (i >= tile.count)
        return s;
    int64_t at = (b * a.shape.h + head) * a.shape.t + tile.first + i;
    am_key_range k = am_keys_of(a.shape, a.bounds, b, tile.first + i);
    s.low = k.start;
    s.high = k.end;
    s.lse2 = k.start < k.end ? ((const float *)a.lse)[at] * AM_LOG2E : 0;
    s.delta = ((const float *)a.delta)[at];
    return s;
}

template <int BQ> AM_DEVICE void stat_store(query_stats<BQ> &to, const query_stat &s)
{
    if (threadIdx.x < BQ) {
        to.lse2[threadIdx.x] = s.lse2;
        to.delta[threadIdx.x] = s.delta;
        to.low[threadIdx.x] = s.low;
        to.high[threadIdx.x] = s.high;
    }
}

template <int D, class T>
AM_DEVICE void store_sum(void *to, int64_t at, int64_t token, const float (&sum)[1][D / 8][4],
                         float factor, int row, int used, int d, T)
{
    int lane = threadIdx.x & 31;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int r = row + i * 8;
        if (r >= used)
            continue;
        T *out = (T *)to + at + r * token;
#pragma unroll
        for (int c = 0; c < D / 8; c++) {
            int col = c * 8 + (lane & 3) * 2;
            if (col < d)
                *(uint32_t *)(out + col) =
                    am_pair16(sum[0][c][2 * i] * factor, sum[0][c][2 * i + 1] * factor, T());
        }
    }
}

template <class T, int D>
__global__ void __launch_bounds__(backward_tile<D>::DKV_NT, backward_tile<D>::DKV_BLOCKS)
    attention_dkv_kernel(am_attention_bwd_args a, am_query_tiles plan, int tiles)
{
    typedef backward_tile<D> B;
    constexpr int KEYS = B::KEYS, BQ = B::BQ, NT = B::DKV_NT, SET = 2 * BQ * am_row<D>;
    constexpr bool SPLIT = B::HALVES == 2;
    AM_DYN_SHARED(T, k_tile);
    T *v_tile = k_tile + KEYS * am_row<D>, *sets = v_tile + KEYS * am_row<D>;
    AM_SHARED(query_stats<BQ>, stats, [2]);
    const am_attention_shape &x = a.shape;
    int first = (int)(blockIdx.x % tiles) * KEYS, d = (int)x.d, used = min(KEYS, (int)x.s - first);
    int64_t kv_head = blockIdx.x / tiles % x.kh, b = blockIdx.x / tiles / x.kh;
    int64_t group = x.h / x.kh, out_token = x.h * x.d;
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5 & 3, row = warp * 16 + (lane >> 2);
    bool want_dk = !SPLIT || threadIdx.x >= NT / 2, want_dv = !SPLIT || threadIdx.x < NT / 2;
    const T *q = (const T *)a.q + b * x.q_batch + kv_head * group * x.q_head;
    const T *dout = (const T *)a.dout + (b * x.t * x.h + kv_head * group) * x.d;

    am_tile_load<KEYS, D, NT>(
        k_tile, (const T *)a.k + b * x.k_batch + first * x.k_token + kv_head * x.k_head, x.k_token,
        used, d);
    am_tile_load<KEYS, D, NT>(
        v_tile, (const T *)a.v + b * x.v_batch + first * x.v_token + kv_head * x.v_head, x.v_token,
        used, d);
    am_tile_walk w = am_tiles_begin(plan, x, b, group);
    bool more = am_tiles_next(w, first, first + used);
    query_stat stat = {0, 0, 0, 0};
    if (more) {
        am_tile_load<BQ, D, NT>(sets, q + w.head * x.q_head + w.tile.first * x.q_token, x.q_token,
                                w.tile.count, d);
        am_tile_load<BQ, D, NT>(sets + SET / 2, dout + w.head * x.d + w.tile.first * out_token,
                                out_token, w.tile.count, d);
        stat = stat_of(a, w.tile, b, kv_head * group + w.head);
    }
    am_cp_async_commit();
    stat_store(stats[0], stat);

    float scale = (float)x.scale, cap = (float)x.softcap, unit = unit_of(x);
    float kept = x.dropout_p > 0 ? (float)(1 / (1 - x.dropout_p)) : 1;
    float sums[SPLIT ? 1 : 2][1][D / 8][4]; /* dv, dk; or this warp's */
    am_tile_clear(sums[0]);
    if (!SPLIT)
        am_tile_clear(sums[SPLIT ? 0 : 1]);

    for (int set = 0; more; set ^= 1) {
        const T *this_q = sets + set * SET, *this_dout = this_q + SET / 2;
        int key = first + row, warp_key = first + warp * 16;
        bool some = w.tile.low < warp_key + 16 && w.tile.high > warp_key;
        bool all = w.tile.all_low <= warp_key && w.tile.all_high >= warp_key + 16;
        uint64_t mask = am_mask_row(x, b, kv_head * group + w.head, w.tile.first) + (uint64_t)key;
        am_cp_async_wait<0>();
        __syncthreads(); /* this set is there, and nobody reads the other */
        more = am_tiles_next(w, first, first + used);
        if (more) {
            T *next = sets + (set ^ 1) * SET;
            am_tile_load<BQ, D, NT>(next, q + w.head * x.q_head + w.tile.first * x.q_token,
                                    x.q_token, w.tile.count, d);
            am_tile_load<BQ, D, NT>(next + SET / 2, dout + w.head * x.d + w.tile.first * out_token,
                                    out_token, w.tile.count, d);
            stat = stat_of(a, w.tile, b, kv_head * group + w.head);
        }
        am_cp_async_commit();
        if (some) {
            const query_stats<BQ> &of = stats[set];
            float s[1][BQ / 8][4], dp[1][BQ / 8][4];
            am_tile_dot<1, BQ, D>(s, k_tile + warp * 16 * am_row<D>, this_q);
            if (want_dk)
                am_tile_dot<1, BQ, D>(dp, v_tile + warp * 16 * am_row<D>, this_dout);
            else
                am_tile_clear(dp);
            uint32_t keep = 0xffffffffu;
            if (x.dropout_p > 0) {
                keep = 0;
#pragma unroll 1
                for (int i = 0; i < BQ / 2; i++) {
                    int c = (i >> 2) * 8 + (lane & 3) * 2 + (i & 1);
                    keep |= (uint32_t)am_kept(x, mask + (uint64_t)(c * x.s + (i >> 1 & 1) * 8))
                            << i;
                }
#pragma unroll
                for (int n = 0; n < BQ / 8; n++)
#pragma unroll
                    for (int j = 0; j < 4; j++)
                        dp[0][n][j] = keep >> (n * 4 + j) & 1 ? dp[0][n][j] * kept : 0;
            }
            if (cap > 0) {
#pragma unroll
                for (int n = 0; n < BQ / 8; n++)
#pragma unroll
                    for (int j = 0; j < 4; j++)
                        soften(s[0][n][j], dp[0][n][j], scale, cap,
                               of.delta[n * 8 + (lane & 3) * 2 + (j & 1)]);
            }
#pragma unroll
            for (int n = 0; n < BQ / 8; n++)
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    int c = n * 8 + (lane & 3) * 2 + (j & 1);
                    pair_of(s[0][n][j], dp[0][n][j], unit, of.lse2[c], cap > 0 ? 0 : of.delta[c]);
                }
            if (!all) {
#pragma unroll
                for (int n = 0; n < BQ / 8; n++)
#pragma unroll
                    for (int j = 0; j < 4; j++) {
                        int c = n * 8 + (lane & 3) * 2 + (j & 1), at = key + (j >> 1) * 8;
                        if (at < of.low[c] || at >= of.high[c])
                            s[0][n][j] = dp[0][n][j] = 0;
                    }
            }
            if (want_dv && x.dropout_p > 0) {
#pragma unroll
                for (int n = 0; n < BQ / 8; n++)
#pragma unroll
                    for (int j = 0; j < 4; j++)
                        if (!(keep >> (n * 4 + j) & 1))
                            s[0][n][j] = 0;
            }
            if (want_dv)
                am_tile_add<1, BQ, D>(sums[0], s, this_dout);
            if (want_dk)
                am_tile_add<1, BQ, D>(sums[SPLIT ? 0 : 1], dp, this_q);
        }
        if (more)
            stat_store(stats[set ^ 1], stat);
    }
    am_cp_async_wait<0>();
    int64_t out_at = ((b * x.s + first) * x.kh + kv_head) * x.d;
    if (want_dv)
        store_sum<D>(a.dv, out_at, x.kh * x.d, sums[0], kept, row, used, d, T());
    if (want_dk)
        store_sum<D>(a.dk, out_at, x.kh * x.d, sums[SPLIT ? 0 : 1], scale, row, used, d, T());
}

/* ---- host ----------------------------------------------------------------------------------- */

template <class T> static int start_delta(am_stream *s, const am_attention_bwd_args *a)
{
    int64_t rows = a->shape.b * a->shape.t * a->shape.h;
    AM_LAUNCH(attention_delta_kernel<T>, (unsigned)((rows * 32 + DELTA_NT - 1) / DELTA_NT),
              DELTA_NT, 0, s->stream, *a);
    return am_cuda_launched(s, "attention_delta");
}

static int make_delta(am_stream *s, const am_attention_bwd_args *a)
{
    if (a->shape.b * a->shape.t * a->shape.h == 0)
        return AM_OK;
    AM_FOR_FLOAT(a->shape.dtype, T, return start_delta<T>(s, a));
}

/* Tiles of up to `queries` queries, in scratch. */
static int make_plan(am_stream *s, const am_attention_bwd_args *a, int queries,
                     am_query_tiles *plan)
{
    const am_attention_shape *x = &a->shape;
    size_t tiles = (size_t)(x->b * x->t) * sizeof(am_query_tile);
    void *p;
    int rc = am_cuda_scratch(s, &p, 0, tiles + (size_t)x->b * sizeof(int));
    if (rc != AM_OK || x->b == 0)
        return rc;
    plan->tiles = (const am_query_tile *)p;
    plan->count = (const int *)((char *)p + tiles);
    AM_LAUNCH(attention_plan_kernel, (unsigned)x->b, PLAN_NT, 0, s->stream, (am_query_tile *)p,
              (int *)((char *)p + tiles), *x, a->bounds, queries);
    return am_cuda_launched(s, "attention_plan");
}

template <class T, int D> static int launch(am_stream *s, const am_attention_bwd_args *a)
{
    typedef backward_tile<D> B;
    const am_attention_shape *x = &a->shape;
    int q_tiles = (int)((x->t + B::BM - 1) / B::BM),
        k_tiles = (int)((x->s + B::KEYS - 1) / B::KEYS);
    int device = 0, most = 0;
    cudaError_t e = cudaGetDevice(&device);
    if (e == cudaSuccess)
        e = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    if (e == cudaSuccess && most < B::MOST_SHARED)
        return AM_EUNSUP; /* D 256 on sm_89 and sm_120 */
    if (e == cudaSuccess)
        e = cudaFuncSetAttribute((const void *)attention_dq_kernel<T, D>,
                                 cudaFuncAttributeMaxDynamicSharedMemorySize, B::DQ_SHARED);
    if (e == cudaSuccess)
        e = cudaFuncSetAttribute((const void *)attention_dkv_kernel<T, D>,
                                 cudaFuncAttributeMaxDynamicSharedMemorySize, B::DKV_SHARED);
    if (e != cudaSuccess)
        return am_cuda_fail(e, "attention_bwd's shared memory");
    am_query_tiles plan;
    int rc = make_plan(s, a, B::BQ, &plan);
    if (rc != AM_OK)
        return rc;
    if (q_tiles) {
        AM_LAUNCH((attention_dq_kernel<T, D>), (unsigned)(q_tiles * x->h * x->b), B::NT,
                  B::DQ_SHARED, s->stream, *a, q_tiles);
        rc = am_cuda_launched(s, "attention_dq");
    }
    if (rc != AM_OK || !k_tiles)
        return rc;
    AM_LAUNCH((attention_dkv_kernel<T, D>), (unsigned)(k_tiles * x->kh * x->b), B::DKV_NT,
              B::DKV_SHARED, s->stream, *a, plan, k_tiles);
    return am_cuda_launched(s, "attention_dkv");
}

template <class T> static int launch_for(am_stream *s, const am_attention_bwd_args *a)
{
    int64_t d = a->shape.d;
    return d <= 64 ? launch<T, 64>(s, a) : d <= 128 ? launch<T, 128>(s, a) : launch<T, 256>(s, a);
}

extern "C" int am_cuda_attention_bwd(am_stream *s, const am_attention_bwd_args *a)
{
    const am_attention_shape *x = &a->shape;
    int rc = am_attention_check(s, x);
    if (rc == AM_OK)
        rc = make_delta(s, a);
    if (rc != AM_OK || x->b * x->h == 0)
        return rc;
    if (am_attention_fast(x, a->q, a->k, a->v) && (uintptr_t)a->dout % 16 == 0) {
        rc = x->library ? am_cuda_dnn_attention_bwd(s, a) : AM_EUNSUP;
        if (rc == AM_EUNSUP)
            rc = x->dtype == AM_BF16 ? launch_for<bf16>(s, a) : launch_for<f16>(s, a);
        if (rc != AM_EUNSUP)
            return rc;
    }
    am_query_tiles plan;
    rc = make_plan(s, a, AM_PLAIN_QUERIES, &plan);
    return rc == AM_OK ? am_attention_plain_bwd(s, a, plan) : rc;
}
