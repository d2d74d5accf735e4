// memory.cpp — see memory.h.
#include "memory.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <set>
#include <sys/mman.h>
#include <vector>

#include "flavour.h"
#include "options.h"
#include "report.h"
#include "shadow.h"
#include "shared.h"

namespace emu
{
namespace
{
constexpr size_t page = 4096, alignment = 256, guard = 256;
constexpr size_t growth = size_t(1) << 20;   // by which a heap becomes accessible
constexpr size_t returned = size_t(1) << 20; // freed ranges of this size go back to the system
constexpr size_t rest_length = 64;           // freed ranges that aren't used again yet
constexpr unsigned char fill = 0xff, guard_fill = 0xa5;

enum class Use { live, resting, unused };

struct Range {
    size_t room = 0;  // with the guard zone
    size_t bytes = 0; // asked for; of the last use
    Use use = Use::unused;
};

struct Heap {
    char *base;
    size_t reserved, accessible, top; // offsets: of what was ever used, and may be touched
    size_t used;
    std::map<uintptr_t, Range> ranges;             // from base to top, without holes
    std::set<std::pair<size_t, uintptr_t>> unused; // of these, by size
    std::deque<uintptr_t> rest;
};

char *arena;
size_t arena_bytes;
auto &heaps = *new std::vector<Heap>;
auto &pinned = *new std::map<uintptr_t, size_t>; // allocated here
auto &registered = *new std::map<uintptr_t, size_t>;
int openings; // DeviceAccess objects for all of it

size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

void protect(int rights)
{
    for (const Heap &h : heaps)
        if (h.accessible)
            mprotect(h.base, h.accessible, rights);
}

// Makes the heap's first `bytes` accessible.
void grow(Heap &h, size_t bytes)
{
    if (bytes <= h.accessible)
        return;
    size_t to = round_up(bytes, growth);
    if (to > h.reserved)
        to = h.reserved;
    mprotect(h.base + h.accessible, to - h.accessible,
             options().strict && !openings ? PROT_NONE : PROT_READ | PROT_WRITE);
    poison(h.base + h.accessible, to - h.accessible);
    h.accessible = to;
}

// An unused range of at least `room`, the smallest; or the heap's end. 0: no room.
uintptr_t take_range(Heap &h, size_t room)
{
    auto best = h.unused.lower_bound({room, 0});
    if (best != h.unused.end()) {
        uintptr_t address = best->second;
        size_t left = best->first - room;
        h.unused.erase(best);
        h.ranges[address].room = room;
        if (left) {
            h.ranges[address + room].room = left;
            h.unused.insert({left, address + room});
        }
        return address;
    }
    if (h.top + room > h.reserved)
        return 0;
    uintptr_t address = reinterpret_cast<uintptr_t>(h.base) + h.top;
    h.top += room;
    grow(h, h.top);
    h.ranges[address].room = room;
    return address;
}

// A range that has rested joins its unused neighbours.
void make_unused(Heap &h, uintptr_t address)
{
    auto it = h.ranges.find(address);
    it->second.use = Use::unused;
    auto next = std::next(it);
    if (next != h.ranges.end() && next->second.use == Use::unused) {
        h.unused.erase({next->second.room, next->first});
        it->second.room += next->second.room;
        h.ranges.erase(next);
    }
    if (it != h.ranges.begin()) {
        auto before = std::prev(it);
        if (before->second.use == Use::unused) {
            h.unused.erase({before->second.room, before->first});
            before->second.room += it->second.room;
            h.ranges.erase(it);
            it = before;
        }
    }
    h.unused.insert({it->second.room, it->first});
}

void end_rest(Heap &h, size_t leave)
{
    while (h.rest.size() > leave) {
        make_unused(h, h.rest.front());
        h.rest.pop_front();
    }
}

Heap *heap_of(const void *p)
{
    for (Heap &h : heaps)
        if (p >= h.base && p < h.base + h.reserved)
            return &h;
    return nullptr;
}

// The range that holds an address of the heap's used part.
std::map<uintptr_t, Range>::iterator range_at(Heap &h, uintptr_t address)
{
    auto it = h.ranges.upper_bound(address);
    if (it == h.ranges.begin())
        return h.ranges.end();
    --it;
    return address < it->first + it->second.room ? it : h.ranges.end();
}

void check_guard(uintptr_t address, const Range &r)
{
    // AddressSanitizer sees whoever writes there; reading it here it would take for a fault.
    if (with_asan)
        return;
    auto *end = reinterpret_cast<unsigned char *>(address);
    for (size_t i = r.bytes; i < r.room; i++)
        if (end[i] != guard_fill) {
            memset(end + r.bytes, guard_fill, r.room - r.bytes);
            fault(
                After::go_on,
                format("GUARD ZONE overwritten, %zu bytes behind a device allocation of %zu bytes",
                       i - r.bytes + 1, r.bytes));
            return;
        }
}

std::map<uintptr_t, size_t>::iterator containing(std::map<uintptr_t, size_t> &m, uintptr_t address)
{
    auto it = m.upper_bound(address);
    if (it == m.begin())
        return m.end();
    --it;
    return address - it->first < it->second ? it : m.end();
}
} // namespace

void reserve_memory()
{
    size_t n = size_t(options().devices);
    // Several times the memory: guard zones, gaps, and what is freed and rests, don't count as
    // used.
    size_t each = round_up(4 * options().memory, growth) + 16 * growth;
    arena_bytes = shared_window + n * each;
    void *p =
        mmap(nullptr, arena_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        perror("am_emu: no address space for device memory");
        abort();
    }
    arena = static_cast<char *>(p);
    mprotect(arena, shared_window, PROT_READ | PROT_WRITE);
    for (size_t i = 0; i < n; i++)
        heaps.push_back(Heap{arena + shared_window + i * each, each, 0, 0, 0, {}, {}, {}});
    reserve_shadow(arena, arena_bytes);
}

char *memory_base()
{
    return arena;
}

size_t memory_bytes()
{
    return arena_bytes;
}

void *allocate_device(int device, size_t bytes)
{
    Heap &h = heaps[size_t(device)];
    if (bytes > options().memory || h.used + bytes > options().memory)
        return nullptr;
    size_t room = round_up(bytes, alignment) + guard;
    uintptr_t address = take_range(h, room);
    if (!address) {
        end_rest(h, 0);
        address = take_range(h, room);
    }
    if (!address)
        return nullptr;
    h.ranges[address].bytes = bytes;
    h.ranges[address].use = Use::live;
    h.used += bytes;
    auto *p = reinterpret_cast<char *>(address);
    DeviceAccess access(p, room);
    unpoison(p, room);
    memset(p, fill, bytes);
    memset(p + bytes, guard_fill, room - bytes);
    poison(p + bytes, room - bytes);
    mark_allocated(p, bytes);
    return p;
}

void withhold_device(void *p, size_t bytes)
{
    poison(p, bytes);
    mark_free(p, bytes);
}

void hand_over_device(void *p, size_t bytes)
{
    DeviceAccess access(p, bytes);
    unpoison(p, bytes);
    memset(p, fill, bytes);
    mark_allocated(p, bytes);
}

bool free_device(void *p)
{
    Heap *h = heap_of(p);
    auto address = reinterpret_cast<uintptr_t>(p);
    if (!h)
        return false;
    auto it = h->ranges.find(address);
    if (it == h->ranges.end() || it->second.use != Use::live)
        return false;
    Range &r = it->second;
    DeviceAccess access(p, r.room);
    check_guard(address, r);
    if (r.bytes >= returned)
        madvise(p, r.bytes / page * page, MADV_DONTNEED);
    else
        memset(p, fill, r.bytes);
    poison(p, r.bytes);
    mark_free(p, r.bytes);
    h->used -= r.bytes;
    r.use = Use::resting;
    h->rest.push_back(address);
    end_rest(*h, rest_length);
    return true;
}

void *allocate_pinned(size_t bytes)
{
    void *p;
    if (posix_memalign(&p, page, bytes ? bytes : 1))
        return nullptr;
    pinned[reinterpret_cast<uintptr_t>(p)] = bytes;
    return p;
}

bool free_pinned(void *p)
{
    if (!pinned.erase(reinterpret_cast<uintptr_t>(p)))
        return false;
    free(p);
    return true;
}

bool pin(void *p, size_t bytes)
{
    auto address = reinterpret_cast<uintptr_t>(p);
    if (!p || !bytes || containing(registered, address) != registered.end())
        return false;
    registered[address] = bytes;
    return true;
}

bool unpin(void *p)
{
    return registered.erase(reinterpret_cast<uintptr_t>(p)) != 0;
}

void free_all()
{
    for (Heap &h : heaps) {
        std::vector<uintptr_t> live;
        for (const auto &r : h.ranges)
            if (r.second.use == Use::live)
                live.push_back(r.first);
        for (uintptr_t address : live)
            free_device(reinterpret_cast<void *>(address));
    }
}

size_t used_bytes(int device)
{
    return heaps[size_t(device)].used;
}

bool find_allocation(const void *p, Allocation *found)
{
    auto address = reinterpret_cast<uintptr_t>(p);
    if (Heap *h = heap_of(p)) {
        auto it = range_at(*h, address);
        if (it == h->ranges.end() || it->second.use != Use::live ||
            address - it->first >= it->second.bytes)
            return false;
        *found = {it->first, it->second.bytes, int(h - heaps.data())};
        return true;
    }
    for (auto *m : {&pinned, &registered}) {
        auto it = containing(*m, address);
        if (it != m->end()) {
            *found = {it->first, it->second, -1};
            return true;
        }
    }
    return false;
}

std::string describe(const void *p)
{
    Allocation a;
    auto address = reinterpret_cast<uintptr_t>(p);
    if (in_shared_memory(p))
        return format("shared memory, offset %zu", size_t(static_cast<const char *>(p) - arena));
    if (Heap *h = heap_of(p)) {
        auto it = range_at(*h, address);
        if (it == h->ranges.end())
            return "device memory that was never allocated";
        const Range &r = it->second;
        return format("device allocation of %zu bytes, offset %zu%s", r.bytes,
                      size_t(address - it->first), r.use == Use::live ? "" : " (freed)");
    }
    if (find_allocation(p, &a))
        return format("pinned memory of %zu bytes, offset %zu", a.bytes,
                      size_t(address - a.address));
    return format("host address %p", p);
}

void check_guards()
{
    DeviceAccess access;
    for (Heap &h : heaps)
        for (auto &r : h.ranges)
            if (r.second.use == Use::live)
                check_guard(r.first, r.second);
}

DeviceAccess::DeviceAccess() : low(nullptr), length(0)
{
    if (openings++ == 0 && options().strict)
        protect(PROT_READ | PROT_WRITE);
}

DeviceAccess::DeviceAccess(const void *p, size_t bytes)
{
    auto first = reinterpret_cast<uintptr_t>(p) / page * page;
    low = reinterpret_cast<char *>(first);
    length = round_up(reinterpret_cast<uintptr_t>(p) + bytes - first, page);
    if (openings == 0 && options().strict && heap_of(p))
        mprotect(low, length, PROT_READ | PROT_WRITE);
}

DeviceAccess::~DeviceAccess()
{
    if (!low && --openings == 0 && options().strict)
        protect(PROT_NONE);
    if (low && openings == 0 && options().strict && heap_of(low))
        mprotect(low, length, PROT_NONE);
}
} // namespace emu
