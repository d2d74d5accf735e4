/* fp8.h — numbers in 8 bits, one at a time: the formats e4m3 and e5m2, and the scale of numbers
 * that share one. What the kernels do with them is said in backend.h. */
#ifndef AM_KERNELS_FP8_H
#define AM_KERNELS_FP8_H

#include <math.h>
#include <string.h>
#include "backend.h"

#ifndef AM_ANYWHERE /* code for devices says how a function is theirs, too */
#define AM_ANYWHERE static inline
#endif

/* A format as bits of an f32. */
typedef struct fp8_format {
    int shift;      /* of the mantissa */
    uint32_t bias;  /* the difference of the exponents' biases, behind the shift */
    uint32_t least; /* the least normal number */
    uint32_t top;   /* the largest number */
    float align;    /* adding it to a number below `least` makes that a multiple of the last bit */
    double max;
} fp8_format;

AM_ANYWHERE fp8_format fp8_format_of(int format)
{
    const fp8_format e4m3 = {20, 120u << 3, 121u << 23, 0x43e00000u, 16384.0f, 448};
    const fp8_format e5m2 = {21, 112u << 2, 113u << 23, 0x47600000u, 128.0f, 57344};
    return format == AM_FP8_E5M2 ? e5m2 : e4m3;
}

/* What numbers up to `amax` are multiplied by; NaN where that is. */
AM_ANYWHERE float fp8_scale(double amax, double max, int power_of_2)
{
    float scale = (float)(max / (amax < 1e-12 ? 1e-12 : amax));
    return power_of_2 ? (float)exp2((double)floorf((float)log2((double)scale))) : scale;
}

AM_ANYWHERE uint32_t fp8_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}

/* To nearest, ties to even, at most the largest number; NaN has one code. */
AM_ANYWHERE uint8_t fp8_encode(float v, const fp8_format *f)
{
    uint32_t u = fp8_bits(v), sign = u >> 24 & 0x80u, a = u & 0x7fffffffu;
    if (a > 0x7f800000u)
        return 0x7f;
    if (a > f->top)
        a = f->top;
    if (a < f->least) {
        float aligned;
        memcpy(&aligned, &a, 4);
        return (uint8_t)(sign | (fp8_bits(aligned + f->align) - fp8_bits(f->align)));
    }
    a += (1u << (f->shift - 1)) - 1 + (a >> f->shift & 1u);
    return (uint8_t)(sign | ((a >> f->shift) - f->bias));
}

static inline float fp8_decode(uint8_t q, int format)
{
    int e5m2 = format == AM_FP8_E5M2, mantissa = e5m2 ? 2 : 3, bias = e5m2 ? 15 : 7;
    int exponent = (q & 0x7f) >> mantissa, rest = q & ((1 << mantissa) - 1);
    float v;
    if (e5m2 ? exponent == 31 : (q & 0x7f) == 0x7f)
        v = e5m2 && rest == 0 ? (float)INFINITY : (float)NAN;
    else if (exponent == 0)
        v = ldexpf((float)rest, 1 - bias - mantissa);
    else
        v = ldexpf((float)(rest + (1 << mantissa)), exponent - bias - mantissa);
    return q & 0x80 ? -v : v;
}

#endif
