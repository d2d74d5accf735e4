/* backend_cpu.c — the "cpu" backend's vtable. Slots without a fast kernel keep ref's. */
#include <pthread.h>
#include "host.h"
#include "ref.h"

static am_backend cpu;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void set_up(void)
{
    cpu = am_backend_ref;
    cpu.name = "cpu";
}

const am_backend *am_backend_cpu(void)
{
    pthread_once(&once, set_up);
    return &cpu;
}

const char *am_backend_cpu_isa(void)
{
    return "generic";
}
