// tsan_hooks.cpp — the flavour `check`: kernels are compiled with -fsanitize=thread, and instead of
// libtsan linked to these, so that the compiler shows every load and store of theirs.
#include "shadow.h"

#if defined(AM_EMU_CHECK)
using namespace emu;
namespace emu
{
void check_instrumented(const void *p, int bytes, Access access, bool aligned, const void *pc);
}

#define HOOKS(n)                                                                                   \
    void __tsan_read##n(void *p)                                                                   \
    {                                                                                              \
        check_instrumented(p, n, Access::read, true, __builtin_return_address(0));                 \
    }                                                                                              \
    void __tsan_write##n(void *p)                                                                  \
    {                                                                                              \
        check_instrumented(p, n, Access::write, true, __builtin_return_address(0));                \
    }                                                                                              \
    void __tsan_unaligned_read##n(void *p)                                                         \
    {                                                                                              \
        check_instrumented(p, n, Access::read, false, __builtin_return_address(0));                \
    }                                                                                              \
    void __tsan_unaligned_write##n(void *p)                                                        \
    {                                                                                              \
        check_instrumented(p, n, Access::write, false, __builtin_return_address(0));               \
    }

extern "C" {
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)

void __tsan_read_range(void *p, size_t n)
{
    check_instrumented(p, int(n), Access::read, false, __builtin_return_address(0));
}

void __tsan_write_range(void *p, size_t n)
{
    check_instrumented(p, int(n), Access::write, false, __builtin_return_address(0));
}

// The guard of a function's static variable, in host code.
unsigned char __tsan_atomic8_load(const volatile unsigned char *p, int)
{
    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

void __tsan_init(void)
{
}

void __tsan_func_entry(void *)
{
}

void __tsan_func_exit(void)
{
}

void __tsan_vptr_update(void **, void *)
{
}

void __tsan_vptr_read(void **)
{
}
}
#endif
