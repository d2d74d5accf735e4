/* device.c — the table of devices. Three backends are linked in, CUDA's is a module that is opened
 * on first use. Holds no memory accounting: see mem.c. */
#include "device.h"

#include <stdlib.h>
#include <string.h>

#include "../image/jobs.h"
#include "error.h"
#include "mem.h"
#include "module.h"

static struct {
    const am_backend *be;
    am_stream *stream;
} devices[AM_DEVICE_COUNT];

static const char *const names[AM_DEVICE_COUNT] = {"cpu", "ref", "fence", "cuda"};
static int gpu = -1;              /* which of them is AM_DEVICE_CUDA; -1: none was chosen */
static int (*settle_ranks)(void); /* am_device_settle's; or NULL */

static int alloc_for_module(void **p, size_t bytes)
{
    return am_device_alloc_own(AM_DEVICE_CUDA, p, bytes);
}

static int module_backend(const am_backend **be)
{
    static const am_backend *opened;
    static const am_backend_host host = {
        .size = sizeof host, .fail = am_fail_va, .alloc = alloc_for_module};
    if (!opened) {
        am_backend_entry_fn entry;
        AM_TRY(am_module_open((void **)&entry, "cuda", getenv("AMLUA_CUDA"), "am_backend_entry",
                              AM_EDEVICE));
        opened = entry(&host);
    }
    *be = opened;
    return AM_OK;
}

static int find_backend(const am_backend **be, int device)
{
    switch (device) {
    case AM_DEVICE_CPU:
        *be = am_backend_cpu();
        return AM_OK;
    case AM_DEVICE_REF:
        *be = &am_backend_ref;
        return AM_OK;
    case AM_DEVICE_FENCE:
        *be = &am_backend_fence;
        return AM_OK;
    default:
        return module_backend(be);
    }
}

int am_device_open(int device, const am_backend **be, am_stream **stream)
{
    if (device < 0 || device >= AM_DEVICE_COUNT)
        return am_fail(AM_EINVAL, "device %d does not exist", device);
    if (!devices[device].be) {
        const am_backend *b;
        const char *why = "";
        AM_TRY(find_backend(&b, device));
        if (!b || b->size != sizeof(am_backend) || b->version != AM_BACKEND_VERSION)
            return am_fail(AM_EDEVICE, "backend %s was built for another version of amlua",
                           names[device]);
        if (b->probe(&why) < 1)
            return am_fail(AM_EDEVICE, "device %s can't be used: %s", names[device], why);
        if (b->use)
            AM_TRY(b->use(gpu < 0 ? 0 : gpu));
        if (b->stream_new)
            AM_TRY(b->stream_new(&devices[device].stream));
        devices[device].be = b;
    }
    *be = devices[device].be;
    if (stream)
        *stream = devices[device].stream;
    return AM_OK;
}

/* The number behind "cuda:"; -1 where there is none. */
static int ordinal_of(const char *name)
{
    char *end;
    if (strncmp(name, "cuda:", 5) != 0 || name[5] < '0' || name[5] > '9')
        return -1;
    long n = strtol(name + 5, &end, 10);
    return *end || n > 9999 ? -1 : (int)n;
}

int am_device_find(int *device, const char *name)
{
    int n = name ? ordinal_of(name) : -1;
    if (n >= 0 && devices[AM_DEVICE_CUDA].be && n != (gpu < 0 ? 0 : gpu))
        return am_fail(AM_EUNSUP,
                       "this process uses cuda:%d, and a process has one GPU: start a rank for "
                       "each",
                       gpu < 0 ? 0 : gpu);
    if (n >= 0) {
        gpu = n;
        name = "cuda";
    } else if (name && strcmp(name, "cpu:0") == 0) {
        name = "cpu";
    }
    for (int i = 0; name && i < AM_DEVICE_COUNT; i++)
        if (strcmp(name, names[i]) == 0) {
            *device = i;
            return AM_OK;
        }
    return am_fail(AM_EUNSUP, "no device \"%s\" here; there are cpu, cuda, ref and fence",
                   name ? name : "");
}

const char *am_device_name(int device)
{
    return device >= 0 && device < AM_DEVICE_COUNT ? names[device] : "?";
}

int am_device_count(void)
{
    return AM_DEVICE_COUNT;
}

int am_device_is_host(int device)
{
    const am_backend *be;
    return am_device_open(device, &be, NULL) == AM_OK && be->is_host;
}

int am_device_about(const char **about, int device)
{
    const am_backend *be;
    AM_TRY(am_device_open(device, &be, NULL));
    *about = be->about ? be->about() : "";
    return AM_OK;
}

int am_gpu_count(int *count)
{
    const am_backend *be;
    const char *why = "";
    AM_TRY(module_backend(&be));
    int n = be ? be->probe(&why) : 0;
    if (n < 1)
        return am_fail(AM_EDEVICE, "no GPU can be used: %s", why);
    *count = n;
    return AM_OK;
}

int am_gpu_built(const char **text)
{
    const am_backend *be;
    AM_TRY(module_backend(&be));
    if (!be)
        return am_fail(AM_EDEVICE, "amlua_cuda.so was built for another version of amlua");
    *text = be->built();
    return AM_OK;
}

int am_device_settle(int device)
{
    return device == AM_DEVICE_CUDA && settle_ranks ? settle_ranks() : AM_OK;
}

void am_device_set_settle(int (*settle)(void))
{
    settle_ranks = settle;
}

int am_device_sync(int device)
{
    const am_backend *be;
    am_stream *stream;
    AM_TRY(am_device_open(device, &be, &stream));
    AM_TRY(am_device_settle(device));
    return be->stream_sync ? be->stream_sync(stream) : AM_OK;
}

void am_shutdown(void)
{
    for (int i = 0; i < AM_DEVICE_COUNT; i++) {
        if (!devices[i].be)
            continue;
        if (devices[i].be->stream_sync)
            (void)devices[i].be->stream_sync(devices[i].stream);
        (void)am_mem_trim(i);
        if (devices[i].be->stream_release)
            devices[i].be->stream_release(devices[i].stream);
        devices[i].stream = NULL;
        devices[i].be = NULL;
    }
    am_image_shutdown();
    (void)am_signals_watch(AM_SIGNALS_OFF);
}
