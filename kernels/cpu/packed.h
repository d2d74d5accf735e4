/* packed.h — weights in few bits as backend.h lays them out: tables, the parts of a packed matrix,
 * the scale of a block, and how one block is packed. The bits, of what is stored and of what it
 * stands for, are those of bitsandbytes' CPU backend (0.50), but for the last one of the mean of
 * scales whose sum f32 does not hold. Products are in packed.c, vectors in simd/packed.c. */
#ifndef AM_KERNELS_PACKED_H
#define AM_KERNELS_PACKED_H

#include <math.h>
#include <stdint.h>
#include <string.h>
#include "backend.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Codes in the order of their values: NF4's are in order. */
extern const float am_nf4[16], am_fp4[16];
extern const uint8_t am_fp4_order[16];

/* bitsandbytes' create_dynamic_map(): 256 shares of an absmax, ascending. */
const float *am_scale_map(void);

#ifdef __cplusplus
}
#endif

static inline const float *am_packed_table(const am_packing *p)
{
    return p->type == AM_PACK_NF4 ? am_nf4 : am_fp4;
}

typedef struct am_packed_parts {
    float *scale;
    uint8_t *nested, *codes; /* nested: NULL where scales are as they are */
    const float *map;
} am_packed_parts;

static inline am_packed_parts am_packed_parts_of(const void *packed, const am_packing *p)
{
    char *at = (char *)(uintptr_t)packed;
    int64_t scales = 4 * am_packing_scales(p), nested = am_packing_nested(p);
    am_packed_parts w;
    w.scale = (float *)(void *)at;
    w.nested = nested ? (uint8_t *)at + scales : NULL;
    w.codes = (uint8_t *)at + scales + nested;
    w.map = am_scale_map();
    return w;
}

/* The scale of a block of 4-bit codes. Two roundings: a sum of its own, which nothing fuses. */
static inline float am_packed_scale(const am_packed_parts *w, int64_t block)
{
    if (!w->nested)
        return w->scale[block];
    float share = w->map[w->nested[block]] * w->scale[1 + block / AM_PACK_NEST];
    return share + w->scale[0];
}

/* What an int8 code of a row stands for. */
static inline float am_packed_int8(int8_t code, float scale)
{
    float v = (float)code * scale;
    return v * 7.874015718698502e-3f;
}

/* The largest magnitude; NaN where a number is not finite. */
static inline float am_packed_absmax(const float *x, int64_t n)
{
    int32_t most = 0, bits;
    for (int64_t i = 0; i < n; i++) { /* as whole numbers, which orders NaN above all */
        memcpy(&bits, &x[i], 4);
        bits &= 0x7fffffff;
        most = bits > most ? bits : most;
    }
    float absmax;
    memcpy(&absmax, &most, 4);
    return isfinite(absmax) ? absmax : NAN;
}

/* n numbers, one block at most, to codes of 4 bits; returns the scale. A last block that is not
 * full is divided where others are multiplied, and has no scale of 0, as in bitsandbytes. */
static inline float am_pack_block(uint8_t *codes, const float *x, int64_t n, int type)
{
    enum { OF_ZERO = 7 };
    float share[AM_PACK_BLOCK];
    int32_t below[AM_PACK_BLOCK + 1] = {0}; /* how many bounds between values are */
    const float *table = type == AM_PACK_NF4 ? am_nf4 : am_fp4;
    float absmax = am_packed_absmax(x, n), above = absmax > 1e-38f ? absmax : 1e-38f;
    float inverse = 1.0f / above;
    for (int64_t i = 0; i < n; i++) {
        float s = n < AM_PACK_BLOCK ? x[i] / above : x[i] * inverse;
        share[i] = s > 1 ? 1 : s < -1 ? -1 : s;
    }
    for (int j = 0; j < 15; j++) {
        float low = table[type == AM_PACK_NF4 ? j : am_fp4_order[j]];
        float bound = (low + table[type == AM_PACK_NF4 ? j + 1 : am_fp4_order[j + 1]]) / 2;
        for (int64_t i = 0; i < n; i++)
            below[i] += share[i] > bound;
    }
    below[n] = OF_ZERO; /* the other half of a last byte */
    for (int64_t i = 0; i < n; i += 2) {
        int high = below[i], low = below[i + 1];
        if (type == AM_PACK_FP4) {
            high = am_fp4_order[high];
            low = am_fp4_order[low];
        }
        codes[i / 2] = (uint8_t)(high << 4 | low);
    }
    return n < AM_PACK_BLOCK && absmax < above ? above : absmax;
}

/* The scales of blocks in 8 bits: their mean, and codes of what they are away from it. */
void am_pack_scales(const am_packed_parts *to, float *scales, int64_t blocks);

/* A row to int8, as LLM.int8 has it; x are numbers that f16 has. Returns the scale. */
static inline float am_pack_int8_row(int8_t *codes, const float *x, int64_t n)
{
    float absmax = am_packed_absmax(x, n), scale = absmax > 0 ? 1.0f / absmax * 127.0f : 0;
    for (int64_t i = 0; i < n; i++) {
        float v = x[i] * scale;
        codes[i] = (int8_t)(isfinite(v) ? lrintf(v) : 0);
    }
    return absmax;
}

#endif
