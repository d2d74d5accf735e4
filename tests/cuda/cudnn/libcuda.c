/* libcuda.c — a driver for a machine without one, as far as cuDNN needs it to make plans: it loads
 * kernels and forgets them. All else refuses. Built as libcuda.so.1. */
enum { NOT_SUPPORTED = 801, DRIVER = 13000 };

static char thing; /* what every handle points at */

int cuDriverGetVersion(int *version)
{
    *version = DRIVER;
    return 0;
}

/* Out parameters come first. */
#define HANDLE(name)                                                                               \
    int name(void **out)                                                                           \
    {                                                                                              \
        *out = &thing;                                                                             \
        return 0;                                                                                  \
    }
HANDLE(cuLibraryLoadData)
HANDLE(cuLibraryGetKernel)
HANDLE(cuLibraryGetModule)
HANDLE(cuKernelGetFunction)
HANDLE(cuModuleLoadData)
HANDLE(cuModuleLoadDataEx)
HANDLE(cuModuleLoadFatBinary)
HANDLE(cuModuleGetFunction)

#define ZERO(name)                                                                                 \
    int name(int *out)                                                                             \
    {                                                                                              \
        *out = 0;                                                                                  \
        return 0;                                                                                  \
    }
ZERO(cuFuncGetAttribute)
ZERO(cuKernelGetAttribute)

#define NOTHING(name)                                                                              \
    int name(void)                                                                                 \
    {                                                                                              \
        return 0;                                                                                  \
    }
NOTHING(cuFuncSetAttribute)
NOTHING(cuKernelSetAttribute)
NOTHING(cuLibraryUnload)
NOTHING(cuModuleUnload)

#define REFUSES(name)                                                                              \
    int name(void)                                                                                 \
    {                                                                                              \
        return NOT_SUPPORTED;                                                                      \
    }
REFUSES(cuInit)
REFUSES(cuGetErrorName)
REFUSES(cuGetErrorString)
REFUSES(cuGetProcAddress_v2)
REFUSES(cuCtxGetCurrent)
REFUSES(cuCtxGetLimit)
REFUSES(cuCtxPopCurrent)
REFUSES(cuCtxPushCurrent)
REFUSES(cuStreamGetCtx)
REFUSES(cuLinkCreate)
REFUSES(cuLinkAddData)
REFUSES(cuLinkComplete)
REFUSES(cuLinkDestroy)
REFUSES(cuLaunchKernel)
REFUSES(cuLaunchKernelEx)
REFUSES(cuLaunchCooperativeKernel)
REFUSES(cuDeviceGet)
REFUSES(cuDeviceGetCount)
REFUSES(cuLibraryLoadFromFile)
REFUSES(cuOccupancyMaxPotentialClusterSize)
