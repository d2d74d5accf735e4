// runtime_memory.cpp — allocations and copies of the CUDA runtime API.
#include <cstring>
#include <memory>
#include <vector>

#include "block.h"
#include "memory.h"
#include "options.h"
#include "report.h"
#include "runtime.h"
#include "shadow.h"

namespace emu
{
namespace
{
cudaError_t allocate(void **p, size_t bytes)
{
    *p = nullptr;
    if (!bytes)
        return cudaSuccess;
    if (fails_now(Failure::alloc) || fails_now(Failure::memory))
        return cudaErrorMemoryAllocation;
    *p = allocate_device(current_device(), bytes);
    if (!*p) { // what is queued may free some
        complete_all();
        *p = allocate_device(current_device(), bytes);
    }
    return *p ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t release(void *p)
{
    if (p && !free_device(p)) {
        note(format("freeing what is no device allocation: %s", describe(p).c_str()));
        return cudaErrorInvalidValue;
    }
    return cudaSuccess;
}

enum class Side { host, device };

// Is the range where the copy's kind says, and whole?
bool lies_in(Side side, const void *p, size_t n)
{
    Allocation a;
    bool found = find_allocation(p, &a);
    if (found && reinterpret_cast<uintptr_t>(p) + n > a.address + a.bytes)
        return false;
    if (side == Side::device)
        return found && a.device >= 0;
    return !in_arena(p);
}

bool is_device(const void *p)
{
    return in_arena(p);
}

cudaError_t check_copy(const void *d, const void *s, size_t n, cudaMemcpyKind kind)
{
    Side to = Side::host, from = Side::host;
    if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault)
        return cudaErrorInvalidMemcpyDirection;
    if (kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice ||
        (kind == cudaMemcpyDefault && is_device(d)))
        to = Side::device;
    if (kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice ||
        (kind == cudaMemcpyDefault && is_device(s)))
        from = Side::device;
    if (lies_in(to, d, n) && lies_in(from, s, n))
        return cudaSuccess;
    note(format("a copy of %zu bytes: direction or range is wrong; to %s, from %s", n,
                describe(d).c_str(), describe(s).c_str()));
    return cudaErrorInvalidValue;
}

void copy_now(void *d, const void *s, size_t n)
{
    if (device_failure() != cudaSuccess)
        return;
    if (fails_now(Failure::copy)) {
        note("a copy fails, as AM_EMU_FAIL wants");
        fail_device(cudaErrorIllegalAddress);
        return;
    }
    if (in_arena(s) && in_arena(d)) { // perhaps on the same pages
        DeviceAccess access;
        memmove(d, s, n);
        copy_marks(d, s, n);
        return;
    }
    if (in_arena(s)) {
        size_t i = first_uninitialised(s, n);
        if (i < n) {
            blame("a copy to the host");
            fault(After::go_on, format("reads UNINITIALISED device memory, byte %zu of %zu (%s)", i,
                                       n, describe(s).c_str()));
        }
    }
    DeviceAccess access(in_arena(s) ? s : d, n);
    memmove(d, s, n);
    if (in_arena(d))
        mark_initialised(d, n);
}

cudaError_t copy(void *d, const void *s, size_t n, cudaMemcpyKind kind, Stream *stream)
{
    Allocation a;
    if (!n)
        return cudaSuccess;
    cudaError_t e = check_copy(d, s, n, kind);
    if (e != cudaSuccess)
        return e;
    bool staged = !in_arena(s) && !find_allocation(s, &a) && !stream->capture;
    if (staged && options().streams != Streams::eager) {
        // From pageable memory: the call returns when the bytes are on their way.
        auto *first = static_cast<const char *>(s);
        auto bytes = std::make_shared<std::vector<char>>(first, first + n);
        submit(stream, [=]() { copy_now(d, bytes->data(), n); });
    } else {
        submit(stream, [=]() { copy_now(d, s, n); });
    }
    if (!in_arena(d) && !find_allocation(d, &a) &&
        !stream->capture) { // to pageable memory: it waits
        counters.waits++;
        complete(stream->last);
    }
    return device_failure();
}
} // namespace
} // namespace emu

using namespace emu;

extern "C" {
cudaError_t cudaMalloc(void **p, size_t bytes)
{
    Call c;
    if (c.problem)
        return remember(c.problem);
    if (capture_forbids())
        return remember(cudaErrorStreamCaptureUnsupported);
    return remember(allocate(p, bytes));
}

cudaError_t cudaFree(void *p)
{
    Call c;
    if (c.problem)
        return remember(c.problem);
    if (capture_forbids())
        return remember(cudaErrorStreamCaptureUnsupported);
    counters.waits++;
    complete_all();
    return remember(c.problem ? c.problem : release(p));
}

cudaError_t cudaMallocAsync(void **p, size_t bytes, cudaStream_t stream)
{
    Call c;
    if (c.problem)
        return remember(c.problem);
    Stream *s = find_stream(stream);
    if (!s)
        return remember(cudaErrorInvalidResourceHandle);
    if (s->capture) // nodes that allocate are not emulated
        return remember(cudaErrorStreamCaptureUnsupported);
    cudaError_t e = allocate(p, bytes);
    if (void *had = *p) { // another stream has to wait for this one before it uses it
        withhold_device(had, bytes);
        submit(s, [=]() { hand_over_device(had, bytes); });
    }
    return remember(e);
}

cudaError_t cudaFreeAsync(void *p, cudaStream_t stream)
{
    Call c;
    Allocation a;
    if (c.problem)
        return remember(c.problem);
    Stream *s = find_stream(stream);
    if (!s)
        return remember(cudaErrorInvalidResourceHandle);
    if (s->capture)
        return remember(cudaErrorStreamCaptureUnsupported);
    if (!p)
        return cudaSuccess;
    if (!find_allocation(p, &a) || a.device < 0 || a.address != reinterpret_cast<uintptr_t>(p))
        return remember(release(p)); // which says so
    submit(s, [p]() { release(p); });
    return cudaSuccess;
}

cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned)
{
    Call c;
    if (c.problem)
        return remember(c.problem);
    *p = allocate_pinned(bytes);
    return remember(*p ? cudaSuccess : cudaErrorMemoryAllocation);
}

cudaError_t cudaMallocHost(void **p, size_t bytes)
{
    return cudaHostAlloc(p, bytes, 0);
}

cudaError_t cudaFreeHost(void *p)
{
    Call c;
    if (c.problem)
        return remember(c.problem);
    counters.waits++;
    complete_all();
    return remember(!p || free_pinned(p) ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaHostRegister(void *p, size_t bytes, unsigned)
{
    Call c;
    if (c.problem)
        return remember(c.problem);
    if (!p || !bytes)
        return remember(cudaErrorInvalidValue);
    return remember(pin(p, bytes) ? cudaSuccess : cudaErrorHostMemoryAlreadyRegistered);
}

cudaError_t cudaHostUnregister(void *p)
{
    Call c;
    if (c.problem)
        return remember(c.problem);
    complete_all();
    return remember(unpin(p) ? cudaSuccess : cudaErrorHostMemoryNotRegistered);
}

cudaError_t cudaHostGetDevicePointer(void **device, void *host, unsigned)
{
    Call c;
    Allocation a;
    if (c.problem)
        return remember(c.problem);
    if (!find_allocation(host, &a) || a.device >= 0)
        return remember(cudaErrorInvalidValue);
    *device = host;
    return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *attributes, const void *p)
{
    Call c;
    Allocation a;
    if (c.problem)
        return remember(c.problem);
    memset(attributes, 0, sizeof *attributes);
    attributes->device = current_device();
    if (!find_allocation(p, &a)) {
        attributes->type = cudaMemoryTypeUnregistered;
        attributes->hostPointer = const_cast<void *>(p);
        return cudaSuccess;
    }
    attributes->type = a.device < 0 ? cudaMemoryTypeHost : cudaMemoryTypeDevice;
    attributes->devicePointer = const_cast<void *>(p);
    if (a.device < 0)
        attributes->hostPointer = const_cast<void *>(p);
    else
        attributes->device = a.device;
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *d, const void *s, size_t n, cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    Call c;
    if (c.problem)
        return remember(c.problem);
    Stream *on = find_stream(stream);
    if (!on)
        return remember(cudaErrorInvalidResourceHandle);
    return remember(copy(d, s, n, kind, on));
}

cudaError_t cudaMemcpy(void *d, const void *s, size_t n, cudaMemcpyKind kind)
{
    Call c;
    if (c.problem)
        return remember(c.problem);
    if (capture_forbids())
        return remember(cudaErrorStreamCaptureUnsupported);
    Stream *on = find_stream(nullptr);
    cudaError_t e = copy(d, s, n, kind, on);
    if (e == cudaSuccess && n && on->last) {
        counters.waits++;
        complete(on->last);
    }
    return remember(e != cudaSuccess ? e : device_failure());
}

cudaError_t cudaMemcpy2DAsync(void *d, size_t d_pitch, const void *s, size_t s_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream)
{
    Call c;
    if (c.problem)
        return remember(c.problem);
    Stream *on = find_stream(stream);
    if (!on)
        return remember(cudaErrorInvalidResourceHandle);
    if (width > d_pitch || width > s_pitch)
        return remember(cudaErrorInvalidValue);
    for (size_t i = 0; i < height; i++) {
        cudaError_t e = copy(static_cast<char *>(d) + i * d_pitch,
                             static_cast<const char *>(s) + i * s_pitch, width, kind, on);
        if (e != cudaSuccess)
            return remember(e);
    }
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *d, int value, size_t n, cudaStream_t stream)
{
    Call c;
    if (c.problem)
        return remember(c.problem);
    Stream *on = find_stream(stream);
    if (!on)
        return remember(cudaErrorInvalidResourceHandle);
    if (!n)
        return cudaSuccess;
    if (!lies_in(Side::device, d, n)) {
        note(format("cudaMemset of %zu bytes: not inside one device allocation (%s)", n,
                    describe(d).c_str()));
        return remember(cudaErrorInvalidValue);
    }
    submit(on, [=]() {
        if (device_failure() != cudaSuccess)
            return;
        DeviceAccess access(d, n);
        memset(d, value, n);
        mark_initialised(d, n);
    });
    return remember(device_failure());
}

cudaError_t cudaMemset(void *d, int value, size_t n)
{
    return cudaMemsetAsync(d, value, n, nullptr);
}
}
