/* attention_bwd.cuh — what the backward kernels of attention share beside attention.cuh: the plan
 * of tiles of queries that dk and dv are summed over. Holds no kernel. */
#pragma once

#include "attention.cuh"

/* Queries first..first+count-1 of a batch row, all of one sample: tiles begin where it begins, so
 * that what its queries add up to does not depend on where it lies in the pack. They see keys
 * low..high-1 or fewer, and all of them see all_low..all_high-1. A tile that sees nothing is left
 * out. */
struct __align__(16) am_query_tile
{
    int first, count, low, high, all_low, all_high;
};

struct am_query_tiles {
    const am_query_tile *tiles; /* [b, t] */
    const int *count;           /* [b] */
};

constexpr int AM_PLAIN_QUERIES = 64; /* a tile's queries in attention_plain.cu */

/* Through the heads of a group, and the tiles of each: all warps alike, 32 tiles looked at a time.
 */
struct am_tile_walk {
    am_query_tile tile;
    int64_t head;
    const am_query_tile *tiles;
    int count, base; /* base: of those looked at */
    int64_t heads;
    unsigned found; /* of them */
};

AM_DEVICE am_tile_walk am_tiles_begin(am_query_tiles plan, const am_attention_shape &x, int64_t b,
                                      int64_t heads)
{
    am_tile_walk w;
    w.tiles = plan.tiles + b * x.t;
    w.count = plan.count[b];
    w.base = -32;
    w.head = 0;
    w.heads = heads;
    w.found = 0;
    return w;
}

/* To the next tile that sees one of keys k0..k1-1; false when there is none. */
AM_DEVICE bool am_tiles_next(am_tile_walk &w, int k0, int k1)
{
    while (!w.found) {
        w.base += 32;
        if (w.base >= w.count) {
            w.base = 0;
            if (++w.head >= w.heads || w.count == 0)
                return false;
        }
        int i = w.base + (threadIdx.x & 31);
        bool sees = i < w.count && w.tiles[i].low < k1 && w.tiles[i].high > k0;
        w.found = __ballot_sync(AM_WARP, sees);
    }
    w.tile = w.tiles[w.base + __ffs((int)w.found) - 1];
    w.found &= w.found - 1;
    return true;
}

int am_attention_plain_bwd(am_stream *s, const am_attention_bwd_args *a, am_query_tiles plan);
