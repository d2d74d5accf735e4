/* cudnn_attention.h — attention as a graph of cuDNN: what a plan depends on, where there is one,
 * and the plan. It needs no GPU: tests/cuda/cudnn links these files with the library itself. */
#pragma once

#include "cudnn_graph.h"

#if defined(__cplusplus)
extern "C" {
#endif

/* Self-attention of samples that lie anywhere in the memory of `h` and `kh` heads of q and of k and
 * v: up to `places` samples of up to t tokens each. Strides, in elements, are of tokens and heads;
 * out and gradients are dense. dtype: AM_BF16 or AM_F16. */
typedef struct am_dnn_attention {
    int32_t backward, dtype, causal, window; /* window: whether there is one */
    int64_t places, t, h, kh, d;
    int64_t q[2], k[2], v[2];
} am_dnn_attention;

/* What a run names. For each place: how many tokens, int32 [places], and where they begin in q, k,
 * v, out (and dq and dout), STATS, and dk and dv, int64 [places + 1], in elements. */
enum {
    AM_DNN_Q = 1,
    AM_DNN_K,
    AM_DNN_V,
    AM_DNN_OUT,
    AM_DNN_STATS,  /* lse, f32, for each token all heads */
    AM_DNN_SCALE,  /* float */
    AM_DNN_LOWEST, /* float, -inf */
    AM_DNN_WINDOW, /* float: keys that a query sees */
    AM_DNN_LENGTHS,
    AM_DNN_OFFSET_Q,
    AM_DNN_OFFSET_K,
    AM_DNN_OFFSET_V,
    AM_DNN_OFFSET_OUT,
    AM_DNN_OFFSET_STATS,
    AM_DNN_OFFSET_DKV,
    AM_DNN_DOUT,
    AM_DNN_DQ,
    AM_DNN_DK,
    AM_DNN_DV,
    AM_DNN_DELTA, /* f32 [places, h, t], written: row sums of dout out */
    AM_DNN_ONE,   /* float, 1 */
    AM_DNN_UIDS
};

/* The plan of a problem that am_dnn_attention_listed lists, or a status, with why in g, which has
 * to be ended in either case. */
int am_dnn_attention_plan(am_dnn_graph *g, const am_dnn_attention *a, am_dnn_target target,
                          am_dnn_plan *plan);

/* Whether cuDNN is asked for a problem on GPUs of a compute capability (90: 9.0): what
 * cudnn_table.def lists. */
int am_dnn_attention_listed(const am_dnn_attention *a, int capability);

#if defined(__cplusplus)
}
#endif
