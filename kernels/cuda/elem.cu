/* elem.cu — what moves elements: fill, copy with conversion, where. Functions of elements are in
 * unary.cu and binary.cu. */
#include "map.cuh"

constexpr int NT = AM_MAP_THREADS;

/* ---- fill ----------------------------------------------------------------------------------- */

template <int N, class T>
__global__ void __launch_bounds__(NT) fill_kernel(T *out, double value, am_nd nd, int64_t n)
{
    int64_t step = (int64_t)gridDim.x * NT * N;
    double x[N];
#pragma unroll
    for (int k = 0; k < N; k++)
        x[k] = value;
    for (int64_t i = ((int64_t)blockIdx.x * NT + threadIdx.x) * N; i < n; i += step) {
        int64_t at[1];
        am_nd_at(nd, i, at);
        am_write(out + at[0], x, n - i, N > 1 && n - i >= N);
    }
}

extern "C" int am_cuda_fill(am_stream *s, const am_fill_args *a)
{
    am_nd nd = am_nd_simple(&a->nd, 1);
    int64_t n = am_nd_numel(&nd);
    if (n == 0)
        return AM_OK;
    AM_FOR_ANY(a->dtype, T, {
        constexpr int N = 16 / (int)sizeof(T);
        const void *p[] = {a->out};
        int size[] = {(int)sizeof(T)};
        if (am_map_vectors(&nd, 1, p, size, N))
            AM_LAUNCH((fill_kernel<N, T>), am_blocks((n + N - 1) / N, NT), NT, 0, s->stream,
                      (T *)a->out, a->value, nd, n);
        else
            AM_LAUNCH((fill_kernel<1, T>), am_blocks(n, NT), NT, 0, s->stream, (T *)a->out,
                      a->value, nd, n);
    });
    return am_cuda_launched(s, "fill");
}

/* ---- copy ----------------------------------------------------------------------------------- */

/* Bytes as they are; T is an unsigned integer of the element's size. */
template <int N, class T>
__global__ void __launch_bounds__(NT) move_kernel(T *out, const T *a, am_nd nd, int64_t n)
{
    int64_t step = (int64_t)gridDim.x * NT * N;
    int last = nd.ndim - 1;
    for (int64_t i = ((int64_t)blockIdx.x * NT + threadIdx.x) * N; i < n; i += step) {
        int64_t at[2];
        am_nd_at(nd, i, at);
        if (N > 1 && i + N <= n && nd.stride[1][last] == 1) {
            *(am_elems<T, N> *)(out + at[0]) = *(const am_elems<T, N> *)(a + at[1]);
            continue;
        }
#pragma unroll
        for (int k = 0; k < N; k++)
            if (i + k < n)
                out[at[0] + k] = a[at[1] + (N > 1 ? k * nd.stride[1][last] : 0)];
    }
}

/* A matrix, or several, whose rows lie dense in `out` and whose columns lie dense in `a`: through
 * shared memory, so that both are walked along what is dense. The last two dims are `rows` and
 * `cols`. */
constexpr int TILE = 32, TILE_ROWS = 8;
template <class T>
__global__ void __launch_bounds__(TILE *TILE_ROWS)
    turn_kernel(T *out, const T *a, am_nd nd, int64_t tiles, int64_t row_tiles, int64_t col_tiles)
{
    AM_SHARED(T, tile, [TILE][TILE + 1]);
    int d = nd.ndim - 2, x = threadIdx.x % TILE, y = threadIdx.x / TILE;
    int64_t rows = nd.shape[d], cols = nd.shape[d + 1];
    int64_t out_row = nd.stride[0][d], a_col = nd.stride[1][d + 1];
    for (int64_t t = blockIdx.x; t < tiles; t += gridDim.x) {
        int64_t at[2], rest = t / col_tiles;
        int64_t col = (t - rest * col_tiles) * TILE, row = rest % row_tiles * TILE;
        am_nd_at(nd, rest / row_tiles, at, d);
        __syncthreads(); /* the last tile may still be read */
        for (int k = y; k < TILE; k += TILE_ROWS)
            if (row + x < rows && col + k < cols)
                tile[k][x] = a[at[1] + row + x + (col + k) * a_col];
        __syncthreads();
        for (int k = y; k < TILE; k += TILE_ROWS)
            if (row + k < rows && col + x < cols)
                out[at[0] + (row + k) * out_row + col + x] = tile[x][k];
    }
}

/* Floating elements that change their type, or are added to. */
template <int N, class TO, class T>
__global__ void __launch_bounds__(NT)
    convert_kernel(TO *out, const T *a, int accumulate, am_nd nd, int64_t n)
{
    int64_t step = (int64_t)gridDim.x * NT * N;
    int last = nd.ndim - 1;
    for (int64_t i = ((int64_t)blockIdx.x * NT + threadIdx.x) * N; i < n; i += step) {
        int64_t at[2];
        typename am_math<T>::type x[N];
        typename am_math<TO>::type old[N];
        am_nd_at(nd, i, at);
        am_map_load(x, a, at[1], N > 1 ? nd.stride[1][last] : 1, n - i);
        if (accumulate) {
            am_map_load(old, out, at[0], 1, n - i);
#pragma unroll
            for (int k = 0; k < N; k++)
                old[k] += x[k];
            am_write(out + at[0], old, n - i, N > 1 && n - i >= N);
        } else {
            am_write(out + at[0], x, n - i, N > 1 && n - i >= N);
        }
    }
}

/* Any pair of types, looked up for each element. */
__global__ void __launch_bounds__(NT) convert_any_kernel(void *out, const void *a, int to, int from,
                                                         int accumulate, am_nd nd, int64_t n)
{
    int64_t step = (int64_t)gridDim.x * NT;
    for (int64_t i = (int64_t)blockIdx.x * NT + threadIdx.x; i < n; i += step) {
        int64_t at[2];
        am_nd_at(nd, i, at);
        double x = 0;
        int64_t k;
        if (am_is_float(from)) {
            x = am_get_any<double>(a, from, at[1]);
            k = to == AM_BOOL ? x != 0 : am_int(x);
        } else {
            k = am_load_int(a, from, at[1]);
            x = (double)k;
        }
        if (am_is_float(to)) {
            am_put_any(out, to, at[0], accumulate ? am_get_any<double>(out, to, at[0]) + x : x);
        } else {
            uint64_t old = accumulate ? (uint64_t)am_load_int(out, to, at[0]) : 0;
            am_store_int(out, to, at[0], (int64_t)(old + (uint64_t)k));
        }
    }
}

template <class T> static void move(am_stream *s, const am_copy_args *a, const am_nd *nd)
{
    constexpr int N = 16 / (int)sizeof(T);
    int64_t n = am_nd_numel(nd);
    const void *p[] = {a->out, a->a};
    int size[] = {(int)sizeof(T), (int)sizeof(T)}, d = nd->ndim - 2;
    if (am_map_vectors(nd, 2, p, size, N)) {
        AM_LAUNCH((move_kernel<N, T>), am_blocks((n + N - 1) / N, NT), NT, 0, s->stream,
                  (T *)a->out, (const T *)a->a, *nd, n);
    } else if (d >= 0 && nd->stride[0][d + 1] == 1 && nd->stride[1][d] == 1 &&
               nd->shape[d] >= TILE / 4 && nd->shape[d + 1] >= TILE / 4) {
        int64_t rows = (nd->shape[d] + TILE - 1) / TILE,
                cols = (nd->shape[d + 1] + TILE - 1) / TILE;
        int64_t tiles = n / (nd->shape[d] * nd->shape[d + 1]) * rows * cols;
        AM_LAUNCH((turn_kernel<T>), am_blocks(tiles, 1), TILE * TILE_ROWS, 0, s->stream,
                  (T *)a->out, (const T *)a->a, *nd, tiles, rows, cols);
    } else {
        AM_LAUNCH((move_kernel<1, T>), am_blocks(n, NT), NT, 0, s->stream, (T *)a->out,
                  (const T *)a->a, *nd, n);
    }
}

template <class TO, class T>
static void convert(am_stream *s, const am_copy_args *a, const am_nd *nd)
{
    constexpr int N = 16 / (int)(sizeof(T) < sizeof(TO) ? sizeof(T) : sizeof(TO));
    AM_LAUNCH((convert_kernel<N, TO, T>), am_blocks((am_nd_numel(nd) + N - 1) / N, NT), NT, 0,
              s->stream, (TO *)a->out, (const T *)a->a, a->accumulate, *nd, am_nd_numel(nd));
}

template <class TO> static int convert_to(am_stream *s, const am_copy_args *a, const am_nd *nd)
{
    int size[] = {(int)sizeof(TO), am_size(a->dtype_a)};
    const void *p[] = {a->out, a->a};
    if (!am_map_vectors(nd, 2, p, size, 16 / (size[0] < size[1] ? size[0] : size[1])))
        return 0;
    switch (a->dtype_a) {
    case AM_F32:
        convert<TO, float>(s, a, nd);
        return 1;
    case AM_BF16:
        convert<TO, bf16>(s, a, nd);
        return 1;
    case AM_F16:
        convert<TO, f16>(s, a, nd);
        return 1;
    default:
        return 0;
    }
}

/* Does a kernel for this pair of types take it? */
static int convert_dense(am_stream *s, const am_copy_args *a, const am_nd *nd)
{
    switch (a->dtype_out) {
    case AM_F32:
        return convert_to<float>(s, a, nd);
    case AM_BF16:
        return convert_to<bf16>(s, a, nd);
    case AM_F16:
        return convert_to<f16>(s, a, nd);
    default:
        return 0;
    }
}

extern "C" int am_cuda_copy(am_stream *s, const am_copy_args *a)
{
    am_nd nd = am_nd_simple(&a->nd, 2);
    int64_t n = am_nd_numel(&nd);
    if (n == 0)
        return AM_OK;
    if (a->dtype_out == a->dtype_a && !a->accumulate) {
        switch (am_size(a->dtype_a)) {
        case 1:
            move<uint8_t>(s, a, &nd);
            break;
        case 2:
            move<uint16_t>(s, a, &nd);
            break;
        case 4:
            move<uint32_t>(s, a, &nd);
            break;
        default:
            move<uint64_t>(s, a, &nd);
        }
    } else if (!convert_dense(s, a, &nd)) {
        AM_LAUNCH(convert_any_kernel, am_blocks(n, NT), NT, 0, s->stream, a->out, a->a,
                  a->dtype_out, a->dtype_a, a->accumulate, nd, n);
    }
    return am_cuda_launched(s, "copy");
}

/* ---- where ---------------------------------------------------------------------------------- */

template <class T>
__global__ void __launch_bounds__(NT)
    where_kernel(T *out, const uint8_t *cond, const T *a, const T *b, am_nd nd, int64_t n)
{
    int64_t step = (int64_t)gridDim.x * NT;
    for (int64_t i = (int64_t)blockIdx.x * NT + threadIdx.x; i < n; i += step) {
        int64_t at[4];
        am_nd_at(nd, i, at);
        out[at[0]] = cond[at[1]] ? a[at[2]] : b[at[3]];
    }
}

template <class T> static void choose(am_stream *s, const am_where_args *a, const am_nd *nd)
{
    int64_t n = am_nd_numel(nd);
    AM_LAUNCH(where_kernel<T>, am_blocks(n, NT), NT, 0, s->stream, (T *)a->out,
              (const uint8_t *)a->cond, (const T *)a->a, (const T *)a->b, *nd, n);
}

extern "C" int am_cuda_where(am_stream *s, const am_where_args *a)
{
    am_nd nd = am_nd_simple(&a->nd, 4);
    if (am_nd_numel(&nd) == 0)
        return AM_OK;
    switch (am_size(a->dtype)) {
    case 1:
        choose<uint8_t>(s, a, &nd);
        break;
    case 2:
        choose<uint16_t>(s, a, &nd);
        break;
    case 4:
        choose<uint32_t>(s, a, &nd);
        break;
    default:
        choose<uint64_t>(s, a, &nd);
    }
    return am_cuda_launched(s, "where");
}
