/* tile.cuh — tiles of matrix products, for those that cuBLASLt has not: sizes that are known on the
 * device alone, operands that are read as something else than they are stored. On tensor cores for
 * bf16 and f16, by plain sums for f32 and f64. A tile's element is a sum in the order of k,
 * whatever the tile's other rows are. Holds no kernel.
 *
 * An operand is a stored matrix from the tile's first row and column on, with
 *   load<ROWS, COLS>(to, row, col)   [ROWS][COLS] from there on to shared memory, 0 where it ends
 *   at(row, col)                     one element
 * and what takes sums has put(m, n, sums): neighbours of a row, from column n on. */
#pragma once

#include "vector.cuh"

/* Elements as they are. wide: rows begin on 16 bytes, and their lengths are multiples of it. */
template <class T> struct dense_operand {
    const T *p;
    int64_t rows, cols, ld;
    bool wide;

    template <int ROWS, int COLS>
    __device__ __forceinline__ void load(T *to, int64_t row, int64_t col) const;
    __device__ __forceinline__ T at(int64_t row, int64_t col) const
    {
        return row < rows && col < cols ? p[row * ld + col] : (T)0.0f;
    }
};

/* c [m, n] = sums + bias + (accumulate ? c : 0); c is of T, as bias is, or f32. wide as above. */
template <class T> struct tile_out {
    void *c;
    const T *bias;
    int64_t m, n, ld;
    bool accumulate, same_type, wide;

    template <class M, int V>
    __device__ __forceinline__ void put(int64_t row, int64_t col, M (&sum)[V]) const
    {
        M more[V];
        int64_t left = n - col, to = row * ld + col;
        if (row >= m || left <= 0)
            return;
        bool whole = wide && left >= V;
        if (bias) {
            am_read(more, bias + col, left, false);
#pragma unroll
            for (int j = 0; j < V; j++)
                sum[j] += more[j];
        }
        if (accumulate) {
            if (same_type)
                am_read(more, (const T *)c + to, left, whole);
            else
                am_read(more, (const float *)c + to, left, whole);
#pragma unroll
            for (int j = 0; j < V; j++)
                sum[j] += more[j];
        }
        if (same_type)
            am_write((T *)c + to, sum, left, whole);
        else
            am_write((float *)c + to, sum, left, whole);
    }
};

AM_DEVICE void am_mma_16816(float d[4], const uint32_t a[4], const uint32_t b[2], const bf16 *)
{
    am_mma_bf16_16816(d, a, b, d);
}
AM_DEVICE void am_mma_16816(float d[4], const uint32_t a[4], const uint32_t b[2], const f16 *)
{
    am_mma_f16_16816(d, a, b, d);
}

/* ---- tensor cores ---------------------------------------------------------------------------- */

/* A block of 4 warps, 2 x 2, each with 32 rows and 64 columns of the tile. Rows in shared memory
 * have 8 elements more than they hold, so that ldmatrix finds their banks free. */
struct mma_tile {
    static constexpr int BM = 64, BN = 128, BK = 32, NT = 128, STAGES = 3, PAD = 8;
};

/* A tile's [ROWS][COLS] to shared memory: `read` gives 8 neighbours from (row, col) on. */
template <class T, int ROWS, int COLS, class R> AM_DEVICE void tile_fill(T *to, const R &read)
{
    constexpr int V = 8, EACH = COLS / V;
    for (int i = threadIdx.x; i < ROWS * EACH; i += mma_tile::NT) {
        int r = i / EACH, c = i % EACH * V;
        am_elems<T, V> v;
        read(v, r, c);
        *(am_elems<T, V> *)(to + r * (COLS + mma_tile::PAD) + c) = v;
    }
}

template <class T>
template <int ROWS, int COLS>
__device__ __forceinline__ void dense_operand<T>::load(T *to, int64_t row, int64_t col) const
{
    constexpr int V = 8, EACH = COLS / V;
    const T *x = p + row * ld + col;
    if (!wide) {
        tile_fill<T, ROWS, COLS>(to, [&](am_elems<T, V> &v, int r, int c) {
#pragma unroll
            for (int j = 0; j < V; j++)
                v.v[j] = at(row + r, col + c + j);
        });
        return;
    }
    for (int i = threadIdx.x; i < ROWS * EACH; i += mma_tile::NT) {
        int r = i / EACH, c = i % EACH * V;
        int64_t left = row + r < rows ? cols - col - c : 0;
        left = left < 0 ? 0 : left < V ? left : V;
        am_cp_async16(to + r * (COLS + mma_tile::PAD) + c, left > 0 ? x + r * ld + c : p,
                      (int)left * 2);
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

/* Sums over k of op(left) op(right). TA: left lies as [k, m]; TB: right lies as [n, k]. All threads
 * of the block call it once. */
template <class T, bool TA, bool TB, class A, class B, class P>
AM_DEVICE void mma_product(const A &left, const B &right, int64_t length, const P &out)
{
    typedef mma_tile G;
    typedef mma_storage<T, TA, TB> S;
    AM_SHARED(S, storage, [1]);
    T *shared = (T *)storage;
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, m0 = warp / 2 * 32, n0 = warp % 2 * 64;
    int steps = (int)((length + G::BK - 1) / G::BK);
    float sum[2][8][4] = {};

    auto load = [&](int step) {
        if (step < steps) {
            T *a = shared + step % G::STAGES * S::SIZE, *b = a + S::A_SIZE;
            int64_t k = (int64_t)step * G::BK;
            if (TA)
                left.template load<G::BK, G::BM>(a, k, 0);
            else
                left.template load<G::BM, G::BK>(a, 0, k);
            if (TB)
                right.template load<G::BN, G::BK>(b, 0, k);
            else
                right.template load<G::BK, G::BN>(b, k, 0);
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
        out.put(m, n, x);
    }
}

/* ---- plain sums ------------------------------------------------------------------------------ */

/* A block of 16 x 16 threads, each with 4 x 4 elements. */
struct plain_tile {
    static constexpr int BM = 64, BN = 64, BK = 16, NT = 256, EACH = 4;
};

template <class T, bool TA, bool TB, class A, class B, class P>
AM_DEVICE void plain_product(const A &left, const B &right, int64_t length, const P &out)
{
    typedef plain_tile G;
    AM_SHARED(T, a, [G::BK][G::BM + 1]);
    AM_SHARED(T, b, [G::BK][G::BN + 1]);
    int tm = threadIdx.x / 16, tn = threadIdx.x % 16;
    T sum[G::EACH][G::EACH] = {};
    for (int64_t k = 0; k < length; k += G::BK) {
        __syncthreads();
        for (int i = threadIdx.x; i < G::BM * G::BK; i += G::NT) {
            int m = TA ? i % G::BM : i / G::BK, j = TA ? i / G::BM : i % G::BK;
            a[j][m] = TA ? left.at(k + j, m) : left.at(m, k + j);
        }
        for (int i = threadIdx.x; i < G::BN * G::BK; i += G::NT) {
            int n = TB ? i / G::BK : i % G::BN, j = TB ? i % G::BK : i / G::BN;
            b[j][n] = TB ? right.at(n, k + j) : right.at(k + j, n);
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
            out.put(tm + 16 * x, tn + 16 * y, one);
        }
}

/* Which of the two, and its shape. */
template <class T> struct tile_of : plain_tile {
    template <bool TA, bool TB, class A, class B, class P>
    static __device__ __forceinline__ void product(const A &a, const B &b, int64_t k, const P &out)
    {
        plain_product<T, TA, TB>(a, b, k, out);
    }
};
template <class T> struct half_tile : mma_tile {
    template <bool TA, bool TB, class A, class B, class P>
    static __device__ __forceinline__ void product(const A &a, const B &b, int64_t k, const P &out)
    {
        mma_product<T, TA, TB>(a, b, k, out);
    }
};
template <> struct tile_of<bf16> : half_tile<bf16> {
};
template <> struct tile_of<f16> : half_tile<f16> {
};
