/* names.c — the numbers of kernels/cuda/cudnn_names.def are those of cuDNN's headers: it compiles,
 * or they are not. */
#include <cudnn.h>

#define N(name, value) _Static_assert((int)CUDNN_##name == (value), #name);
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
#include "../../../kernels/cuda/cudnn_names.def"
