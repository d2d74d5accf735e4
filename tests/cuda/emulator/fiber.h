// fiber.h — stacks that one OS thread switches between: one for each emulated thread that waits.
#pragma once
#include <cstddef>

namespace emu
{
struct Fiber {
    void *stack_pointer;
    char *low, *high; // of the stack; unknown for the OS thread's own
    void *fake_stack; // AddressSanitizer's
};

constexpr int max_fibers = 1024;

// The stack that runs; the OS thread's own is main_fiber.
extern Fiber *current_fiber;
extern Fiber main_fiber;

// A stack at rest: one that was given back, or a new one, where `entry` begins when it is first
// switched to. `entry` never returns.
Fiber *take_fiber(void (*entry)());
void give_back_fiber(Fiber *f);
// Every stack begins anew: what was on them is forgotten, nothing is unwound.
void reset_fibers();

void switch_to(Fiber *to);
// What AddressSanitizer wants to know: a stack begins; main_fiber is now the calling OS thread's.
void fiber_begins();
void use_this_thread();

// Is p on the stack that runs, or on any emulated thread's?
inline bool on_current_stack(const void *p)
{
    return p >= current_fiber->low && p < current_fiber->high;
}
bool on_some_stack(const void *p);
} // namespace emu
