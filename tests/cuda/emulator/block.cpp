// block.cpp — see block.h; and the barrier. Threads start lazily: a stack runs one thread after the
// other and is only given away when a thread has to wait, so that kernels without barriers never
// switch.
#include "block.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <string>

#include "am_emu.h"
#include "async_copy.h"
#include "options.h"
#include "report.h"
#include "shared.h"
#include "warp.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emu
{
Block block;
Thread threads[max_threads];
Warp warps[max_threads / 32];
Thread *current;
Counters counters;

namespace
{
int start_order[max_threads];
Thread *at_barrier[max_threads];

// Of __syncthreads_count and its like: two sets, since the next barrier may be reached before all
// have read this one's.
struct Predicates {
    int count, every, some;
} predicates[2];

// Threads that can run. Forward takes the oldest, reverse the newest, random any.
class ReadyThreads
{
  public:
    void clear()
    {
        first = count = 0;
    }
    bool empty() const
    {
        return count == 0;
    }
    void push(Thread *t)
    {
        slots[(first + count++) % size] = t;
    }
    Thread *pop()
    {
        int k = 0;
        if (options().order == Order::forward) {
            Thread *t = slots[first];
            first = (first + 1) % size;
            count--;
            return t;
        }
        k = options().order == Order::random ? int(random_number() % unsigned(count)) : count - 1;
        Thread *t = slots[(first + k) % size];
        slots[(first + k) % size] = slots[(first + --count) % size];
        return t;
    }

  private:
    static constexpr int size = max_threads;
    Thread *slots[size];
    int first = 0, count = 0;
} ready;

void resume(Thread *t)
{
    t->state = State::running;
    current = t;
    threadIdx = t->index;
    counters.switches++;
    if (t->fiber != current_fiber)
        switch_to(t->fiber);
}

bool start_another()
{
    if (block.started == block.threads)
        return false;
    return ready.empty() || (options().order == Order::random && random_bit());
}

void release_barrier()
{
    block.waiting = 0;
    block.barrier_epoch++;
    predicates[block.barrier_epoch & 1] = {0, 1, 0};
}

// The barrier opens when all threads that have not returned are there.
void open_barrier_for_others()
{
    int n = block.waiting;
    release_barrier();
    for (int i = 0; i < n; i++)
        if (at_barrier[i] != current)
            make_ready(at_barrier[i]);
}

void thread_returned(Thread *t)
{
    t->state = State::done;
    block.alive--;
    warps[t->warp()].alive &= ~(1u << t->lane());
    check_no_copies(t);
    lane_returned(t->warp());
    if (block.waiting && block.waiting == block.alive)
        open_barrier_for_others();
}

// What runs on every stack: threads that have not begun; without any, the stack is given back.
void run_threads()
{
    fiber_begins();
    for (;;) {
        if (start_another()) {
            Thread *t = &threads[start_order[block.started++]];
            t->fiber = current_fiber;
            t->state = State::running;
            current = t;
            threadIdx = t->index;
            block.call(block.closure);
            thread_returned(t); // current: a thread always ends on the stack that it began on
            continue;
        }
        give_back_fiber(current_fiber);
        if (!ready.empty()) {
            resume(ready.pop());
        } else {
            current = nullptr;
            switch_to(&main_fiber);
        }
    }
}

std::string waits_for(const Thread &t)
{
    if (t.state == State::at_barrier)
        return std::string("wait at __syncthreads ") + t.site;
    if (t.state == State::at_collective)
        return std::string("wait in ") + name_of(*t.rendezvous) + " " + t.site;
    return t.state == State::done ? "returned" : "have not begun";
}

void report_deadlock()
{
    std::map<std::string, std::vector<int>> groups;
    for (int i = 0; i < block.threads; i++)
        groups[waits_for(threads[i])].push_back(i);
    std::string text = "DEADLOCK:";
    const char *separator = " ";
    for (const auto &g : groups) {
        text += format("%s[%zu threads, %d..%d] %s", separator, g.second.size(), g.second.front(),
                       g.second.back(), g.first.c_str());
        separator = "; ";
    }
    fault(After::stop, text);
}

void begin_block()
{
    block.started = block.waiting = 0;
    block.alive = block.threads;
    block.barrier_epoch = 1;
    block.given_up = false;
    block.serial++;
    counters.blocks++;
    counters.threads += uint64_t(block.threads);
    ready.clear();
    predicates[0] = predicates[1] = {0, 1, 0};
    for (int first = 0; first < block.threads; first += 32) {
        int lanes = std::min(32, block.threads - first);
        warps[first / 32] = {lanes == 32 ? ~0u : (1u << lanes) - 1, nullptr, 1};
    }
    for (int i = 0; i < block.threads; i++) {
        threads[i].state = State::fresh;
        threads[i].copy_group = 0;
    }
    if (options().order == Order::random)
        for (int i = block.threads - 1; i > 0; i--)
            std::swap(start_order[i], start_order[random_number() % unsigned(i + 1)]);
    begin_shared_memory();
}
} // namespace

void prepare_threads()
{
    int i = 0;
    for (unsigned z = 0; z < blockDim.z; z++)
        for (unsigned y = 0; y < blockDim.y; y++)
            for (unsigned x = 0; x < blockDim.x; x++, i++) {
                threads[i].index = uint3{x, y, z};
                threads[i].number = i;
            }
    block.threads = i;
    for (i = 0; i < block.threads; i++)
        start_order[i] = options().order == Order::reverse ? block.threads - 1 - i : i;
}

void run_block()
{
    begin_block();
    block.running = true;
    switch_to(take_fiber(run_threads));
    current = nullptr;
    if (!block.given_up && block.alive)
        report_deadlock();
    block.running = false;
    if (block.given_up) {
        reset_fibers();
        reset_rendezvous();
        for (int i = 0; i < block.threads; i++)
            threads[i].copies.clear();
    }
}

void wait()
{
    if (start_another()) {
        switch_to(take_fiber(run_threads));
    } else if (!ready.empty()) {
        resume(ready.pop());
    } else {
        current = nullptr;
        switch_to(&main_fiber);
    }
}

void make_ready(Thread *t)
{
    t->state = State::ready;
    ready.push(t);
}

void give_up_block()
{
    block.given_up = true;
    if (current_fiber != &main_fiber)
        switch_to(&main_fiber);
}
} // namespace emu

using namespace emu;

void am_emu_syncthreads(const char *site)
{
    Thread *t = current;
    t->site = site;
    if (block.waiting && site != block.barrier_site && strcmp(site, block.barrier_site))
        fault(After::stop, format("DIVERGENT __syncthreads: %d threads wait at %s, this one at %s",
                                  block.waiting, block.barrier_site, site));
    block.barrier_site = site;
    at_barrier[block.waiting++] = t;
    if (block.waiting == block.alive) {
        open_barrier_for_others();
        return;
    }
    t->state = State::at_barrier;
    wait();
}

int am_emu_syncthreads_with(const char *site, int what, int predicate)
{
    Predicates &p = predicates[block.barrier_epoch & 1];
    p.count += predicate;
    p.every &= predicate;
    p.some |= predicate;
    am_emu_syncthreads(site);
    return what == AM_EMU_COUNT ? p.count : what == AM_EMU_EVERY ? p.every : p.some;
}

void am_emu_yield(void)
{
    make_ready(current);
    wait();
}

void am_emu_trap(const char *site)
{
    fault(After::stop, format("__trap() at %s", site));
}
