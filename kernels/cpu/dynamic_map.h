/* dynamic_map.h — optimizer state in 8 bits: codes of a map of 256 shares of a block's largest
 * value (Dettmers et al. 2021, "8-bit Optimizers via Block-wise Quantization"; the map is
 * bitsandbytes' create_dynamic_map). Holds the conversions of a block; the steps that use them are
 * in ref_optim.c and simd/optim.c.
 *
 * The map has seven decades, from 1e-7 to 1; each has twice the values of the one below it, evenly
 * spaced. Zero and one are values, too. The signed map has 1, 2, … 64 values a decade and their
 * negatives, the unsigned one 2, 4, … 128. A number becomes the nearest value. One thing is not
 * bitsandbytes': a second moment above zero never becomes zero, since the step divides by its root.
 */
#ifndef AM_KERNELS_DYNAMIC_MAP_H
#define AM_KERNELS_DYNAMIC_MAP_H

#include <math.h>
#include <stdint.h>
#include <string.h>
#include "backend.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A share of at least 2^-23 is looked up by its exponent and 7 bits more; the lowest cell has all
 * below. No cell holds more than one bound. */
enum { AM_MAP_LOW = (127 - 23) << 7, AM_MAP_CELLS = (23 << 7) + 1 };

typedef struct am_dynamic_map {
    int zero, negatives;         /* code of zero; number of negative values */
    float value[256];            /* of each code, ascending */
    float bound[256];            /* [j]: |share| above it is at least the j+1st value from zero */
    uint8_t guess[AM_MAP_CELLS]; /* bounds below a cell */
} am_dynamic_map;

const am_dynamic_map *am_dynamic_map_signed(void);
const am_dynamic_map *am_dynamic_map_unsigned(void);

/* x[i] = value of codes[i] times absmax */
static inline void am_from_codes(float *x, const uint8_t *codes, float absmax, int64_t n,
                                 const am_dynamic_map *map)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = map->value[codes[i]] * absmax;
}

/* The codes of n numbers, a block at most; returns their absmax. A NaN or an infinity makes NaNs of
 * the block. In passes, so that all but the look-up are vectors. */
static inline float am_to_codes(uint8_t *codes, const float *x, int64_t n,
                                const am_dynamic_map *map)
{
    float share[AM_STATE_BLOCK], absmax;
    int32_t cell[AM_STATE_BLOCK], most = 0, bits;
    for (int64_t i = 0; i < n; i++) { /* as whole numbers, which orders NaN above all */
        memcpy(&bits, &x[i], 4);
        bits &= 0x7fffffff;
        most = bits > most ? bits : most;
    }
    memcpy(&absmax, &most, 4);
    float whole = most ? absmax : 1;
    for (int64_t i = 0; i < n; i++) {
        share[i] = fabsf(x[i]) / whole;
        memcpy(&bits, &share[i], 4);
        bits = ((bits & 0x7fffffff) >> 16) - AM_MAP_LOW; /* a NaN may have a sign */
        bits = bits > 0 ? bits : 0;
        cell[i] = bits < AM_MAP_CELLS ? bits : AM_MAP_CELLS - 1;
    }
    for (int64_t i = 0; i < n; i++) {
        int steps = map->guess[cell[i]];
        cell[i] = steps + (share[i] > map->bound[steps]);
    }
    for (int64_t i = 0; i < n; i++) {
        int up = cell[i], down = up < map->negatives ? up : map->negatives;
        codes[i] = (uint8_t)(map->zero + (x[i] < 0 ? -down : up));
    }
    return absmax;
}

#ifdef __cplusplus
}
#endif

#endif
