// fiber.cpp — see fiber.h. A switch saves the registers that a called function must keep and takes
// five nanoseconds; ucontext's saves the signal mask by a system call, 180.
#include "fiber.h"

#include <cstdio>
#include <cstdlib>
#include <pthread.h>
#include <sys/mman.h>

#include "flavour.h"

#if !defined(__x86_64__)
#error "am_emu_swap is written for x86-64"
#endif

extern "C" void am_emu_swap(void **from, void *to);
__asm__(".text\n"
        ".globl am_emu_swap\n"
        ".hidden am_emu_swap\n"
        ".type am_emu_swap,@function\n"
        "am_emu_swap:\n"
        "    push %rbp\n"
        "    push %rbx\n"
        "    push %r12\n"
        "    push %r13\n"
        "    push %r14\n"
        "    push %r15\n"
        "    mov %rsp,(%rdi)\n"
        "    mov %rsi,%rsp\n"
        "    pop %r15\n"
        "    pop %r14\n"
        "    pop %r13\n"
        "    pop %r12\n"
        "    pop %rbx\n"
        "    pop %rbp\n"
        "    ret\n"
        ".size am_emu_swap,.-am_emu_swap\n");

namespace emu
{
Fiber main_fiber;
Fiber *current_fiber = &main_fiber;

namespace
{
constexpr size_t page = 4096;
constexpr size_t stack_bytes = (with_asan ? 256 : 64) << 10; // with a guard page at its low end

Fiber fibers[max_fibers];
Fiber *at_rest[max_fibers];
int rest_count, fiber_count;
char *stacks;
void (*entry_of_all)();

void begin_anew(Fiber *f)
{
    unpoison(f->low, size_t(f->high - f->low));
    void **top = reinterpret_cast<void **>(f->high - 64);
    *--top = nullptr; // the entry's return address: keeps the stack aligned as a call does
    *--top = reinterpret_cast<void *>(entry_of_all);
    for (int i = 0; i < 6; i++)
        *--top = nullptr;
    f->stack_pointer = top;
    f->fake_stack = nullptr;
}

void reserve_stacks()
{
    void *p = mmap(nullptr, stack_bytes * max_fibers, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        perror("am_emu: no address space for stacks");
        abort();
    }
    stacks = static_cast<char *>(p);
    for (int i = 0; i < max_fibers; i++) {
        char *low = stacks + size_t(i) * stack_bytes;
        mprotect(low, page, PROT_NONE);
        fibers[i].low = low + page;
        fibers[i].high = low + stack_bytes;
    }
}
} // namespace

Fiber *take_fiber(void (*entry)())
{
    if (rest_count)
        return at_rest[--rest_count];
    if (!stacks)
        reserve_stacks();
    entry_of_all = entry;
    Fiber *f = &fibers[fiber_count++];
    begin_anew(f);
    return f;
}

void give_back_fiber(Fiber *f)
{
    at_rest[rest_count++] = f;
}

void reset_fibers()
{
    rest_count = 0;
    for (int i = 0; i < fiber_count; i++) {
        begin_anew(&fibers[i]);
        give_back_fiber(&fibers[i]);
    }
}

void switch_to(Fiber *to)
{
    Fiber *from = current_fiber;
    current_fiber = to;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&from->fake_stack, to->low, size_t(to->high - to->low));
#endif
    am_emu_swap(&from->stack_pointer, to->stack_pointer);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(current_fiber->fake_stack, nullptr, nullptr);
#endif
}

void fiber_begins()
{
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
}

void use_this_thread()
{
#if defined(__SANITIZE_ADDRESS__)
    static thread_local void *low;
    static thread_local size_t bytes;
    if (!low) {
        pthread_attr_t attr;
        pthread_getattr_np(pthread_self(), &attr);
        pthread_attr_getstack(&attr, &low, &bytes);
        pthread_attr_destroy(&attr);
    }
    main_fiber.low = static_cast<char *>(low);
    main_fiber.high = main_fiber.low + bytes;
#endif
}

bool on_some_stack(const void *p)
{
    return stacks && p >= stacks && p < stacks + stack_bytes * max_fibers;
}
} // namespace emu
