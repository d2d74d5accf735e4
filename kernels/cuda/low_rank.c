/* low_rank.c — what a map of low rank takes of a pass over a: two products by cuBLASLt. */
#include "cuda_backend.h"

/* u [m, r] = scale a p^T */
static int down(am_stream *s, const am_low_rank_args *l)
{
    return am_cuda_gemm(s, &(am_gemm_args){.c = l->u,
                                           .a = l->a,
                                           .b = l->p,
                                           .dtype_ab = l->dtype,
                                           .dtype_c = l->dtype,
                                           .trans_b = !l->turned,
                                           .alpha = l->scale,
                                           .m = l->m,
                                           .n = l->r,
                                           .k = l->k,
                                           .lda = l->k,
                                           .ldb = l->turned ? l->r : l->k,
                                           .ldc = l->r,
                                           .batch = 1});
}

/* g [r, k] = t^T a, or [k, r] = a^T t */
static int gradient(am_stream *s, const am_low_rank_args *l)
{
    int64_t rows = l->turned ? l->k : l->r, columns = l->turned ? l->r : l->k;
    return am_cuda_gemm(s, &(am_gemm_args){.c = l->g,
                                           .a = l->turned ? l->a : l->t,
                                           .b = l->turned ? l->t : l->a,
                                           .dtype_ab = l->dtype,
                                           .dtype_c = l->dtype_g,
                                           .trans_a = 1,
                                           .accumulate = l->accumulate,
                                           .alpha = 1,
                                           .m = rows,
                                           .n = columns,
                                           .k = l->m,
                                           .lda = rows,
                                           .ldb = columns,
                                           .ldc = columns,
                                           .batch = 1});
}

int am_cuda_low_rank(am_stream *s, const am_low_rank_args *args)
{
    int rc = AM_OK;
    if (args->u)
        rc = down(s, args);
    return rc == AM_OK && args->g ? gradient(s, args) : rc;
}
