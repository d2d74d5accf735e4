// block.h — the block that runs: its threads, who waits for what, and the scheduler. Blocks run to
// completion one at a time, on the OS thread that holds the runtime's lock.
#pragma once
#include <cstdint>
#include <cuda_runtime_api.h>
#include <vector>

#include "fiber.h"

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

namespace emu
{
struct Rendezvous; // warp.h

enum class State : uint8_t { fresh, running, ready, at_barrier, at_collective, done };

// A cp.async that has not taken effect.
struct PendingCopy {
    void *shared;
    const void *global;
    int size, bytes, group;
};

struct Thread {
    Fiber *fiber;
    uint3 index;
    int number; // in the block
    State state;
    const char *site; // where it waits
    Rendezvous *rendezvous;
    int copy_group; // the one that its next cp.async belongs to
    std::vector<PendingCopy> copies;

    int lane() const
    {
        return number & 31;
    }
    int warp() const
    {
        return number >> 5;
    }
};

struct Warp {
    unsigned alive;   // lanes whose threads have not returned
    Rendezvous *open; // collectives that wait for lanes
    unsigned epoch;   // counts __syncwarp
};

constexpr int max_threads = max_fibers;

struct Block {
    bool running, given_up;
    const char *kernel;
    void (*call)(void *closure);
    void *closure;
    size_t closure_bytes;
    size_t dynamic_shared;

    int threads, started, alive;
    uint64_t serial;       // of all blocks that ever ran
    uint64_t first_serial; // of its launch

    // The barrier that some threads wait at, and how many were passed.
    int waiting;
    const char *barrier_site;
    unsigned barrier_epoch;
};

extern Block block;
extern Thread threads[max_threads];
extern Warp warps[max_threads / 32];
extern Thread *current;

// Counts of all that ever ran (control.h).
struct Counters {
    uint64_t switches, threads, blocks, launches, waits;
};
extern Counters counters;

// Before a launch's blocks: threads get their index and order.
void prepare_threads();
// One block, whose index is blockIdx.
void run_block();

// The running thread can't go on: another runs until someone makes this one ready.
void wait();
void make_ready(Thread *t);
// Ends the block without unwinding its threads. Doesn't return when a thread runs.
void give_up_block();
} // namespace emu
