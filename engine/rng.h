/* rng.h — Philox4x32-10 (Salmon et al. 2011), as inline integer code that every backend compiles,
 * so that all of them draw the same numbers. Holds no state: see core/rng.c.
 *
 * Element i of stream s under seed k is word (i & 3) of the block with counter
 * (i >> 2 low, i >> 2 high, s low, s high) and key k. */
#ifndef AM_RNG_H
#define AM_RNG_H

#include <math.h>
#include <stdint.h>

#ifndef AM_ANYWHERE /* code for devices says how a function is theirs, too */
#define AM_ANYWHERE static inline
#endif

AM_ANYWHERE void am_philox(uint32_t out[4], uint64_t seed, uint64_t stream, uint64_t block)
{
    uint32_t c0 = (uint32_t)block, c1 = (uint32_t)(block >> 32);
    uint32_t c2 = (uint32_t)stream, c3 = (uint32_t)(stream >> 32);
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int r = 0; r < 10; r++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

AM_ANYWHERE uint32_t am_philox_u32(uint64_t seed, uint64_t stream, uint64_t i)
{
    uint32_t w[4];
    am_philox(w, seed, stream, i >> 2);
    return w[i & 3];
}

/* Dropout keeps an element when its word is at or above this; exact for p = 0 and 1. */
AM_ANYWHERE uint64_t am_dropout_threshold(double p)
{
    return (uint64_t)(p * 4294967296.0);
}

/* Uniform in [0, 1) with 24 bits: exact in f32. */
AM_ANYWHERE double am_uniform01(uint32_t w)
{
    return (double)(w >> 8) * 0x1p-24;
}

/* Standard normal of element i by Box-Muller over the two words of its pair. */
AM_ANYWHERE double am_normal01(uint64_t seed, uint64_t stream, uint64_t i)
{
    uint32_t w[4];
    am_philox(w, seed, stream, i >> 2);
    uint32_t wa = w[i & 2], wb = w[(i & 2) + 1];
    double u = ((double)wa + 1.0) * 0x1p-32, v = (double)wb * 0x1p-32;
    double r = sqrt(-2.0 * log(u)), phi = 6.283185307179586476925 * v;
    return (i & 1) ? r * sin(phi) : r * cos(phi);
}

#endif
