/* ref_kernels.h — the reference kernels by name: am_ref_<kernel>, for dtypes and modes that a SIMD
 * family leaves to them. */
#ifndef AM_KERNELS_REF_KERNELS_H
#define AM_KERNELS_REF_KERNELS_H

#include "backend.h"

#define K(name, pointers) int am_ref_##name(am_stream *s, const am_##name##_args *args);
#include "kernels.def"
#undef K

/* What am_grouped_gemm_args says of offsets. */
int am_ref_check_groups(const int32_t *offsets, int64_t groups, int64_t rows);

#endif
