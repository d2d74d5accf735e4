/* sort.cu — orders of keys: stable, of any number of rows and elements. Keys are unsigned, with
 * their places: pairs are distinct, so that a network that is not stable by itself gives a stable
 * order. Tiles are sorted in shared memory; then runs are merged, each element finding its place by
 * a search in the other run. argsort makes its keys here, gather_bwd its own. */
#include "sort.cuh"

constexpr int NT = 256;

/* ---- tiles ------------------------------------------------------------------------------------
 */

AM_DEVICE bool after(uint64_t key, uint32_t at, uint64_t other_key, uint32_t other_at)
{
    return key > other_key || (key == other_key && at > other_at);
}

/* Bitonic sort of a tile (Batcher 1968). What is beyond n is the greatest, and stays behind. */
__global__ void __launch_bounds__(NT)
    tile_kernel(uint64_t *keys, uint32_t *places, int64_t n, int64_t tiles, int64_t count)
{
    AM_SHARED(uint64_t, key, [AM_SORT_TILE]);
    AM_SHARED(uint32_t, at, [AM_SORT_TILE]);
    for (int64_t t = blockIdx.x; t < count; t += gridDim.x) {
        int64_t row = am_divide(t, tiles), begin = (t - row * tiles) * AM_SORT_TILE;
        int64_t first = row * n + begin;
        int here = (int)min((int64_t)AM_SORT_TILE, n - begin), size = 2;
        while (size < here)
            size *= 2;
        __syncthreads(); /* the last tile may still be read */
        for (int i = (int)threadIdx.x; i < size; i += NT) {
            key[i] = i < here ? keys[first + i] : UINT64_MAX;
            at[i] = i < here ? (uint32_t)(begin + i) : UINT32_MAX;
        }
        for (int run = 2; run <= size; run *= 2)
            for (int gap = run / 2; gap; gap /= 2) {
                __syncthreads();
                for (int i = (int)threadIdx.x; i < size / 2; i += NT) {
                    int l = 2 * i - (i & (gap - 1)), r = l + gap;
                    bool up = (l & run) == 0;
                    if (after(key[l], at[l], key[r], at[r]) == up) {
                        uint64_t k = key[l];
                        uint32_t p = at[l];
                        key[l] = key[r];
                        at[l] = at[r];
                        key[r] = k;
                        at[r] = p;
                    }
                }
            }
        __syncthreads();
        for (int i = (int)threadIdx.x; i < here; i += NT) {
            keys[first + i] = key[i];
            places[first + i] = at[i];
        }
    }
}

/* Runs of `run` elements become runs of twice as many. In the left one are the lower places: its
 * keys go before equal ones of the right. */
__global__ void __launch_bounds__(NT)
    merge_kernel(uint64_t *keys, uint32_t *places, const uint64_t *old_keys,
                 const uint32_t *old_places, int64_t n, int64_t run, int64_t count)
{
    int64_t step = (int64_t)gridDim.x * NT;
    for (int64_t i = (int64_t)blockIdx.x * NT + threadIdx.x; i < count; i += step) {
        int64_t row = am_divide(i, n), j = i - row * n, own = j - j % run;
        bool left = (own / run) % 2 == 0;
        int64_t other = left ? own + run : own - run, low = 0;
        int64_t high = max((int64_t)0, min(run, n - other));
        uint64_t key = old_keys[i];
        const uint64_t *k = old_keys + row * n + other;
        while (low < high) {
            int64_t middle = (low + high) / 2;
            if (left ? k[middle] < key : k[middle] <= key)
                low = middle + 1;
            else
                high = middle;
        }
        int64_t to = row * n + min(own, other) + (j - own) + low;
        keys[to] = key;
        places[to] = old_places[i];
    }
}

extern "C" int am_cuda_sort_room(am_stream *s, am_cuda_order *o, int64_t rows, int64_t n)
{
    size_t count = (size_t)(rows * n);
    char *p;
    int rc;
    if (n > INT32_MAX)
        return am_kernel_fail(AM_EUNSUP, "cuda: sorting takes rows of 2147483647 elements at most");
    rc = am_cuda_scratch(s, (void **)&p, AM_SORT_SLOT, count * 2 * (8 + 4));
    if (rc != AM_OK)
        return rc;
    o->keys = (uint64_t *)p;
    o->other_keys = o->keys + count;
    o->places = (uint32_t *)(o->other_keys + count);
    o->other_places = o->places + count;
    return AM_OK;
}

extern "C" int am_cuda_sort(am_stream *s, am_cuda_order *o, int64_t rows, int64_t n)
{
    int64_t tiles = (n + AM_SORT_TILE - 1) / AM_SORT_TILE;
    AM_LAUNCH(tile_kernel, am_blocks(rows * tiles, 1), NT, 0, s->stream, o->keys, o->places, n,
              tiles, rows * tiles);
    for (int64_t run = AM_SORT_TILE; run < n; run *= 2) {
        AM_LAUNCH(merge_kernel, am_blocks(rows * n, NT), NT, 0, s->stream, o->other_keys,
                  o->other_places, o->keys, o->places, n, run, rows * n);
        uint64_t *k = o->keys;
        uint32_t *p = o->places;
        o->keys = o->other_keys;
        o->places = o->other_places;
        o->other_keys = k;
        o->other_places = p;
    }
    return am_cuda_launched(s, "sort");
}

/* ---- argsort ----------------------------------------------------------------------------------
 */

/* Unsigned numbers in the order of x; -0 is 0, and NaN, all of them, the greatest. */
AM_DEVICE uint64_t key_of(double x)
{
    if (x != x)
        return UINT64_MAX;
    uint64_t u = (uint64_t)__double_as_longlong(x == 0 ? 0.0 : x);
    return u >> 63 ? ~u : u | 1ull << 63;
}
AM_DEVICE uint64_t key_of(int64_t x)
{
    return (uint64_t)x ^ 1ull << 63;
}

__global__ void __launch_bounds__(NT)
    keys_kernel(uint64_t *keys, const void *a, int dtype, int descending, int64_t n, int64_t inner,
                int64_t count)
{
    int64_t step = (int64_t)gridDim.x * NT;
    for (int64_t i = (int64_t)blockIdx.x * NT + threadIdx.x; i < count; i += step) {
        int64_t row = am_divide(i, inner), o = am_divide(row, n);
        uint64_t key = am_is_float(dtype) ? key_of(am_get_any<double>(a, dtype, i))
                                          : key_of(am_load_int(a, dtype, i));
        keys[(o * inner + i - row * inner) * n + row - o * n] = descending ? ~key : key;
    }
}

__global__ void __launch_bounds__(NT)
    order_kernel(int64_t *out, const uint32_t *places, int64_t n, int64_t inner, int64_t count)
{
    int64_t step = (int64_t)gridDim.x * NT;
    for (int64_t i = (int64_t)blockIdx.x * NT + threadIdx.x; i < count; i += step) {
        int64_t row = am_divide(i, inner), o = am_divide(row, n);
        out[i] = places[(o * inner + i - row * inner) * n + row - o * n];
    }
}

extern "C" int am_cuda_argsort(am_stream *s, const am_argsort_args *a)
{
    int64_t rows = a->outer * a->inner, count = rows * a->n;
    am_cuda_order o;
    int rc;
    if (count == 0)
        return AM_OK;
    rc = am_cuda_sort_room(s, &o, rows, a->n);
    if (rc != AM_OK)
        return rc;
    AM_LAUNCH(keys_kernel, am_blocks(count, NT), NT, 0, s->stream, o.keys, a->a, a->dtype,
              a->descending, a->n, a->inner, count);
    rc = am_cuda_sort(s, &o, rows, a->n);
    if (rc != AM_OK)
        return rc;
    AM_LAUNCH(order_kernel, am_blocks(count, NT), NT, 0, s->stream, (int64_t *)a->out, o.places,
              a->n, a->inner, count);
    return am_cuda_launched(s, "argsort");
}
