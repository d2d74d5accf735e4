/* host.h — memory and copies of backends whose device is the host: the non-kernel half of a vtable,
 * shared by ref and cpu. */
#ifndef AM_KERNELS_HOST_H
#define AM_KERNELS_HOST_H

#include "backend.h"

int am_host_probe(const char **why);
int am_host_alloc(void **p, size_t bytes);
void am_host_release(void *p, size_t bytes);
int am_host_transfer(am_stream *s, void *dst, const void *src, size_t bytes, int kind);
int am_host_stream_new(am_stream **s);
void am_host_stream_release(am_stream *s);
int am_host_stream_sync(am_stream *s);

#endif
