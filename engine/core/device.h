/* device.h — the devices of this process: a backend and a stream each. */
#ifndef AM_DEVICE_H
#define AM_DEVICE_H

#include "../backend.h"

/* AM_DEVICE_CUDA is the one GPU of this process. */
enum { AM_DEVICE_CPU, AM_DEVICE_REF, AM_DEVICE_FENCE, AM_DEVICE_CUDA, AM_DEVICE_COUNT };

/* The device's backend, opened on first use; AM_EDEVICE when it can't be. */
int am_device_open(int device, const am_backend **be, am_stream **stream);

/* To be called before this thread waits for the device, or reads what it wrote: it may wait for
 * other ranks there, who may never come. */
int am_device_settle(int device);
/* Who sees to that: engine/dist/, once ranks have met on GPUs. */
void am_device_set_settle(int (*settle)(void));

#endif
