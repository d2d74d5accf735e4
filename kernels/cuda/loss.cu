/* loss.cu — cross-entropy and its gradient. A row is a block's, which reads its logits once for
 * the loss, keeping a running maximum and the sum of exponentials below it (Milakov & Gimelshein
 * 2018), and once more for the gradient. */
#include "vector.cuh"

constexpr int NT = 256;

template <class M> AM_DEVICE M soft_cap(M x, M cap)
{
    return cap > 0 ? cap * tanh(x / cap) : x;
}

/* Row r's label; ignored where the row does not count. A bad one is reported and taken as 0. */
struct target {
    int64_t label;
    bool ignored;
};

AM_DEVICE target target_at(const void *labels, int dtype, int64_t r, int64_t ignore, int64_t v,
                           am_cuda_problem *problem, const char *what)
{
    target t;
    t.label = dtype == AM_I32 ? ((const int32_t *)labels)[r] : ((const int64_t *)labels)[r];
    t.ignored = t.label == ignore;
    if (!t.ignored)
        t.label = am_checked(t.label, v, problem, what);
    return t;
}

template <class T>
__global__ void __launch_bounds__(NT)
    loss_kernel(am_cross_entropy_args a, bool wide, am_cuda_problem *problem, const char *what)
{
    typedef typename am_math<T>::type M;
    constexpr int V = AM_WIDTH(T);
    int64_t row = blockIdx.x;
    const T *logits = (const T *)a.logits + row * a.v;
    M x[V], cap = (M)a.softcap, most = -INFINITY, sum = 0;
    for (int64_t i = (int64_t)threadIdx.x * V; i < a.v; i += NT * V) {
        M top = most;
        am_read(x, logits + i, a.v - i, wide);
#pragma unroll
        for (int j = 0; j < V; j++) {
            x[j] = i + j < a.v ? soft_cap(x[j], cap) : (M)-INFINITY;
            top = x[j] > top ? x[j] : top;
        }
        M below = top == (M)-INFINITY ? (M)0 : top; /* -inf - -inf is no number */
        sum *= exp(most - below);
        most = top;
#pragma unroll
        for (int j = 0; j < V; j++)
            sum += exp(x[j] - below);
    }
    M top = am_block_max(most), below = top == (M)-INFINITY ? (M)0 : top;
    M lse = top + log(am_block_sum(sum * exp(most - below)));
    if (threadIdx.x == 0) {
        target t = target_at(a.labels, a.dtype_labels, row, a.ignore, a.v, problem, what);
        ((M *)a.lse)[row] = lse;
        ((M *)a.loss)[row] = t.ignored ? (M)0 : lse - soft_cap((M)am_get(logits[t.label]), cap);
    }
}

/* dlogits = dloss (softmax - onehot); with y = cap tanh(x / cap): dy/dx = 1 - (y / cap)^2. dlogits
 * may be logits. */
struct dlogits {
    void *out;
    const void *logits, *labels, *lse, *dloss;
    int dtype_out, dtype_labels;
    int64_t ignore, v;
    double softcap;
    bool wide;
};

template <class T>
__global__ void __launch_bounds__(NT)
    dlogits_kernel(dlogits a, am_cuda_problem *problem, const char *what)
{
    typedef typename am_math<T>::type M;
    constexpr int V = AM_WIDTH(T);
    int64_t row = blockIdx.x;
    const T *logits = (const T *)a.logits + row * a.v;
    target t = target_at(a.labels, a.dtype_labels, row, a.ignore, a.v, problem, what);
    M cap = (M)a.softcap, lse = ((const M *)a.lse)[row];
    M dloss = a.dloss ? *(const M *)a.dloss : (M)1;
    for (int64_t i = (int64_t)threadIdx.x * V; i < a.v; i += NT * V) {
        M x[V] = {0};
        if (!t.ignored) {
            am_read(x, logits + i, a.v - i, a.wide);
#pragma unroll
            for (int j = 0; j < V; j++) {
                M y = soft_cap(x[j], cap);
                x[j] = dloss * (exp(y - lse) - (M)(i + j == t.label));
                if (cap > 0)
                    x[j] *= (M)1 - (y / cap) * (y / cap);
            }
        }
        am_write_any(a.out, a.dtype_out, row * a.v + i, x, a.v - i, a.wide);
    }
}

static bool is_index(int dtype)
{
    return dtype == AM_I32 || dtype == AM_I64;
}

extern "C" int am_cuda_cross_entropy(am_stream *s, const am_cross_entropy_args *a)
{
    int out = a->dlogits ? a->dtype_dlogits : a->dtype;
    if (!is_index(a->dtype_labels) || !am_is_float(out) || (a->dtype == AM_F64) != (out == AM_F64))
        return AM_EUNSUP;
    dlogits d = {a->dlogits,      a->logits, a->labels, a->lse,     NULL, out,
                 a->dtype_labels, a->ignore, a->v,      a->softcap, false};
    AM_FOR_FLOAT(a->dtype, T, {
        constexpr int V = AM_WIDTH(T);
        const char *what = "cross_entropy: label";
        if (a->rows == 0)
            return AM_OK;
        d.wide = a->v % V == 0 && am_aligned16(a->logits);
        AM_LAUNCH((loss_kernel<T>), (unsigned)a->rows, NT, 0, s->stream, *a, d.wide, s->problem,
                  what);
        int rc = am_cuda_launched(s, "cross_entropy");
        if (rc != AM_OK || !a->dlogits)
            return rc;
        d.wide = d.wide && am_aligned16(a->dlogits);
        AM_LAUNCH((dlogits_kernel<T>), (unsigned)a->rows, NT, 0, s->stream, d, s->problem, what);
    });
    return am_cuda_launched(s, "cross_entropy");
}

extern "C" int am_cuda_cross_entropy_bwd(am_stream *s, const am_cross_entropy_bwd_args *a)
{
    if (!is_index(a->dtype_labels))
        return AM_EUNSUP;
    dlogits d = {a->dlogits,      a->logits, a->labels, a->lse,     a->dloss, a->dtype,
                 a->dtype_labels, a->ignore, a->v,      a->softcap, false};
    AM_FOR_FLOAT(a->dtype, T, {
        if (a->rows == 0)
            return AM_OK;
        d.wide = a->v % AM_WIDTH(T) == 0 && am_aligned16(a->logits, a->dlogits);
        AM_LAUNCH((dlogits_kernel<T>), (unsigned)a->rows, NT, 0, s->stream, d, s->problem,
                  "cross_entropy: label");
    });
    return am_cuda_launched(s, "cross_entropy_bwd");
}
