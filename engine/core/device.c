/* device.c — the table of devices. Backends that need other libraries (CUDA) will be opened as
 * shared objects here; today's three are linked in. Holds no memory accounting: see mem.c. */
#include "device.h"

#include <string.h>

#include "../image/jobs.h"
#include "error.h"
#include "mem.h"

static struct {
    const am_backend *be;
    am_stream *stream;
} devices[AM_DEVICE_COUNT];

static const char *const names[AM_DEVICE_COUNT] = {"cpu", "ref", "fence"};

static const am_backend *linked(int device)
{
    switch (device) {
    case AM_DEVICE_CPU:
        return am_backend_cpu();
    case AM_DEVICE_REF:
        return &am_backend_ref;
    default:
        return &am_backend_fence;
    }
}

int am_device_open(int device, const am_backend **be, am_stream **stream)
{
    if (device < 0 || device >= AM_DEVICE_COUNT)
        return am_fail(AM_EINVAL, "device %d does not exist", device);
    if (!devices[device].be) {
        const am_backend *b = linked(device);
        const char *why = "";
        if (b->size != sizeof(am_backend) || b->version != AM_BACKEND_VERSION)
            return am_fail(AM_EDEVICE, "backend %s was built for another version of amlua",
                           names[device]);
        if (b->probe(&why) < 1)
            return am_fail(AM_EDEVICE, "device %s can't be used: %s", names[device], why);
        if (b->stream_new)
            AM_TRY(b->stream_new(&devices[device].stream));
        devices[device].be = b;
    }
    *be = devices[device].be;
    if (stream)
        *stream = devices[device].stream;
    return AM_OK;
}

int am_device_find(int *device, const char *name)
{
    if (name && strcmp(name, "cpu:0") == 0)
        name = "cpu";
    for (int i = 0; name && i < AM_DEVICE_COUNT; i++)
        if (strcmp(name, names[i]) == 0) {
            *device = i;
            return AM_OK;
        }
    return am_fail(AM_EUNSUP, "no device \"%s\" here; there are cpu, ref and fence",
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

int am_device_sync(int device)
{
    const am_backend *be;
    am_stream *stream;
    AM_TRY(am_device_open(device, &be, &stream));
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
