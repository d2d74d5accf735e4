// report.h — faults: what a kernel or a call did wrong, in words, and the CUDA error that follows.
#pragma once
#include <cuda_runtime_api.h>
#include <string>

namespace emu
{
std::string format(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

// Reports a fault of the kernel (and thread) that runs, or of the call named by `blame`. The
// process ends; with AM_EMU_SOFT the device has failed from now on. With `stop` the block that runs
// is given up, and fault doesn't return to the thread that called it.
enum class After { go_on, stop };
void fault(After after, const std::string &what);
void blame(const char *name); // until the next kernel

// "kernel f block (1,0,0) thread (3,0,0)" of what runs.
std::string who_runs();
// "file:line" of an instruction, or nothing.
std::string place_of(const void *pc);
// A line on stderr that is no fault: what a call that returns an error found.
void note(const std::string &what);

// Errors as the runtime API returns them: the calling thread's last one, and one that stays.
cudaError_t remember(cudaError_t e); // returns e
void fail_device(cudaError_t e);
cudaError_t device_failure();
cudaError_t last_error(bool forget);
void forget_failures(); // cudaDeviceReset

// What tests ask for (control.h).
const char *reports();
int report_count();
void forget_reports();
} // namespace emu
