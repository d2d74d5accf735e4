/* sort.cuh — sorting keys with their places, for the kernels that need an order (sort.cu). */
#pragma once

#include "common.cuh"

enum { AM_SORT_TILE = 1024, AM_SORT_SLOT = 2 };

/* [rows, n], in scratch: the keys, and with am_cuda_sort the place in its row that each came from.
 * The others are where runs are merged to. */
struct am_cuda_order {
    uint64_t *keys, *other_keys;
    uint32_t *places, *other_places;
};

/* Room for keys, which the caller then writes. AM_ENOMEM; AM_EUNSUP for more than 2^31 a row. */
extern "C" int am_cuda_sort_room(am_stream *s, am_cuda_order *o, int64_t rows, int64_t n);
/* Sorts each row; equal keys stay in their order. keys and places may have changed buffers. */
extern "C" int am_cuda_sort(am_stream *s, am_cuda_order *o, int64_t rows, int64_t n);
