/* grouped.cuh — tiles of matrix products, for products whose sizes are known on the device alone:
 * on tensor cores for bf16 and f16, by plain sums for f32 and f64. A tile's element is a sum in
 * the order of k, whatever the tile's other rows are. Holds no kernel. */
#pragma once

#include "vector.cuh"

/* c [m, n] = op(a) op(b) + bias + (accumulate ? c : 0), of a tile's view: pointers and sizes begin
 * at its first row and column. A transposed a lies as [k, m], b as [n, k]; c is of their type, or
 * f32. wide: rows of a and b begin on 16 bytes, their lengths are multiples of it; wide_c likewise
 * for c. */
struct tile_view {
    const void *a, *b, *bias;
    void *c;
    int64_t m, n, k, lda, ldb, ldc;
    bool accumulate, same_type, wide, wide_c;
};

AM_DEVICE void am_mma_16816(float d[4], const uint32_t a[4], const uint32_t b[2], const bf16 *)
{
    am_mma_bf16_16816(d, a, b, d);
}
AM_DEVICE void am_mma_16816(float d[4], const uint32_t a[4], const uint32_t b[2], const f16 *)
{
    am_mma_f16_16816(d, a, b, d);
}

/* V columns of a row, from column n on. */
template <class T, class M, int V>
AM_DEVICE void tile_put(const tile_view &v, int64_t m, int64_t n, M (&sum)[V], bool wide)
{
    M more[V];
    int64_t left = v.n - n, to = m * v.ldc + n;
    if (m >= v.m || left <= 0)
        return;
    wide = wide && left >= V;
    if (v.bias) {
        am_read(more, (const T *)v.bias + n, left, false);
#pragma unroll
        for (int j = 0; j < V; j++)
            sum[j] += more[j];
    }
    if (v.accumulate) {
        if (v.same_type)
            am_read(more, (const T *)v.c + to, left, wide);
        else
            am_read(more, (const float *)v.c + to, left, wide);
#pragma unroll
        for (int j = 0; j < V; j++)
            sum[j] += more[j];
    }
    if (v.same_type)
        am_write((T *)v.c + to, sum, left, wide);
    else
        am_write((float *)v.c + to, sum, left, wide);
}

/* ---- tensor cores ---------------------------------------------------------------------------- */

/* A block of 4 warps, 2 x 2, each with 32 rows and 64 columns of the tile. Rows in shared memory
 * have 8 elements more than they hold, so that ldmatrix finds their banks free. */
struct mma_tile {
    static constexpr int BM = 64, BN = 128, BK = 32, NT = 128, STAGES = 3, PAD = 8;
};

/* [rows, COLS] of x, or as much as there is and 0 for the rest, to shared memory. */
template <class T, int ROWS, int COLS>
AM_DEVICE void tile_load(T *to, const T *x, int64_t ld, int64_t rows, int64_t cols, bool wide)
{
    constexpr int V = 8, EACH = COLS / V;
    for (int i = threadIdx.x; i < ROWS * EACH; i += mma_tile::NT) {
        int r = i / EACH, c = i % EACH * V;
        int64_t left = r < rows ? cols - c : 0;
        T *at = to + r * (COLS + mma_tile::PAD) + c;
        left = left < 0 ? 0 : left < V ? left : V;
        if (wide) {
            am_cp_async16(at, left > 0 ? x + r * ld + c : x, (int)left * 2);
        } else {
            am_elems<T, V> v;
#pragma unroll
            for (int j = 0; j < V; j++)
                if (j < left)
                    v.v[j] = x[r * ld + c + j];
                else
                    am_put(&v.v[j], 0.0f);
            *(am_elems<T, V> *)at = v;
        }
    }
}

/* Tiles of a and b, STAGES of them; at the end, the sums. */
template <class T, bool TA, bool TB> struct mma_storage {
    typedef mma_tile G;
    static constexpr int A_LD = (TA ? G::BM : G::BK) + G::PAD, B_LD = (TB ? G::BK : G::BN) + G::PAD;
    static constexpr int A_SIZE = (TA ? G::BK : G::BM) * A_LD;
    static constexpr int SIZE = A_SIZE + (TB ? G::BN : G::BK) * B_LD, SUM_LD = G::BN + 4;
    am_elems<T, 8> all[G::STAGES * SIZE / 8];
    static_assert(sizeof all >= G::BM * SUM_LD * sizeof(float), "the tile's sums fit");
};

/* TA: a lies as [k, m]; TB: b lies as [n, k]. All threads of the block call it once. */
template <class T, bool TA, bool TB> AM_DEVICE void mma_product(const tile_view &v)
{
    typedef mma_tile G;
    typedef mma_storage<T, TA, TB> S;
    AM_SHARED(S, storage, [1]);
    T *shared = (T *)storage;
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, m0 = warp / 2 * 32, n0 = warp % 2 * 64;
    int steps = (int)((v.k + G::BK - 1) / G::BK);
    float sum[2][8][4] = {};

    auto load = [&](int step) {
        if (step < steps) {
            T *a = shared + step % G::STAGES * S::SIZE, *b = a + S::A_SIZE;
            int64_t k = (int64_t)step * G::BK;
            if (TA)
                tile_load<T, G::BK, G::BM>(a, (const T *)v.a + k * v.lda, v.lda, v.k - k, v.m,
                                           v.wide);
            else
                tile_load<T, G::BM, G::BK>(a, (const T *)v.a + k, v.lda, v.m, v.k - k, v.wide);
            if (TB)
                tile_load<T, G::BN, G::BK>(b, (const T *)v.b + k, v.ldb, v.n, v.k - k, v.wide);
            else
                tile_load<T, G::BK, G::BN>(b, (const T *)v.b + k * v.ldb, v.ldb, v.k - k, v.n,
                                           v.wide);
        }
        am_cp_async_commit();
    };

    for (int step = 0; step < G::STAGES - 1; step++)
        load(step);
    for (int step = 0; step < steps; step++) {
        am_cp_async_wait<G::STAGES - 2>();
        __syncthreads(); /* what the last step read may be overwritten, too */
        load(step + G::STAGES - 1);
        const T *a = shared + step % G::STAGES * S::SIZE, *b = a + S::A_SIZE;
        int row = lane & 7, low = (lane >> 3 & 1) * 8, high = (lane >> 4) * 8;
#pragma unroll
        for (int k = 0; k < G::BK; k += 16) {
            uint32_t fa[2][4], fb[4][4];
#pragma unroll
            for (int i = 0; i < 2; i++) {
                int m = m0 + 16 * i;
                if (TA)
                    am_ldmatrix_x4_trans(fa[i], a + (k + high + row) * S::A_LD + m + low);
                else
                    am_ldmatrix_x4(fa[i], a + (m + low + row) * S::A_LD + k + high);
            }
#pragma unroll
            for (int j = 0; j < 4; j++) {
                int n = n0 + 16 * j;
                if (TB)
                    am_ldmatrix_x4(fb[j], b + (n + high + row) * S::B_LD + k + low);
                else
                    am_ldmatrix_x4_trans(fb[j], b + (k + low + row) * S::B_LD + n + high);
            }
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int j = 0; j < 8; j++)
                    am_mma_16816(sum[i][j], fa[i], fb[j / 2] + j % 2 * 2, (const T *)NULL);
        }
    }
    am_cp_async_wait<0>();
    __syncthreads();

    /* Through shared memory, so that a thread has 8 neighbours. */
    constexpr int LD = S::SUM_LD, V = 8;
    float *sums = (float *)storage;
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 8; j++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                sums[(m0 + 16 * i + lane / 4 + e / 2 * 8) * LD + n0 + 8 * j + lane % 4 * 2 +
                     e % 2] = sum[i][j][e];
    __syncthreads();
    for (int i = threadIdx.x; i < G::BM * G::BN / V; i += G::NT) {
        int m = i / (G::BN / V), n = i % (G::BN / V) * V;
        float x[V];
        am_read(x, sums + m * LD + n, V, true);
        tile_put<T>(v, m, n, x, v.wide_c);
    }
}

/* ---- plain sums ------------------------------------------------------------------------------ */

/* A block of 16 x 16 threads, each with 4 x 4 elements. */
struct plain_tile {
    static constexpr int BM = 64, BN = 64, BK = 16, NT = 256, EACH = 4;
};

template <class T, bool TA, bool TB> AM_DEVICE void plain_product(const tile_view &v)
{
    typedef plain_tile G;
    AM_SHARED(T, a, [G::BK][G::BM + 1]);
    AM_SHARED(T, b, [G::BK][G::BN + 1]);
    int tm = threadIdx.x / 16, tn = threadIdx.x % 16;
    T sum[G::EACH][G::EACH] = {};
    for (int64_t k = 0; k < v.k; k += G::BK) {
        __syncthreads();
        for (int i = threadIdx.x; i < G::BM * G::BK; i += G::NT) {
            int m = TA ? i % G::BM : i / G::BK, j = TA ? i / G::BM : i % G::BK;
            int64_t at = TA ? (k + j) * v.lda + m : m * v.lda + k + j;
            a[j][m] = m < v.m && k + j < v.k ? ((const T *)v.a)[at] : (T)0;
        }
        for (int i = threadIdx.x; i < G::BN * G::BK; i += G::NT) {
            int n = TB ? i / G::BK : i % G::BN, j = TB ? i % G::BK : i / G::BN;
            int64_t at = TB ? n * v.ldb + k + j : (k + j) * v.ldb + n;
            b[j][n] = n < v.n && k + j < v.k ? ((const T *)v.b)[at] : (T)0;
        }
        __syncthreads();
#pragma unroll 4
        for (int j = 0; j < G::BK; j++)
#pragma unroll
            for (int x = 0; x < G::EACH; x++)
#pragma unroll
                for (int y = 0; y < G::EACH; y++)
                    sum[x][y] += a[j][tm + 16 * x] * b[j][tn + 16 * y];
    }
#pragma unroll
    for (int x = 0; x < G::EACH; x++)
#pragma unroll
        for (int y = 0; y < G::EACH; y++) {
            T one[1] = {sum[x][y]};
            tile_put<T>(v, tm + 16 * x, tn + 16 * y, one, false);
        }
}

/* Which of the two, and its shape. */
template <class T> struct tile_of : plain_tile {
    template <bool TA, bool TB> static __device__ __forceinline__ void product(const tile_view &v)
    {
        plain_product<T, TA, TB>(v);
    }
};
template <> struct tile_of<bf16> : mma_tile {
    template <bool TA, bool TB> static __device__ __forceinline__ void product(const tile_view &v)
    {
        mma_product<bf16, TA, TB>(v);
    }
};
template <> struct tile_of<f16> : mma_tile {
    template <bool TA, bool TB> static __device__ __forceinline__ void product(const tile_view &v)
    {
        mma_product<f16, TA, TB>(v);
    }
};
