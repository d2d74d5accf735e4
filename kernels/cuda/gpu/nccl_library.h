/* nccl_library.h — which library nccl.c opens. Its twin for the tests' emulator, where NCCL's
 * functions are in the module itself, is tests/cuda/emulator/nccl_library.h. */
#pragma once

#define AM_NCCL_LIBRARY "libnccl.so.2"
