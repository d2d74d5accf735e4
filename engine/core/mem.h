/* mem.h — the only way to allocate in the engine. Host memory for the engine's own structures;
 * device memory for storages, cached and counted per device. */
#ifndef AM_MEM_H
#define AM_MEM_H

#include <stddef.h>
#include "../am.h"

/* Host structures: zeroed; AM_ENOMEM (also when injected by am_mem_fail_at). NULL may be freed. */
int am_alloc(void **p, size_t bytes);
int am_realloc(void **p, size_t bytes); /* new bytes are not zeroed */
void am_free(void *p);
/* Grow an array of `size`-byte items so that it holds `need`; doubles. *cap in items. */
int am_grow(void **items, size_t *cap, size_t need, size_t size);
int am_strdup(char **out, const char *s);

/* Device memory, 64-byte aligned, uninitialised; cached on release. */
int am_device_alloc(int device, void **p, size_t bytes);
void am_device_free(int device, void *p, size_t bytes);
/* The same without slack, and without a cache: for what stays. */
int am_device_alloc_exact(int device, void **p, size_t bytes);
void am_device_free_exact(int device, void *p, size_t bytes);
/* For a backend's own use: not counted, and the backend's to release. */
int am_device_alloc_own(int device, void **p, size_t bytes);

#endif
