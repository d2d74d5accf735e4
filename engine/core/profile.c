/* profile.c — the events of a profile: which op ran when, for how long, with how many
 * floating-point operations and bytes. Holds no sums and no files; lua/am/training/profile.lua
 * makes both. */
#include "profile.h"

#include "device.h"
#include "error.h"
#include "mem.h"

bool am_profiling;
int64_t am_profile_flops;

static struct {
    am_profile_event *items;
    size_t n, cap, limit;
} events;

int am_profile_start(int64_t max_events)
{
    if (max_events < 1)
        return am_fail(AM_EINVAL, "a profile needs room for an event or more, not %lld",
                       (long long)max_events);
    events.n = 0;
    events.limit = (size_t)max_events;
    am_profile_flops = 0;
    am_profiling = true;
    return AM_OK;
}

int64_t am_profile_stop(const am_profile_event **list)
{
    am_profiling = false;
    *list = events.items;
    return (int64_t)events.n;
}

void am_span_end(const am_span *span, const char *what, int phase, int device, int64_t bytes)
{
    if (!am_profiling || events.n >= events.limit)
        return;
    (void)am_device_sync(device); /* its error is the next op's */
    void *p = events.items;
    int rc = am_grow(&p, &events.cap, events.n + 1, sizeof *events.items);
    events.items = p;
    if (rc != AM_OK) { /* a profile that ends early is no reason to stop the run */
        events.limit = events.n;
        return;
    }
    events.items[events.n++] = (am_profile_event){.what = what,
                                                  .phase = phase,
                                                  .start = span->start,
                                                  .seconds = am_clock() - span->start,
                                                  .flops = am_profile_flops - span->flops,
                                                  .bytes = bytes};
}
