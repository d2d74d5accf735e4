/* profile.h — what ops take while am_profile_start is in force; see profile.c. */
#ifndef AM_PROFILE_H
#define AM_PROFILE_H

#include <stdbool.h>
#include "../backend.h"

extern bool am_profiling;
extern int64_t am_profile_flops; /* of matrix products launched so far */

/* Before and after something worth a line. Without a profile nothing but a branch. */
typedef struct am_span {
    double start;
    int64_t flops;
} am_span;
static inline am_span am_span_begin(void)
{
    return am_profiling ? (am_span){am_clock(), am_profile_flops} : (am_span){0, 0};
}
/* `what` must stay: a literal. Waits for the device, so that its time counts. */
void am_span_end(const am_span *span, const char *what, int phase, int device, int64_t bytes);

/* Multiply-adds count two. Attention counts the pairs that a causal mask leaves, as if each row
 * were one sample: 2 products forward, 5 backward (scores are made again). */
static inline int64_t am_flops_none(const void *args)
{
    (void)args;
    return 0;
}

static inline int64_t am_flops_gemm(const am_gemm_args *a)
{
    return 2 * a->m * a->n * (a->k + (a->u ? a->r : 0)) * a->batch;
}

static inline int64_t am_flops_gemv(const am_gemv_args *a)
{
    return 2 * a->rows * a->n * a->k;
}

static inline int64_t am_flops_packed(const am_packed_gemm_args *a)
{
    return 2 * a->m * a->packing.rows * a->packing.cols;
}

static inline int64_t am_flops_low_rank(const am_low_rank_args *a)
{
    return 2 * a->m * a->k * a->r * ((a->u != NULL) + (a->g != NULL));
}

static inline int64_t am_flops_fp8(const am_fp8_gemm_args *a)
{
    return 2 * a->m * a->n * a->k;
}

static inline int64_t am_flops_grouped(const am_grouped_gemm_args *a)
{
    return 2 * a->rows * a->n * a->k;
}

static inline int64_t am_flops_grouped_dw(const am_grouped_gemm_dw_args *a)
{
    return a->dw ? 2 * a->rows * a->n * a->k : 0;
}

static inline int64_t am_flops_pairs(const am_attention_shape *a)
{
    int64_t pairs = a->causal ? a->t * a->s - a->t * (a->t - 1) / 2 : a->t * a->s;
    return 2 * a->b * a->h * pairs * a->d;
}

static inline int64_t am_flops_attention(const am_attention_args *a)
{
    return 2 * am_flops_pairs(&a->shape);
}

static inline int64_t am_flops_attention_bwd(const am_attention_bwd_args *a)
{
    return 5 * am_flops_pairs(&a->shape);
}

#define AM_FLOPS(args)                                                                             \
    _Generic((args),                                                                               \
        const am_gemm_args *: am_flops_gemm,                                                       \
        const am_gemv_args *: am_flops_gemv,                                                       \
        const am_packed_gemm_args *: am_flops_packed,                                              \
        const am_low_rank_args *: am_flops_low_rank,                                               \
        const am_fp8_gemm_args *: am_flops_fp8,                                                    \
        const am_grouped_gemm_args *: am_flops_grouped,                                            \
        const am_grouped_gemm_dw_args *: am_flops_grouped_dw,                                      \
        const am_attention_args *: am_flops_attention,                                             \
        const am_attention_bwd_args *: am_flops_attention_bwd,                                     \
        default: am_flops_none)(args)

#endif
