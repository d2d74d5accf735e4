/* amx.h — AMX tiles: bf16 products, f32 sums (Intel SDM 3, "Intel AMX instruction set reference"),
 * of operands as pairs.h has them. */
#ifndef AM_KERNELS_AMX_H
#define AM_KERNELS_AMX_H

#include "pairs.h"

enum { T_ROWS = 16, T_BYTES = 64 }; /* of a tile: 16 x 16 words */

/* What p points to is in memory now: to gcc 12 the intrinsics that load tiles read nothing. */
AM_INLINE void written(const void *p)
{
    __asm__ volatile("" : : "r"(p) : "memory");
}

/* Tiles of 64 bytes a row: 0 to 5, of which 0 to 3 hold sums and 4 and 5 left operands, have `rows`
 * rows, and 6 and 7, right ones, 16. */
AM_INLINE void tiles_begin(int64_t rows)
{
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } __attribute__((packed, aligned(64))) config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.bytes[i] = T_BYTES;
        config.rows[i] = (uint8_t)(i < 6 ? rows : T_ROWS);
    }
    written(&config);
    _tile_loadconfig(&config);
}

/* Tiles 0 to 3: c [32, 32], rows `row` bytes apart, or zero. */
AM_INLINE void sums_begin(const float *c, size_t row, int add)
{
    const char *low = (const char *)c + T_ROWS * row;
    if (add) {
        _tile_loadd(0, c, row);
        _tile_loadd(1, c + T_ROWS, row);
        _tile_loadd(2, low, row);
        _tile_loadd(3, low + T_BYTES, row);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
}

/* Adds to them the products of 4 and 5, one below the other, and 6 and 7, side by side. */
AM_INLINE void sums_add(void)
{
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
}

AM_INLINE void sums_end(float *c, size_t row)
{
    char *low = (char *)c + T_ROWS * row;
    _tile_stored(0, c, row);
    _tile_stored(1, c + T_ROWS, row);
    _tile_stored(2, low, row);
    _tile_stored(3, low + T_BYTES, row);
}

#endif
