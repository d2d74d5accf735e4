// memory.h — memory of the emulated devices, and pinned memory of the host. One reservation of
// addresses holds the window of shared memory and a heap for each device; pages are used when they
// are touched. Device memory is filled with NaN, has a guard zone behind it, and rests a while when
// it is freed.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace emu
{
void reserve_memory(); // once, before anything else here
char *memory_base();
size_t memory_bytes();
inline bool in_arena(const void *p)
{
    return size_t(static_cast<const char *>(p) - memory_base()) < memory_bytes();
}

// NULL: the device, or the host, has no room.
void *allocate_device(int device, size_t bytes);
void *allocate_pinned(size_t bytes);
// Memory of the host that is pinned from now on, or no longer.
bool pin(void *p, size_t bytes);
bool unpin(void *p);
// False: p is not the beginning of such memory.
bool free_device(void *p);
bool free_pinned(void *p);
void free_all(); // cudaDeviceReset

// Between these nobody may touch it: what a stream is to have when it comes to that place.
void withhold_device(void *p, size_t bytes);
void hand_over_device(void *p, size_t bytes);

size_t used_bytes(int device);

struct Allocation {
    uintptr_t address;
    size_t bytes;
    int device; // -1: the host's, pinned
};
// The live allocation that p lies in.
bool find_allocation(const void *p, Allocation *found);
// "device allocation of 256 bytes, offset 260 (freed)"
std::string describe(const void *p);
// Has anyone written behind an allocation?
void check_guards();

// While one lives, device memory may be touched (AM_EMU_STRICT): all of it, or one range, which is
// cheaper. Ranges that are open at the same time are not of the same pages.
class DeviceAccess
{
  public:
    DeviceAccess();
    DeviceAccess(const void *p, size_t bytes);
    ~DeviceAccess();
    DeviceAccess(const DeviceAccess &) = delete;
    void operator=(const DeviceAccess &) = delete;

  private:
    char *low; // NULL: all
    size_t length;
};
} // namespace emu
