// launch.cpp — launches of kernels: their limits, and the blocks one after the other.
#include <csignal>
#include <cstdio>
#include <link.h>
#include <map>
#include <memory>
#include <numeric>

#include "am_emu.h"
#include "flavour.h"
#include "block.h"
#include "launch.h"
#include "memory.h"
#include "options.h"
#include "report.h"
#include "runtime.h"
#include "shadow.h"
#include "shared.h"

namespace emu
{
namespace
{
struct Launch {
    const char *name;
    dim3 grid, block;
    size_t shared;
    am_emu_call *call;
    std::shared_ptr<void> closure;
    size_t closure_bytes;
};

struct Image {
    const char *low, *high;
};
auto &images = *new std::vector<Image>; // modules that hold kernels
auto &allowed = *new std::map<const void *,
                              size_t>; // dynamic shared memory of kernels that have asked for more

int add_image(dl_phdr_info *info, size_t, void *kernel)
{
    const char *low = nullptr, *high = nullptr;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const auto &h = info->dlpi_phdr[i];
        if (h.p_type != PT_LOAD)
            continue;
        auto *p = reinterpret_cast<const char *>(info->dlpi_addr + h.p_vaddr);
        low = low && low < p ? low : p;
        high = high > p + h.p_memsz ? high : p + h.p_memsz;
    }
    if (kernel < low || kernel >= high)
        return 0;
    images.push_back({low, high});
    return 1;
}

// What a kernel was handed, or dereferenced on the host, that isn't there.
struct sigaction previous_segv;
void on_segv(int, siginfo_t *info, void *)
{
    fprintf(stderr, "[am_emu] %s: no memory at %p%s\n", who_runs().c_str(), info->si_addr,
            block.running             ? ""
            : in_arena(info->si_addr) ? ": device memory is not for the host"
                                      : "");
    sigaction(SIGSEGV, &previous_segv, nullptr); // the access is tried again, and ends the process
}

#if defined(__SANITIZE_ADDRESS__)
// What AddressSanitizer can't tell: whose access it was, and to which allocation.
void on_asan_error(const char *)
{
    fprintf(stderr, "[am_emu] %s: %s\n", who_runs().c_str(),
            describe(__asan_get_report_address()).c_str());
}
#endif

// A kernel may overrun its stack: the handler needs one of its own, on each OS thread.
void catch_segv()
{
    static thread_local std::unique_ptr<char[]> stack;
    static bool installed;
#if defined(__SANITIZE_ADDRESS__) // which has a handler
    __asan_set_error_report_callback(on_asan_error);
    return;
#endif
    if (!stack) {
        constexpr size_t bytes = 64 << 10;
        stack.reset(new char[bytes]);
        stack_t s = {};
        s.ss_sp = stack.get();
        s.ss_size = bytes;
        sigaltstack(&s, nullptr);
    }
    if (!installed) {
        installed = true;
        struct sigaction a = {};
        a.sa_sigaction = on_segv;
        a.sa_flags = SA_SIGINFO | SA_ONSTACK;
        sigaction(SIGSEGV, &a, &previous_segv);
    }
}

// The k-th block to run, so that each has its turn.
class BlockOrder
{
  public:
    explicit BlockOrder(uint64_t n) : count(n)
    {
        if (options().order != Order::random || n < 2)
            return;
        offset = random_number() % n;
        do
            factor = random_number() % n | 1;
        while (std::gcd(factor, n) != 1);
    }
    uint64_t operator()(uint64_t k) const
    {
        return options().order == Order::reverse ? count - 1 - k : (k * factor + offset) % count;
    }

  private:
    uint64_t count, factor = 1, offset = 0;
};

void run(const Launch &l)
{
    if (device_failure() != cudaSuccess)
        return;
    if (fails_now(Failure::launch)) {
        note(format("%s fails, as AM_EMU_FAIL wants", l.name));
        fail_device(cudaErrorLaunchFailure);
        return;
    }
    DeviceAccess access;
    use_this_thread();
    blame(nullptr);
    block.kernel = l.name;
    block.call = l.call;
    block.closure = l.closure.get();
    block.closure_bytes = l.closure_bytes;
    block.dynamic_shared = l.shared;
    block.first_serial = block.serial + 1;
    gridDim = l.grid;
    blockDim = l.block;
    counters.launches++;
    prepare_threads();
    begin_shadow_launch();
    uint64_t blocks = uint64_t(l.grid.x) * l.grid.y * l.grid.z;
    BlockOrder order(blocks);
    for (uint64_t k = 0; k < blocks; k++) {
        uint64_t i = order(k);
        blockIdx = uint3{unsigned(i % l.grid.x), unsigned(i / l.grid.x % l.grid.y),
                         unsigned(i / l.grid.x / l.grid.y)};
        run_block();
        if (block.given_up)
            break;
    }
    end_shadow_launch();
}

// CUDA C Programming Guide, "Technical Specifications per Compute Capability".
bool is_legal(dim3 grid, dim3 block)
{
    uint64_t threads = uint64_t(block.x) * block.y * block.z;
    return threads >= 1 && threads <= max_threads && block.x <= 1024 && block.y <= 1024 &&
           block.z <= 64 && grid.x >= 1 && grid.y >= 1 && grid.z >= 1 && grid.x <= 2147483647u &&
           grid.y <= 65535 && grid.z <= 65535;
}
} // namespace

bool in_kernel_image(const void *p)
{
    for (const Image &i : images)
        if (p >= i.low && p < i.high)
            return true;
    return false;
}

cudaError_t allow_dynamic_shared(const void *kernel, int bytes)
{
    if (bytes < 0 || size_t(bytes) > shared_memory_limit())
        return cudaErrorInvalidValue;
    allowed[kernel] = size_t(bytes);
    return cudaSuccess;
}
} // namespace emu

using namespace emu;

cudaError_t am_emu_launch(const char *name, const void *kernel, dim3 grid, dim3 block,
                          size_t shared, cudaStream_t stream, am_emu_call *call,
                          am_emu_call *destroy, void *closure, size_t closure_size)
{
    std::shared_ptr<void> keep(closure, destroy);
    Call c;
    if (c.problem)
        return remember(c.problem);
    Stream *s = find_stream(stream);
    if (!s)
        return remember(cudaErrorInvalidResourceHandle);
    if (!is_legal(grid, block)) {
        note(format("%s: a launch can't have grid (%u,%u,%u) and block (%u,%u,%u)", name, grid.x,
                    grid.y, grid.z, block.x, block.y, block.z));
        return remember(cudaErrorInvalidConfiguration);
    }
    auto it = allowed.find(kernel);
    size_t limit = it == allowed.end() ? default_shared_limit : it->second;
    if (shared > limit) {
        note(format("%s: %zu bytes of dynamic shared memory, and the kernel may have %zu "
                    "(cudaFuncSetAttribute)",
                    name, shared, limit));
        return remember(cudaErrorInvalidValue);
    }
    if (!in_kernel_image(kernel))
        dl_iterate_phdr(add_image, const_cast<void *>(kernel));
    catch_segv();
    Launch l = {name, grid, block, shared, call, keep, closure_size};
    submit(s, [l]() { run(l); });
    return cudaSuccess;
}
