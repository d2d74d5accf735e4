// launch.h — what is known of kernels: their modules, and the dynamic shared memory they may have.
#pragma once
#include <cuda_runtime_api.h>

namespace emu
{
// Code and static data of a module that holds kernels.
bool in_kernel_image(const void *p);
cudaError_t allow_dynamic_shared(const void *kernel, int bytes);
} // namespace emu
