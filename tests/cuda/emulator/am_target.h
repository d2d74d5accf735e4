/* am_target.h — the twin of kernels/cuda/gpu/am_target.h that runs kernels on a CPU. */
#include "am_emu.h"
