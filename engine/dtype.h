/* dtype.h — element types as kernels see them: the enum's sizes and the bf16/f16 conversions.
 * Holds no tensors and no allocation; engine and kernels both include it. */
#ifndef AM_DTYPE_H
#define AM_DTYPE_H

#include <stdint.h>
#include <string.h>
#include "am.h"

int am_dtype_is_float(int dtype);
const char *am_dtype_safetensors(int dtype); /* its name in a safetensors header */

/* bfloat16 is the upper half of a float; rounding is to nearest, ties to even; NaN stays NaN. */
static inline float am_bf16_to_f32(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static inline uint16_t am_f32_to_bf16(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((u >> 16) | 0x40u);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

/* IEEE binary16, subnormals included. */
static inline float am_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, e = (h >> 10) & 0x1fu, m = h & 0x3ffu, u;
    if (e == 0x1f) {
        u = sign | 0x7f800000u | (m << 13);
    } else if (e != 0) {
        u = sign | ((e + 112u) << 23) | (m << 13);
    } else {
        float f = (float)m * 5.9604644775390625e-8f; /* 2^-24 */
        memcpy(&u, &f, 4);
        u |= sign;
    }
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static inline uint16_t am_f32_to_f16(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    uint32_t sign = (u >> 16) & 0x8000u, a = u & 0x7fffffffu;
    if (a > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u);
    if (a >= 0x477ff000u) /* rounds to 65536 or more */
        return (uint16_t)(sign | 0x7c00u);
    if (a < 0x38800000u) { /* below the smallest normal: adding 0.5 aligns the mantissa */
        float t;
        memcpy(&t, &a, 4);
        t += 0.5f;
        memcpy(&a, &t, 4);
        return (uint16_t)(sign | (a - 0x3f000000u));
    }
    a += 0xc8000fffu + ((a >> 13) & 1u);
    return (uint16_t)(sign | (a >> 13));
}

#endif
