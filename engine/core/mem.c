/* mem.c — every allocation of the engine. Host structures come from calloc; storages come from a
 * device's backend through a cache that keeps released blocks by size, so that a training step
 * after the first asks the system for nothing. Counts live and peak bytes, enforces a budget, and
 * can fail on purpose for tests. */
#include "mem.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "device.h"
#include "error.h"

#if defined(__SANITIZE_ADDRESS__)
enum { CACHE = 0 }; /* let the sanitizer see every release */
#else
enum { CACHE = 1 };
#endif

/* Threads that prepare images allocate, too. */
static int64_t fail_countdown; /* 0: off; 1: the next allocation fails */
static int fail_forever;

static int set_failing(const char *name, int64_t k, int forever)
{
    if (k < 0)
        return am_fail(AM_EINVAL, "%s: k is %lld", name, (long long)k);
    fail_forever = forever;
    __atomic_store_n(&fail_countdown, k, __ATOMIC_RELEASE);
    return AM_OK;
}

int am_mem_fail_at(int64_t k)
{
    return set_failing("am_mem_fail_at", k, 0);
}

int am_mem_fail_from(int64_t k)
{
    return set_failing("am_mem_fail_from", k, 1);
}

static int injected(void)
{
    int64_t left = __atomic_load_n(&fail_countdown, __ATOMIC_ACQUIRE);
    while (left > 0 && !(left == 1 && fail_forever)) {
        if (__atomic_compare_exchange_n(&fail_countdown, &left, left - 1, 0, __ATOMIC_ACQ_REL,
                                        __ATOMIC_ACQUIRE))
            return left == 1;
    }
    return left > 0;
}

/* ---- host structures -------------------------------------------------------------------- */

static int no_memory(size_t bytes)
{
    am_fail(AM_ENOMEM, "out of memory: %zu bytes could not be had", bytes);
    return AM_ENOMEM; /* in sight of the analyzer */
}

int am_alloc(void **p, size_t bytes)
{
    void *q = injected() ? NULL : calloc(1, bytes ? bytes : 1);
    if (!q)
        return no_memory(bytes);
    *p = q;
    return AM_OK;
}

int am_realloc(void **p, size_t bytes)
{
    void *q = injected() ? NULL : realloc(*p, bytes ? bytes : 1);
    if (!q)
        return no_memory(bytes);
    *p = q;
    return AM_OK;
}

void am_free(void *p)
{
    free(p);
}

int am_grow(void **items, size_t *cap, size_t need, size_t size)
{
    if (need <= *cap)
        return AM_OK;
    size_t n = *cap ? *cap : 16;
    while (n < need)
        n *= 2;
    AM_TRY(am_realloc(items, n * size));
    *cap = n;
    return AM_OK;
}

int am_strdup(char **out, const char *s)
{
    size_t n = strlen(s) + 1;
    void *p = NULL;
    AM_TRY(am_alloc(&p, n));
    memcpy(p, s, n);
    *out = p;
    return AM_OK;
}

/* ---- device blocks ---------------------------------------------------------------------- */

/* Released blocks wait in bins by rounded size: eight sizes to each power of two, so at most an
 * eighth of a block is slack. A waiting block's list link is kept beside it, never inside it:
 * device memory may not be readable here. */
enum { SMALLEST = 256, BINS = 8 * 48 };

typedef struct free_block {
    void *p;
    struct free_block *next;
} free_block;

static struct {
    am_mem_stats stats; /* cached_bytes: of the common pool */
    int64_t budget, graph_blocks;
    int pool; /* of what is allocated now */
    free_block *bins[AM_POOL_COUNT][BINS];
} pools[AM_DEVICE_COUNT];
static free_block *spare; /* unused list links */

/* Bin of a size, and the size of that bin's blocks. */
static int bin_of(size_t bytes, size_t *rounded)
{
    size_t n = bytes < SMALLEST ? SMALLEST : bytes;
    int power = 63 - __builtin_clzll((unsigned long long)n);
    size_t step = (size_t)1 << (power - 3);
    size_t eighths = (n + step - 1) / step; /* 8..16 */
    *rounded = eighths * step;
    if (eighths == 16) {
        power++;
        eighths = 8;
    }
    int bin = (power - 8) * 8 + (int)(eighths - 8);
    return bin < BINS ? bin : -1;
}

static void give_back_pool(int device, const am_backend *be, int pool)
{
    for (int b = 0; b < BINS; b++) {
        size_t rounded = ((size_t)8 + (size_t)(b % 8)) << (b / 8 + 5);
        while (pools[device].bins[pool][b]) {
            free_block *f = pools[device].bins[pool][b];
            pools[device].bins[pool][b] = f->next;
            be->release(f->p, rounded);
            if (pool == AM_POOL_COMMON)
                pools[device].stats.cached_bytes -= (int64_t)rounded;
            f->next = spare;
            spare = f;
        }
    }
}

static void give_back_cache(int device, const am_backend *be)
{
    give_back_pool(device, be, AM_POOL_COMMON);
#if defined(__GLIBC__)
    (void)malloc_trim(0); /* freed blocks between others in use would stay with the process */
#endif
}

/* The system promises more memory than it has and later kills who uses it. So it is asked what is
 * left, each time that ASK_EVERY bytes more are wanted from it. */
enum { ASK_EVERY = 64 << 20, RESERVE = 64 << 20 };

static int from_system(const am_backend *be, void **p, size_t bytes)
{
    static int64_t unasked;
    unasked += (int64_t)bytes;
    if (be->is_host && unasked >= ASK_EVERY) {
        if (am_host_memory_available() < (int64_t)bytes + RESERVE)
            return AM_ENOMEM;
        unasked = 0;
    }
    return be->alloc(p, bytes);
}

static int out_of_memory(int device, const am_backend *be, size_t bytes)
{
    size_t left, total;
    long long live = (long long)pools[device].stats.live_bytes;
    if (!be->memory || be->memory(&left, &total) != AM_OK)
        return am_fail(AM_ENOMEM,
                       "out of memory: %zu bytes on %s could not be had, tensors of this process "
                       "have %lld",
                       bytes, be->name, live);
    return am_fail(AM_ENOMEM,
                   "out of memory: %zu bytes on %s could not be had, %zu of its %zu are free, "
                   "tensors of this process have %lld",
                   bytes, be->name, left, total, live);
}

/* May `bytes` more be in use, which are `block` with their slack? */
static int check_room(int device, const am_backend *be, size_t bytes, size_t block)
{
    int64_t live = pools[device].stats.live_bytes, budget = pools[device].budget;
    if (injected())
        return out_of_memory(device, be, bytes);
    if (budget && live + (int64_t)block > budget)
        return am_fail(AM_ENOMEM,
                       "%zu bytes on %s would exceed the memory budget of %lld bytes (%lld in use)",
                       bytes, be->name, (long long)budget, (long long)live);
    return AM_OK;
}

/* A block that was not there, if need be in place of those that wait. */
static int fresh_block(int device, const am_backend *be, void **p, size_t bytes)
{
    int rc = from_system(be, p, bytes);
    if (rc == AM_ENOMEM && pools[device].stats.cached_bytes) {
        give_back_cache(device, be);
        rc = from_system(be, p, bytes);
    }
    return rc == AM_ENOMEM ? out_of_memory(device, be, bytes) : rc;
}

static void count_block(am_mem_stats *st, size_t bytes)
{
    st->live_bytes += (int64_t)bytes;
    st->live_storages++;
    st->allocations++;
    if (st->live_bytes > st->peak_bytes)
        st->peak_bytes = st->live_bytes;
}

int am_device_alloc_exact(int device, void **p, size_t bytes)
{
    const am_backend *be;
    AM_TRY(am_device_open(device, &be, NULL));
    AM_TRY(check_room(device, be, bytes, bytes));
    AM_TRY(fresh_block(device, be, p, bytes));
    count_block(&pools[device].stats, bytes);
    return AM_OK;
}

int am_device_alloc_own(int device, void **p, size_t bytes)
{
    const am_backend *be;
    AM_TRY(am_device_open(device, &be, NULL));
    return fresh_block(device, be, p, bytes);
}

void am_device_free_exact(int device, void *p, size_t bytes)
{
    const am_backend *be;
    if (!p || am_device_open(device, &be, NULL) != AM_OK)
        return;
    pools[device].stats.live_bytes -= (int64_t)bytes;
    pools[device].stats.live_storages--;
    be->release(p, bytes);
}

int am_device_alloc(int device, int pool, void **p, size_t bytes)
{
    const am_backend *be;
    AM_TRY(am_device_open(device, &be, NULL));
    am_mem_stats *st = &pools[device].stats;
    size_t rounded;
    int bin = bin_of(bytes, &rounded);
    if (bin < 0)
        return out_of_memory(device, be, bytes);
    AM_TRY(check_room(device, be, bytes, rounded));
    free_block *f = pools[device].bins[pool][bin];
    if (f) {
        pools[device].bins[pool][bin] = f->next;
        *p = f->p;
        f->next = spare;
        spare = f;
        if (pool == AM_POOL_COMMON)
            st->cached_bytes -= (int64_t)rounded;
    } else {
        /* Blocks of other sizes must not pile up: past the largest need so far, start afresh. */
        if (pool == AM_POOL_COMMON && st->cached_bytes + st->live_bytes + (int64_t)rounded >
                                          st->peak_bytes + st->peak_bytes / 4 + (64 << 20))
            give_back_cache(device, be);
        AM_TRY(fresh_block(device, be, p, rounded));
    }
    count_block(st, rounded);
    pools[device].graph_blocks += pool == AM_POOL_GRAPHS;
    return AM_OK;
}

void am_device_free(int device, int pool, void *p, size_t bytes)
{
    const am_backend *be;
    if (!p || am_device_open(device, &be, NULL) != AM_OK)
        return;
    size_t rounded;
    int bin = bin_of(bytes, &rounded);
    am_mem_stats *st = &pools[device].stats;
    st->live_bytes -= (int64_t)rounded;
    st->live_storages--;
    pools[device].graph_blocks -= pool == AM_POOL_GRAPHS;
    bool cached = CACHE || pool == AM_POOL_GRAPHS;
    free_block *f = spare;
    if (f)
        spare = f->next;
    else if (cached)
        f = malloc(sizeof *f); /* not injected: a release can't fail */
    if (!cached || !f) {
        be->release(p, rounded); /* no sync here: it would swallow what a stream has to report */
        if (f) {
            f->next = spare;
            spare = f;
        }
        return;
    }
    f->p = p;
    f->next = pools[device].bins[pool][bin];
    pools[device].bins[pool][bin] = f;
    if (pool == AM_POOL_COMMON)
        st->cached_bytes += (int64_t)rounded;
}

/* ---- the graphs' pool ------------------------------------------------------------------- */

int am_mem_pool(int device)
{
    return pools[device].pool;
}

void am_mem_set_pool(int device, int pool)
{
    pools[device].pool = pool;
}

int64_t am_mem_graph_blocks(int device)
{
    return pools[device].graph_blocks;
}

void am_mem_drop_graph_pool(int device)
{
    const am_backend *be;
    if (am_device_open(device, &be, NULL) == AM_OK)
        give_back_pool(device, be, AM_POOL_GRAPHS);
}

/* ---- statistics ------------------------------------------------------------------------- */

static int check_device(int device)
{
    if (device < 0 || device >= AM_DEVICE_COUNT)
        return am_fail(AM_EINVAL, "device %d does not exist", device);
    return AM_OK;
}

int am_mem_get(int device, am_mem_stats *stats)
{
    AM_TRY(check_device(device));
    *stats = pools[device].stats;
    return AM_OK;
}

int am_mem_reset_peak(int device)
{
    AM_TRY(check_device(device));
    pools[device].stats.peak_bytes = pools[device].stats.live_bytes;
    return AM_OK;
}

int am_mem_trim(int device)
{
    const am_backend *be;
    am_stream *stream;
    AM_TRY(am_device_open(device, &be, &stream));
    give_back_cache(device, be);
    while (spare) {
        free_block *f = spare;
        spare = f->next;
        free(f);
    }
    return be->stream_sync ? be->stream_sync(stream) : AM_OK; /* by then it is given back */
}

int am_mem_set_budget(int device, int64_t bytes)
{
    AM_TRY(check_device(device));
    if (bytes < 0)
        return am_fail(AM_EINVAL, "a memory budget of %lld bytes makes no sense", (long long)bytes);
    pools[device].budget = bytes;
    return AM_OK;
}

/* ---- scratch ---------------------------------------------------------------------------- */

/* A thread's buffers are freed as it ends: teams of kernel threads come and go. */
enum { SCRATCH_SLOTS = 6 };
typedef struct scratch_buffers {
    void *p[SCRATCH_SLOTS];
    size_t bytes[SCRATCH_SLOTS];
} scratch_buffers;

static pthread_key_t scratch_key;
static pthread_once_t scratch_once = PTHREAD_ONCE_INIT;
static _Thread_local scratch_buffers *scratch;

static void scratch_free(void *buffers)
{
    scratch_buffers *b = buffers;
    for (int i = 0; i < SCRATCH_SLOTS; i++)
        free(b->p[i]);
    free(b);
}

static void scratch_make_key(void)
{
    (void)pthread_key_create(&scratch_key, scratch_free);
}

void *am_scratch(int slot, size_t bytes)
{
    if (slot < 0 || slot >= SCRATCH_SLOTS)
        return NULL;
    if (!scratch) {
        (void)pthread_once(&scratch_once, scratch_make_key);
        scratch_buffers *b = calloc(1, sizeof *b);
        if (!b || pthread_setspecific(scratch_key, b) != 0) {
            free(b);
            return NULL;
        }
        scratch = b;
    }
    if (scratch->bytes[slot] < bytes) {
        size_t n = (bytes + 4095) / 4096 * 4096;
        free(scratch->p[slot]);
        scratch->bytes[slot] = 0;
        scratch->p[slot] = aligned_alloc(64, n);
        if (!scratch->p[slot])
            return NULL;
        scratch->bytes[slot] = n;
    }
    return scratch->p[slot];
}
