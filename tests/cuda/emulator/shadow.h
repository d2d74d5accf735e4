// shadow.h — what the flavour `check` knows of every byte of the devices: whether it is allocated
// and initialised, and who wrote and read it last in the launch that runs. In the others all of
// this is nothing.
#pragma once
#include <cstddef>

#include "flavour.h"

namespace emu
{
enum class Access { read, write, atomic };

#if defined(AM_EMU_CHECK)
void reserve_shadow(char *base, size_t bytes);
void mark_allocated(const void *p, size_t n);
void mark_free(const void *p, size_t n);
void mark_initialised(const void *p, size_t n);
void mark_uninitialised(const void *p, size_t n); // but allocated
// Which of the bytes are initialised is copied, too.
void copy_marks(const void *to, const void *from, size_t n);
// The first byte that isn't initialised, or n.
size_t first_uninitialised(const void *p, size_t n);

// An access of the running thread to memory of the devices; others are left alone. Faults name the
// site, or the instruction's place.
void check_access(const void *p, int bytes, Access access, const char *site, const void *pc);

void begin_shadow_launch();
void end_shadow_launch();
#else
inline void reserve_shadow(char *, size_t)
{
}
inline void mark_allocated(const void *, size_t)
{
}
inline void mark_free(const void *, size_t)
{
}
inline void mark_initialised(const void *, size_t)
{
}
inline void mark_uninitialised(const void *, size_t)
{
}
inline void copy_marks(const void *, const void *, size_t)
{
}
inline size_t first_uninitialised(const void *, size_t n)
{
    return n;
}
inline void check_access(const void *, int, Access, const char *, const void *)
{
}
inline void begin_shadow_launch()
{
}
inline void end_shadow_launch()
{
}
#endif
} // namespace emu
