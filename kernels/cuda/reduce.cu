/* reduce.cu — reductions over the middle dim, and their gradients.
 *
 * A row's n elements are taken in chunks of CHUNK. Of a chunk, neighbours of EACH go to lane 0, the
 * next to lane 1, and so on; what 32 lanes have is put together as a tree. A row of several chunks
 * leaves one partial each, which are reduced in the same way: the order depends on n alone, be the
 * row dense or a column, which other threads share out. */
#include "common.cuh"

/* BLOCKS on a multiprocessor, at least: left to itself ptxas spills to have more. */
constexpr int NT = 256, BLOCKS = 3, EACH = 8, CHUNK = 2048, COLUMNS = 32;

/* ---- what is carried along --------------------------------
 */

/* UNROLL: how many may be taken at once without running out of registers. */
template <class M> struct sum_state {
    enum { UNROLL = 4 };
    M v;
    __device__ __forceinline__ void clear(int)
    {
        v = 0;
    }
    __device__ __forceinline__ void take(int, M x, int64_t)
    {
        v += x;
    }
    __device__ __forceinline__ void join(int, const sum_state &o)
    {
        v += o.v;
    }
    __device__ __forceinline__ sum_state from(int lane) const
    {
        return {__shfl_xor_sync(0xffffffffu, v, lane)};
    }
    __device__ __forceinline__ M result(double scale) const
    {
        return v * (M)scale;
    }
};
/* Integers wrap around. */
template <> __device__ __forceinline__ int64_t sum_state<int64_t>::result(double) const
{
    return v;
}

template <class M> struct product_state {
    enum { UNROLL = 4 };
    M v;
    __device__ __forceinline__ void clear(int)
    {
        v = 1;
    }
    __device__ __forceinline__ void take(int, M x, int64_t)
    {
        v *= x;
    }
    __device__ __forceinline__ void join(int, const product_state &o)
    {
        v *= o.v;
    }
    __device__ __forceinline__ product_state from(int lane) const
    {
        return {__shfl_xor_sync(0xffffffffu, v, lane)};
    }
    __device__ __forceinline__ M result(double) const
    {
        return v;
    }
};

/* The largest or smallest, the first of equal ones; NaN counts as the extreme, as in PyTorch. */
template <class M> struct extreme_state {
    enum { UNROLL = 1 };
    M v;
    int64_t at; /* -1: none yet */
    __device__ __forceinline__ void clear(int)
    {
        v = 0;
        at = -1;
    }
    __device__ __forceinline__ void take(int op, M x, int64_t j)
    {
        bool least = op == AM_R_MIN || op == AM_R_ARGMIN;
        bool beats = v == v && (x != x || (least ? x < v : x > v));
        bool earlier = (x == v || (x != x && v != v)) && j < at;
        if (at < 0 || beats || earlier) {
            v = x;
            at = j;
        }
    }
    __device__ __forceinline__ void join(int op, const extreme_state &o)
    {
        if (o.at >= 0)
            take(op, o.v, o.at);
    }
    __device__ __forceinline__ extreme_state from(int lane) const
    {
        return {__shfl_xor_sync(0xffffffffu, v, lane), __shfl_xor_sync(0xffffffffu, at, lane)};
    }
    __device__ __forceinline__ M result(double) const
    {
        return v;
    }
};

/* log sum exp = max + log of the sum of exp(x - max) */
template <class M> struct lse_state {
    enum { UNROLL = 1 };
    M max, sum;
    __device__ __forceinline__ void clear(int)
    {
        max = -INFINITY;
        sum = 0;
    }
    __device__ __forceinline__ void take(int op, M x, int64_t)
    {
        join(op, {x, 1});
    }
    __device__ __forceinline__ void join(int, const lse_state &o)
    {
        if (o.max > max || o.max != o.max) {
            sum = o.sum + (max == -INFINITY ? (M)0 : sum * exp(max - o.max));
            max = o.max;
        } else if (o.max != -INFINITY) {
            sum += o.max == max ? o.sum : o.sum * exp(o.max - max);
        }
    }
    __device__ __forceinline__ lse_state from(int lane) const
    {
        return {__shfl_xor_sync(0xffffffffu, max, lane), __shfl_xor_sync(0xffffffffu, sum, lane)};
    }
    __device__ __forceinline__ M result(double) const
    {
        return isfinite(max) ? max + log(sum) : max;
    }
};

/* ---- where a row's elements come from ---------------------------------------------------------
 */

template <class T> struct from_tensor {
    const T *p;
    template <class S>
    __device__ __forceinline__ void add(S &s, int op, int64_t at, int64_t j) const
    {
        s.take(op, am_get(p[at]), j);
    }
};
struct from_ints {
    const void *p;
    int dtype;
    template <class S>
    __device__ __forceinline__ void add(S &s, int op, int64_t at, int64_t j) const
    {
        s.take(op, am_load_int(p, dtype, at), j);
    }
};
template <class S> struct from_partials {
    const S *p;
    __device__ __forceinline__ void add(S &s, int op, int64_t at, int64_t) const
    {
        s.join(op, p[at]);
    }
};

struct target {
    void *out; /* partials where a row has several chunks */
    int op, dtype_out, accumulate;
    double scale;
    int64_t n, inner, chunks;
};

template <class M> AM_DEVICE void write(const target &t, int64_t i, M v)
{
    if (t.accumulate)
        v += am_get_any<M>(t.out, t.dtype_out, i);
    am_put_any(t.out, t.dtype_out, i, v);
}
template <> __device__ __forceinline__ void write(const target &t, int64_t i, int64_t v)
{
    uint64_t old = t.accumulate ? (uint64_t)am_load_int(t.out, t.dtype_out, i) : 0;
    am_store_int(t.out, t.dtype_out, i, (int64_t)(old + (uint64_t)v));
}

/* Element i of [outer, chunks, inner] is done. */
template <class S> AM_DEVICE void finish(const target &t, int64_t i, const S &s)
{
    if (t.chunks > 1)
        ((S *)t.out)[i] = s;
    else
        write(t, i, s.result(t.scale));
}
template <class M> AM_DEVICE void finish(const target &t, int64_t i, const extreme_state<M> &s)
{
    if (t.chunks > 1)
        ((extreme_state<M> *)t.out)[i] = s;
    else if (t.op >= AM_R_ARGMAX)
        ((int64_t *)t.out)[i] = s.at < 0 ? 0 : s.at;
    else
        write(t, i, s.result(t.scale));
}

/* What a lane has of a chunk. */
template <class S, class F>
AM_DEVICE void take_lane(S &s, const F &from, const target &t, int64_t first, int64_t begin,
                         int64_t end, int lane)
{
    s.clear(t.op);
    for (int64_t k = begin + lane * EACH; k < end; k += 32 * EACH) {
        int left = (int)min((int64_t)EACH, end - k);
        int64_t at = first + k * t.inner;
#pragma unroll(S::UNROLL)
        for (int e = 0; e < EACH; e++)
            if (e < left)
                from.add(s, t.op, at + e * t.inner, k + e);
    }
}

/* A warp for each chunk of rows that are dense. */
template <class S, class F>
__global__ void __launch_bounds__(NT) rows_kernel(F from, target t, int64_t count)
{
    int lane = threadIdx.x & 31;
    int64_t step = (int64_t)gridDim.x * (NT / 32);
    for (int64_t i = (int64_t)blockIdx.x * (NT / 32) + threadIdx.x / 32; i < count; i += step) {
        int64_t row = i, begin = 0;
        if (t.chunks > 1) {
            row = am_divide(i, t.chunks);
            begin = (i - row * t.chunks) * CHUNK;
        }
        S s;
        take_lane(s, from, t, row * t.n, begin, min(t.n, begin + CHUNK), lane);
#pragma unroll
        for (int o = 16; o; o >>= 1)
            s.join(t.op, s.from(o));
        if (lane == 0)
            finish(t, i, s);
    }
}

/* A block for each chunk of 32 neighbouring columns: threads along the columns read what is dense.
 * Its warps do four lanes each, one after the other. */
template <class S, class F>
__global__ void __launch_bounds__(NT, BLOCKS) columns_kernel(F from, target t, int64_t outer)
{
    AM_SHARED(S, part, [32][COLUMNS + 1]);
    int x = threadIdx.x & 31, warp = threadIdx.x / 32;
    for (int64_t o = blockIdx.z; o < outer; o += gridDim.z)
        for (int64_t chunk = blockIdx.y; chunk < t.chunks; chunk += gridDim.y)
            for (int64_t column = (int64_t)blockIdx.x * COLUMNS; column < t.inner;
                 column += (int64_t)gridDim.x * COLUMNS) {
                int64_t begin = chunk * CHUNK, end = min(t.n, begin + CHUNK);
                __syncthreads(); /* the last chunk's may still be read */
                for (int lane = warp; lane < 32; lane += NT / 32) {
                    S s;
                    if (column + x < t.inner)
                        take_lane(s, from, t, o * t.n * t.inner + column + x, begin, end, lane);
                    else
                        s.clear(t.op);
                    part[lane][x] = s;
                }
                __syncthreads();
                for (int c = warp; c < COLUMNS && column + c < t.inner; c += NT / 32) {
                    S s = part[x][c];
#pragma unroll
                    for (int d = 16; d; d >>= 1)
                        s.join(t.op, s.from(d));
                    if (x == 0)
                        finish(t, (o * t.chunks + chunk) * t.inner + column + c, s);
                }
            }
}

template <class S, class F> static void pass(am_stream *s, F from, const target &t, int64_t outer)
{
    if (t.inner == 1) {
        int64_t count = outer * t.chunks;
        AM_LAUNCH((rows_kernel<S, F>), am_blocks(count, NT / 32), NT, 0, s->stream, from, t, count);
    } else {
        dim3 grid(am_blocks(t.inner, COLUMNS), am_blocks(t.chunks, 1), am_blocks(outer, 1));
        AM_LAUNCH((columns_kernel<S, F>), grid, NT, 0, s->stream, from, t, outer);
    }
}

template <class S, class F> static int reduce(am_stream *s, F from, const am_reduce_args *a)
{
    target t = {a->out,
                a->op,
                a->op >= AM_R_ARGMAX ? (int)AM_I64 : a->dtype_out,
                a->accumulate,
                a->scale,
                a->n,
                a->inner,
                (a->n + CHUNK - 1) / CHUNK};
    int slot = 0;
    S *partials;
    if (t.chunks <= 1) {
        t.chunks = 1;
        pass<S>(s, from, t, a->outer);
        return AM_OK;
    }
    int rc = am_cuda_scratch(s, (void **)&partials, slot,
                             (size_t)(a->outer * t.chunks * a->inner) * sizeof(S));
    if (rc != AM_OK)
        return rc;
    t.out = partials;
    pass<S>(s, from, t, a->outer);
    while (t.chunks > 1) { /* partials of partials lie in the other slot */
        t.n = t.chunks;
        t.chunks = (t.n + CHUNK - 1) / CHUNK;
        from_partials<S> more = {partials};
        slot ^= 1;
        t.out = a->out;
        if (t.chunks > 1) {
            rc = am_cuda_scratch(s, (void **)&partials, slot,
                                 (size_t)(a->outer * t.chunks * a->inner) * sizeof(S));
            if (rc != AM_OK)
                return rc;
            t.out = partials;
        }
        pass<S>(s, more, t, a->outer);
    }
    return AM_OK;
}

template <class M, class F> static int reduce_by(am_stream *s, F from, const am_reduce_args *a)
{
    switch (a->op) {
    case AM_R_SUM:
        return reduce<sum_state<M>>(s, from, a);
    case AM_R_PROD:
        return reduce<product_state<M>>(s, from, a);
    default:
        return reduce<extreme_state<M>>(s, from, a);
    }
}

extern "C" int am_cuda_reduce(am_stream *s, const am_reduce_args *a)
{
    int floating = am_is_float(a->dtype), rc = AM_OK;
    if (a->op < 0 || a->op >= AM_R_COUNT || (!floating && a->op == AM_R_LOGSUMEXP) ||
        (floating && a->op < AM_R_ARGMAX && !am_is_float(a->dtype_out)))
        return AM_EUNSUP;
    if (a->outer * a->inner == 0)
        return AM_OK;
    if (!floating) {
        am_reduce_args b = *a;
        if (a->op != AM_R_MAX && a->op != AM_R_MIN)
            b.dtype_out = AM_I64;
        rc = reduce_by<int64_t>(s, from_ints{a->a, a->dtype}, &b);
    } else {
        AM_FOR_FLOAT(a->dtype, T, {
            typedef typename am_math<T>::type M;
            from_tensor<T> from = {(const T *)a->a};
            rc = a->op == AM_R_LOGSUMEXP ? reduce<lse_state<M>>(s, from, a)
                                         : reduce_by<M>(s, from, a);
        });
    }
    return rc == AM_OK ? am_cuda_launched(s, "reduce") : rc;
}

/* ---- gradients --------------------------------------------------------------------------------
 */

/* SUM and LOGSUMEXP: each element by itself. */
template <class T>
__global__ void __launch_bounds__(NT)
    spread_kernel(T *da, const T *dout, const T *a, const T *out, int op,
                  typename am_math<T>::type scale, int64_t n, int64_t inner, int64_t count)
{
    typedef typename am_math<T>::type M;
    int64_t step = (int64_t)gridDim.x * NT;
    for (int64_t i = (int64_t)blockIdx.x * NT + threadIdx.x; i < count; i += step) {
        int64_t row = am_divide(i, inner), at = am_divide(row, n) * inner + (i - row * inner);
        M d = am_get(dout[at]);
        if (op == AM_R_SUM) {
            d *= scale;
        } else { /* softmax; 0 where all are -inf */
            M lse = am_get(out[at]);
            d = lse == -INFINITY ? (M)0 : d * exp(am_get(a[i]) - lse);
        }
        am_put(da + i, d);
    }
}

/* MAX and MIN: ties share equally. PROD: the product of the others. A warp has a row. */
template <class T>
__global__ void __launch_bounds__(NT, BLOCKS)
    row_bwd_kernel(T *da, const T *dout, const T *a, const T *out, int op, int64_t n, int64_t inner,
                   int64_t rows)
{
    typedef typename am_math<T>::type M;
    int lane = threadIdx.x & 31;
    int64_t step = (int64_t)gridDim.x * (NT / 32);
    for (int64_t i = (int64_t)blockIdx.x * (NT / 32) + threadIdx.x / 32; i < rows; i += step) {
        int64_t o = am_divide(i, inner), first = o * n * inner + (i - o * inner);
        M d = am_get(dout[i]), best = am_get(out[i]), product = 1;
        int special = 0; /* ties, or zeros */
        for (int64_t j = lane; j < n; j += 32) {
            M x = am_get(a[first + j * inner]);
            special += x == (op == AM_R_PROD ? (M)0 : best);
            product *= x == 0 ? (M)1 : x;
        }
        special = am_warp_sum(special);
#pragma unroll
        for (int k = 16; k; k >>= 1)
            product *= __shfl_xor_sync(0xffffffffu, product, k);
        for (int64_t j = lane; j < n; j += 32) {
            int64_t k = first + j * inner;
            M x = am_get(a[k]), g;
            if (op != AM_R_PROD)
                g = x == best ? d / (M)special : (M)0;
            else if (special == 0)
                g = d * (product / x);
            else
                g = special == 1 && x == 0 ? d * product : (M)0;
            am_put(da + k, g);
        }
    }
}

extern "C" int am_cuda_reduce_bwd(am_stream *s, const am_reduce_bwd_args *a)
{
    int64_t rows = a->outer * a->inner, count = rows * a->n;
    if (a->op < 0 || a->op > AM_R_PROD)
        return AM_EUNSUP;
    if (count == 0)
        return AM_OK;
    AM_FOR_FLOAT(a->dtype, T, {
        if (a->op == AM_R_SUM || a->op == AM_R_LOGSUMEXP)
            AM_LAUNCH(spread_kernel<T>, am_blocks(count, NT), NT, 0, s->stream, (T *)a->da,
                      (const T *)a->dout, (const T *)a->a, (const T *)a->out, a->op, a->scale, a->n,
                      a->inner, count);
        else
            AM_LAUNCH(row_bwd_kernel<T>, am_blocks(rows, NT / 32), NT, 0, s->stream, (T *)a->da,
                      (const T *)a->dout, (const T *)a->a, (const T *)a->out, a->op, a->n, a->inner,
                      rows);
    });
    return am_cuda_launched(s, "reduce_bwd");
}
