// report.cpp — see report.h.
#include "report.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>

#include "block.h"
#include "options.h"

namespace emu
{
namespace
{
auto &all = *new std::string; // every report, a line each
int count;
const char *blamed; // a call, when no kernel runs
cudaError_t failure = cudaSuccess;
thread_local cudaError_t last = cudaSuccess;

constexpr int printed_reports = 20;
} // namespace

std::string format(const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(nullptr, 0, fmt, ap);
    va_end(ap);
    std::string s(size_t(n > 0 ? n : 0), '\0');
    vsnprintf(&s[0], s.size() + 1, fmt, again);
    va_end(again);
    return s;
}

std::string who_runs()
{
    if (!block.running)
        return blamed ? blamed : "the host";
    std::string s =
        format("kernel %s block (%u,%u,%u)", block.kernel, blockIdx.x, blockIdx.y, blockIdx.z);
    if (current)
        s += format(" thread (%u,%u,%u)", current->index.x, current->index.y, current->index.z);
    return s;
}

void blame(const char *name)
{
    blamed = name;
}

void note(const std::string &what)
{
    if (!options().quiet)
        fprintf(stderr, "[am_emu] %s\n", what.c_str());
}

void fault(After after, const std::string &what)
{
    std::string line = who_runs() + ": " + what;
    all += line + "\n";
    if (++count <= printed_reports)
        note(line);
    fail_device(cudaErrorLaunchFailure);
    if (!options().soft) {
        fflush(nullptr);
        abort();
    }
    if (after == After::stop)
        give_up_block();
}

std::string place_of(const void *pc)
{
    Dl_info info;
    if (!pc || !dladdr(pc, &info) || !info.dli_fname)
        return "";
    // A return address: the call is before it.
    std::string cmd = format(
        "addr2line -e '%s' %#lx 2>/dev/null", info.dli_fname,
        (unsigned long)(static_cast<const char *>(pc) - 1 - static_cast<char *>(info.dli_fbase)));
    char line[4096] = "";
    if (FILE *f = popen(cmd.c_str(), "r")) {
        if (fgets(line, sizeof line, f))
            line[strcspn(line, "\n ")] = 0;
        pclose(f);
    }
    const char *slash = strrchr(line, '/');
    return slash ? slash + 1 : line;
}

cudaError_t remember(cudaError_t e)
{
    if (e != cudaSuccess)
        last = e;
    return e;
}

void fail_device(cudaError_t e)
{
    if (failure == cudaSuccess)
        failure = e;
    last = failure;
}

cudaError_t device_failure()
{
    return failure;
}

cudaError_t last_error(bool forget)
{
    cudaError_t e = failure != cudaSuccess ? failure : last;
    if (forget)
        last = cudaSuccess;
    return e;
}

void forget_failures()
{
    failure = last = cudaSuccess;
}

const char *reports()
{
    return all.c_str();
}

int report_count()
{
    return count;
}

void forget_reports()
{
    all.clear();
    count = 0;
    forget_failures();
}
} // namespace emu
