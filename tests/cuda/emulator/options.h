// options.h — how the emulated GPU behaves: from the environment when it is first used, and from
// am_emu_set (control.h) later.
#pragma once
#include <cstddef>
#include <cstdint>

namespace emu
{
enum class Order { forward, reverse, random };
enum class Streams { eager, lazy, random };
enum class Copies { late, early, random };

struct Options {
    Order order = Order::forward; // AM_EMU_ORDER=fwd|rev|rand: of blocks, threads and resumptions
    uint64_t seed = 1;            // AM_EMU_SEED
    Streams streams = Streams::eager; // AM_EMU_STREAMS=eager|lazy|rand: when queued work runs
    Copies copies = Copies::late;     // AM_EMU_CPASYNC=late|early|rand: when cp.async takes effect
    bool soft = false;   // AM_EMU_SOFT: a fault is a CUDA error that stays, not an abort
    bool quiet = false;  // AM_EMU_QUIET: reports are kept, not printed
    bool strict = false; // AM_EMU_STRICT: the host can't touch device memory
    bool races = true;   // flavour check: look for races, too
    int devices = 1;     // AM_EMU_DEVICES
    size_t memory = size_t(8) << 30; // AM_EMU_MEMORY: bytes of each device, with K, M or G
    int capability = 0;              // AM_EMU_CAPABILITY=90: what the devices say they are
    int driver = 13000;              // AM_EMU_DRIVER: the newest CUDA that the driver knows
};

// Read once; a value that is not understood ends the process with a message.
const Options &options();
void set_option(const char *name, const char *value);

// A number of the sequence that AM_EMU_SEED begins.
uint32_t random_number();
inline bool random_bit()
{
    return random_number() & 1;
}

// The compute capability times ten, and shared memory that a block may have at most.
int capability();
size_t shared_memory_limit();
} // namespace emu
