// runtime.h — what every call of an emulated library begins with, and what the libraries' shims
// share.
#pragma once
#include <cuda_runtime_api.h>
#include <mutex>

#include "failures.h"
#include "shadow.h"
#include "stream.h"

namespace emu
{
// Holds the runtime's lock: one OS thread is inside at a time. `problem` is what the call returns
// at once: the device has failed, or a failure is injected.
class Call
{
  public:
    Call();
    ~Call();
    cudaError_t problem = cudaSuccess;

  private:
    std::unique_lock<std::recursive_mutex> lock;
};

// For somebody who holds the lock, however often, and waits for another thread: it is free
// meanwhile.
class Unlocked
{
  public:
    Unlocked();
    ~Unlocked();

  private:
    int depth;
};

int current_device(); // of the calling OS thread
void use_device(int device);

// Work of a library on a stream: it may touch device memory.
void submit_library(Stream *s, Work work);
// Work that submit_apart runs: it holds no lock, and touches what is the runtime's in `look` alone.
void touch(const Work &look);
// Is all of it in one device allocation, and initialised when it is read? Reports what is not.
bool check_operand(const char *call, const void *p, size_t bytes, Access access);
} // namespace emu
