/* am_cuda.h — what every .cu file includes: the target's words (am_target.h: a GPU's, or the tests'
 * for a CPU), the engine's border, and the backend's. */
#pragma once

#include "am_target.h"

/* Of rng.h and dtype.h: functions for host and device. */
#define AM_ANYWHERE static __host__ __device__ __forceinline__
#include "backend.h"
#include "rng.h"

#include "cuda_backend.h"
