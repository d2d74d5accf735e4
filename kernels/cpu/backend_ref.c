/* backend_ref.c — the "ref" backend: scalar kernels, one thread, host memory. Also the host memory
 * functions that "cpu" shares. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "host.h"
#include "ref.h"

enum { HUGE_PAGE = 2 << 20 };

int am_host_probe(const char **why)
{
    *why = "";
    return 1;
}

/* Large blocks lie on huge pages where the system has them: fewer TLB misses in matrix products. */
int am_host_alloc(void **p, size_t bytes)
{
    int large = bytes >= 2 * (size_t)HUGE_PAGE;
    if (posix_memalign(p, large ? (size_t)HUGE_PAGE : 64, bytes ? bytes : 64) != 0)
        return am_kernel_fail(AM_ENOMEM, "out of memory: %zu bytes", bytes);
    if (large)
        (void)madvise(*p, bytes, MADV_HUGEPAGE);
    return AM_OK;
}

void am_host_release(void *p, size_t bytes)
{
    (void)bytes;
    free(p);
}

int am_host_transfer(am_stream *s, void *dst, const void *src, size_t bytes, int kind)
{
    (void)s;
    (void)kind;
    if (bytes)
        memmove(dst, src, bytes);
    return AM_OK;
}

int am_host_stream_new(am_stream **s)
{
    *s = NULL;
    return AM_OK;
}

void am_host_stream_release(am_stream *s)
{
    (void)s;
}

int am_host_stream_sync(am_stream *s)
{
    (void)s;
    return AM_OK;
}

const am_backend am_backend_ref = {
    .size = sizeof(am_backend),
    .version = AM_BACKEND_VERSION,
    .name = "ref",
    .is_host = 1,
    .probe = am_host_probe,
    .alloc = am_host_alloc,
    .release = am_host_release,
    .transfer = am_host_transfer,
    .stream_new = am_host_stream_new,
    .stream_release = am_host_stream_release,
    .stream_sync = am_host_stream_sync,
#define K(name, pointers) .name = am_ref_##name,
#include "kernels.def"
#undef K
};
