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

/* Where released blocks wait. What a graph is recorded with (graph.c) comes from a pool of its own,
 * since the graph goes on using it. */
enum { AM_POOL_COMMON, AM_POOL_GRAPHS, AM_POOL_COUNT };

/* Device memory, 64-byte aligned, uninitialised; released into the pool that it came from. */
int am_device_alloc(int device, int pool, void **p, size_t bytes);
void am_device_free(int device, int pool, void *p, size_t bytes);
/* The same without slack, and without a cache: for what stays. */
int am_device_alloc_exact(int device, void **p, size_t bytes);
void am_device_free_exact(int device, void *p, size_t bytes);
/* For a backend's own use: not counted, and the backend's to release. */
int am_device_alloc_own(int device, void **p, size_t bytes);

/* The pool of tensors that are made on the device from now on. */
int am_mem_pool(int device);
void am_mem_set_pool(int device, int pool);
/* Blocks of the graphs' pool that are in use. */
int64_t am_mem_graph_blocks(int device);
/* Give that pool back: no graph is left. */
void am_mem_drop_graph_pool(int device);

#endif
