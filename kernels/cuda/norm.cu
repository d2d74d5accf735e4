/* norm.cu — RMSNorm and LayerNorm with their gradients: RMSNorm is the one whose mean is left at 0.
 * A row is a warp's, or a block's when it is long; weights' gradients are sums over stretches of
 * rows, and a second kernel adds those. */
#include "vector.cuh"

/* BLOCKS on a multiprocessor, at least: left to itself ptxas spills to have more. */
constexpr int NT = 256, BLOCKS = 3, WARPS = NT / 32, SHORT = 1024 /* longest row of a warp */;
constexpr int STRETCHES = 128, STRETCH = 64 /* at most so many, at least so long */;
constexpr int SLOT = 1;

template <int TEAM, class M> AM_DEVICE M team_sum(M x)
{
    if constexpr (TEAM == 32)
        return am_warp_sum(x);
    else
        return am_block_sum(x);
}

/* means is NULL for RMSNorm, and in the forward pass where statistics are not kept. */
struct norm_pass {
    void *out, *means, *rstds;
    const void *x, *weight, *bias;
    double eps, offset;
    int64_t rows, c;
    bool centre, wide;
};

/* offset + weight of the V columns from i on; 1 without a weight */
template <class T, class M, int V>
AM_DEVICE void read_weight(M (&w)[V], const void *weight, double offset, int64_t i, int64_t c,
                           bool wide)
{
    if (weight)
        am_read(w, (const T *)weight + i, c - i, wide);
#pragma unroll
    for (int j = 0; j < V; j++)
        w[j] = weight ? (M)offset + w[j] : (M)1;
}

template <class T, int TEAM> __global__ void __launch_bounds__(NT) norm_kernel(norm_pass a)
{
    typedef typename am_math<T>::type M;
    constexpr int V = AM_WIDTH(T);
    int64_t row = (int64_t)blockIdx.x * (NT / TEAM) + threadIdx.x / TEAM;
    int64_t first = (int64_t)(threadIdx.x % TEAM) * V;
    if (row >= a.rows)
        return; /* a whole warp, in kernels of warps */
    const T *x = (const T *)a.x + row * a.c;
    T *out = (T *)a.out + row * a.c;
    M v[V], w[V], b[V], mean = 0, sum = 0;
    if (a.centre) {
        for (int64_t i = first; i < a.c; i += TEAM * V) {
            am_read(v, x + i, a.c - i, a.wide);
#pragma unroll
            for (int j = 0; j < V; j++)
                sum += v[j];
        }
        mean = team_sum<TEAM>(sum) / (M)a.c;
        sum = 0;
    }
    for (int64_t i = first; i < a.c; i += TEAM * V) {
        am_read(v, x + i, a.c - i, a.wide);
#pragma unroll
        for (int j = 0; j < V; j++) {
            M d = i + j < a.c ? v[j] - mean : (M)0;
            sum += d * d;
        }
    }
    M rstd = (M)1 / sqrt(team_sum<TEAM>(sum) / (M)a.c + (M)a.eps);
    if (first == 0) {
        if (a.means)
            ((M *)a.means)[row] = mean;
        if (a.rstds)
            ((M *)a.rstds)[row] = rstd;
    }
    for (int64_t i = first; i < a.c; i += TEAM * V) {
        am_read(v, x + i, a.c - i, a.wide);
        read_weight<T>(w, a.weight, a.offset, i, a.c, a.wide);
        if (a.bias)
            am_read(b, (const T *)a.bias + i, a.c - i, a.wide);
#pragma unroll
        for (int j = 0; j < V; j++)
            v[j] = (v[j] - mean) * rstd * w[j] + (a.bias ? b[j] : (M)0);
        am_write(out + i, v, a.c - i, a.wide);
    }
}

struct norm_grad {
    void *dx;
    const void *dout, *x, *weight, *means, *rstds;
    double offset;
    int64_t rows, c;
    bool accumulate, wide;
};

/* With n = (x - mean) rstd and g = dout (offset + weight): dx = rstd (g - mean(g) - n mean(g n)),
 * mean(g) being LayerNorm's alone. */
template <class T, int TEAM>
__global__ void __launch_bounds__(NT, BLOCKS) norm_dx_kernel(norm_grad a)
{
    typedef typename am_math<T>::type M;
    constexpr int V = AM_WIDTH(T);
    int64_t row = (int64_t)blockIdx.x * (NT / TEAM) + threadIdx.x / TEAM;
    int64_t first = (int64_t)(threadIdx.x % TEAM) * V;
    if (row >= a.rows)
        return;
    const T *x = (const T *)a.x + row * a.c, *dout = (const T *)a.dout + row * a.c;
    T *dx = (T *)a.dx + row * a.c;
    M mean = a.means ? ((const M *)a.means)[row] : (M)0, rstd = ((const M *)a.rstds)[row];
    M v[V], d[V], w[V], g_sum = 0, gn_sum = 0;
    for (int64_t i = first; i < a.c; i += TEAM * V) {
        am_read(v, x + i, a.c - i, a.wide);
        am_read(d, dout + i, a.c - i, a.wide); /* 0 past the end */
        read_weight<T>(w, a.weight, a.offset, i, a.c, a.wide);
#pragma unroll
        for (int j = 0; j < V; j++) {
            M g = d[j] * w[j];
            g_sum += g;
            gn_sum += g * (v[j] - mean) * rstd;
        }
    }
    M g_mean = a.means ? team_sum<TEAM>(g_sum) / (M)a.c : (M)0;
    M gn_mean = team_sum<TEAM>(gn_sum) / (M)a.c;
    for (int64_t i = first; i < a.c; i += TEAM * V) {
        M old[V];
        am_read(v, x + i, a.c - i, a.wide);
        am_read(d, dout + i, a.c - i, a.wide);
        read_weight<T>(w, a.weight, a.offset, i, a.c, a.wide);
        if (a.accumulate)
            am_read(old, dx + i, a.c - i, a.wide);
#pragma unroll
        for (int j = 0; j < V; j++) {
            d[j] = rstd * (d[j] * w[j] - g_mean - (v[j] - mean) * rstd * gn_mean);
            d[j] = a.accumulate ? old[j] + d[j] : d[j];
        }
        am_write(dx + i, d, a.c - i, a.wide);
    }
}

template <class T> struct dw_sums {
    typename am_math<T>::type of[2][WARPS][32 * AM_WIDTH(T)];
};

/* Sums over a stretch of rows: of dout n to part[stretch], of dout to part[stretches + stretch].
 * blockIdx: 32 V columns, stretch. */
template <class T>
__global__ void __launch_bounds__(NT) norm_dw_kernel(norm_grad a, void *part, int64_t stretch)
{
    typedef typename am_math<T>::type M;
    constexpr int V = AM_WIDTH(T);
    AM_SHARED(dw_sums<T>, sums, [1]);
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    int64_t i = ((int64_t)blockIdx.x * 32 + lane) * V;
    int64_t row = blockIdx.y * stretch + warp, end = (blockIdx.y + 1) * stretch;
    M weight[V] = {0}, bias[V] = {0};
    for (end = end < a.rows ? end : a.rows; i < a.c && row < end; row += WARPS) {
        M v[V], d[V], mean = a.means ? ((const M *)a.means)[row] : (M)0;
        M rstd = ((const M *)a.rstds)[row];
        am_read(v, (const T *)a.x + row * a.c + i, a.c - i, a.wide);
        am_read(d, (const T *)a.dout + row * a.c + i, a.c - i, a.wide);
#pragma unroll
        for (int j = 0; j < V; j++) {
            weight[j] += d[j] * (v[j] - mean) * rstd;
            bias[j] += d[j];
        }
    }
#pragma unroll
    for (int j = 0; j < V; j++) {
        sums->of[0][warp][lane + 32 * j] = weight[j];
        sums->of[1][warp][lane + 32 * j] = bias[j];
    }
    __syncthreads();
    for (int k = threadIdx.x; k < 2 * 32 * V; k += NT) {
        int which = k / (32 * V), at = k % (32 * V);
        int64_t column = ((int64_t)blockIdx.x * 32 + at % 32) * V + at / 32;
        M sum = 0;
#pragma unroll
        for (int w = 0; w < WARPS; w++)
            sum += sums->of[which][w][at];
        if (column < a.c)
            ((M *)part)[((int64_t)which * gridDim.y + blockIdx.y) * a.c + column] = sum;
    }
}

template <class M>
__global__ void __launch_bounds__(NT) norm_dw_sum_kernel(void *out, int dtype, const M *part,
                                                         int stretches, int64_t c, int accumulate)
{
    int64_t i = (int64_t)blockIdx.x * NT + threadIdx.x;
    if (i >= c)
        return;
    M sum = 0;
    for (int k = 0; k < stretches; k++)
        sum += part[k * c + i];
    am_put_any(out, dtype, i, accumulate ? am_get_any<M>(out, dtype, i) + sum : sum);
}

static int norm_forward(am_stream *s, const norm_pass *a, int dtype, const char *name)
{
    if (a->rows == 0 || a->c == 0)
        return AM_OK;
    AM_FOR_FLOAT(dtype, T, {
        norm_pass n = *a;
        n.wide = a->c % AM_WIDTH(T) == 0 && am_aligned16(a->out, a->x, a->weight, a->bias);
        if (a->c <= SHORT)
            AM_LAUNCH((norm_kernel<T, 32>), (unsigned)((a->rows + WARPS - 1) / WARPS), NT, 0,
                      s->stream, n);
        else
            AM_LAUNCH((norm_kernel<T, NT>), (unsigned)a->rows, NT, 0, s->stream, n);
    });
    return am_cuda_launched(s, name);
}

/* A gradient over all rows, as dtype; out may be NULL. */
typedef struct sum_over_rows {
    void *out;
    int dtype, accumulate;
} sum_over_rows;

template <class T>
static int norm_dw(am_stream *s, const norm_grad *a, sum_over_rows dweight, sum_over_rows dbias,
                   const char *name)
{
    typedef typename am_math<T>::type M;
    constexpr int COLUMNS = 32 * AM_WIDTH(T);
    int64_t stretch = (a->rows + STRETCHES - 1) / STRETCHES;
    stretch = stretch > STRETCH ? stretch : STRETCH;
    int stretches = (int)((a->rows + stretch - 1) / stretch);
    void *part;
    int rc = am_cuda_scratch(s, &part, SLOT, (size_t)(2 * stretches * a->c) * sizeof(M));
    if (rc != AM_OK)
        return rc;
    if (stretches > 0)
        AM_LAUNCH((norm_dw_kernel<T>),
                  dim3((unsigned)((a->c + COLUMNS - 1) / COLUMNS), (unsigned)stretches), NT, 0,
                  s->stream, *a, part, stretch);
    rc = am_cuda_launched(s, name);
    for (int k = 0; k < 2 && rc == AM_OK; k++) {
        sum_over_rows to = k ? dbias : dweight;
        if (!to.out)
            continue;
        AM_LAUNCH((norm_dw_sum_kernel<M>), (unsigned)((a->c + NT - 1) / NT), NT, 0, s->stream,
                  to.out, to.dtype, (const M *)part + k * stretches * a->c, stretches, a->c,
                  to.accumulate);
        rc = am_cuda_launched(s, name);
    }
    return rc;
}

static int norm_backward(am_stream *s, const norm_grad *a, int dtype, sum_over_rows dweight,
                         sum_over_rows dbias, const char *name)
{
    if (a->c == 0)
        return AM_OK;
    AM_FOR_FLOAT(dtype, T, {
        norm_grad n = *a;
        n.wide = a->c % AM_WIDTH(T) == 0 && am_aligned16(a->dx, a->dout, a->x, a->weight);
        if (a->dx && a->rows > 0 && a->c <= SHORT)
            AM_LAUNCH((norm_dx_kernel<T, 32>), (unsigned)((a->rows + WARPS - 1) / WARPS), NT, 0,
                      s->stream, n);
        else if (a->dx && a->rows > 0)
            AM_LAUNCH((norm_dx_kernel<T, NT>), (unsigned)a->rows, NT, 0, s->stream, n);
        int rc = am_cuda_launched(s, name);
        if (rc != AM_OK || (!dweight.out && !dbias.out))
            return rc;
        return norm_dw<T>(s, &n, dweight, dbias, name);
    });
    return AM_OK;
}

extern "C" int am_cuda_rms_norm(am_stream *s, const am_rms_norm_args *a)
{
    norm_pass n = {};
    n.out = a->out;
    n.rstds = a->rstd;
    n.x = a->x;
    n.weight = a->weight;
    n.eps = a->eps;
    n.offset = a->offset;
    n.rows = a->rows;
    n.c = a->c;
    return norm_forward(s, &n, a->dtype, "rms_norm");
}

extern "C" int am_cuda_layer_norm(am_stream *s, const am_layer_norm_args *a)
{
    norm_pass n = {};
    size_t stat = a->dtype == AM_F64 ? 8 : 4;
    n.out = a->out;
    n.means = a->stats;
    n.rstds = a->stats ? (char *)a->stats + (size_t)a->rows * stat : NULL;
    n.x = a->x;
    n.weight = a->weight;
    n.bias = a->bias;
    n.eps = a->eps;
    n.offset = a->offset;
    n.rows = a->rows;
    n.c = a->c;
    n.centre = true;
    return norm_forward(s, &n, a->dtype, "layer_norm");
}

extern "C" int am_cuda_rms_norm_bwd(am_stream *s, const am_rms_norm_bwd_args *a)
{
    norm_grad n = {};
    if (a->dweight && !am_is_float(a->dtype_dw))
        return AM_EUNSUP;
    n.dx = a->dx;
    n.dout = a->dout;
    n.x = a->x;
    n.weight = a->weight;
    n.rstds = a->rstd;
    n.offset = a->offset;
    n.rows = a->rows;
    n.c = a->c;
    n.accumulate = a->accumulate_dx;
    return norm_backward(s, &n, a->dtype, {a->dweight, a->dtype_dw, a->accumulate_dw},
                         {NULL, a->dtype, 0}, "rms_norm_bwd");
}

extern "C" int am_cuda_layer_norm_bwd(am_stream *s, const am_layer_norm_bwd_args *a)
{
    norm_grad n = {};
    size_t stat = a->dtype == AM_F64 ? 8 : 4;
    if ((a->dweight && !am_is_float(a->dtype_dw)) || (a->dbias && !am_is_float(a->dtype_db)))
        return AM_EUNSUP;
    n.dx = a->dx;
    n.dout = a->dout;
    n.x = a->x;
    n.weight = a->weight;
    n.means = a->stats;
    n.rstds = (const char *)a->stats + (size_t)a->rows * stat;
    n.offset = a->offset;
    n.rows = a->rows;
    n.c = a->c;
    n.accumulate = a->accumulate_dx;
    return norm_backward(s, &n, a->dtype, {a->dweight, a->dtype_dw, a->accumulate_dw},
                         {a->dbias, a->dtype_db, a->accumulate_db}, "layer_norm_bwd");
}
