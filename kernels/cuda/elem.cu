/* elem.cu — elementwise kernels over strided operands. Dense operands take the short way. */
#include "common.cuh"

constexpr int NT = 256;

template <class T, bool DENSE>
__global__ void __launch_bounds__(NT) fill_kernel(T *out, double value, am_nd nd, int64_t n)
{
    int64_t step = (int64_t)gridDim.x * NT;
    for (int64_t i = (int64_t)blockIdx.x * NT + threadIdx.x; i < n; i += step) {
        int64_t at[1] = {i};
        if (!DENSE)
            am_nd_at(nd, i, at);
        am_put(out + at[0], value);
    }
}

extern "C" int am_cuda_fill(am_stream *s, const am_fill_args *a)
{
    int64_t n = am_nd_numel(&a->nd);
    if (n == 0)
        return AM_OK;
    AM_FOR_ANY(a->dtype, T, {
        if (am_nd_dense(&a->nd, 1))
            AM_LAUNCH((fill_kernel<T, true>), am_blocks(n, NT), NT, 0, s->stream, (T *)a->out,
                      a->value, a->nd, n);
        else
            AM_LAUNCH((fill_kernel<T, false>), am_blocks(n, NT), NT, 0, s->stream, (T *)a->out,
                      a->value, a->nd, n);
    });
    return am_cuda_launched(s, "fill");
}
