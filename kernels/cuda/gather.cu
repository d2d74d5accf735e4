/* gather.cu — picking rows or elements by index, and adding back to where they came from. A bad
 * index is reported at the next sync, and nothing out of range is touched.
 *
 * The gradient adds in index order, and never with atomics. Rows: the indices are sorted, stably,
 * and whoever has the first of equal ones adds them all up, in f32 (f64 for f64), and rounds once.
 * Elements: each column of the target is walked by one thread. */
#include "sort.cuh"

constexpr int NT = 256;

AM_DEVICE int64_t index_at(const void *index, int dtype, int64_t i)
{
    return dtype == AM_I32 ? ((const int32_t *)index)[i] : ((const int64_t *)index)[i];
}

/* ---- gather -----------------------------------------------------------------------------------
 */

/* T is as many bytes of a row as can be moved at once: `inner` of them. */
template <class T>
__global__ void __launch_bounds__(NT)
    gather_kernel(T *out, const T *a, const void *index, int dtype_index, int per_element,
                  int64_t n, int64_t inner, int64_t m, int64_t count, am_cuda_problem *problem,
                  const char *what)
{
    int64_t step = (int64_t)gridDim.x * NT;
    for (int64_t i = (int64_t)blockIdx.x * NT + threadIdx.x; i < count; i += step) {
        int64_t row = am_divide(i, inner), o = am_divide(row, m);
        int64_t from = index_at(index, dtype_index, per_element ? i : row - o * m);
        if (from < 0 || from >= n) {
            am_report(problem, from, n, what);
            continue;
        }
        out[i] = a[(o * n + from) * inner + (i - row * inner)];
    }
}

template <class T> static void gather(am_stream *s, const am_gather_args *a, int64_t inner)
{
    int64_t count = a->outer * a->m * inner;
    AM_LAUNCH(gather_kernel<T>, am_blocks(count, NT), NT, 0, s->stream, (T *)a->out,
              (const T *)a->a, a->index, a->dtype_index, a->per_element, a->n, inner, a->m, count,
              s->problem, "gather: index");
}

extern "C" int am_cuda_gather(am_stream *s, const am_gather_args *a)
{
    int64_t size = am_size(a->dtype), row = a->inner * size;
    if (a->dtype_index != AM_I32 && a->dtype_index != AM_I64)
        return AM_EUNSUP;
    if (a->outer * a->m * a->inner == 0)
        return AM_OK;
    if (!a->per_element && (((uintptr_t)a->out | (uintptr_t)a->a | (uintptr_t)row) & 15) == 0) {
        gather<am_elems<uint32_t, 4>>(s, a, row / 16);
        return am_cuda_launched(s, "gather");
    }
    switch (size) {
    case 1:
        gather<uint8_t>(s, a, a->inner);
        break;
    case 2:
        gather<uint16_t>(s, a, a->inner);
        break;
    case 4:
        gather<uint32_t>(s, a, a->inner);
        break;
    default:
        gather<uint64_t>(s, a, a->inner);
    }
    return am_cuda_launched(s, "gather");
}

/* ---- its gradient -----------------------------------------------------------------------------
 */

/* Keys of the indices; n for those that are passed over. */
__global__ void __launch_bounds__(NT)
    index_keys_kernel(uint64_t *keys, const void *index, int dtype_index, int has_padding,
                      int64_t padding, int64_t n, int64_t m, am_cuda_problem *problem,
                      const char *what)
{
    int64_t step = (int64_t)gridDim.x * NT;
    for (int64_t i = (int64_t)blockIdx.x * NT + threadIdx.x; i < m; i += step) {
        int64_t k = index_at(index, dtype_index, i);
        if (k < 0 || k >= n) {
            am_report(problem, k, n, what);
            k = n;
        }
        keys[i] = (uint64_t)(has_padding && k == padding ? n : k);
    }
}

/* N columns of da's rows: a thread that stands at the first of equal keys adds up all of them. */
template <int N, class TA, class T>
__global__ void __launch_bounds__(NT)
    segments_kernel(TA *da, const T *dout, const uint64_t *keys, const uint32_t *places, int64_t n,
                    int64_t inner, int64_t m, int64_t count)
{
    typedef typename am_math<TA>::type M;
    int64_t step = (int64_t)gridDim.x * NT, columns = inner / N;
    for (int64_t i = (int64_t)blockIdx.x * NT + threadIdx.x; i < count; i += step) {
        int64_t rest = am_divide(i, columns), c = (i - rest * columns) * N;
        int64_t o = am_divide(rest, m), p = rest - o * m;
        uint64_t key = keys[p];
        if (key == (uint64_t)n || (p > 0 && keys[p - 1] == key))
            continue;
        am_elems<TA, N> *to = (am_elems<TA, N> *)(da + (o * n + (int64_t)key) * inner + c), x = *to;
        M sum[N];
#pragma unroll
        for (int k = 0; k < N; k++)
            sum[k] = am_get(x.v[k]);
        for (; p < m && keys[p] == key; p++) {
            am_elems<T, N> d = *(const am_elems<T, N> *)(dout + (o * m + places[p]) * inner + c);
#pragma unroll
            for (int k = 0; k < N; k++)
                sum[k] += (M)am_get(d.v[k]);
        }
#pragma unroll
        for (int k = 0; k < N; k++)
            am_put(&x.v[k], sum[k]);
        *to = x;
    }
}

struct elements {
    void *da;
    const void *dout, *index;
    int dtype, dtype_da, dtype_index, has_padding;
    int64_t n, inner, m, padding;
};

__global__ void __launch_bounds__(NT)
    elements_kernel(elements e, int64_t columns, am_cuda_problem *problem, const char *what)
{
    int64_t step = (int64_t)gridDim.x * NT;
    for (int64_t i = (int64_t)blockIdx.x * NT + threadIdx.x; i < columns; i += step) {
        int64_t o = am_divide(i, e.inner), column = i - o * e.inner;
        for (int64_t j = 0; j < e.m; j++) {
            int64_t at = (o * e.m + j) * e.inner + column;
            int64_t k = index_at(e.index, e.dtype_index, at);
            if (k < 0 || k >= e.n) {
                am_report(problem, k, e.n, what);
                continue;
            }
            if (e.has_padding && k == e.padding)
                continue;
            int64_t to = (o * e.n + k) * e.inner + column;
            if (am_is_float(e.dtype))
                am_put_any(e.da, e.dtype_da, to,
                           am_get_any<double>(e.da, e.dtype_da, to) +
                               am_get_any<double>(e.dout, e.dtype, at));
            else
                am_store_int(e.da, e.dtype_da, to,
                             (int64_t)((uint64_t)am_load_int(e.da, e.dtype_da, to) +
                                       (uint64_t)am_load_int(e.dout, e.dtype, at)));
        }
    }
}

template <int N, class TA, class T>
static void segments(am_stream *s, const am_gather_bwd_args *a, const am_cuda_order *o)
{
    int64_t count = a->outer * a->m * (a->inner / N);
    AM_LAUNCH((segments_kernel<N, TA, T>), am_blocks(count, NT), NT, 0, s->stream, (TA *)a->da,
              (const T *)a->dout, o->keys, o->places, a->n, a->inner, a->m, count);
}

template <class TA, class T>
static void segments_wide(am_stream *s, const am_gather_bwd_args *a, const am_cuda_order *o)
{
    constexpr int N = 16 / (int)sizeof(T);
    if (((uintptr_t)a->da & 15) == 0 && ((uintptr_t)a->dout & 15) == 0 && a->inner % N == 0)
        segments<N, TA, T>(s, a, o);
    else
        segments<1, TA, T>(s, a, o);
}

extern "C" int am_cuda_gather_bwd(am_stream *s, const am_gather_bwd_args *a)
{
    int floating = am_is_float(a->dtype), rc;
    am_cuda_order o;
    if (a->dtype_index != AM_I32 && a->dtype_index != AM_I64)
        return AM_EUNSUP;
    if (a->dtype_da != a->dtype && !(floating && a->dtype_da == AM_F32))
        return AM_EUNSUP;
    if (a->outer * a->m * a->inner == 0)
        return AM_OK;
    if (a->per_element && a->outer * a->inner > 1) { /* of one column, elements are rows */
        elements e = {a->da,          a->dout, a->index, a->dtype, a->dtype_da, a->dtype_index,
                      a->has_padding, a->n,    a->inner, a->m,     a->padding};
        AM_LAUNCH(elements_kernel, am_blocks(a->outer * a->inner, NT), NT, 0, s->stream, e,
                  a->outer * a->inner, s->problem, "gather_bwd: index");
        return am_cuda_launched(s, "gather_bwd");
    }
    rc = am_cuda_sort_room(s, &o, 1, a->m);
    if (rc != AM_OK)
        return rc;
    AM_LAUNCH(index_keys_kernel, am_blocks(a->m, NT), NT, 0, s->stream, o.keys, a->index,
              a->dtype_index, a->has_padding, a->padding, a->n, a->m, s->problem,
              "gather_bwd: index");
    rc = am_cuda_sort(s, &o, 1, a->m);
    if (rc != AM_OK)
        return rc;
    if (a->dtype_da == AM_F32 && a->dtype == AM_BF16)
        segments_wide<float, bf16>(s, a, &o);
    else if (a->dtype_da == AM_F32 && a->dtype == AM_F16)
        segments_wide<float, f16>(s, a, &o);
    else if (a->dtype_da == AM_F32 && a->dtype == AM_F64)
        segments<1, float, double>(s, a, &o);
    else
        AM_FOR_ANY(a->dtype, T, { segments_wide<T, T>(s, a, &o); });
    return am_cuda_launched(s, "gather_bwd");
}
