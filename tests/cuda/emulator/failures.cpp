// failures.cpp — see failures.h.
#include "failures.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace emu
{
namespace
{
constexpr int kinds = 11;
const char *const names[kinds] = {"launch", "copy", "alloc", "memory", "device", "matmul",
                                  "comm",   "wire", "join",  "plan",   "dnn"};

struct {
    long at, count; // at: 0 for never
} failures[kinds];

[[noreturn]] void refuse(const char *text)
{
    fprintf(stderr, "am_emu: AM_EMU_FAIL=%s is not understood (tests/cuda/emulator/failures.h)\n",
            text);
    exit(2);
}

void parse(const char *text)
{
    memset(failures, 0, sizeof failures);
    for (const char *p = text; *p;) {
        int kind = 0;
        size_t n = strcspn(p, ":");
        while (kind < kinds && (strlen(names[kind]) != n || strncmp(p, names[kind], n)))
            kind++;
        if (kind == kinds || p[n] != ':')
            refuse(text);
        char *end;
        failures[kind].at = strtol(p + n + 1, &end, 10);
        if (failures[kind].at < 1 || (*end && *end != ','))
            refuse(text);
        p = *end ? end + 1 : end;
    }
}

bool read_environment()
{
    if (const char *text = getenv("AM_EMU_FAIL"))
        parse(text);
    return true;
}
} // namespace

void set_failures(const char *text)
{
    fails_now(Failure::launch); // the environment comes first
    parse(text);
}

bool fails_now(Failure f)
{
    static bool read = read_environment();
    (void)read;
    auto &x = failures[int(f)];
    x.count++;
    bool stays = f == Failure::device || f == Failure::memory;
    return x.at && (x.count == x.at || (stays && x.count > x.at));
}
} // namespace emu
