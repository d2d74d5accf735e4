// flavour.h — which of the three flavours is compiled: fast, asan (AddressSanitizer) or check
// (AM_EMU_CHECK: shadow memory), and AddressSanitizer's words, which are nothing in the others.
#pragma once
#include <cstddef>

namespace emu
{
#if defined(AM_EMU_CHECK)
constexpr bool with_shadow = true;
#else
constexpr bool with_shadow = false;
#endif
} // namespace emu

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
namespace emu
{
constexpr bool with_asan = true;
inline void poison(const void *p, size_t n)
{
    __asan_poison_memory_region(p, n);
}
inline void unpoison(const void *p, size_t n)
{
    __asan_unpoison_memory_region(p, n);
}
inline bool is_poisoned(const void *p, size_t n)
{
    return __asan_region_is_poisoned(const_cast<void *>(p), n) != nullptr;
}
} // namespace emu
#else
namespace emu
{
constexpr bool with_asan = false;
inline void poison(const void *, size_t)
{
}
inline void unpoison(const void *, size_t)
{
}
inline bool is_poisoned(const void *, size_t)
{
    return false;
}
} // namespace emu
#endif
