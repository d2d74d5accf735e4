/* kernels.h — launchers of kernels.cu. Each returns cudaGetLastError(). */
#pragma once
#include <cuda_runtime_api.h>

#if defined(__cplusplus)
extern "C" {
#endif

enum tensor_kind { TENSOR_BF16, TENSOR_F16, TENSOR_WRONG, TENSOR_E4M3, TENSOR_TF32 };

int launch_row_sums(float *out, const float *in, int rows, int n, cudaStream_t s);
int launch_total(float *out, const float *in, int n, cudaStream_t s);
int launch_collectives(int *out, cudaStream_t s);                        /* 96 threads, 14 each */
int launch_reverse_in_warp(float *out, const float *in, cudaStream_t s); /* 96 numbers */
int launch_copy_tiles(float *out, const float *in, int n, cudaStream_t s);
int launch_tensor(float *out, const void *a, const void *b, enum tensor_kind kind, cudaStream_t s);
int launch_much_shared(float *out, int n, int ask, cudaStream_t s);
int launch_fill_from(float *out, int n, float first, cudaStream_t s);
int launch_double_of(float *out, const float *in, int n, cudaStream_t s);

/* To be timed. */
int launch_nothing(unsigned grid, unsigned block);
void launch_barriers(int block, int n);
void launch_shuffles(float *out, int block, int n);
void launch_products(float *out, int block, int n);

#if defined(__cplusplus)
}
#endif
