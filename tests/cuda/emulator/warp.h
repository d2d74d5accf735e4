// warp.h — collectives of a warp: lanes with the same mask meet at a rendezvous, each leaves its
// operands, the last one to come computes for all, and each takes its result.
#pragma once
#include <cstdint>

namespace emu
{
enum class Collective : uint8_t { syncwarp, shuffle, vote, reduction, match, mma, ldmatrix };

struct Rendezvous {
    unsigned mask; // lanes that have to come
    unsigned arrived;
    int to_leave; // lanes that have not taken their result
    Collective what;
    int kind;         // which mma, how many matrices
    const char *site; // of the first lane
    Rendezvous *next;
    unsigned result; // of votes
    alignas(32) unsigned char in[32][40];
    float out[32][4];
};

const char *name_of(const Rendezvous &r);

// The running lane leaves its operands and waits for the others. `compute` is called once, by the
// lane that comes last. Collectives of the whole warp (mma, ldmatrix) want all 32 lanes at one
// site.
typedef void Compute(Rendezvous &r);
Rendezvous *meet(const char *site, Collective what, int kind, unsigned mask, const void *in,
                 unsigned in_bytes, Compute *compute);
// After the lane has taken its result.
void leave(Rendezvous *r);

// A lane is gone: collectives that only waited for it are complete.
void lane_returned(int warp);
void reset_rendezvous();
} // namespace emu
