/* glu.cu — gated units and their gradients. SiLU and the GELU by tanh, which models have, are
 * kernels of their own that take 16 bytes at a time; the others look their activation up. */
#include "act.cuh"
#include "vector.cuh"

constexpr int NT = 256, ANY = -1;

template <class T, int ACT, int V> __global__ void __launch_bounds__(NT) glu_kernel(am_glu_args a)
{
    typedef typename am_math<T>::type M;
    int64_t i = ((int64_t)blockIdx.x * NT + threadIdx.x) * V;
    if (i >= a.n)
        return;
    bool whole = a.n - i >= V;
    M gate[V], up[V];
    am_read(gate, (const T *)a.gate + i, a.n - i, whole);
    am_read(up, (const T *)a.up + i, a.n - i, whole);
#pragma unroll
    for (int j = 0; j < V; j++)
        up[j] *= am_act(ACT == ANY ? a.act : ACT, gate[j]);
    am_write((T *)a.out + i, up, a.n - i, whole);
}

template <class T, int ACT, int V>
__global__ void __launch_bounds__(NT) glu_bwd_kernel(am_glu_bwd_args a)
{
    typedef typename am_math<T>::type M;
    int64_t i = ((int64_t)blockIdx.x * NT + threadIdx.x) * V;
    if (i >= a.n)
        return;
    bool whole = a.n - i >= V;
    int act = ACT == ANY ? a.act : ACT;
    M gate[V], up[V], dout[V];
    am_read(gate, (const T *)a.gate + i, a.n - i, whole);
    am_read(dout, (const T *)a.dout + i, a.n - i, whole);
    if (a.dgate) {
        am_read(up, (const T *)a.up + i, a.n - i, whole);
#pragma unroll
        for (int j = 0; j < V; j++)
            up[j] *= dout[j] * am_act_grad(act, gate[j]);
        am_write((T *)a.dgate + i, up, a.n - i, whole);
    }
    if (a.dup) {
#pragma unroll
        for (int j = 0; j < V; j++)
            dout[j] *= am_act(act, gate[j]);
        am_write((T *)a.dup + i, dout, a.n - i, whole);
    }
}

static unsigned blocks_of(int64_t n, int each)
{
    return (unsigned)((n + NT * each - 1) / (NT * each));
}

extern "C" int am_cuda_glu(am_stream *s, const am_glu_args *a)
{
    if (a->act < 0 || a->act >= AM_ACT_COUNT)
        return AM_EUNSUP;
    bool aligned = am_aligned16(a->out, a->gate, a->up);
    AM_FOR_FLOAT(a->dtype, T, {
        constexpr int V = AM_WIDTH(T);
        if (a->n == 0)
            return AM_OK;
        if (aligned && a->act == AM_ACT_SILU)
            AM_LAUNCH((glu_kernel<T, AM_ACT_SILU, V>), blocks_of(a->n, V), NT, 0, s->stream, *a);
        else if (aligned && a->act == AM_ACT_GELU_TANH)
            AM_LAUNCH((glu_kernel<T, AM_ACT_GELU_TANH, V>), blocks_of(a->n, V), NT, 0, s->stream,
                      *a);
        else
            AM_LAUNCH((glu_kernel<T, ANY, 1>), blocks_of(a->n, 1), NT, 0, s->stream, *a);
    });
    return am_cuda_launched(s, "glu");
}

extern "C" int am_cuda_glu_bwd(am_stream *s, const am_glu_bwd_args *a)
{
    if (a->act < 0 || a->act >= AM_ACT_COUNT)
        return AM_EUNSUP;
    bool aligned = am_aligned16(a->dgate, a->dup, a->dout) && am_aligned16(a->gate, a->up);
    AM_FOR_FLOAT(a->dtype, T, {
        constexpr int V = AM_WIDTH(T);
        if (a->n == 0)
            return AM_OK;
        if (aligned && a->act == AM_ACT_SILU)
            AM_LAUNCH((glu_bwd_kernel<T, AM_ACT_SILU, V>), blocks_of(a->n, V), NT, 0, s->stream,
                      *a);
        else if (aligned && a->act == AM_ACT_GELU_TANH)
            AM_LAUNCH((glu_bwd_kernel<T, AM_ACT_GELU_TANH, V>), blocks_of(a->n, V), NT, 0,
                      s->stream, *a);
        else
            AM_LAUNCH((glu_bwd_kernel<T, ANY, 1>), blocks_of(a->n, 1), NT, 0, s->stream, *a);
    });
    return am_cuda_launched(s, "glu_bwd");
}
