/* onednn.h — one dense matrix product as a primitive of oneDNN (2.6 and 3.x), made once for each
 * shape and kept in a table of fixed size. How a product is cut into several is gemm.c's.
 * Not for several threads at once, but for am_onednn_run. */
#ifndef AM_KERNELS_ONEDNN_H
#define AM_KERNELS_ONEDNN_H

#include <stddef.h>
#include "backend.h"

typedef struct matmul_key {
    int64_t m, n, k, lda, ldb, ldc, batch, stride_a, stride_b, stride_c;
    double alpha;
    int32_t dtype_ab, dtype_c, trans_a, trans_b, accumulate, bias, threads, used;
} matmul_key;

typedef struct matmul {
    matmul_key key;
    struct dnnl_primitive *primitive;
    size_t scratch_bytes;
    int any_rows;        /* rows do not depend on m */
    int bias_as_post_op; /* see add_post_ops */
    uint64_t last_use;
} matmul;

/* No instruction set above isa (AM_ISA_…). Once, before anything else. */
void am_onednn_init(int isa);
int am_onednn_is_v3(void);

/* The primitive for g, run by so many threads, made if need be in place of the least recently used
 * one. *out is the table's: copy what must outlive another call. Where the CPU can't multiply this
 * dtype, it has no primitive. */
int am_onednn_find(matmul **out, const am_gemm_args *g, int threads);
/* g must have p's shape and strides; scratch has p->scratch_bytes. */
int am_onednn_run(const matmul *p, const am_gemm_args *g, void *scratch);

#endif
