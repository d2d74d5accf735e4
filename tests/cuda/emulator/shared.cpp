// shared.cpp — see shared.h.
#include "shared.h"

#include <cstring>

#include "am_emu.h"
#include "block.h"
#include "flavour.h"
#include "memory.h"
#include "options.h"
#include "report.h"
#include "shadow.h"

namespace emu
{
namespace
{
constexpr size_t dynamic_offset = 4096, gap = 128, alignment = 16;
constexpr int fill = 0xff;

size_t top;         // of what the block has, as an offset
size_t static_used; // without gaps

char *window()
{
    return memory_base();
}
} // namespace

void begin_shared_memory()
{
    size_t n = block.dynamic_shared;
    poison(window(), shared_window);
    mark_free(window(), top);
    static_used = 0;
    top = (dynamic_offset + n + gap + gap - 1) / gap * gap;
    char *p = window() + dynamic_offset;
    unpoison(p, n);
    memset(p, fill, n);
    mark_allocated(p, n);
}

bool in_shared_memory(const void *p)
{
    return size_t(static_cast<const char *>(p) - window()) < shared_window;
}
} // namespace emu

using namespace emu;

void *am_emu_dyn_shared(void)
{
    return window() + dynamic_offset;
}

void *am_emu_static_shared(const char *name, am_emu_place *place, size_t size, size_t align)
{
    if (place->block == block.serial)
        return place->p;
    if (align < alignment)
        align = alignment;
    size_t offset = (top + align - 1) / align * align;
    static_used += size;
    if (static_used > default_shared_limit)
        fault(After::stop, format("static shared memory is %zu bytes with %s; a block may have %zu",
                                  static_used, name, default_shared_limit));
    if (static_used + block.dynamic_shared > shared_memory_limit())
        fault(After::stop, format("shared memory is %zu bytes with %s; a block may have %zu",
                                  static_used + block.dynamic_shared, name, shared_memory_limit()));
    top = offset + size + gap;
    place->block = block.serial;
    place->p = window() + offset;
    unpoison(place->p, size);
    memset(place->p, fill, size);
    mark_allocated(place->p, size);
    return place->p;
}
