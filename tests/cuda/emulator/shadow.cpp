// shadow.cpp — see shadow.h. Each byte has a state; each word that a launch touches has the stamps
// of its last writer and its last readers, from which races are told. Stamps live as long as the
// launch: pages of them come from a pool, and are of words, half words or bytes, as the page is
// accessed.
#include "shadow.h"

#include <cstdint>

#include "am_emu.h"
#include "block.h"
#include "launch.h"
#include "memory.h"
#include "options.h"
#include "report.h"
#include "shared.h"

#if defined(AM_EMU_CHECK)
#include <algorithm>
#include <array>
#include <cstring>
#include <set>
#include <sys/mman.h>
#include <utility>
#include <vector>

namespace emu
{
namespace
{
// Bits of a byte's state.
constexpr uint8_t allocated = 1, initialised = 2, whole = allocated | initialised;

// Who accessed: block 28 bits | barriers passed 12 | __syncwarp passed 11 | thread 10 | flags 3.
typedef uint64_t Stamp;
constexpr Stamp atomically = 1; // by an atomic
constexpr Stamp by_threads = 2; // readers: several threads since the last barrier
constexpr Stamp by_warps = 4;   // readers: several warps
constexpr unsigned block_shift = 36, barrier_shift = 24, warp_shift = 13, thread_shift = 3;

struct Cell {
    Stamp writer, readers;
};

constexpr size_t page_bytes = 4096;
struct Page {
    Cell *cells;
    unsigned shift; // a cell is of 1 << shift bytes
};

char *base;
uint8_t *states;
Page *pages;
// As everywhere here, what has a destructor is never destroyed: a program may use the device when
// it ends.
auto &touched = *new std::vector<size_t>;                 // pages with cells
auto &pool = *new std::array<std::vector<Cell *>, 3>;     // unused cells of a page, by shift
auto &seen = *new std::set<std::pair<const void *, int>>; // reported in this launch: place and kind

enum Kind {
    bounds,
    uninitialised,
    write_write,
    write_read,
    read_write,
    foreign_local,
    host,
    misaligned
};

unsigned block_of(Stamp s)
{
    return unsigned(s >> block_shift);
}
unsigned barrier_of(Stamp s)
{
    return s >> barrier_shift & 4095;
}
unsigned warp_epoch_of(Stamp s)
{
    return s >> warp_shift & 2047;
}
unsigned thread_of(Stamp s)
{
    return s >> thread_shift & 1023;
}

constexpr uint64_t block_limit = uint64_t(1) << (64 - block_shift);

Stamp stamp()
{
    return (block.serial % block_limit) << block_shift |
           Stamp(block.barrier_epoch & 4095) << barrier_shift |
           Stamp(warps[current->warp()].epoch & 2047) << warp_shift |
           Stamp(current->number) << thread_shift;
}

bool of_this_launch(Stamp s)
{
    return s && block_of(s) >= block.first_serial % block_limit;
}

// Did an access happen before mine for certain, or is it mine? Blocks have no order but in memory
// that they don't share.
bool is_ordered(Stamp s, Stamp me, bool in_shared)
{
    if (!of_this_launch(s))
        return true;
    if (block_of(s) != block_of(me))
        return in_shared;
    if (barrier_of(s) != barrier_of(me) || thread_of(s) == thread_of(me))
        return true;
    return thread_of(s) >> 5 == thread_of(me) >> 5 && warp_epoch_of(s) != warp_epoch_of(me);
}

// As is_ordered, of all readers that a stamp stands for.
bool readers_are_ordered(Stamp r, Stamp me, bool in_shared)
{
    if (!of_this_launch(r) || block_of(r) != block_of(me) || barrier_of(r) != barrier_of(me))
        return is_ordered(r, me, in_shared);
    if (r & by_warps)
        return false;
    if (r & by_threads)
        return thread_of(r) >> 5 == thread_of(me) >> 5 && warp_epoch_of(r) != warp_epoch_of(me);
    return is_ordered(r, me, in_shared);
}

Stamp join_readers(Stamp r, Stamp me)
{
    Stamp flags = 0;
    if (of_this_launch(r) && block_of(r) == block_of(me) && barrier_of(r) == barrier_of(me)) {
        flags = r & (by_threads | by_warps);
        if (thread_of(r) != thread_of(me))
            flags |= by_threads;
        if (thread_of(r) >> 5 != thread_of(me) >> 5)
            flags |= by_threads | by_warps;
    }
    return me | flags;
}

struct AccessAt {
    const char *p;
    int bytes;
    Access access;
    const char *site;
    const void *pc;
};

void report(const AccessAt &a, Kind kind, const char *what, const void *where, Stamp other)
{
    const void *place = a.site ? a.site : a.pc;
    if (!seen.insert({place, kind}).second)
        return;
    std::string text = format("%s, %d bytes at %s", what, a.bytes, describe(where).c_str());
    if (other)
        text += format("; the other access was by thread %u of the launch's block number %llu",
                       thread_of(other),
                       (unsigned long long)(block_of(other) - block.first_serial % block_limit));
    std::string at = a.site ? a.site : place_of(a.pc);
    if (!at.empty())
        text += "; at " + at;
    fault(After::go_on, text);
}

Cell *take_cells(unsigned shift)
{
    if (pool[shift].empty())
        return new Cell[page_bytes >> shift]();
    Cell *c = pool[shift].back(); // its stamps are of launches that are over
    pool[shift].pop_back();
    return c;
}

// The cell of an address, in a page whose cells are at most as large as `shift` says.
Cell &cell_at(size_t offset, unsigned shift)
{
    Page &page = pages[offset / page_bytes];
    if (!page.cells) {
        page.cells = take_cells(shift);
        page.shift = shift;
        touched.push_back(offset / page_bytes);
    } else if (page.shift > shift) {
        Cell *finer = take_cells(shift);
        for (size_t i = 0; i < page_bytes >> shift; i++)
            finer[i] = page.cells[i << shift >> page.shift];
        std::fill_n(page.cells, page_bytes >> page.shift, Cell{0, 0}); // of this launch
        pool[page.shift].push_back(page.cells);
        page.cells = finer;
        page.shift = shift;
    }
    return page.cells[offset % page_bytes >> page.shift];
}

void check_races(const AccessAt &a, size_t offset)
{
    bool in_shared = offset < shared_window;
    Stamp me = stamp();
    unsigned shift = (offset | size_t(a.bytes)) & 1 ? 0 : (offset | size_t(a.bytes)) & 2 ? 1 : 2;
    bool is_atomic = a.access == Access::atomic;
    for (size_t at = offset, end = offset + size_t(a.bytes); at < end;) {
        Cell &c = cell_at(at, shift);
        const char *p = base + at;
        if (!is_ordered(c.writer, me, in_shared) && !(is_atomic && (c.writer & atomically))) {
            report(a, a.access == Access::read ? write_read : write_write,
                   a.access == Access::read ? "RACE, read after write" : "RACE, write after write",
                   p, c.writer);
            c.writer = c.readers = 0;
        }
        if (a.access == Access::read) {
            c.readers = join_readers(c.readers, me);
        } else {
            if (!readers_are_ordered(c.readers, me, in_shared))
                report(a, read_write, "RACE, write after read", p, c.readers);
            c.readers = 0;
            c.writer = me | (is_atomic ? atomically : 0);
        }
        at += size_t(1) << pages[at / page_bytes].shift;
    }
}

bool check_state(const AccessAt &a, size_t offset)
{
    bool in_shared = offset < shared_window;
    for (size_t i = offset; i < offset + size_t(a.bytes); i++) {
        if (!(states[i] & allocated)) {
            report(a, bounds,
                   a.access == Access::read ? "OUT-OF-BOUNDS read" : "OUT-OF-BOUNDS write",
                   base + i, 0);
            return false;
        }
        if (a.access != Access::write && !(states[i] & initialised)) {
            report(a, uninitialised,
                   in_shared ? "read of UNINITIALISED shared memory"
                             : "read of UNINITIALISED device memory",
                   base + i, 0);
            states[i] = whole;
        }
    }
    return true;
}

bool all_whole(size_t offset, int bytes)
{
    uint32_t word;
    uint64_t eight;
    switch (bytes) {
    case 4:
        memcpy(&word, states + offset, 4);
        return word == 0x03030303u;
    case 8:
        memcpy(&eight, states + offset, 8);
        return eight == 0x0303030303030303u;
    default:
        return false;
    }
}

void mark(const void *p, size_t n, uint8_t state)
{
    memset(states + (static_cast<const char *>(p) - base), state, n);
}

void *reserve(size_t bytes)
{
    void *p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        perror("am_emu: no address space for shadow memory");
        abort();
    }
    return p;
}
} // namespace

void reserve_shadow(char *arena, size_t bytes)
{
    base = arena;
    states = static_cast<uint8_t *>(reserve(bytes));
    pages = static_cast<Page *>(reserve((bytes / page_bytes + 1) * sizeof(Page)));
}

void mark_allocated(const void *p, size_t n)
{
    mark(p, n, allocated);
}

void mark_free(const void *p, size_t n)
{
    mark(p, n, 0);
}

void mark_initialised(const void *p, size_t n)
{
    if (in_arena(p))
        mark(p, n, whole);
}

void mark_uninitialised(const void *p, size_t n)
{
    mark(p, n, allocated);
}

void copy_marks(const void *to, const void *from, size_t n)
{
    if (in_arena(to) && in_arena(from))
        memmove(states + (static_cast<const char *>(to) - base),
                states + (static_cast<const char *>(from) - base), n);
}

size_t first_uninitialised(const void *p, size_t n)
{
    const uint8_t *s = states + (static_cast<const char *>(p) - base);
    for (size_t i = 0; i < n; i++)
        if (!(s[i] & initialised))
            return i;
    return n;
}

void check_access(const void *p, int bytes, Access access, const char *site, const void *pc)
{
    if (!in_arena(p) || bytes <= 0)
        return;
    AccessAt a = {static_cast<const char *>(p), bytes, access, site, pc};
    size_t offset = size_t(a.p - base);
    if (!all_whole(offset, bytes) && !check_state(a, offset))
        return;
    if (options().races)
        check_races(a, offset);
    if (access != Access::read)
        memset(states + offset, whole, size_t(bytes));
}

void begin_shadow_launch()
{
    // Stamps of blocks that wrapped around would look like this launch's.
    uint64_t blocks = uint64_t(gridDim.x) * gridDim.y * gridDim.z;
    if (block.serial % block_limit + blocks >= block_limit) {
        block.serial = (block.serial / block_limit + 1) * block_limit;
        block.first_serial = block.serial + 1;
        for (auto &cells : pool) {
            for (Cell *c : cells)
                delete[] c;
            cells.clear();
        }
        for (size_t i = 0; i < shared_window / page_bytes; i++)
            if (pages[i].cells)
                std::fill_n(pages[i].cells, page_bytes >> pages[i].shift, Cell{0, 0});
    }
    seen.clear();
}

void end_shadow_launch()
{
    size_t kept = 0;
    for (size_t i : touched) {
        if (i < shared_window / page_bytes) { // used again by every launch
            touched[kept++] = i;
            continue;
        }
        pool[pages[i].shift].push_back(pages[i].cells);
        pages[i].cells = nullptr;
    }
    touched.resize(kept);
}

// An instrumented load or store (tsan_hooks.cpp): of device memory, or what a kernel may not touch.
void check_instrumented(const void *p, int bytes, Access access, bool aligned, const void *pc)
{
    if (!block.running || !current || on_current_stack(p))
        return;
    AccessAt a = {static_cast<const char *>(p), bytes, access, nullptr, pc};
    if (aligned && reinterpret_cast<uintptr_t>(p) & unsigned(bytes - 1))
        report(a, misaligned, "MISALIGNED access", p, 0);
    if (in_arena(p)) {
        check_access(p, bytes, access, nullptr, pc);
        return;
    }
    auto *closure = static_cast<const char *>(block.closure);
    Allocation pinned;
    if ((p >= closure && p < closure + block.closure_bytes) || in_kernel_image(p) ||
        find_allocation(p, &pinned))
        return;
    if (on_some_stack(p))
        report(a, foreign_local, "access to the local memory of another thread", p, 0);
    else
        report(a, host, "a kernel touches memory of the HOST", p, 0);
}
} // namespace emu
#endif

using namespace emu;

void am_emu_atomic(const char *site, const void *p, int size)
{
    if (reinterpret_cast<uintptr_t>(p) % unsigned(size))
        fault(After::stop, format("a MISALIGNED atomic of %d bytes at %s", size, site));
    check_access(p, size, Access::atomic, site, nullptr);
}

void am_emu_touch(const void *p, size_t bytes, int write)
{
    if (block.running && bytes)
        check_access(p, int(bytes), write ? Access::write : Access::read, nullptr,
                     __builtin_return_address(0));
}
