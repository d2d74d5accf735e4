// runtime.cpp — see runtime.h; errors and devices of the CUDA runtime API.
#include "runtime.h"

#include <cstdio>
#include <cstring>
#include <unistd.h>

#include "launch.h"
#include "memory.h"
#include "options.h"
#include "report.h"
#include "shadow.h"
#include "shared.h"

namespace emu
{
namespace
{
auto &mutex = *new std::recursive_mutex;
thread_local int device, holds; // holds: how often this thread has the lock

// What asking for devices says, before there can be any failure of one.
cudaError_t no_devices()
{
    if (options().driver < CUDART_VERSION / 1000 * 1000)
        return cudaErrorInsufficientDriver;
    return options().devices ? cudaSuccess : cudaErrorNoDevice;
}

struct ErrorText {
    cudaError_t error;
    const char *name, *text;
};
#define ERROR(name, text)                                                                          \
    {                                                                                              \
        name, #name, text                                                                          \
    }
const ErrorText error_texts[] = {
    ERROR(cudaSuccess, "no error"),
    ERROR(cudaErrorInvalidValue, "invalid argument"),
    ERROR(cudaErrorMemoryAllocation, "out of memory"),
    ERROR(cudaErrorInvalidConfiguration, "invalid configuration argument"),
    ERROR(cudaErrorInvalidDevice, "invalid device ordinal"),
    ERROR(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    ERROR(cudaErrorInsufficientDriver,
          "CUDA driver version is insufficient for CUDA runtime version"),
    ERROR(cudaErrorNoDevice, "no CUDA-capable device is detected"),
    ERROR(cudaErrorDevicesUnavailable, "CUDA-capable device(s) is/are busy or unavailable"),
    ERROR(cudaErrorNotReady, "device not ready"),
    ERROR(cudaErrorNotSupported, "operation not supported"),
    ERROR(cudaErrorIllegalAddress, "an illegal memory access was encountered"),
    ERROR(cudaErrorLaunchFailure, "unspecified launch failure"),
    ERROR(cudaErrorHostMemoryAlreadyRegistered,
          "part or all of the requested memory range is already mapped"),
    ERROR(cudaErrorHostMemoryNotRegistered,
          "pointer does not correspond to a registered memory region"),
    ERROR(cudaErrorIllegalState, "the operation cannot be performed in the present state"),
    ERROR(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing"),
    ERROR(cudaErrorStreamCaptureInvalidated,
          "operation failed due to a previous error during capture"),
    ERROR(cudaErrorStreamCaptureUnmatched, "capture was not ended in the same stream as it began"),
    ERROR(cudaErrorStreamCaptureUnjoined, "capturing stream has unjoined work"),
    ERROR(cudaErrorStreamCaptureIsolation,
          "dependency created on uncaptured work in another stream"),
    ERROR(cudaErrorCapturedEvent,
          "operation not permitted on an event last recorded in a capturing stream"),
    ERROR(cudaErrorUnknown, "unknown error"),
};
#undef ERROR

const ErrorText &text_of(cudaError_t e)
{
    static const ErrorText unknown = {cudaErrorUnknown, "unrecognized error code",
                                      "unrecognized error code"};
    for (const ErrorText &t : error_texts)
        if (t.error == e)
            return t;
    return unknown;
}
} // namespace

Call::Call() : lock(mutex)
{
    holds++;
    static bool begun;
    if (!begun) {
        begun = true;
        reserve_memory();
    }
    if ((problem = no_devices()) != cudaSuccess)
        return;
    if (fails_now(Failure::device))
        fail_device(cudaErrorDevicesUnavailable);
    problem = device_failure();
}

Call::~Call()
{
    holds--;
}

Unlocked::Unlocked() : depth(holds)
{
    for (; holds > 0; holds--)
        mutex.unlock();
}

Unlocked::~Unlocked()
{
    for (; holds < depth; holds++)
        mutex.lock();
}

int current_device()
{
    return device;
}

void use_device(int d)
{
    device = d;
}

void submit_library(Stream *s, Work work)
{
    submit(s, [work]() {
        if (device_failure() != cudaSuccess)
            return;
        DeviceAccess access;
        work();
    });
}

void touch(const Work &look)
{
    Call call;
    DeviceAccess access;
    look();
}

bool check_operand(const char *call, const void *p, size_t bytes, Access access)
{
    Allocation a;
    if (!bytes)
        return true;
    blame(call);
    if (!find_allocation(p, &a) || a.device < 0 ||
        reinterpret_cast<uintptr_t>(p) + bytes > a.address + a.bytes) {
        fault(After::go_on,
              format("an operand of %zu bytes is not inside one device allocation (%s)", bytes,
                     describe(p).c_str()));
        return false;
    }
    if (access == Access::write) {
        mark_initialised(p, bytes);
        return true;
    }
    size_t i = first_uninitialised(p, bytes);
    if (i == bytes)
        return true;
    fault(After::go_on, format("reads UNINITIALISED device memory, byte %zu of %zu (%s)", i, bytes,
                               describe(p).c_str()));
    return false;
}
} // namespace emu

using namespace emu;

extern "C" {
cudaError_t cudaGetLastError(void)
{
    Call c;
    return last_error(true);
}

cudaError_t cudaPeekAtLastError(void)
{
    Call c;
    return last_error(false);
}

const char *cudaGetErrorString(cudaError_t e)
{
    return text_of(e).text;
}

const char *cudaGetErrorName(cudaError_t e)
{
    return text_of(e).name;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    Call c;
    *count = 0;
    if (c.problem)
        return remember(c.problem);
    *count = options().devices;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *d)
{
    Call c;
    *d = device;
    return remember(c.problem);
}

cudaError_t cudaSetDevice(int d)
{
    Call c;
    if (c.problem)
        return remember(c.problem);
    if (d < 0 || d >= options().devices)
        return remember(cudaErrorInvalidDevice);
    device = d;
    return cudaSuccess;
}

cudaError_t cudaDeviceReset(void)
{
    Call c;
    if (device_failure() == cudaSuccess)
        complete_all();
    free_all();
    forget_failures();
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = options().driver;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *left, size_t *total)
{
    Call c;
    if (c.problem)
        return remember(c.problem);
    *total = options().memory;
    *left = *total - used_bytes(device);
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int d)
{
    Call c;
    if (c.problem)
        return remember(c.problem);
    if (d < 0 || d >= options().devices)
        return remember(cudaErrorInvalidDevice);
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "emulated GPU");
    gethostname(p->uuid.bytes, sizeof p->uuid.bytes - 1); // hosts that tests play have other names
    p->uuid.bytes[15] = char(d);
    p->major = capability() / 10;
    p->minor = capability() % 10;
    p->totalGlobalMem = options().memory;
    p->sharedMemPerBlock = default_shared_limit;
    p->sharedMemPerBlockOptin = shared_memory_limit();
    p->sharedMemPerMultiprocessor = shared_memory_limit() + 1024;
    p->regsPerBlock = p->regsPerMultiprocessor = 65536;
    p->warpSize = 32;
    p->maxThreadsPerBlock = 1024;
    p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
    p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = 2147483647;
    p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->multiProcessorCount = 4;
    p->maxThreadsPerMultiProcessor = 2048;
    p->maxBlocksPerMultiProcessor = 32;
    p->asyncEngineCount = 2;
    p->concurrentKernels = p->unifiedAddressing = p->canMapHostMemory = p->memoryPoolsSupported = 1;
    p->l2CacheSize = 4 << 20;
    p->memoryBusWidth = 128;
    p->pciBusID = d + 1;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int d)
{
    cudaDeviceProp p;
    cudaError_t e = cudaGetDeviceProperties(&p, d);
    if (e != cudaSuccess)
        return e;
    switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor:
        *value = p.major;
        break;
    case cudaDevAttrComputeCapabilityMinor:
        *value = p.minor;
        break;
    case cudaDevAttrMultiProcessorCount:
        *value = p.multiProcessorCount;
        break;
    case cudaDevAttrWarpSize:
        *value = p.warpSize;
        break;
    case cudaDevAttrMaxThreadsPerBlock:
        *value = p.maxThreadsPerBlock;
        break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
        *value = p.maxThreadsPerMultiProcessor;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
        *value = int(p.sharedMemPerBlock);
        break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = int(p.sharedMemPerBlockOptin);
        break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
        *value = int(p.sharedMemPerMultiprocessor);
        break;
    case cudaDevAttrL2CacheSize:
        *value = p.l2CacheSize;
        break;
    case cudaDevAttrMemoryPoolsSupported:
    case cudaDevAttrUnifiedAddressing:
    case cudaDevAttrConcurrentKernels:
        *value = 1;
        break;
    case cudaDevAttrIntegrated:
    case cudaDevAttrManagedMemory:
    case cudaDevAttrClockRate:
    case cudaDevAttrMemoryClockRate:
        *value = 0;
        break;
    case cudaDevAttrGlobalMemoryBusWidth:
        *value = p.memoryBusWidth;
        break;
    default:
        note(format("cudaDeviceGetAttribute: attribute %d is not emulated", int(attribute)));
        return remember(cudaErrorNotSupported);
    }
    return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute attribute, int value)
{
    Call c;
    if (c.problem)
        return remember(c.problem);
    if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize)
        return remember(allow_dynamic_shared(kernel, value));
    if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) // a hint
        return cudaSuccess;
    return remember(cudaErrorNotSupported);
}
}
