/* grouped.cu — products of rows sorted by group and their gradients. Where groups begin is known on
 * the device alone: a first kernel checks it and lists the tiles; grids are as large as they need
 * to be at most. Tiles are in tile.cuh. */
#include "tile.cuh"

constexpr int PLAN_NT = 256, BIAS_NT = 256, SLOT = 1;

/* Rows first .. first + count - 1, of one group. */
struct rows_of {
    int group, first, count;
};

/* safe: offsets, or all 0 when they are wrong, which is reported. Tiles of `tall` rows: those of
 * group g are listed from place offsets[g] / tall + g on, which leaves each group enough of them;
 * places without rows have a count of 0. */
__global__ void __launch_bounds__(PLAN_NT)
    plan_kernel(int32_t *safe, rows_of *tiles, const int32_t *offsets, int64_t groups, int64_t rows,
                int tall, am_cuda_problem *problem, const char *what)
{
    int good = 1;
    for (int64_t g = threadIdx.x; g <= groups; g += PLAN_NT) {
        int32_t from = g == 0 ? 0 : offsets[g - 1], to = offsets[g];
        int32_t most = g == 0 ? 0 : (int32_t)rows, least = g == groups ? (int32_t)rows : from;
        if (to >= least && to <= most)
            continue;
        good = 0;
        am_checked(to < least ? (int64_t)to - least : (int64_t)to, (int64_t)most + 1, problem,
                   what);
    }
    good = __syncthreads_and(good);
    for (int64_t g = threadIdx.x; g <= groups; g += PLAN_NT)
        safe[g] = good ? offsets[g] : 0;
    for (int64_t g = threadIdx.x; tiles && g < groups; g += PLAN_NT) {
        int32_t from = good ? offsets[g] : 0, to = good ? offsets[g + 1] : 0;
        int64_t place = from / tall + g, end = to / tall + g + 1;
        for (int32_t first = from; place < end; place++, first += tall) {
            int count = to - first < tall ? to - first : tall;
            tiles[place] = {(int)g, first, count > 0 ? count : 0};
        }
    }
    int64_t all = rows / tall + groups;
    for (int64_t place = groups + threadIdx.x; tiles && !good && place < all; place += PLAN_NT)
        tiles[place] = {0, 0, 0};
}

/* blockIdx: a place of the list, a strip of columns. */
template <class T, bool TB>
__global__ void __launch_bounds__(tile_of<T>::NT)
    grouped_kernel(am_grouped_gemm_args a, const rows_of *tiles, bool wide, bool wide_c)
{
    typedef tile_of<T> G;
    rows_of tile = tiles[blockIdx.x];
    int64_t column = (int64_t)blockIdx.y * G::BN;
    if (tile.count == 0)
        return;
    const T *b = (const T *)a.b + tile.group * a.n * a.k + column * (TB ? a.k : 1);
    int64_t n = a.n - column, c = tile.first * a.n + column;
    dense_operand<T> left = {(const T *)a.a + tile.first * a.k, tile.count, a.k, a.k, wide};
    dense_operand<T> right = {b, TB ? n : a.k, TB ? a.k : n, TB ? a.k : a.n, wide};
    tile_out<T> out = {};
    out.same_type = a.dtype_c == a.dtype_ab;
    out.c = out.same_type ? (void *)((T *)a.c + c) : (void *)((float *)a.c + c);
    out.bias = a.bias ? (const T *)a.bias + tile.group * a.n + column : NULL;
    out.m = tile.count;
    out.n = n;
    out.ld = a.n;
    out.accumulate = a.accumulate;
    out.wide = wide_c;
    G::template product<false, TB>(left, right, a.k, out);
}

/* dw of a group is x1^T x2 of its rows: x1 [rows, m], x2 [rows, n]. blockIdx: strips of rows of all
 * groups' matrices, a strip of columns. */
struct products {
    void *dw;
    const void *x1, *x2;
    const int32_t *offsets;
    int64_t m, n, strips;
    int dtype, dtype_dw;
    bool accumulate, wide, wide_c;
};

template <class T> __global__ void __launch_bounds__(tile_of<T>::NT) grouped_dw_kernel(products p)
{
    typedef tile_of<T> G;
    int64_t group = blockIdx.x / p.strips, row = blockIdx.x % p.strips * G::BM;
    int64_t column = (int64_t)blockIdx.y * G::BN, first = p.offsets[group];
    int64_t to = (group * p.m + row) * p.n + column;
    int64_t rows = p.offsets[group + 1] - first;
    dense_operand<T> left = {(const T *)p.x1 + first * p.m + row, rows, p.m - row, p.m, p.wide};
    dense_operand<T> right = {(const T *)p.x2 + first * p.n + column, rows, p.n - column, p.n,
                              p.wide};
    tile_out<T> out = {};
    out.same_type = p.dtype_dw == p.dtype;
    out.c = out.same_type ? (void *)((T *)p.dw + to) : (void *)((float *)p.dw + to);
    out.m = p.m - row;
    out.n = p.n - column;
    out.ld = p.n;
    out.accumulate = p.accumulate;
    out.wide = p.wide_c;
    G::template product<true, false>(left, right, rows, out);
}

/* Sums over a group's rows, a column a lane; each warp takes its share of the rows. */
template <class T>
__global__ void __launch_bounds__(BIAS_NT)
    grouped_db_kernel(am_grouped_gemm_dw_args a, const int32_t *offsets)
{
    typedef typename am_math<T>::type M;
    constexpr int WARPS = BIAS_NT / 32;
    AM_SHARED(M, sums, [WARPS][32]);
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    int64_t group = blockIdx.x, column = (int64_t)blockIdx.y * 32 + lane;
    M sum = 0;
    for (int64_t r = offsets[group] + warp; column < a.n && r < offsets[group + 1]; r += WARPS)
        sum += (M)am_get(((const T *)a.dout)[r * a.n + column]);
    sums[warp][lane] = sum;
    __syncthreads();
    if (warp != 0 || column >= a.n)
        return;
    int64_t to = group * a.n + column;
    sum = a.accumulate_db ? am_get_any<M>(a.dbias, a.dtype_db, to) : (M)0;
#pragma unroll
    for (int w = 0; w < WARPS; w++)
        sum += sums[w][lane];
    am_put_any(a.dbias, a.dtype_db, to, sum);
}

/* Offsets that are right, and the list of tiles when `tall` is not 0. */
static int plan(am_stream *s, int32_t **safe, rows_of **tiles, const int32_t *offsets,
                int64_t groups, int64_t rows, int tall, const char *name, const char *what)
{
    void *p;
    size_t head = ((size_t)(groups + 1) * sizeof **safe + 15) / 16 * 16;
    size_t list = tall ? (size_t)(rows / tall + groups) * sizeof **tiles : 0;
    int rc = am_cuda_scratch(s, &p, SLOT, head + list);
    if (rc != AM_OK)
        return rc;
    *safe = (int32_t *)p;
    *tiles = tall ? (rows_of *)((char *)p + head) : NULL;
    AM_LAUNCH(plan_kernel, 1, PLAN_NT, 0, s->stream, *safe, *tiles, offsets, groups, rows,
              tall ? tall : 1, s->problem, what);
    return am_cuda_launched(s, name);
}

static bool can_be(int dtype_out, int dtype)
{
    return dtype_out == dtype || (dtype_out == AM_F32 && dtype != AM_F64);
}

static unsigned strips(int64_t n, int width)
{
    return (unsigned)((n + width - 1) / width);
}

extern "C" int am_cuda_grouped_gemm(am_stream *s, const am_grouped_gemm_args *a)
{
    static const char what[] = "grouped_gemm: a group's rows end where they can't: a distance of";
    int32_t *safe;
    rows_of *tiles;
    if (!can_be(a->dtype_c, a->dtype_ab))
        return AM_EUNSUP;
    AM_FOR_FLOAT(a->dtype_ab, T, {
        typedef tile_of<T> G;
        int rc =
            plan(s, &safe, &tiles, a->offsets, a->groups, a->rows, G::BM, "grouped_gemm", what);
        if (rc != AM_OK || a->rows == 0 || a->n == 0)
            return rc;
        int width = AM_WIDTH(T);
        bool wide =
            a->k % width == 0 && (a->trans_b || a->n % width == 0) && am_aligned16(a->a, a->b);
        bool wide_c = a->n % 8 == 0 && am_aligned16(a->c);
        dim3 grid((unsigned)(a->rows / G::BM + a->groups), strips(a->n, G::BN));
        if (a->trans_b)
            AM_LAUNCH((grouped_kernel<T, true>), grid, G::NT, 0, s->stream, *a, tiles, wide,
                      wide_c);
        else
            AM_LAUNCH((grouped_kernel<T, false>), grid, G::NT, 0, s->stream, *a, tiles, wide,
                      wide_c);
    });
    return am_cuda_launched(s, "grouped_gemm");
}

extern "C" int am_cuda_grouped_gemm_dw(am_stream *s, const am_grouped_gemm_dw_args *a)
{
    static const char what[] =
        "grouped_gemm_dw: a group's rows end where they can't: a distance of";
    int32_t *safe;
    rows_of *tiles;
    if ((a->dw && !can_be(a->dtype_dw, a->dtype)) || (a->dbias && !am_is_float(a->dtype_db)))
        return AM_EUNSUP;
    products p = {};
    p.dw = a->dw;
    p.x1 = a->turned ? a->x : a->dout;
    p.x2 = a->turned ? a->dout : a->x;
    p.m = a->turned ? a->k : a->n;
    p.n = a->turned ? a->n : a->k;
    p.dtype = a->dtype;
    p.dtype_dw = a->dtype_dw;
    p.accumulate = a->accumulate_dw;
    AM_FOR_FLOAT(a->dtype, T, {
        typedef tile_of<T> G;
        int rc = plan(s, &safe, &tiles, a->offsets, a->groups, a->rows, 0, "grouped_gemm_dw", what);
        if (rc != AM_OK || a->groups == 0)
            return rc;
        p.offsets = safe;
        p.strips = strips(p.m, G::BM);
        p.wide = p.m % AM_WIDTH(T) == 0 && p.n % AM_WIDTH(T) == 0 && am_aligned16(p.x1, p.x2);
        p.wide_c = p.n % 8 == 0 && am_aligned16(a->dw);
        if (a->dw && p.m > 0 && p.n > 0)
            AM_LAUNCH((grouped_dw_kernel<T>),
                      dim3((unsigned)(a->groups * p.strips), strips(p.n, G::BN)), G::NT, 0,
                      s->stream, p);
        rc = am_cuda_launched(s, "grouped_gemm_dw");
        if (rc != AM_OK || !a->dbias || a->n == 0)
            return rc;
        AM_LAUNCH((grouped_db_kernel<T>), dim3((unsigned)a->groups, strips(a->n, 32)), BIAS_NT, 0,
                  s->stream, *a, safe);
    });
    return am_cuda_launched(s, "grouped_gemm_dw");
}
