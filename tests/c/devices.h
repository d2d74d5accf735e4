/* devices.h — the devices that tests go over. */
#ifndef DEVICES_H
#define DEVICES_H

#include <stdlib.h>

#include "am.h"

/* How many, from 0 on: the last is cuda, where AMLUA_CUDA names its module. */
static inline int devices_here(void)
{
    return getenv("AMLUA_CUDA") ? am_device_count() : am_device_count() - 1;
}

#endif
