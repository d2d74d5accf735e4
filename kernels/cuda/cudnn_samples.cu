/* cudnn_samples.cu — what lies between attention's arguments and cuDNN's: where the samples of
 * packed rows are, and the order of lse. */
#include "common.cuh"
#include "cudnn.h"

constexpr int NT = 1024, WARPS = NT / 32, LSE_NT = 256;

struct sample_writer {
    am_attention_shape x;
    am_dnn_places places;

    /* Place i begins at token `start` of row `b`. */
    __device__ __forceinline__ void begin(int64_t i, int64_t b, int64_t start) const
    {
        int64_t token = b * x.t + start, *at = places.offsets + i, step = places.step;
        at[0] = b * x.q_batch + start * x.q_token;
        at[step] = b * x.k_batch + start * x.k_token;
        at[2 * step] = b * x.v_batch + start * x.v_token;
        at[3 * step] = token * x.h * x.d;
        at[4 * step] = token * x.h;
        at[5 * step] = token * x.kh * x.d;
    }
};

/* One block: tokens that begin a sample are counted NT at a time. */
__global__ void __launch_bounds__(NT)
    attention_samples_kernel(sample_writer w, const int32_t *bounds, am_cuda_problem *problem)
{
    AM_SHARED(int, sums, [WARPS]);
    const am_attention_shape &x = w.x;
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    int64_t tokens = x.b * x.t, found = 0;
    for (int64_t base = 0; base < tokens; base += NT) {
        int64_t token = base + threadIdx.x, b = token / x.t, t = token - b * x.t, length = 0;
        if (token < tokens) {
            int64_t start = bounds ? bounds[2 * token] : 0,
                    end = bounds ? bounds[2 * token + 1] : x.t;
            if (start == t && end > start)
                length = (end < x.t ? end : x.t) - start;
        }
        unsigned begins = __ballot_sync(0xffffffffu, length > 0);
        if (lane == 0)
            sums[warp] = __popc(begins);
        __syncthreads();
        int64_t place = found + __popc(begins & ((1u << lane) - 1));
        for (int i = 0; i < WARPS; i++) {
            place += i < warp ? sums[i] : 0;
            found += sums[i];
        }
        if (length > 0 && place < w.places.count) {
            w.places.lengths[place] = (int32_t)length;
            w.begin(place, b, t);
        }
        __syncthreads(); /* all have read sums */
    }
    for (int64_t i = found + threadIdx.x; i <= w.places.count; i += NT) {
        if (i < w.places.count)
            w.places.lengths[i] = 0;
        w.begin(i, x.b, 0);
    }
    if (found >= w.places.count && threadIdx.x == 0)
        w.begin(w.places.count, x.b, 0);
    if (found > w.places.count && threadIdx.x == 0)
        am_report(problem, found, 0, "attention: rows have more samples than attrs.samples says");
}

__global__ void __launch_bounds__(LSE_NT)
    attention_lse_kernel(am_attention_shape x, const int32_t *bounds, float *lse,
                         const float *stats)
{
    int64_t i = blockIdx.x * (int64_t)LSE_NT + threadIdx.x;
    if (i >= x.b * x.h * x.t)
        return;
    int64_t t = i % x.t, head = i / x.t % x.h, token = i / x.t / x.h * x.t + t;
    bool sees = !bounds || bounds[2 * token] < bounds[2 * token + 1];
    lse[i] = sees ? stats[token * x.h + head] : -INFINITY;
}

__global__ void __launch_bounds__(LSE_NT)
    attention_stats_kernel(am_attention_shape x, float *stats, const float *lse)
{
    int64_t i = blockIdx.x * (int64_t)LSE_NT + threadIdx.x;
    if (i >= x.b * x.h * x.t)
        return;
    int64_t t = i % x.t, head = i / x.t % x.h, token = i / x.t / x.h * x.t + t;
    stats[token * x.h + head] = lse[i];
}

static unsigned blocks_of(const am_attention_shape *x)
{
    return (unsigned)((x->b * x->h * x->t + LSE_NT - 1) / LSE_NT);
}

extern "C" int am_cuda_dnn_samples(am_stream *s, const am_attention_shape *x, const int32_t *bounds,
                                   am_dnn_places places)
{
    sample_writer w = {*x, places};
    AM_LAUNCH(attention_samples_kernel, 1, NT, 0, s->stream, w, bounds, s->problem);
    return am_cuda_launched(s, "attention_samples");
}

extern "C" int am_cuda_dnn_lse(am_stream *s, const am_attention_shape *x, const int32_t *bounds,
                               float *lse, const float *stats)
{
    AM_LAUNCH(attention_lse_kernel, blocks_of(x), LSE_NT, 0, s->stream, *x, bounds, lse, stats);
    return am_cuda_launched(s, "attention_lse");
}

extern "C" int am_cuda_dnn_stats(am_stream *s, const am_attention_shape *x, float *stats,
                                 const float *lse)
{
    AM_LAUNCH(attention_stats_kernel, blocks_of(x), LSE_NT, 0, s->stream, *x, stats, lse);
    return am_cuda_launched(s, "attention_stats");
}
