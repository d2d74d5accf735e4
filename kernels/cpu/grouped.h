/* grouped.h — what gemm.c hands to grouped.c, under its lock. */
#ifndef AM_KERNELS_GROUPED_H
#define AM_KERNELS_GROUPED_H

#include "backend.h"

/* What this CPU multiplies with. */
typedef struct am_cpu_products {
    int native_bf16, one_size;                               /* one_size: rows depend on m */
    int (*convert)(am_stream *s, const am_copy_args *args);  /* also adds */
    int (*on_tiles)(am_stream *s, const am_gemm_args *args); /* bf16; or NULL */
} am_cpu_products;

/* Operands are f32, bf16 or f16, the offsets checked. */
int am_cpu_run_grouped(const am_cpu_products *by, const am_grouped_gemm_args *args, int threads);
int am_cpu_run_grouped_dw(const am_cpu_products *by, const am_grouped_gemm_dw_args *args,
                          int threads);

#endif
