/* nccl_library.h — the twin of kernels/cuda/gpu/nccl_library.h: NCCL's functions are the
 * emulator's. */
#pragma once

#define AM_NCCL_LIBRARY NULL
