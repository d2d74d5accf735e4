// warp.cpp — see warp.h; __syncwarp, shuffles, votes, reductions and matches.
#include "warp.h"

#include <cstring>

#include "am_emu.h"
#include "block.h"
#include "report.h"

namespace emu
{
namespace
{
// Each thread of a block waits in one rendezvous at most.
constexpr int pool_size = max_threads + 1;
Rendezvous pool[pool_size];
Compute *computes[pool_size];
Rendezvous *unused;
bool pool_ready;

Rendezvous *take()
{
    if (!pool_ready)
        reset_rendezvous();
    Rendezvous *r = unused;
    unused = r->next;
    return r;
}

bool whole_warp(Collective c)
{
    return c == Collective::mma || c == Collective::ldmatrix;
}

const char *name_of(Collective c)
{
    static const char *const names[] = {"__syncwarp",      "__shfl_*_sync",    "a vote",
                                        "__reduce_*_sync", "__match_any_sync", "mma",
                                        "ldmatrix"};
    return names[int(c)];
}

// All lanes are there.
void complete(Rendezvous *r, Warp &w, int warp)
{
    Rendezvous **link = &w.open;
    while (*link != r)
        link = &(*link)->next;
    *link = r->next;
    r->to_leave = __builtin_popcount(r->arrived);
    if (Compute *compute = computes[r - pool])
        compute(*r);
    if (r->what == Collective::syncwarp)
        w.epoch++;
    for (unsigned m = r->arrived; m; m &= m - 1) {
        Thread *t = &threads[warp * 32 + __builtin_ctz(m)];
        if (t != current)
            make_ready(t);
    }
}

void check_mask(const char *site, Collective what, unsigned mask, const Warp &w)
{
    if (!(mask >> current->lane() & 1))
        fault(After::stop, format("%s at %s: the calling lane %d is not in its mask %#x",
                                  name_of(what), site, current->lane(), mask));
    if (whole_warp(what) && w.alive != ~0u)
        fault(After::stop, format("%s at %s needs a warp of 32 lanes, of which %#x are alive",
                                  name_of(what), site, w.alive));
}
} // namespace

const char *name_of(const Rendezvous &r)
{
    return name_of(r.what);
}

Rendezvous *meet(const char *site, Collective what, int kind, unsigned mask, const void *in,
                 unsigned in_bytes, Compute *compute)
{
    Thread *t = current;
    Warp &w = warps[t->warp()];
    int lane = t->lane();
    t->site = site;
    check_mask(site, what, mask, w);
    Rendezvous *r = w.open;
    while (r && r->mask != mask)
        r = r->next;
    if (!r) {
        r = take();
        r->mask = mask;
        r->arrived = 0;
        r->what = what;
        r->kind = kind;
        r->site = site;
        r->next = w.open;
        w.open = r;
        computes[r - pool] = compute;
    }
    if (r->what != what || (whole_warp(what) && (r->kind != kind || strcmp(r->site, site))))
        fault(After::stop,
              format("MISMATCHED collectives of a warp: lanes %#x at %s %s, lane %d at %s %s",
                     r->arrived, name_of(r->what), r->site, lane, name_of(what), site));
    memcpy(r->in[lane], in, in_bytes);
    r->arrived |= 1u << lane;
    if ((mask & w.alive & ~r->arrived) == 0) {
        complete(r, w, t->warp());
    } else {
        t->state = State::at_collective;
        t->rendezvous = r;
        wait();
    }
    return r;
}

void leave(Rendezvous *r)
{
    if (--r->to_leave == 0) {
        r->next = unused;
        unused = r;
    }
}

void lane_returned(int warp)
{
    Warp &w = warps[warp];
    for (Rendezvous *r = w.open, *next; r; r = next) {
        next = r->next;
        if (whole_warp(r->what))
            fault(After::stop,
                  format("%s at %s waits for lanes that have returned", name_of(r->what), r->site));
        if ((r->mask & w.alive & ~r->arrived) == 0)
            complete(r, w, warp);
    }
}

void reset_rendezvous()
{
    unused = nullptr;
    for (Rendezvous &r : pool) {
        r.next = unused;
        unused = &r;
    }
    pool_ready = true;
}

namespace
{
void collect_votes(Rendezvous &r)
{
    r.result = 0;
    for (unsigned m = r.arrived; m; m &= m - 1) {
        int lane = __builtin_ctz(m), vote;
        memcpy(&vote, r.in[lane], sizeof vote);
        r.result |= unsigned(vote != 0) << lane;
    }
}

unsigned combine(int kind, bool is_signed, unsigned a, unsigned b)
{
    bool less = is_signed ? int(a) < int(b) : a < b;
    switch (kind) {
    case AM_EMU_ADD:
        return a + b;
    case AM_EMU_MIN:
        return less ? a : b;
    case AM_EMU_MAX:
        return less ? b : a;
    case AM_EMU_AND:
        return a & b;
    case AM_EMU_OR:
        return a | b;
    default:
        return a ^ b;
    }
}

// Which lane a shuffle reads; its own where there is none.
int source_lane(int kind, int lane, int arg, int width)
{
    int segment = lane & ~(width - 1), end = segment + width, source = lane;
    switch (kind) {
    case AM_EMU_IDX:
        return segment + (arg & (width - 1));
    case AM_EMU_UP:
        source = lane - arg;
        return source < segment ? lane : source;
    case AM_EMU_DOWN:
        source = lane + arg;
        return source >= end ? lane : source;
    default:
        source = lane ^ arg;
        return source >= end ? lane : source;
    }
}
} // namespace
} // namespace emu

using namespace emu;

void am_emu_syncwarp(const char *site, unsigned mask)
{
    leave(meet(site, Collective::syncwarp, 0, mask, "", 0, nullptr));
}

void am_emu_shfl(const char *site, int kind, unsigned mask, const void *in, void *out, int size,
                 int arg, int width)
{
    Rendezvous *r = meet(site, Collective::shuffle, 0, mask, in, unsigned(size), nullptr);
    int source = source_lane(kind, current->lane(), arg, width);
    if (r->arrived >> source & 1) {
        memcpy(out, r->in[source], size_t(size));
    } else {
        fault(After::go_on,
              format("the shuffle at %s reads lane %d, which does not take part", site, source));
        memset(out, 0xff, size_t(size));
    }
    leave(r);
}

unsigned am_emu_vote(const char *site, int kind, unsigned mask, int predicate)
{
    Rendezvous *r =
        meet(site, Collective::vote, 0, mask, &predicate, sizeof predicate, collect_votes);
    unsigned votes = r->result, all = r->arrived;
    leave(r);
    return kind == AM_EMU_BALLOT ? votes : kind == AM_EMU_ANY ? votes != 0 : votes == all;
}

unsigned am_emu_reduce(const char *site, int kind, int is_signed, unsigned mask, unsigned value)
{
    Rendezvous *r = meet(site, Collective::reduction, 0, mask, &value, sizeof value, nullptr);
    unsigned m = r->arrived, result, v;
    memcpy(&result, r->in[__builtin_ctz(m)], sizeof result);
    for (m &= m - 1; m; m &= m - 1) {
        memcpy(&v, r->in[__builtin_ctz(m)], sizeof v);
        result = combine(kind, is_signed != 0, result, v);
    }
    leave(r);
    return result;
}

unsigned am_emu_match_any(const char *site, unsigned mask, unsigned long long value)
{
    Rendezvous *r = meet(site, Collective::match, 0, mask, &value, sizeof value, nullptr);
    unsigned same = 0;
    for (unsigned m = r->arrived; m; m &= m - 1)
        if (!memcmp(r->in[__builtin_ctz(m)], &value, sizeof value))
            same |= 1u << __builtin_ctz(m);
    leave(r);
    return same;
}

unsigned am_emu_active_mask(void)
{
    return warps[current->warp()].alive;
}
