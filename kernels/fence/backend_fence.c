/* backend_fence.c — "fence", a stand-in for a GPU: what the host must not touch cannot be touched.
 *
 * Device addresses lie in a range that is PROT_NONE for good. The same bytes are mapped a second
 * time, writable (a memfd); kernels and transfers reach them by adding a constant. A host access
 * to a device pointer therefore faults at any moment. Fresh memory is filled with NaN patterns.
 *
 * Streams run behind: a worker thread each, fed through a ring of copied arguments. Errors come
 * late, as they do from a GPU: the first one is kept until stream_sync or transfer reports it.
 * The kernels themselves are ref's, so results equal ref's bit for bit. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "backend.h"

enum { ALIGNMENT = 256, MAX_BLOCKS = 1 << 16, MAX_STREAMS = 8, RING = 256, MESSAGE = 512 };
#define CAPACITY ((size_t)16 << 30) /* of address space; pages come with use */

/* ---- the two mappings ------------------------------------------------------------------- */

static struct {
    char *device, *shadow; /* PROT_NONE; the writable twin */
    int fd;
    char why[128];
} memory;
static pthread_once_t mapped = PTHREAD_ONCE_INIT;

static void map_memory(void)
{
    memory.fd = memfd_create("amlua-fence", MFD_CLOEXEC);
    if (memory.fd < 0 || ftruncate(memory.fd, (off_t)CAPACITY) != 0) {
        snprintf(memory.why, sizeof memory.why, "fence: no memfd: %s", strerror(errno));
        return;
    }
    void *shadow =
        mmap(NULL, CAPACITY, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, memory.fd, 0);
    void *device =
        mmap(NULL, CAPACITY, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (shadow == MAP_FAILED || device == MAP_FAILED) {
        snprintf(memory.why, sizeof memory.why, "fence: cannot map: %s", strerror(errno));
        return;
    }
    memory.shadow = shadow;
    memory.device = device;
}

static int fence_probe(const char **why)
{
    pthread_once(&mapped, map_memory);
    *why = memory.why;
    return memory.device != NULL;
}

static int in_device(const void *p, size_t bytes)
{
    uintptr_t first = (uintptr_t)memory.device, at = (uintptr_t)p;
    return memory.device && at >= first && at - first <= CAPACITY &&
           bytes <= CAPACITY - (at - first);
}

static void *shadow_of(const void *p)
{
    return memory.shadow + ((const char *)p - memory.device);
}

/* ---- blocks: an array of those in use, sorted by offset, first fit ------------------------ */

typedef struct block {
    size_t offset, bytes;
} block;
static block blocks[MAX_BLOCKS];
static int block_count;
static pthread_mutex_t blocks_lock = PTHREAD_MUTEX_INITIALIZER;

static int fence_alloc(void **p, size_t bytes)
{
    const char *why;
    if (!fence_probe(&why))
        return am_kernel_fail(AM_EDEVICE, "%s", why);
    if (bytes > CAPACITY)
        return am_kernel_fail(AM_ENOMEM, "fence: %zu bytes are more than the device has", bytes);
    size_t size = bytes ? (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT : ALIGNMENT;
    size_t offset = 4096; /* an offset of 0 is never handed out */
    int at = 0;
    pthread_mutex_lock(&blocks_lock);
    while (at < block_count && blocks[at].offset - offset < size) {
        offset = blocks[at].offset + blocks[at].bytes;
        at++;
    }
    int room = block_count < MAX_BLOCKS && CAPACITY - offset >= size;
    if (room) {
        memmove(&blocks[at + 1], &blocks[at], (size_t)(block_count - at) * sizeof(block));
        blocks[at] = (block){offset, size};
        block_count++;
    }
    pthread_mutex_unlock(&blocks_lock);
    if (!room)
        return am_kernel_fail(AM_ENOMEM, "fence: out of device memory: %zu bytes", bytes);
    *p = memory.device + offset;
    memset(shadow_of(*p), 0xff, size);
    return AM_OK;
}

/* ---- streams ---------------------------------------------------------------------------- */

enum {
#define K(name, pointers) KERNEL_##name,
#include "kernels.def"
#undef K
    KERNEL_COUNT
};

typedef union any_args {
#define K(name, pointers) am_##name##_args name;
#include "kernels.def"
#undef K
} any_args;

typedef struct command {
    int kernel;
    any_args args; /* with shadow pointers */
} command;

struct am_stream {
    int used;
    pthread_t worker;
    pthread_mutex_t lock;
    pthread_cond_t more, less; /* commands were added; were finished */
    command ring[RING];
    int64_t added, finished; /* commands so far; the ring holds those between */
    int stop;
    int error; /* first code since the last report, and its message */
    char message[MESSAGE];
};

static struct am_stream streams[MAX_STREAMS];
static pthread_mutex_t streams_lock = PTHREAD_MUTEX_INITIALIZER;

static const char *kernel_name(int kernel)
{
    static const char *const names[] = {
#define K(name, pointers) #name,
#include "kernels.def"
#undef K
    };
    return names[kernel];
}

static int run_command(const command *c)
{
    switch (c->kernel) {
#define K(name, pointers)                                                                          \
    case KERNEL_##name:                                                                            \
        return am_backend_ref.name(NULL, &c->args.name);
#include "kernels.def"
#undef K
    default:
        return AM_EUNSUP;
    }
}

static void *work(void *arg)
{
    am_stream *s = arg;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (s->finished == s->added && !s->stop)
            pthread_cond_wait(&s->more, &s->lock);
        if (s->finished == s->added)
            break;
        const command *c = &s->ring[s->finished % RING];
        pthread_mutex_unlock(&s->lock);
        int rc = run_command(c);
        pthread_mutex_lock(&s->lock);
        if (rc != AM_OK && s->error == AM_OK) {
            s->error = rc;
            if (rc == AM_EUNSUP)
                snprintf(s->message, MESSAGE, "%s: dtype or mode not supported by fence",
                         kernel_name(c->kernel));
            else
                snprintf(s->message, MESSAGE, "%s", am_error_message());
        }
        s->finished++;
        pthread_cond_broadcast(&s->less);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static int fence_stream_new(am_stream **out)
{
    am_stream *s = NULL;
    int rc = AM_OK;
    pthread_mutex_lock(&streams_lock);
    for (int i = 0; i < MAX_STREAMS && !s; i++)
        if (!streams[i].used)
            s = &streams[i];
    if (!s) {
        rc = am_kernel_fail(AM_EDEVICE, "fence: more than %d streams", MAX_STREAMS);
        goto out;
    }
    s->added = s->finished = s->stop = s->error = 0;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->more, NULL);
    pthread_cond_init(&s->less, NULL);
    sigset_t all, before; /* signals are the main thread's */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&s->worker, NULL, work, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) {
        rc = am_kernel_fail(AM_EDEVICE, "fence: no worker thread: %s", strerror(failed));
        goto out;
    }
    s->used = 1;
    *out = s;
out:
    pthread_mutex_unlock(&streams_lock);
    return rc;
}

static void fence_stream_release(am_stream *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->stop = 1;
    pthread_cond_signal(&s->more);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->worker, NULL);
    pthread_mutex_lock(&streams_lock);
    pthread_cond_destroy(&s->more);
    pthread_cond_destroy(&s->less);
    pthread_mutex_destroy(&s->lock);
    s->used = 0;
    pthread_mutex_unlock(&streams_lock);
}

static void wait_idle(am_stream *s)
{
    pthread_mutex_lock(&s->lock);
    while (s->finished < s->added)
        pthread_cond_wait(&s->less, &s->lock);
    pthread_mutex_unlock(&s->lock);
}

static int fence_stream_sync(am_stream *s)
{
    if (!s)
        return AM_OK;
    wait_idle(s);
    pthread_mutex_lock(&s->lock);
    int rc = s->error;
    if (rc != AM_OK)
        am_kernel_fail(rc, "%s", s->message);
    s->error = AM_OK;
    pthread_mutex_unlock(&s->lock);
    return rc;
}

/* A device's free waits for what still runs, as cudaFree does. */
static void fence_release(void *p, size_t bytes)
{
    (void)bytes;
    if (!p)
        return;
    pthread_mutex_lock(&streams_lock);
    for (int i = 0; i < MAX_STREAMS; i++)
        if (streams[i].used)
            wait_idle(&streams[i]);
    pthread_mutex_unlock(&streams_lock);
    size_t offset = (size_t)((char *)p - memory.device);
    pthread_mutex_lock(&blocks_lock);
    int at = 0;
    while (at < block_count && blocks[at].offset != offset)
        at++;
    if (at < block_count) {
        block gone = blocks[at];
        block_count--;
        memmove(&blocks[at], &blocks[at + 1], (size_t)(block_count - at) * sizeof(block));
        /* whole pages within go back to the system */
        size_t first = (gone.offset + 4095) / 4096 * 4096;
        size_t end = (gone.offset + gone.bytes) / 4096 * 4096;
        if (first < end)
            (void)fallocate(memory.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)first,
                            (off_t)(end - first));
    }
    pthread_mutex_unlock(&blocks_lock);
}

static int fence_transfer(am_stream *s, void *dst, const void *src, size_t bytes, int kind)
{
    int rc = fence_stream_sync(s);
    if (rc != AM_OK || bytes == 0)
        return rc;
    if ((kind != AM_COPY_TO_HOST && !in_device(dst, bytes)) ||
        (kind != AM_COPY_TO_DEVICE && !in_device(src, bytes)))
        return am_kernel_fail(AM_EINVAL, "fence: transfer outside of device memory");
    memmove(kind == AM_COPY_TO_HOST ? dst : shadow_of(dst),
            kind == AM_COPY_TO_DEVICE ? src : shadow_of(src), bytes);
    return AM_OK;
}

/* ---- kernels: copy the arguments, translate the pointers, queue ---------------------------- */

static int enqueue(am_stream *s, int kernel, const void *args, size_t bytes, int pointers)
{
    if (!s)
        return am_kernel_fail(AM_EINVAL, "fence: %s without a stream", kernel_name(kernel));
    command c;
    c.kernel = kernel;
    memcpy(&c.args, args, bytes);
    void *p[16]; /* the pointers lead each struct */
    memcpy(p, args, (size_t)pointers * sizeof *p);
    for (int i = 0; i < pointers; i++) {
        if (!p[i])
            continue;
        if (!in_device(p[i], 0))
            return am_kernel_fail(AM_EINVAL, "fence: pointer %d of %s is not device memory", i,
                                  kernel_name(kernel));
        p[i] = shadow_of(p[i]);
    }
    memcpy(&c.args, p, (size_t)pointers * sizeof *p);
    pthread_mutex_lock(&s->lock);
    while (s->added - s->finished == RING)
        pthread_cond_wait(&s->less, &s->lock);
    s->ring[s->added % RING] = c;
    s->added++;
    pthread_cond_signal(&s->more);
    pthread_mutex_unlock(&s->lock);
    return AM_OK;
}

#define K(name, pointers)                                                                          \
    static int fence_##name(am_stream *s, const am_##name##_args *args)                            \
    {                                                                                              \
        return enqueue(s, KERNEL_##name, args, sizeof *args, pointers);                            \
    }
#include "kernels.def"
#undef K

const am_backend am_backend_fence = {
    .size = sizeof(am_backend),
    .version = AM_BACKEND_VERSION,
    .name = "fence",
    .is_host = 0,
    .probe = fence_probe,
    .alloc = fence_alloc,
    .release = fence_release,
    .transfer = fence_transfer,
    .stream_new = fence_stream_new,
    .stream_release = fence_stream_release,
    .stream_sync = fence_stream_sync,
#define K(name, pointers) .name = fence_##name,
#include "kernels.def"
#undef K
};
