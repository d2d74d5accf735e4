/* cudnn.h — attention by cuDNN, for the launchers of attention.cu and attention_bwd.cu. */
#pragma once

#include "cuda_backend.h"

#if defined(__cplusplus)
extern "C" {
#endif

/* AM_OK where cuDNN has done it; AM_EUNSUP where the own kernel has to: there is no cuDNN, the
 * table does not list the problem, or it failed, which am_cuda_dnn_about tells from then on. q, k,
 * v and dout have what copies of 16 bytes need (am_attention_fast). Of the backward pass delta is
 * left alone.
 */
int am_cuda_dnn_attention(am_stream *s, const am_attention_args *a);
int am_cuda_dnn_attention_bwd(am_stream *s, const am_attention_bwd_args *a);
/* Give back plans and what they are run by; the next call makes them anew. */
void am_cuda_dnn_close(void);
/* "cuDNN 9.26.0", or why there is none. */
const char *am_cuda_dnn_about(void);

/* ---- cudnn_samples.cu ------------------------------------------------------------------------ */

/* In device memory: tokens of each place, and six times where it begins (AM_DNN_OFFSET_*), each
 * `step` numbers behind the other. */
typedef struct am_dnn_places {
    int32_t *lengths;
    int64_t *offsets, step;
    int64_t count;
} am_dnn_places;

/* The samples of rows, from their bounds; without these a row is one. Places without a sample have
 * no tokens; more samples than places are reported by the next sync. */
int am_cuda_dnn_samples(am_stream *s, const am_attention_shape *x, const int32_t *bounds,
                        am_dnn_places places);
/* lse [b, h, t] of stats [b, t, h], -inf for a token that sees nothing; and back. */
int am_cuda_dnn_lse(am_stream *s, const am_attention_shape *x, const int32_t *bounds, float *lse,
                    const float *stats);
int am_cuda_dnn_stats(am_stream *s, const am_attention_shape *x, float *stats, const float *lse);

#if defined(__cplusplus)
}
#endif
