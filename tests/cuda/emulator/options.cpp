// options.cpp — see options.h.
#include "options.h"

#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace emu
{
namespace
{
#ifndef AM_EMU_ARCH
#define AM_EMU_ARCH 900
#endif

Options current;
uint64_t state;

[[noreturn]] void refuse(const char *name, const char *value)
{
    fprintf(stderr, "am_emu: %s=%s is not understood (tests/cuda/emulator/options.h)\n", name,
            value);
    exit(2);
}

void seed_with(uint64_t seed)
{
    current.seed = seed;
    state = 88172645463325252ull ^ seed * 0x9E3779B97F4A7C15ull;
    if (!state)
        state = 1;
}

unsigned long long number(const char *name, const char *value)
{
    char *end;
    unsigned long long n = strtoull(value, &end, 0);
    static const char units[] = "KMG";
    if (end != value && *end && strchr(units, toupper(*end))) {
        n <<= 10 * (strchr(units, toupper(*end)) - units + 1);
        end++;
    }
    if (end == value || *end || strchr(value, '-'))
        refuse(name, value);
    return n;
}

// The place of a value in a list of words.
int choice(const char *name, const char *value, const char *const (&words)[3])
{
    for (int i = 0; i < 3; i++)
        if (!strcmp(value, words[i]))
            return i;
    refuse(name, value);
}

void set(const char *name, const char *value)
{
    static const char *const orders[] = {"fwd", "rev", "rand"};
    static const char *const streams[] = {"eager", "lazy", "rand"};
    static const char *const copies[] = {"late", "early", "rand"};
    if (!strcmp(name, "AM_EMU_ORDER"))
        current.order = Order(choice(name, value, orders));
    else if (!strcmp(name, "AM_EMU_SEED"))
        seed_with(number(name, value));
    else if (!strcmp(name, "AM_EMU_STREAMS"))
        current.streams = Streams(choice(name, value, streams));
    else if (!strcmp(name, "AM_EMU_CPASYNC"))
        current.copies = Copies(choice(name, value, copies));
    else if (!strcmp(name, "AM_EMU_SOFT"))
        current.soft = number(name, value) != 0;
    else if (!strcmp(name, "AM_EMU_QUIET"))
        current.quiet = number(name, value) != 0;
    else if (!strcmp(name, "AM_EMU_STRICT"))
        current.strict = number(name, value) != 0;
    else if (!strcmp(name, "AM_EMU_RACES"))
        current.races = number(name, value) != 0;
    else if (!strcmp(name, "AM_EMU_DEVICES"))
        current.devices = int(number(name, value));
    else if (!strcmp(name, "AM_EMU_MEMORY"))
        current.memory = size_t(number(name, value));
    else if (!strcmp(name, "AM_EMU_CAPABILITY"))
        current.capability = int(number(name, value));
    else if (!strcmp(name, "AM_EMU_DRIVER"))
        current.driver = int(number(name, value));
    else
        refuse(name, value);
    if (current.devices < 0 || current.devices > 16 || current.memory < 1 << 16)
        refuse(name, value);
}

bool read_environment()
{
    static const char *const names[] = {"AM_EMU_ORDER",   "AM_EMU_SEED",       "AM_EMU_STREAMS",
                                        "AM_EMU_CPASYNC", "AM_EMU_SOFT",       "AM_EMU_QUIET",
                                        "AM_EMU_STRICT",  "AM_EMU_RACES",      "AM_EMU_DEVICES",
                                        "AM_EMU_MEMORY",  "AM_EMU_CAPABILITY", "AM_EMU_DRIVER"};
    seed_with(1);
    for (const char *name : names)
        if (const char *value = getenv(name))
            set(name, value);
    return true;
}

void once()
{
    static bool done = read_environment();
    (void)done;
}
} // namespace

const Options &options()
{
    once();
    return current;
}

void set_option(const char *name, const char *value)
{
    once();
    set(name, value);
}

uint32_t random_number()
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return uint32_t(state >> 20);
}

int capability()
{
    return options().capability ? options().capability : AM_EMU_ARCH / 10;
}

// CUDA C Programming Guide, "Technical Specifications per Compute Capability".
size_t shared_memory_limit()
{
    switch (capability()) {
    case 80:
    case 87:
        return 163 << 10;
    case 86:
    case 89:
    case 120:
        return 99 << 10;
    default:
        return 227 << 10;
    }
}
} // namespace emu
