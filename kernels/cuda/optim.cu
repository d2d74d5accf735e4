/* optim.cu — over flat buffers: the sum of squares, and steps of Adam, SGD and Lion, whose moments
 * are floating numbers or 8-bit codes. Weights, gradients and moments have dtypes of their own,
 * which a kernel looks up when it runs: memory is what these kernels wait for. */
#include "../cpu/dynamic_map.h"
#include "vector.cuh"

/* ---- sum of squares -------------------------------------------------------------------------- */

/* BLOCKS on a multiprocessor, at least: left to itself ptxas spills to have more. */
constexpr int NT = 256, BLOCKS = 2;

template <class T>
__global__ void __launch_bounds__(NT)
    sumsq_kernel(double *partial, const T *x, int64_t n, bool wide)
{
    constexpr int V = AM_WIDTH(T);
    int64_t first = (int64_t)blockIdx.x * AM_SUMSQ_BLOCK, end = first + AM_SUMSQ_BLOCK;
    double sum = 0;
    end = end < n ? end : n;
    for (int64_t i = first + threadIdx.x * V; i < end; i += NT * V) {
        double v[V];
        am_read(v, x + i, end - i, wide && end - i >= V);
#pragma unroll
        for (int j = 0; j < V; j++)
            sum += v[j] * v[j];
    }
    sum = am_block_sum(sum);
    if (threadIdx.x == 0)
        partial[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(NT)
    sumsq_total_kernel(double *out, const double *partial, int64_t n)
{
    double sum = 0;
    for (int64_t i = threadIdx.x; i < n; i += NT)
        sum += partial[i];
    sum = am_block_sum(sum);
    if (threadIdx.x == 0)
        *out = sum;
}

extern "C" int am_cuda_sumsq(am_stream *s, const am_sumsq_args *a)
{
    int64_t blocks = (a->n + AM_SUMSQ_BLOCK - 1) / AM_SUMSQ_BLOCK;
    AM_FOR_FLOAT(a->dtype, T, {
        if (blocks > 0)
            AM_LAUNCH((sumsq_kernel<T>), (unsigned)blocks, NT, 0, s->stream, a->partial,
                      (const T *)a->x, a->n, am_aligned16(a->x));
    });
    int rc = am_cuda_launched(s, "sumsq");
    if (rc != AM_OK)
        return rc;
    AM_LAUNCH(sumsq_total_kernel, 1, NT, 0, s->stream, a->out, (const double *)a->partial, blocks);
    return am_cuda_launched(s, "sumsq");
}

/* ---- steps ----------------------------------------------------------------------------------- */

enum { STATES = 3 };

/* state: an optimizer's moments, those that it has; fresh: nothing is in them yet. */
struct step {
    void *param, *state[STATES];
    float *master, *absmax[STATES];
    const void *grad;
    int dtype, dtype_state, dtype_grad, fresh;
    int64_t n;
    double grad_scale;
};

/* Each rule steps a weight p with the gradient g, and its moments s; M is what it computes in. */
template <class M> struct adam_rule {
    M shrink, l2, rise1, beta2, rise2, size, root, eps;
    int amsgrad;
    __device__ __forceinline__ void operator()(M &p, M g, M (&s)[STATES]) const
    {
        g += l2 * p;
        p *= shrink;
        s[0] += (g - s[0]) * rise1;
        s[1] = beta2 * s[1] + rise2 * g * g;
        M under = s[1];
        if (amsgrad)
            under = s[2] = s[2] > s[1] ? s[2] : s[1];
        p -= size * s[0] / (sqrt(under) / root + eps);
    }
};

template <class M> struct sgd_rule {
    M l2, momentum, rise, lr;
    int with_buf, first, nesterov;
    __device__ __forceinline__ void operator()(M &p, M g, M (&s)[STATES]) const
    {
        g += l2 * p;
        if (with_buf) {
            s[0] = first ? g : momentum * s[0] + rise * g;
            g = nesterov ? g + momentum * s[0] : s[0];
        }
        p -= lr * g;
    }
};

template <class M> struct lion_rule {
    M shrink, lr, beta1, rise1, beta2, rise2;
    __device__ __forceinline__ void operator()(M &p, M g, M (&s)[STATES]) const
    {
        M u = beta1 * s[0] + rise1 * g;
        p *= shrink;
        p -= lr * (u > 0 ? (M)1 : u < 0 ? (M)-1 : u);
        s[0] = beta2 * s[0] + rise2 * g;
    }
};

constexpr int V = 4;

/* Weights, gradient and the rule, for V elements from i on. */
template <class M, class RULE>
AM_DEVICE void step_weights(const step &a, const RULE &rule, M (&s)[STATES][V], int64_t i,
                            bool wide)
{
    M p[V], g[V];
    int64_t left = a.n - i;
    if (a.master)
        am_read(p, a.master + i, left, wide);
    else
        am_read_any(p, a.param, a.dtype, i, left, wide);
    am_read_any(g, a.grad, a.dtype_grad, i, left, wide);
#pragma unroll
    for (int j = 0; j < V; j++) {
        M of[STATES] = {s[0][j], s[1][j], s[2][j]};
        rule(p[j], g[j] * (M)a.grad_scale, of);
#pragma unroll
        for (int k = 0; k < STATES; k++)
            s[k][j] = of[k];
    }
    if (a.master) {
        float w[V];
#pragma unroll
        for (int j = 0; j < V; j++) {
            w[j] = (float)p[j];
            p[j] = (M)w[j]; /* param is the master's rounding */
        }
        am_write(a.master + i, w, left, wide);
    }
    am_write_any(a.param, a.dtype, i, p, left, wide);
}

template <class M, class RULE>
__global__ void __launch_bounds__(NT, BLOCKS) step_kernel(step a, RULE rule, bool wide)
{
    int64_t i = ((int64_t)blockIdx.x * NT + threadIdx.x) * V;
    if (i >= a.n)
        return;
    M s[STATES][V] = {};
    wide = wide && a.n - i >= V;
#pragma unroll
    for (int k = 0; k < STATES; k++)
        if (a.state[k] && !a.fresh)
            am_read_any(s[k], a.state[k], a.dtype_state, i, a.n - i, wide);
    step_weights<M>(a, rule, s, i, wide);
#pragma unroll
    for (int k = 0; k < STATES; k++)
        if (a.state[k])
            am_write_any(a.state[k], a.dtype_state, i, s[k], a.n - i, wide);
}

/* ---- moments in 8 bits (dynamic_map.h) ------------------------------------------------------- */

/* The values of codes and what lies between them. */
struct codes {
    int zero, negatives;
    float value[256], bound[256];
};

static codes codes_of(const am_dynamic_map *map)
{
    codes c;
    c.zero = map->zero;
    c.negatives = map->negatives;
    memcpy(c.value, map->value, sizeof c.value);
    memcpy(c.bound, map->bound, sizeof c.bound);
    return c;
}

/* The code of a share of the block's largest value: |share| above bound[j] is at least the j+1st
 * value from zero. */
AM_DEVICE uint8_t code_of(float share, int zero, int negatives, const float *bound)
{
    int up = 0;
    float size = fabsf(share);
#pragma unroll
    for (int step = 128; step; step >>= 1)
        if (up + step < 256 - zero && size > bound[up + step - 1])
            up += step;
    int down = up < negatives ? up : negatives;
    return (uint8_t)(zero + (share < 0 ? -down : up));
}

/* A block has the AM_STATE_BLOCK elements of one absmax, V a thread. signed_map is of the first
 * moment, unsigned_map of the second. */
constexpr int CODE_NT = AM_STATE_BLOCK / V;

template <class M, int N, class RULE>
__global__ void __launch_bounds__(CODE_NT)
    codes_kernel(step a, RULE rule, codes signed_map, codes unsigned_map, bool wide)
{
    AM_SHARED(float, value, [2][256]);
    AM_SHARED(float, bound, [2][256]);
    int64_t i = (int64_t)blockIdx.x * AM_STATE_BLOCK + threadIdx.x * V, left = a.n - i;
    wide = wide && left >= V;
    for (int j = threadIdx.x; j < 256; j += CODE_NT) {
        value[0][j] = signed_map.value[j];
        bound[0][j] = signed_map.bound[j];
        if (N > 1) {
            value[1][j] = unsigned_map.value[j];
            bound[1][j] = unsigned_map.bound[j];
        }
    }
    __syncthreads();
    M s[STATES][V] = {};
#pragma unroll
    for (int k = 0; k < N; k++) {
        float absmax = a.absmax[k][blockIdx.x];
        int64_t code[V];
        if (left > 0)
            am_read(code, (const uint8_t *)a.state[k] + i, left, wide);
#pragma unroll
        for (int j = 0; j < V; j++)
            if (j < left)
                s[k][j] = (M)__fmul_rn(value[k][code[j]], absmax);
    }
    if (left > 0)
        step_weights<M>(a, rule, s, i, wide);
#pragma unroll
    for (int k = 0; k < N; k++) {
        /* As whole numbers, which orders a NaN above all: one makes NaNs of the block. */
        int most = 0, zero = k ? unsigned_map.zero : signed_map.zero;
        int negatives = k ? unsigned_map.negatives : signed_map.negatives;
#pragma unroll
        for (int j = 0; j < V; j++) {
            int bits = j < left ? __float_as_int((float)s[k][j]) & 0x7fffffff : 0;
            most = bits > most ? bits : most;
        }
        most = am_block_max(most);
        float absmax = __int_as_float(most), whole = most ? absmax : 1;
        if (threadIdx.x == 0)
            a.absmax[k][blockIdx.x] = absmax;
        int64_t code[V];
#pragma unroll
        for (int j = 0; j < V; j++)
            code[j] = code_of((float)s[k][j] / whole, zero, negatives, bound[k]);
        if (left > 0)
            am_write((uint8_t *)a.state[k] + i, code, left, wide);
    }
}

template <class M, int N, class RULE>
static int take_step(am_stream *s, const step &a, const RULE &rule, const char *name)
{
    bool wide = am_aligned16(a.param, a.master, a.grad, a.state[0], a.state[1], a.state[2]);
    if (a.n == 0)
        return AM_OK;
    if (a.state[0] && a.dtype_state == AM_U8)
        AM_LAUNCH((codes_kernel<M, N, RULE>),
                  (unsigned)((a.n + AM_STATE_BLOCK - 1) / AM_STATE_BLOCK), CODE_NT, 0, s->stream, a,
                  rule, codes_of(am_dynamic_map_signed()), codes_of(am_dynamic_map_unsigned()),
                  wide);
    else
        AM_LAUNCH((step_kernel<M, RULE>), (unsigned)((a.n + NT * V - 1) / (NT * V)), NT, 0,
                  s->stream, a, rule, wide);
    return am_cuda_launched(s, name);
}

static bool can_step(const step &a)
{
    return am_is_float(a.dtype) && am_is_float(a.dtype_grad) &&
           (!a.state[0] || a.dtype_state == AM_U8 || am_is_float(a.dtype_state));
}

/* Computed in f64 where anything is. */
static bool in_double(const step &a)
{
    return a.dtype == AM_F64 || a.dtype_grad == AM_F64 || (a.state[0] && a.dtype_state == AM_F64);
}

template <class M> static int adam(am_stream *s, const step &a, const am_adam_args *o)
{
    adam_rule<M> rule;
    rule.shrink = (M)(o->decoupled ? 1.0 - o->lr * o->weight_decay : 1.0);
    rule.l2 = (M)(o->decoupled ? 0 : o->weight_decay);
    rule.rise1 = (M)(1.0 - o->beta1);
    rule.beta2 = (M)o->beta2;
    rule.rise2 = (M)(1.0 - o->beta2);
    rule.size = (M)(o->lr / o->bias1);
    rule.root = (M)sqrt(o->bias2);
    rule.eps = (M)o->eps;
    rule.amsgrad = o->vmax != NULL;
    return take_step<M, 2>(s, a, rule, "adam");
}

extern "C" int am_cuda_adam(am_stream *s, const am_adam_args *o)
{
    step a = {o->param,
              {o->m, o->v, o->vmax},
              o->master,
              {o->m_absmax, o->v_absmax, NULL},
              o->grad,
              o->dtype,
              o->dtype_state,
              o->dtype_grad,
              0,
              o->n,
              o->grad_scale};
    if (!can_step(a))
        return AM_EUNSUP;
    return in_double(a) ? adam<double>(s, a, o) : adam<float>(s, a, o);
}

template <class M> static int sgd(am_stream *s, const step &a, const am_sgd_args *o)
{
    sgd_rule<M> rule;
    rule.l2 = (M)o->weight_decay;
    rule.momentum = (M)o->momentum;
    rule.rise = (M)(1.0 - o->dampening);
    rule.lr = (M)o->lr;
    rule.with_buf = o->buf != NULL;
    rule.first = o->first;
    rule.nesterov = o->nesterov;
    return take_step<M, 1>(s, a, rule, "sgd");
}

extern "C" int am_cuda_sgd(am_stream *s, const am_sgd_args *o)
{
    step a = {o->param,       {o->buf, NULL, NULL},
              o->master,      {o->buf_absmax, NULL, NULL},
              o->grad,        o->dtype,
              o->dtype_state, o->dtype_grad,
              o->first,       o->n,
              o->grad_scale};
    if (!can_step(a))
        return AM_EUNSUP;
    return in_double(a) ? sgd<double>(s, a, o) : sgd<float>(s, a, o);
}

template <class M> static int lion(am_stream *s, const step &a, const am_lion_args *o)
{
    lion_rule<M> rule;
    rule.shrink = (M)(1.0 - o->lr * o->weight_decay);
    rule.lr = (M)o->lr;
    rule.beta1 = (M)o->beta1;
    rule.rise1 = (M)(1.0 - o->beta1);
    rule.beta2 = (M)o->beta2;
    rule.rise2 = (M)(1.0 - o->beta2);
    return take_step<M, 1>(s, a, rule, "lion");
}

extern "C" int am_cuda_lion(am_stream *s, const am_lion_args *o)
{
    step a = {o->param,
              {o->m, NULL, NULL},
              o->master,
              {o->m_absmax, NULL, NULL},
              o->grad,
              o->dtype,
              o->dtype_state,
              o->dtype_grad,
              0,
              o->n,
              o->grad_scale};
    if (!can_step(a))
        return AM_EUNSUP;
    return in_double(a) ? lion<double>(s, a, o) : lion<float>(s, a, o);
}
