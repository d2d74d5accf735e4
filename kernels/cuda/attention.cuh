/* attention.cuh — what the attention kernels share: which keys a query sees, the walk of a tile of
 * queries over tiles of keys, dropout, and products of tiles in shared memory on tensor cores.
 * Holds no kernel. The formulas are those of kernels/cpu/ref_attention.c. */
#pragma once

#include <limits.h>
#include "common.cuh"

constexpr unsigned AM_WARP = 0xffffffffu;
constexpr float AM_LOG2E = 1.44269504088896341f, AM_LN2 = 0.693147180559945309f;

/* ---- which keys a query sees ---------------------------------------------------------------- */

/* Keys start..end-1; tiles of keys are laid from `origin`, where the bounds begin. */
struct am_key_range {
    int start, end, origin;
};

/* Bounds come from data, hence the clamping to [0, s). */
AM_DEVICE am_key_range am_keys_of(const am_attention_shape &x, const int32_t *bounds, int64_t b,
                                  int t)
{
    int s = (int)x.s;
    am_key_range r = {0, s, 0};
    if (bounds) {
        const int32_t *p = bounds + (b * x.t + t) * 2;
        r.start = p[0] > 0 ? p[0] : 0;
        r.end = p[1] < s ? p[1] : s;
    }
    r.origin = r.start;
    int last = t + s - (int)x.t; /* the diagonal */
    if (x.causal && r.end > last + 1)
        r.end = last + 1;
    if (x.window > 0 && r.start < last - x.window + 1)
        r.start = last - x.window + 1;
    return r;
}

/* What the BM queries of a tile see, in shared memory. A query that sees nothing has origin -1. */
template <int BM> struct am_query_rows {
    int start[BM], end[BM], origin[BM];
};

/* By the first BM threads of a block; a barrier has to follow. */
template <int BM>
AM_DEVICE void am_query_rows_set(am_query_rows<BM> &rows, const am_attention_shape &x,
                                 const int32_t *bounds, int64_t b, int first)
{
    int r = threadIdx.x;
    if (r >= BM)
        return;
    am_key_range k = {0, 0, -1};
    if (first + r < (int)x.t)
        k = am_keys_of(x, bounds, b, first + r);
    bool empty = k.start >= k.end;
    rows.start[r] = empty ? 0 : k.start;
    rows.end[r] = empty ? 0 : k.end;
    rows.origin[r] = empty ? -1 : k.origin;
}

/* A tile of queries may hold the end of one sample and the beginning of others. Each run of queries
 * with one origin is a segment with key tiles of its own, which the other queries do not see: what
 * they have so far stays as it is, to the bit. All threads of a block walk alike. */
struct am_key_walk {
    int row0, row1; /* the segment */
    int key, high;  /* the tile begins here; the segment sees keys up to `high` */
};

/* To the segment from row `row1` on, and its first tile of BN keys; false when there is none. */
template <int BN, int BM>
AM_DEVICE bool am_walk_segment(am_key_walk &w, const am_query_rows<BM> &rows)
{
    int lane = threadIdx.x & 31, first = BM, other = BM, low = INT_MAX, high = 0;
    for (int r = lane; r < BM; r += 32)
        if (r >= w.row1 && rows.origin[r] >= 0)
            first = min(first, r);
    first = __reduce_min_sync(AM_WARP, first);
    if (first == BM)
        return false;
    int origin = rows.origin[first];
    for (int r = lane; r < BM; r += 32)
        if (r > first && rows.origin[r] >= 0 && rows.origin[r] != origin)
            other = min(other, r);
    other = __reduce_min_sync(AM_WARP, other);
    for (int r = lane; r < BM; r += 32)
        if (r >= first && r < other && rows.origin[r] >= 0) {
            low = min(low, rows.start[r]);
            high = max(high, rows.end[r]);
        }
    low = __reduce_min_sync(AM_WARP, low);
    high = __reduce_max_sync(AM_WARP, high);
    w.row0 = first;
    w.row1 = other;
    w.key = origin + (low - origin) / BN * BN;
    w.high = high;
    return true;
}

template <int BN, int BM> AM_DEVICE bool am_walk_next(am_key_walk &w, const am_query_rows<BM> &rows)
{
    w.key += BN;
    return w.key < w.high || am_walk_segment<BN>(w, rows);
}

/* ---- dropout -------------------------------------------------------------------------------- */

/* Where the mask of a query's row begins. */
AM_DEVICE uint64_t am_mask_row(const am_attention_shape &x, int64_t b, int64_t head, int64_t query)
{
    return (uint64_t)(((b * x.h + head) * x.t + query) * x.s);
}

/* am_philox_u32 indexes its block's words, which would put them on the stack. */
AM_DEVICE bool am_kept(const am_attention_shape &x, uint64_t i)
{
    uint32_t w[4];
    am_philox(w, x.seed, x.stream, i >> 2);
    uint32_t word = i & 2 ? (i & 1 ? w[3] : w[2]) : (i & 1 ? w[1] : w[0]);
    return word >= am_dropout_threshold(x.dropout_p);
}

/* ---- 16-bit tiles on tensor cores ----------------------------------------------------------- */

AM_DEVICE void am_mma(float (&d)[4], const uint32_t *a, const uint32_t *b, bf16)
{
    am_mma_bf16_16816(d, a, b, d);
}
AM_DEVICE void am_mma(float (&d)[4], const uint32_t *a, const uint32_t *b, f16)
{
    am_mma_f16_16816(d, a, b, d);
}

AM_DEVICE uint32_t am_pair16(float low, float high, bf16)
{
    __nv_bfloat162 v = __floats2bfloat162_rn(low, high);
    uint32_t r;
    memcpy(&r, &v, sizeof r);
    return r;
}
AM_DEVICE uint32_t am_pair16(float low, float high, f16)
{
    __half2 v = __floats2half2_rn(low, high);
    uint32_t r;
    memcpy(&r, &v, sizeof r);
    return r;
}

/* A row of D elements lies D + 8 apart, so that the eight rows of an 8 x 8 matrix are in different
 * banks. */
template <int D> constexpr int am_row = D + 8;

/* ROWS rows of d elements, `stride` apart, to shared memory by NT threads, beside them; 0 in rows
 * from `used` on and in columns from d on. */
template <int ROWS, int D, int NT, class T>
AM_DEVICE void am_tile_load(T *to, const T *from, int64_t stride, int used, int d)
{
    constexpr int ACROSS = D / 8, STEP = NT / ACROSS; /* rows at once */
    static_assert(NT % ACROSS == 0 && ROWS % STEP == 0, "threads share a tile evenly");
    int r = threadIdx.x / ACROSS, c = threadIdx.x % ACROSS * 8;
    const T *row = from + r * stride + c;
    used = c < d ? used - r : 0;
    to += r * am_row<D> + c;
#pragma unroll
    for (int i = 0; i < ROWS; i += STEP, row += STEP * stride)
        am_cp_async16(to + i * am_row<D>, i < used ? row : from, i < used ? 16 : 0);
}

/* A warp's sums: element j of [m][n] is row 16 m + lane / 4 + 8 (j / 2), column 8 n + 2 (lane % 4)
 * + j % 2. */
template <int M, int N> AM_DEVICE void am_tile_clear(float (&s)[M][N][4])
{
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int j = 0; j < 4; j++)
                s[m][n][j] = 0;
}

/* s [16 MB, BN] = a b^T; a's rows are the warp's own. */
template <int MB, int BN, int D, class T>
AM_DEVICE void am_tile_dot(float (&s)[MB][BN / 8][4], const T *a, const T *b)
{
    int lane = threadIdx.x & 31;
    const T *left = a + (lane & 15) * am_row<D> + (lane >> 4) * 8;
    const T *right = b + ((lane & 7) + (lane >> 4) * 8) * am_row<D> + ((lane >> 3) & 1) * 8;
    am_tile_clear(s);
#pragma unroll
    for (int c = 0; c < D; c += 16) {
        uint32_t fa[MB][4];
#pragma unroll
        for (int m = 0; m < MB; m++)
            am_ldmatrix_x4(fa[m], left + m * 16 * am_row<D> + c);
#pragma unroll
        for (int n = 0; n < BN / 8; n += 2) {
            uint32_t fb[4];
            am_ldmatrix_x4(fb, right + n * 8 * am_row<D> + c);
#pragma unroll
            for (int m = 0; m < MB; m++) {
                am_mma(s[m][n], fa[m], fb, T());
                am_mma(s[m][n + 1], fa[m], fb + 2, T());
            }
        }
    }
}

/* sum [16 MB, D] += p b, where p [16 MB, BN] is rounded to T, and b has BN rows. */
template <int MB, int BN, int D, class T>
AM_DEVICE void am_tile_add(float (&sum)[MB][D / 8][4], const float (&p)[MB][BN / 8][4], const T *b)
{
    int lane = threadIdx.x & 31;
    const T *right = b + (lane & 15) * am_row<D> + (lane >> 4) * 8;
#pragma unroll
    for (int n = 0; n < BN / 16; n++) {
        uint32_t fa[MB][4];
#pragma unroll
        for (int m = 0; m < MB; m++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float *pair = &p[m][2 * n + i / 2][i % 2 * 2];
                fa[m][i] = am_pair16(pair[0], pair[1], T());
            }
#pragma unroll
        for (int c = 0; c < D / 8; c += 2) {
            uint32_t fb[4];
            am_ldmatrix_x4_trans(fb, right + n * 16 * am_row<D> + c * 8);
#pragma unroll
            for (int m = 0; m < MB; m++) {
                am_mma(sum[m][c], fa[m], fb, T());
                am_mma(sum[m][c + 1], fa[m], fb + 2, T());
            }
        }
    }
}

/* What of the 16-bit rows' scores is softcap tanh(scale s / softcap), to 1e-7 of softcap. */
AM_DEVICE float am_soft_cap(float s, float scale, float softcap)
{
    float e = exp2f(s * (scale / softcap * 2 * AM_LOG2E));
    return softcap * (1 - 2 / (e + 1));
}

/* ---- host ----------------------------------------------------------------------------------- */

/* Do the 16-bit kernels take it? Copies are of 16 bytes. */
static inline bool am_attention_fast(const am_attention_shape *x, const void *q, const void *k,
                                     const void *v)
{
    const int64_t strides[][2] = {{x->b, x->q_batch}, {x->t, x->q_token}, {x->h, x->q_head},
                                  {x->b, x->k_batch}, {x->s, x->k_token}, {x->kh, x->k_head},
                                  {x->b, x->v_batch}, {x->s, x->v_token}, {x->kh, x->v_head}};
    if ((x->dtype != AM_BF16 && x->dtype != AM_F16) || x->d % 8 || x->d > 256 || !(x->scale > 0))
        return false;
    for (auto &n : strides)
        if (n[0] > 1 && n[1] % 8)
            return false;
    return ((uintptr_t)q | (uintptr_t)k | (uintptr_t)v) % 16 == 0;
}

/* Positions are int32 in the kernels; of bounds they are anyhow. */
static inline int am_attention_check(am_stream *s, const am_attention_shape *x)
{
    int rc =
        x->dropout_p > 0 ? am_cuda_outside_graphs(s, "attention drops probabilities out") : AM_OK;
    if (rc != AM_OK)
        return rc;
    if (x->t > INT_MAX / 2 || x->s > INT_MAX / 2)
        return am_kernel_fail(AM_EINVAL, "attention: more than 2^30 queries or keys");
    return AM_OK;
}

/* Any size, and f32 and f64: attention_plain.cu. */
int am_attention_plain(am_stream *s, const am_attention_args *a);
